"""What the model wrote, kept token by token, and answered again under any stops: filters then cost no model time.

Greedy decoding does not depend on where an answer is ended, so one recording, ended by nothing but the model and a
generous limit, serves every setting that leaves the prompt as it is. Prompts that are not in the recording are asked
of the worker, if there is one.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from typing import Any, cast

import attrs

from inference.stops import Stopper
from inference.version import VERSION
from inference.wire import End, EndReason, Failure, FimRequest, Health, Piece, Stops
from lsp_server.backends.worker import Lost, Refused
from lsp_server.request import Backend

MAX_TOKENS = 128
TOP = 2
"""Likeliest tokens kept beside each one."""
HEALTH = Health("ready", VERSION, "starter", "", 0, window=2048, chars_per_token=2.8)
"""What the server is told of the model while a recording answers: prompts must be cut alike each time."""


@attrs.frozen
class Token:
    """One decoded token: the text that it adds after the cursor, and its log-probability in nats."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@attrs.frozen
class Stream:
    """One answer from its first token to the end. `prompt` counts tokens."""

    tokens: tuple[Token, ...]
    reason: EndReason
    prompt: int

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)

    def spelling(self, text: str) -> tuple[Token, ...]:
        """The first tokens, those that spelled `text`, the beginning of the answer."""
        length = 0
        for count, token in enumerate(self.tokens):
            if length >= len(text):
                return self.tokens[:count]
            length += len(token.text)
        return self.tokens


def key(request: FimRequest) -> str:
    """Names a prompt: all that decides what the model writes."""
    prompt = json.dumps([request.prefix, request.typed, request.suffix, request.heal])
    return hashlib.sha256(prompt.encode()).hexdigest()[:20]


def widened(request: FimRequest) -> FimRequest:
    """The request whose answer is recorded."""
    return attrs.evolve(request, stops=Stops(max_tokens=MAX_TOKENS), top_logprobs=TOP, session="", id="", n=1)


def stream(messages: Iterable[Piece | End]) -> Stream:
    """The tokens of a widened request's answer.

    A piece comes a token, but its text comes only when it is certain: what the pieces lack is in `top`.
    """
    tokens: list[Token] = []
    waiting: list[Token] = []
    reason: EndReason = "tokens"
    prompt = 0
    for message in messages:
        if isinstance(message, End):
            reason, prompt = message.reason, message.prompt
            continue
        waiting.append(Token(message.top[0][0] if message.top else "", message.logprob, message.top))
        if message.text:
            tokens += _spelled(waiting, message.text)
            waiting = []
    # Blank lines at the end, which the worker does not send, belong to the answer as it was decoded.
    tokens += waiting if tokens else [attrs.evolve(token, text="") for token in waiting]
    return Stream(tuple(tokens), reason, prompt)


def _spelled(waiting: list[Token], text: str) -> list[Token]:
    """Shares out `text` among the tokens that spelled it: the first ones may have spelled what was held back."""
    if not "".join(token.text for token in waiting).endswith(text):  # a character over several tokens
        return [*(attrs.evolve(token, text="") for token in waiting[:-1]), attrs.evolve(waiting[-1], text=text)]
    shared: list[Token] = []
    for token in reversed(waiting):
        own = token.text[-len(text) :] if text else ""
        text = text[: len(text) - len(own)]
        shared.append(attrs.evolve(token, text=own))
    return shared[::-1]


def replay(request: FimRequest, recorded: Stream) -> Iterable[Piece | End]:
    """The answer that the worker would give to `request`, ended by its own stops. Raises `ValueError` if it can't."""
    if request.n > 1 or request.sampling.temperature > 0 or request.top_logprobs > TOP:
        raise ValueError("only one greedy choice is recorded")
    if request.stops.max_tokens > MAX_TOKENS:
        raise ValueError(f"answers are recorded up to {MAX_TOKENS} tokens, not {request.stops.max_tokens}")
    stopper = Stopper(request.stops)
    unsent, count, reason = 0.0, 0, recorded.reason
    for number, token in enumerate(recorded.tokens, 1):
        certain = stopper.feed(token.text) if token.text else ""
        unsent, count = unsent + token.logprob, count + 1
        ended = number == len(recorded.tokens) and recorded.reason == "eos"
        if certain or request.top_logprobs:
            yield Piece(certain, round(unsent, 6), count, 0, token.top[: request.top_logprobs])
            unsent, count = 0.0, 0
        if stopper.reason or ended:
            reason = stopper.reason or reason
            break
        if number >= request.stops.max_tokens:
            reason = "tokens"
            break
    if rest := stopper.finish(reason):
        yield Piece(rest, round(unsent, 6), count)
    yield End(reason, recorded.prompt, 0, recorded.prompt, len(recorded.tokens))


class Recording:
    """A file of streams and refusals, one a line (gzipped if it is named `.gz`, and then only read)."""

    def __init__(self, path: Path):
        self._path = path
        self._streams: dict[str, str] = {}
        self._cut = False
        if path.is_file():
            data = path.read_bytes()
            self._cut = not data.endswith(b"\n")
            for line in (gzip.decompress(data) if path.suffix == ".gz" else data).decode().splitlines():
                if line.endswith("}"):  # the last line of a run that was killed may be cut
                    self._streams[line[8:28]] = line

    def __len__(self) -> int:
        return len(self._streams)

    def __contains__(self, name: str) -> bool:
        return name in self._streams

    def get(self, name: str) -> Stream | Failure | None:
        """What came of the prompt of that key."""
        line = self._streams.get(name)
        if line is None:
            return None
        record = cast(dict[str, Any], json.loads(line))
        if refused := record.get("refused"):
            return Failure(**refused)
        tokens = (Token(t[0], t[1], tuple((str(a), float(b)) for a, b in t[2])) for t in record["tokens"])
        return Stream(tuple(tokens), record["reason"], record["prompt"])

    def add(self, name: str, recorded: Stream | Failure) -> None:
        """Keeps it, in the file too."""
        line = self._streams[name] = as_line(name, recorded)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write("\n" * self._cut + line + "\n")
        self._cut = False


def as_line(name: str, recorded: Stream | Failure) -> str:
    """A stream or a refusal as the file holds it."""
    if isinstance(recorded, Failure):
        return json.dumps({"key": name, "refused": attrs.asdict(recorded)}, separators=(",", ":"))
    tokens = [(t.text, round(t.logprob, 4), [(text, round(p, 4)) for text, p in t.top]) for t in recorded.tokens]
    record = {"key": name, "reason": recorded.reason, "prompt": recorded.prompt, "tokens": tokens}
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False)


class Recorder:
    """A `Backend` that answers from a recording, and asks `backend` for what it lacks."""

    def __init__(self, recording: Recording, backend: Backend | None = None):
        self._recording, self._backend = recording, backend
        self.requests: list[FimRequest] = []
        """Those asked since it was last emptied."""
        self.last: Stream | None = None
        """The stream behind the last answer."""
        self.lacking = 0
        """Prompts that the recording lacks and nobody could be asked for: their answers count for nothing."""

    @property
    def ready(self) -> Health | None:
        """The same figures each time."""
        return HEALTH

    def ensure(self) -> asyncio.Task[None]:
        """There is nothing to bring up."""
        return asyncio.ensure_future(asyncio.sleep(0))

    async def fim(self, request: FimRequest) -> AsyncGenerator[Piece | End, None]:
        """The recorded answer under the request's stops; raises as the worker does, and `Lost` for what it lacks."""
        self.requests.append(request)
        self.last = None
        name = key(request)
        recorded = self._recording.get(name) or await self._record(name, request)
        if isinstance(recorded, Failure):
            raise Refused(recorded)
        self.last = recorded
        for message in replay(request, recorded):
            yield message

    async def _record(self, name: str, request: FimRequest) -> Stream | Failure:
        if self._backend is None:
            self.lacking += 1
            raise Lost("the recording lacks this prompt, and there is no worker to ask")
        try:
            recorded = stream([message async for message in self._backend.fim(widened(request))])
        except Refused as error:
            if error.failure.error != "too_long":
                raise
            recorded = error.failure
        self._recording.add(name, recorded)
        return recorded
