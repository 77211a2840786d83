"""A prompt's chunk of DeepSeek-V2 on a CUDA device: the library's matrix products, and kernels between them.

As `DeepseekV2.forward`, but what lies between two attentions is a graph: a chunk of some hundred tokens would else wait
for Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from inference import kernels
from inference.models.attention import absorbed
from inference.models.deepseek_v2 import EXPANDED_ROWS, LATENT_EPS, DeepseekV2, Layer
from inference.models.feed_forward import FeedForward
from inference.models.matrices import Floating, Matrix
from inference.models.packed_experts import PackedExperts, route
from inference.models.rows import Group, Rows
from inference.models.sizes import power_of_two, tiles
from inference.models.step_tiles import LOG2E

KERNELS: Any = kernels  # the compiler's language has no types
SIZES = (128, 256, 576, 1088, 2112, 4160)
"""Rows for which what lies between two attentions is a graph; a chunk, with others' rows, is filled up to the next."""


class Prompts:
    """Many rows at once, of one sequence or several. One thread calls it."""

    def __init__(self, model: DeepseekV2, pool: Tensor, spare: int):
        """`pool`: [layers, slots, c + r]; `spare`: a slot of it that no token has, for rows that fill a chunk up."""
        c, device = model.config, model.device
        self._model, self._pool, self._spare = model, pool, spare
        self._rotations = torch.view_as_real(model.rotations)
        # Sorted by as few bits as they have.
        number = torch.uint8 if c.n_routed_experts <= 256 else torch.int16
        self._experts = torch.arange(max(1, c.n_routed_experts), device=device).to(number)
        most, heads = SIZES[-1], c.num_attention_heads
        self._ids, self._positions, self._slots = torch.zeros(3, most, dtype=torch.int64, device=device).unbind()
        self._slots.fill_(spare)
        self._x = torch.zeros(most, c.hidden_size, dtype=model.dtype, device=device)
        self._queries = self._x.new_zeros(most, heads, c.qk_nope_head_dim + c.qk_rope_head_dim)
        self._attended = self._x.new_zeros(most, heads * c.v_head_dim)
        self._roomy = torch.cuda.get_device_capability(device)[0] >= 9 if torch.cuda.is_available() else False
        self._pieces: dict[tuple[int, int], torch.cuda.CUDAGraph] = {}
        self._memory: Any = None

    @torch.inference_mode()
    def prepare(self, progress: Callable[[float], None]) -> None:
        """Captures the graphs."""
        layers = range(len(self._model.layers))
        for done, size in enumerate(SIZES):
            self._pieces |= {(size, i): self._capture(size, i) for i in layers}
            progress((done + 1) / len(SIZES))

    @torch.inference_mode()
    def forward(self, pool: Tensor, rows: Rows) -> Tensor:
        """See `DeepseekV2.forward`; `pool` is the one given at the start."""
        n, layers = len(rows.ids), self._model.layers
        size = next(size for size in SIZES if size >= n)
        self._ids[:n], self._positions[:n], self._slots[:n] = rows.ids, rows.positions, rows.slots
        self._ids[n:size], self._positions[n:size], self._slots[n:size] = 0, 0, self._spare
        for i in range(len(layers)):
            self._pieces[size, i].replay()
            if i < len(layers) - 1:
                self._attention(i, rows.groups, self._queries)
        # Beyond the last layer's latents only the outputs count.
        queries = self._queries[rows.outputs]
        self._attention(len(layers) - 1, rows.last_only(), queries)
        outputs = len(rows.outputs)
        x = self._leave(layers[-1], self._x[rows.outputs], self._attended[:outputs])
        x = functional.rms_norm(x, (x.shape[1],), self._model.norm, self._model.config.rms_norm_eps)
        return self._model.head(x).float()

    def _capture(self, size: int, i: int) -> torch.cuda.CUDAGraph:
        before = self._x[:size].clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._between(size, i)
            self._x[:size] = before
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory):
            self._between(size, i)
        self._memory = self._memory or graph.pool()
        return graph

    def _between(self, size: int, i: int) -> None:
        """What lies between the attention of layer i - 1 and that of layer i."""
        model, x = self._model, self._x[:size]
        if i == 0:
            table, scale = model.embedding
            ids = self._ids[:size]
            x.copy_(table[ids] if scale is None else table[ids] * scale[ids, None])
        else:
            x.copy_(self._leave(model.layers[i - 1], x, self._attended[:size]))
        layer = model.layers[i]
        self._enter(layer, functional.rms_norm(x, (x.shape[1],), layer.attention_norm, model.config.rms_norm_eps), i)

    def _enter(self, layer: Layer, seen: Tensor, i: int) -> None:
        """[n, hidden] to queries, and to latents in the pool."""
        c = self._model.config
        KERNELS.prompt.arrange[(len(seen),)](
            layer.down(seen),
            layer.latent_norm,
            self._rotations,
            self._positions,
            self._slots,
            self._queries,
            self._pool[i],
            LATENT_EPS,
            H=c.num_attention_heads,
            D=c.qk_nope_head_dim,
            R=c.qk_rope_head_dim,
            C=c.kv_lora_rank,
            BH=power_of_two(c.num_attention_heads),
            BD=power_of_two(c.qk_nope_head_dim),
            BC=power_of_two(c.kv_lora_rank),
        )

    def _leave(self, layer: Layer, x: Tensor, attended: Tensor) -> Tensor:
        """The residual stream after attention and feed-forward."""
        x = _added(x, layer.output, attended)
        seen = functional.rms_norm(x, (x.shape[1],), layer.feed_norm, self._model.config.rms_norm_eps)
        if isinstance(layer.feed, PackedExperts):
            return self._visit(layer.feed, x, seen)
        feed = cast(FeedForward, layer.feed)
        both = feed.gate_up(seen)
        return _added(x, feed.down, self._gate(both, both.shape[1] // 2))

    def _attention(self, i: int, groups: list[Group], queries: Tensor) -> None:
        """Each group's queries to its tokens' latents, into `_attended`."""
        c, layer, pool = self._model.config, self._model.layers[i], self._pool[i]
        for group in groups:
            mine = slice(group.start, group.start + group.count)
            parts = group.context.parts(pool)
            if group.count >= EXPANDED_ROWS["cuda"]:
                self._expanded(layer, queries[mine], parts[0], self._attended[mine])
            else:
                up = (layer.key_up, layer.value_up)
                self._attended[mine] = absorbed(queries[mine], *up, parts, c.softmax_scale)

    def _expanded(self, layer: Layer, queries: Tensor, latents: Tensor, out: Tensor) -> None:
        """Attention of [n, h, d + r] to keys and values expanded from [t, c + r], into [n, h * v]."""
        c, t = self._model.config, len(latents)
        both = functional.linear(latents[:, : c.kv_lora_rank], layer.expand)
        h, d, r, v = c.num_attention_heads, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim
        block = 128 if self._roomy else 64
        KERNELS.prompt.attend[(tiles(len(queries), block), h)](
            queries,
            both,
            latents,
            out,
            len(queries),
            t,
            latents.stride(0),
            c.softmax_scale * LOG2E,
            H=h,
            D=d,
            R=r,
            V=v,
            C=c.kv_lora_rank,
            BD=_wide(d),
            BR=_wide(r),
            BV=_wide(v),
            BQ=block,
            BT=64 if self._roomy else 32,
            num_warps=8 if self._roomy else 4,
            num_stages=3 if self._roomy else 2,
        )

    def _visit(self, feed: PackedExperts, x: Tensor, seen: Tensor) -> Tensor:
        """x plus what its rows get of their experts."""
        c, n = self._model.config, len(x)
        e, inner, top = c.n_routed_experts, c.moe_intermediate_size, c.num_experts_per_tok
        shares, chosen = route(c, feed.router, seen)
        sorted_experts, order = chosen.flatten().to(self._experts.dtype).sort(stable=True)
        ends = torch.searchsorted(sorted_experts, self._experts, right=True, out_int32=True)
        places = torch.empty_like(order)
        places[order] = torch.arange(n * top, device=x.device)
        both = _grouped(seen.index_select(0, order // top), feed.gate_up[:e], ends)
        hidden = self._gate(both, inner, shares, order, sorted_experts, feed.gate_up_scale)
        parts = _grouped(hidden, feed.down[:e], ends)
        if feed.shared:
            own = functional.linear(seen, feed.gate_up[e:].flatten(0, 1).to(x.dtype)).view(n * feed.shared, 2 * inner)
            scale = feed.gate_up_scale[e:] if feed.gate_up_scale is not None else None
            gated = self._gate(own, inner, scale=scale, places=feed.shared).view(n, feed.shared, inner)
            for s in range(feed.shared):
                if feed.down_scale is None:
                    x = torch.addmm(x, gated[:, s], feed.down[e + s].T)
                else:
                    part = functional.linear(gated[:, s], feed.down[e + s].to(x.dtype))
                    x = x + part * feed.down_scale[e + s].to(x.dtype)
        else:
            x = x.clone()
        block = 512
        KERNELS.prompt.gather[(n, tiles(x.shape[1], block))](
            parts,
            places,
            chosen,
            feed.down_scale,
            x,
            N=x.shape[1],
            TOP=top,
            INT8=feed.down_scale is not None,
            BN=block,
        )
        return x

    def _gate(
        self,
        both: Tensor,
        inner: int,
        shares: Tensor | None = None,
        order: Tensor | None = None,
        experts: Tensor | None = None,
        scale: Tensor | None = None,
        places: int = 1,
    ) -> Tensor:
        """[rows, 2 * inner] → [rows, inner]."""
        out = both.new_empty(len(both), inner)
        KERNELS.prompt.gate[(len(both),)](
            both,
            shares,
            order,
            experts,
            scale,
            out,
            N=inner,
            ROUTED=shares is not None,
            INT8=scale is not None,
            PLACES=places,
            BN=min(2048, power_of_two(inner)),
        )
        return out


def _wide(size: int) -> int:
    """As the matrix units take it."""
    return max(16, power_of_two(size))


def _added(x: Tensor, matrix: Matrix, y: Tensor) -> Tensor:
    """x + matrix(y)."""
    return torch.addmm(x, y, matrix.weight.T) if isinstance(matrix, Floating) else x + matrix(y)


def _grouped(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """Each run of rows, up to its end, through its expert's matrix: [rows, in] → [rows, out], before any scale."""
    return cast(Any, functional).grouped_mm(x, weight.to(x.dtype).transpose(1, 2), offs=ends)
