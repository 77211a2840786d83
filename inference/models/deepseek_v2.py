"""DeepSeek-V2 (arXiv 2405.04434) over a pool of latent KV: rows of several sequences in one forward.

Shapes in comments: n rows, t tokens of a sequence, h heads, c kv_lora_rank, r rotated, d unrotated values of a head.
"""

from __future__ import annotations

from typing import Any, cast

import attrs
import torch
from torch import Tensor
from torch.nn import functional

from inference.checkpoint import Int8, Source
from inference.models import many_rows
from inference.models.attention import absorbed, among_keys, expanded, inward_parts, rms_norm
from inference.models.deepseek_v2_config import Config
from inference.models.feed_forward import FeedForward, feed_forward
from inference.models.few_rows import FewRows, LatentLayers
from inference.models.int8_cpu import PACKED_ROWS
from inference.models.layered import Layered
from inference.models.matrices import Matrix, join, many_of, matrix, packed_of, take
from inference.models.packed_experts import PackedExperts, packed_experts, route
from inference.models.rows import Rows

EXPANDED_ROWS = {"cpu": 64, "cuda": 171}
"""From so many rows of a sequence, expanding its latents to keys and values costs less than absorbing the expansion
into queries and outputs: 576 operations a query and key against 36,864 a key for the starter, 1,536 against 262,144
for DeepSeek-Coder-V2-Lite, and memory traffic besides."""


LATENT_EPS = 1e-6
"""Of the norms of latents, whatever the config says of the others: as in DeepSeek's own code."""


@attrs.frozen
class Experts:
    """Routed experts, `top` of them a token, and the shared ones that every token visits; matrix by matrix."""

    config: Config
    router: Tensor  # float32 [experts, hidden]
    routed: list[FeedForward]
    shared: FeedForward | None

    def __call__(self, x: Tensor) -> Tensor:
        weights, chosen = route(self.config, self.router, x)
        out = self.shared(x) if self.shared else torch.zeros_like(x)
        flat = chosen.flatten()
        order = flat.argsort()
        tokens, shares, at = order // chosen.shape[1], weights.flatten()[order, None].to(x.dtype), 0
        for expert, count in enumerate(_counts(flat, len(self.routed))):
            if count:
                mine = slice(at, at + count)
                out.index_add_(0, tokens[mine], self.routed[expert](x[tokens[mine]]) * shares[mine])
                at += count
        return out


@attrs.frozen
class Layer:
    """One layer's weights. `down` gives [rotated and unrotated queries or their latent | k rotated | latent]."""

    attention_norm: Tensor
    down: Matrix
    query_norm: Tensor | None
    query: Matrix | None  # with q_lora: its latent → [unrotated h*d | rotated h*r]
    latent_norm: Tensor
    key_up: Tensor  # [h, d, c], W_UK
    value_up: Tensor  # [h, c, v], W_UV
    expand: Tensor  # [h * (d + v), c], both at once
    output: Matrix
    feed_norm: Tensor
    feed: FeedForward | Experts | PackedExperts


class DeepseekV2(Layered):
    """The weights, and the forward. Thread-safe only for one caller at a time."""

    def __init__(self, config: Config, source: Source, device: str, window: int):
        """Reads all weights from `source`. `window`: positions to be used, at most the config's."""
        super().__init__(device)
        self.config = config
        self._source = source
        all_dense = all(map(config.is_dense, range(config.num_hidden_layers)))
        self._digits = 2 if all_dense else 3  # between experts a near-tie is to fall as it does in floats
        self._embedding = source.matrix("model.embed_tokens.weight")
        head = self._embedding if config.tie_word_embeddings else source.matrix("lm_head.weight")
        self.layers = [self._layer(i) for i in range(config.num_hidden_layers)]
        self.norm = source.tensor("model.norm.weight")
        self.head = self._matrix(head)
        self.dtype = self.norm.dtype
        frequencies, magnitude = config.frequencies()
        angles = torch.arange(window, dtype=torch.float32)[:, None] * frequencies
        self.rotations = torch.polar(torch.full_like(angles, magnitude), angles).to(device)  # [window, r / 2]
        self._expanded_rows = EXPANDED_ROWS.get(self._kind, 128)
        del self._source
        self._few = self._for_few_rows()

    def _layer(self, i: int) -> Layer:
        c, source = self.config, self._source
        name = f"model.layers.{i}."
        queries = source.matrix(name + f"self_attn.{'q_b_proj' if c.q_lora_rank else 'q_proj'}.weight")
        queries = take(queries, _unrotated_first(c))
        latent = source.matrix(name + "self_attn.kv_a_proj_with_mqa.weight")
        rotated_first = torch.arange(c.latent).roll(c.qk_rope_head_dim)
        inward = source.matrix(name + "self_attn.q_a_proj.weight") if c.q_lora_rank else queries
        expand = source.tensor(name + "self_attn.kv_b_proj.weight")
        up = expand.view(c.num_attention_heads, -1, c.kv_lora_rank)
        key_up, value_up = up[:, : c.qk_nope_head_dim], up[:, c.qk_nope_head_dim :]
        return Layer(
            attention_norm=source.tensor(name + "input_layernorm.weight"),
            down=self._matrix(join([inward, take(latent, rotated_first)])),
            query_norm=source.tensor(name + "self_attn.q_a_layernorm.weight") if c.q_lora_rank else None,
            query=self._matrix(queries) if c.q_lora_rank else None,
            latent_norm=source.tensor(name + "self_attn.kv_a_layernorm.weight"),
            key_up=key_up.contiguous(),
            value_up=value_up.transpose(1, 2).contiguous(),
            expand=expand,
            output=self._matrix(source.matrix(name + "self_attn.o_proj.weight")),
            feed_norm=source.tensor(name + "post_attention_layernorm.weight"),
            feed=self._dense(name + "mlp.") if c.is_dense(i) else self._experts(name + "mlp."),
        )

    def _matrix(self, stored: Tensor | Int8) -> Matrix:
        return matrix(stored, self._kind, self._digits)

    def _dense(self, name: str) -> FeedForward:
        return feed_forward(self._source, name, self._kind, self._digits)

    def _experts(self, name: str) -> Experts | PackedExperts:
        c = self.config
        if self._kind == "cuda":
            return packed_experts(c, self._source, name)
        return Experts(
            c,
            self._source.tensor(name + "gate.weight").float(),
            [self._dense(f"{name}experts.{e}.") for e in range(c.n_routed_experts)],
            self._dense(name + "shared_experts.") if c.n_shared_experts else None,
        )

    def _for_few_rows(self) -> FewRows | None:
        """The layers as one call, where all are dense and int8 on a CPU."""
        c = self.config
        tensors: list[list[Tensor]] = []
        packed: list[list[Any]] = []
        for layer in self.layers:
            if layer.query is not None or not isinstance(layer.feed, FeedForward):
                return None
            few = packed_of([layer.down, layer.output, layer.feed.gate_up, layer.feed.down])
            if few is None:
                return None
            packed.append(few)
            norms = [layer.attention_norm, layer.latent_norm, layer.feed_norm]
            tensors.append([*norms, layer.key_up, layer.value_up])
        sizes = (c.num_attention_heads, c.qk_rope_head_dim, c.kv_lora_rank)
        layers = LatentLayers(tensors, packed, sizes, c.softmax_scale, (c.rms_norm_eps, LATENT_EPS))
        widths = (c.hidden_size, c.num_attention_heads * c.v_head_dim, c.intermediate_size)
        return FewRows(layers, widths)

    @property
    def embedding(self) -> tuple[Tensor, Tensor | None]:
        """Values [vocab, hidden] and, if they are int8, their scales."""
        table = self._embedding
        return (table.values, table.scale) if isinstance(table, Int8) else (table, None)

    @property
    def inward_size(self) -> int:
        """Values that a row enters attention with: queries (or their latent), the key's rotated part, the latent."""
        c = self.config
        return (c.q_lora_rank or c.num_attention_heads * (c.qk_nope_head_dim + c.qk_rope_head_dim)) + c.latent

    def _attention(
        self, layer: Layer, x: Tensor, pool: Tensor, rows: Rows, rotations: Tensor, *, outputs_only: bool
    ) -> Tensor:
        c, n = self.config, len(x)
        d = c.qk_nope_head_dim
        queries = x.new_empty(n, c.num_attention_heads, d + c.qk_rope_head_dim)
        many = many_of([layer.down]) if layer.query is None else None

        def enter(mine: slice) -> None:
            if many and mine.stop - mine.start > PACKED_ROWS:
                norms, eps = [layer.attention_norm, layer.latent_norm], [c.rms_norm_eps, LATENT_EPS]
                there = (rotations[mine], rows.slots[mine], pool, queries[mine])
                many_rows.enter(x[mine], norms, many[0], *there, c.kv_lora_rank, eps)
                return
            seen = rms_norm(x[mine], layer.attention_norm, c.rms_norm_eps)
            before, turned, key, latent = self._inward(layer, seen, rotations[mine])
            pool.index_copy_(0, rows.slots[mine], torch.cat([latent, key], dim=-1).to(pool.dtype))
            queries[mine, :, :d], queries[mine, :, d:] = before, turned

        in_blocks, groups = self._blocks(n), rows.groups
        self.threads.each(enter, in_blocks)
        if outputs_only:
            groups, queries = rows.last_only(), queries[rows.outputs]
        outputs: list[Tensor] = []
        for group in groups:
            parts = group.context.parts(pool)
            mine = queries[group.start : group.start + group.count]
            if group.count < self._expanded_rows:
                outputs.append(self._among_latents(layer, mine, parts, len(in_blocks)))
            elif len(in_blocks) == 1:
                outputs.append(expanded(mine, layer.expand, parts, c.v_head_dim, c.softmax_scale))
            else:
                outputs.append(self._among_expanded(layer, mine, parts))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _inward(self, layer: Layer, x: Tensor, rotations: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """[n, hidden] → queries [n, h, d] and, turned, [n, h, r]; keys, turned, [n, r]; latents [n, c]."""
        c = self.config
        h, r, inward = c.num_attention_heads, c.qk_rope_head_dim, layer.down(x)
        if layer.query is None:
            unrotated, turned, latent = inward_parts(inward, rotations, h, r, c.kv_lora_rank)
            rotated, key = turned[:, :h], turned[:, h]
        else:
            low = rms_norm(inward[:, : c.q_lora_rank], cast(Tensor, layer.query_norm), LATENT_EPS)
            _, keys, latent = inward_parts(inward, rotations, 0, r, c.kv_lora_rank)
            unrotated, rotated, _ = inward_parts(layer.query(low), rotations, h - 1, r, 0)
            key = keys[:, 0]
        return unrotated.view(len(x), h, -1), rotated, key, rms_norm(latent, layer.latent_norm, LATENT_EPS)

    def _among_latents(self, layer: Layer, queries: Tensor, parts: list[Tensor], in_blocks: int) -> Tensor:
        """`attention.absorbed`; of rows in several blocks some heads by each thread."""
        h, c = queries.shape[1], self.config
        at_once = -(-h // min(self.threads.count, in_blocks))

        def attend(heads: slice) -> Tensor:
            return absorbed(queries[:, heads], layer.key_up[heads], layer.value_up[heads], parts, c.softmax_scale)

        outs = self.threads.each(attend, [slice(at, at + at_once) for at in range(0, h, at_once)])
        return outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)

    def _among_expanded(self, layer: Layer, queries: Tensor, parts: list[Tensor]) -> Tensor:
        """`attention.expanded` piece by piece, each of some latents or of a head."""
        c, (n, h, _), d = self.config, queries.shape, self.config.qk_nope_head_dim
        latents = parts[0] if len(parts) == 1 else torch.cat(parts)
        t = len(latents)
        keys, values = queries.new_empty(h, t, d + c.qk_rope_head_dim), queries.new_empty(h, t, c.v_head_dim)
        out = queries.new_empty(n, h, c.v_head_dim)

        def expand(mine: slice) -> None:
            seen = latents[mine]
            both = functional.linear(seen[:, : c.kv_lora_rank], layer.expand).view(len(seen), h, -1).transpose(0, 1)
            keys[:, mine, :d], values[:, mine] = both[..., :d], both[..., d:]
            keys[:, mine, d:] = seen[:, c.kv_lora_rank :]

        def attend(head: int) -> None:
            out[:, head] = among_keys(queries[:, head], keys[head], values[head], c.softmax_scale)

        self.threads.each(expand, self._blocks(t))
        self.threads.each(attend, range(h))
        return out.view(n, -1)


def _unrotated_first(c: Config) -> Tensor:
    """Order of a query matrix's outputs that puts all heads' unrotated values before the rotated ones."""
    d, r = c.qk_nope_head_dim, c.qk_rope_head_dim
    places = torch.arange(c.num_attention_heads * (d + r)).view(-1, d + r)
    return torch.cat([places[:, :d].flatten(), places[:, d:].flatten()])


def _counts(numbers: Tensor, size: int) -> list[int]:
    """How often each of 0 … size - 1 occurs."""
    return cast(Any, torch.bincount(numbers, minlength=size)).tolist()
