"""Steps of 1 to 64 rows of DeepSeek-V2 on a CUDA device: the kernels in order, captured as graphs.

A step's inputs are five small rows of integers, its outputs each row's likeliest token with its log-probability, and
the logits. Shapes of buffers stand beside them: M rows at most, h heads, c values of a latent, r rotated ones.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import attrs
import torch
from torch import Tensor
from triton import language  # pyright: ignore[reportMissingTypeStubs]

from inference import kernels
from inference.models.deepseek_v2 import DeepseekV2, FeedForward, Layer
from inference.models.matrices import Floating, Int8Weights, Matrix
from inference.models.packed_experts import PackedExperts
from inference.models.sizes import power_of_two, tiles

KERNELS: Any = kernels  # the compiler's language has no types
MOST = 64
"""Rows of the largest step."""
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Rows for which there is a graph; between them a step is filled up with rows that do nothing."""
SPLITS = 64
"""Parts in which a row attends to its tokens, whatever their number: sums must not depend on the other rows."""
MASKS = 16
"""Masks over the vocabulary kept on the device."""
SHARED = 96 * 1024
"""Bytes of shared memory for tiles in flight: what cards of 8.6 and 8.9 have, less what reductions take."""
JOINED = 256
"""Outputs a tile of what adds up the experts of many rows."""
MOST_DEPENDENT = 8
"""Rows up to which kernels begin before the one before ends; with more of them that costs more than it brings."""
LOG2E = 1.4426950408889634


@attrs.frozen
class Tile:
    """How a kernel cuts its work: outputs and inputs a tile, warps, tiles in flight."""

    n: int
    k: int
    warps: int
    stages: int = 1


TILES: dict[int, dict[str, Tile]] = {
    1: {
        "inward": Tile(4, 1024, 4),
        "output": Tile(4, 2048, 4),
        "dense": Tile(4, 2048, 4),
        "dense down": Tile(4, 2048, 4),
        "shared": Tile(2, 2048, 4),
        "routed": Tile(4, 2048, 4),
        "down": Tile(4, 1024, 4),
        "head": Tile(8, 2048, 4),
    },
    16: {
        "inward": Tile(16, 256, 2, 6),
        "output": Tile(16, 256, 2, 6),
        "dense": Tile(16, 64, 2, 8),
        "dense down": Tile(16, 256, 2, 6),
        "shared": Tile(16, 64, 2, 8),
        "routed": Tile(16, 64, 1, 6),
        "down": Tile(32, 128, 2, 4),
        "head": Tile(64, 128, 4, 4),
    },
    32: {
        "inward": Tile(16, 128, 4, 6),
        "output": Tile(16, 128, 4, 6),
        "dense": Tile(32, 64, 4, 4),
        "dense down": Tile(16, 128, 4, 6),
        "shared": Tile(32, 64, 4, 4),
        "routed": Tile(32, 64, 4, 4),
        "down": Tile(32, 128, 4, 4),
        "head": Tile(64, 128, 4, 4),
    },
    64: {
        "inward": Tile(16, 128, 4, 4),
        "output": Tile(16, 64, 4, 6),
        "dense": Tile(32, 64, 4, 4),
        "dense down": Tile(16, 128, 4, 4),
        "shared": Tile(64, 64, 4, 3),
        "routed": Tile(64, 64, 4, 3),
        "down": Tile(64, 64, 4, 4),
        "head": Tile(64, 128, 4, 4),
    },
}
"""By rows, as the matrix units take them (one row goes without); measured on an H100. A sum's order follows from none
of these, as the matrix units take its terms one after the other, sixteen at a time."""


INT8_TILES: dict[int, dict[str, Tile]] = {
    1: {
        "inward": Tile(4, 2048, 4),
        "output": Tile(4, 2048, 8),
        "shared": Tile(4, 1024, 4),
        "routed": Tile(4, 2048, 4),
        "down": Tile(4, 512, 8),
        "head": Tile(4, 2048, 4),
    },
}
"""Where int8 weights are better cut otherwise."""


def runs(model: DeepseekV2) -> bool:
    """Whether the kernels compute this model: bfloat16 on CUDA, no latent queries, experts chosen greedily."""
    c = model.config
    simple = c.q_lora_rank is None and (c.topk_method == "greedy" or not c.n_routed_experts)
    halves = c.qk_rope_head_dim & (c.qk_rope_head_dim - 1) == 0
    narrow = c.v_head_dim <= c.qk_nope_head_dim + c.qk_rope_head_dim
    return model.dtype == torch.bfloat16 and model.device.startswith("cuda") and simple and halves and narrow


class Steps:
    """The kernels of one model over one pool, and the buffers between them."""

    def __init__(self, model: DeepseekV2, pool: Tensor, sequences: int, window: int, *, pdl: bool | None = None):
        """`pool`: [layers, slots, c + r]; `sequences`: rows of the table of slots; `window`: its width.

        `pdl`: programmatic dependent launch; by default where the device has it (9.0 and newer).
        """
        c, device = model.config, pool.device
        self.model, self._pool = model, pool
        self.pdl = (
            pdl if pdl is not None else device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)
        )
        int8 = isinstance(model.head, Int8Weights)
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
        self._squares = room(MOST, c.hidden_size // 2, dtype=torch.float64)
        self._inward = room(MOST, model.inward_size)
        self._queries = room(MOST, h, latent)
        self._partial = room(MOST, SPLITS, h, c.kv_lora_rank)
        self._weights = room(MOST, SPLITS, h, dtype=f32)
        self._attended = room(MOST, h * c.v_head_dim)
        self._dense = room(MOST, c.intermediate_size)
        self._hidden = room(max(1, everyone), MOST, max(1, c.moe_intermediate_size))
        self._parts = room(max(1, everyone), MOST, c.hidden_size, dtype=f32)
        self._scores = room(MOST, max(1, c.n_routed_experts), dtype=f32)
        self._shares = room(MOST, max(1, c.n_routed_experts), dtype=f32)
        self._active = room(2 * everyone + 16, dtype=i32)
        self._count = room(2, dtype=i32)
        self.logits = room(MOST, c.vocab_size, dtype=f32)
        self._blocks = tiles(c.vocab_size, 2048)
        self._best = room(MOST, self._blocks, 3, dtype=f32)
        self.tokens = room(MOST, dtype=i32)
        self.logprobs = room(MOST, dtype=f32)
        self._rotations = torch.view_as_real(model.rotations)  # [window, r / 2, 2]
        self._sides = [(_plain(layer.down), _plain(layer.output)) for layer in model.layers]
        self._feeds = [_dense(layer) for layer in model.layers]
        self._head = _plain(model.head)

    @property
    def chosen_experts(self) -> int:
        """Routed experts that the rows of the last layer launched visit; waits for it."""
        return int(self._count[0])

    def run(self, m: int) -> None:
        """One step of `m` rows from `inputs` to `tokens`, `logprobs` and `logits`; launches and doesn't wait."""
        for _ in self.launches(m):
            pass

    def compile(self, m: int) -> None:
        """Has every kernel of a step of `m` rows compiled, or found as compiled before; several threads may."""
        other: Any = copy.copy(self)
        other._launch = self.compile_one
        other.run(m)

    def compile_one(self, m: int, kernel: Any, grid: tuple[int, ...], values: tuple[Any, ...], **options: Any) -> Any:
        """A kernel as `_launch` would run it."""
        return kernel.warmup(*values, grid=grid, **options, **self._dependent(m))

    def launches(self, m: int) -> Iterator[str]:
        """The same, naming each kernel once it is launched."""
        yield self.embed(m)
        for i, layer in enumerate(self.model.layers):
            yield self.inward(m, i)
            yield self.absorb(m, i)
            yield self.attend(m, i)
            yield self.expand(m, i)
            yield self.output(m, i)
            if isinstance(layer.feed, PackedExperts):
                yield self.shared(m, i)
                yield self.route(m, i)
                yield self.routed(m, i)
                yield self.down(m, i)
                if m > 1:
                    yield self.join(m, i)
            else:
                yield self.dense(m, i)
                yield self.dense_down(m, i)
        yield self.head(m)
        yield self.best_of_block(m)
        yield self.best(m)

    def embed(self, m: int) -> str:
        table, scale = self.model.embedding
        hidden = self.model.config.hidden_size
        self._launch(
            m,
            KERNELS.ends.embed,
            (m,),
            (
                self.inputs,
                self.tokens,
                self.table,
                table,
                scale,
                *self._written(self.model.layers[0].attention_norm),
                MOST,
                self.table.shape[1],
            ),
            K=hidden,
            **_sums(1),
            INT8=scale is not None,
            BK=power_of_two(hidden),
        )
        return "embed"

    def inward(self, m: int, i: int) -> str:
        return self._normed("inward", m, i, self._sides[i][0], self._inward)

    def absorb(self, m: int, i: int) -> str:
        c, layer = self.model.config, self.model.layers[i]
        tile = 64
        self._launch(
            m,
            KERNELS.attention.absorb,
            (c.num_attention_heads + 1, max(tiles(c.kv_lora_rank, tile), m) + 1),
            (
                self._inward,
                layer.key_up,
                layer.latent_norm,
                self._rotations,
                self.inputs[1],
                self.inputs[2],
                self._queries,
                self._pool[i],
                m,
                1e-6,
            ),
            H=c.num_attention_heads,
            D=c.qk_nope_head_dim,
            R=c.qk_rope_head_dim,
            C=c.kv_lora_rank,
            BD=max(16, power_of_two(c.qk_nope_head_dim)),
            BC=tile,
            WIDE=power_of_two(c.kv_lora_rank),
            BM=max(16, _wide(m)),
        )
        return "absorb"

    def attend(self, m: int, i: int) -> str:
        c = self.model.config
        heads = 16
        self._launch(
            m,
            KERNELS.attention.attend,
            (m, SPLITS, tiles(c.num_attention_heads, heads)),
            (
                self._queries,
                self._pool[i],
                self.table,
                self.inputs[3],
                self.inputs[1],
                self._partial,
                self._weights,
                self.table.shape[1],
                c.softmax_scale * LOG2E,
            ),
            H=c.num_attention_heads,
            R=c.qk_rope_head_dim,
            C=c.kv_lora_rank,
            SPLITS=SPLITS,
            BH=heads,
            BT=64,
            BR=max(16, c.qk_rope_head_dim),
            WIDE=max(16, power_of_two(c.kv_lora_rank)),
            num_stages=2,
        )
        return "attend"

    def expand(self, m: int, i: int) -> str:
        c, layer = self.model.config, self.model.layers[i]
        tile = 32 if m == 1 else 64
        self._launch(
            m,
            KERNELS.attention.expand,
            (c.num_attention_heads, tiles(c.v_head_dim, tile), m),
            (self._partial, self._weights, layer.value_up, self._attended),
            H=c.num_attention_heads,
            C=c.kv_lora_rank,
            V=c.v_head_dim,
            SPLITS=SPLITS,
            WIDE=power_of_two(c.kv_lora_rank),
            BV=tile,
            num_warps=8,
        )
        return "expand"

    def output(self, m: int, i: int) -> str:
        return self._add("output", m, self._attended, self._sides[i][1], self.model.layers[i].feed_norm)

    def dense(self, m: int, i: int) -> str:
        (weight, scale), _ = self._feeds[i] or ((None, None), None)
        layer, c = self.model.layers[i], self.model.config
        self._gated("dense", m, layer, weight, scale, self._dense, c.intermediate_size, first=0, groups=1)
        return "dense"

    def dense_down(self, m: int, i: int) -> str:
        feed = self._feeds[i]
        assert feed
        return self._add("dense down", m, self._dense, feed[1], self._next_norm(i))

    def shared(self, m: int, i: int) -> str:
        """The shared experts, and beside them the router."""
        feed, c = self._packed(i), self.model.config
        self._gated(
            "shared",
            m,
            self.model.layers[i],
            feed.gate_up,
            feed.gate_up_scale,
            self._hidden,
            c.moe_intermediate_size,
            first=c.n_routed_experts,
            groups=c.n_shared_experts,
            router=feed.router,
        )
        return "shared"

    def route(self, m: int, i: int) -> str:
        c = self.model.config
        self._launch(
            m,
            KERNELS.routing.route,
            (1,),
            (self._scores, self._shares, self._active, self._count, self.inputs[5], c.routed_scaling_factor),
            E=c.n_routed_experts,
            TOP=c.num_experts_per_tok,
            SHARED=c.n_shared_experts,
            BM=power_of_two(m),
            BE=power_of_two(c.n_routed_experts),
        )
        return "route"

    def routed(self, m: int, i: int) -> str:
        feed, c = self._packed(i), self.model.config
        self._gated(
            "routed",
            m,
            self.model.layers[i],
            feed.gate_up,
            feed.gate_up_scale,
            self._hidden,
            c.moe_intermediate_size,
            first=0,
            groups=min(c.n_routed_experts, m * c.num_experts_per_tok),
            routed=True,
        )
        return "routed"

    def down(self, m: int, i: int) -> str:
        """Of one row the sum over its experts, of several each expert's part."""
        feed, c = self._packed(i), self.model.config
        tile, parts = self._tile("down", m), tiles(c.hidden_size, self._tile("down", m).n)
        if m == 1:
            grid, into = (parts,), self._written(self._next_norm(i))
            options = {"EXPERTS": c.num_experts_per_tok + c.n_shared_experts}
        else:
            most = min(c.n_routed_experts, m * c.num_experts_per_tok) + c.n_shared_experts
            grid, into, options = (most, parts), (self._count[1:], self._parts, m), {}
        self._launch(
            m,
            _kernels(m).down,
            grid,
            (self._hidden, feed.down, feed.down_scale, self._active, *into),
            N=c.hidden_size,
            K=c.moe_intermediate_size,
            **options,
            **self._cut(tile, m, feed.down_scale),
        )
        return "down"

    def join(self, m: int, i: int) -> str:
        c = self.model.config
        self._launch(
            m,
            KERNELS.wide.join,
            (m, tiles(c.hidden_size, JOINED)),
            (self._parts, self._shares, *self._written(self._next_norm(i)), m),
            N=c.hidden_size,
            E=c.n_routed_experts,
            TOP=c.num_experts_per_tok,
            SHARED=c.n_shared_experts,
            BE=power_of_two(c.n_routed_experts),
            BN=JOINED,
        )
        return "join"

    def head(self, m: int) -> str:
        return self._normed("head", m, len(self.model.layers), self._head, self.logits)

    def best_of_block(self, m: int) -> str:
        self._launch(
            m,
            KERNELS.ends.best_of_block,
            (m, self._blocks),
            (self.logits, self.masks, self.inputs[4], self._best, self.model.config.vocab_size),
            BLOCKS=self._blocks,
            BV=2048,
        )
        return "best of block"

    def best(self, m: int) -> str:
        self._launch(
            m,
            KERNELS.ends.best,
            (m,),
            (self._best, self.tokens, self.logprobs),
            BLOCKS=self._blocks,
            BB=power_of_two(self._blocks),
        )
        return "best"

    def _packed(self, i: int) -> PackedExperts:
        feed = self.model.layers[i].feed
        assert isinstance(feed, PackedExperts)
        return feed

    def _written(self, gain: Tensor) -> tuple[Tensor, ...]:
        """What is written of the residual stream, `gain` being that of the norm to come."""
        return self._stream, self._scaled, self._squares, gain

    def _next_norm(self, i: int) -> Tensor:
        """The gain of the norm that follows layer i."""
        layers = self.model.layers
        return layers[i + 1].attention_norm if i + 1 < len(layers) else self.model.norm

    def _normed(self, name: str, m: int, i: int, weight: tuple[Tensor, Tensor | None], out: Tensor) -> str:
        tile, (n, k) = self._tile(name, m), weight[0].shape
        self._launch(
            m,
            _kernels(m).linear,
            (tiles(n, tile.n),),
            (self._scaled, *weight, self._squares, out, *_rows(m), n, self.model.config.rms_norm_eps),
            K=k,
            **_sums(self._sums_before(m, i)),
            **self._cut(tile, m, weight[1]),
        )
        return name

    def _add(self, name: str, m: int, x: Tensor, weight: tuple[Tensor, Tensor | None], gain: Tensor) -> str:
        tile, (n, k) = self._tile(name, m), weight[0].shape
        self._launch(
            m,
            _kernels(m).linear_add,
            (tiles(n, tile.n),),
            (x, *weight, *self._written(gain), *_rows(m)),
            N=n,
            K=k,
            **self._cut(tile, m, weight[1]),
        )
        return name

    def _tile(self, name: str, m: int) -> Tile:
        return self.tiles[_wide(m)][name]

    def _sums_before(self, m: int, i: int) -> int:
        """Into how many sums of squares a row comes before attention in layer i (or the head), by what wrote it."""
        hidden = self.model.config.hidden_size
        if i == 0:
            return 1
        if self._feeds[i - 1]:
            return tiles(hidden, self._tile("dense down", m).n)
        return tiles(hidden, self._tile("down", m).n if m == 1 else JOINED)

    def _cut(self, tile: Tile, m: int, scale: Tensor | None, matrices: int = 1) -> dict[str, Any]:
        common = {"INT8": scale is not None, "BN": tile.n, "BK": tile.k, "num_warps": tile.warps}
        if m == 1:
            return common
        stage = tile.k * (matrices * tile.n * (1 if scale is not None else 2) + 2 * _wide(m))
        stages = max(2, min(tile.stages, SHARED // stage))
        return common | {"T": self._type, "BM": _wide(m), "num_stages": stages}

    def _gated(
        self,
        name: str,
        m: int,
        layer: Layer,
        weight: Any,
        scale: Tensor | None,
        out: Tensor,
        n: int,
        *,
        first: int,
        groups: int,
        routed: bool = False,
        router: Tensor | None = None,
    ) -> None:
        tile, c = self._tile(name, m), self.model.config
        per_program = math.gcd(4, c.n_routed_experts)
        parts = tiles(n, tile.n)
        if router is not None:
            groups += tiles(m * (c.n_routed_experts // per_program), parts)
        self._launch(
            m,
            _kernels(m).gated,
            (groups, parts),
            (
                self._scaled,
                self._squares,
                weight,
                scale,
                self._active,
                *(() if m == 1 else (self._count,)),
                self._shares,
                self._stream,
                layer.feed_norm,
                router,
                self._scores,
                out,
                *_rows(m),
                c.rms_norm_eps,
            ),
            N=n,
            K=c.hidden_size,
            E=max(1, c.n_routed_experts),
            FIRST=first,
            ROUTED=routed,
            ROUTER=router is not None,
            **_sums(tiles(c.hidden_size, self._tile("output", m).n)),
            BE=per_program,
            **self._cut(tile, m, scale, 2),
        )

    def _launch(self, m: int, kernel: Any, grid: tuple[int, ...], values: tuple[Any, ...], **options: Any) -> None:
        kernel[grid](*values, **options, **self._dependent(m))

    def _dependent(self, m: int) -> dict[str, bool]:
        dependent = self.pdl and m <= MOST_DEPENDENT
        return {"PDL": dependent, "launch_pdl": True} if dependent else {"PDL": False}


def _kernels(m: int) -> Any:
    return KERNELS.narrow if m == 1 else KERNELS.wide


def _sums(parts: int) -> dict[str, int]:
    return {"TILES": parts, "WIDE": power_of_two(parts)}


def _rows(m: int) -> tuple[int, ...]:
    """The argument that only wide kernels take."""
    return () if m == 1 else (m,)


def _wide(m: int) -> int:
    """Rows as the matrix units take them; one goes without these."""
    return 1 if m == 1 else max(16, power_of_two(m))


def _plain(matrix: Matrix) -> tuple[Tensor, Tensor | None]:
    """Values and scale."""
    if isinstance(matrix, Int8Weights):
        return matrix.weight.values, matrix.weight.scale
    assert isinstance(matrix, Floating)
    return matrix.weight, None


def _dense(layer: Layer) -> tuple[tuple[Tensor, Tensor | None], tuple[Tensor, Tensor | None]] | None:
    feed = layer.feed
    return (_plain(feed.gate_up), _plain(feed.down)) if isinstance(feed, FeedForward) else None
