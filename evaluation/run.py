"""A run: every task asked and judged, one after the other, as an editor that has the model to itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from evaluation.fill import Filler
from evaluation.results import Results
from evaluation.score import score
from evaluation.tasks import Task


async def run(
    tasks: Iterable[Task],
    filler: Filler,
    results: Results,
    *,
    execute: bool = True,
    done: Callable[[], None] = lambda: None,
) -> None:
    """Answers and judges the tasks that `results` lacks. What `filler` raises ends the run; what is done is kept."""
    for task in tasks:
        if task.name not in results.scores:
            answer = await filler.fill(task)
            results.add(await asyncio.to_thread(score, task, answer, execute=execute))
            done()
