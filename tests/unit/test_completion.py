"""What costs nothing: typing through, joining what is being said, coming back; counted in questions to the model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import pytest

from inference.wire import End, Failure, FimRequest, Piece
from lsp_server.backends.worker import Refused
from lsp_server.settings import Settings
from tests.unit.completing import Desk, ScriptedModel, settle

TEXT = "def area(shape):\n    return \n\n\nprint(area)\n"
AT = TEXT.index("return ") + len("return ")
ANSWER = "shape.width * shape.height"


def model(**more: Any) -> ScriptedModel:
    """Says ANSWER in TEXT, wherever in it the cursor stands; nothing elsewhere."""
    whole = TEXT[:AT] + ANSWER

    def says(before: str, _after: str) -> str:
        return whole[len(before) :] + "\n" if whole.startswith(before) else "other\n"

    return ScriptedModel(says, **more)


def run(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(body())


def test_typing_the_suggestion_asks_the_model_nothing() -> None:
    async def body() -> None:
        desk, at = Desk(asked := model(), TEXT), AT
        assert await desk.text_at(at) == ANSWER
        for i, char in enumerate(ANSWER[:-1]):
            at = desk.type(char, at)
            assert await desk.text_at(at) == ANSWER[i + 1 :]
        assert asked.questions == 1
        desk.close()

    run(body)


def test_a_key_that_disagrees_asks_anew() -> None:
    async def body() -> None:
        desk = Desk(asked := model(), TEXT)
        await desk.ask(AT)
        at = desk.type("x", AT)
        assert await desk.text_at(at) == "other"
        assert asked.questions == 2
        desk.close()

    run(body)


def test_backspace_into_a_suggestion_returns_to_it() -> None:
    async def body() -> None:
        desk = Desk(asked := model(), TEXT)
        await desk.ask(AT)
        at = desk.type("sh", AT)
        desk.edit(at - 1, at, "")
        assert await desk.text_at(at - 1) == ANSWER[1:]
        desk.edit(at - 2, at - 1, "")
        assert await desk.text_at(AT) == ANSWER
        assert asked.questions == 1
        desk.close()

    run(body)


def test_undo_returns_to_the_old_answer() -> None:
    async def body() -> None:
        desk = Desk(asked := model(), TEXT)
        await desk.ask(AT)
        at = desk.type("other", AT)
        await desk.ask(at)
        desk.edit(AT, at, "")
        assert await desk.text_at(AT) == ANSWER
        desk.edit(0, len(desk.text), TEXT)  # as an editor that sends the whole text
        assert await desk.text_at(AT) == ANSWER
        assert asked.questions == 2
        desk.close()

    run(body)


def test_accepting_a_word_leaves_the_rest() -> None:
    async def body() -> None:
        desk = Desk(asked := model(), TEXT)
        await desk.ask(AT)
        at = desk.type("shape.width", AT)
        assert await desk.text_at(at) == " * shape.height"
        assert asked.questions == 1
        desk.close()

    run(body)


def test_keys_that_agree_join_what_is_being_said() -> None:
    async def body() -> None:
        desk = Desk(asked := model(steps=True), TEXT)
        first = desk.start(AT)
        await settle()
        asked.step(10)
        await settle()
        at = desk.type("sha", AT)
        second = desk.start(at)
        await settle()
        assert first.done()
        assert await first is None, "the old request is answered at once"
        asked.step(100)
        found = await second
        assert found
        assert found.text == ANSWER[3:]
        assert asked.questions == 1
        desk.close()

    run(body)


def test_keys_ahead_of_the_model_wait_for_it_and_a_wrong_one_ends_it_at_once() -> None:
    async def body() -> None:
        desk = Desk(asked := model(steps=True), TEXT)
        desk.start(AT)
        await settle()
        at = desk.type("shx", AT)
        answer = desk.start(at)
        await settle()
        assert asked.questions == 1, "nothing has been said that disagrees"
        asked.step(3)
        await settle()
        assert asked.questions == 2, "the third character does"
        asked.step(100)
        found = await answer
        assert found
        assert found.text == "other"
        assert asked.running == 0
        desk.close()

    run(body)


def test_a_cursor_elsewhere_ends_what_is_being_said() -> None:
    async def body() -> None:
        desk = Desk(asked := model(steps=True), TEXT)
        desk.start(AT)
        await settle()
        desk.start(len(TEXT))
        await settle()
        assert asked.running == 1
        assert asked.questions == 2
        desk.session.stop()
        await settle()
        assert asked.running == 0
        desk.close()

    run(body)


def test_what_nobody_waits_for_ends_after_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lsp_server.generation.GRACE", 0.05)

    async def body() -> None:
        desk = Desk(asked := model(steps=True), TEXT)
        task = desk.start(AT)
        await settle()
        task.cancel()
        await settle()
        assert asked.running == 1
        await asyncio.sleep(0.1)
        assert asked.running == 0
        desk.close()

    run(body)


def test_an_auto_closed_bracket_is_part_of_the_suggestion() -> None:
    async def body() -> None:
        text = "def area(shape):\n    return \n"
        at = text.index("return ") + 7
        whole = text[:at] + "max(shape, 1) + 2"

        def says(before: str, _: str) -> str:
            return whole[len(before) :] + "\n" if whole.startswith(before) else "other\n"

        desk = Desk(asked := ScriptedModel(says), text)
        await desk.ask(at)
        at = desk.type("max", at)
        desk.edit(at, at, "()")  # the editor closes it
        found = await desk.ask(at + 1)
        assert found
        assert (found.text, found.end.column - found.start.column) == ("shape, 1) + 2", 1)
        at = desk.type("shape, 1", at + 1)
        found = await desk.ask(at)
        assert found
        assert (found.text, found.end.column - found.start.column) == (") + 2", 1)
        desk.edit(at, at + 1, ")")  # typed over
        found = await desk.ask(at + 1)
        assert found
        assert (found.text, found.end.column - found.start.column) == (" + 2", 0)
        assert asked.questions == 1
        desk.close()

    run(body)


def test_an_edit_elsewhere_makes_the_model_look_again() -> None:
    async def body() -> None:
        desk = Desk(asked := model(), TEXT)
        await desk.ask(AT)
        desk.edit(len(TEXT) - 1, len(TEXT) - 1, "x")
        await desk.ask(AT)
        assert asked.questions == 2
        desk.close()

    run(body)


def test_documents_with_the_same_text_share_nothing() -> None:
    async def body() -> None:
        desk = Desk(asked := model(), TEXT)
        other = Desk(asked, TEXT, uri="file:///w/b.py", completer=desk.completer)
        await desk.ask(AT)
        await other.ask(AT)
        assert asked.questions == 2
        desk.close()
        other.close()

    run(body)


def test_without_the_completion_cache_every_request_is_a_question() -> None:
    async def body() -> None:
        desk = Desk(asked := model(), TEXT, settings=Settings(completion_cache=False))
        await desk.ask(AT)
        await desk.ask(AT)
        await desk.ask(desk.type("s", AT))
        assert asked.questions == 3
        desk.close()

    run(body)


class Dense(ScriptedModel):
    """Has half the room that was thought, and says so as soon as `step` lets it."""

    async def fim(self, request: FimRequest) -> AsyncGenerator[Piece | End, None]:
        if len(request.prefix) > 2_000:
            self.asked.append(request)
            assert self._steps
            await self._steps.acquire()
            raise Refused(Failure("too_long", "too long", tokens=2 * len(request.prefix), window=4096))
        async for message in super().fim(request):
            yield message


@pytest.mark.parametrize("typed", ["", "s"])
def test_a_prompt_that_is_too_long_is_cut_again_unless_the_document_has_moved_on(typed: str) -> None:
    async def body() -> None:
        desk = Desk(asked := Dense(lambda *_: "shape\n", steps=True), "y = 1\n" * 2_000 + "x = ")
        at = len(desk.text)
        first = desk.start(at)
        await settle()
        at = desk.type(typed, at) if typed else at
        asked.step(40)
        found = await first
        assert (found.text if found else None) == (None if typed else "shape")
        assert asked.questions == (1 if typed else 2)
        await desk.ask(at)
        assert asked.questions == 2
        assert len(asked.asked[-1].prefix) < 2_000
        desk.close()

    run(body)
