"""A run: every task asked and judged, with its progress, resumable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from evaluation.fill import Filler
from evaluation.results import Results
from evaluation.score import score
from evaluation.tasks import Task

AT_ONCE = 1
"""Tasks asked at the same time: the answers are those of an editor that has the model to itself."""


async def run(
    tasks: Iterable[Task],
    filler: Filler,
    results: Results,
    *,
    execute: bool = True,
    jobs: int = AT_ONCE,
    done: Callable[[], None] = lambda: None,
) -> None:
    """Answers and judges the tasks that `results` lacks. An answer that fails ends the run, what is done is kept."""
    waiting = iter([task for task in tasks if task.name not in results.scores])

    async def work() -> None:
        for task in waiting:
            answer = await filler.fill(task)
            results.add(await asyncio.to_thread(score, task, answer, execute=execute))
            done()

    async with asyncio.TaskGroup() as group:
        for _ in range(jobs):
            group.create_task(work())
