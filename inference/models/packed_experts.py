"""All experts of a layer in two tensors, the shared ones behind the routed."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor
from torch.nn import functional

from inference.checkpoint import Int8, Source
from inference.models.attention import gated
from inference.models.deepseek_v2_config import Config


@attrs.frozen
class PackedExperts:
    """gate_up [experts, 2 * inner, hidden] (gate rows first) and down [experts, hidden, inner], floats or int8.

    The shared experts, which every token visits, are cut into `shared` of the routed ones' size and stand last.
    """

    config: Config
    router: Tensor  # float32 [routed, hidden]
    gate_up: Tensor
    gate_up_scale: Tensor | None  # float32 [experts, 2 * inner]
    down: Tensor
    down_scale: Tensor | None  # float32 [experts, hidden]: a shared expert's parts have its scale each

    @property
    def shared(self) -> int:
        """How many of the experts every token visits."""
        return self.config.n_shared_experts

    def __call__(self, x: Tensor) -> Tensor:
        """[n, hidden] → [n, hidden], expert by expert; `steps` and `prompts` are faster ways to the same."""
        shares, chosen = route(self.config, self.router, x)
        out = torch.zeros_like(x)
        for expert in range(self.config.n_routed_experts):
            tokens, choices = (chosen == expert).nonzero(as_tuple=True)
            if len(tokens):
                out.index_add_(0, tokens, self._through(expert, x[tokens]) * shares[tokens, choices, None].to(x.dtype))
        for expert in range(self.config.n_routed_experts, len(self.gate_up)):
            out += self._through(expert, x)
        return out

    def _through(self, expert: int, x: Tensor) -> Tensor:
        both = functional.linear(x, self.gate_up[expert].to(x.dtype))
        if self.gate_up_scale is not None:
            both *= self.gate_up_scale[expert].to(x.dtype)
        out = functional.linear(gated(both), self.down[expert].to(x.dtype))
        return out if self.down_scale is None else out * self.down_scale[expert].to(x.dtype)


def route(config: Config, router: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Shares and numbers of each token's experts, [n, top]; in float32, as near-ties must fall alike."""
    c = config
    scores = functional.linear(x.float(), router).softmax(-1)
    if c.topk_method == "group_limited_greedy":
        grouped = scores.view(len(x), c.n_group, -1)
        best = grouped.amax(-1).topk(c.topk_group, dim=-1).indices
        allowed = torch.zeros_like(grouped[..., 0]).scatter_(1, best, 1.0)
        scores = (grouped * allowed[..., None]).view_as(scores)
    shares, chosen = scores.topk(c.num_experts_per_tok, dim=-1)
    return shares if c.routed_scaling_factor == 1 else shares * c.routed_scaling_factor, chosen


def packed_experts(config: Config, source: Source, name: str) -> PackedExperts:
    """Reads `name` + experts.N … from a source, each straight to its place."""
    c = config
    inner, hidden = c.moe_intermediate_size, c.hidden_size
    up = _Packed((c.n_routed_experts + c.n_shared_experts, 2 * inner, hidden))
    down = _Packed((c.n_routed_experts + c.n_shared_experts, hidden, inner))
    for e in range(c.n_routed_experts):
        for half, part in enumerate(("gate", "up")):
            up.put(source.matrix(f"{name}experts.{e}.{part}_proj.weight"), e, half * inner)
        down.put(source.matrix(f"{name}experts.{e}.down_proj.weight"), e)
    if c.n_shared_experts:
        gate, rise, fall = (
            source.matrix(f"{name}shared_experts.{part}_proj.weight") for part in ("gate", "up", "down")
        )
        for s in range(c.n_shared_experts):
            mine = slice(s * inner, (s + 1) * inner)
            for half, whole in enumerate((gate, rise)):
                up.put(_rows(whole, mine), c.n_routed_experts + s, half * inner)
            down.put(_columns(fall, mine), c.n_routed_experts + s)
    router = source.tensor(name + "gate.weight").float()
    return PackedExperts(c, router, up.values(), up.scale, down.values(), down.scale)


class _Packed:
    """A tensor [experts, out, in] that is filled matrix by matrix."""

    def __init__(self, shape: tuple[int, int, int]):
        self._shape = shape
        self._values: Tensor | None = None
        self.scale: Tensor | None = None

    def values(self) -> Tensor:
        assert self._values is not None
        return self._values

    def put(self, stored: Tensor | Int8, expert: int, row: int = 0) -> None:
        values = stored.values if isinstance(stored, Int8) else stored
        if self._values is None:
            self._values = torch.empty(self._shape, dtype=values.dtype, device=values.device)
            if isinstance(stored, Int8):
                self.scale = torch.empty(self._shape[:2], dtype=torch.float32, device=values.device)
        place = slice(row, row + len(values))
        self._values[expert, place] = values
        if isinstance(stored, Int8):
            assert self.scale is not None
            self.scale[expert, place] = stored.scale


def _rows(stored: Tensor | Int8, mine: slice) -> Tensor | Int8:
    return Int8(stored.values[mine], stored.scale[mine]) if isinstance(stored, Int8) else stored[mine]


def _columns(stored: Tensor | Int8, mine: slice) -> Tensor | Int8:
    return Int8(stored.values[:, mine], stored.scale) if isinstance(stored, Int8) else stored[:, mine]
