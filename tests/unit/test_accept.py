"""What became of a suggestion: told, or inferred from the edits after it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsp_server import accept
from lsp_server.accept import part_of
from lsp_server.metrics import Metrics, together, total
from lsp_server.suggestions import Rest
from tests.unit.completing import Desk, ScriptedModel

TEXT = "def area(shape):\n    return \n"
AT = TEXT.index("return ") + len("return ")
ANSWER = "shape.width * max(1, x)"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("shape.width * x", ["shape", ".", "width", " *", " x"]),
        ("(a)[0]", ["(", "a", ")[", "0", "]"]),
        ("\n    return größe", ["\n    return", " größe"]),
        (" 'αβ😀'", [" '", "αβ", "😀'"]),
        ("   ", ["   "]),
    ],
)
def test_words_are_names_or_runs_of_signs_with_the_blanks_before_them(text: str, words: list[str]) -> None:
    found: list[str] = []
    while text:
        found.append(part_of(Rest(text, 0), "", "word").text)
        text = text[len(found[-1]) :]
    assert found == words


def test_a_line_ends_before_its_break_and_begins_with_the_one_before() -> None:
    assert part_of(Rest("first\n    second\n", 0), "", "line").text == "first"
    assert part_of(Rest("\n    second\n", 0), "", "line").text == "\n    second"


@given(
    st.text("ab.()[] \n", min_size=1).filter(str.strip), st.text(")]", max_size=3), st.sampled_from(["word", "line"])
)
def test_part_by_part_gives_the_same_document_as_all_at_once(text: str, after: str, part: Any) -> None:
    text += after  # what is covered comes in the text
    rest, written, covered = Rest(text, len(after)), "", after
    while rest.text:
        taken = part_of(rest, covered, part)
        assert taken.text
        written += taken.text
        covered = covered[taken.covers :]
        rest = Rest(rest.text[len(taken.text) :], len(covered))
    assert (written, covered) == (text, "")


def counts(metrics: Metrics) -> dict[str, int]:
    pending = metrics._pending
    return {k: v for k, v in together(total(pending).values()).counts.items() if k not in ("requests", "answers")}


def watched(body: Callable[[Desk], Coroutine[Any, Any, None]]) -> dict[str, int]:
    """What is counted of a session in which ANSWER is suggested at first."""
    whole = TEXT[:AT] + ANSWER

    async def run() -> dict[str, int]:
        model = ScriptedModel(lambda before, _: whole[len(before) :] + "\n" if whole.startswith(before) else "\n")
        desk = Desk(model, TEXT)
        await desk.ask(AT)
        await body(desk)
        desk.close()
        return counts(desk.completer.metrics)

    return asyncio.run(run())


def test_accepting_all_of_it() -> None:
    async def body(desk: Desk) -> None:
        desk.type(ANSWER, AT)

    assert watched(body) == {"shown": 1, "accepted": 1, "characters": len(ANSWER)}


def test_accepting_a_word_and_typing_something_else() -> None:
    async def body(desk: Desk) -> None:
        at = desk.type("shape", AT)
        await desk.ask(at)
        desk.type("s", at)

    assert watched(body) == {"shown": 1, "partly": 1, "characters": 5}


def test_accepting_word_by_word_to_the_end() -> None:
    async def body(desk: Desk) -> None:
        at = AT
        for part in ("shape", ".width", " * max", "(1, x)"):
            at = desk.type(part, at)
            await desk.ask(at)

    assert watched(body) == {"shown": 1, "accepted": 1, "characters": len(ANSWER)}


def test_typing_it_is_not_accepting_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "SEEN", 0.0)

    async def body(desk: Desk) -> None:
        at = AT
        for char in "shape.width * max":
            at = desk.type(char, at)
        desk.type("()", at)  # the editor closes what was typed
        at = desk.type("1", at + 1)

    assert watched(body) == {"shown": 1}


def test_what_is_gone_at_once_was_not_shown() -> None:
    async def body(desk: Desk) -> None:
        desk.type("q", AT)

    assert watched(body) == {}


def test_what_the_client_tells_is_not_counted_twice() -> None:
    async def body(desk: Desk) -> None:
        found = await desk.ask(AT)
        assert found
        assert desk.session.watch
        desk.type(ANSWER, AT)
        desk.session.watch.told(found.number)
        desk.session.watch.told(found.number)

    assert watched(body) == {"shown": 1, "accepted": 1, "characters": len(ANSWER)}


def test_dismissed_is_counted_and_not_shown_again_before_the_text_disagrees() -> None:
    async def body(desk: Desk) -> None:
        (suggestion, _) = desk.session.suggestions.all_at(desk.document, desk.place(AT))[0]
        suggestion.dismissed = True
        assert desk.session.watch
        desk.session.watch.dismiss()
        assert await desk.ask(AT) is None
        assert await desk.ask(desk.type("s", AT)) is None

    assert watched(body) == {"shown": 1, "dismissed": 1}
