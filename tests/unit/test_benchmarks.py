"""The benchmarks type what they say they type, and judge what they measured."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import report, sources
from benchmarks.cache_check import Answer as Checked
from benchmarks.cache_check import Pair, judge
from benchmarks.healing import tasks
from benchmarks.keystrokes import Options, row, sample
from benchmarks.player import Asked
from benchmarks.typing import Acceptance, acceptances
from benchmarks.typing import row as typing_row
from benchmarks.typing_script import Answer, Kind, Script, Step, offset, position
from inference import starter
from inference.tokens import Tokens
from inference.wire import End, FimRequest, Timing
from lsp_server.documents import Document
from lsp_server.request import Trace

CODE = Path(sources.__file__).read_text("utf-8")
LINES = st.lists(
    st.text("abf(x)[y]{z}:, \t\"'é🚀", max_size=30) | st.sampled_from(["    return f(a, [b])", "\tif (x) {"]),
    max_size=40,
)


def play(script: Script, answers: st.DataObject | None = None) -> tuple[str, list[Step]]:
    """Types a script over a plain text; ghost text is drawn from what is to come and from what is not."""
    text, steps = script.holed, list[Step]()
    typing = script.steps()
    answer: Answer | None = None
    while True:
        try:
            step = typing.send(answer) if steps else next(typing)
        except StopIteration:
            return text, steps
        if step.edit:
            start, end, new = step.edit
            text = text[:start] + new + text[end:]
        assert 0 <= step.cursor <= len(text)
        steps.append(step)
        answer = None
        if answers and step.asks and step.waits:
            at = script.original.find(text[max(0, step.cursor - 20) : step.cursor]) + min(20, step.cursor)
            length, covers = answers.draw(st.integers(0, 30)), answers.draw(st.integers(0, 2))
            answer = Answer(step.cursor, min(step.cursor + covers, len(text)), script.original[at : at + length])


@given(LINES.map("\n".join), st.integers(0, 9), st.integers(1, 60), st.sampled_from([0, 1, 4]), st.data())
def test_typing_a_script_gives_the_file_again(
    text: str, seed: int, keystrokes: int, lines: int, answers: st.DataObject
) -> None:
    script = Script(text, str(seed), keystrokes, before=10, after=10, lines=lines, language="python")
    assert play(script, answers)[0] == text


@settings(max_examples=100)
@given(st.integers(0, 200), st.integers(8, 80), st.sampled_from([0, 6]), st.data())
def test_so_does_typing_real_code(seed: int, keystrokes: int, lines: int, answers: st.DataObject) -> None:
    script = Script(CODE, str(seed), keystrokes, before=300, after=300, lines=lines, language="python")
    typed, steps = play(script, answers)
    assert script.holed != typed == CODE
    assert any(step.asks for step in steps)


def test_an_answer_is_accepted_only_if_it_is_exactly_what_comes() -> None:
    text = "\n".join(["def f():", "    alpha = beta(gamma)", "    return alpha", ""])
    script = Script(text, "", 4, before=0, after=0)
    script.regions, script.text = [(8, 32)], text[:8] + text[32:]

    def accepted(rest: str, covers: int) -> bool:
        """Whether the answer to `    alpha = beta(`, before its auto-closed bracket, is ever taken."""
        typing = script.steps()
        step, answer = next(typing), None
        while step.kind != "accept":
            at_bracket = step.kind == "pair"
            answer = Answer(step.cursor, step.cursor + covers, rest) if at_bracket else None
            try:
                step = typing.send(answer)
            except StopIteration:
                script.text = text[:8] + text[32:]
                return False
        return True

    assert any(accepted("gamma)", 1) for _ in range(20))
    assert any(accepted("gamma", 0) for _ in range(20))
    assert not any(accepted(*wrong) for wrong in [("gamma)", 0), ("gamma", 1), ("delta)", 1)] for _ in range(20))


def test_a_new_line_is_indented_as_editors_do_it_and_then_put_right() -> None:
    text = "def f():\n    if x:\n        return y\n\n    while z:\n            g({\n    })\n    return z\n"
    script = Script(text, "", 4, before=0, after=0, wander=False, lines=7, language="python")
    script.regions = [(8, len(text) - 1)]
    script.text = script.holed = text[:8] + text[-1:]
    typed, steps = play(script)
    assert typed == text
    edits = [(step.kind, step.edit[2], step.edit[1] - step.edit[0]) for step in steps if step.edit]
    around = [edit for i, edit in enumerate(edits) if "newline" in (edit[0], edits[i - 1][0])]
    assert [new for kind, new, _ in around if kind == "newline"] == [
        "\n    ",
        "\n        ",
        "\n    ",
        "\n    ",
        "\n        ",
        "\n                ",
        "\n    ",
    ]
    assert ("newline", "\n    ", 4) in around, "the blanks of an empty line go"
    assert ("insert", "    ", 0) in around, "deeper than the editor thought"
    assert ("insert", "}", 12) in around, "a closing bracket takes its line along"


def accepted_then(*requests: tuple[Kind, str, str | None, str]) -> list[Acceptance]:
    """The acceptances of requests given as kind, source of the answer, the answer, and the text up to the cursor."""
    return acceptances(
        [
            Asked("a.py", kind, "", 2, 1, {"insertText": answer} if answer else None, trace, place=(text, len(text)))
            for kind, source, answer, text in requests
            for trace in [Trace("", "", 2, source=source)]
        ]
    )


def test_the_next_suggestion_counts_at_the_acceptance_and_at_the_line_break_right_after_it() -> None:
    found = accepted_then(
        ("insert", "model", "x", "a"),
        ("accept", "cache", None, "ax"),
        ("newline", "cache", "then", "ax\n    "),
        ("accept", "cache", None, "ax\n    then"),
        ("insert", "suggestion", "too late", "ax\n    then."),
        ("accept", "ahead", "waited for", "ax"),
        ("newline", "model", "asked", "ax\n"),
        ("accept", "suggestion", "more", "ax\n"),
        ("accept", "model", None, "ax\nmore"),
        ("newline", "suggestion", "somewhere else", "a\n"),
    )
    assert [one.outcome for one in found] == [
        "there",
        "known as nothing",
        "still being asked",
        "there",
        "asked only then",
    ]
    assert [one.next and one.next.answer for one in found[::3]] == [{"insertText": "then"}, {"insertText": "more"}]


def test_where_there_is_nothing_to_show_no_next_suggestion_is_missed() -> None:
    accepted = accepted_then(
        ("accept", "cache", "next", "a"), ("accept", "cache", None, "a"), ("accept", "model", None, "a")
    )
    accepted[1].nothing = True
    accepted[2].nothing, accepted[2].asked[0].answer = True, {"insertText": "late, but there is something"}
    figures = typing_row([], accepted)
    assert figures["then"] == {"there": 1, "nothing to show": 1, "asked only then": 1}
    assert figures["next suggestion there without a wait"] == 0.5


def test_the_same_seed_types_the_same_keys() -> None:
    def steps(seed: str) -> list[Step]:
        return play(Script(CODE, seed, 40))[1]

    assert steps("1 a.py") == steps("1 a.py")
    assert steps("1 a.py") != steps("2 a.py")


@given(st.integers(0, 50))
def test_a_script_asks_about_as_often_as_it_should(seed: int) -> None:
    asks = sum(step.asks for step in play(Script(CODE, str(seed), 40))[1])
    assert 25 <= asks <= 80


@given(LINES.map("\n".join), st.data())
def test_positions_are_those_of_the_protocol(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    line, character = position(text, at)
    document = Document("file:///a", "plaintext", 1, text)
    place = document.position(line, character, "utf-16")
    assert sum(len(before) + 1 for before in text.split("\n")[: place.line]) + place.column == at
    assert offset(text, line, character) == at


def test_only_pinned_files_of_packages_are_replayed() -> None:
    fetched = [source for source in sources.SOURCES if source.package]
    assert {"python", "typescript", "go", "rust", "java"} <= {source.language for source in fetched}
    assert all(len(source.sha256) == 64 for source in fetched)
    assert len({source.name for source in sources.SOURCES}) == len(sources.SOURCES)


def test_without_a_network_the_projects_own_files_are_replayed(tmp_path: Path) -> None:
    files, problems = sources.load([], tmp_path, offline=True)
    assert {file.language for file in files} == {"python", "lua"}
    assert problems == []


def test_a_language_that_cannot_be_fetched_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    files, problems = sources.load(["flag.go", "documents.py"], tmp_path, offline=False)
    assert [file.name for file in files] == ["documents.py"]
    assert len(problems) == 1
    assert "flag.go (go) is left out: apt-get is not on the PATH" in problems[0]


def test_a_file_that_is_not_the_pinned_one_is_left_out(tmp_path: Path) -> None:
    wanted = next(source for source in sources.SOURCES if source.name == "flag.go")
    kept = tmp_path / "files" / f"{wanted.sha256}-{wanted.name}"
    kept.parent.mkdir()
    kept.write_text("package other\n")
    files, problems = sources.load(["flag.go"], tmp_path, offline=False)
    assert files == []
    assert "SHA-256" in problems[0]


def checked(*steps: tuple[tuple[str, float], tuple[str, float]]) -> Checked:
    return Checked("".join(step[0][0] for step in steps), list(steps), End("line", prompt=10, reused=8))


SURE = (("a", -0.1), ("b", -3.0))
ROUNDED = (("a", -0.11), ("b", -3.0))


def test_equal_answers_are_exact_and_measure_the_error() -> None:
    verdict = judge([Pair(checked(SURE), checked(ROUNDED))])
    assert (verdict.exact, verdict.excused, verdict.wrong) == (1, 0, 0)
    assert verdict.error == pytest.approx(0.02)
    assert verdict.reused == 0.8


def test_another_token_is_excused_only_within_the_error() -> None:
    close = (("x", -0.700), ("y", -0.701)), (("y", -0.700), ("x", -0.701))
    clear = (("x", -0.5), ("y", -1.0)), (("y", -0.5), ("x", -1.0))
    pairs = [Pair(checked(SURE, close[0]), checked(ROUNDED, close[1])), Pair(checked(clear[0]), checked(clear[1]))]
    verdict = judge(pairs)
    assert (verdict.exact, verdict.excused, verdict.wrong) == (0, 1, 1)
    assert not verdict.passed


def test_an_answer_that_ends_elsewhere_is_wrong() -> None:
    verdict = judge([Pair(checked(SURE), checked(SURE, SURE))])
    assert verdict.wrong == 1


def test_one_excused_answer_in_two_hundred_passes() -> None:
    same = Pair(checked(SURE), checked(ROUNDED))
    close = Pair(checked((("x", -0.700), ("y", -0.701))), checked((("y", -0.700), ("x", -0.701))))
    assert judge([same] * 199 + [close]).passed
    assert not judge([same] * 150 + [close]).passed


def asked(outcome: str, prepare: float, first: float, prefilled: int, answer: str | None) -> Asked:
    end = End("line", prompt=1200, reused=1200 - prefilled, prefilled=prefilled, decoded=4, timing=Timing(0, first, 90))
    trace = Trace("1", "file:///a", 2, outcome, FimRequest("a"), end, prepare_ms=prepare)
    return Asked("a.py", "insert", "file:///a", 2, 100, {"insertText": answer} if answer else None, trace)


def test_a_row_counts_what_was_not_superseded() -> None:
    made = [asked("shown", 2, 50, 1, "x"), asked("empty", 4, 60, 3, None), asked("superseded", 1, 1, 900, None)]
    made.append(Asked("a.py", "insert", "file:///a", 3))  # superseded before it began
    figures = row(made, Tokens(starter.FOLDER / "tokenizer.json"))
    assert (figures["requests"], figures["superseded"], figures["shown"]) == (4, 2, 0.5)
    assert figures["first token, ms"]["p50"] == 58
    assert figures["server overhead, ms"]["p50"] == 10
    assert figures["prefilled tokens"]["mean"] == 2
    assert figures["cache hits"] == round(2396 / 2400, 4)
    assert figures["large prompts"] == 0


def test_an_answer_is_checked_after_the_one_before_it() -> None:
    made = [asked("shown", 1, 1, 1, str(i)) for i in range(6)]
    for i, one in enumerate(made):
        assert one.trace
        one.trace.request, one.file = FimRequest(str(i)), "a.py" if i < 3 else "b.py"
    options = Options(keystrokes=6, files=[], check=6, seed=1, cache=Path(), offline=True)
    pairs = [(before and before.prefix, request.prefix) for before, request in sample(made, options)]
    assert pairs == [(None, "0"), ("0", "1"), ("1", "2"), (None, "3"), ("3", "4"), ("4", "5")]


def test_percentiles_lie_between_neighbours() -> None:
    assert report.percentile([3, 1, 2], 0.5) == 2
    assert report.percentile([0, 10], 0.95) == pytest.approx(9.5)
    assert report.percentile([], 0.5) == 0


def test_a_result_names_no_folder_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["healing.py", "/somewhere/private/set.jsonl", "--n", "9"])
    assert report.header("benchmarks.healing")["command"] == "python -m benchmarks.healing set.jsonl --n 9"


@pytest.mark.parametrize("name", ["set.jsonl", "set.jsonl.gz"])
def test_the_cursor_stands_inside_the_line_to_be_written(tmp_path: Path, name: str) -> None:
    record = {"prompt": "def f(x):\n", "canonical_solution": "    y = x + 1\n", "suffix": "    return y\n"}
    data = (json.dumps(record) + "\n").encode() * 50
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    chosen = tasks(path, 50, seed=1)
    assert chosen == tasks(path, 50, seed=1)
    assert {task.column for task in chosen} <= set(range(1, len("    y = x + 1")))
    for task in chosen:
        anchored, psm = task.request("anchored", heal=True), task.request("psm", heal=False)
        assert anchored.prefix + anchored.typed == psm.prefix + psm.typed == "def f(x):\n" + task.line[: task.column]
        assert anchored.suffix == psm.suffix == "\n    return y\n"
        assert task.hit(task.line[task.column :] + " ")
        assert not task.hit(task.line[task.column :] + "0")


def test_a_set_of_another_form_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text('{"prompt": "a\\n"}\n')
    with pytest.raises(ValueError, match="canonical_solution"):
        tasks(path, 1, seed=1)
