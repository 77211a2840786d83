"""The engine's benchmarks ask every engine the same, and judge what they measured."""

from __future__ import annotations

import asyncio
import importlib.util
import math
import random
from collections.abc import AsyncGenerator
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import drafts, engine_work, families, llama_standin
from benchmarks.cache_check import Answer, Pair, judge
from benchmarks.contenders import FIMBLE, LLAMA, TRANSFORMERS
from benchmarks.drafts import margin
from benchmarks.engine import COLD, FIRST, LINE, ROW_LINE, SIZES, Case, Figures, Ratio, comparable, ratios
from benchmarks.engine_client import Failed, Reply, ask
from benchmarks.engine_work import Library, common
from benchmarks.quiet import Quiet
from benchmarks.soak import Outcome, Tally, problems, quarters
from benchmarks.sources import SourceFile
from benchmarks.typing_script import Script
from benchmarks.typist import EngineBackend, Typist
from inference.models.shapes import shape_of
from inference.random_weights import shapes
from inference.wire import End, Failure, FimRequest, Health, Piece
from lsp_server.completion import Completer
from lsp_server.request import Trace
from lsp_server.settings import Settings

TEXTS = [path.read_text("utf-8") for path in sorted((engine_work.ROOT / "lsp_server").glob("*.py"))]
LIBRARY = Library(TEXTS, seed=1)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(SIZES), st.integers(0, 12))
def test_a_document_is_typed_token_by_token_into_its_hole(size: int, keys: int) -> None:
    document = LIBRARY.document(size, keys, missing=60)
    assert len(document.keys) == keys
    assert abs(len(document.prompt.ids) - size) <= 0.02 * size
    prompts = [document.prompt, *document.keys]
    for before, after in pairwise(prompts):
        assert 0 < len(after.ids) - common(before.ids, after.ids) <= 4
        assert after.request.typed.startswith(before.request.typed)
    last = prompts[-1].request
    source = next(text for text in TEXTS if last.prefix + last.typed in text)
    assert last.suffix.startswith("\n")
    assert source.index(last.prefix + last.typed) + len(last.prefix + last.typed) < source.rindex(last.suffix)


def test_every_document_is_new_to_a_cache() -> None:
    documents = [LIBRARY.document(600, 0, 60) for _ in range(10)]
    for i, a in enumerate(documents):
        assert all(common(a.prompt.ids, b.prompt.ids) < 60 for b in documents[:i])


def test_a_file_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="room"):
        Library(["a = 1\n" * 10], 1).document(600, 1, 60)


def test_a_line_that_one_engine_ended_early_is_left_out_for_all() -> None:
    def figures(ms: float, decoded: int) -> dict[str, float]:
        return {"ms": ms, "decoded": decoded}

    timed = {
        "a": [(COLD, figures(1, 1)), (FIRST, figures(2, 1)), (ROW_LINE, figures(3, LINE)), (ROW_LINE, figures(4, 7))],
        "b": [
            (COLD, figures(5, 1)),
            (FIRST, figures(6, 1)),
            (ROW_LINE, figures(7, LINE)),
            (ROW_LINE, figures(8, LINE)),
        ],
    }
    kept = {case: [one["ms"] for one in figures] for case, figures in comparable(timed).items()}
    assert kept == {
        ("a", COLD): [1],
        ("b", COLD): [5],
        ("a", FIRST): [2],
        ("b", FIRST): [6],
        ("a", ROW_LINE): [3],
        ("b", ROW_LINE): [7],
    }


def samples(line: float, busy: float, transformers: float, llama: float | None) -> dict[Case, list[Figures]]:
    found: dict[Case, float] = {}
    for size in SIZES:
        found |= {(FIMBLE, COLD, size, "idle"): 300, (FIMBLE, ROW_LINE, size, "idle"): line}
        found |= {(FIMBLE, ROW_LINE, size, "busy"): busy, (TRANSFORMERS, ROW_LINE, size, "idle"): transformers}
        if llama:
            found |= {(LLAMA, COLD, size, "idle"): 700, (LLAMA, ROW_LINE, size, "idle"): llama}
    return {case: [{"ms": ms}] for case, ms in found.items()}


def missed(found: list[Ratio]) -> set[str]:
    return {ratio.name.partition(",")[0] for ratio in found if not ratio.met}


def test_each_ratio_can_be_missed() -> None:
    fine: dict[str, Any] = {"two users": {"ratio": 1.6}}
    assert missed(ratios(samples(50, 70, 500, 60), fine)) == set()
    assert missed(ratios(samples(50, 80, 500, 60), fine)) == {"line beside a busy processor"}
    assert missed(ratios(samples(50, 70, 150, 60), fine)) == {"line"}
    assert missed(ratios(samples(50, 70, 500, 40), fine)) == {"line"}
    assert missed(ratios(samples(50, 70, 500, None), fine)) == set()
    assert missed(ratios(samples(50, 70, 500, 60), {"two users": {"ratio": 1.2}})) == {"tokens/s of two users"}


def test_a_ratio_that_was_not_measured_is_missed() -> None:
    assert not Ratio("a", 0.0, 1.0).met
    assert len(missed(ratios({}, {"two users": {"ratio": 0.0}}))) == 3


def test_without_llama_cpp_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install xllamacpp gguf" in llama_standin.missing()
    assert llama_standin.versions() == {}


def test_a_machine_is_idle_only_if_others_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_percent", lambda seconds: 3.0)
    quiet = Quiet()
    assert quiet.idle
    quiet.others = 0.3
    assert not quiet.idle
    monkeypatch.setattr(psutil, "cpu_percent", lambda seconds: 60.0)
    assert not Quiet().idle


class Scripted:
    """An engine that answers at once with what it was given."""

    def __init__(self, *messages: Piece | End | Failure):
        self._messages = messages

    def submit(self, request: FimRequest, sink: Any) -> object:
        for message in self._messages:
            sink(message)
        return object()


def test_an_answer_is_collected_to_its_end() -> None:
    engine = Scripted(Piece("ab", -1.0, top=(("ab", -1.0),)), Piece("c", -1.0), End("tokens", decoded=2))
    reply = ask(cast(Any, engine), FimRequest("x"))
    assert (reply.text, reply.end.decoded, reply.answer.steps) == ("abc", 2, [(("ab", -1.0),)])
    assert 0 < reply.first_ms <= reply.ms


def test_a_refusal_is_an_error() -> None:
    with pytest.raises(Failed, match="too long"):
        ask(cast(Any, Scripted(Failure("too_long", "too long"))), FimRequest("x"))


def answer(text: str, *steps: tuple[str, float]) -> Answer:
    return Answer(text, [((token, -0.5), ("?", -0.5 - gap)) for token, gap in steps], End("line", prompt=10))


def test_a_margin_is_that_of_the_token_where_two_texts_part() -> None:
    spelled = answer("int(a)", ("pr", 1.0), ("int", 2.0), ("(a", 0.25), (")", 4.0))  # "pr" was held back
    assert margin(spelled, "int(b)") == pytest.approx(0.25)
    assert margin(spelled, "inn") == pytest.approx(2.0)
    assert margin(spelled, "int(a") == pytest.approx(4.0)
    assert margin(spelled, "int(a) + 1") == float("inf")
    assert margin(answer("other", ("print", 1.0)), "x") == float("inf")


def test_differences_are_excused_only_within_the_measured_error(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = [drafts.Recorded(FimRequest("x"), shown=True)]
    replies = {
        on: [ask(cast(Any, Scripted(Piece("b" if on else "a", -1), End("line"))), FimRequest("x"))]
        for on in (True, False)
    }

    def verdict(gap: float) -> Any:
        close = {
            True: Answer("k", [(("k", -0.5), ("l", -2.0))], End("line")),
            False: Answer("a", [(("a", -0.501), ("b", -0.501 - gap))], End("line")),
        }
        monkeypatch.setattr(Pair, "difference", 0.01)
        sides = {drafting: cast(Any, Repeating(close[drafting])) for drafting in (True, False)}
        return drafts.judge(sides, recorded, replies, seed=1)

    assert (verdict(0.015).excused, verdict(0.015).wrong) == (1, 0)
    assert (verdict(0.5).excused, verdict(0.5).wrong) == (0, 1)


class Repeating:
    """A side whose answer is always the same."""

    def __init__(self, answer: Answer):
        self._reply = Reply(answer.text, answer.steps, answer.end)

    def ask(self, requests: list[FimRequest]) -> list[Reply]:
        return [self._reply for _ in requests]


@given(st.lists(st.tuples(st.floats(0, 0.1), st.floats(0, 0.1), st.booleans()), max_size=20))
def test_a_tally_counts_as_the_judge_does(drawn: list[tuple[float, float, bool]]) -> None:
    pairs: list[Pair] = []
    for noise, gap, same in drawn:
        fresh = Answer("ax", [(("a", -0.1), ("b", -3.0)), (("x", -0.7), ("y", -0.7 - gap))], End("line", prompt=10))
        last = ("x", "y") if same else ("y", "x")
        steps = [(("a", -0.1 - noise), ("b", -3.0)), ((last[0], -0.7), (last[1], -0.71))]
        pairs.append(Pair(Answer("a" + last[0], steps, End("line", prompt=10, reused=8)), fresh))
    tally = Tally()
    for pair in pairs:
        tally.add(pair)
    assert tally.verdict() == judge(pairs)


def soaked(memory: list[float], **outcomes: int) -> Outcome:
    outcome = Outcome(memory=[(float(i), mb) for i, mb in enumerate(memory)], tally=Tally(exact=300))
    outcome.outcomes.update(outcomes)
    return outcome


def test_memory_may_grow_only_while_it_warms_up() -> None:
    assert quarters([(0, 1), (1, 2), (2, 3), (3, 4), (4, 6)]) == [1, 2, 3, 5]
    assert quarters([]) == [0, 0, 0, 0]
    assert problems(soaked([100, 400, 500, 500, 510, 500, 505, 500], shown=9, superseded=3, empty=1)) == []
    assert "memory" in problems(soaked([100, 100, 200, 200, 300, 300, 400, 400]))[0]


def test_a_soak_fails_for_each_thing_that_went_wrong() -> None:
    flat = [100.0] * 8
    assert "requests failed" in problems(soaked(flat, shown=9, failed=1))[0]
    unchecked = soaked(flat)
    unchecked.tally = Tally()
    assert "no answer was checked" in problems(unchecked)[0]
    wrong = soaked(flat)
    wrong.tally.margins.append(1.0)
    assert "1 are wrong" in problems(wrong)[0]
    broken = soaked(flat)
    broken.broken.append("a slot is lent twice")
    assert problems(broken) == ["a slot is lent twice"]


class Guessing:
    """A backend that knows the text being typed, and is right half of the time."""

    def __init__(self, text: str):
        self.text, self.chance, self.ready = text, random.Random(1), Health("ready", "", "", "", 0)
        self.ready = Health("ready", "", "", "", 0, window=2048, chars_per_token=3.0)

    def ensure(self) -> Any:
        raise AssertionError("it is ready")

    async def fim(self, request: FimRequest) -> AsyncGenerator[Piece | End, None]:
        before = (request.prefix + request.typed)[-40:]
        at = self.text.find(before) + len(before)
        await asyncio.sleep(0)
        right = self.chance.random() < 0.5
        yield Piece(self.text[at : at + 5].split("\n")[0] if right else "wrong", -1.0)
        yield End("line")


@pytest.mark.parametrize("patience", [None, 0.0])
def test_a_typist_types_the_file_again(patience: float | None) -> None:
    source = SourceFile("engine_work.py", "python", Path(engine_work.__file__).read_text("utf-8"), "", "")
    traces: list[Trace] = []

    async def type_it() -> str:
        backend = cast(EngineBackend, Guessing(source.text))
        completer = Completer(backend, Settings(completion_cache=False, confidence=0.0, max_delay_ms=0), traces.append)
        script = Script(source.text, "1", 80, before=300, after=300)
        return await Typist(completer, source, script, patience=lambda: patience).type()

    assert asyncio.run(type_it()) == source.text
    assert {trace.outcome for trace in traces} <= {"shown", "empty", "superseded"}
    requests = [trace.request for trace in traces if trace.outcome == "shown" and trace.request]
    assert bool(requests) == (patience is None)
    assert all(request.stops.end_of_line or request.stops.max_lines for request in requests)


def test_the_model_of_the_families_benchmark_has_qwen2_5_coder_s_half_a_billion_parameters() -> None:
    tensors = shapes(shape_of(families.config()))
    assert sum(math.prod(shape) for shape in tensors.values()) == 494_032_768
