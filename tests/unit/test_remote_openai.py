"""Engines that can't run here: what is sent is what their documentation asks for, and its form of answers is read.

vLLM: docs.vllm.ai, OpenAI-Compatible Server and Structured Outputs. SGLang: docs.sglang.io, Structured Outputs, and the
fields of `CompletionRequest`. DeepSeek: api-docs.deepseek.com, FIM Completion. Mistral: docs.mistral.ai, FIM.
"""

from __future__ import annotations

import asyncio
from typing import Any

import attrs
import pytest

from inference import starter
from inference.families import CONTROL, DEEPSEEK
from inference.remote.client import Client
from inference.remote.dialect import TooLong, Unfit
from inference.remote.http import Http, Rejected, Unreachable
from inference.remote.openai import Kind, OpenAI, beginning_with
from inference.tokens import Tokens
from inference.wire import End, FimRequest, Piece, Sampling, Stops
from tests.engines import DONE, Engine, Error, Reply, card, chunks, serving

REQUEST = FimRequest("def add(a, b):", "\n\nprint(add(1, 2))\n", "\n    ret", Stops(max_tokens=8))
TOKENIZER = str(starter.FOLDER / "tokenizer.json")
OWNERS: dict[Kind, str] = {"vllm": "vllm", "sglang": "sglang", "generic": "someone", "mistral": "mistralai"}


def ask(
    kind: Kind, reply: Reply, request: FimRequest = REQUEST, *, tokenizer: str = "", model: str = ""
) -> tuple[list[Piece | End], dict[str, Any], str]:
    """Messages of one answer, and the body and path that were sent for it."""
    with serving(Engine(card("m", OWNERS[kind]), lambda _: reply)) as engine:

        async def run() -> list[Piece | End]:
            http = Http(engine.address + "/v1")
            client = Client(http, OpenAI(http, kind, model, tokenizer))
            try:
                await client.look()
                return [message async for message in client.fim(request)]
            finally:
                await client.close()

        messages = asyncio.run(run())
        asked = engine.asked[-1] if engine.asked else None
        return messages, asked.body if asked else {}, asked.path if asked else ""


def text_of(messages: list[Piece | End]) -> str:
    return "".join(m.text for m in messages if isinstance(m, Piece))


def tokens_and_prompt(request: FimRequest) -> tuple[Tokens, list[int]]:
    tokens = Tokens(starter.FOLDER / "tokenizer.json")
    return tokens, tokens.prompt(request, tokens.markers()).ids


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_engines_that_take_ids_get_the_worker_s_prompt_and_what_is_held_back_as_a_pattern(kind: Kind) -> None:
    messages, body, path = ask(kind, chunks(" ret", "urn a", " + b"), tokenizer=TOKENIZER)
    tokens, ids = tokens_and_prompt(REQUEST)
    assert path == "/v1/completions"
    assert body["prompt"] == ids
    pattern = body["structured_outputs"]["regex"] if kind == "vllm" else body["regex"]
    assert pattern == r" ret(.|\n)*"
    assert set(body["stop_token_ids"]) == set(tokens.ends(tokens.markers()))
    assert (body["model"], body["max_tokens"], body["temperature"], body["stream"]) == ("m", 8, 0.0, True)
    assert text_of(messages) == "urn a + b"
    end = messages[-1]
    assert isinstance(end, End)
    assert (end.reason, end.prompt) == ("tokens", 31)


def test_marker_strings_in_a_document_stay_text_in_ids_and_in_texts() -> None:
    smuggled = " ".join(sorted(CONTROL))
    request = FimRequest(f"{smuggled}\n", f"\n{smuggled}", f"\n{smuggled} x", Stops(max_tokens=4))
    _, body, _ = ask("vllm", chunks(" x1"), request, tokenizer=TOKENIZER)
    tokens = Tokens(starter.FOLDER / "tokenizer.json")
    markers = tokens.markers()
    control = set(tokens.ends(markers))
    assert [i for i in body["prompt"] if i in control] == [
        markers.ids[text] for text in (DEEPSEEK.bos, DEEPSEEK.prefix, DEEPSEEK.suffix, DEEPSEEK.middle)
    ]
    _, body, _ = ask("generic", chunks("x"), request)
    for text in CONTROL:
        assert text not in body["prompt"] + body["suffix"]
    assert body["prompt"].replace("\u2060", "") == request.prefix + request.typed


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_an_engine_that_ignores_the_pattern_is_asked_without_one_and_nothing_is_typed_twice(kind: Kind) -> None:
    def answer(request: Any) -> Reply:
        constrained = "structured_outputs" in request.body or "regex" in request.body
        return chunks("something else") if constrained else chunks("urn a")

    with serving(Engine(card("m", kind), answer)) as engine:

        async def run() -> tuple[str, str]:
            http = Http(engine.address + "/v1")
            client = Client(http, OpenAI(http, kind, "", TOKENIZER))
            first = text_of([m async for m in client.fim(REQUEST)]) if await client.look() else ""
            second = text_of([m async for m in client.fim(REQUEST)])
            await client.close()
            return first, second

        assert asyncio.run(run()) == ("urn a", "urn a")
        assert len(engine.asked) == 3, "it is not tried with a pattern again"
        whole, (_, held) = engine.asked[1].body["prompt"], tokens_and_prompt(attrs.evolve(REQUEST, heal=False))
        assert whole == held, "all that was typed is in the prompt then"


def test_a_platform_gets_both_texts_and_what_ends_a_line() -> None:
    request = attrs.evolve(REQUEST, stops=Stops(max_tokens=48, end_of_line=True))
    hits = {"usage": {"prompt_tokens": 30, "completion_tokens": 3, "prompt_cache_hit_tokens": 12}}
    messages, body, path = ask(
        "generic", [*chunks("urn", " a + b", finish="stop")[:-2], hits | {"choices": []}, DONE], request
    )
    assert (path, body["prompt"], body["suffix"]) == ("/v1/completions", "def add(a, b):\n    ret", REQUEST.suffix)
    assert body["stop"] == ["\n"]
    assert text_of(messages) == "urn a + b"
    end = messages[-1]
    assert isinstance(end, End)
    assert end.reason == "line", "whoever does not say what it stopped at stopped where it was told to"


def test_mistral_s_own_route_and_form() -> None:
    def event(content: str, finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": {"role": "assistant", "content": content}, "finish_reason": finish}
        return {"id": "1", "object": "chat.completion.chunk", "model": "codestral-latest", "choices": [choice]}

    request = attrs.evolve(REQUEST, sampling=Sampling(temperature=0.5, seed=7))
    messages, body, path = ask("mistral", [event("urn a"), event(" + b", "stop"), DONE], request)
    assert (path, body["random_seed"]) == ("/v1/fim/completions", 7)
    assert {"seed", "logprobs", "stream_options"} & body.keys() == set()
    assert text_of(messages) == "urn a + b"


def test_who_bills_is_not_asked_to_compute_ahead_nor_for_alternatives() -> None:
    with serving(Engine(card("m", "someone"), lambda _: chunks("x"))) as engine:

        async def run() -> None:
            http = Http(engine.address + "/v1")
            client = Client(http, OpenAI(http))
            await client.look()
            warm = attrs.evolve(REQUEST, stops=Stops(max_tokens=0))
            assert [type(m) async for m in client.fim(warm)] == [End]
            ends = [m async for m in client.fim(attrs.evolve(REQUEST, alternatives=2)) if isinstance(m, End)]
            assert [end.reason for end in ends][1:] == ["repeated", "repeated"]
            await client.close()

        asyncio.run(run())
        assert len(engine.asked) == 1


def test_stops_that_no_engine_knows_end_the_stream_early() -> None:
    stops = Stops(max_tokens=200, dedent_below=4)
    reply = [*chunks("urn a", "\n", "print", "(1)", "\n")[:5], 30.0, DONE]
    messages, _, _ = ask("generic", reply, attrs.evolve(REQUEST, stops=stops))
    end = messages[-1]
    assert isinstance(end, End)
    assert (text_of(messages), end.reason) == ("urn a", "dedent")


def test_the_probability_of_a_held_back_word_is_among_those_that_agree_with_it() -> None:
    reply = chunks(" return", " a")
    top = {" return": -3.0, " retry": -3.0, " x": -0.2}
    first: Any = reply[0]
    first["choices"][0]["logprobs"] |= {"token_logprobs": [-3.0], "top_logprobs": [top]}
    messages, body, _ = ask("vllm", reply, tokenizer=TOKENIZER)
    piece = messages[0]
    assert isinstance(piece, Piece)
    assert (piece.text, round(piece.logprob, 3)) == ("urn", -0.693), "half: two words agree, with equal probability"
    assert body["logprobs"] >= 3


@pytest.mark.parametrize(
    ("kind", "owner", "model", "tokenizer", "advice"),
    [
        ("generic", "vllm", "", "", "set `fimble.remote.engine` to `vllm`"),
        ("generic", "sglang", "", "", "set `fimble.remote.engine` to `sglang`"),
        ("generic", "llamacpp", "", "", "set `fimble.backend` to `llamacpp`"),
        ("vllm", "vllm", "", "", "set `fimble.remote.tokenizer`"),
        ("vllm", "vllm", "", "/nowhere", "`fimble.remote.tokenizer` /nowhere can't be used"),
        ("generic", "x", "other", "", "set `fimble.remote.model` to one of: m"),
    ],
)
def test_what_does_not_fit_is_said_with_the_setting_that_mends_it(
    kind: Kind, owner: str, model: str, tokenizer: str, advice: str
) -> None:
    with serving(Engine(card("m", owner))) as engine:

        async def run() -> None:
            http = Http(engine.address + "/v1")
            try:
                await OpenAI(http, kind, model, tokenizer).look()
            finally:
                await http.close()

        with pytest.raises(Unfit) as error:
            asyncio.run(run())
        assert advice in str(error.value)


def test_a_prompt_beyond_the_window_is_refused_before_it_is_sent() -> None:
    with pytest.raises(TooLong) as error:
        ask("vllm", chunks("x"), attrs.evolve(REQUEST, prefix="x = 1\n" * 3000), tokenizer=TOKENIZER)
    assert error.value.tokens > error.value.window == 4096


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (Error(429, {"error": {"message": "rate limit reached"}}), Rejected, "rate limit reached"),
        (Error(307, {}), Rejected, "sends on"),
        (["{not json"], Rejected, "no JSON"),
        (chunks("a", "b")[:2], Unreachable, "in the middle"),
        ([{"error": {"message": "out of memory"}}], Rejected, "out of memory"),
    ],
)
def test_errors_are_told_in_the_engine_s_words(reply: Reply, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        ask("generic", reply)


def test_a_pattern_matches_what_it_is_given_and_whatever_follows() -> None:
    import re

    for held in (" ret", "foo(", "a.b*c", "\t{", "x\\", "[^$]|?+", " é"):
        assert re.fullmatch(beginning_with(held), f"{held} and\nmore")
        assert not re.fullmatch(beginning_with(held), "something else")
