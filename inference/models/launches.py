"""What launching the kernels of a step takes: the buffers between them, and the arguments that kernels of a kind share.

Shapes of buffers stand beside them: M rows at most, h heads, c values of a latent, r rotated ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from triton import language  # pyright: ignore[reportMissingTypeStubs]

from inference import kernels
from inference.kernels.common import LATE, SOON
from inference.models.deepseek_v2 import DeepseekV2, Layer
from inference.models.feed_forward import FeedForward
from inference.models.matrices import Floating, Int8Weights, Matrix
from inference.models.sizes import power_of_two, tiles
from inference.models.step_tiles import (
    INT8_NEXT_SOON,
    INT8_TILES,
    JOINED,
    MASKS,
    MOST,
    MOST_DEPENDENT,
    NEXT_SOON,
    SHARED,
    SPLITS,
    TILES,
    Tile,
    wide,
)

KERNELS: Any = kernels  # the compiler's language has no types


class Launches:
    """The buffers of one model's steps over one pool, and how its kernels are launched."""

    def __init__(
        self,
        model: DeepseekV2,
        pool: Tensor,
        sequences: int,
        window: int,
        *,
        asked: Tensor | None = None,
        answered: Tensor | None = None,
        pdl: bool | None = None,
    ):
        """`pool`: [layers, slots, c + r]; `sequences`: rows of the table of slots; `window`: its width.

        `asked`, `answered`: int32 [turns, 6, MOST] and [turns, 2, MOST] in the host's pinned memory. Each step takes
        its inputs from one and puts its tokens and log-probabilities in the other, turn after turn; without them it
        finds its inputs in `inputs`.
        `pdl`: programmatic dependent launch; by default where the device has it (9.0 and newer).
        """
        c, device = model.config, pool.device
        self.model, self._pool = model, pool
        self.pdl = (
            pdl if pdl is not None else device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)
        )
        int8 = isinstance(model.head, Int8Weights)
        self._next_soon = INT8_NEXT_SOON if int8 else NEXT_SOON
        self.tiles = {rows: tiles | (INT8_TILES.get(rows, {}) if int8 else {}) for rows, tiles in TILES.items()}

        def room(*shape: int, dtype: torch.dtype = model.dtype) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self._type = getattr(language, str(model.dtype).removeprefix("torch."))

        h, latent, f32, i32 = c.num_attention_heads, c.latent, torch.float32, torch.int32
        everyone = c.n_routed_experts + c.n_shared_experts
        self.inputs = room(
            6, MOST, dtype=i32
        )  # token (-1 - i: the one chosen last at row i), position, slot, sequence, mask; live
        self.table = room(sequences, window, dtype=i32)
        self.masks = room(MASKS, c.vocab_size, dtype=torch.uint8)
        self._stream = room(MOST, c.hidden_size, dtype=f32)
        self._scaled = room(MOST, c.hidden_size)  # times the next norm's gain
        self._squares = room(MOST, c.hidden_size // 2, dtype=f32)
        self._inward = room(MOST, model.inward_size)
        self._queries = room(MOST, h, latent)
        self._partial = room(MOST, SPLITS, h, c.kv_lora_rank)
        self._weights = room(MOST, SPLITS, h, dtype=f32)
        self._attended = room(MOST, h * c.v_head_dim)  # of a row alone: its pieces
        self._dense = room(MOST, c.intermediate_size)
        self._hidden = room(max(1, everyone), MOST, max(1, c.moe_intermediate_size))
        self._parts = room(max(1, everyone), MOST, c.hidden_size, dtype=f32)
        self._scores = room(MOST, max(1, c.n_routed_experts), dtype=f32)
        self._shares = room(MOST, max(1, c.n_routed_experts), dtype=f32)
        self._active = room(2 * everyone + 16, dtype=i32)
        self._count = room(2, dtype=i32)
        # Of a row alone: the router's scores as sums over tiles, and whether each layer's experts are chosen.
        self._score_parts = room(tiles(c.hidden_size, 2), max(1, c.n_routed_experts), dtype=f32)
        self._chosen = room(c.num_hidden_layers, dtype=i32)
        self.logits = room(MOST, c.vocab_size, dtype=f32)
        self._blocks = tiles(c.vocab_size, 2048)
        self._best = room(MOST, self._blocks, 3, dtype=f32)
        self.tokens, self.logprobs = room(MOST, dtype=i32), room(MOST, dtype=f32)
        self.turn = room(2, dtype=i32)
        self._asked = self.inputs[None] if asked is None else asked
        self._answered = room(1, 2, MOST, dtype=i32) if answered is None else answered
        self._rotations = torch.view_as_real(model.rotations)  # [window, r / 2, 2]
        self._sides = [(_plain(layer.down), _plain(layer.output)) for layer in model.layers]
        self._feeds = [_dense(layer) for layer in model.layers]
        self._head = _plain(model.head)

    def _written(self, gain: Tensor) -> tuple[Tensor, ...]:
        """What is written of the residual stream, `gain` being that of the norm to come."""
        return self._stream, self._scaled, self._squares, gain

    def _next_norm(self, i: int) -> Tensor:
        """The gain of the norm that follows layer i."""
        layers = self.model.layers
        return layers[i + 1].attention_norm if i + 1 < len(layers) else self.model.norm

    def _normed(self, name: str, m: int, i: int, weight: tuple[Tensor, Tensor | None], out: Tensor) -> str:
        tile, (n, k) = self._tile(name, m), weight[0].shape
        # Attention reads positions and slots as it comes up: in the first layer `embed`, which writes them, must have
        # ended by then.
        self._launch(
            m,
            kernels_for(m).linear,
            (tiles(n, tile.n),),
            (self._scaled, *weight, self._squares, out, *_rows(m), n, self.model.config.rms_norm_eps),
            late=i == 0,
            K=k,
            **sums(self._sums_before(m, i)),
            **self._cut(tile, m, weight[1]),
        )
        return name

    def _add(
        self,
        name: str,
        m: int,
        x: Tensor,
        weight: tuple[Tensor, Tensor | None],
        gain: Tensor,
        router: Tensor | None = None,
        pieces: int = 1,
    ) -> str:
        """`router`, `pieces`: of a row alone; `x` is the sum of its pieces."""
        tile, (n, k) = self._tile(name, m), weight[0].shape
        scored = () if m > 1 else (router, self._score_parts)
        experts = 0 if router is None else len(router)
        self._launch(
            m,
            kernels_for(m).linear_add,
            (tiles(n, tile.n),),
            (x, *weight, *self._written(gain), *scored, *_rows(m)),
            N=n,
            K=k,
            **({} if m > 1 else {"E": experts, "ALL": power_of_two(experts), "PIECES": pieces}),
            **self._cut(tile, m, weight[1]),
        )
        return name

    def _tile(self, name: str, m: int) -> Tile:
        return self.tiles[wide(m)][name]

    def _sums_before(self, m: int, i: int) -> int:
        """Into how many sums of squares a row comes before attention in layer i (or the head), by what wrote it."""
        hidden = self.model.config.hidden_size
        if i == 0:
            return 1
        if self._feeds[i - 1]:
            return tiles(hidden, self._tile("dense down", m).n)
        return tiles(hidden, self._tile("experts down", m).n if m == 1 else JOINED)

    def _cut(self, tile: Tile, m: int, scale: Tensor | None, matrices: int = 1) -> dict[str, Any]:
        common = {"INT8": scale is not None, "BN": tile.n, "BK": tile.k, "num_warps": tile.warps}
        if m == 1:
            return common | {"AHEAD": tile.stages}
        stage = tile.k * (matrices * tile.n * (1 if scale is not None else 2) + 2 * wide(m))
        stages = max(2, min(tile.stages, SHARED // stage))
        return common | {"T": self._type, "BM": wide(m), "num_stages": stages}

    def _launch(
        self, m: int, kernel: Any, grid: tuple[int, ...], values: tuple[Any, ...], *, late: bool = False, **options: Any
    ) -> None:
        """`late`: the next one may not begin before this one has seen the one before end."""
        kernel[grid](*values, **options, **self._dependent(m, kernel, late))

    def _dependent(self, m: int, kernel: Any, late: bool) -> dict[str, int | bool]:
        if not (self.pdl and m <= MOST_DEPENDENT):
            return {"PDL": 0}
        when: Any = SOON if m == 1 and not late and kernel.fn.__name__ in self._next_soon else LATE
        return {"PDL": when.value, "launch_pdl": True}


def kernels_for(m: int) -> Any:
    """One row is multiplied and added, more go through the matrix units."""
    return KERNELS.narrow if m == 1 else KERNELS.wide


def sums(parts: int) -> dict[str, Any]:
    """Into how many sums of squares a row comes."""
    return {"TILES": parts, "WIDE": power_of_two(parts)}


def _rows(m: int) -> tuple[int, ...]:
    """The argument that only wide kernels take."""
    return () if m == 1 else (m,)


def _plain(matrix: Matrix) -> tuple[Tensor, Tensor | None]:
    """Values and scale."""
    if isinstance(matrix, Int8Weights):
        return matrix.weight.values, matrix.weight.scale
    assert isinstance(matrix, Floating)
    return matrix.weight, None


def _dense(layer: Layer) -> tuple[tuple[Tensor, Tensor | None], tuple[Tensor, Tensor | None]] | None:
    feed = layer.feed
    return (_plain(feed.gate_up), _plain(feed.down)) if isinstance(feed, FeedForward) else None
