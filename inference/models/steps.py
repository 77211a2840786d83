"""Steps of 1 to 64 rows of DeepSeek-V2 on a CUDA device: the kernels in order.

A step's inputs are a few small rows of integers, its outputs each row's likeliest token with its log-probability, and
the logits.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch

from inference.models.deepseek_v2 import DeepseekV2
from inference.models.feeds import Feeds
from inference.models.launches import KERNELS, sums
from inference.models.packed_experts import PackedExperts
from inference.models.sizes import power_of_two, tiles
from inference.models.step_tiles import LOG2E, MOST, PIECES, SPLITS, wide


def runs(model: DeepseekV2) -> bool:
    """Whether the kernels compute this model: bfloat16 on CUDA, no latent queries, experts chosen greedily.

    Int8 weights are read four at a time.
    """
    c = model.config
    inputs = (c.hidden_size, c.intermediate_size, c.moe_intermediate_size, c.num_attention_heads * c.v_head_dim)
    simple = c.q_lora_rank is None and (c.topk_method == "greedy" or not c.n_routed_experts)
    halves = c.qk_rope_head_dim & (c.qk_rope_head_dim - 1) == 0
    narrow = c.v_head_dim <= c.qk_nope_head_dim + c.qk_rope_head_dim
    fours = all(size % 4 == 0 for size in inputs)
    return model.dtype == torch.bfloat16 and model.device.startswith("cuda") and simple and halves and narrow and fours


class Steps(Feeds):
    """The kernels of one model over one pool, one after the other."""

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

    def compile_one(
        self, m: int, kernel: Any, grid: tuple[int, ...], values: tuple[Any, ...], *, late: bool = False, **options: Any
    ) -> Any:
        """A kernel as `_launch` would run it."""
        return kernel.warmup(*values, grid=grid, **options, **self._dependent(m, kernel, late))

    def launches(self, m: int) -> Iterator[str]:
        """The same, naming each kernel once it is launched."""
        yield self.embed(m)
        for i, layer in enumerate(self.model.layers):
            yield self.inward(m, i)
            yield self.absorb(m, i)
            yield self.attend(m, i)
            yield self.expand(m, i)
            yield self.output(m, i)
            if isinstance(layer.feed, PackedExperts) and m == 1:
                yield self.experts(i)
                yield self.experts_down(i)
            elif isinstance(layer.feed, PackedExperts):
                yield self.shared(m, i)
                yield self.route(m, i)
                yield self.routed(m, i)
                yield self.down(m, i)
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
                self._asked,
                self.turn,
                self.inputs,
                self.tokens,
                self.table,
                table,
                scale,
                *self._written(self.model.layers[0].attention_norm),
                self._chosen,
                self.table.shape[1],
            ),
            K=hidden,
            **sums(1),
            INT8=scale is not None,
            BK=power_of_two(hidden),
            STRIDE=MOST,
            LAYERS=len(self._chosen),
            BL=power_of_two(len(self._chosen)),
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
            BM=max(16, wide(m)),
        )
        return "absorb"

    def attend(self, m: int, i: int) -> str:
        c, tile = self.model.config, self._tile("attend", m)
        self._launch(
            m,
            KERNELS.attention.attend,
            (m, SPLITS, tiles(c.num_attention_heads, tile.n)),
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
            BH=tile.n,
            BT=tile.k,
            BR=max(16, c.qk_rope_head_dim),
            WIDE=max(16, power_of_two(c.kv_lora_rank)),
            ALONE=m == 1,
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
        return "attend"

    def expand(self, m: int, i: int) -> str:
        c, layer, tile = self.model.config, self.model.layers[i], self._tile("expand", m)
        width, pieces = self._pieces(m)
        self._launch(
            m,
            KERNELS.attention.expand,
            (c.num_attention_heads, tiles(c.v_head_dim, tile.n), m * pieces),
            (self._partial, self._weights, self.inputs[1], layer.value_up, self._attended),
            H=c.num_attention_heads,
            C=c.kv_lora_rank,
            V=c.v_head_dim,
            SPLITS=SPLITS,
            PIECES=pieces,
            BT=self._tile("attend", m).k,
            BS=tile.k,
            BV=tile.n,
            BC=width,
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
        return "expand"

    def _pieces(self, m: int) -> tuple[int, int]:
        """Values of a latent that a program of `expand` takes, and into how many pieces that divides its output."""
        rank = self.model.config.kv_lora_rank
        width = power_of_two(tiles(rank, PIECES if m == 1 else 1))
        return width, tiles(rank, width)

    def output(self, m: int, i: int) -> str:
        layer, (_, pieces) = self.model.layers[i], self._pieces(m)
        router = layer.feed.router if m == 1 and isinstance(layer.feed, PackedExperts) else None
        return self._add("output", m, self._attended, self._sides[i][1], layer.feed_norm, router, pieces)

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
            (self._best, self.tokens, self.logprobs, self.turn, self._answered),
            BLOCKS=self._blocks,
            BB=power_of_two(self._blocks),
            RING=len(self._answered),
            STRIDE=MOST,
        )
        return "best"
