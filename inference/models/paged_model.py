"""A `Model` over one pool of latent KV, one slot a token, with the radix tree of `prefix_cache` on top."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from inference.models.deepseek_v2 import DeepseekV2, Group, Rows
from inference.models.slots import Slots
from inference.prefix_cache import Lease, PrefixCache
from inference.threads import Threads


@attrs.define(eq=False)
class PagedSequence:
    """Tokens, and the slots of the first `computed` of them; those past the lease's length are its own."""

    ids: list[int]
    lease: Lease
    slots: Slots
    reused: int = 0
    shares: bool = True
    """Whether its tokens go into the tree; else it keeps to slots of its own, computed by itself."""

    @property
    def computed(self) -> int:
        """Tokens whose KV stands in the pool."""
        return len(self.slots)


class PagedModel:
    """See `inference.models.Model`."""

    def __init__(self, model: DeepseekV2, window: int, slots: int, dtype: torch.dtype, form: str):
        """`slots`: tokens that the pool holds; `dtype`: of the latents; `form`: of the weights, in words."""
        self._model = model
        self.window, self.device, self.dtype = min(window, slots), model.device, form
        # A chunk is what a cancellation waits for: 640 tokens of the starter are 0.4 s on two cores.
        self.chunk, self.longest_chunk = (128, 640) if model.device == "cpu" else (512, 2048)
        self.cuts = True
        self.cache = PrefixCache(slots)
        c = model.config
        # Untouched pages cost no memory: slots are given out from the bottom.
        self._pool = torch.empty(c.num_hidden_layers, slots, c.latent, dtype=dtype, device=model.device)
        self._threads = Threads() if model.device == "cpu" else None

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

    def forward(self, rows: list[tuple[PagedSequence, int, int]]) -> Tensor:
        """See `Model.forward`."""
        if self._threads:
            self._threads.choose()
        new = self._allocate(rows)
        try:
            logits = self._model.forward(self._pool, self._rows(rows, new))
        except BaseException:
            for sequence, count, _ in rows:
                self.cache.release(sequence.slots.cut(sequence.computed - count))
            raise
        for sequence, count, outputs in rows:
            if count > outputs:  # a prompt's chunk serves others from now on; what follows it may yet be taken back
                self._share(sequence, sequence.computed - outputs + 1)
        return logits

    def _allocate(self, rows: list[tuple[PagedSequence, int, int]]) -> list[int]:
        new: list[int] = []
        done: list[tuple[PagedSequence, int]] = []
        try:
            for sequence, count, _ in rows:
                last = sequence.slots.all[-1] if sequence.computed else -1
                slots = self.cache.allocate(count, after=last)
                sequence.slots.extend(slots)
                done.append((sequence, count))
                new += slots
        except BaseException:
            for sequence, count in done:
                self.cache.release(sequence.slots.cut(sequence.computed - count))
            raise
        return new

    def _rows(self, rows: list[tuple[PagedSequence, int, int]], new: list[int]) -> Rows:
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
        return Rows(made[0], made[1], made[2], groups, torch.tensor(outputs, device=self.device))

    def _share(self, sequence: PagedSequence, length: int) -> None:
        """Puts a sequence's first tokens in the tree."""
        if length <= sequence.lease.length or not sequence.shares:
            return
        before = sequence.slots.all[:length]
        shared = self.cache.extend(sequence.lease, sequence.ids, before)
        if shared != before:
            sequence.slots = Slots(shared + sequence.slots.all[length:], self.device)

    def cut(self, sequence: PagedSequence, length: int) -> None:
        """See `Model.cut`."""
        del sequence.ids[length:]
        if length < sequence.computed:
            self.cache.release(sequence.slots.cut(length))

    def end(self, sequence: PagedSequence, *, keep: bool) -> None:
        """See `Model.end`."""
        if keep:
            self._share(sequence, sequence.computed)
        self.cache.release(sequence.slots.cut(sequence.lease.length))
        self.cache.end(sequence.lease)

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
