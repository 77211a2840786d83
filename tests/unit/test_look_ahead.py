"""The next completion is there before this one is accepted, and nobody waits for it or is held up by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine

import pytest

from inference.wire import End, FimRequest, Piece
from lsp_server import ahead
from lsp_server.settings import Settings
from tests.unit.completing import Desk, Says, ScriptedModel, settle

TEXT = "def area(shape):\n    \n"
AT = TEXT.index("    ") + 4
BODY = ["wide = shape.width", "high = shape.height", "return wide * high"]
LINES = Settings(max_lines=1)
"""A line at a time, so that there is a next one to ask for."""


def saying(whole: str) -> Says:
    """Says what of `whole` the text before the cursor lacks; something else where that is another text."""
    return lambda before, _: whole[len(before) :] if whole.startswith(before) else "other\n"


def body_says() -> Says:
    return saying(TEXT[:AT] + "\n    ".join(BODY) + "\n")


def run(body: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(body())


def test_what_comes_after_a_suggestion_is_there_when_it_is_accepted() -> None:
    async def body() -> None:
        desk = Desk(asked := ScriptedModel(body_says()), TEXT, settings=LINES)
        assert await desk.text_at(AT) == BODY[0]
        await settle()
        at = desk.type(BODY[0], AT)
        assert await desk.text_at(at) is None, "nothing after a finished line"
        at = desk.type("\n    ", at)
        assert await desk.text_at(at) == BODY[1]
        assert asked.questions == 1
        desk.close()

    run(body)


def test_accepted_while_it_is_being_asked_ahead_the_answer_is_waited_for() -> None:
    async def body() -> None:
        text = "x = f(\n"
        whole = "x = f(first, second)\n"

        def says(before: str, _: str) -> str:
            return (whole[len(before) :] if len(before) > 6 else "first, \n") if whole.startswith(before) else "no\n"

        desk = Desk(asked := ScriptedModel(says, steps=True), text)
        shown = desk.start(6)
        await settle()
        asked.step(8)
        await settle()
        found = await shown
        assert found
        assert found.text == "first,"
        assert asked.running == 1, "it is already asked what comes next"
        at = desk.type(found.text, 6)
        after = desk.start(at)
        await settle()
        asked.step(20)
        found = await after
        assert found
        assert found.text == " second)"
        assert asked.questions == 1
        desk.close()

    run(body)


def test_a_question_of_the_users_ends_the_one_asked_ahead() -> None:
    async def body() -> None:
        desk = Desk(asked := ScriptedModel(body_says(), steps=True), TEXT, settings=LINES)
        shown = desk.start(AT)
        await settle()
        asked.step(len(BODY[0]) + 1)
        await shown
        await settle()
        assert asked.running == 1
        desk.start(desk.type("q", AT))
        await settle()
        assert [r.priority for r in asked.asked] == ["interactive", "background", "interactive"]
        assert asked.running == 1
        desk.close()
        await settle()
        assert asked.running == 0

    run(body)


def test_accepted_word_by_word_the_whole_block_is_asked_for_once_by_a_waiting_user() -> None:
    async def body() -> None:
        desk = Desk(asked := ScriptedModel(body_says()), TEXT, settings=LINES)
        at = AT
        for line in BODY:
            left = line
            assert await desk.text_at(at) == left
            await settle()
            for word in line.split(" "):
                at = desk.type((" " if left != line else "") + word, at)
                left = left[len(word) + (left != line) :]
                assert await desk.text_at(at) == (left or None)
                await settle()
            at = desk.type("\n    ", at)
        assert asked.questions == 1
        desk.close()

    run(body)


def test_where_the_model_has_ended_its_line_it_is_not_asked_whether_the_line_ends() -> None:
    async def body() -> None:
        desk = Desk(asked := ScriptedModel(body_says()), TEXT, settings=LINES)
        await desk.ask(AT)
        await settle()
        assert [request.typed for request in asked.asked] == ["\n    ", f"\n    {BODY[0]}\n    "]
        desk.close()

    run(body)


def test_behind_the_head_of_a_block_its_body_is_asked_for() -> None:
    async def body() -> None:
        whole = saying("x = 1\nif x:\n    x += 1\n")
        asked = ScriptedModel(lambda before, after: "x:" if before.endswith("if ") else whole(before, after))
        desk = Desk(asked, "x = 1\nif \n", settings=Settings(confidence=0))
        assert await desk.text_at(9) == "x:"
        await settle()
        assert [request.typed for request in asked.asked][1] == "\nif x:"
        assert await desk.text_at(desk.type("x:", 9)) == "\n    x += 1"
        assert asked.questions == 1
        desk.close()

    run(body)


def test_behind_a_part_of_a_suggestion_nothing_is_asked_the_rest_of_it_is_known() -> None:
    async def body() -> None:
        doubtful = ScriptedModel(body_says(), logprob=-0.05)
        desk = Desk(doubtful, TEXT, settings=Settings(confidence=0.3))
        assert await desk.text_at(AT) == BODY[0], "the model is not sure of more"
        await settle()
        assert len(doubtful.asked) == 1
        desk.close()

    run(body)


class Branching(ScriptedModel):
    """Never comes to the end of its other answers to what a user asks."""

    async def fim(self, request: FimRequest) -> AsyncGenerator[Piece | End, None]:
        async for message in super().fim(request):
            yield message
        if request.priority == "interactive":
            self.running += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.running -= 1


def test_other_answers_to_what_is_shown_go_first_but_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "OTHERS_FIRST", 0.05)

    async def body() -> None:
        desk = Desk(asked := Branching(body_says()), TEXT, settings=LINES)
        assert await desk.text_at(AT) == BODY[0]
        await settle()
        assert len(asked.asked) == 1
        await asyncio.sleep(0.1)
        assert [request.priority for request in asked.asked] == ["interactive", "background"]
        assert asked.running == 1, "and the others are still wanted"
        desk.close()
        await settle()
        assert asked.running == 0

    run(body)


def test_what_is_typed_of_a_suggestion_before_that_leads_to_the_same_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "OTHERS_FIRST", 0.05)

    async def body() -> None:
        desk = Desk(asked := Branching(body_says()), TEXT, settings=LINES)
        await desk.ask(AT)
        assert await desk.text_at(desk.type(BODY[0][:6], AT)) == BODY[0][6:]
        await asyncio.sleep(0.1)
        assert [request.typed for request in asked.asked] == ["\n    ", f"\n    {BODY[0]}\n    "]
        desk.close()

    run(body)
