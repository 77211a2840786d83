"""Whether an answer over the prefix cache is the answer without it, on requests that were really made."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from inference.wire import End, FimRequest, Piece
from lsp_server.backends.worker import WorkerBackend

MOST_EXCUSED = 0.005
"""Share of the answers that may differ where the model hardly prefers one token over the next."""


@attrs.frozen
class Answer:
    """One answer with its likeliest tokens at each step."""

    text: str
    steps: list[tuple[tuple[str, float], ...]]
    end: End


@attrs.frozen
class Pair:
    """The same request with the cache and without."""

    cached: Answer
    fresh: Answer

    @property
    def agreeing(self) -> int:
        """Steps before the first at which another token was chosen."""
        chosen = [(a[0][0], b[0][0]) for a, b in zip(self.cached.steps, self.fresh.steps, strict=False)]
        return next((i for i, (a, b) in enumerate(chosen) if a != b), len(chosen))

    @property
    def difference(self) -> float:
        """The largest difference between log-probabilities of the same token where the answers agree."""
        most = 0.0
        for a, b in zip(self.cached.steps[: self.agreeing], self.fresh.steps, strict=False):
            fresh = dict(b)
            most = max([most, *(abs(logprob - fresh[token]) for token, logprob in a if token in fresh)])
        return most

    @property
    def margin(self) -> float:
        """By how much the answer without cache preferred its token where the two part; infinite if they end apart."""
        steps = self.fresh.steps
        if self.agreeing >= min(len(steps), len(self.cached.steps)) or len(steps[self.agreeing]) < 2:
            return float("inf")
        first, second = steps[self.agreeing][:2]
        return first[1] - second[1]


@attrs.frozen
class Verdict:
    """The count: `excused` differ at a margin below `error`, twice the largest difference seen in this run."""

    exact: int
    excused: int
    wrong: int
    error: float
    reused: float
    """Share of the prompts' tokens that the cached answers took from the cache."""
    examples: list[tuple[str, str]]

    @property
    def passed(self) -> bool:
        """Nothing wrong, hardly anything excused."""
        return not self.wrong and self.excused <= MOST_EXCUSED * (self.exact + self.excused)


async def check(
    backend: WorkerBackend, asked: list[tuple[FimRequest | None, FimRequest]], advance: Callable[[], None]
) -> Verdict:
    """Sends each request after the one that went before it (which fills the cache), with the cache and without."""
    pairs: list[Pair] = []
    for before, request in asked:
        if before:
            await _answer(backend, attrs.evolve(before, session="", id="", priority="interactive"))
        plain = attrs.evolve(request, session="", id="", top_logprobs=2)
        cached = await _answer(backend, attrs.evolve(plain, reuse=True))
        pairs.append(Pair(cached, await _answer(backend, attrs.evolve(plain, reuse=False))))
        advance()
    return judge(pairs)


def judge(pairs: list[Pair]) -> Verdict:
    """Counts the pairs."""
    error = 2 * max((pair.difference for pair in pairs), default=0.0)
    different = [pair for pair in pairs if pair.cached.text != pair.fresh.text]
    excused = sum(pair.margin < error for pair in different)
    prompt = sum(pair.cached.end.prompt for pair in pairs)
    return Verdict(
        exact=len(pairs) - len(different),
        excused=excused,
        wrong=len(different) - excused,
        error=error,
        reused=sum(pair.cached.end.reused for pair in pairs) / max(1, prompt),
        examples=[(pair.cached.text, pair.fresh.text) for pair in different][:5],
    )


async def _answer(backend: WorkerBackend, request: FimRequest) -> Answer:
    text, steps, end = "", list[tuple[tuple[str, float], ...]](), End("cancelled")
    async for message in backend.fim(request):
        if isinstance(message, Piece):
            text += message.text
            steps += [message.top] if message.top else []
        else:
            end = message
    return Answer(text, steps, end)
