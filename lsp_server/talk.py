"""`fimble generate` and `fimble chat`: the worker's own words, streamed to a terminal or a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sys
from typing import Any

import attrs
from rich.console import Console
from rich.markup import escape

from inference.endpoint import WorkerSettings
from lsp_server import show
from lsp_server.backends.worker import Lost, Unanswered, WorkerBackend
from lsp_server.text import Position

BARS = ("|", "｜")
"""ASCII's, as model cards show it, and U+FF5C, as the tokenizer has it."""


def unmarked(text: str) -> tuple[str, Position]:
    """A text whose hole is marked as DeepSeek's model card does, without the markers; where the hole is.

    Raises `ValueError` unless there is one hole; the markers around all may be left out.
    """
    for bar in BARS:
        begin, hole, end = (f"<{bar}fim▁{name}{bar}>" for name in ("begin", "hole", "end"))
        if text.count(hole) == 1:
            before, after = text.split(hole)
            if before.startswith(begin):
                before = before.removeprefix(begin)
            if after.rstrip().endswith(end):
                after = after.rstrip().removesuffix(end)
            return before + after, Position(before.count("\n"), len(before) - before.rfind("\n") - 1)
    found = sum(text.count(f"<{bar}fim▁hole{bar}>") for bar in BARS)
    raise ValueError(f"with --markers it must hold one hole, <|fim▁hole|>; it has {found}")


async def generate(
    errors: Console, settings: WorkerSettings, text: str, max_tokens: int, temperature: float, echo: bool
) -> int:
    """Goes on from `text` on standard output; the exit status."""
    backend = await show.ready(errors, lambda follow: WorkerBackend(settings, follow))
    if backend is None:
        return 2
    body = {"prompt": text, "max_tokens": max_tokens, "temperature": temperature, "echo": echo}
    try:
        await _print(backend, "/v1/completions", body)
    except (Unanswered, Lost) as error:
        errors.print(f"[red]fimble:[/red] {escape(str(error))}", soft_wrap=True)
        return 2
    finally:
        await backend.close()
    return 0


async def _print(backend: WorkerBackend, path: str, body: dict[str, Any]) -> str:
    """Prints an answer as it comes, and returns it."""
    said = ""
    async for event in backend.events(path, body):
        for choice in event["choices"]:
            piece = choice["text"] if "text" in choice else choice["delta"].get("content", "")
            sys.stdout.write(piece.encode("utf-8", "replace").decode())
            sys.stdout.flush()
            said += piece
    print()
    return said


@attrs.define
class Chat:
    """A conversation and how it is held."""

    settings: WorkerSettings
    system: str
    max_tokens: int
    temperature: float
    messages: list[dict[str, str]] = attrs.field(factory=list[dict[str, str]])

    async def run(self, errors: Console, message: str) -> int:
        """One question, or line by line until the end of input; the exit status."""
        backend = await show.ready(errors, lambda follow: WorkerBackend(self.settings, follow))
        if backend is None:
            return 2
        if self.system:
            self.messages.append({"role": "system", "content": self.system})
        try:
            if message:
                await self._turn(backend, message)
            else:
                await self._talk(backend, errors)
        except (Unanswered, Lost) as error:
            errors.print(f"[red]fimble:[/red] {escape(str(error))}", soft_wrap=True)
            return 2
        finally:
            await backend.close()
        return 0

    async def _talk(self, backend: WorkerBackend, errors: Console) -> None:
        if sys.stdin.isatty():
            with contextlib.suppress(ImportError):  # Windows has none
                importlib.import_module("readline")  # arrows and earlier lines at the prompt

            errors.print("an empty line is skipped; Ctrl-D ends")
        while (line := await asyncio.to_thread(_line)) is not None:
            if line.strip():
                await self._turn(backend, line)

    async def _turn(self, backend: WorkerBackend, message: str) -> None:
        self.messages.append({"role": "user", "content": message})
        body = {"messages": self.messages, "max_tokens": self.max_tokens, "temperature": self.temperature}
        said = await _print(backend, "/v1/chat/completions", body)
        self.messages.append({"role": "assistant", "content": said})


def _line() -> str | None:
    try:
        return input("> " if sys.stdin.isatty() else "")
    except EOFError:
        return None
