"""The worker's life: one a user and model, reachable by that user only, gone when nobody needs it."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import attrs
import psutil
import pytest

from inference import endpoint as endpoint_module
from inference import starter, wire
from inference.endpoint import Endpoint, Unsafe, WorkerSettings, endpoint
from inference.version import VERSION
from inference.wire import End, FimRequest, Health, Piece, Stops
from lsp_server.backends.worker import CRASHES, Lost, Refused, State, WorkerBackend
from tests.conftest import FIMBLE

REQUEST = FimRequest("def add(a, b):\n", "\n\nprint(add(1, 2))\n", "    ret", Stops(end_of_line=True))
LONG = attrs.evolve(REQUEST, stops=Stops(max_tokens=1500))


@pytest.fixture
def me(fresh_state: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """This process acts as a user who has no worker yet."""
    monkeypatch.setenv("XDG_STATE_HOME", fresh_state["XDG_STATE_HOME"])
    return fresh_state


def with_backend(settings: WorkerSettings, body: Callable[[WorkerBackend], Awaitable[None]]) -> list[State]:
    """Runs `body` over a backend that is up; returns the states it went through."""
    states: list[State] = []

    async def run() -> None:
        backend = WorkerBackend(settings, states.append)
        try:
            await backend.ensure()
            await body(backend)
        finally:
            await backend.close()

    asyncio.run(run())
    return states


async def text_of(backend: WorkerBackend, request: FimRequest = REQUEST) -> str:
    return "".join([m.text async for m in backend.fim(request) if isinstance(m, Piece)])


def workers(env: dict[str, str]) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if _is_worker(p, env)]


def _is_worker(process: psutil.Process, env: dict[str, str]) -> bool:
    try:
        mine = process.environ().get("XDG_STATE_HOME") == env["XDG_STATE_HOME"]
        return mine and "inference.worker" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def until(what: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_a_worker_from_start_to_stop_on_either_transport(me: dict[str, str], transport: str) -> None:
    settings = WorkerSettings(transport="tcp" if transport == "tcp" else "unix")
    where = endpoint(settings)

    async def body(backend: WorkerBackend) -> None:
        assert backend.ready
        assert (backend.ready.version, backend.ready.model, backend.ready.window) == (
            VERSION,
            "starter",
            starter.WINDOW,
        )
        assert (await text_of(backend)).startswith("urn a + b")
        with pytest.raises(Refused) as refused:
            await text_of(backend, FimRequest("x = 1\n" * 3000))
        assert refused.value.failure.error == "too_long"
        assert refused.value.failure.tokens > refused.value.failure.window

    states = with_backend(settings, body)
    assert [s.name for s in states][-1] == "ready"
    shown = [s.progress for s in states]
    assert shown == sorted(shown)
    assert len(states) >= 4, "loading is seen in steps"

    for file in [where.socket] if transport == "unix" else [where.address]:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    subprocess.run([FIMBLE, "worker", "stop", "--transport", transport], env=me, check=True)
    until(lambda: not workers(me))
    assert not where.socket.exists()
    assert not where.address.exists()


def test_health_is_answered_early_and_the_starter_is_ready_in_time(me: dict[str, str]) -> None:
    async def run() -> tuple[float, float, str]:
        backend = WorkerBackend(WorkerSettings())
        began = time.perf_counter()
        endpoint(WorkerSettings()).spawn()
        first: Health | None = None
        while first is None:
            await asyncio.sleep(0.02)
            first = await backend.look()
        early = time.perf_counter() - began
        health = first
        while health is None or health.status == "loading":
            await asyncio.sleep(0.05)
            health = await backend.look()
        took = time.perf_counter() - began
        await backend.close()
        return early, took, first.status

    asyncio.run(run())  # the page cache is warm from here on
    subprocess.run([FIMBLE, "worker", "stop"], env=me, check=True)
    early, ready, status = asyncio.run(run())
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], env=me, check=True)
    torch_alone = time.perf_counter() - began
    print(f"first health after {early:.2f} s, ready after {ready:.2f} s, torch alone after {torch_alone:.2f} s")
    assert status == "loading"
    assert early < 1.5
    assert ready < max(5, 2 * torch_alone), "5 s, or more on a machine that needs over 2.5 s to import torch"


def test_many_servers_racing_for_a_worker_get_exactly_one(me: dict[str, str]) -> None:
    def start(_: int) -> int:
        return subprocess.run([FIMBLE, "worker", "start"], env=me, capture_output=True, timeout=120).returncode

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(start, range(6))) == [0] * 6
    assert len(workers(me)) == 1


def test_the_worker_outlives_who_started_it_and_idles_out(me: dict[str, str]) -> None:
    subprocess.run([FIMBLE, "worker", "start", "--idle-minutes", "0.08"], env=me, check=True, capture_output=True)
    (worker,) = workers(me)
    assert worker.ppid() != os.getpid()
    until(lambda: not workers(me))
    where = endpoint(WorkerSettings())
    assert not where.socket.exists()
    assert "idle for" in where.log.read_text()


def test_a_killed_worker_leaves_nothing_that_stops_the_next(me: dict[str, str]) -> None:
    async def body(backend: WorkerBackend) -> None:
        stream = backend.fim(LONG)
        await anext(stream)
        (worker,) = workers(me)
        worker.kill()
        with pytest.raises(Lost):
            async for _ in stream:
                pass
        assert backend.ready is None
        with pytest.raises(Lost):
            await text_of(backend)
        await backend.ensure()
        assert (await text_of(backend)).startswith("urn a + b")

    with_backend(WorkerSettings(), body)


def test_a_worker_whose_socket_was_removed_makes_room(me: dict[str, str]) -> None:
    subprocess.run([FIMBLE, "worker", "start"], env=me, check=True, capture_output=True)
    (old,) = workers(me)
    endpoint(WorkerSettings()).socket.unlink()

    async def body(backend: WorkerBackend) -> None:
        assert backend.ready
        assert backend.ready.pid != old.pid

    with_backend(WorkerSettings(), body)


def test_one_user_has_one_worker_whatever_the_session(me: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    here = endpoint(WorkerSettings())
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert endpoint(WorkerSettings()) == here
    monkeypatch.setattr("platform.node", lambda: "another-machine-with-the-same-home")
    assert endpoint(WorkerSettings()).socket != here.socket


def test_closing_the_stream_frees_the_worker(me: dict[str, str]) -> None:
    async def body(backend: WorkerBackend) -> None:
        stream = backend.fim(LONG)
        await anext(stream)
        await stream.aclose()
        deadline = time.monotonic() + 5
        while (health := await backend.look()) and health.running:
            assert time.monotonic() < deadline
        assert (await text_of(backend)).startswith("urn a + b")

    with_backend(WorkerSettings(), body)


def test_the_loopback_transport_wants_its_token(me: dict[str, str]) -> None:
    async def body(backend: WorkerBackend) -> None:
        port, token = endpoint(WorkerSettings(transport="tcp")).read_address()
        async with aiohttp.ClientSession() as session:
            for header in (None, "Bearer ", "Bearer x", f"Basic {token}", f"Bearer {token}x"):
                headers = {"Authorization": header} if header else {}
                for path in ("health", "metrics"):
                    async with session.get(f"http://127.0.0.1:{port}/{path}", headers=headers) as response:
                        assert response.status == 401
                async with session.post(f"http://127.0.0.1:{port}/v1/stop", headers=headers) as response:
                    assert response.status == 401
        assert (await text_of(backend)).startswith("urn a + b")

    with_backend(WorkerSettings(transport="tcp"), body)


def test_malformed_requests_are_refused_and_survived(me: dict[str, str]) -> None:
    async def body(backend: WorkerBackend) -> None:
        connector = aiohttp.UnixConnector(str(endpoint(WorkerSettings()).socket))
        async with aiohttp.ClientSession(connector=connector) as session:
            for data in (b"", b"{", b"[]", b"\xff\xfe", b'{"prefix": 1}', b'{"prefix": "a", "n": 99}'):
                async with session.post("http://worker/v1/fim", data=data) as response:
                    assert response.status == 400
                    assert json.loads(await response.text())["error"] == "malformed"
            async with session.post("http://worker/v1/fim", data=wire.dumps(REQUEST)) as response:
                lines = (await response.text()).splitlines()
                assert isinstance(wire.loads(lines[-1], End), End)
            async with session.get("http://worker/metrics") as response:
                metrics = await response.text()
        assert "fimble_requests_total 1.0" in metrics
        assert "fimble_ready 1.0" in metrics

    with_backend(WorkerSettings(), body)


def test_a_missing_model_is_a_clear_error(me: dict[str, str], tmp_path: Path) -> None:
    async def body(backend: WorkerBackend) -> None:
        assert backend.state.name == "failed"
        assert "config.json" in backend.state.message
        assert backend.state.can_restart

    settings = WorkerSettings(model=str(tmp_path))
    with_backend(settings, body)
    asyncio.run(WorkerBackend(settings).stop())


def test_a_worker_that_dies_at_start_is_said_and_not_tried_at_every_keystroke(
    me: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[float] = []

    def broken(_: Endpoint) -> list[str]:
        started.append(time.monotonic())
        return [sys.executable, "-c", "raise SystemExit('no torch here')"]

    monkeypatch.setattr(Endpoint, "command", broken)

    async def body(backend: WorkerBackend) -> None:
        assert backend.state.name == "failed"
        assert "no torch here" in backend.state.message
        assert len(started) == CRASHES
        for _ in range(50):
            await backend.ensure()
        assert len(started) == CRASHES

    with_backend(WorkerSettings(), body)


def test_a_worker_of_an_older_version_is_replaced(me: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run([FIMBLE, "worker", "start"], env=me, check=True, capture_output=True)
    (old,) = workers(me)
    monkeypatch.setattr("lsp_server.backends.worker.VERSION", "99.0")

    async def run() -> None:
        backend = WorkerBackend(WorkerSettings())
        task = backend.ensure()
        await asyncio.to_thread(until, lambda: old not in workers(me))
        task.cancel()
        await backend.close()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_worker_with_other_settings_is_reported_never_used_silently(me: dict[str, str]) -> None:
    subprocess.run([FIMBLE, "worker", "start"], env=me, check=True, capture_output=True)

    async def body(backend: WorkerBackend) -> None:
        assert backend.ready is None
        assert backend.state.name == "failed"
        assert "other settings" in backend.state.message
        await backend.restart()
        assert backend.ready
        assert backend.ready.dtype == "bfloat16"

    with_backend(WorkerSettings(dtype="bfloat16"), body)


def test_a_socket_of_somebody_else_is_not_used(me: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    where = endpoint(WorkerSettings())
    where.socket.touch()
    monkeypatch.setattr(endpoint_module.os, "getuid", lambda: os.geteuid() + 1)
    with pytest.raises(Unsafe, match="belongs to another user"):
        where.check_socket()
    with pytest.raises(Unsafe, match="not this user's own"):
        endpoint(WorkerSettings())


def test_a_long_state_path_falls_back_to_a_short_private_folder(
    me: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / ("long" * 30)))
    where: Endpoint = endpoint(WorkerSettings())
    assert len(os.fsencode(where.socket)) <= 100
    found = where.socket.parent.stat()
    assert stat.S_IMODE(found.st_mode) == 0o700
    assert found.st_uid == os.getuid()
    where.socket.parent.chmod(0o755)
    endpoint(WorkerSettings())
    assert stat.S_IMODE(where.socket.parent.stat().st_mode) == 0o700


def test_each_model_and_user_has_an_endpoint_of_its_own(me: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    starters = endpoint(WorkerSettings()).socket
    others = endpoint(WorkerSettings(model="deepseek-ai/DeepSeek-Coder-V2-Lite-Base")).socket
    monkeypatch.setenv("XDG_STATE_HOME", me["XDG_STATE_HOME"] + "-2")
    assert len({starters, others, endpoint(WorkerSettings()).socket}) == 3
