"""What `fimble eval` says of an answer, of two settings, and of a program that it runs."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.fill import InProcess
from evaluation.metrics import edit_distance, edit_similarity, first_line
from evaluation.places import PLACES, pick, sources, usable
from evaluation.recording import Recorder, Recording, Stream, Token, key, replay
from evaluation.results import Results, Unfit, differences, figures, read
from evaluation.run import run
from evaluation.sandbox import run as execute
from evaluation.score import Answer, score
from evaluation.significance import bootstrap, mcnemar
from evaluation.tasks import NoSet, Task, load
from inference.stops import Stopper
from inference.wire import End, FimRequest, Piece, Stops
from lsp_server.completion import Completer
from lsp_server.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
OWN_SET = ROOT / "tests" / "data" / "holes.jsonl"

# Metrics


@pytest.mark.parametrize(
    ("a", "b", "distance"), [("kitten", "sitting", 3), ("", "abc", 3), ("flaw", "lawn", 2), ("same", "same", 0)]
)
def test_edit_distance_is_levenshtein_s(a: str, b: str, distance: int) -> None:
    assert edit_distance(a, b) == distance


@given(st.text(max_size=12), st.text(max_size=12), st.text(max_size=12))
def test_edit_distance_is_a_metric(a: str, b: str, c: str) -> None:
    assert edit_distance(a, b) == edit_distance(b, a)
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)


def test_similarity_runs_from_0_to_1() -> None:
    assert edit_similarity("", "") == edit_similarity("x", "x") == 1
    assert edit_similarity("abc", "xyz") == 0
    assert edit_similarity("return a", "return b") == 1 - 1 / 8


def test_the_first_line_is_the_first_that_is_not_blank() -> None:
    assert first_line("a = 1  \nb = 2") == "a = 1"
    assert first_line("\n    a = 1\nb = 2") == "\n    a = 1"


# Significance


def test_mcnemar_s_exact_test_counts_only_where_the_two_differ() -> None:
    first = [True] * 2 + [False] * 10 + [True] * 50
    second = [False] * 2 + [True] * 10 + [True] * 50
    found = mcnemar(first, second)
    assert found.p == pytest.approx(2 * (1 + 12 + 66) / 2**12)  # 0.0386
    assert found.significant
    assert found.mean == pytest.approx(8 / 62)
    assert mcnemar(second, first).p == found.p
    assert mcnemar(first, first).p == 1


def test_the_paired_bootstrap_finds_a_small_steady_gain_and_no_noise() -> None:
    base = [((i * 37) % 101) / 101 for i in range(200)]
    better = [value + 0.01 + 0.02 * (i % 3 == 0) for i, value in enumerate(base)]
    noisy = [value + 0.05 * (-1) ** i for i, value in enumerate(base)]
    gain = bootstrap(base, better)
    assert gain.p < 0.01
    assert gain.low is not None
    assert gain.low > 0.01
    assert not bootstrap(base, noisy).significant
    assert bootstrap(base, base).p == 1


# Running programs


def test_a_program_passes_only_if_its_tests_ran_to_the_end() -> None:
    assert execute("assert 1 + 1 == 2") == "passed"
    assert execute("assert 1 + 1 == 3") == "failed"
    assert execute("def f(:") == "failed"
    assert execute("exit(0)") == "failed"


def test_a_program_that_hangs_is_ended_with_all_that_it_started() -> None:
    began = time.perf_counter()
    assert execute("while True:\n    pass", seconds=1) == "timeout"
    assert execute("import time\ntime.sleep(1000)", seconds=0.2) == "timeout"
    assert time.perf_counter() - began < 15


def test_a_program_gets_no_more_memory_than_allowed() -> None:
    assert execute("x = bytearray(3 << 30)", memory=1 << 30) == "memory"


def test_a_program_reaches_no_network_and_starts_no_other() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        connect = f"import socket\nsocket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2)"
        exec(compile(connect, "here", "exec"), {})
        assert execute(connect) == "failed"
    assert execute("import subprocess\nsubprocess.run(['true'])") == "failed"
    assert execute("import os\nos.system('true')") == "failed"


def test_a_program_sees_neither_the_environment_nor_this_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    assert execute("import os\nassert 'SECRET' not in os.environ\nassert os.listdir() == []") == "passed"


# Tasks


def test_the_own_set_holds_thirty_holes_whose_originals_pass() -> None:
    tasks = load(str(OWN_SET))
    assert len(tasks) == 30
    assert {task.language for task in tasks} == {"python", "javascript", "typescript", "java", "go", "rust", "c"}
    for task in tasks:
        original = score(task, Answer(task.middle))
        assert (original.first, original.whole, original.similarity, original.right) == (True, True, 1, True)
        assert (original.repeats, original.unbalanced, original.broken) == (False, False, False), task.name
        assert original.passed is not False
        assert original.passed or not task.test


def test_the_line_break_after_a_middle_stays_in_an_editor() -> None:
    task = Task("t", "a\n", "    b\n", "c\n").in_an_editor()
    assert (task.before, task.middle, task.after) == ("a\n", "    b", "\nc\n")
    assert Task("t", "a", "\n", "c").in_an_editor().middle == "\n"


def test_a_typed_task_has_its_cursor_inside_the_line_and_the_same_one_each_time() -> None:
    task = Task("t", "a\n", "    return value", "\n")
    typed = task.typed(1)
    assert typed.before + typed.middle == task.before + task.middle
    assert 0 < len(typed.middle) < len(task.middle)
    assert task.typed(1) == typed
    assert len({task.typed(seed).middle for seed in range(20)}) > 5


def test_a_file_that_is_no_set_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "x"}\n')
    with pytest.raises(NoSet, match=r"a\.jsonl:1 is not a task"):
        load(str(tmp_path / "a.jsonl"))
    with pytest.raises(NoSet, match="single-line"):
        load(str(tmp_path / "none.jsonl"))


def test_a_known_set_that_can_t_be_fetched_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(NoSet, match="by other means and give its path"):
        load("single-line", offline=True)


# Judging an answer

CALL = Task("call", "def f(a, b):\n    return g(", "a, b", ")\n", "python")


def test_an_edit_is_judged_by_the_document_that_it_makes() -> None:
    assert score(CALL, Answer("a, b)", covers=1)).whole
    twice = score(CALL, Answer("a, b)"))
    assert not twice.whole
    assert twice.unbalanced


def test_nothing_shown_is_neither_right_nor_wrong() -> None:
    found = score(CALL, Answer())
    assert (found.shown, found.first, found.right, found.similarity) == (False, False, False, 0)
    assert (found.unbalanced, found.repeats, found.broken) == (False, False, False)


def test_what_is_shown_may_stop_earlier_but_not_inside_a_word() -> None:
    task = Task("t", "x = ", "first(second)", "\n", "python")
    assert score(task, Answer("first(")).right
    assert not score(task, Answer("firs")).right
    assert not score(task, Answer("other")).right


def test_a_last_line_that_stands_below_already_is_a_repetition() -> None:
    task = Task("t", "def f():\n    ", "a = 1", "\n    b = 2\n    c = 3\n", "python")
    assert score(task, Answer("b = 2")).repeats
    assert score(task, Answer("a = 1\n    b = 2")).repeats
    assert not score(task, Answer("c = 3")).repeats
    original = attrs.evolve(task, middle="b = 2")
    assert not score(original, Answer("b = 2")).repeats  # it stood there twice


def test_a_lone_bracket_repeats_only_in_the_same_column() -> None:
    task = Task("t", "void f() {\n    ", "g();", "\n}\n", "c")
    assert score(task, Answer("g();\n}")).repeats
    assert not score(task, Answer("if (a) {\n        g();\n    }")).repeats


def test_balance_is_of_brackets_outside_strings_and_not_worse_than_before() -> None:
    task = Task("t", "x = [1, 2\ny = ", "3", "\n", "python")
    assert not score(task, Answer('"("')).unbalanced
    assert score(task, Answer("(3")).unbalanced
    assert not score(Task("t", "void f() {\n", "}", "\n", "c"), Answer("}")).unbalanced


def test_a_syntax_error_counts_if_it_was_not_there_without_the_answer() -> None:
    task = Task("t", "def f():\n    ", "return 1", "\n", "python")
    assert score(task, Answer("return 1 +")).broken
    assert not score(task, Answer("return 1")).broken


# Places


def test_holes_of_a_folder_are_the_same_for_the_same_seed() -> None:
    files = sources(ROOT / "lsp_server")
    assert len(files) > 10
    first, again, other = pick(files, 60, 1), pick(list(reversed(files)), 60, 1), pick(files, 60, 2)
    assert first == again
    assert first != other
    assert len({task.name for task in first}) == 60
    assert {task.place for task in first} == set(PLACES)


def test_a_hole_s_parts_are_the_file_and_its_middle_is_what_a_person_writes_next() -> None:
    texts = {source.text for source in sources(ROOT / "inference")}
    for task in pick(sources(ROOT / "inference"), 80, 3):
        assert task.before + task.middle + task.after in texts
        assert task.middle.strip()
        rest = task.after.split("\n")[0].strip()
        assert rest == "" or task.place == "in a call"


def test_data_and_generated_files_are_no_places_for_holes() -> None:
    code = "def f(x):\n    return x\n" * 20
    assert usable("a.py", code)
    assert usable("a.txt", code) is None
    assert usable("a.py", "# Generated by a tool. DO NOT EDIT.\n" + code) is None
    assert usable("a.py", code + "x = " + "1" * 300) is None
    assert usable("a.py", code + "def broken(:\n") is None


# Recordings

REQUEST = FimRequest("def f():", "\n", "\n    re", Stops(max_tokens=30))
STREAM = Stream(
    tuple(Token(text, -0.5) for text in ("", "turn", " a", "\n", "    b", " = 1", "\n", "c", "")), "eos", prompt=9
)


def answered(request: FimRequest, recorded: Stream = STREAM) -> tuple[str, str, float, int]:
    messages = list(replay(request, recorded))
    pieces = [m for m in messages if isinstance(m, Piece)]
    end = messages[-1]
    assert isinstance(end, End)
    return "".join(p.text for p in pieces), end.reason, sum(p.logprob for p in pieces), sum(p.tokens for p in pieces)


def test_a_recording_answers_under_any_stops() -> None:
    assert answered(REQUEST) == ("turn a\n    b = 1\nc", "eos", -4.0, 8)
    line = attrs.evolve(REQUEST, stops=Stops(max_tokens=30, end_of_line=True))
    assert answered(line)[:2] == ("turn a", "line")
    assert answered(attrs.evolve(REQUEST, stops=Stops(max_tokens=3)))[:2] == ("turn a", "tokens")
    assert answered(attrs.evolve(REQUEST, stops=Stops(max_tokens=30, dedent_below=4)))[:2] == (
        "turn a\n    b = 1",
        "dedent",
    )


def test_a_recording_refuses_what_it_does_not_hold() -> None:
    with pytest.raises(ValueError, match="128 tokens"):
        list(replay(attrs.evolve(REQUEST, stops=Stops(max_tokens=500)), STREAM))
    with pytest.raises(ValueError, match="one greedy choice"):
        list(replay(attrs.evolve(REQUEST, n=3), STREAM))


@given(
    st.lists(st.sampled_from(["a", " b", "\n", "    ", "c)", "}", "x = 1"]), max_size=20),
    st.booleans(),
    st.integers(0, 3),
    st.integers(0, 6),
)
def test_a_replayed_answer_is_what_the_stopper_makes_of_its_tokens(
    texts: list[str], end_of_line: bool, max_lines: int, dedent: int
) -> None:
    stops = Stops(max_tokens=128, end_of_line=end_of_line, max_lines=max_lines, dedent_below=dedent)
    stopper, whole = Stopper(stops), ""
    for text in texts:
        whole += stopper.feed(text)
        if stopper.reason:
            break
    whole += stopper.finish("eos")
    recorded = Stream((*(Token(text, -1.0) for text in texts), Token("", -1.0)), "eos", 1)
    assert answered(attrs.evolve(REQUEST, stops=stops), recorded)[0] == whole


def test_a_recording_survives_its_file_and_a_cut_last_line(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    Recording(path).add(key(REQUEST), STREAM)
    with path.open("a") as file:
        file.write('{"key":"cut off')
    Recording(path).add(key(attrs.evolve(REQUEST, typed="")), STREAM)
    again = Recording(path)
    assert len(again) == 2
    assert again.get(key(REQUEST)) == STREAM
    assert key(attrs.evolve(REQUEST, heal=False)) not in again


def test_what_a_recording_lacks_counts_as_lacking_and_not_as_an_answer(tmp_path: Path) -> None:
    recorder = Recorder(Recording(tmp_path / "empty.jsonl"))
    filler = InProcess(Completer(recorder, Settings()), recorder)
    assert asyncio.run(filler.fill(CALL)).text == ""
    assert recorder.lacking == 1


# Runs


class Fixed:
    """Answers what stood there, and remembers what it was asked."""

    def __init__(self, fail_at: int = -1):
        self.asked: list[str] = []
        self.fail_at = fail_at

    async def fill(self, task: Task) -> Answer:
        if len(self.asked) == self.fail_at:
            raise RuntimeError("the worker died")
        self.asked.append(task.name)
        return Answer(task.middle)


def test_a_run_that_broke_off_goes_on_where_it_was(tmp_path: Path) -> None:
    tasks, path = load(str(OWN_SET)), tmp_path / "a.jsonl"
    with pytest.raises(RuntimeError, match="died"):
        asyncio.run(run(tasks, Fixed(fail_at=7), Results(path, {"way": "test"}), execute=False))
    with path.open("a") as file:
        file.write('{"task": "cut')  # killed while writing
    rest = Fixed()
    results = Results(path, {"way": "test"}, resume=True)
    asyncio.run(run(tasks, rest, results, execute=False))
    assert rest.asked == [task.name for task in tasks[7:]]
    assert list(read(path)[1]) == [task.name for task in tasks]
    assert figures(results.scores.values())["first line"] == 1


def test_a_run_does_not_go_on_with_another_setting(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    Results(path, {"way": "editor", "seed": 1})
    with pytest.raises(Unfit, match="another setting \\(seed\\)"):
        Results(path, {"way": "editor", "seed": 2}, resume=True)
    (tmp_path / "b.jsonl").write_text("[1]\n")
    with pytest.raises(Unfit, match="holds no results"):
        read(tmp_path / "b.jsonl")


def test_two_runs_are_compared_on_the_tasks_that_both_have() -> None:
    tasks = load(str(OWN_SET))
    good = {t.name: score(t, Answer(t.middle), execute=False) for t in tasks}
    bad = {t.name: score(t, Answer(), execute=False) for t in tasks[:12]}
    found = differences(bad, good)
    assert found["first line"][:2] == (0, 1)
    assert found["first line"][2].p == pytest.approx(2 / 2**12)
    assert "pass@1" not in found
    with pytest.raises(Unfit):
        differences({}, good)


def test_lone_brackets_are_left_out_of_a_figure_of_their_own() -> None:
    bracket, word = Task("a", "{\n", "}", "\n", "c"), Task("b", "x = ", "y;", "\n", "c")
    found = figures([score(bracket, Answer("}")), score(word, Answer("z;"))])
    assert found["lone brackets"] == 1
    assert found["first line"] == 0.5
    assert found["first line, lone brackets left out"] == 0
    assert json.loads(json.dumps(found)) == found


def test_programs_may_run_beside_each_other() -> None:
    verdicts: list[str] = []
    threads = [threading.Thread(target=lambda n=n: verdicts.append(execute(f"assert {n} >= 0"))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == ["passed"] * 4
