"""An answer that is still being said is shown by the words that are certain, to clients that ask again."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lsp_server.settings import Settings
from tests.unit.completing import Desk, ScriptedModel, settle
from tests.unit.test_completion import ANSWER, AT, TEXT, model, run


def asking_again(desk: Desk) -> list[str]:
    """Has the desk's client ask again when it is told to; each time it is told is noted."""
    told: list[str] = []
    desk.completer.on_more = lambda: told.append("more")
    return told


async def answering(said: str) -> tuple[Desk, ScriptedModel, list[str], asyncio.Task[Any]]:
    """A desk whose client asks again, once the model has said so much of an answer to its first question."""
    desk = Desk(asked := model(steps=True), TEXT)
    told = asking_again(desk)
    first = desk.start(AT)
    await settle()
    asked.step(len(said))
    await settle()
    return desk, asked, told, first


def test_who_asks_again_gets_the_sure_words_of_what_is_being_said_at_once() -> None:
    async def body() -> None:
        desk, asked, told, first = await answering("shape.wid")
        at = desk.type("s", AT)
        assert await first is None
        assert await desk.text_at(at) == "hape", "the word behind it may go on"
        assert desk.traces[-1].source == "begun"
        assert not told
        asked.step(len(ANSWER))
        await settle()
        assert told == ["more"]
        assert await desk.text_at(at) == ANSWER[1:]
        assert asked.questions == 1
        desk.close()

    run(body)


def test_what_is_shown_while_it_is_being_said_stays_while_it_is_typed() -> None:
    async def body() -> None:
        (desk, asked, told, first), at = await answering("shape."), AT
        for key in "sha":
            at = desk.type(key, at)
            assert await desk.text_at(at) == "shape"[at - AT :]
        assert await first is None
        asked.step(len(ANSWER))
        await settle()
        assert told == ["more"]
        assert await desk.text_at(at) == ANSWER[3:]
        assert asked.questions == 1
        desk.close()

    run(body)


def test_who_does_not_ask_again_waits_for_all_of_it() -> None:
    async def body() -> None:
        desk = Desk(asked := model(steps=True), TEXT)
        desk.start(AT)
        await settle()
        asked.step(len("shape.wid"))
        await settle()
        waiting = desk.start(desk.type("s", AT))
        await settle()
        assert not waiting.done()
        asked.step(len(ANSWER))
        found = await waiting
        assert found
        assert found.text == ANSWER[1:]
        desk.close()

    run(body)


def test_a_line_that_may_become_the_one_above_is_waited_for() -> None:
    async def body() -> None:
        text = "x = one.two\n\n"
        asked = ScriptedModel(lambda before, _: "x = one.two\n"[len(before) - 12 :], steps=True)
        desk = Desk(asked, text)
        told = asking_again(desk)
        desk.start(12)
        await settle()
        asked.step(len("x = one.tw"))
        await settle()
        waiting = desk.start(desk.type("x", 12))
        await settle()
        assert not waiting.done()
        asked.step(99)
        assert await waiting is None
        assert not told
        desk.close()

    run(body)


def test_a_part_of_an_answer_is_forgotten_when_there_is_one() -> None:
    async def body() -> None:
        desk, asked, *_ = await answering("shape.")
        at = desk.type("s", AT)
        assert await desk.text_at(at) == "hape"
        asked.step(len(ANSWER))
        await settle()
        assert [rest.text for _, rest in desk.session.suggestions.all_at(desk.document, desk.place(at))] == [ANSWER[1:]]
        at = desk.type("q", at)
        assert not desk.session.suggestions.all_at(desk.document, desk.place(at))
        desk.close()

    run(body)


def test_a_cursor_that_goes_back_into_what_was_typed_is_not_told_it_again() -> None:
    async def body() -> None:
        desk, asked, *_ = await answering("shape.")
        desk.type("sha", AT)
        waiting = desk.start(AT + 1)
        await settle()
        asked.step(99)
        await waiting
        assert desk.traces[-1].source == "model"
        desk.close()

    run(body)


@given(
    st.text("ab_ ().,+'\"[]", min_size=2, max_size=24).filter(lambda text: text == text.strip()),
    st.dictionaries(st.sampled_from("ab_().,+'\"[]"), st.floats(-4.0, 0.0)),
    st.lists(st.integers(0, 5), min_size=24, max_size=24),
)
def test_typed_faster_than_it_is_said_what_is_shown_fits_and_stays(
    line: str, doubts: dict[str, float], said: list[int]
) -> None:
    async def body() -> None:
        asked = ScriptedModel(lambda before, _: line[len(before) - 4 :] + "\n", steps=True, doubts=doubts)
        desk, at, kept = Desk(asked, "x = \n", settings=Settings(max_delay_ms=0)), 4, ""
        asking_again(desk)
        for key, count in zip(line, said, strict=False):
            waiting = desk.start(at)
            asked.step(count)
            await settle()
            found = waiting.result() if waiting.done() else None
            shown = found.text if found else ""
            assert shown.startswith(kept)
            kept = shown[1:].rstrip() if shown.startswith(key) else ""
            at = desk.type(key, at)
        desk.close()

    run(body)
