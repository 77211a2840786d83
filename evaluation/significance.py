"""Whether two settings differ by more than chance, on the same tasks."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import attrs

RESAMPLES = 2_000


@attrs.frozen
class Difference:
    """From the first setting to the second. `p`: two-sided. `low`, `high`: 95 % of the mean difference, if known."""

    mean: float
    p: float
    low: float | None = None
    high: float | None = None

    @property
    def significant(self) -> bool:
        return self.p < 0.05


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> Difference:
    """McNemar's exact test: of the tasks on which they differ, is each side as likely to be right?"""
    gained = sum(b and not a for a, b in zip(first, second, strict=True))
    lost = sum(a and not b for a, b in zip(first, second, strict=True))
    n, fewer = gained + lost, min(gained, lost)
    tail = sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n
    return Difference((gained - lost) / max(1, len(first)), min(1.0, 2 * tail))


def bootstrap(first: Sequence[float], second: Sequence[float], seed: int = 1) -> Difference:
    """Paired bootstrap of the mean difference: 2,000 resamples of the tasks with replacement."""
    differences = [b - a for a, b in zip(first, second, strict=True)]
    if not any(differences):
        return Difference(0.0, 1.0, 0.0, 0.0)
    chance = random.Random(seed)
    n = len(differences)
    means = sorted(sum(chance.choices(differences, k=n)) / n for _ in range(RESAMPLES))
    beyond = min(sum(mean <= 0 for mean in means), sum(mean >= 0 for mean in means))
    p = min(1.0, 2 * (beyond + 1) / (RESAMPLES + 1))
    return Difference(sum(differences) / n, p, means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES)])


def bootstrap_shares(
    first: Sequence[tuple[bool, bool]], second: Sequence[tuple[bool, bool]], seed: int = 1
) -> Difference:
    """Paired bootstrap of the share of right ones among those shown; each task is (shown, right) in both settings."""

    def share(counts: tuple[int, int]) -> float:
        return counts[1] / counts[0] if counts[0] else 0.0

    tasks = [(int(a), int(a and b), int(c), int(c and d)) for (a, b), (c, d) in zip(first, second, strict=True)]
    chance = random.Random(seed)

    def difference(sample: Sequence[tuple[int, int, int, int]]) -> float:
        shown, right, also_shown, also_right = (sum(column) for column in zip(*sample, strict=True))
        return share((also_shown, also_right)) - share((shown, right))

    if not tasks or all(a == c and b == d for a, b, c, d in tasks):
        return Difference(0.0, 1.0, 0.0, 0.0)
    means = sorted(difference(chance.choices(tasks, k=len(tasks))) for _ in range(RESAMPLES))
    beyond = min(sum(mean <= 0 for mean in means), sum(mean >= 0 for mean in means))
    p = min(1.0, 2 * (beyond + 1) / (RESAMPLES + 1))
    return Difference(difference(tasks), p, means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES)])
