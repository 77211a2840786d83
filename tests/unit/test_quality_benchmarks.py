"""The benchmarks of quality: what they compare, and when they fail."""

from __future__ import annotations

import asyncio
import hashlib
import io
import tarfile
from pathlib import Path

import attrs
import pytest
from rich.console import Console

from benchmarks import confidence, holes, switches
from benchmarks.packages import LANGUAGES, LOTS, Lot, files
from benchmarks.sources import FETCHERS, Package, Unavailable
from evaluation.recording import Recorder, Recording, Stream, Token, key
from evaluation.score import Answer, score
from evaluation.significance import Difference
from evaluation.tasks import Task
from lsp_server.shaping import Shaping

TASK = Task("t", "def f(a):\n    if a:\n        return ", "1", "\n    return 2\n", "python")


def recorded(tmp_path: Path, text: str) -> Recording:
    """A recording in which the model answers `text` to every prompt of `TASK`, whatever the setting."""
    recording = Recording(tmp_path / "r.jsonl")

    async def fill() -> None:
        for setting in (switches.ON, *switches.SWITCHES.values()):
            recorder = Recorder(recording)
            filler = switches.InProcess(switches.Completer(recorder, setting.settings), recorder)
            await filler.fill(TASK)
            for request in recorder.requests:
                recording.add(key(request), Stream((Token(text, -0.1), Token("", -0.1)), "eos", 5))

    asyncio.run(fill())
    return recording


def test_every_shaping_mechanism_has_its_switch() -> None:
    assert set(attrs.fields_dict(Shaping)) <= set(switches.SWITCHES)
    assert {"healing", "anchored hole", "stops"} <= set(switches.SWITCHES)


def test_stops_off_leaves_the_answer_to_the_model(tmp_path: Path) -> None:
    recording = recorded(tmp_path, "1\n    return 3")
    found = asyncio.run(switches.measure({"set": [TASK]}, recording, None, Console(quiet=True)))
    assert found[""]["set"]["t"].text == "1"
    assert found["stops and closing"]["set"]["t"].text.startswith("1\n")
    rows = [row for row in switches.rows(found) if row.switch == "stops and closing"]
    assert {row.measure for row in rows} == {"first line", "similarity"}


def test_a_mechanism_that_makes_something_worse_fails_the_run() -> None:
    def row(switch: str, mean: float, p: float) -> switches.Row:
        return switches.Row(switch, "set", "first line", 9, 0.5, 0.5 + mean, Difference(mean, p))

    good = [row("healing", 0.2, 0.001), row("stops", 0.1, 0.01)]
    assert switches.verdict(good) == []
    assert switches.verdict([*good, row("echo", -0.1, 0.2)]) == []
    assert switches.verdict([*good, row("echo", -0.1, 0.01)]) == ["echo makes first line worse (set)"]
    assert switches.verdict(good[:1]) == ["stopping brings no clear gain"]


def test_what_is_recorded_is_scored_and_the_rest_left_out(tmp_path: Path) -> None:
    other = attrs.evolve(TASK, name="u", before="def g(a):\n    if a:\n        return ")
    settings = holes.Settings()
    found = asyncio.run(holes.fill([TASK, other], recorded(tmp_path, "1"), None, settings))
    assert [(f.task.name, f.raw, f.score.whole) for f in found] == [("t", "1", True)]


def test_a_run_that_shows_too_little_or_too_much_amiss_misses_its_bounds() -> None:
    right, none = score(TASK, Answer("1")), score(TASK, Answer())
    unbalanced = score(TASK, Answer("(1"))
    shares = holes.rows([right, none, none])["all"]
    assert [b.figure for b in holes.BOUNDS if not b.holds(shares[b.figure])][:1] == ["shown"]
    shares = holes.rows([right] * 98 + [unbalanced] * 2)["all"]
    missed = [b.figure for b in holes.BOUNDS if not b.holds(shares[b.figure])]
    assert "of the shown: unbalanced brackets" in missed
    assert "shown" not in missed


def test_a_failure_is_shown_in_its_place() -> None:
    filled = holes.Filled(TASK, "(1", score(TASK, Answer("(1")))
    told = holes.failures([filled])
    assert "# unbalanced: 1" in told
    assert "return ⟦(1⟧\n    return 2" in told


def test_packages_are_pinned_and_in_five_languages_or_more() -> None:
    assert len(LANGUAGES) >= 5
    assert all(len(lot.sha256) == 64 for lot in LOTS)
    assert len({str(lot.package) for lot in LOTS}) == len(LOTS) >= 15


def test_only_the_pinned_archive_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "def f(x):\n    return x\n" * 20
    folder = tmp_path / "packages" / "npm-own-1.0"
    folder.mkdir(parents=True)
    archive = folder / "own.tgz"
    with tarfile.open(archive, "w:gz") as opened:
        for name in ("package/a.py", "package/a.txt", "package/b.d.ts"):
            member = tarfile.TarInfo(name)
            member.size = len(code)
            opened.addfile(member, io.BytesIO(code.encode()))
    lot = Lot("python", Package("npm", "own", "1.0"), hashlib.sha256(archive.read_bytes()).hexdigest())
    assert [source.name for source in files(lot, tmp_path)] == ["own/package/a.py"]
    monkeypatch.setitem(FETCHERS, "npm", lambda _package, _into: None)
    with pytest.raises(Unavailable, match="pinned SHA-256"):
        files(attrs.evolve(lot, sha256="0" * 64), tmp_path)


def test_the_packages_are_split_in_two_halves_that_share_no_language_s_package() -> None:
    halves = {True: [lot for lot in LOTS if confidence.chooses(f"{lot.package.name}/a")]}
    halves[False] = [lot for lot in LOTS if lot not in halves[True]]
    for half in halves.values():
        assert {lot.language for lot in half} == set(LANGUAGES)


def test_the_curve_says_what_a_threshold_shows_and_how_much_of_it_is_right() -> None:
    name = f"{LOTS[0].package.name}/a.py:1:1"
    task = attrs.evolve(TASK, name=name)
    sure, wrong = Answer("1", logprob=-0.01, tokens=1), Answer("2", logprob=-3.0, tokens=1)
    filled = [holes.Filled(task, "", score(task, answer)) for answer in (sure, wrong)]
    hidden = holes.Filled(task, "", score(task, Answer()))
    points = confidence.curve({0.0: filled, 0.5: [filled[0], hidden]}, confidence.chooses(name))
    assert [(p["shown"], p["right of shown"], p["right beside threshold 0"]) for p in points] == [
        (1, 0.5, 1),
        (0.5, 1, 1),
    ]
    assert confidence.curve({0.0: filled}, not confidence.chooses(name))[0]["holes"] == 0
    tenths = confidence.bins(filled)
    assert [(t["suggestions"], t["right"]) for t in (tenths[0], tenths[9])] == [(1, 0), (1, 1)]


def test_the_default_threshold_is_on_the_curve() -> None:
    assert holes.SETTINGS.confidence in confidence.THRESHOLDS
