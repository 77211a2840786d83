"""A real llama.cpp server, asked in our form: what is held back, what its cache has, what cancels it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from inference import starter
from inference.families import CONTROL, DEEPSEEK
from inference.remote.client import Client
from inference.remote.dialect import TooLong
from inference.remote.http import Http
from inference.remote.llamacpp import LlamaCpp, beginning_with
from inference.tokens import Tokens
from inference.wire import End, FimRequest, Piece, Stops
from tests import llama

REQUEST = FimRequest("def add(a, b):", "\n\nprint(add(1, 2))\n", "\n    ret", Stops(max_tokens=8))
TOKENIZER = str(starter.FOLDER)
BOTH = pytest.mark.parametrize("tokenizer", ["", TOKENIZER], ids=["its tokenizer", "ours"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running llama.cpp."""
    file = tmp_path_factory.mktemp("llama") / "noise.gguf"
    llama.write_model(file)
    running = llama.serve(file)
    yield running.listening_address
    del running


def ask(server: str, body: Callable[[Client, Http], Awaitable[None]], tokenizer: str = "") -> None:
    """Runs `body` with a client that has looked at the server."""

    async def run() -> None:
        http = Http(server)
        client = Client(http, LlamaCpp(http, tokenizer))
        try:
            await client.look()
            await body(client, http)
        finally:
            await client.close()

    asyncio.run(run())


async def answer(client: Client, request: FimRequest) -> tuple[str, End]:
    """Text and end of choice 0."""
    messages = [message async for message in client.fim(request)]
    text = "".join(m.text for m in messages if isinstance(m, Piece) and m.choice == 0)
    return text, next(m for m in messages if isinstance(m, End))


def own_prompt(request: FimRequest) -> list[int]:
    tokens = Tokens(starter.FOLDER / "tokenizer.json")
    return tokens.prompt(request, tokens.markers()).ids


@BOTH
@pytest.mark.parametrize(
    "typed", ["\n    ret", "\n    x = pri", "\n  ", "\n    foo(", '\n    s = "', "\n\t\\", "\n é漢"]
)
def test_what_is_held_back_is_neither_lost_nor_typed_twice(server: str, tokenizer: str, typed: str) -> None:
    async def body(client: Client, http: Http) -> None:
        request = attrs.evolve(REQUEST, typed=typed)
        dialect: Any = client._dialect  # pyright: ignore[reportPrivateUsage]
        asked = await dialect.ask(request, heal=True, likeliest=10)
        assert asked.held, "something is held back before this cursor"
        assert typed.endswith(asked.held)
        # The same request, whole, as llama.cpp answers it: all of what was held back, then what we were told.
        whole: Any = await http.post("/completion", asked.body | {"stream": False})
        text, end = await answer(client, request)
        # (A blank line at the end says nothing: the stops take it off.)
        assert whole["content"].rstrip() == (asked.held + text).rstrip()
        assert end.decoded == whole["tokens_predicted"]
        assert len(asked.body["prompt"]) == end.prompt

    ask(server, body, tokenizer)


def test_without_the_constraint_the_noise_would_say_something_else(server: str) -> None:
    async def body(client: Client, http: Http) -> None:
        dialect: Any = client._dialect  # pyright: ignore[reportPrivateUsage]
        asked = await dialect.ask(REQUEST, heal=True, likeliest=1)
        assert asked.body.pop("grammar") == beginning_with(" ret")
        whole: Any = await http.post("/completion", asked.body | {"stream": False})
        assert not whole["content"].startswith(" ret")

    ask(server, body)


def test_with_our_tokenizer_the_prompt_is_the_worker_s_to_the_token(server: str) -> None:
    async def body(client: Client, _: Http) -> None:
        dialect: Any = client._dialect  # pyright: ignore[reportPrivateUsage]
        asked = await dialect.ask(REQUEST, heal=True, likeliest=1)
        assert asked.body["prompt"] == own_prompt(REQUEST)

    ask(server, body, TOKENIZER)


@BOTH
def test_marker_strings_of_every_family_stay_text_wherever_they_stand(server: str, tokenizer: str) -> None:
    smuggled = " ".join(sorted(CONTROL))
    tokens = Tokens(starter.FOLDER / "tokenizer.json")
    markers = tokens.markers()

    async def body(client: Client, http: Http) -> None:
        dialect: Any = client._dialect  # pyright: ignore[reportPrivateUsage]
        request = FimRequest(f"a {smuggled}\nb", f"\n{smuggled}", f"\n{smuggled}\n  x", Stops(max_tokens=4))
        asked = await dialect.ask(request, heal=True, likeliest=1)
        ids = asked.body["prompt"]
        control = set(tokens.ends(markers))
        assert [i for i in ids if i in control] == [
            markers.ids[text] for text in markers.family.markers if text != DEEPSEEK.eos
        ]
        back: Any = await http.post("/detokenize", {"tokens": [i for i in ids if i not in control]})
        whole = request.prefix + request.suffix + request.typed
        assert back["content"] == whole.removesuffix(asked.held), "not a character is changed"

    ask(server, body, tokenizer)


@BOTH
def test_half_a_character_is_a_character_that_nobody_knows(server: str, tokenizer: str) -> None:
    async def body(client: Client, _: Http) -> None:
        half = attrs.evolve(REQUEST, prefix="a = '\ud83d'\n", typed="\n \udc00", suffix="\udfff\n")
        assert (await answer(client, half))[1].prompt > 0

    ask(server, body, tokenizer)


@BOTH
def test_a_keystroke_computes_only_what_is_new(server: str, tokenizer: str) -> None:
    name = "ours" if tokenizer else "its"  # or the test before this one has filled the cache
    document = "".join(f"{name}_{i} = compute({i})\n" for i in range(40))

    async def body(client: Client, _: Http) -> None:
        typed = "\n    result = old_value + other"
        fresh: list[int] = []
        for end in range(6, len(typed), 4):
            figures = (await answer(client, FimRequest(document, "\n" + document, typed[:end], Stops(max_tokens=6))))[1]
            assert figures.prompt == figures.reused + figures.prefilled
            fresh.append(figures.prefilled)
        assert fresh[0] > 400
        assert max(fresh[1:]) <= 4, f"tokens computed at each keystroke, as llama.cpp counted them: {fresh}"

    ask(server, body, tokenizer)


def test_stops_are_applied_while_it_streams(server: str) -> None:
    async def body(client: Client, _: Http) -> None:
        long = (await answer(client, attrs.evolve(REQUEST, stops=Stops(max_tokens=400))))[0]
        assert "\n" in long, "the noise of this seed breaks a line"
        line, end = await answer(client, attrs.evolve(REQUEST, stops=Stops(max_tokens=400, end_of_line=True)))
        assert (line, end.reason) == (long.split("\n")[0], "line")
        opening = Stops(max_tokens=400, end_of_line=True, opens="(?!)")  # no native stop: our own code ends it
        line, end = await answer(client, attrs.evolve(REQUEST, stops=opening))
        assert end.reason in ("line", "dedent", "tokens")
        assert long.startswith(line)

    ask(server, body)


def test_a_closed_stream_frees_the_engine(tmp_path: Path) -> None:
    most = 1900
    llama.write_model(tmp_path / "slow.gguf", layers=16, breaks=False)
    running = llama.serve(tmp_path / "slow.gguf")

    async def body(client: Client, http: Http) -> None:
        async with contextlib.aclosing(client.fim(attrs.evolve(REQUEST, stops=Stops(max_tokens=most)))) as messages:
            async for _ in messages:
                break
        assert await llama.freed(http) < most / 2

    ask(running.listening_address, body)


def test_warming_says_nothing_and_fills_the_cache(server: str) -> None:
    async def body(client: Client, _: Http) -> None:
        request = attrs.evolve(REQUEST, prefix="import os\n" * 60 + "def warm():")
        assert [type(m) async for m in client.fim(attrs.evolve(request, stops=Stops(max_tokens=0)))] == [End]
        end = (await answer(client, request))[1]
        assert end.prefilled <= 2

    ask(server, body)


def test_alternatives_are_other_texts(server: str) -> None:
    async def body(client: Client, _: Http) -> None:
        messages = [m async for m in client.fim(attrs.evolve(REQUEST, alternatives=2))]
        texts = ["".join(m.text for m in messages if isinstance(m, Piece) and m.choice == i) for i in range(3)]
        ends = [m for m in messages if isinstance(m, End)]
        assert [end.choice for end in ends] == [0, 1, 2]
        said = [text for text, end in zip(texts, ends, strict=True) if end.reason != "repeated"]
        assert len(set(said)) == len(said) >= 2

    ask(server, body)


def test_a_prompt_that_is_too_long_is_refused_with_the_figures(server: str) -> None:
    async def body(client: Client, _: Http) -> None:
        with pytest.raises(TooLong) as error:
            await answer(client, attrs.evolve(REQUEST, prefix="x = 1\n" * 2000))
        assert error.value.tokens > error.value.window == llama.CONTEXT

    ask(server, body)


def test_a_model_s_confidence_in_a_held_back_word_is_among_the_words_that_agree(server: str) -> None:
    async def body(client: Client, _: Http) -> None:
        pieces = [m async for m in client.fim(REQUEST) if isinstance(m, Piece)]
        assert pieces[0].logprob <= 0
        assert all(piece.logprob < 0.001 for piece in pieces)

    ask(server, body)


def test_a_grammar_spells_what_it_is_given() -> None:
    assert beginning_with('a"b\\c\td') == 'root ::= "a\\"b\\\\c\\td" [^\\x00]*'


def test_the_model_of_these_tests_has_the_starter_s_markers(tmp_path: Path) -> None:
    tokens = Tokens(starter.FOLDER / "tokenizer.json")
    assert tokens.markers().family is DEEPSEEK
