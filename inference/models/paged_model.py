"""A `Model` over one pool of keys and values, one slot a token, with the radix tree of `prefix_cache` on top."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor

from inference.models import Best
from inference.models.deepseek_v2 import DeepseekV2
from inference.models.llama import Llama
from inference.models.rows import Group, Rows
from inference.models.slots import Slots
from inference.prefix_cache import Lease, OutOfSlots, PrefixCache

if TYPE_CHECKING:
    from inference.models.graphs import Graphs
    from inference.models.prompts import Prompts


SMALLEST_CHUNK = 64
"""Prompt tokens a forward below which nothing is gained on a device out of memory."""
RESERVE = 64
"""Slots that a decoding sequence takes at a time: one by one, those of several would lie scattered in a full pool."""


@attrs.define(eq=False)
class PagedSequence:
    """Tokens, and the slots of the first `computed` of them; those past the lease's length are its own."""

    ids: list[int]
    lease: Lease
    slots: Slots
    reused: int = 0
    shares: bool = True
    """Whether its tokens go into the tree; else it keeps to slots of its own, computed by itself."""
    allowed: Tensor | None = None
    row: int = -1
    written: int = 0
    spare: list[int] = attrs.field(factory=list[int])
    """Slots lent to it that its next tokens will take."""

    @property
    def computed(self) -> int:
        """Tokens whose KV stands in the pool."""
        return len(self.slots)


class PagedModel:
    """See `inference.models.Model`."""

    def __init__(self, model: DeepseekV2 | Llama, window: int, slots: int, dtype: torch.dtype, form: str):
        """`slots`: tokens that the pool holds; `dtype`: of what is kept there; `form`: of the weights, in words."""
        self._model = model
        self.window, self.device, self.dtype = min(window, slots), model.device, form
        # Each chunk expands the latents before it anew, so that one takes less than several.
        self.chunk, self.longest_chunk = (128, 1280) if model.device == "cpu" else (512, 4096)
        self.cuts = True
        self.cache = PrefixCache(slots)
        c = model.config
        # Untouched pages cost no memory: slots are given out from the bottom. The last is nobody's.
        self._pool = torch.empty(c.num_hidden_layers, slots + 1, c.kv, dtype=dtype, device=model.device)
        self._graphs: Graphs | None = None
        self._prompts: Prompts | DeepseekV2 | Llama = model
        self.costs: list[float] = []
        self.best: Best | None = None

    def prepare(self, progress: Callable[[float], None]) -> None:
        """Has steps of few tokens run as graphs, where there are kernels for this model."""
        if self.device.partition(":")[0] != "cuda" or not isinstance(self._model, DeepseekV2):
            return
        from inference.models.graphs import Graphs
        from inference.models.prompts import Prompts
        from inference.models.steps import runs

        if runs(self._model):
            graphs = Graphs(self._model, self._pool, self.window, self.cache.slots)
            graphs.prepare(lambda share: progress(0.8 * share))
            prompts = Prompts(self._model, self._pool, self.cache.slots)
            prompts.prepare(lambda share: progress(0.8 + 0.2 * share))
            self._graphs, self.costs, self._prompts = graphs, graphs.costs, prompts

    @property
    def weights(self) -> DeepseekV2 | Llama:
        """The model itself."""
        return self._model

    @property
    def bytes_a_token(self) -> int:
        """Of KV."""
        return self._pool[:, 0].numel() * self._pool.element_size()

    def begin(self, ids: list[int], *, reuse: bool) -> PagedSequence:
        """See `Model.begin`."""
        lease, slots = self.cache.match(ids, len(ids) - 1 if reuse else 0)
        return PagedSequence(list(ids), lease, Slots(slots, self.device), len(slots), reuse)

    def fork(self, sequence: PagedSequence) -> PagedSequence:
        """See `Model.fork`."""
        if not sequence.shares:
            return self.begin(sequence.ids, reuse=False)
        self._share(sequence, sequence.computed)
        lease = self.cache.fork(sequence.lease)
        return PagedSequence(list(sequence.ids), lease, Slots(list(sequence.slots.all), self.device), sequence.computed)

    def forward(
        self, rows: list[tuple[PagedSequence, int, int]], unwanted: Callable[[], bool] = lambda: False
    ) -> Tensor:
        """See `Model.forward`."""
        if self.device == "cpu":
            self._model.threads.choose()
        new = self._allocate(rows)
        try:
            if self._graphs and self._graphs.takes(rows):
                logits, self.best = self._graphs.forward(rows)
            else:
                logits, self.best = self._prompts.forward(self._pool, self._rows(rows, new, unwanted)), None
        except BaseException as error:
            for sequence, count, _ in rows:
                self.cache.release(sequence.slots.cut(sequence.computed - count))
                sequence.written = min(sequence.written, sequence.computed)
            if isinstance(error, RuntimeError) and "out of memory" in str(error):  # TorchScript wraps it
                raise torch.OutOfMemoryError(str(error)) from error
            raise
        for sequence, count, outputs in rows:
            if count > outputs:  # a prompt's chunk serves others from now on; what follows it may yet be taken back
                self._share(sequence, sequence.computed - outputs + 1)
        return logits

    def ahead(self, sequences: list[PagedSequence]) -> Best | None:
        """See `Model.ahead`."""
        if self._graphs is None or self.best is None:
            return None
        try:
            self._allocate([(sequence, 1, 1) for sequence in sequences])
        except OutOfSlots:
            return None
        self.best = self._graphs.ahead(sequences)
        return self.best

    def _allocate(self, rows: list[tuple[PagedSequence, int, int]]) -> list[int]:
        new: list[int] = []
        done: list[tuple[PagedSequence, int]] = []
        try:
            for sequence, count, _ in rows:
                slots = self._slots_for(sequence, count)
                sequence.slots.extend(slots)
                done.append((sequence, count))
                new += slots
        except BaseException:
            for sequence, count in done:
                self.cache.release(sequence.slots.cut(sequence.computed - count))
            raise
        return new

    def _slots_for(self, sequence: PagedSequence, count: int) -> list[int]:
        """Slots of its next tokens, in a row behind its last if they are free. Raises `OutOfSlots`."""
        lacking = count - len(sequence.spare)
        if lacking > 0:
            held = sequence.spare or sequence.slots.all
            last = held[-1] if held else -1
            try:
                more = self.cache.allocate(max(lacking, RESERVE) if count <= RESERVE else lacking, after=last)
            except OutOfSlots:
                more = self.cache.allocate(lacking, after=last)
            sequence.spare += more
        slots = sequence.spare[:count]
        del sequence.spare[:count]
        return slots

    def _rows(self, rows: list[tuple[PagedSequence, int, int]], new: list[int], unwanted: Callable[[], bool]) -> Rows:
        ids: list[int] = []
        positions: list[int] = []
        outputs: list[int] = []
        groups: list[Group] = []
        for sequence, count, wanted in rows:
            length = sequence.computed
            groups.append(Group(len(ids), count, wanted, sequence.slots))
            ids += sequence.ids[length - count : length]
            positions += range(length - count, length)
            outputs += range(len(ids) - wanted, len(ids))
        made = torch.tensor([ids, positions, new]).to(self.device)
        return Rows(made[0], made[1], made[2], groups, torch.tensor(outputs, device=self.device), unwanted)

    def _share(self, sequence: PagedSequence, length: int) -> None:
        """Puts a sequence's first tokens in the tree."""
        if length <= sequence.lease.length or not sequence.shares:
            return
        before = sequence.slots.all[:length]
        shared = self.cache.extend(sequence.lease, sequence.ids, before)
        if shared != before:
            sequence.slots = Slots(shared + sequence.slots.all[length:], self.device)
            sequence.written = 0

    def cut(self, sequence: PagedSequence, length: int) -> None:
        """See `Model.cut`."""
        del sequence.ids[length:]
        if length < sequence.computed:
            sequence.spare[:0] = sequence.slots.cut(length)
            self.cache.release(sequence.spare[RESERVE:])
            del sequence.spare[RESERVE:]
            sequence.written = min(sequence.written, length)

    def end(self, sequence: PagedSequence, *, keep: bool) -> None:
        """See `Model.end`."""
        if self._graphs:
            self._graphs.release(sequence)
        self.cut(sequence, len(sequence.ids))
        if keep:
            self._share(sequence, sequence.computed)
        self.cache.release(sequence.slots.cut(sequence.lease.length) + sequence.spare)
        sequence.spare.clear()
        self.cache.end(sequence.lease)

    def shrink(self) -> bool:
        """See `Model.shrink`."""
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        smaller = max(SMALLEST_CHUNK, self.longest_chunk // 2)
        shrinks = smaller < self.longest_chunk
        self.chunk, self.longest_chunk = min(self.chunk, smaller), smaller
        return shrinks

    def forget(self) -> None:
        """See `Model.forget`."""
        self.cache.forget()

    def check(self) -> None:
        """Raises AssertionError if the cache's books don't balance."""
        self.cache.check()

    def figures(self) -> dict[str, int]:
        """See `Model.figures`."""
        cache = self.cache
        return {"slots": cache.slots, "slots_held": cache.held, "slots_free": cache.free, "evicted": cache.evictions}
