"""Keystrokes on a model of Qwen2.5-Coder-0.5B's shape: this project's engine, transformers and llama.cpp, side by side.

    python -m benchmarks.families [--documents N] [--size TOKENS] [--quick] [--anyway] [--json OUT]

The weights are random, as the time of a step does not depend on them: int8 here, float32 in the transformers library,
Q8_0 in llama.cpp (pip install xllamacpp gguf). Each engine has a process of its own and two threads; they take turns,
document by document. The prompts are those of `benchmarks.engine`: cold, a new prompt to its first token; then
keystrokes of one to three tokens, after which one token or a line of 12 is wanted. Random weights repeat themselves as
no text does, so drafts are left out.

Exit status 2 if the machine is not idle at the start (with --anyway that is only noted).
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import llama_standin, report
from benchmarks.contenders import (
    FLASH,
    LLAMA,
    PLAIN,
    THREADS,
    TRANSFORMERS,
    Apart,
    Contender,
    Fimble,
    Llama,
    Transformers,
)
from benchmarks.engine import COLD, FIRST, LINE, MISSING, ROW_LINE, Case, Figures, comparable, digits, spread, type_into
from benchmarks.engine_work import Library, own_texts
from benchmarks.llama_standin import Shape
from benchmarks.quiet import IDLE, Quiet

SHAPE = Shape("qwen2", 151_936, 896, 24, 14, 2, 4864, biased=True)
"""Qwen2.5-Coder-0.5B's: 494 million parameters, the embedding counted once."""
KEYS, WARM = 8, 100
"""Keystrokes a document, and tokens of the prompt with which an engine's turn begins."""


def config() -> dict[str, Any]:
    """The shape as in a `config.json`."""
    return {
        "model_type": "qwen2",
        "vocab_size": SHAPE.vocabulary,
        "hidden_size": SHAPE.hidden,
        "intermediate_size": SHAPE.inner,
        "num_hidden_layers": SHAPE.layers,
        "num_attention_heads": SHAPE.heads,
        "num_key_value_heads": SHAPE.groups,
        "max_position_embeddings": 32_768,
        "rope_theta": 1e6,
        "tie_word_embeddings": True,
    }


def build(name: str) -> Contender:
    """The engine of that name over random weights."""
    if name == TRANSFORMERS:
        import torch
        from transformers import Qwen2Config, Qwen2ForCausalLM

        from inference.models.shapes import shape_of
        from inference.random_weights import RandomWeights, shapes

        fields = {key: value for key, value in config().items() if key not in ("model_type", "rope_theta")}
        drawn = RandomWeights(shape_of(config()), "cpu", torch.float32)
        state = {name: drawn.tensor(name) for name in shapes(shape_of(config()))}
        kind: Any = Qwen2ForCausalLM
        shape = Qwen2Config(**fields)
        return Transformers(kind.from_pretrained(None, config=shape, state_dict=state, dtype=torch.float32))
    if name in (LLAMA, FLASH):
        return Llama(name == FLASH, SHAPE)
    return Fimble(drafts=False, model=native())


def native() -> Any:
    """The model in this project's engine, int8; made in a thread that ends, as a worker's is."""
    from concurrent.futures import ThreadPoolExecutor

    import torch

    from inference.models.shapes import shape_of
    from inference.random_weights import RandomWeights
    from inference.weights import native as engine

    def made() -> Any:
        shape = shape_of(config())
        weights = RandomWeights(shape, "cpu", torch.float32, int8=True)
        return engine(shape, weights, "cpu", torch.int8, 4096)

    with ThreadPoolExecutor(1) as loader:
        return loader.submit(made).result()


def measure(
    console: Console, names: list[str], documents: int, keys: int, sizes: list[int], seed: int
) -> dict[Case, list[Figures]]:
    """The figures of every case, on an otherwise idle machine."""
    library, samples = Library(own_texts(), seed), dict[Case, list[Figures]]()
    engines: list[Apart] = []
    for name in names:
        began = time.monotonic()
        engines.append(Apart(name, build))
        console.print(f"{name}: loaded in {time.monotonic() - began:.0f} s", highlight=False)
    for turn, size in itertools.product(range(documents), sizes):
        document, other = library.document(size, keys, MISSING), library.document(WARM, 1, 1)
        order = engines[turn % len(engines) :] + engines[: turn % len(engines)]
        timed = {engine.name: type_into(engine, document, other) for engine in order}
        for (name, what), figures in comparable(timed).items():
            samples.setdefault((name, what, size, "idle"), []).extend(figures)
    for engine in engines:
        engine.close()
    return samples


def table(samples: dict[Case, list[Figures]], names: list[str], sizes: list[int]) -> Table:
    """Every case as it is printed."""
    shown = Table(title=f"ms, p50 / p95, {THREADS} threads each")
    shown.add_column("")
    for name in names:
        shown.add_column(name, justify="right")
    for what, size in itertools.product((COLD, FIRST, ROW_LINE), sizes):
        spreads = (spread(samples.get((name, what, size, "idle"), []))["ms"] for name in names)
        cells = (f"{ms['p50']:.{digits(ms)}f} / {ms['p95']:.{digits(ms)}f}" for ms in spreads)
        shown.add_row(f"{what}, {size} tokens", *cells)
    return shown


def main(
    documents: Annotated[int, typer.Option(help="of each size")] = 3,
    quick: Annotated[bool, typer.Option(help="one document and few keys: does it work at all?")] = False,
    anyway: Annotated[bool, typer.Option(help="measure on a machine that is not idle")] = False,
    size: Annotated[list[int] | None, typer.Option(help="tokens of a prompt; may be given several times")] = None,
    seed: Annotated[int, typer.Option(help="of the prompts")] = 1,
    out: Annotated[Path | None, typer.Option("--json", help="write the figures here")] = None,
) -> None:
    """Compares engines on a Qwen2 of half a billion parameters."""
    console, head, quiet = Console(), report.header("benchmarks.families"), Quiet()
    if not quiet.idle:
        console.print(f"[yellow]the machine is not idle: {quiet}")
        if not (anyway or quick):
            console.print(f"[red]end other programs (below {IDLE:.0%} is wanted), or measure with --anyway")
            raise typer.Exit(2)
    sizes = size or [600, 1200]
    names = [PLAIN, TRANSFORMERS, LLAMA, FLASH]
    if lacking := llama_standin.missing():
        console.print(f"[yellow]{lacking}")
        names = names[:2]
    samples = measure(console, names, 1 if quick else documents, 4 if quick else KEYS, sizes, seed)
    quiet.finish()
    console.print(table(samples, names, sizes))
    console.print(f"the machine: {quiet}; a line is {LINE} tokens")
    if out:
        rows = [
            dict(zip(("engine", "row", "tokens", "load"), case, strict=True)) | {"n": len(figures)} | spread(figures)
            for case, figures in samples.items()
        ]
        versions = head["versions"] | llama_standin.versions()
        report.write(out, head | {"versions": versions, "machine idle": quiet.figures, "rows": rows})


if __name__ == "__main__":
    typer.run(main)
