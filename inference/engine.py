"""The step loop: one thread that owns the model and advances everybody's completions one forward at a time.

Each turn: take what was submitted and cancelled, choose rows (see `schedule`; decode steps with their drafts), one
forward, publish. Cancelled work stops at the next turn; in the middle of a long forward if others wait.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import torch

from inference.beginnings import Beginnings, refusal
from inference.branches import Branches
from inference.choice import Choice, Sink, Ticket, milliseconds
from inference.decoding import ENDED_BEFORE, Decoding, Output
from inference.drafts import WIDTH, Costs, Draft, Drafts, packed
from inference.memory import ran_out
from inference.models import Best, GivenUp, Model
from inference.prefix_cache import OutOfSlots
from inference.requests import Request, replaces
from inference.schedule import chosen, is_scored, is_unwanted
from inference.tokens import Markers, Tokens
from inference.wire import End, EndReason, Failure

log = logging.getLogger(__name__)


class Engine:
    """Serves `FimRequest`s over one model. `submit` and `close` may be called from any thread."""

    def __init__(
        self,
        model: Model[Any],
        tokens: Tokens,
        markers: Markers | None,
        no_infilling: str = "",
        *,
        opening: Sequence[int] = (),
        drafts: bool = True,
    ):
        """`opening`: ids that a text begins with; `drafts`: verify guesses, several tokens a forward, or don't."""
        self._model = model
        self._beginnings = Beginnings(model, tokens, markers, no_infilling, opening)
        self._drafts = Drafts() if drafts and model.cuts else None
        self._costs = Costs(model.costs)
        self._decoding = Decoding(tokens, model.device, model.window)
        self._inbox: deque[Ticket] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._choices: list[Choice] = []
        self._ahead: tuple[list[Choice], Best] | None = None  # a forward that has begun for them
        self.counts: Counter[str] = Counter()
        self.step_seconds = 0.0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()
        atexit.register(self.close)  # a process that ends in the middle of a forward aborts

    @property
    def running(self) -> int:
        """Choices in hand and requests that wait."""
        return len(self._choices) + len(self._inbox)

    def figures(self) -> dict[str, int]:
        """Of this moment, for `/metrics`: the queue, and what the prefix cache holds."""
        return {"queued": len(self._inbox)} | self._model.figures()

    def submit(self, request: Request, sink: Sink) -> Ticket:
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
        atexit.unregister(self.close)

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
            if self._ahead:
                self._settle(*self._ahead)
            elif choices := chosen(self._choices, self._model, waiting=bool(self._inbox)):
                self._turn(choices)
        for choice in list(self._choices):
            self._end(choice, "cancelled")

    def _drop_cancelled(self) -> None:
        for choice in [c for c in self._choices if c.ticket.cancelled]:
            self._end(choice, "cancelled")

    def _admit(self, ticket: Ticket) -> None:
        request = ticket.request
        for choice in [c for c in self._choices if replaces(request, c.ticket.request)]:
            self._end(choice, "superseded")
        if ticket.cancelled:
            return ticket.publish(End("cancelled"))
        try:
            choice = self._beginnings.first(ticket)
        except Exception as error:  # noqa: BLE001  the request fails, the engine lives on
            return ticket.publish(refusal(error, request))
        self._choices.append(choice)
        self.counts["requests"] += 1
        self.counts["prompt"] += choice.prompt
        self.counts["reused"] += choice.sequence.reused
        return None

    def _are_unwanted(self, choices: list[Choice]) -> bool:
        with self._wake:
            return self._closed or is_unwanted(choices, self._inbox)

    def _turn(self, wanted: list[tuple[Choice, int]]) -> None:
        rows = [self._row(choice, count, len(wanted)) for choice, count in wanted]
        choices = [choice for choice, _ in wanted]
        began = time.perf_counter()
        try:
            logits, best = self._model.forward(rows, lambda: self._are_unwanted(choices)), self._model.best
            if best:
                self._go_on(choices)
                best.at(0)  # here it waits, and here a device says what went wrong
        except (GivenUp, OutOfSlots) as error:
            for choice in choices:
                self._take_back_draft(choice)
            if isinstance(error, OutOfSlots):  # the largest request fails, the others go on without it
                self._fail([max(choices, key=lambda c: len(c.sequence.ids))], error)
            else:
                self.counts["given_up"] += 1
            return None
        except Exception as error:  # noqa: BLE001  these requests fail, the engine lives on
            return self._fail(choices, error)
        self.counts["steps"] += 1
        self.step_seconds += time.perf_counter() - began
        self._costs.saw(sum(count for _, count, _ in rows), milliseconds(time.perf_counter() - began))
        at = 0
        for (choice, count), (_, _, outputs) in zip(wanted, rows, strict=True):
            self._try_to_advance(choice, count, [Output(logits[i], best, i) for i in range(at, at + outputs)])
            at += outputs
        return None

    def _go_on(self, choices: list[Choice]) -> None:
        """Begins the next forward before the last one's tokens are known here, if it will be for them."""
        alone = not self._inbox and len(choices) == len(self._choices)
        if not alone or not all(choice in self._choices and self._goes_on(choice) for choice in choices):
            return
        if ahead := self._model.ahead([choice.sequence for choice in choices]):
            self._ahead = choices, ahead

    def _goes_on(self, choice: Choice) -> bool:
        """Whether the token to come is the likeliest, and surely not the last one asked for."""
        request = choice.ticket.request
        return (
            choice.to_compute <= 0
            and request.stops.max_tokens > choice.decoded + 1
            and len(choice.sequence.ids) + 2 < self._model.window
            and choice.draft is None
            and self._decoding.leaves_to_device(choice)
            and not choice.held
            and not choice.ticket.cancelled
            and self._draft(choice, 1) is None
        )

    def _settle(self, choices: list[Choice], best: Best) -> None:
        """Takes the tokens of a forward that was begun before the last tokens were known."""
        self._ahead = None
        began = time.perf_counter()
        try:
            self._go_on(choices)
            best.at(0)
        except Exception as error:  # noqa: BLE001  these requests fail, the engine lives on
            return self._fail([choice for choice in choices if choice in self._choices], error)
        self.counts["steps"] += 1
        self.step_seconds += time.perf_counter() - began
        for i, choice in enumerate(choices):
            if choice in self._choices:
                self._try_to_advance(choice, 1, [Output(None, best, i)])
        return None

    def _try_to_advance(self, choice: Choice, count: int, outputs: list[Output]) -> None:
        try:
            self._advance(choice, count, outputs)
        except Exception as error:  # noqa: BLE001  this request fails, the engine lives on
            self._fail([choice], error)

    def _row(self, choice: Choice, count: int, others: int) -> tuple[Any, int, int]:
        """A sequence, its tokens to compute, and after how many of them logits are wanted; appends a draft."""
        sequence = choice.sequence
        complete = count == choice.to_compute
        scored = is_scored(choice)
        choice.draft = self._draft(choice, others) if complete and not scored else None
        if scored:
            sequence.allowed = None
            return sequence, count, count
        if not choice.draft:
            sequence.allowed = self._decoding.mask(choice) if complete else None
            return sequence, count, 1
        sequence.allowed = None
        sequence.ids += choice.draft.ids
        length = len(choice.draft.ids)
        self.counts["drafted"] += length
        return sequence, count + length, 1 + length

    def _draft(self, choice: Choice, others: int) -> Draft | None:
        """What may follow, as long as it pays to verify it; None if nothing does."""
        sequence, stops = choice.sequence, choice.ticket.request.stops
        shared = choice.decoded == 0 and choice.ticket.request.n > 1  # its logits serve all choices
        if self._drafts is None or stops.max_tokens == 0 or shared or others > 2:
            return None
        room = min(stops.max_tokens - choice.decoded, self._model.window - len(sequence.ids)) - 1
        choice.context += packed(sequence.ids[len(choice.context) // WIDTH :])
        draft = self._drafts.propose(choice.ticket.request.session, choice.context, room)
        length = self._costs.best(self._drafts.rate(draft.origin), len(draft.ids)) if draft else 0
        return Draft(draft.ids[:length], draft.origin) if draft and length else None

    def _take_back_draft(self, choice: Choice) -> None:
        if choice.draft:
            self._model.cut(choice.sequence, len(choice.sequence.ids) - len(choice.draft.ids))

    def _advance(self, choice: Choice, count: int, outputs: list[Output]) -> None:
        """Takes what a forward of `count` tokens and the choice's draft gave: 1 + draft outputs."""
        if choice.decoded == 0:
            choice.prefilled += count
            self.counts["prefilled"] += count
        if is_scored(choice):
            self._decoding.score(choice, outputs)
            outputs = outputs[-1:]
        if choice.to_compute > 0:
            return
        request = choice.ticket.request
        if request.stops.max_tokens == 0:
            return self._end(choice, "tokens")
        if choice.index == 0 and choice.decoded == 0:
            self._fork(choice, outputs[0])
        self._verify(choice, choice.draft.ids if choice.draft else [], outputs)

    def _verify(self, choice: Choice, drafted: list[int], outputs: list[Output]) -> None:
        """Decodes along the draft for as long as it says what the model says."""
        known = len(choice.sequence.ids) - len(drafted)
        accepted, reason = 0, None
        for output in outputs:
            token, reason = self._decoding.take(choice, output)
            self.counts["decoded"] += 1
            if reason or accepted == len(drafted) or token != drafted[accepted]:
                if accepted < len(drafted):
                    self._model.cut(choice.sequence, known + accepted)
                if reason not in ENDED_BEFORE:
                    choice.sequence.ids.append(token)
                break
            accepted += 1
        self.counts["accepted"] += accepted
        if choice.draft and self._drafts:
            self._drafts.learn(choice.draft.origin, accepted, int(accepted < len(drafted) and reason is None))
        if reason:
            self._end(choice, reason)

    def _fork(self, first: Choice, output: Output) -> None:
        """The other answers of the request begin where the shared prompt ends."""
        for index in range(1, first.ticket.request.n):
            other = self._beginnings.fork(first, index)
            self._choices.append(other)
            self._verify(other, [], [output])

    def _end(self, choice: Choice, reason: EndReason) -> None:
        self._choices.remove(choice)
        request, ids = choice.ticket.request, choice.sequence.ids
        if self._drafts and not choice.branches:
            self._drafts.remember(request.session, ids, len(ids) - choice.prompt)
        self._model.end(choice.sequence, keep=request.reuse)
        choice.finish(reason)
        broken_off = reason in ("superseded", "cancelled")
        if choice.branches and not broken_off and not choice.branches.is_new(choice.text):
            return self._branch(choice, choice.branches, choice.index)
        choice.release()
        self.counts[f"end_{reason}"] += 1
        choice.end(reason)
        if request.alternatives and choice.index == 0 and not broken_off:
            branches = Branches(choice)
            for index in range(1, 1 + request.alternatives):
                self._branch(choice, branches, index)
        return None

    def _branch(self, other: Choice, branches: Branches, index: int) -> None:
        """Begins the next alternative of a request, where its greedy answer was least certain; else ends it.

        `other` is any choice of that request that has ended.
        """
        ticket = other.ticket
        while point := branches.next():
            ids = [*branches.ids[: point.at], point.second]
            choice = self._beginnings.branch(other, branches, index, ids)
            self._choices.append(choice)
            reason = None
            for token, logprob in zip(ids, [*branches.logprobs[: point.at], point.logprob], strict=True):
                reason = reason or self._decoding.took(choice, token, logprob)
            if reason is None:
                return None
            choice.finish(reason)
            self._choices.remove(choice)
            self._model.end(choice.sequence, keep=ticket.request.reuse)
            if branches.is_new(choice.text):
                choice.release()
                return choice.end(reason)
        ticket.publish(End("repeated", other.prompt, choice=index))
        return None

    def _fail(self, choices: list[Choice], error: Exception) -> None:
        """Ends the requests of these choices with an error, or has them tried again in smaller pieces."""
        if isinstance(error, torch.OutOfMemoryError | OutOfSlots):
            log.warning("out of memory: %s", error)
            full = isinstance(error, OutOfSlots)
            why = str(error) if full else ran_out(self._model.device, self._model.dtype, error)
            failure = Failure("out_of_memory", why)
            if isinstance(error, torch.OutOfMemoryError) and self._model.shrink():
                log.warning("from now on %s prompt tokens a forward", self._model.chunk)
                for choice in choices:
                    self._take_back_draft(choice)
                return None
        else:
            log.error("a forward failed", exc_info=error)
            failure = Failure("failed", f"the model failed: {error}")
        tickets = {id(choice.ticket): choice.ticket for choice in choices}
        for choice in [c for c in self._choices if id(c.ticket) in tickets]:
            self._choices.remove(choice)
            self._model.end(choice.sequence, keep=False)
        for ticket in tickets.values():
            ticket.publish(failure)
        if failure.error == "out_of_memory":
            self._model.forget()
        return None
