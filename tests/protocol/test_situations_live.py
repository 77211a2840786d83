"""The situations of tests/situations asked of the real server and worker: whatever the starter says, the edit fits."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from evaluation.lsp_client import LspClient
from evaluation.syntax import problems
from lsp_server.completion import Completion
from lsp_server.languages import language_of
from lsp_server.settings import Settings
from lsp_server.text import Position
from tests.situations import Situation, all_situations
from tests.unit.test_situations import check

SECONDS = 40
"""Rows that are not asked by then are left for the next run: the languages take turns."""


def in_turns(rows: list[Situation]) -> list[Situation]:
    """The first row of each language, then the second of each …"""
    of = {row.language: [r for r in rows if r.language == row.language] for row in rows}
    longest = max(map(len, of.values()))
    return [found[i] for i in range(longest) for found in of.values() if i < len(found)]


async def ask(client: LspClient, uri: str, row: Situation) -> dict[str, Any] | None:
    """The edit that the server offers, the brackets closed as editors close them."""
    line, column = row.cursor
    pair = row.before[-1:] + row.closers if row.closers else ""
    before, after = row.before[: len(row.before) - bool(pair)], row.after[len(row.closers) :]
    client.open(uri, row.language, before + after)
    if pair:
        client.change(uri, 2, ((line, column - 1), (line, column - 1), pair))
    context: dict[str, Any] = {"triggerKind": 2}  # automatic
    if row.selected:
        start = {"line": line, "character": row.selected.start.column}
        end = {"line": line, "character": column}
        context["selectedCompletionInfo"] = {"range": {"start": start, "end": end}, "text": row.menu}
    place = {"textDocument": {"uri": uri}, "position": {"line": line, "character": column}, "context": context}
    result = await client.request("textDocument/inlineCompletion", place, 60)
    return result["items"][0] if result and result["items"] else None


@pytest.mark.parametrize("settings", [{"confidence": 0}, {}], ids=["whole answers", "as installed"])
def test_whatever_the_model_says_the_edit_fits(state: dict[str, str], settings: dict[str, Any]) -> None:
    rows = in_turns(all_situations())
    shown: list[Situation] = []
    languages: set[str] = set()

    async def run() -> None:
        client = await LspClient.start(settings, env=state)
        await client.initialize()
        await client.ready()
        until = time.monotonic() + SECONDS
        for number, row in enumerate(rows):
            if time.monotonic() > until:
                break
            item = await ask(client, f"file:///w/{number}", row)
            languages.add(row.language)
            if item is None:
                continue
            shown.append(row)
            start, end = item["range"]["start"], item["range"]["end"]
            place = Position(start["line"], start["character"]), Position(end["line"], end["character"])
            found = Completion(item["insertText"], *place, 1)
            check(row, found)
            assert found.text.count("\n") <= Settings().max_lines + 1
            before = row.before[: len(row.before) - (row.cursor.column - found.start.column)]
            after = row.after[found.end.column - row.cursor.column :]
            if not settings and "\n" not in found.text:  # of a line perhaps its first word alone: no statement yet
                continue
            language = language_of(row.language, "")
            errors = problems(before + found.text + after, language), problems(row.before + row.after, language)
            assert errors[0] <= errors[1], (row.identifier, found)
        assert await client.close() == 0

    asyncio.run(run())
    assert len(languages) >= 8
    assert len(shown) >= 20
