"""The real server over its own pipes, with the real worker: every request answered, no document lost."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from evaluation.lsp_client import CAPABILITIES, SERVER, LspClient, LspError
from tests.conftest import worker_of

URI = "file:///w/a.py"
CODE = """import json


def read_json(path):
    with op


def write_json(path, value):
    with open(path, "w") as f:
        json.dump(value, f)
"""
PLACE = (4, 11)  # after `with op`

Body = Callable[[LspClient], Awaitable[None]]


def drive(body: Body, env: dict[str, str], settings: dict[str, Any] | None = None, *, ready: bool = True) -> None:
    """Runs `body` against a server of its own that has been initialized."""

    async def run() -> None:
        client = await LspClient.start(settings, env=env)
        try:
            await client.initialize()
            if ready:
                await client.ready()
            await body(client)
            assert await client.close() == 0
        finally:
            if client.process.returncode is None:
                client.process.kill()

    asyncio.run(run())


def loading(modules: str) -> float:
    """Seconds that a new Python takes to import these."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {modules}"], check=True)
    return time.perf_counter() - began


def test_initialize_is_answered_soon_after_the_protocol_is_loaded_and_without_torch(state: dict[str, str]) -> None:
    """Half a second on most machines, of which the protocol's own types take more than half."""

    async def run() -> tuple[float, list[str]]:
        began = time.perf_counter()
        client = await LspClient.start(env=state)
        result = await client.initialize()
        took = time.perf_counter() - began
        assert result["capabilities"]["inlineCompletionProvider"] is not None
        assert result["serverInfo"]["name"] == "fimble"
        mapped = [m.path for m in psutil.Process(client.process.pid).memory_maps()]
        await client.close()
        return took, [path for path in mapped if "torch" in path]

    asyncio.run(run())  # the page cache is warm from here on
    runs = [(asyncio.run(run()), loading("pygls.lsp.server, lsprotocol.types")) for _ in range(4)]
    took, protocol = min(took for (took, _), _ in runs), min(seconds for _, seconds in runs)
    print(f"\ninitialize answered after {took:.2f} s; {protocol:.2f} s of these load the protocol")
    assert took < 2 * protocol
    assert not runs[0][0][1]


def test_a_completion_fits_its_place(state: dict[str, str]) -> None:
    async def body(client: LspClient) -> None:
        client.open(URI, "python", CODE)
        item = await client.inline(URI, *PLACE)
        assert item
        assert item["insertText"].startswith("en(path")
        place = {"line": PLACE[0], "character": PLACE[1]}
        assert item["range"] == {"start": place, "end": place}

    drive(body, state)


def test_answers_use_the_documents_line_breaks(state: dict[str, str]) -> None:
    async def body(client: LspClient) -> None:
        text = "def average(values):\n    total = 0\n    for value in values:\n    return total / len(values)\n"
        client.open(URI, "python", text.replace("\n", "\r\n"))
        item = await client.inline(URI, 2, 24)
        assert item
        assert "\r\n" in item["insertText"]
        assert "\n" not in item["insertText"].replace("\r\n", "")

    drive(body, state)


@pytest.mark.parametrize(("encoding", "column"), [("utf-8", 23), ("utf-16", 21), ("utf-32", 20)])
def test_positions_past_an_emoji_mean_the_same_in_every_encoding(
    state: dict[str, str], encoding: str, column: int
) -> None:
    async def run() -> None:
        client = await LspClient.start({"confidence": 0}, env=state)
        capabilities = {**CAPABILITIES, "general": {"positionEncodings": [encoding]}}
        result = await client.initialize(capabilities)
        assert result["capabilities"]["positionEncoding"] == encoding
        await client.ready()
        client.open(URI, "python", 'import json\n\nx = "😀"; y = json.lo\n\nprint(x, y)\n')
        client.change(URI, 2, ((2, column), (2, column), "a"))
        item = await client.inline(URI, 2, column + 1)
        assert item
        assert item["insertText"].startswith("ds("), "the text before the cursor is `json.loa`"
        assert item["range"]["start"] == {"line": 2, "character": column + 1}
        await client.close()

    asyncio.run(run())


def unseen() -> str:
    """150 lines that no worker has in its cache, so that an answer takes a while, and the beginning of another."""
    return f"x = {random.randrange(10**9)}\n" * 150 + "y"


def test_a_new_request_supersedes_the_old_one_which_is_answered_null_at_once(state: dict[str, str]) -> None:
    async def body(client: LspClient) -> None:
        client.open(URI, "python", CODE)
        await client.inline(URI, *PLACE)
        client.open("file:///w/b.py", "python", unseen())
        _, old = client.ask_inline("file:///w/b.py", 150, 1)
        await asyncio.sleep(0.05)
        began = time.perf_counter()
        _, new = client.ask_inline("file:///w/b.py", 150, 0)
        assert await asyncio.wait_for(old, 10) is None
        assert time.perf_counter() - began < 0.25
        await asyncio.wait_for(new, 60)

    drive(body, state)


def test_an_edit_ends_the_request_in_hand(state: dict[str, str]) -> None:
    async def body(client: LspClient) -> None:
        client.open(URI, "python", "x = 1\n" * 150 + "y")
        _, old = client.ask_inline(URI, 150, 1)
        client.change(URI, 2, ((150, 1), (150, 1), "z"))
        assert await asyncio.wait_for(old, 10) is None

    drive(body, state)


def test_a_cancelled_request_is_answered_and_frees_the_worker(state: dict[str, str]) -> None:
    async def body(client: LspClient) -> None:
        cancelled = 'fimble_ends_total{reason="cancelled"}'
        before = await counted(state, cancelled)
        client.open(URI, "python", unseen())
        number, answer = client.ask_inline(URI, 150, 1)
        while not await counted(state, "fimble_running"):
            await asyncio.sleep(0.005)
        client.notify("$/cancelRequest", {"id": number})
        with pytest.raises(LspError) as error:
            await asyncio.wait_for(answer, 10)
        assert error.value.code == -32800
        since = time.monotonic()
        while await counted(state, cancelled) == before or await counted(state, "fimble_running"):
            assert time.monotonic() - since < 5, "the worker was not told, or goes on"
            await asyncio.sleep(0.05)

    drive(body, state)


MALFORMED: list[Any] = [
    None,
    [],
    "x",
    {},
    {"textDocument": {"uri": URI}},
    {"textDocument": {"uri": 7}, "position": {"line": 0, "character": 0}, "context": {"triggerKind": 2}},
    {"textDocument": {"uri": URI}, "position": {"line": "0", "character": 0}, "context": {"triggerKind": 2}},
    {"textDocument": {"uri": URI}, "position": {"line": -1, "character": 0}, "context": {"triggerKind": 2}},
    {"textDocument": {"uri": URI}, "position": {"line": 10**6, "character": 0}, "context": {"triggerKind": 2}},
    {"textDocument": {"uri": URI}, "position": {"line": 0, "character": 0}, "context": {"triggerKind": 99}},
    {"textDocument": {"uri": URI}, "position": None, "context": None},
]


@pytest.mark.parametrize("params", MALFORMED, ids=[json.dumps(p)[:60] for p in MALFORMED])
def test_malformed_parameters_are_answered_with_invalid_params(state: dict[str, str], params: Any) -> None:
    async def body(client: LspClient) -> None:
        client.open(URI, "python", CODE)
        with pytest.raises(LspError) as error:
            await client.request("textDocument/inlineCompletion", params, 5)
        assert error.value.code == -32602
        assert await client.inline(URI, *PLACE), "and the server goes on"

    drive(body, state)


def test_malformed_notifications_are_survived(state: dict[str, str]) -> None:
    async def body(client: LspClient) -> None:
        client.open(URI, "python", CODE)
        client.notify("textDocument/didChange", {"textDocument": {"uri": URI}})
        client.notify("textDocument/didOpen", None)
        client.notify("fimble/cursor", None)
        client.notify("fimble/cursor", {"textDocument": {"uri": URI, "version": "x"}, "position": {}})
        client.notify("nobody/knows", {"jsonrpc": "2.0"})
        client.send_raw(b'{"jsonrpc": "2.0", "method": ')
        client.send_raw(b"[]")
        assert await client.inline(URI, *PLACE)

    drive(body, state)


def test_a_document_that_is_not_open_has_no_completion(state: dict[str, str]) -> None:
    async def body(client: LspClient) -> None:
        assert await client.inline("file:///w/never.py", 0, 0) is None

    drive(body, state)


def test_requests_before_initialize_and_after_shutdown_are_refused(state: dict[str, str]) -> None:
    async def run() -> None:
        client = await LspClient.start(env=state)
        with pytest.raises(LspError) as error:
            await client.inline(URI, 0, 0)
        assert error.value.code == -32002
        await client.initialize()
        with pytest.raises(LspError) as error:
            await client.initialize()
        assert error.value.code == -32600
        await client.request("shutdown", None)
        with pytest.raises(LspError) as error:
            await client.inline(URI, 0, 0)
        assert error.value.code == -32600
        client.notify("exit", None)
        assert await asyncio.wait_for(client.process.wait(), 10) == 0

    asyncio.run(run())


def test_an_impossible_edit_is_said_once_and_mended_by_a_full_text(state: dict[str, str]) -> None:
    async def body(client: LspClient) -> None:
        client.open(URI, "python", CODE)
        client.change(URI, 2, ((500, 0), (500, 0), "x"))
        assert await client.inline(URI, *PLACE) is None
        client.change(URI, 3, ((0, 0), (0, 0), "x"))
        assert await client.inline(URI, *PLACE) is None
        client.change(URI, 4, CODE)
        assert await client.inline(URI, *PLACE)
        messages = [p["message"] for m, p in client.notifications if m == "window/showMessage"]
        assert len(messages) == 1
        assert "a.py is out of step" in messages[0]

    drive(body, state)


def test_versions_may_jump_but_not_go_back(state: dict[str, str]) -> None:
    async def body(client: LspClient) -> None:
        client.open(URI, "python", CODE, 3)
        client.change(URI, 90, ((0, 0), (0, 0), "import os\n"))
        assert await client.inline(URI, PLACE[0] + 1, PLACE[1])
        client.change(URI, 89, ((0, 0), (0, 0), "import os\n"))
        assert await client.inline(URI, PLACE[0] + 2, PLACE[1]) is None
        client.open(URI, "python", CODE, 1)
        assert await client.inline(URI, *PLACE), "reopening starts anew"

    drive(body, state, {"confidence": 0})  # whatever is said


def test_settings_apply_without_a_restart(state: dict[str, str]) -> None:
    async def body(client: LspClient) -> None:
        client.open(URI, "python", CODE)
        assert await client.inline(URI, *PLACE)
        client.settings = {"disabledLanguages": ["python"]}
        client.notify("workspace/didChangeConfiguration", {"settings": None})
        await asyncio.sleep(0.3)
        assert await client.inline(URI, *PLACE) is None
        client.settings = {"layout": "sideways"}
        client.notify("workspace/didChangeConfiguration", {"settings": None})
        warning = await client.until("window/showMessage")
        assert "fimble.layout" in warning["message"]
        assert await client.inline(URI, *PLACE)

    drive(body, state)


def test_a_client_without_configuration_uses_initialization_options(state: dict[str, str]) -> None:
    async def run() -> None:
        client = await LspClient.start(env=state)
        bare = {"textDocument": {"inlineCompletion": {}}, "experimental": {"fimble": {}}}
        await client.initialize(bare, initializationOptions={"enabled": False})
        client.open(URI, "python", CODE)
        assert await client.inline(URI, *PLACE) is None
        client.notify("workspace/didChangeConfiguration", {"settings": {"fimble": {"enabled": True}}})
        await client.ready()
        assert await client.inline(URI, *PLACE)
        await client.close()

    asyncio.run(run())


def test_a_client_without_inline_completion_gets_it_in_the_menu(state: dict[str, str]) -> None:
    async def run() -> None:
        client = await LspClient.start(env=state)
        result = await client.initialize({"experimental": {"fimble": {}}})
        assert result["capabilities"]["completionProvider"] is not None
        assert result["capabilities"].get("inlineCompletionProvider") is None
        await client.ready()
        client.open(URI, "python", CODE)
        params = {"textDocument": {"uri": URI}, "position": {"line": PLACE[0], "character": PLACE[1]}}
        answer = await client.request("textDocument/completion", params)
        (item,) = answer["items"]
        assert item["filterText"] == "op"
        assert "\0" not in json.dumps(item).encode().decode("unicode_escape"), "Emacs takes no NUL"
        assert item["textEdit"]["newText"].startswith("open(path")
        assert item["textEdit"]["range"]["start"] == {"line": PLACE[0], "character": PLACE[1] - 2}
        assert await client.inline(URI, *PLACE), "who asks all the same is answered"
        await client.close()

    asyncio.run(run())


def test_a_client_with_ghost_text_is_not_offered_the_menu_too(state: dict[str, str]) -> None:
    async def run() -> None:
        client = await LspClient.start(env=state)
        result = await client.initialize()
        assert result["capabilities"].get("completionProvider") is None
        await client.close()

    asyncio.run(run())


def test_while_the_model_loads_requests_get_null_at_once_and_progress_is_shown(fresh_state: dict[str, str]) -> None:
    async def body(client: LspClient) -> None:
        client.open(URI, "python", CODE)
        client.notify(
            "fimble/cursor", {"textDocument": {"uri": URI, "version": 1}, "position": {"line": 4, "character": 1}}
        )
        began = time.perf_counter()
        assert await client.inline(URI, *PLACE) is None
        assert time.perf_counter() - began < 0.5
        await client.until("fimble/refresh")
        took = time.perf_counter() - began
        assert await client.inline(URI, *PLACE)
        shown = [p["value"] for m, p in client.notifications if m == "$/progress"]
        assert [v["kind"] for v in (shown[0], shown[-1])] == ["begin", "end"]
        percentages = [v["percentage"] for v in shown if v["kind"] == "report"]
        assert percentages == sorted(percentages)
        assert len(set(percentages)) >= 3
        assert took < 30, f"loading took {took:.1f} s"

    drive(body, fresh_state, ready=False)


def test_where_the_cursor_rests_the_worker_is_warmed(state: dict[str, str]) -> None:
    async def body(client: LspClient) -> None:
        text = "".join(f"value_{i} = {i} * factor\n" for i in range(60)) + CODE
        client.open(URI, "python", text)
        place = {"line": PLACE[0] + 60, "character": PLACE[1]}
        stale = {"textDocument": {"uri": URI, "version": 7}, "position": place}
        prefilled, ended = await counted(state, "fimble_prefilled_total"), await counted(state, "fimble_ends_total")
        client.notify("fimble/cursor", stale)
        client.notify("fimble/cursor", {**stale, "textDocument": {"uri": URI, "version": 1}})
        while await counted(state, "fimble_ends_total") == ended:
            await asyncio.sleep(0.05)
        warmed = await counted(state, "fimble_prefilled_total")
        assert warmed - prefilled > 400
        assert await client.inline(URI, place["line"], place["character"])
        assert await counted(state, "fimble_prefilled_total") - warmed <= 3

    drive(body, state)


def test_one_dense_file_does_not_shrink_what_is_seen_of_the_others(state: dict[str, str]) -> None:
    async def body(client: LspClient) -> None:
        client.open("file:///w/dense.py", "python", "7391;5182;\n" * 900)
        await client.inline("file:///w/dense.py", 450, 0)
        dense = await client.until("fimble/trace", lambda t: t["uri"].endswith("dense.py"))
        assert dense["outcome"] != "too_long", "a prompt that is too long is cut again"
        client.open(URI, "python", "value = compute(first, second)\n" * 300)
        await client.inline(URI, 150, 0)
        normal = await client.until("fimble/trace", lambda t: t["uri"] == URI)
        assert len(normal["request"]["prefix"]) > 1.5 * len(dense["request"]["prefix"])

    drive(body, state, {"trace": True})


async def counted(env: dict[str, str], name: str) -> float:
    """One of the worker's figures, summed over its labels."""
    (socket,) = (Path(env["XDG_STATE_HOME"]) / "fimble" / "run").glob("*.sock")
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session,
        session.get("http://worker/metrics") as response,
    ):
        text = await response.text()
    found = [float(line.split()[-1]) for line in text.splitlines() if line.startswith(name)]
    assert found or "{" in name, f"no figure {name}"  # one with a label may be still to come
    return sum(found)


def test_a_killed_worker_costs_one_answer_and_comes_back_by_itself(fresh_state: dict[str, str]) -> None:
    async def body(client: LspClient) -> None:
        client.open(URI, "python", "x = 1\n" * 150 + "y")
        _, answer = client.ask_inline(URI, 150, 1)
        await asyncio.sleep(0.1)
        worker = worker_of(fresh_state)
        worker.kill()
        assert await asyncio.wait_for(answer, 10) is None
        client.change(URI, 2, CODE)
        deadline = time.monotonic() + 60
        item = None
        while item is None and time.monotonic() < deadline:
            item = await client.inline(URI, *PLACE)
            await asyncio.sleep(0.1)
        assert item
        assert item["insertText"].startswith("en(path")

    drive(body, fresh_state)


def test_five_hundred_superseded_requests_leave_nothing_running_and_memory_flat(state: dict[str, str]) -> None:
    async def body(client: LspClient) -> None:
        text = "x = 1\n" * 60 + "y = "
        client.open(URI, "python", text)
        await client.inline(URI, 60, 4)
        column, version, answers = 4, 1, list[asyncio.Future[Any]]()
        letters = random.Random(1)  # nothing that the model would say, nor that was typed before

        async def burst(count: int) -> None:
            nonlocal column, version
            for _ in range(count):
                version += 1
                client.change(URI, version, ((60, column), (60, column), letters.choice("bcdfghjkqxz")))
                column += 1
                if column > 30:
                    version += 1
                    client.change(URI, version, ((60, 4), (60, column), ""))
                    column = 4
                answers.append(client.ask_inline(URI, 60, column)[1])
                await asyncio.sleep(0.01)

        await burst(150)
        worker = worker_of(state)
        server = psutil.Process(client.process.pid)
        await answers[-1]
        before = worker.memory_info().rss, server.memory_info().rss
        await burst(500)
        last = await asyncio.wait_for(asyncio.gather(*answers), 60)
        assert len(last) == 650
        assert sum(answer is None for answer in last) > 400
        after = worker.memory_info().rss, server.memory_info().rss
        for old, new in zip(before, after, strict=True):
            assert new < old * 1.05, f"memory grew from {old:,} to {new:,} bytes"

    drive(body, state)
    # The client has left: what was asked ahead in the background ends with the forward in hand.
    left = time.monotonic()
    while asyncio.run(counted(state, "fimble_running")):
        assert time.monotonic() - left < 1, "a second after the client left something still runs"


def test_a_fifty_megabyte_line_is_completed_or_answered_null(state: dict[str, str]) -> None:
    async def body(client: LspClient) -> None:
        line = "abcdefghij" * (5 * 2**20)
        client.open(URI, "python", line + "\nprint(1)\n")
        began = time.perf_counter()
        await client.inline(URI, 0, len(line))
        assert time.perf_counter() - began < 30
        client.change(URI, 2, ((0, 10), (0, len(line)), ""))
        await client.inline(URI, 0, 5)
        client.open("file:///w/b.py", "python", CODE)
        assert await client.inline("file:///w/b.py", *PLACE)

    drive(body, state)


def test_marker_strings_in_a_document_end_nothing(state: dict[str, str]) -> None:
    async def body(client: LspClient) -> None:
        markers = "<｜fim▁end｜><｜end▁of▁sentence｜><｜fim▁hole｜><｜fim▁begin｜>"
        client.open(URI, "python", f'MARKERS = "{markers}"\n\n' + CODE + f"\n# {markers}\n")
        item = await client.inline(URI, PLACE[0] + 2, PLACE[1])
        assert item
        assert item["insertText"].startswith("en(path")

    drive(body, state)


def test_tcp_serves_a_client_on_loopback_only(state: dict[str, str]) -> None:
    refused = subprocess.run([SERVER[0], "--tcp", "0.0.0.0:0"], env=state, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert "loopback" in refused.stderr
    process = subprocess.Popen([SERVER[0], "--tcp", "18777"], env=state)
    try:
        asyncio.run(_over_tcp(18777))
        assert process.wait(10) == 0
    finally:
        process.kill()


async def _over_tcp(port: int) -> None:
    for _ in range(100):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            break
        except OSError:
            await asyncio.sleep(0.1)
    else:
        raise AssertionError("the server does not listen")
    for message in (
        {"id": 1, "method": "initialize", "params": {"processId": None, "rootUri": None, "capabilities": {}}},
        {"id": 2, "method": "shutdown", "params": None},
        {"method": "exit", "params": None},
    ):
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    answer = await asyncio.wait_for(reader.read(), 20)
    assert b'"completionProvider"' in answer
    writer.close()


def test_the_server_survives_its_workspace_being_removed(state: dict[str, str], tmp_path: Path) -> None:
    async def run() -> None:
        workspace = tmp_path / "workspace"
        workspace.mkdir()
        client = await LspClient.start(env=state, cwd=workspace)
        await client.initialize()
        await client.ready()
        os.rmdir(workspace)
        client.open(URI, "python", CODE)
        assert await client.inline(URI, *PLACE)
        await client.close()

    asyncio.run(run())
