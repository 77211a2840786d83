"""DeepSeek-Coder-V2-Lite's exact shape on one GPU, random weights: every figure as a share of what memory allows.

    python -m benchmarks.gpu [--dtype bfloat16|int8] [--part …] [--json OUT]

First the device's copy bandwidth. The floor of a step is the bytes that it must read (weights of the experts that its
rows chose, once; the KV of each row) over that bandwidth. Parts: kernels (each one's share of its floor), steps
(whole steps eager, as graphs, with programmatic dependent launch), engine (decode rate, keystrokes, users, through the
engine as a worker runs it), prefill, transformers (the same on `generate` of that library), compiled (that with a
static cache and compiled, where it runs).

Exit status 1 if a figure that the project is held to is missed.
"""

from __future__ import annotations

import gc
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import attrs
import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import gpu_peers, report
from benchmarks.gpu_asking import ask, prose, submit
from benchmarks.lite import LITE, grown_tokenizer
from inference.engine import Engine
from inference.models.deepseek_v2 import DeepseekV2
from inference.models.deepseek_v2_config import config
from inference.models.paged_model import PagedModel
from inference.models.step_tiles import SIZES
from inference.models.steps import Steps
from inference.random_weights import RandomWeights
from inference.weights import native

CONTEXT = 4096
PARTS = ("kernels", "steps", "prefill", "engine", "transformers", "compiled")
console = Console()


@attrs.frozen
class Bound:
    """A figure that is wanted above or below a limit."""

    name: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether it is kept."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def timed(run: Callable[[], Any], times: int = 12) -> float:
    """Median milliseconds on the device."""
    run()
    taken: list[float] = []
    for _ in range(times):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        taken.append(begin.elapsed_time(end))
    return sorted(taken)[times // 2]


def bandwidth() -> float:
    """Bytes a second that a device-to-device copy reads and writes."""
    source = torch.empty(2**31, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * len(source) / (timed(lambda: target.copy_(source)) / 1000)


class Bench:
    """One model on the device, and what is measured of it."""

    def __init__(self, dtype: str):
        self.dtype, self.shape = dtype, config(LITE)
        kind = torch.int8 if dtype == "int8" else torch.bfloat16
        source = RandomWeights(self.shape, "cuda", torch.bfloat16, int8=dtype == "int8")
        self.copied = bandwidth()
        began = time.monotonic()
        self.model: PagedModel = native(self.shape, source, "cuda", kind, 16384)
        self.model.prepare(lambda _: None)
        self.load_s = round(time.monotonic() - began, 1)
        self.bounds: list[Bound] = []

    def release(self) -> None:
        """Gives the model's memory back."""
        del self.model
        gc.collect()
        torch.cuda.empty_cache()

    def floor_ms(self, rows: int, experts: float) -> float:
        """Of a step of `rows` rows that visit so many routed experts a layer together, on average."""
        c, item = self.shape, 1 if self.dtype == "int8" else 2
        attention = (
            c.hidden_size * (c.num_attention_heads * 192 + c.latent + c.num_attention_heads * c.v_head_dim) * item
        )
        latents = c.num_attention_heads * (c.qk_nope_head_dim + c.v_head_dim) * c.kv_lora_rank * 2
        moe = 3 * c.hidden_size * c.moe_intermediate_size * (experts + c.n_shared_experts) * item
        dense = 3 * c.hidden_size * c.intermediate_size * item
        head = c.vocab_size * c.hidden_size * item
        kv = CONTEXT * c.latent * 2  # rows of one sequence: read once
        layers, sparse = c.num_hidden_layers, c.num_hidden_layers - 1
        total = (
            layers * (attention + latents + kv) + sparse * (moe + c.n_routed_experts * c.hidden_size * 2) + dense + head
        )
        return total / self.copied * 1000

    def steps(self, pdl: bool | None = None) -> Steps:
        """Kernels over the model's weights and a pool of random latents, rows at the end of one context."""
        pool = torch.randn(self.shape.num_hidden_layers, 2 * CONTEXT, self.shape.latent, device="cuda").bfloat16()
        weights = self.model.weights
        assert isinstance(weights, DeepseekV2)
        return Steps(weights, pool, 65, 2 * CONTEXT, pdl=pdl)

    def fill(self, steps: Steps, rows: int) -> None:
        """The inputs of a step whose tokens are random."""
        made = random.Random(rows)
        steps.table[0] = torch.arange(2 * CONTEXT)
        places = torch.arange(CONTEXT - rows, CONTEXT)
        steps.inputs[0, :rows] = torch.tensor([made.randrange(100, 100_000) for _ in range(rows)])
        steps.inputs[1, :rows], steps.inputs[2, :rows] = places, places
        steps.inputs[3], steps.inputs[4], steps.inputs[5, 0] = 0, -1, rows

    def kernels(self) -> list[dict[str, Any]]:
        """Each kernel of a layer with experts, over all such layers in one graph: microseconds, and its floor.

        The experts' wait for a choice that was made before.
        """
        c, item, found = self.shape, 1 if self.dtype == "int8" else 2, []
        wide = 3 * c.hidden_size * c.moe_intermediate_size * item
        read = {
            "inward": c.hidden_size * (c.num_attention_heads * 192 + c.latent) * item,
            "absorb": c.num_attention_heads * c.qk_nope_head_dim * c.kv_lora_rank * 2,
            "attend": CONTEXT * c.latent * 2,
            "expand": c.num_attention_heads * c.v_head_dim * c.kv_lora_rank * 2,
            "output": c.hidden_size * (c.num_attention_heads * c.v_head_dim * item + c.n_routed_experts * 4),
            "experts": wide * (c.num_experts_per_tok + c.n_shared_experts) * 2 // 3,
            "experts_down": wide * (c.num_experts_per_tok + c.n_shared_experts) // 3,
        }
        steps = self.steps()
        self.fill(steps, 1)
        steps.run(1)
        for name, size in read.items():
            launch = getattr(steps, name)
            row = () if name.startswith("experts") else (1,)
            graph = _graph(lambda launch=launch, row=row: [launch(*row, i) for i in range(1, c.num_hidden_layers)])
            us = timed(graph.replay) * 1000 / (c.num_hidden_layers - 1)
            floor = size / self.copied * 1e6
            found.append(
                {"kernel": name, "us": round(us, 2), "floor_us": round(floor, 2), "share": round(floor / us, 2)}
            )
        us = timed(_graph(lambda: steps.head(1)).replay) * 1000
        floor = c.vocab_size * c.hidden_size * item / self.copied * 1e6
        found.append({"kernel": "head", "us": round(us, 1), "floor_us": round(floor, 1), "share": round(floor / us, 2)})
        return found

    def whole(self) -> list[dict[str, Any]]:
        """Whole steps: eager, as a graph, with programmatic dependent launch, beside the floor of these experts."""
        found: list[dict[str, Any]] = []
        plain, dependent = self.steps(pdl=False), self.steps()
        for rows in SIZES:
            self.fill(plain, rows)
            self.fill(dependent, rows)
            experts = self._experts(plain, rows)
            floor = self.floor_ms(rows, experts)
            entry = {"rows": rows, "experts": round(experts, 1), "floor_ms": round(floor, 3)}
            if rows in (1, 4):
                entry["eager_ms"] = round(timed(lambda rows=rows: plain.run(rows), 5), 2)
            entry["graph_ms"] = round(timed(_graph(lambda rows=rows: plain.run(rows)).replay), 3)
            entry["pdl_ms"] = round(timed(_graph(lambda rows=rows: dependent.run(rows)).replay), 3)
            entry["share"] = round(floor / min(entry["graph_ms"], entry["pdl_ms"]), 3)
            found.append(entry)
        one, four = found[0], next(entry for entry in found if entry["rows"] == 4)
        self.bounds.append(
            Bound("step of one row, share of its floor", one["share"], 0.5 if self.dtype == "int8" else 0.6, True)
        )
        if self.dtype != "int8":
            self.bounds.append(Bound("step of four rows, share of its floor", four["share"], 0.6, True))
        return found

    def _experts(self, steps: Steps, rows: int) -> float:
        """Distinct routed experts that the rows visit, on average over the layers."""
        if rows == 1:
            return self.shape.num_experts_per_tok
        counts = [steps.chosen_experts for name in steps.launches(rows) if name == "routed"]
        return sum(counts) / len(counts)

    def prefill(self) -> list[dict[str, Any]]:
        """New prompts to their first token's logits."""
        found: list[dict[str, Any]] = []
        made = random.Random(5)
        for length in (128, 512, 1024, 4096, 8192):
            taken: list[float] = []
            for _ in range(4):
                ids = [made.randrange(100, 100_000) for _ in range(length)]
                torch.cuda.synchronize()
                began = time.perf_counter()
                sequence = self.model.begin(ids, reuse=False)
                while sequence.computed < length:
                    self.model.forward([(sequence, min(self.model.longest_chunk, length - sequence.computed), 1)])
                torch.cuda.synchronize()
                taken.append((time.perf_counter() - began) * 1000)
                self.model.end(sequence, keep=False)
            found.append({"tokens": length, "ms": round(sorted(taken[1:])[1], 1)})
            if length == 4096 and self.dtype != "int8":
                self.bounds.append(Bound("cold prompt of 4,096 tokens, ms", found[-1]["ms"], 60))
        return found

    def engine(self) -> dict[str, Any]:
        """Through the engine: decode rate, keystrokes to the first token and to a line, several users."""
        with tempfile.TemporaryDirectory() as folder:
            tokens = grown_tokenizer(Path(folder), self.shape.vocab_size)
        engine = Engine(self.model, tokens, tokens.markers(), drafts=False)
        text = prose(tokens, CONTEXT)
        found: dict[str, Any] = {"decode": self._decode(engine, text)}
        found |= self._keystrokes(engine, text)
        found["users"] = [self._users(engine, text, users) for users in (1, 2, 4, 8)]
        engine.close()
        return found

    def _decode(self, engine: Engine, text: list[str]) -> dict[str, float]:
        rates: list[float] = []
        for turn in range(3):
            lines = ask(engine, text, f"\n    w{turn} ", 129)
            (first, _), (last, end) = lines[0], lines[-1]
            rates.append((end.decoded - 1) / (last - first))
        best = report.percentile(rates, 0.5)
        share = best * self.floor_ms(1, self.shape.num_experts_per_tok) / 1000
        self.bounds.append(
            Bound("decode through the engine, share of its floor", share, 0.5 if self.dtype == "int8" else 0.6, True)
        )
        return {"tokens_s": round(best, 1), "share": round(share, 3)}

    def _keystrokes(self, engine: Engine, text: list[str]) -> dict[str, Any]:
        first: list[float] = []
        line: list[float] = []
        ask(engine, text, "\n    a", 1)
        typed, made = "\n    a", random.Random(3)
        for turn in range(120):
            typed += made.choice([" b", " c + d", " e", " x y"])
            began = time.perf_counter()
            lines = ask(engine, text, typed, 1 if turn % 2 else 12)
            (first if turn % 2 else line).append((lines[-1][0] - began) * 1000)
            if len(typed) > 300:
                typed = "\n    a"
        spreads = {"first_token_ms": report.spread(first, 2), "line_ms": report.spread(line, 2)}
        if self.dtype != "int8":
            self.bounds.append(Bound("keystroke to the first token, p50 ms", spreads["first_token_ms"]["p50"], 5))
            self.bounds.append(Bound("keystroke to the first token, p95 ms", spreads["first_token_ms"]["p95"], 8))
            self.bounds.append(Bound("keystroke and a line of 12 tokens, p50 ms", spreads["line_ms"]["p50"], 40))
        return spreads

    def _users(self, engine: Engine, text: list[str], users: int) -> dict[str, float]:
        def once() -> float:
            answers = [submit(engine, text, f"\n    u{user} ", 64, session=str(user)) for user in range(users)]
            began = time.perf_counter()
            decoded = sum(end.decoded for answer in answers for _, end in answer)
            return decoded / (time.perf_counter() - began)

        once()
        return {"users": users, "tokens_s": round(sorted(once() for _ in range(3))[1], 1)}


def _graph(run: Callable[[], Any]) -> torch.cuda.CUDAGraph:
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph


def main(
    dtype: Annotated[str, typer.Option(help="bfloat16 or int8")] = "bfloat16",
    part: Annotated[list[str], typer.Option(help="of " + ", ".join(PARTS))] = list(PARTS),  # noqa: B006
    json: Annotated[Path | None, typer.Option(help="write the figures there")] = None,
) -> None:
    """See the module."""
    bench = Bench(dtype)
    results: dict[str, Any] = {
        **report.header("benchmarks.gpu"),
        "device": torch.cuda.get_device_name(),
        "copy_TB_s": round(bench.copied / 1e12, 3),
        "load_s": bench.load_s,
        "floor_ms": round(bench.floor_ms(1, bench.shape.num_experts_per_tok), 3),
    }

    def keep(name: str, found: Any) -> None:
        """A part that hangs takes nothing with it."""
        results[name] = found
        results["bounds"] = [attrs.asdict(bound) | {"met": bound.met} for bound in bench.bounds]
        console.print(name, found)
        if json:
            report.write(json, results)

    run = {"kernels": bench.kernels, "steps": bench.whole, "prefill": bench.prefill, "engine": bench.engine}
    for name in part:
        if name in run:
            keep(name, run[name]())
    if "transformers" in part:
        bench.release()
        model = gpu_peers.transformers_model()
        theirs = gpu_peers.figures(model)
        if "engine" in results:
            times = round(results["engine"]["decode"]["tokens_s"] / theirs["generate_tokens_s"], 1)
            bench.bounds.append(Bound("decode, times as fast as generate", times, 20, True))
        keep("transformers", theirs)
        if "compiled" in part:
            keep("transformers compiled", gpu_peers.compiled(model))
    table = Table("held to", "value", "limit", "")
    for bound in bench.bounds:
        sign = "≥" if bound.at_least else "≤"
        table.add_row(bound.name, f"{bound.value:.3g}", f"{sign} {bound.limit:g}", "met" if bound.met else "MISSED")
    console.print(table)
    raise typer.Exit(0 if all(bound.met for bound in bench.bounds) else 1)


if __name__ == "__main__":
    typer.run(main)
