"""Models from a hub: seen by its own client library over HTTP, from the licence to a completion, whatever breaks."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from rich.console import Console

from inference import examine
from lsp_server import setup
from tests.conftest import FIMBLE, stop_workers, user
from tests.hub import COMMIT, Hub, serving
from tests.models import starter_in_floats

NAME = "acme/Starter-Base"
AWAY = {"HF_ENDPOINT": "http://127.0.0.1:9"}
"""A hub that can't be reached."""
FIRST, SECOND = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return starter_in_floats(tmp_path_factory.mktemp("published"))


@pytest.fixture
def hub(published: Path) -> Iterator[Hub]:
    with serving(Hub(NAME, published)) as running:
        yield running


@pytest.fixture
def me(tmp_path: Path, hub: Hub) -> dict[str, str]:
    """A user with an empty cache, for whom this hub is the hub."""
    quiet = {"CUDA_VISIBLE_DEVICES": "", "TERM": "xterm", "NO_COLOR": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return user(tmp_path) | quiet | {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf")}


def fimble(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FIMBLE, *arguments], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200
    )


def download(env: dict[str, str]) -> dict[str, Any]:
    """What the process that downloads says, with no pause between its tries."""
    script = "import sys; from inference import blobs, download; blobs.PAUSE = 0.01; download.main(sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", script, NAME], env=env, capture_output=True, text=True, timeout=200)
    return json.loads(done.stdout.splitlines()[-1])


def get(env: dict[str, str], name: str = NAME, *, yes: bool = True) -> tuple[bool, str]:
    """`fimble setup`'s part that asks the hub: whether the model is here now, and what was said."""
    said = io.StringIO()
    with patch.dict(os.environ, env, clear=True), patch("sys.stdin", io.StringIO()):
        got = setup.get(Console(file=said, width=300), name, yes)
    return got, said.getvalue()


def examined(env: dict[str, str]) -> list[examine.Finding]:
    """What `fimble doctor --model` prints of a model."""
    command = [sys.executable, "-m", "inference.examine", NAME]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200)
    return json.loads(done.stdout.splitlines()[-1])


def folder(env: dict[str, str]) -> Path:
    """The model in that user's cache."""
    return Path(env["HF_HOME"], "hub", f"models--{NAME.replace('/', '--')}", "snapshots", COMMIT)


def in_a_terminal(env: dict[str, str], *arguments: str, answers: list[tuple[str, str]], hub: Hub) -> list[str]:
    """Runs a command as a person does: what was on the screen at each question, and at the end."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (50, 300))
    with subprocess.Popen([FIMBLE, *arguments], env=env, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown, screens = "", list[str]()
        while select.select([ours], [], [], 100)[0]:
            try:
                shown += re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", os.read(ours, 4096).decode(errors="replace"))
            except OSError:  # it has ended
                break
            if answers and answers[0][0] in shown:
                screens.append(shown)
                assert len(screens) > 1 or not hub.asked, "weights came before the licence was accepted"
                os.write(ours, answers.pop(0)[1].encode())
                shown = ""
        else:
            process.kill()
        os.close(ours)
    assert process.returncode == 0, shown
    return [*screens, shown]


def test_from_the_licence_to_a_completion(me: dict[str, str], hub: Hub, tmp_path: Path) -> None:
    hub.breaks = [40_000_000]
    questions = [("download it?", "y\n"), ("settings.toml", "y\n")]
    licence, bars, end = in_a_terminal(me, "setup", "--model", NAME, answers=questions, hub=hub)
    assert "licence: deepseek-license" in licence
    assert "for military purposes" in licence
    assert re.search(rf"{FIRST}:\s+\d+%\|.*MB/s", bars)
    assert re.search(rf"{FIRST}: 100%", bars)
    assert str(folder(me)) in bars
    assert "written" in end
    sent = [start for name, start in hub.asked if name == FIRST]
    assert len(sent) == 2, "one connection broke"
    assert 0 < sent[1] <= 40_000_000, "it went on from there"
    assert not (folder(me) / "modeling_deepseek.py").exists(), "nothing is fetched that is not wanted"

    file = tmp_path / "add.py"
    file.write_text("def add(a, b):\n    ret\n")
    completed = fimble(me, "complete", f"{file}:2:8").stdout
    stop_workers(me)
    assert "return a + b" in completed
    found = fimble(me, "doctor", "--model", NAME).stdout
    assert "FAIL" not in found
    assert "2 of them with the hub's sha256" in found
    assert "from transformers' in float32" in found
    assert "filled with 'a + b'" in found


def test_a_damaged_file_is_found_and_the_advice_mends_it(me: dict[str, str], hub: Hub) -> None:
    assert download(me)["folder"] == str(folder(me))
    blob = (folder(me) / SECOND).resolve()
    whole = blob.read_bytes()
    blob.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    _, _, found, advice = examined(me)[-1]
    assert f"{SECOND} is damaged" in found
    assert f"delete {blob}, then get it with `fimble setup --model {NAME}`" in advice
    blob.write_bytes(whole[:-1])
    _, _, said, advice = examine.files(folder(me), NAME)
    assert f"{SECOND} has {len(whole) - 1:,} bytes, its header says {len(whole):,}" in said
    assert str(blob) in advice
    blob.unlink()
    found = examined(me)[-1][2]
    assert f"some of its files are not in the hub's cache; get it with `fimble setup --model {NAME}`" in found
    hub.asked.clear()
    assert get(me)[0]
    assert [name for name, _ in hub.asked] == [SECOND]
    assert examine.files(folder(me), NAME)[0]


def test_a_killed_download_goes_on_in_another_process(me: dict[str, str], hub: Hub) -> None:
    hub.stalls = 60_000_000
    with subprocess.Popen([FIMBLE, "setup", "--yes", "--model", NAME], env=me, start_new_session=True) as process:
        blobs, began = folder(me).parents[1] / "blobs", time.monotonic()
        while sum(part.stat().st_size for part in blobs.glob("*.part")) < 50_000_000:
            assert time.monotonic() - began < 100, "nothing comes"
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    hub.stalls = 0
    hub.asked.clear()
    assert get(me)[0]
    assert hub.asked[0][0] == FIRST
    assert hub.asked[0][1] >= 50_000_000
    assert examine.files(folder(me), NAME)[:3] == (
        True,
        "weights",
        "2 files as long as their headers say, 2 of them with the hub's sha256",
    )


def test_a_hub_that_breaks_every_connection_is_given_up_and_what_came_is_kept(me: dict[str, str], hub: Hub) -> None:
    hub.breaks, hub.broken = [], True
    assert download(me)["error"]
    assert 1 < len(hub.asked) < 10
    hub.broken = False
    assert download(me)["folder"] == str(folder(me))


def test_without_the_hub_a_model_that_is_all_here_is_taken(me: dict[str, str], hub: Hub) -> None:
    download(me)
    got, said = get(me | AWAY)
    assert got
    assert f"all files are here: {folder(me)}" in said


def test_a_folder_brought_as_the_error_says_is_taken_and_its_hashes_are_checked(
    me: dict[str, str], hub: Hub, tmp_path: Path
) -> None:
    got, said = get(me | AWAY)
    assert not got
    command = re.search(r"run `hf (.*?)`", said)
    assert command, said
    brought = tmp_path / "brought"
    arguments = command[1].replace("DIR", str(brought)).split()
    hf = Path(sys.executable).with_name("hf")
    subprocess.run([hf, *arguments], env=me, check=True, capture_output=True, timeout=200)
    assert examine.files(brought, str(brought))[2].endswith("2 of them with the hub's sha256")
    weights = brought / FIRST
    weights.write_bytes(b"\0".join([weights.read_bytes()[:-1], b""]))
    well, _, found, advice = examine.files(brought, str(brought))
    assert not well
    assert "is damaged" in found
    assert "copy it here from where the folder came from" in advice


def test_what_the_hub_refuses_is_told_with_what_to_do(me: dict[str, str], hub: Hub) -> None:
    assert "compare the id with" in get(me, "acme/Nothing")[1]
    got, said = get(me, yes=False)
    assert not got
    assert "nobody is there to answer: --yes" in said
    hub.gated = True
    got, said = get(me)
    assert not got
    assert f"accept its terms on https://huggingface.co/{NAME}" in said
    assert "hf auth login" in said
