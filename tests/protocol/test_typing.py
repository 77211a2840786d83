"""Ghost text while somebody types, over the real server and worker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from evaluation.lsp_client import CAPABILITIES, LspClient
from tests.protocol.test_server import CODE, PLACE, URI, drive


def test_what_is_shown_stays_while_it_is_typed_to_its_end(state: dict[str, str]) -> None:
    async def body(client: LspClient) -> None:
        client.open(URI, "python", CODE)
        (line, column), kept, answered = PLACE, "", 0
        keys = 'en(path, encoding="utf-8") as opened:'
        for version, key in enumerate(keys, 2):
            item = await client.inline(URI, line, column)
            shown = item["insertText"] if item else ""
            assert shown.startswith(kept)
            answered += bool(shown)
            kept = shown[1:].rstrip() if shown.startswith(key) else ""
            client.change(URI, version, ((line, column), (line, column), key))
            column += 1
        assert answered > len(keys) / 2

    drive(body, state)


@pytest.mark.parametrize("replaces", [True, False])
def test_sure_words_of_a_part_of_an_answer_go_only_to_who_can_draw_the_rest_in_their_place(
    replaces: bool, state: dict[str, str]
) -> None:
    """VS Code keeps what it shows when it is told more, so it may not be told a part."""

    async def run() -> list[str]:
        client = await LspClient.start({"trace": True, "speculation": False}, env=state)
        ours = {"status": True} | ({"refresh": True} if replaces else {})
        await client.initialize({**CAPABILITIES, "experimental": {"fimble": ours}})
        await client.ready()
        sources: list[str] = []
        for turn in range(12):
            uri, (line, column) = f"file:///w/{turn}.py", PLACE
            client.open(uri, "python", f"# {turn}\n" + CODE)
            asked: list[asyncio.Future[Any]] = []
            for version, key in enumerate("en(path)", 2):
                asked.append(client.ask_inline(uri, line + 1, column)[1])
                await asyncio.sleep(0.03)
                client.change(uri, version, ((line + 1, column), (line + 1, column), key))
                column += 1
            await asyncio.gather(*asked)
            traces = [params for method, params in client.notifications if method == "fimble/trace"]
            sources = [trace["source"] for trace in traces]
            if "begun" in sources:
                break
        await client.close()
        return sources

    sources = asyncio.run(run())
    assert ("begun" in sources) == replaces
    assert sources
