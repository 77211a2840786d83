"""The step loop: one thread that owns the model and advances everybody's completions one forward at a time.

Each turn: take what was submitted and cancelled, choose rows (decode steps of all, then one chunk of the newest
prompt; background work only when nothing else runs), one forward, publish. Cancelled work stops at the next turn.
"""

from __future__ import annotations

import codecs
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from inference.models import Model
from inference.sampling import choose, likeliest
from inference.stops import Stopper
from inference.tokens import Markers, NoInfilling, Tokens
from inference.wire import End, EndReason, Failure, FimRequest, Piece, Timing

log = logging.getLogger(__name__)

Sink = Callable[[Piece | End | Failure], None]
"""Takes a request's pieces, then one `End` a choice, or one `Failure`. Called from the engine's thread."""


@attrs.define(eq=False)
class Ticket:
    """A submitted request. `cancelled` may be set by any thread; the engine looks at it between forwards."""

    request: FimRequest
    sink: Sink
    submitted: float = attrs.field(factory=time.perf_counter)
    cancelled: bool = False


@attrs.define(eq=False)
class Choice:
    """One of the n answers of a request, from its prompt to its end."""

    ticket: Ticket
    index: int
    sequence: Any
    prompt: int  # tokens
    held: bytes  # what the next tokens must spell out before text begins
    stopper: Stopper
    generator: torch.Generator | None
    decoder: codecs.IncrementalDecoder = attrs.field(factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))
    prefilled: int = 0
    decoded: int = 0
    started: float = attrs.field(factory=time.perf_counter)
    first_token: float = 0.0
    unsent: tuple[float, int] = (0.0, 0)  # log-probability and number of tokens whose text is not certain yet

    @property
    def to_compute(self) -> int:
        return len(self.sequence.ids) - self.sequence.computed


class Engine:
    """Serves `FimRequest`s over one model. `submit` and `close` may be called from any thread."""

    def __init__(self, model: Model[Any], tokens: Tokens, markers: Markers | None, no_infilling: str = ""):
        self._model, self._tokens, self._markers, self._no_infilling = model, tokens, markers, no_infilling
        self._inbox: deque[Ticket] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._choices: list[Choice] = []
        self._masks: dict[bytes, Tensor] = {}
        self.counts: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """Choices in hand and requests that wait."""
        return len(self._choices) + len(self._inbox)

    def submit(self, request: FimRequest, sink: Sink) -> Ticket:
        """Queues a request; its answers go to `sink`. Cancel by `ticket.cancelled = True`."""
        ticket = Ticket(request, sink)
        with self._wake:
            self._inbox.append(ticket)
            self._wake.notify()
        return ticket

    def close(self) -> None:
        """Ends the thread after the forward in hand; running requests end as cancelled."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._inbox or self._choices or self._closed)
                arrived = list(self._inbox)
                self._inbox.clear()
            if self._closed:
                break
            self._drop_cancelled()
            for ticket in arrived:
                self._admit(ticket)
            if rows := self._rows():
                self._turn(rows)
        for choice in list(self._choices):
            self._end(choice, "cancelled")

    def _drop_cancelled(self) -> None:
        for choice in [c for c in self._choices if c.ticket.cancelled]:
            self._end(choice, "cancelled")

    def _admit(self, ticket: Ticket) -> None:
        request = ticket.request
        self._replace_older(request)
        if ticket.cancelled:
            return self._publish(ticket, End("cancelled"))
        try:
            choices = self._begin(ticket)
        except NoInfilling as error:
            self._publish(ticket, Failure("no_infilling", str(error)))
        except TooLong as error:
            self._publish(ticket, error.failure)
        except Exception as error:  # the request fails, the engine lives on
            log.exception("request %s could not begin", request.id)
            self._publish(ticket, Failure("failed", f"the worker could not begin this request: {error}"))
        else:
            self._choices += choices
            self.counts["requests"] += 1

    def _replace_older(self, request: FimRequest) -> None:
        if not request.session:
            return
        for choice in list(self._choices):
            older = choice.ticket.request
            warming = request.priority == "background" and older.priority == "interactive"
            if older.session == request.session and not warming:
                self._end(choice, "superseded")

    def _begin(self, ticket: Ticket) -> list[Choice]:
        request = ticket.request
        if self._markers is None:
            raise NoInfilling(self._no_infilling)
        prompt = self._tokens.prompt(request, self._markers)
        length = len(prompt.ids)
        if length + max(1, request.stops.max_tokens) > self._model.window:
            raise TooLong(length, request.stops.max_tokens, self._model.window, self._tokens.chars_per_token)
        sequence = self._model.begin(prompt.ids, reuse=request.reuse)
        self.counts["prompt"] += length
        self.counts["reused"] += sequence.reused
        first = Choice(ticket, 0, sequence, length, prompt.held, Stopper(request.stops), self._generator(request, 0))
        return [first]

    def _generator(self, request: FimRequest, index: int) -> torch.Generator | None:
        if request.sampling.temperature <= 0:
            return None
        generator = torch.Generator(self._model.device)
        if request.sampling.seed is None:
            generator.seed()
        else:
            generator.manual_seed(request.sampling.seed + index)
        return generator

    def _rows(self) -> list[tuple[Choice, int]]:
        """What the next forward computes: (choice, tokens)."""
        wanted = [c for c in self._choices if c.ticket.request.priority == "interactive"] or self._choices[-1:]
        rows = [(choice, 1) for choice in wanted if choice.to_compute == 1]
        prompts = [choice for choice in wanted if choice.to_compute > 1]
        if prompts:
            newest = prompts[-1]
            rows.append((newest, min(newest.to_compute, self._model.chunk)))
        return rows

    def _turn(self, rows: list[tuple[Choice, int]]) -> None:
        try:
            logits = self._model.forward([(choice.sequence, count) for choice, count in rows])
            self.counts["steps"] += 1
            for (choice, count), row in zip(rows, logits, strict=True):
                self._advance(choice, count, row)
        except torch.OutOfMemoryError:
            self._fail(rows, Failure("out_of_memory", self._memory_advice()))
            self._model.forget()
        except Exception as error:  # these requests fail, the engine lives on
            log.exception("a forward failed")
            self._fail(rows, Failure("failed", f"the model failed: {error}"))

    def _advance(self, choice: Choice, count: int, logits: Tensor) -> None:
        if choice.sequence.computed <= choice.prompt:
            choice.prefilled += count
            self.counts["prefilled"] += count
        if choice.to_compute:
            return
        request = choice.ticket.request
        if request.stops.max_tokens == 0:
            return self._end(choice, "tokens")
        if choice.index == 0 and choice.decoded == 0:
            self._fork(choice, logits)
        self._decode(choice, logits)

    def _fork(self, first: Choice, logits: Tensor) -> None:
        """The other answers of the request begin where the shared prompt ends."""
        request = first.ticket.request
        for index in range(1, request.n):
            other = attrs.evolve(
                first,
                index=index,
                sequence=self._model.fork(first.sequence),
                stopper=Stopper(request.stops),
                generator=self._generator(request, index),
                decoder=codecs.getincrementaldecoder("utf-8")("replace"),
                prefilled=0,
            )
            self._choices.append(other)
            self._decode(other, logits)

    def _decode(self, choice: Choice, logits: Tensor) -> None:
        """Takes the next token from the logits and publishes the text that it makes certain."""
        request = choice.ticket.request
        allowed = self._mask(choice.held) if choice.held else None
        token, logprob = choose(logits, request.sampling, allowed, choice.generator)
        choice.decoded += 1
        self.counts["decoded"] += 1
        if choice.decoded == 1:
            choice.first_token = time.perf_counter()
        spelled = self._tokens.vocabulary.bytes_of(token)
        ended = not spelled  # eos, or another control token where text should be
        text = "" if ended else self._new_text(choice, spelled)
        certain = choice.stopper.feed(text) if text else ""
        choice.unsent = (choice.unsent[0] + logprob, choice.unsent[1] + 1)
        if certain or request.top_logprobs:
            top = self._likeliest(logits, request.top_logprobs, allowed)
            self._publish(choice.ticket, Piece(certain, *choice.unsent, choice.index, top))
            choice.unsent = (0.0, 0)
        if choice.stopper.reason:
            return self._end(choice, choice.stopper.reason)
        if ended:
            return self._end(choice, "eos")
        choice.sequence.ids.append(token)
        if choice.decoded >= request.stops.max_tokens:
            return self._end(choice, "tokens")
        if len(choice.sequence.ids) >= self._model.window:
            return self._end(choice, "window")

    def _new_text(self, choice: Choice, spelled: bytes) -> str:
        """What a token adds after the cursor: nothing while it only spells out what was held back."""
        held = choice.held
        choice.held = held[len(spelled) :]
        return choice.decoder.decode(spelled[len(held) :])

    def _mask(self, held: bytes) -> Tensor:
        mask = self._masks.get(held)
        if mask is None:
            if len(self._masks) >= 256:
                self._masks.clear()
            ids = self._tokens.vocabulary.agreeing(held)
            mask = self._masks[held] = torch.tensor(ids, device=self._model.device)
        return mask

    def _likeliest(self, logits: Tensor, count: int, allowed: Tensor | None) -> tuple[tuple[str, float], ...]:
        if count == 0:
            return ()
        spelled = self._tokens.vocabulary.bytes_of
        return tuple((spelled(i).decode("utf-8", "replace"), p) for i, p in likeliest(logits, count, allowed))

    def _end(self, choice: Choice, reason: EndReason) -> None:
        ticket = choice.ticket
        if rest := choice.stopper.finish(reason):
            self._publish(ticket, Piece(rest, *choice.unsent, choice.index))
        self._choices.remove(choice)
        self._model.end(choice.sequence, keep=ticket.request.reuse)
        now = time.perf_counter()
        timing = Timing(
            queued=_ms(choice.started - ticket.submitted),
            first_token=_ms(choice.first_token - ticket.submitted) if choice.first_token else 0.0,
            total=_ms(now - ticket.submitted),
        )
        self.counts[f"end_{reason}"] += 1
        reused = choice.sequence.reused if choice.index == 0 else choice.prompt
        counts = (choice.prompt, reused, choice.prefilled, choice.decoded)
        unborn = range(1, ticket.request.n) if choice.decoded == 0 else range(0)
        for index in (choice.index, *unborn):
            self._publish(ticket, End(reason, *counts, timing, index))

    def _fail(self, rows: list[tuple[Choice, int]], failure: Failure) -> None:
        tickets = {id(choice.ticket): choice.ticket for choice, _ in rows}
        for choice in [c for c in self._choices if id(c.ticket) in tickets]:
            self._choices.remove(choice)
            self._model.end(choice.sequence, keep=False)
        for ticket in tickets.values():
            self._publish(ticket, failure)

    def _publish(self, ticket: Ticket, message: Piece | End | Failure) -> None:
        try:
            ticket.sink(message)
        except Exception:  # a reader that went away must not stop the others
            log.exception("publishing to request %s failed", ticket.request.id)
            ticket.cancelled = True

    def _memory_advice(self) -> str:
        return (
            f"out of memory on {self._model.device} ({self._model.dtype}); the prefix cache was dropped. "
            "Close other programs on the device, shorten the context, or choose a smaller model or dtype"
        )


class TooLong(Exception):
    """The prompt and the tokens asked for exceed the window."""

    def __init__(self, tokens: int, asked: int, window: int, chars_per_token: float):
        message = f"the prompt has {tokens} tokens and asks for {asked} more; the window holds {window}"
        super().__init__(message)
        self.failure = Failure("too_long", message, tokens, window, round(chars_per_token, 3))


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
