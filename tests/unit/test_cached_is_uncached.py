"""Whatever was typed, undone and asked before, an answer is one that the model gives to the text of this very document.

The reference is a completer that remembers nothing. An answer is right if it leads to a document which that completer's
answer leads to, here or at a place in this document that was asked about before: then it is what is left of it.
"""

from __future__ import annotations

import asyncio
import hashlib

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from lsp_server.completion import Completer, Completion
from lsp_server.settings import Settings
from tests.unit.completing import Desk, ScriptedModel, settle

SETTINGS = Settings(confidence=0.0, max_delay_ms=0)
FORGETFUL = attrs.evolve(SETTINGS, completion_cache=False, speculation=False)
TEXTS = ("A = 1\ndef f(x):\n    return x\n", "B😀 = 1\r\ndef f(x):\r\n    return x\r\n")


def says(before: str, after: str) -> str:
    """Text that depends on all that is before the cursor, but goes on the same when its own beginning is typed."""
    text = ""
    for _ in range(10):
        seen = f"{before[:1]}|{(before + text)[-4:]}|{after.lstrip(')]')[-6:]}"
        choice = hashlib.sha256(seen.encode("utf-8", "surrogatepass")).digest()[0]
        text += "ab.(x) =\n"[choice % 9]
    return text


class Typist:
    """Two documents under one completer, and every answer that a completer without memory has given in each."""

    def __init__(self) -> None:
        self.model = ScriptedModel(says)
        first = Desk(self.model, TEXTS[0], settings=SETTINGS)
        other = Desk(self.model, TEXTS[1], uri="file:///w/b.py", completer=first.completer)
        self.desks = (first, other)
        self.at = [len(first.text) - 1, len(other.text) - 1]
        self.reached: tuple[set[str], set[str]] = (set(), set())
        self.undo: tuple[list[tuple[str, int]], list[tuple[str, int]]] = ([], [])
        self.shown: list[str] = ["", ""]

    def edit(self, which: int, start: int, end: int, new: str) -> None:
        desk = self.desks[which]
        self.undo[which].append((desk.text, self.at[which]))
        desk.edit(start, end, new)
        self.at[which] = start + len(new)

    async def do(self, which: int, action: str, number: int) -> None:
        desk, at = self.desks[which], self.at[which]
        if action == "agree":
            part = self.shown[which][: 1 + number % 4]
            if part:
                self.edit(which, at, at, part)
        elif action == "type":
            self.edit(which, at, at, "ab.x= \n"[number % 7])
        elif action == "pair":
            self.edit(which, at, at, "()")
            self.at[which] -= 1
        elif action == "backspace" and at:
            self.edit(which, at - 1, at, "")
        elif action == "elsewhere":
            place = number % (len(desk.text) + 1)
            self.edit(which, place, place, "b")
            self.at[which] = at + (place <= at)
        elif action == "move":
            self.at[which] = number % (len(desk.text) + 1)
        elif action == "undo" and self.undo[which]:
            text, before = self.undo[which].pop()
            desk.edit(0, len(desk.text), text)
            self.at[which] = before
        elif action == "rest":
            await settle()
        await self.ask(which, waits=number % 5 != 0)

    async def ask(self, which: int, *, waits: bool) -> None:
        desk, at = self.desks[which], self.at[which]
        cursor = desk.place(at)
        fresh = await Completer(self.model, FORGETFUL).complete(desk.session.fork(), cursor)
        if fresh:
            self.reached[which].add(self.result(which, fresh))
        task = desk.start(at)
        if not waits:
            await asyncio.sleep(0)
            return
        found = await task
        self.shown[which] = found.text.replace("\r\n", "\n") if found else ""
        if found:
            assert found.version == desk.document.version
            assert found.start == cursor
            assert self.result(which, found) in self.reached[which]

    def result(self, which: int, found: Completion) -> str:
        """The document with a completion in it."""
        copy = self.desks[which].document.copy()
        copy.apply(*found.start, *found.end, found.text, "utf-32")
        return copy.normalised()


ACTIONS = ("agree", "agree", "agree", "type", "pair", "backspace", "elsewhere", "move", "undo", "rest")


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from(ACTIONS), st.integers(0, 60)), max_size=25))
def test_an_answer_is_what_a_completer_without_memory_says(steps: list[tuple[int, str, int]]) -> None:
    async def run() -> None:
        typist = Typist()
        for step in steps:
            await typist.do(*step)
        for desk in typist.desks:
            desk.close()
        await settle()
        assert typist.model.running == 0

    asyncio.run(run())
