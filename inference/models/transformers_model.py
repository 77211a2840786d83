"""Any causal language model of the transformers library: correct, and the reference for faster engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import attrs
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from inference.models import Best
from inference.prefix_cache import common_prefix
from inference.threads import MOST

KEPT = 8
"""Finished sequences whose KV is kept, the least recently used given up first."""


@attrs.define(eq=False)
class CachedSequence:
    """Tokens and the KV of the first `computed` of them.

    A cache layer never writes into its tensors (torch.cat makes new ones), so sequences share prefixes as views.
    """

    ids: list[int]
    computed: int = 0
    reused: int = 0
    cache: DynamicCache = attrs.field(factory=DynamicCache)
    allowed: Tensor | None = None


class TransformersModel:
    """A `Model` (see `inference.models`) over `model(input_ids, past_key_values)`, one sequence a call."""

    def __init__(self, model: PreTrainedModel, window: int):
        """`window`: most tokens of a sequence; the model's own limit or less."""
        self._model = model.eval()
        device = model.device
        self.window, self.device, self.dtype = window, str(device), str(model.dtype).removeprefix("torch.")
        # On a CPU a chunk is the time to a cancellation: 128 tokens of the starter take about 0.1 s on two cores.
        self.chunk = self.longest_chunk = 128 if device.type == "cpu" else 512
        self.costs: list[float] = []
        self.best: Best | None = None
        self._threads = MOST
        self._kept: list[CachedSequence] = []
        # Sliding and recurrent layers can't be cut at any token: such sequences are computed anew each time.
        self.cuts = all(kind == "full_attention" for kind in _layer_kinds(model.config))

    def begin(self, ids: list[int], *, reuse: bool) -> CachedSequence:
        """See `Model.begin`."""
        best, length = None, 0
        for kept in self._kept if reuse else []:
            common = common_prefix(kept.ids, ids, min(kept.computed, len(ids) - 1))
            if common > length:
                best, length = kept, common
        if best is None:
            return CachedSequence(list(ids))
        self._kept.remove(best)
        self._kept.append(best)
        return CachedSequence(list(ids), length, length, _first(best.cache, length))

    def fork(self, sequence: CachedSequence) -> CachedSequence:
        """See `Model.fork`."""
        length = sequence.computed
        return CachedSequence(list(sequence.ids), length, length, _first(sequence.cache, length))

    @torch.inference_mode()
    def forward(
        self, rows: list[tuple[CachedSequence, int, int]], unwanted: Callable[[], bool] = lambda: False
    ) -> Tensor:
        """See `Model.forward`; its chunks are small enough to be finished."""
        return torch.cat([self._advance(*row) for row in rows])

    def _advance(self, sequence: CachedSequence, count: int, outputs: int) -> Tensor:
        start = sequence.computed
        ids = torch.tensor([sequence.ids[start : start + count]], device=self._model.device)
        # One thread for decode steps: on a busy machine two threads wait for each other many times longer.
        torch.set_num_threads(1 if count == 1 else self._threads)
        out = cast(Any, self._model)(
            input_ids=ids, past_key_values=sequence.cache, use_cache=True, logits_to_keep=outputs
        )
        sequence.computed = start + count
        return out.logits[0].float()

    def ahead(self, sequences: list[CachedSequence]) -> None:
        """See `Model.ahead`."""

    def shrink(self) -> bool:
        """See `Model.shrink`."""
        return False

    def cut(self, sequence: CachedSequence, length: int) -> None:
        """See `Model.cut`."""
        del sequence.ids[length:]
        if length < sequence.computed:
            sequence.computed, sequence.cache = length, _first(sequence.cache, length)

    def end(self, sequence: CachedSequence, *, keep: bool) -> None:
        """See `Model.end`."""
        if not keep or not self.cuts or not sequence.computed:
            return
        mine, length = sequence.ids, sequence.computed
        self._kept = [
            kept
            for kept in self._kept
            if kept.computed > length or common_prefix(kept.ids, mine, kept.computed) < kept.computed
        ][-(KEPT - 1) :]
        self._kept.append(sequence)

    def forget(self) -> None:
        """See `Model.forget`."""
        self._kept.clear()

    def figures(self) -> dict[str, int]:
        """See `Model.figures`."""
        return {"sequences": len(self._kept), "slots_held": sum(kept.computed for kept in self._kept)}


def _first(cache: DynamicCache, length: int) -> DynamicCache:
    """A cache of the first `length` tokens, its tensors views of the other's."""
    first = DynamicCache()
    for layer in cast(list[DynamicLayer], cache.layers):
        keys, values = cast(Tensor, layer.keys), cast(Tensor, layer.values)
        view = DynamicLayer()
        view.lazy_initialization(keys, values)
        view.keys, view.values = keys[..., :length, :], values[..., :length, :]
        first.layers.append(view)
    return first


def _layer_kinds(config: Any) -> list[str]:
    text = config.get_text_config(decoder=True)
    kinds = getattr(text, "layer_types", None) or ["full_attention"]
    return ["sliding"] if getattr(text, "sliding_window", None) and not getattr(text, "layer_types", None) else kinds
