"""DeepSeek-Coder-V2-Lite's exact shape on a GPU, with random weights: it loads, answers, and takes 128K of context."""

from __future__ import annotations

import queue
import time
from pathlib import Path

import pytest
import torch

from benchmarks.lite import LITE, grown_tokenizer
from inference.engine import Engine
from inference.models.deepseek_v2_config import config
from inference.models.paged_model import PagedModel
from inference.random_weights import RandomWeights
from inference.weights import native
from inference.wire import End, Failure, FimRequest, Piece, Stops

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here; run `pytest -m gpu` where one is"),
]

PARAMETERS = 15_706_484_224
CONTEXT = 131_072


@pytest.fixture(scope="module")
def model() -> PagedModel:
    shape = config(LITE)
    before = torch.cuda.memory_allocated()
    began = time.monotonic()
    made = native(shape, RandomWeights(shape, "cuda", torch.bfloat16), "cuda", torch.bfloat16, CONTEXT)
    torch.cuda.synchronize()
    weights = torch.cuda.memory_allocated() - before - made.cache.slots * made.bytes_a_token
    print(
        f"\nrandom weights in {time.monotonic() - began:.1f} s, {weights / 1e9:.2f} GB; {made.bytes_a_token} B a token"
    )
    # Absorbed attention keeps W_UK and W_UV besides the matrix that holds both: 2 x 2.1 MB a layer at most.
    made.prepare(lambda _: None)
    assert PARAMETERS * 2 <= weights < PARAMETERS * 2 + 27 * 2 * 4.3e6 + 1e8
    return made


def test_it_answers_through_the_engine(model: PagedModel, tmp_path: Path) -> None:
    tokens = grown_tokenizer(tmp_path, LITE["vocab_size"])
    engine = Engine(model, tokens, tokens.markers())
    answers: list[tuple[str, End]] = []
    for typed in ("\n    ret", "\n    retu"):
        messages: queue.Queue[Piece | End | Failure] = queue.Queue()
        engine.submit(FimRequest("def f(x):", "\n", typed, Stops(max_tokens=16), session="s"), messages.put)
        text = ""
        while isinstance(message := messages.get(timeout=120), Piece):
            text += message.text
        assert isinstance(message, End), message
        answers.append((text, message))
    engine.close()
    assert all(end.decoded for _, end in answers)
    assert answers[1][1].prefilled <= 2, "the second keystroke found the first's cache"
    model.check()


def test_128k_of_context_is_prefilled_and_decoded(model: PagedModel) -> None:
    model.forget()
    torch.cuda.reset_peak_memory_stats()
    ids = torch.randint(10, 100_000, (CONTEXT - 8,), generator=torch.Generator().manual_seed(0)).tolist()
    sequence = model.begin(ids, reuse=True)
    began = time.monotonic()
    logits = torch.empty(0)
    while sequence.computed < len(ids):
        logits = model.forward([(sequence, min(model.longest_chunk, len(ids) - sequence.computed), 1)])
    torch.cuda.synchronize()
    prefill = time.monotonic() - began
    steps: list[float] = []
    for _ in range(8):
        began = time.monotonic()
        sequence.ids.append(int(logits[0].argmax()))
        logits = model.forward([(sequence, 1, 1)])
        torch.cuda.synchronize()
        steps.append(time.monotonic() - began)
    held = len(sequence.ids) * model.bytes_a_token
    print(
        f"\n{len(ids)} tokens prefilled in {prefill:.1f} s, then {sorted(steps)[4] * 1000:.0f} ms a token; "
        f"KV {held / 1e9:.2f} GB, peak {torch.cuda.max_memory_allocated() / 1e9:.1f} GB"
    )
    assert torch.isfinite(logits).all()
    assert 4.0e9 < held < 4.2e9
    model.end(sequence, keep=True)
    again = model.begin(ids, reuse=True)
    assert again.reused == len(ids) - 1
    warm = model.forward([(again, 1, 1)])
    assert torch.isfinite(warm).all()
    model.end(again, keep=False)
    model.check()
