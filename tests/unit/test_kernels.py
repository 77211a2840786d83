"""The GPU's kernels beside plain torch, in Triton's interpreter; and compiled for cards that aren't there."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

pytest.importorskip("triton", reason="Triton is for Linux on x86-64")
if torch.cuda.is_available():
    pytest.skip("the kernels run for real here: tests/gpu", allow_module_level=True)

from inference.kernels.common import SOON
from inference.models import prompts
from inference.models.attention import rms_norm
from inference.models.deepseek_v2 import DeepseekV2
from inference.models.deepseek_v2_config import Config, config
from inference.models.packed_experts import PackedExperts, route
from inference.models.prompts import Prompts
from inference.models.rows import Group, Rows
from inference.models.slots import Slots
from inference.models.step_tiles import MOST, TILES, Tile
from inference.models.steps import Steps
from inference.random_weights import RandomWeights
from tests.gpu.test_deepseek_v2 import BASE, YARN

SHAPE: dict[str, Any] = BASE | {
    "model_type": "deepseek_v2",
    "num_hidden_layers": 2,
    "vocab_size": 100,
    "rope_parameters": YARN,
}
CONTEXT, SLOTS = 30, 99
IDS = torch.randint(0, 100, (40,), generator=torch.Generator().manual_seed(1))
PLACES = torch.randperm(SLOTS, generator=torch.Generator().manual_seed(2))[:40]
EXACT = 1e-5


class OnCuda(DeepseekV2):
    """On the CPU, in the form that it has on CUDA."""

    @property
    def _kind(self) -> str:
        return "cuda"


class Scattered(Slots):
    """Slots as they are read on CUDA."""

    def parts(self, layer: Tensor) -> list[Tensor]:
        return [layer[torch.tensor(self.all)]]


def model(int8: bool, **changes: Any) -> DeepseekV2:
    shape = config(SHAPE | changes)
    return OnCuda(shape, RandomWeights(shape, "cpu", torch.float32, int8=int8), "cpu", 512)


def rows(first: int, last: int, outputs: int) -> Rows:
    group = Group(0, last - first, outputs, Scattered(PLACES[:last].tolist(), "cuda"))
    count = last - first
    wanted = torch.arange(count - outputs, count)
    return Rows(IDS[first:last], torch.arange(first, last), PLACES[first:last], [group], wanted)


def error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def step(of: DeepseekV2, pool: Tensor, count: int, live: int | None = None) -> Steps:
    """Ready to compute the `count` tokens after the context; of them `live` are real."""
    steps = Steps(of, pool, 3, 64, pdl=False)
    live = live or count
    steps.table[1, :CONTEXT] = PLACES[:CONTEXT]
    steps.inputs[2:4] = torch.tensor([[SLOTS], [2]])
    steps.inputs[4] = -1
    for row, values in enumerate((IDS, torch.arange(40), PLACES, torch.ones(40))):
        steps.inputs[row, :live] = values[CONTEXT : CONTEXT + live]
    steps.inputs[5, 0] = live
    return steps


@pytest.fixture(params=[False, True], ids=["floats", "int8"])
def ready(request: pytest.FixtureRequest) -> tuple[DeepseekV2, Tensor]:
    """A model, and a pool that holds the context's latents."""
    made = model(request.param)
    pool = torch.zeros(2, SLOTS + 1, made.config.latent)
    made.forward(pool, rows(0, CONTEXT, 1))
    return made, pool


@pytest.mark.parametrize("count", [1, 3, 9])
def test_a_step_computes_what_plain_torch_does(ready: tuple[DeepseekV2, Tensor], count: int) -> None:
    made, pool = ready
    theirs_pool = pool.clone()
    theirs = made.forward(theirs_pool, rows(CONTEXT, CONTEXT + count, count))
    steps = step(made, pool, count)
    steps.run(count)
    ours = steps.logits[:count]
    assert error(ours, theirs) < EXACT
    assert error(pool[:, :SLOTS], theirs_pool[:, :SLOTS]) < EXACT
    assert torch.equal(steps.tokens[:count].long(), theirs.argmax(-1))
    torch.testing.assert_close(steps.logprobs[:count], theirs.log_softmax(-1).amax(-1))


def test_parts_of_more_tokens_than_are_attended_to_at_once(
    ready: tuple[DeepseekV2, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, pool = ready
    monkeypatch.setitem(TILES[16], "attend", Tile(16, 16, 4))
    for module in ("steps", "launches"):
        monkeypatch.setattr(f"inference.models.{module}.SPLITS", 1)
    theirs = made.forward(pool.clone(), rows(CONTEXT, CONTEXT + 3, 3))
    steps = step(made, pool, 3)
    steps.run(3)
    assert error(steps.logits[:3], theirs) < EXACT


def test_rows_that_fill_a_step_up_visit_no_expert_and_change_nothing(ready: tuple[DeepseekV2, Tensor]) -> None:
    made, pool = ready
    alone, filled = pool.clone(), pool.clone()
    full, padded = step(made, alone, 3), step(made, filled, 4, live=3)
    full.run(3)
    padded.run(4)
    assert torch.equal(padded.logits[:3], full.logits[:3])
    assert torch.equal(filled[:, :SLOTS], alone[:, :SLOTS])
    assert padded.chosen_experts == full.chosen_experts


def test_a_token_left_to_the_device_is_the_one_it_chose_last() -> None:
    made = model(False)
    pool = torch.zeros(2, SLOTS + 1, made.config.latent)
    steps, told = step(made, pool, 1), step(made, pool, 1)
    steps.tokens[4], steps.inputs[0, 0] = 77, -1 - 4
    told.inputs[0, 0] = 77
    steps.embed(1)
    told.embed(1)
    assert torch.equal(steps._stream[0], told._stream[0])
    assert torch.equal(steps._stream[0], made.embedding[0][77])


def test_a_mask_leaves_the_likeliest_of_what_it_allows() -> None:
    steps = step(model(False), torch.zeros(2, SLOTS + 1, 40), 2)
    steps.logits[:2] = torch.randn(2, 100)
    allowed = torch.tensor([5, 17, 60])
    steps.masks[3] = 0
    steps.masks[3, allowed] = 1
    steps.inputs[4, 1] = 3
    steps.best_of_block(2)
    steps.best(2)
    assert int(steps.tokens[0]) == int(steps.logits[0].argmax())
    best = steps.logits[1, allowed].argmax()
    assert int(steps.tokens[1]) == int(allowed[best])
    torch.testing.assert_close(steps.logprobs[1], steps.logits[1, allowed].log_softmax(-1)[best])


def test_steps_take_turns_in_what_the_host_asks_and_is_answered() -> None:
    made = model(False)
    asked, answered = torch.zeros(3, 6, MOST, dtype=torch.int32), torch.zeros(3, 2, MOST, dtype=torch.int32)
    steps = Steps(made, torch.zeros(2, SLOTS + 1, made.config.latent), 3, 64, asked=asked, answered=answered, pdl=False)
    asked[:, 4] = -1
    for turn in range(5):
        asked[turn % 3, :4, :2] = torch.tensor([[turn, 90 + turn], [turn, turn + 1], [7, 8], [1, 1]])
        asked[turn % 3, 5, 0] = 2 + turn
        steps.embed(2)
        assert torch.equal(steps.inputs[:5, :2], asked[turn % 3, :5, :2])
        assert int(steps.inputs[5, 0]) == 2 + turn
        assert torch.equal(steps._stream[:2], made.embedding[0][[turn, 90 + turn]])
        steps.logits[:2] = torch.randn(2, 100)
        steps.best_of_block(2)
        steps.best(2)
        assert answered[turn % 3, 0, :2].tolist() == steps.logits[:2].argmax(-1).tolist()
        best = steps.logits[:2].log_softmax(-1).amax(-1)
        torch.testing.assert_close(answered[turn % 3, 1, :2].view(torch.float32), best)


def test_attention_may_come_up_only_once_the_positions_that_it_reads_ahead_are_there(
    ready: tuple[DeepseekV2, Tensor],
) -> None:
    made, pool = ready
    steps: Any = Steps(made, pool, 3, 64, pdl=True)
    when: list[tuple[str, int]] = []

    def noted(m: int, kernel: Any, *_: Any, late: bool = False, **__: Any) -> None:
        when.append((kernel.fn.__name__, steps._dependent(m, kernel, late)["PDL"]))

    steps._launch = noted
    steps.run(1)
    names = [name for name, _ in when]
    assert names[0] == "embed"
    between = dict(when[1 : names.index("attend")])
    assert SOON.value in between.values(), "not all of them wait"
    assert any(mode != SOON.value for mode in between.values()), between


@pytest.mark.parametrize("count", [1, 3])
def test_each_kernel_computes_its_part(ready: tuple[DeepseekV2, Tensor], count: int) -> None:
    """Layer by layer, every kernel's output beside torch's from the same inputs."""
    made, pool = ready
    c, steps = made.config, step(made, pool, count)
    before = after = normed = torch.empty(0)
    seen: set[str] = set()
    i = -1
    for name in steps.launches(count):
        seen.add(name)
        i += name == "inward"
        if name in ("embed", "head", "best of block", "best"):
            continue
        layer, stream = made.layers[i], steps._stream[:count].clone()
        if name == "inward":
            after = stream
            normed = rms_norm(stream, layer.attention_norm, c.rms_norm_eps)
            assert error(_first(steps._inward, count, made.inward_size), layer.down(normed)) < EXACT
        if name == "output":
            before, after = after, stream
            _, pieces = steps._pieces(count)
            attended = _first(steps._attended, count * pieces, c.num_attention_heads * c.v_head_dim)
            attended = attended.view(count, pieces, -1).sum(1)
            assert error(after - before, layer.output(attended)) < EXACT
            normed = rms_norm(after, layer.feed_norm, c.rms_norm_eps)
        if name in ("routed", "experts"):
            _routes_like_torch(steps, c, layer.feed, normed, count)
        if name in ("join", "dense down", "experts down"):
            assert error(stream - after, layer.feed(normed)) < EXACT
    assert {"inward", "absorb", "attend", "expand", "output", "dense"} <= seen
    assert ({"experts", "experts down"} if count == 1 else {"shared", "route", "routed", "down", "join"}) <= seen


def _first(buffer: Tensor, count: int, width: int) -> Tensor:
    return buffer.flatten()[: count * width].view(count, width)


def _routes_like_torch(steps: Steps, c: Config, feed: Any, normed: Tensor, count: int) -> None:
    assert isinstance(feed, PackedExperts)
    shares, chosen = route(c, feed.router, normed)
    theirs = torch.zeros(count, c.n_routed_experts).scatter_(1, chosen, shares)
    assert error(_first(steps._shares, count, c.n_routed_experts), theirs) < EXACT
    if count == 1:
        assert steps._active[: len(chosen[0])].tolist() == chosen[0].tolist(), "the best first"
        return
    active = sorted(set(chosen.flatten().tolist()))
    assert steps._active[: len(active)].tolist() == active
    assert steps._count.tolist() == [len(active), len(active) + c.n_shared_experts]


class Now:
    """Stands in for a graph: there are none on a CPU."""

    def __init__(self, run: Any):
        self.replay = run


@pytest.mark.parametrize("int8", [False, True], ids=["floats", "int8"])
def test_a_prompts_chunk_computes_what_plain_torch_does(int8: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def grouped(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:  # CUDA alone has it for these types
        starts = [0, *ends.tolist()]
        parts = zip(starts, starts[1:], weight, strict=False)
        return torch.cat([functional.linear(x[a:b], w.to(x.dtype)) for a, b, w in parts])

    monkeypatch.setattr(prompts, "_grouped", grouped)
    monkeypatch.setattr(prompts, "SIZES", (32,))
    monkeypatch.setitem(prompts.EXPANDED_ROWS, "cuda", 8)
    capture = lambda self, size, i: Now(lambda: self._between(size, i))  # noqa: E731
    monkeypatch.setattr(Prompts, "_capture", capture)
    made = model(int8)
    ours_pool = torch.zeros(2, SLOTS + 1, made.config.latent)
    theirs_pool = ours_pool.clone()
    chunk = Prompts(made, ours_pool, SLOTS)
    chunk.prepare(lambda _: None)
    for first, last, outputs in ((0, 20, 1), (20, 24, 4), (24, 40, 1)):
        ours = chunk.forward(ours_pool, rows(first, last, outputs))
        theirs = made.forward(theirs_pool, rows(first, last, outputs))
        assert error(ours, theirs) < EXACT
        assert error(ours_pool[:, :SLOTS], theirs_pool[:, :SLOTS]) < EXACT


@pytest.mark.parametrize(("arch", "dtype"), [(90, "bfloat16"), (86, "int8")])
def test_kernels_fit_their_card_and_spill_nothing(arch: int, dtype: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "benchmarks.kernels", "--arch", str(arch), "--dtype", dtype, "--rows", "1"]
    done = subprocess.run([*command, "--rows", "4"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "attend" in done.stdout
