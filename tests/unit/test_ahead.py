"""Forwards that begin before the last tokens are known here: the same answers, and nothing for requests that ended.

Only a GPU begins them; here the starter does what the device would, with a check that each is for a running sequence.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any, cast

import attrs
import pytest
import torch
from torch import Tensor

from inference.engine import Engine
from inference.models.paged_model import PagedModel, PagedSequence
from inference.weights import Loaded, load
from inference.wire import End, Failure, FimRequest, Piece, Stops


@attrs.define(eq=False)
class Chosen:
    """Each output's likeliest token, as `graphs.Best` has it."""

    tokens: list[int]
    logprobs: list[float]
    allowed: list[Tensor | None]

    def at(self, output: int) -> tuple[int, float]:
        return self.tokens[output], self.logprobs[output]


class Foreseeing(PagedModel):
    """Chooses tokens itself and goes on with them when asked, as steps on a GPU do."""

    live: set[int]
    begun = 0

    def begin(self, ids: list[int], *, reuse: bool) -> PagedSequence:
        sequence = super().begin(ids, reuse=reuse)
        self.live.add(id(sequence))
        return sequence

    def end(self, sequence: PagedSequence, *, keep: bool) -> None:
        self.live.discard(id(sequence))
        super().end(sequence, keep=keep)

    def forward(
        self, rows: list[tuple[PagedSequence, int, int]], unwanted: Callable[[], bool] = lambda: False
    ) -> Tensor:
        logits = super().forward(rows, unwanted)
        allowed: list[Tensor | None] = []
        for sequence, _, outputs in rows:
            allowed += [None] * (outputs - 1) + [sequence.allowed]
        self.best = self._choose(logits, allowed)
        return logits

    def ahead(self, sequences: list[PagedSequence]) -> Any:
        assert all(id(sequence) in self.live for sequence in sequences), "a forward for a sequence that has ended"
        assert isinstance(self.best, Chosen)
        for sequence, token in zip(sequences, self.best.tokens, strict=True):
            sequence.ids.append(token)
        logits = super().forward([(sequence, 1, 1) for sequence in sequences])
        for sequence in sequences:
            sequence.ids.pop()
        self.begun += 1
        self.best = self._choose(logits, [None] * len(sequences))
        return self.best

    def _choose(self, logits: Tensor, allowed: list[Tensor | None]) -> Chosen:
        tokens: list[int] = []
        logprobs: list[float] = []
        for row, mask in zip(logits, allowed, strict=True):
            masked = row if mask is None else torch.full_like(row, -torch.inf).index_copy(0, mask, row[mask])
            best, token = masked.log_softmax(-1).max(-1)
            tokens.append(int(token))
            logprobs.append(float(best))
        return Chosen(tokens, logprobs, allowed)


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load("starter", "cpu", "auto", lambda _stage, _share: None)


def foreseeing(loaded: Loaded) -> Any:
    model = Foreseeing(cast(Any, loaded.model).weights, 2048, 4096, torch.float32, "int8")
    model.live = set()
    return model


def request(number: int, tokens: int = 24, session: str = "") -> FimRequest:
    prefix = f"class Stack{number}:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):"
    return FimRequest(prefix, "\n\nx = 1\n", "\n        se", Stops(max_tokens=tokens), session=session)


def messages(engine: Engine, asked: FimRequest) -> queue.Queue[Piece | End | Failure]:
    answers: queue.Queue[Piece | End | Failure] = queue.Queue()
    engine.submit(asked, answers.put)
    return answers


def text(answers: queue.Queue[Piece | End | Failure]) -> tuple[str, str]:
    said = ""
    while isinstance(message := answers.get(timeout=60), Piece):
        said += message.text
    assert isinstance(message, End), message
    return said, message.reason


def test_answers_are_those_of_a_model_that_waits(loaded: Loaded) -> None:
    waits = Engine(loaded.model, loaded.tokens, loaded.markers, drafts=False)
    theirs = [text(messages(waits, request(number))) for number in range(6)]
    waits.close()
    model = foreseeing(loaded)
    engine = Engine(model, loaded.tokens, loaded.markers, drafts=False)
    ours = [text(messages(engine, request(number))) for number in range(6)]
    engine.close()
    assert ours == theirs
    assert model.begun > 20
    model.check()


def test_a_request_that_replaces_another_finds_no_forward_begun_for_that_one(loaded: Loaded) -> None:
    model = foreseeing(loaded)
    engine = Engine(model, loaded.tokens, loaded.markers, drafts=False)
    for number in range(12):
        first = messages(engine, request(number, 60, "one"))
        first.get(timeout=60)
        second = messages(engine, request(number + 100, 8, "one"))
        assert text(second)[1] != "superseded"
        text(first)
    assert model.begun
    engine.close()
    model.check()
    model.forget()
    assert model.figures()["slots_held"] == 0


def test_a_device_that_fails_while_it_is_waited_for_fails_the_request_and_no_other(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = foreseeing(loaded)
    engine = Engine(model, loaded.tokens, loaded.markers, drafts=False)

    def broken(*_: Any) -> tuple[int, float]:
        raise RuntimeError("the device is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Chosen, "at", broken)
        failure = messages(engine, request(1)).get(timeout=60)
    assert isinstance(failure, Failure)
    assert "the device is gone" in failure.message
    assert text(messages(engine, request(2)))[0]
    engine.close()
    model.check()
