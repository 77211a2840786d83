"""A worker reached from another machine: only where it was asked to listen, only with its key."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import attrs
import pytest

from inference import keys
from inference.endpoint import WorkerSettings
from inference.wire import FimRequest, Piece, Stops
from lsp_server.backends.worker import State, WorkerBackend
from lsp_server.settings import resolve
from tests.box import Box, serving
from tests.conftest import FIMBLE, stop_workers, user

REQUEST = FimRequest("def add(a, b):\n", "\n\nprint(add(1, 2))\n", "    ret", Stops(end_of_line=True))
SECRET = "a-key-that-was-given-by-its-owner"


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A worker that made its own key."""
    env = user(tmp_path_factory.mktemp("box"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", env["XDG_STATE_HOME"])
        patch.setenv("XDG_CONFIG_HOME", env["XDG_CONFIG_HOME"])
        made = serving(env)
        yield made
    stop_workers(env)
    made.process.wait(60)


@pytest.fixture
def laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """This process acts as a user of another machine."""
    env = user(tmp_path)
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, env[name])
    monkeypatch.delenv(keys.ENVIRONMENT, raising=False)
    return env


def outcome(settings: WorkerSettings) -> tuple[State, str]:
    """Where a backend gets with these settings, and what it completes."""

    async def run() -> tuple[State, str]:
        backend = WorkerBackend(settings)
        await backend.ensure()
        text = ""
        if backend.ready:
            text = "".join([m.text async for m in backend.fim(REQUEST) if isinstance(m, Piece)])
        await backend.close()
        return backend.state, text

    return asyncio.run(asyncio.wait_for(run(), 120))


def test_the_key_is_made_for_its_owner_s_eyes_and_stands_in_no_log_or_command_line(box: Box) -> None:
    file = box.key
    key = file.read_text().strip()
    assert len(key) >= keys.SHORTEST
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    outcome(WorkerSettings(url=box.url, key_file=str(file)))
    assert key not in box.where.log.read_text()
    assert key not in box.where.crash_log.read_text() if box.where.crash_log.exists() else True
    for process in (box.process.pid, *_children(box.process.pid)):
        assert key not in Path(f"/proc/{process}/cmdline").read_text()


def _children(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children()]


def test_nothing_is_answered_there_without_the_key(box: Box) -> None:
    key = box.key.read_text().strip()

    async def run() -> None:
        async with aiohttp.ClientSession() as session:
            for header in (None, "Bearer ", "Bearer x", f"Basic {key}", f"Bearer {key}x", "Bearer \xff"):
                headers = {"Authorization": header} if header else {}
                for method, path in (("GET", "health"), ("GET", "metrics"), ("POST", "v1/fim"), ("POST", "v1/stop")):
                    async with session.request(method, f"{box.url}/{path}", headers=headers) as response:
                        assert response.status == 401, (header, path)
            headers = {"Authorization": f"Bearer {key}"}
            async with session.get(f"{box.url}/health", headers=headers) as response:
                assert json.loads(await response.text())["model"] == "starter"
            async with session.post(f"{box.url}/v1/stop", headers=headers) as response:
                assert response.status == 401
                assert "on its own machine" in await response.text()
        connector = aiohttp.UnixConnector(str(box.where.socket))
        async with aiohttp.ClientSession(connector=connector) as here, here.get("http://worker/health") as response:
            assert response.status == 200, "on the machine itself, the socket is the key"

    asyncio.run(run())


def test_the_language_server_completes_through_it(box: Box, laptop: dict[str, str]) -> None:
    settings, problems = resolve({"worker": {"url": box.url, "keyFile": str(box.key)}})
    assert problems == []
    state, text = outcome(settings.worker)
    assert state.name == "ready", state.message
    assert text.startswith("urn a + b")
    assert not list(Path(laptop["XDG_STATE_HOME"]).rglob("*.sock")), "nothing was started here"


def test_a_command_finds_it_by_the_user_s_settings_file(box: Box, laptop: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "sum.py"
    file.write_text("def add(a, b):\n    ret\n")
    config = Path(laptop["XDG_CONFIG_HOME"]) / "fimble"
    config.mkdir(parents=True)
    (config / "settings.toml").write_text(f'[worker]\nurl = "{box.url}"\nkeyFile = "{box.key}"\n')
    done = subprocess.run([FIMBLE, "complete", f"{file}:2:8"], env=laptop, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "return a + b" in done.stdout
    status = subprocess.run([FIMBLE, "worker", "status"], env=laptop, capture_output=True, text=True)
    assert "ready" in status.stdout


def test_what_is_wrong_is_said(box: Box, laptop: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = WorkerSettings(url=box.url)
    state, _ = outcome(settings)
    assert state.name == "failed"
    assert "there is no key: copy the worker's key file to" in state.message
    monkeypatch.setenv(keys.ENVIRONMENT, SECRET)
    state, _ = outcome(settings)
    assert "refuses the key from the environment variable FIMBLE_API_KEY" in state.message
    assert SECRET not in state.message
    state, _ = outcome(attrs.evolve(settings, url="http://127.0.0.1:9"))
    assert "no worker answers at http://127.0.0.1:9" in state.message
    monkeypatch.setattr("lsp_server.backends.worker.VERSION", "99.0")
    monkeypatch.setenv(keys.ENVIRONMENT, box.key.read_text().strip())
    state, _ = outcome(settings)
    assert "install the same version on both" in state.message


def test_a_key_that_others_may_read_is_refused(laptop: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(SECRET)
    file.chmod(0o640)
    for use in (keys.serving, keys.asking):
        with pytest.raises(keys.BadKey, match=r"chmod 600"):
            use(str(file))
    file.chmod(0o600)
    assert keys.serving(str(file)) == keys.asking(str(file)) == SECRET


@pytest.mark.parametrize("key", ["short", "sixteen characters with spaces", "sixteen-characters-and-\xe9"])
def test_a_weak_key_is_refused_before_anything_listens(laptop: dict[str, str], key: str) -> None:
    env = {**laptop, keys.ENVIRONMENT: key}
    done = subprocess.run([FIMBLE, "worker", "run", "--listen", "127.0.0.1:0"], env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert "at least 16 printable ASCII characters" in done.stderr
    assert key not in done.stderr


@pytest.mark.parametrize("address", ["8765", "host:port", ":1", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_said(laptop: dict[str, str], address: str) -> None:
    done = subprocess.run([FIMBLE, "worker", "run", "--listen", address], env=laptop, capture_output=True, text=True)
    assert done.returncode != 0
    assert "not HOST:PORT" in done.stderr


@pytest.mark.parametrize(
    "url", ["ftp://a", "127.0.0.1:80", "http://", "http://user:secret@host:1", "http://a:b:c", "http://[", 5]
)
def test_a_url_that_is_none_keeps_the_worker_here(url: object) -> None:
    settings, problems = resolve({"worker.url": url})
    assert settings.worker.url == ""
    assert len(problems) == 1


def test_the_environment_of_these_tests_has_no_key_of_its_own() -> None:
    assert keys.ENVIRONMENT not in os.environ
