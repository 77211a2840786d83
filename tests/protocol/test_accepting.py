"""Accepting, dismissing and cycling by commands that any editor can bind, over the real server and worker."""

from __future__ import annotations

import asyncio
import json
import subprocess
from typing import Any

import pytest

from evaluation.lsp_client import SERVER, LspClient, LspError
from tests.protocol.test_server import CODE, PLACE, URI, counted, drive

WHERE = {"textDocument": {"uri": URI}, "position": {"line": PLACE[0], "character": PLACE[1]}}
COMMANDS = ["accepted", "accept", "acceptLine", "acceptWord", "dismiss", "cycle"]


async def run(client: LspClient, command: str, *arguments: Any) -> Any:
    return await client.request("workspace/executeCommand", {"command": command, "arguments": list(arguments)})


def invoked(line: int, character: int) -> dict[str, Any]:
    place = {"textDocument": {"uri": URI}, "position": {"line": line, "character": character}}
    return {**place, "context": {"triggerKind": 1}}


def test_what_is_asked_for_explicitly_comes_with_alternatives(state: dict[str, str]) -> None:
    async def body(client: LspClient) -> None:
        client.open(URI, "python", CODE)
        found = await client.request("textDocument/inlineCompletion", invoked(*PLACE))
        texts = [item["insertText"] for item in found["items"]]
        assert len(texts) >= 3
        assert len(set(texts)) == len(texts)
        assert texts[0] == (await client.inline(URI, *PLACE) or {})["insertText"]

    drive(body, state)


def test_an_explicit_request_is_answered_where_nothing_is_offered_otherwise(state: dict[str, str]) -> None:
    async def body(client: LspClient) -> None:
        client.open(URI, "python", "import json\n\n\ndef f(x):\n    return x\n\n\nprint(f(1))\n")
        found = await client.request("textDocument/inlineCompletion", invoked(4, 12))
        assert found["items"]

    drive(body, state)


def test_word_by_word_the_server_inserts_the_suggestion(state: dict[str, str]) -> None:
    async def body(client: LspClient) -> None:
        client.open(URI, "python", CODE)
        item = await client.inline(URI, *PLACE)
        assert item
        left, (line, character), version = item["insertText"], PLACE, 1
        for _ in range(3):
            where = {"textDocument": {"uri": URI}, "position": {"line": line, "character": character}}
            taken = await run(client, "fimble.acceptWord", where)
            assert taken["applied"]
            assert left.startswith(taken["insertText"])
            ((_, sent),) = [r for r in client.requests if r[0] == "workspace/applyEdit"]
            client.requests.clear()
            (change,) = sent["edit"]["documentChanges"]
            assert change["textDocument"] == {"uri": URI, "version": version}
            assert change["edits"] == [{"range": taken["range"], "newText": taken["insertText"]}]
            version += 1
            client.change(URI, version, ((line, character), (line, character), taken["insertText"]))
            left = left[len(taken["insertText"]) :]
            line, character = taken["position"]["line"], taken["position"]["character"]
            assert (await client.inline(URI, line, character) or {})["insertText"] == left

    drive(body, state)


def test_a_client_that_inserts_by_itself_gets_the_text(state: dict[str, str]) -> None:
    async def body(client: LspClient) -> None:
        client.open(URI, "python", CODE)
        item = await client.inline(URI, *PLACE)
        assert item
        taken = await run(client, "fimble.acceptLine", {**WHERE, "apply": False})
        assert taken["insertText"] == item["insertText"].split("\n")[0]
        assert not taken["applied"]
        assert not [r for r in client.requests if r[0] == "workspace/applyEdit"]
        assert await run(client, "fimble.accept", {**WHERE, "position": {"line": 0, "character": 0}}) is None

    drive(body, state)


def test_cycling_turns_through_the_alternatives(state: dict[str, str]) -> None:
    async def body(client: LspClient) -> None:
        client.open(URI, "python", CODE)
        known = (await client.request("textDocument/inlineCompletion", invoked(*PLACE)))["items"]
        second = (await run(client, "fimble.cycle", WHERE))["items"][0]
        third = (await run(client, "fimble.cycle", WHERE))["items"][0]
        assert len({item["insertText"] for item in (known[0], second, third)}) == 3
        assert (await client.inline(URI, *PLACE) or {})["insertText"] == third["insertText"]
        back = (await run(client, "fimble.cycle", {**WHERE, "back": True}))["items"][0]
        assert back["insertText"] == second["insertText"]

    drive(body, state)


def test_turning_back_leads_to_the_suggestion_that_was_on_the_screen_before_others_were_asked_for(
    state: dict[str, str],
) -> None:
    async def body(client: LspClient) -> None:
        client.open(URI, "python", CODE)
        shown = await client.inline(URI, *PLACE)
        assert shown
        other = (await run(client, "fimble.cycle", WHERE))["items"][0]
        back = (await run(client, "fimble.cycle", {**WHERE, "back": True}))["items"][0]
        assert back["insertText"] == shown["insertText"] != other["insertText"]

    drive(body, state)


def test_dismissed_stays_away_until_it_is_asked_for(state: dict[str, str]) -> None:
    async def body(client: LspClient) -> None:
        client.open(URI, "python", CODE)
        assert await client.inline(URI, *PLACE)
        await run(client, "fimble.dismiss", WHERE)
        assert await client.inline(URI, *PLACE) is None
        assert (await client.request("textDocument/inlineCompletion", invoked(*PLACE)))["items"]

    drive(body, state)


def test_malformed_arguments_are_refused(state: dict[str, str]) -> None:
    wrong = [None, 1, [], {}, {"textDocument": {}}, {**WHERE, "position": {"line": "x"}}]

    async def body(client: LspClient) -> None:
        for command in COMMANDS:
            for argument in wrong:
                with pytest.raises(LspError) as error:
                    await run(client, f"fimble.{command}", argument)
                assert error.value.code == -32602

    drive(body, state, ready=False)


def test_what_was_accepted_is_in_the_stats_and_no_text_is(fresh_state: dict[str, str]) -> None:
    async def body(client: LspClient) -> None:
        client.open(URI, "python", CODE)
        item = await client.inline(URI, *PLACE)
        assert item
        client.change(URI, 2, (PLACE, PLACE, item["insertText"]))
        await run(client, item["command"]["command"], *item["command"]["arguments"])

    drive(body, fresh_state)
    command = [SERVER[0], "stats"]
    said = subprocess.run([*command, "--json"], env=fresh_state, capture_output=True, text=True, check=True).stdout
    figures = json.loads(said)["today"]["Python"]
    assert (figures["shown"], figures["accepted"], figures["acceptance_rate"]) == (1, 1, 1.0)
    assert figures["characters_saved"] >= 10
    assert figures["latency_ms"]["model"]["p50"] > 0
    assert "open" not in said
    assert "Python" in subprocess.run(command, env=fresh_state, capture_output=True, text=True, check=True).stdout
    subprocess.run([*command, "--reset"], env=fresh_state, check=True)
    said = subprocess.run([*command, "--json"], env=fresh_state, capture_output=True, text=True, check=True).stdout
    assert json.loads(said)["all"]["all languages"]["shown"] == 0


def test_after_an_accepted_suggestion_the_next_one_asks_the_worker_nothing(state: dict[str, str]) -> None:
    text = "def area(shape):\n    width = shape.width\n    height = \n\n\nprint(area)\n"

    async def body(client: LspClient) -> None:
        client.open(URI, "python", text)
        shown = await client.inline(URI, 2, 13)
        assert shown
        assert "\n" not in shown["insertText"]
        idle = 0
        while idle < 5:  # all that is asked ahead is answered
            await asyncio.sleep(0.1)
            idle = idle + 1 if await counted(state, "fimble_running") == 0 else 0
        end = 13 + len(shown["insertText"])
        client.change(URI, 2, ((2, 13), (2, 13), shown["insertText"]))
        assert await client.inline(URI, 2, end) is None
        client.change(URI, 3, ((2, end), (2, end), "\n    "))
        following = await client.inline(URI, 3, 4)
        assert following
        for version in (2, 3):
            trace = await client.until("fimble/trace", lambda found, version=version: found["version"] == version)
            assert trace["source"] == "cache", "nobody waits for the model"

    drive(body, state, {"trace": True, "confidence": 0})
