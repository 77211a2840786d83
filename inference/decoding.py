"""From a row of logits to a token, the text that it makes certain, and whether the choice ends there."""

from __future__ import annotations

import time

import attrs
import torch
from torch import Tensor

from inference.branches import Unsure
from inference.choice import Choice
from inference.models import Best
from inference.requests import Chosen, TextRequest
from inference.sampling import choose, likeliest
from inference.tokens import Tokens
from inference.wire import EndReason

ENDED_BEFORE = ("eos", "line", "lines", "dedent", "suffix", "stop")
"""Ends whose token is no part of the answer, so that no prompt will hold it."""
MASKS = 256
"""Healing masks kept."""


@attrs.frozen
class Output:
    """What a forward says at one row."""

    logits: Tensor | None
    """float32 [vocab]; None where only the likeliest token is known."""
    best: Best | None = None
    number: int = 0
    """Which of `best`'s outputs it is."""


class Decoding:
    """What all choices share: the vocabulary, and masks over it by the bytes that must come next."""

    def __init__(self, tokens: Tokens, device: str, window: int):
        self._vocabulary, self._device, self._window = tokens.vocabulary, device, window
        self._masks: dict[bytes, Tensor] = {}

    def take(self, choice: Choice, output: Output) -> tuple[int, EndReason | None]:
        """Takes the next token, and publishes the text that it makes certain.

        Returns the token, and why the choice ends with it or before it.
        """
        request, allowed = choice.ticket.request, self.mask(choice)
        best = output.best
        if best and best.allowed[output.number] is allowed and self.leaves_to_device(choice):
            token, logprob = best.at(output.number)
            if token < len(self._vocabulary):
                return token, self.took(choice, token, logprob)
        assert output.logits is not None
        logits = output.logits[: len(self._vocabulary)]  # a model's table may be padded with ids that spell nothing
        token, logprob = choose(logits, request.sampling, allowed, choice.generator)
        if request.alternatives and choice.index == 0:
            self._note_second(choice, logits, allowed, logprob)
        top = self._likeliest(logits, request.top_logprobs, allowed)
        return token, self.took(choice, token, logprob, top)

    def leaves_to_device(self, choice: Choice) -> bool:
        """Whether nothing but the likeliest token is asked for."""
        request = choice.ticket.request
        return (
            request.sampling.temperature <= 0
            and not request.top_logprobs
            and not (request.alternatives and choice.index == 0)
        )

    def mask(self, choice: Choice) -> Tensor | None:
        """The ids that agree with what is held back, on the model's device; None: all."""
        return self._mask(choice.held) if choice.held else None

    def took(
        self, choice: Choice, token: int, logprob: float, top: tuple[tuple[bytes, float], ...] = ()
    ) -> EndReason | None:
        """Adds a token to a choice's text, and says what text that makes certain; why the choice ends there, if so."""
        request = choice.ticket.request
        choice.decoded += 1
        if choice.decoded == 1:
            choice.first_token = time.perf_counter()
        spelled = self._vocabulary.bytes_of(token)
        ended = not spelled  # eos, or another control token where text should be
        text = "" if ended else _new_text(choice, spelled)
        if "\n" not in choice.text.lstrip("\n"):
            choice.first_line_tokens = choice.decoded
        certain = choice.stopper.feed(text) if text else ""
        choice.unsent = (choice.unsent[0] + logprob, choice.unsent[1] + 1)
        if isinstance(request, TextRequest) and request.logprobs is not None:
            choice.say_token(certain, spelled, top)
        elif certain or request.top_logprobs:
            choice.say(certain, tuple((text.decode("utf-8", "replace"), p) for text, p in top))
        if choice.stopper.reason:
            return choice.stopper.reason
        if ended:
            return "eos"
        if choice.decoded >= request.stops.max_tokens:
            return "tokens"
        return "window" if choice.prompt + choice.decoded >= self._window else None

    def _note_second(self, choice: Choice, logits: Tensor, allowed: Tensor | None, logprob: float) -> None:
        best = likeliest(logits, 2, allowed)
        if len(best) == 2:
            second, less = best[1]
            choice.unsure.append(Unsure(choice.decoded, second, less, logprob - less))
        choice.logprobs.append(logprob)

    def _mask(self, held: bytes) -> Tensor:
        mask = self._masks.get(held)
        if mask is None:
            if len(self._masks) >= MASKS:
                self._masks.clear()
            mask = self._masks[held] = torch.tensor(self._vocabulary.agreeing(held), device=self._device)
        return mask

    def score(self, choice: Choice, outputs: list[Output]) -> None:
        """Publishes the prompt's tokens that follow those just computed, each with its probability."""
        sequence, request = choice.sequence, choice.ticket.request
        first = sequence.computed - len(outputs) + 1
        for output, token in zip(outputs, sequence.ids[first : choice.prompt], strict=False):
            assert output.logits is not None
            row = output.logits[: len(self._vocabulary)]
            logprob = float(torch.log_softmax(row, dim=-1)[token])
            top, spelled = self._likeliest(row, request.top_logprobs, None), self._vocabulary.bytes_of(token)
            choice.ticket.publish(Chosen("", logprob, spelled=spelled, beside=top, of_prompt=True))

    def _likeliest(self, logits: Tensor, count: int, allowed: Tensor | None) -> tuple[tuple[bytes, float], ...]:
        if count == 0:
            return ()
        return tuple((self._vocabulary.bytes_of(i), p) for i, p in likeliest(logits, count, allowed))


def _new_text(choice: Choice, spelled: bytes) -> str:
    """What a token adds after the cursor: nothing while it only spells out what was held back."""
    held = choice.held
    choice.held = held[len(spelled) :]
    return choice.decoder.decode(spelled[len(held) :])
