"""`fimble eval` from end to end: the real command, the real server over its pipes, the real worker."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from pathlib import Path

import attrs
import pytest

from evaluation.recording import Recorder, Recording
from evaluation.results import read
from inference.wire import FimRequest, Piece, Stops
from lsp_server.backends.worker import WorkerBackend
from lsp_server.settings import Settings
from tests.conftest import FIMBLE, stop_workers

ROOT = Path(__file__).resolve().parents[2]
OWN_SET = ROOT / "tests" / "data" / "holes.jsonl"


def fimble(env: dict[str, str], *arguments: str | Path, status: int = 0) -> str:
    done = subprocess.run(
        [FIMBLE, *map(str, arguments)], env=env | {"COLUMNS": "160"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_own_set_is_answered_as_an_editor_would_and_better_than_by_the_model_alone(
    state: dict[str, str], tmp_path: Path
) -> None:
    editor, bare, summary = tmp_path / "editor.jsonl", tmp_path / "bare.jsonl", tmp_path / "editor.json"
    shown = fimble(state, "eval", OWN_SET, "--out", editor, "--json", summary)
    assert "through the language server" in shown
    fimble(state, "eval", OWN_SET, "--bare", "--out", bare)
    found = json.loads(summary.read_text())["figures"]
    assert found["tasks"] == 30
    assert found["shown"] >= 0.5
    assert found["first line"] >= 0.3
    assert found["pass@1"] >= 0.3
    with_server, alone = read(editor)[1], read(bare)[1]
    assert sum(s.first for s in with_server.values()) >= sum(s.first for s in alone.values())
    compared = fimble(state, "eval", "compare", editor, bare)
    assert "way: editor | bare" in compared
    assert "first line" in compared


def test_a_run_goes_on_with_what_it_lacks(state: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    fimble(state, "eval", OWN_SET, "--limit", "4", "--no-execute", "--out", out)
    before = out.read_text().splitlines()
    fimble(state, "eval", OWN_SET, "--limit", "6", "--no-execute", "--out", out, "--resume")
    after = out.read_text().splitlines()
    assert after[: len(before)] == before
    assert len(after) == len(before) + 2
    said = fimble(state, "eval", OWN_SET, "--setting", "healing=false", "--out", out, "--resume", status=2)
    assert "another setting (settings)" in said


def test_a_folder_of_the_user_s_is_a_set_too(state: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text((ROOT / "lsp_server" / "text.py").read_text())
    shown = fimble(state, "eval", tmp_path, "--limit", "5")
    assert "│ 5 │" in " ".join(shown.split()) or " 5 " in shown
    assert "pass@1" in shown


def test_a_worker_that_dies_is_no_silence_and_the_run_goes_on(fresh_state: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    with subprocess.Popen([FIMBLE, "eval", str(OWN_SET), "--no-execute", "--out", str(out)], env=fresh_state) as run:
        while not out.exists() or len(out.read_text().splitlines()) < 3:
            assert run.poll() is None
            time.sleep(0.05)
        stop_workers(fresh_state)
        assert run.wait(60) == 2
    assert all(json.loads(line)["text"] for line in out.read_text().splitlines()[1:])
    fimble(fresh_state, "eval", OWN_SET, "--no-execute", "--limit", "5", "--out", out, "--resume")


def test_what_cannot_be_evaluated_is_said(state: dict[str, str], tmp_path: Path) -> None:
    assert "can't be read" in " ".join(fimble(state, "eval", tmp_path / "none.jsonl", status=2).split())
    assert "no source" in fimble(state, "eval", tmp_path, status=2)
    assert "NAME=VALUE" in fimble(state, "eval", OWN_SET, "--setting", "nonsense", status=2)


@pytest.mark.parametrize(
    "stops",
    [
        Stops(max_tokens=40, end_of_line=True),
        Stops(max_tokens=6),
        Stops(max_tokens=64, max_lines=2),
        Stops(max_tokens=64, dedent_below=5),
        Stops(max_tokens=64, suffix_head="\n    return value"),
    ],
)
def test_a_replayed_answer_is_the_worker_s_own(
    state: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: Stops
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", state["XDG_STATE_HOME"])
    request = FimRequest(
        'def clamp(value, low, high):\n    """The value within bounds."""\n    if value < low:\n        return low',
        "\n        return high\n    return value\n",
        "\n    if val",
        stops,
    )

    async def answers() -> tuple[list[Piece], list[Piece]]:
        backend = WorkerBackend(Settings().worker)
        await backend.ensure()
        live = [m async for m in backend.fim(request) if isinstance(m, Piece)]
        recorder = Recorder(Recording(tmp_path / "r.jsonl"), backend)
        replayed = [m async for m in recorder.fim(request) if isinstance(m, Piece)]
        offline = Recorder(Recording(tmp_path / "r.jsonl"))
        again = [m async for m in offline.fim(request) if isinstance(m, Piece)]
        await backend.close()
        assert again == [attrs.evolve(p, logprob=pytest.approx(p.logprob, abs=1e-3)) for p in replayed]
        return live, replayed

    live, replayed = asyncio.run(answers())
    assert [p.text for p in replayed] == [p.text for p in live]
    assert [p.tokens for p in replayed] == [p.tokens for p in live]
    assert [p.logprob for p in replayed] == pytest.approx([p.logprob for p in live], abs=0.01)
