"""How answers begin: a request's first from its prompt, others where that one parts, alternatives off its way."""

from __future__ import annotations

import codecs
import logging
from collections.abc import Sequence
from typing import Any

import attrs
import torch

from inference.branches import Branches
from inference.choice import Choice, Ticket, TooLong
from inference.families import NoInfilling
from inference.models import Model
from inference.requests import Request, TextRequest
from inference.stops import Stopper, Until
from inference.tokens import BadPrompt, Markers, Prompt, Tokens
from inference.wire import Failure

log = logging.getLogger(__name__)


class Beginnings:
    """Makes choices of requests, over one model and its tokens."""

    def __init__(
        self, model: Model[Any], tokens: Tokens, markers: Markers | None, no_infilling: str, opening: Sequence[int]
    ):
        """`no_infilling`: why there are no markers; `opening`: ids that a text begins with."""
        self._model, self._tokens, self._opening = model, tokens, opening
        self._markers, self._no_infilling = markers, no_infilling

    def first(self, ticket: Ticket) -> Choice:
        """Raises NoInfilling, TooLong, BadPrompt: see `refusal`."""
        request, prompt = ticket.request, self._prompt(ticket.request)
        length = len(prompt.ids)
        if isinstance(request, TextRequest) and request.max_tokens is None:
            request = ticket.request = attrs.evolve(request, max_tokens=max(1, self._model.window - length))
        if length + max(1, request.stops.max_tokens) > self._model.window:
            raise TooLong(length, request.stops.max_tokens, self._model.window, self._tokens.chars_per_token)
        sequence = self._model.begin(prompt.ids, reuse=request.reuse)
        ticket.held = prompt.held
        return Choice(ticket, 0, sequence, length, prompt.held, _stopper(request), self._generator(request, 0))

    def fork(self, first: Choice, index: int) -> Choice:
        """Another answer to the prompt that `first` has just computed."""
        request = first.ticket.request
        return attrs.evolve(
            first,
            index=index,
            sequence=self._model.fork(first.sequence),
            stopper=_stopper(request),
            generator=self._generator(request, index),
            decoder=codecs.getincrementaldecoder("utf-8")("replace"),
            context=bytearray(),
            prefilled=0,
        )

    def branch(self, other: Choice, branches: Branches, index: int, ids: list[int]) -> Choice:
        """An alternative that begins with these ids; `other`: any choice of the request, ended or not."""
        ticket, prompt = other.ticket, other.sequence.ids[: other.prompt]
        sequence = self._model.begin(prompt + ids, reuse=ticket.request.reuse)
        stopper = _stopper(ticket.request)
        return Choice(ticket, index, sequence, other.prompt, ticket.held, stopper, None, branches=branches, kept=[])

    def _prompt(self, request: Request) -> Prompt:
        if isinstance(request, TextRequest):
            return self._tokens.text_prompt(request, self._opening, self._markers)
        if self._markers is None:
            raise NoInfilling(self._no_infilling)
        return self._tokens.prompt(request, self._markers)

    def _generator(self, request: Request, index: int) -> torch.Generator | None:
        if request.sampling.temperature <= 0:
            return None
        generator = torch.Generator(self._model.device)
        if request.sampling.seed is None:
            generator.seed()
        else:
            generator.manual_seed(request.sampling.seed + index)
        return generator


def refusal(error: Exception, request: Request) -> Failure:
    """What is said of a request that could not begin."""
    if isinstance(error, NoInfilling):
        return Failure("no_infilling", str(error))
    if isinstance(error, TooLong):
        return error.failure
    if isinstance(error, BadPrompt):
        return Failure("malformed", str(error))
    log.error("request %s could not begin", request.id, exc_info=error)
    return Failure("failed", f"the worker could not begin this request: {error}")


def _stopper(request: Request) -> Stopper | Until:
    return Until(request.until) if isinstance(request, TextRequest) else Stopper(request.stops)
