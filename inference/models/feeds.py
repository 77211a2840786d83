"""The kernels of a step behind attention: a dense layer's, and the experts' for one row and for several."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from inference.models.deepseek_v2 import Layer
from inference.models.launches import KERNELS, Launches, sums
from inference.models.packed_experts import PackedExperts
from inference.models.sizes import power_of_two, tiles
from inference.models.step_tiles import JOINED


class Feeds(Launches):
    """What follows attention in each layer."""

    def dense(self, m: int, i: int) -> str:
        (weight, scale), _ = self._feeds[i] or ((None, None), None)
        layer, c = self.model.layers[i], self.model.config
        if m > 1:
            self._gated("dense", m, layer, weight, scale, self._dense, c.intermediate_size, first=0, groups=1)
            return "dense"
        tile = self._tile("dense", m)
        self._launch(
            m,
            KERNELS.narrow.gated,
            (tiles(c.intermediate_size, tile.n),),
            (self._scaled, self._squares, weight, scale, self._dense, c.rms_norm_eps),
            N=c.intermediate_size,
            K=c.hidden_size,
            **sums(self._sums_after_output(m)),
            **self._cut(tile, m, scale),
        )
        return "dense"

    def dense_down(self, m: int, i: int) -> str:
        feed = self._feeds[i]
        assert feed
        return self._add("dense down", m, self._dense, feed[1], self._next_norm(i))

    def experts(self, i: int) -> str:
        """Of one row: the choice, and the first half of the shared and the chosen experts."""
        feed, c, tile = self._packed(i), self.model.config, self._tile("experts", 1)
        everyone = c.n_shared_experts + c.num_experts_per_tok
        self._launch(
            1,
            KERNELS.narrow.experts,
            (1 + everyone * tiles(c.moe_intermediate_size, tile.n),),
            (
                self._scaled,
                self._squares,
                feed.gate_up,
                feed.gate_up_scale,
                self._score_parts,
                self._active,
                self._shares,
                self._chosen[i:],
                self._hidden,
                c.rms_norm_eps,
                c.routed_scaling_factor,
            ),
            N=c.moe_intermediate_size,
            K=c.hidden_size,
            E=c.n_routed_experts,
            TOP=c.num_experts_per_tok,
            SHARED=c.n_shared_experts,
            ALL=power_of_two(c.n_routed_experts),
            **sums(self._sums_after_output(1)),
            **self._cut(tile, 1, feed.gate_up_scale),
        )
        return "experts"

    def experts_down(self, i: int) -> str:
        """Of one row, the second half."""
        feed, c, tile = self._packed(i), self.model.config, self._tile("experts down", 1)
        everyone = c.num_experts_per_tok + c.n_shared_experts
        self._launch(
            1,
            KERNELS.narrow.down,
            (tiles(c.hidden_size, tile.n),),
            (
                self._hidden,
                feed.down,
                feed.down_scale,
                self._active,
                self._chosen[i:],
                *self._written(self._next_norm(i)),
            ),
            N=c.hidden_size,
            K=c.moe_intermediate_size,
            EXPERTS=everyone,
            BE=power_of_two(everyone),
            **self._cut(tile, 1, feed.down_scale),
        )
        return "experts down"

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
        """Each expert's part."""
        feed, c, tile = self._packed(i), self.model.config, self._tile("down", m)
        most = min(c.n_routed_experts, m * c.num_experts_per_tok) + c.n_shared_experts
        self._launch(
            m,
            KERNELS.wide.down,
            (most, tiles(c.hidden_size, tile.n)),
            (self._hidden, feed.down, feed.down_scale, self._active, self._count[1:], self._parts, m),
            N=c.hidden_size,
            K=c.moe_intermediate_size,
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

    def _packed(self, i: int) -> PackedExperts:
        feed = self.model.layers[i].feed
        assert isinstance(feed, PackedExperts)
        return feed

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
        """Of several rows."""
        tile, c = self._tile(name, m), self.model.config
        per_program, parts = math.gcd(4, c.n_routed_experts), tiles(n, self._tile(name, m).n)
        if router is not None:
            groups += tiles(m * (c.n_routed_experts // per_program), parts)
        self._launch(
            m,
            KERNELS.wide.gated,
            (groups, parts),
            (
                self._scaled,
                self._squares,
                weight,
                scale,
                self._active,
                self._count,
                self._shares,
                self._stream,
                layer.feed_norm,
                router,
                self._scores,
                out,
                m,
                c.rms_norm_eps,
            ),
            N=n,
            K=c.hidden_size,
            E=max(1, c.n_routed_experts),
            FIRST=first,
            ROUTED=routed,
            ROUTER=router is not None,
            **sums(self._sums_after_output(m)),
            BE=per_program,
            **self._cut(tile, m, scale, 2),
        )

    def _sums_after_output(self, m: int) -> int:
        """Into how many sums of squares a row comes before what follows attention."""
        return tiles(self.model.config.hidden_size, self._tile("output", m).n)
