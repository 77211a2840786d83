"""The real language server over a real llama.cpp: of another process, and inside the worker."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import IO, Any

import aiohttp
import pytest

from evaluation.lsp_client import LspClient, LspError
from inference.endpoint import WorkerSettings, endpoint
from inference.remote.http import Http
from lsp_server.backends.worker import WorkerBackend
from tests import llama
from tests.conftest import FIMBLE
from tests.engines import Engine, card, chunks, serving

CODE = "import json\n\n\ndef read(path):\n    with op\n\n\nprint(read('a'))\n"
URI, PLACE = "file:///w/a.py", (4, 11)
NOISE: dict[str, Any] = {"confidence": 0, "maxDelayMs": 0, "speculation": False, "trace": True}
"""What the random model says is shown whatever it thinks of it, and nothing is asked ahead."""

Body = Callable[[LspClient], Awaitable[None]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file."""
    file = tmp_path_factory.mktemp("gguf") / "noise.gguf"
    llama.write_model(file)
    return file


@pytest.fixture
def engine(model: Path) -> Iterator[llama.Process]:
    """A llama.cpp server in a process of its own."""
    process = llama.Process(model)
    yield process
    process.kill()


def drive(body: Body, env: dict[str, str], settings: dict[str, Any], log: IO[bytes] | None = None) -> None:
    """Runs `body` against a server of its own, whose log goes to `log`."""

    async def run() -> None:
        client = await LspClient.start(NOISE | settings, env=env, stderr=log)
        try:
            await client.initialize()
            await body(client)
            assert await client.close() == 0
        finally:
            if client.process.returncode is None:
                client.process.kill()

    asyncio.run(run())


def remote(address: str) -> dict[str, Any]:
    return {"backend": "llamacpp", "remote": {"url": address}}


def told(client: LspClient) -> list[str]:
    """Messages that ask the user to do something."""
    return [params["message"] for method, params in client.requests if method == "window/showMessageRequest"]


async def trace(client: LspClient, number: int) -> dict[str, Any]:
    """The trace of the request `number`, from 1."""
    return await client.until("fimble/trace", lambda params: params["id"] == str(number))


def test_keystrokes_are_completed_by_llama_cpp_which_finds_their_prompts_in_its_cache(
    state: dict[str, str], engine: llama.Process
) -> None:
    async def body(client: LspClient) -> None:
        http = Http(engine.address)
        await client.ready()
        client.open(URI, "python", CODE)
        item = await client.inline(URI, *PLACE)
        assert item
        assert item["insertText"]
        first = await trace(client, 1)
        assert first["request"]["typed"] == "\n    with op"
        for number, key in enumerate("zqxj", 2):  # what the model does not say, so that it is asked again
            line, column = PLACE[0], PLACE[1] + number - 2
            await llama.freed(http)  # while it is at the last answer, it takes the next into another of its slots
            client.change(URI, number, ((line, column), (line, column), key))
            await client.inline(URI, line, column + 1)
            end = (await trace(client, number))["end"]
            assert end["reused"] > 0
            assert end["prefilled"] <= 4, "as llama.cpp counted them"
        await http.close()

    drive(body, state, remote(engine.address))


def test_llama_cpp_notices_that_a_request_was_cancelled(state: dict[str, str], tmp_path: Path) -> None:
    most = 1000
    llama.write_model(tmp_path / "slow.gguf", layers=24, breaks=False)
    running = llama.serve(tmp_path / "slow.gguf")

    async def body(client: LspClient) -> None:
        http = Http(running.listening_address)
        await client.ready()
        client.open(URI, "python", CODE)
        number, answer = client.ask_inline(URI, *PLACE)
        while await llama.decoding(http) is None:
            assert not answer.done(), "it is asked, and at work"
        client.notify("$/cancelRequest", {"id": number})
        client.change(URI, 2, "something else entirely\n")
        assert await llama.freed(http) < most / 2
        with pytest.raises(LspError):
            await answer
        await http.close()

    drive(body, state, remote(running.listening_address) | {"maxTokens": {"line": most, "block": most}})


def test_a_killed_engine_is_reported_once_and_serves_again_when_it_is_back(
    state: dict[str, str], model: Path, engine: llama.Process
) -> None:
    async def body(client: LspClient) -> None:
        await client.ready()
        client.open(URI, "python", CODE)
        assert await client.inline(URI, *PLACE)
        engine.kill()
        client.change(URI, 2, ((0, 0), (0, 0), "# changed\n"))
        assert await client.inline(URI, PLACE[0] + 1, PLACE[1]) is None
        await client.until("window/showMessageRequest", lambda params: "start the engine there" in params["message"])
        client.notifications = [n for n in client.notifications if n[0] != "fimble/refresh"]
        port = int(engine.address.rpartition(":")[2])
        again = await asyncio.to_thread(llama.Process, model, port)
        try:
            await client.ready()
            assert await client.inline(URI, PLACE[0] + 1, PLACE[1])
            assert len(told(client)) == 1
        finally:
            again.kill()

    drive(body, state, remote(engine.address))


def test_the_local_worker_stands_in_and_completes_what_may_not_leave(state: dict[str, str]) -> None:
    async def body(client: LspClient) -> None:
        await client.ready()
        client.open(URI, "python", "secret_of_mine = 1\n")
        client.open("file:///w/.env", "python", f"SECRET_OF_MINE = 1\n{CODE}")
        assert await client.inline(URI, 0, 18), "by the engine"
        for _ in range(1200):
            if await client.inline("file:///w/.env", PLACE[0] + 1, PLACE[1]):
                break
            await asyncio.sleep(0.1)
        else:
            pytest.fail("the local worker never answered")
        sent = repr(recorder.requests)
        assert "secret_of_mine" in sent
        assert "SECRET_OF_MINE" not in sent

    with serving(Engine(card("m", "someone"), lambda _: chunks(" + 2", finish="stop"))) as recorder:
        settings = {"backend": "openai", "remote": {"url": f"{recorder.address}/v1", "fallback": True}}
        drive(body, state, settings)


def test_a_document_that_may_not_leave_is_logged_once_however_much_is_typed(
    state: dict[str, str], tmp_path: Path
) -> None:
    async def body(client: LspClient) -> None:
        await client.ready()
        for name in (".env", "tls.key"):
            client.open(f"file:///w/{name}", "python", CODE)
            for column in (5, 6, 7, 8):
                assert await client.inline(f"file:///w/{name}", PLACE[0], column) is None

    log = tmp_path / "log"
    with serving(Engine(card("m", "someone"), lambda _: chunks(" + 2"))) as recorder, log.open("wb") as out:
        drive(body, state, {"backend": "openai", "remote": {"url": f"{recorder.address}/v1"}}, out)
        assert not recorder.asked
    assert log.read_text().count(".env is not sent anywhere: it matches `fimble.exclude`") == 1
    assert log.read_text().count("tls.key is not sent anywhere") == 1


def test_the_editor_needs_no_other_setting_than_a_gguf_file(
    fresh_state: dict[str, str], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", fresh_state["XDG_STATE_HOME"])
    settings = WorkerSettings(model=str(model))

    async def body(client: LspClient) -> None:
        await client.ready()
        client.open(URI, "python", CODE)
        assert await client.inline(URI, *PLACE)
        for number in range(2, 32):  # a keystroke right behind another may find a slot that knows nothing yet
            place = (PLACE[0], PLACE[1] + number - 2)
            client.change(URI, number, (place, place, "z"))
            await client.inline(URI, place[0], place[1] + 1)
            end = (await trace(client, number))["end"]
            if end.get("reused", 0) > 0 and end["prefilled"] <= 4:
                break
        else:
            pytest.fail("no keystroke found its prompt in the cache")

    drive(body, fresh_state, {"model": str(model)})

    async def look() -> Any:
        backend = WorkerBackend(settings)
        try:
            return await backend.look()
        finally:
            await backend.close()

    health = asyncio.run(look())
    assert (health.status, health.dtype, health.window) == ("ready", "gguf", llama.CONTEXT)
    command = [FIMBLE, "worker", "run", "--engine", "llamacpp", str(model)]
    second = subprocess.run(command, env=fresh_state, capture_output=True, text=True, timeout=120)
    assert second.returncode == 75, "the lock lets one worker live"
    assert "already running" in second.stderr
    subprocess.run([FIMBLE, "worker", "stop", "--model", str(model)], env=fresh_state, check=True)
    assert not endpoint(settings).socket.exists()


def test_other_clients_of_a_worker_over_llama_cpp_get_llama_cpp_s_own_answers(
    fresh_state: dict[str, str], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", fresh_state["XDG_STATE_HOME"])
    subprocess.run([FIMBLE, "worker", "start", "--model", str(model)], env=fresh_state, check=True, capture_output=True)

    async def run() -> None:
        connector = aiohttp.UnixConnector(str(endpoint(WorkerSettings(model=str(model))).socket))
        async with aiohttp.ClientSession("http://worker", connector=connector) as http:
            asked: dict[str, Any] = {"prompt": "def add(a, b):", "max_tokens": 5, "temperature": 0}
            async with http.post("/v1/completions", json=asked) as reply:
                whole = await reply.json()
            assert whole["usage"]["completion_tokens"] == 5
            async with http.post("/v1/completions", json=asked | {"stream": True}) as reply:
                assert reply.headers["Content-Type"].startswith("text/event-stream")
                lines = [line[6:].strip() async for line in reply.content if line.startswith(b"data: ")]
            assert lines.pop() == b"[DONE]"
            assert "".join(json.loads(line)["choices"][0]["text"] for line in lines) == whole["choices"][0]["text"]
            async with http.get("/v1/models") as reply:
                assert [card["id"] for card in (await reply.json())["data"]] == ["noise"]
            messages = [{"role": "user", "content": "add"}]
            async with http.post("/v1/chat/completions", json={"messages": messages, "max_tokens": 3}) as reply:
                assert (await reply.json())["usage"]["completion_tokens"] == 3
            async with http.post("/v1/completions", json={}) as reply:
                assert reply.status == 400
                assert (await reply.json())["error"]["message"]

    try:
        asyncio.run(run())
    finally:
        subprocess.run([FIMBLE, "worker", "stop", "--model", str(model)], env=fresh_state, check=True)


def test_a_worker_over_llama_cpp_leaves_when_it_is_idle(fresh_state: dict[str, str], model: Path) -> None:
    command = [FIMBLE, "worker", "run", "--engine", "llamacpp", "--idle-minutes", "0.02", str(model)]
    done = subprocess.run(command, env=fresh_state, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--engine", "llamacpp"], "wants a GGUF file"),
        (["--engine", "torch", "m.gguf"], "not a GGUF file"),
        (["--engine", "vllm"], "torch or llamacpp"),
    ],
)
def test_a_model_that_does_not_fit_the_engine_is_refused(
    fresh_state: dict[str, str], arguments: list[str], words: str
) -> None:
    done = subprocess.run([FIMBLE, "worker", "run", *arguments], env=fresh_state, capture_output=True, text=True)
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("content", "words"), [(b"no model at all", "can't load"), (None, "there is no file")], ids=["damaged", "missing"]
)
def test_a_file_that_llama_cpp_can_not_load_is_said_by_the_worker(
    fresh_state: dict[str, str], tmp_path: Path, content: bytes | None, words: str
) -> None:
    file = tmp_path / "broken.gguf"
    if content:
        file.write_bytes(content)
    done = subprocess.run(
        [FIMBLE, "worker", "start", "--model", str(file)], env=fresh_state, capture_output=True, text=True, timeout=120
    )
    subprocess.run([FIMBLE, "worker", "stop", "--model", str(file)], env=fresh_state, check=True)
    assert done.returncode != 0
    assert words in " ".join((done.stdout + done.stderr).split())


def test_fimble_complete_asks_the_engine_of_the_settings_file(
    fresh_state: dict[str, str], tmp_path: Path, engine: llama.Process
) -> None:
    config = tmp_path / "config" / "fimble"
    config.mkdir(parents=True)
    (config / "settings.toml").write_text(f'backend = "llamacpp"\n[remote]\nurl = "{engine.address}"\n')
    (tmp_path / "a.py").write_text(CODE)
    done = subprocess.run(
        [FIMBLE, "complete", f"{tmp_path / 'a.py'}:{PLACE[0] + 1}:{PLACE[1] + 1}"],
        env=fresh_state | {"XDG_CONFIG_HOME": str(config.parent)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr  # 1: the noise is not worth showing
    assert "tokens computed" in done.stdout


def test_doctor_shows_the_engine_its_health_and_where_its_key_comes_from(
    fresh_state: dict[str, str], tmp_path: Path, engine: llama.Process
) -> None:
    config = tmp_path / "config" / "fimble"
    config.mkdir(parents=True)
    env = fresh_state | {"XDG_CONFIG_HOME": str(config.parent), "FIMBLE_REMOTE_KEY": "sk-never-to-be-seen"}

    def doctor() -> subprocess.CompletedProcess[str]:
        return subprocess.run([FIMBLE, "doctor"], env=env, capture_output=True, text=True, timeout=120)

    (config / "settings.toml").write_text(f'backend = "llamacpp"\n[remote]\nurl = "{engine.address}"\n')
    well = doctor()
    assert well.returncode == 0, well.stdout
    assert (
        f"engine: {engine.address} (llamacpp), with the key in FIMBLE_REMOTE_KEY: noise, window of 2,048" in well.stdout
    )
    assert "torch" not in well.stdout, "nothing of it is needed"
    engine.kill()
    ill = doctor()
    assert ill.returncode == 1
    assert "start the engine there" in ill.stdout
    assert "never-to-be-seen" not in well.stdout + ill.stdout
