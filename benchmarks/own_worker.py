"""A worker for one benchmark alone: its own state and socket, gone when the benchmark ends."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

from inference.endpoint import WorkerSettings, endpoint
from lsp_server.backends.worker import State, WorkerBackend

SETTINGS = WorkerSettings(idle_minutes=5)
"""A benchmark that is killed leaves its worker behind for no longer than this."""


class NoWorker(Exception):
    """The worker could not be brought up; the message says why."""


@contextlib.contextmanager
def own_state() -> Generator[Path, None, None]:
    """Points this process and its children at an empty state folder, and so at no editor's worker."""
    before = os.environ.get("XDG_STATE_HOME")
    with tempfile.TemporaryDirectory(prefix="fimble-", ignore_cleanup_errors=True) as folder:
        os.environ["XDG_STATE_HOME"] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ["XDG_STATE_HOME"]
            if before is not None:
                os.environ["XDG_STATE_HOME"] = before


@contextlib.asynccontextmanager
async def worker(settings: WorkerSettings = SETTINGS) -> AsyncGenerator[WorkerBackend, None]:
    """A loaded worker, stopped at the end if it was started here. Raises `NoWorker`."""
    last = State("absent")

    def follow(state: State) -> None:
        nonlocal last
        last = state

    backend = WorkerBackend(settings, follow)
    found = await backend.look()
    try:
        await backend.ensure()
        if backend.ready is None:
            raise NoWorker(last.message)
        yield backend
    finally:
        if found is None:
            await backend.stop()
        await backend.close()


def complaints(settings: WorkerSettings = SETTINGS) -> list[str]:
    """Lines of the worker's log that tell of trouble."""
    log = endpoint(settings).log
    lines = log.read_text("utf-8", "replace").splitlines() if log.is_file() else []
    return [line for line in lines if " WARNING " in line or " ERROR " in line or line.startswith("Traceback")]
