"""Situations of a cursor: a text, what the model says there (recorded), and the edit that a user would want.

Each file `LANGUAGE.txt` holds rows like this one; `‸` is the cursor, and what stands between it and `¦` was closed by
the editor:

    === call, bracket closed by the editor
      total = sum(‸)¦
    < values)
    > values)
    = covers 1

Lines that begin with two spaces are the document, with `< ` the model's own text without any stops but the length,
with `> ` the text of the edit. `= covers N` says how many characters after the cursor the edit replaces, `= cut` that
the model had more to say, `= nothing` that nothing is to be shown, `= menu TEXT` what the selected entry of an open
completion menu would put in place of the word before the cursor.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import attrs

from inference.stops import Stopper
from inference.wire import End, FimRequest, Health, Piece
from lsp_server.completion import Completer, Completion
from lsp_server.documents import Document
from lsp_server.menu import Selected
from lsp_server.session import Session
from lsp_server.settings import Settings
from lsp_server.shaping import ALL, Shaping
from lsp_server.text import Position

FOLDER = Path(__file__).parent
CURSOR, CLOSED = "‸", "¦"
RECORDED = 64
"""Tokens of a recording."""


@attrs.define
class Situation:
    """One row. `text` has the marks in it."""

    language: str
    name: str
    text: str
    said: str | None = None
    cut: bool = False
    wanted: str | None = None
    covers: int = 0
    menu: str = ""

    @property
    def identifier(self) -> str:
        """For pytest."""
        return f"{self.language}: {self.name}"

    @property
    def before(self) -> str:
        """The text up to the cursor."""
        return self.text.split(CURSOR)[0]

    @property
    def closers(self) -> str:
        """Closed by the editor."""
        after = self.text.split(CURSOR)[1]
        return after.split(CLOSED)[0] if CLOSED in after else ""

    @property
    def after(self) -> str:
        """The text from the cursor on."""
        return self.text.split(CURSOR)[1].replace(CLOSED, "", 1) if CLOSED in self.text else self.text.split(CURSOR)[1]

    @property
    def cursor(self) -> Position:
        """The place of the cursor."""
        return Position(self.before.count("\n"), len(self.before) - self.before.rfind("\n") - 1)

    @property
    def selected(self) -> Selected | None:
        """The selected entry of the menu."""
        if not self.menu:
            return None
        line, column = self.cursor
        word = re.search(r"\w*$", self.before)
        assert word
        return Selected(Position(line, column - len(word.group())), self.cursor, self.menu)

    def session(self) -> Session:
        """The document as an editor would have sent it, its tree up to date."""
        document = Document(f"file:///w/{self.name}", self.language, 1, self.before + self.after)
        row, column = self.cursor
        document.closers = [Position(row, column + i) for i in range(len(self.closers))]
        session = Session(document, "anchored")
        session.tree.parse()
        return session


def load(path: Path) -> list[Situation]:
    """The rows of a file. Raises `ValueError` for a line that belongs to nothing."""
    rows: list[Situation] = []
    blank = 0
    for number, line in enumerate([*path.read_text("utf-8").split("\n"), "=== "], 1):
        if line.startswith("=== "):
            blank = 0
            rows.append(Situation(path.stem, line[4:].strip(), ""))
            continue
        if not line.strip():
            blank += 1
            continue
        row, mark, rest = rows[-1], line[:2], line[2:]
        if mark == "  ":
            row.text += "\n" * (blank + bool(row.text)) + rest
        elif mark == "< ":
            row.said = rest if row.said is None else f"{row.said}\n{rest}"
        elif mark == "> ":
            row.wanted = rest if row.wanted is None else f"{row.wanted}\n{rest}"
        elif line.startswith("= covers "):
            row.covers = int(line[9:])
        elif line.startswith("= menu "):
            row.menu = line[7:]
        elif line == "= cut":
            row.cut = True
        elif line != "= nothing":
            raise ValueError(f"{path.name}:{number}: {line!r} belongs to nothing")
        blank = 0
    del rows[-1]
    return rows


def save(path: Path, rows: list[Situation]) -> None:
    """Writes the rows back as `load` reads them."""
    out: list[str] = []
    for row in rows:
        out.append(f"=== {row.name}")
        out += [f"  {line}" if line else "" for line in row.text.split("\n")]
        if row.menu:
            out.append(f"= menu {row.menu}")
        if row.said is not None:
            out += [f"< {line}" for line in row.said.split("\n")]
        out += ["= cut"] * row.cut
        out += [f"> {line}" for line in row.wanted.split("\n")] if row.wanted is not None else ["= nothing"]
        out += [f"= covers {row.covers}"] * bool(row.covers)
        out.append("")
    path.write_text("\n".join(out), "utf-8")


def all_situations() -> list[Situation]:
    """Of all languages."""
    return [row for path in sorted(FOLDER.glob("*.txt")) for row in load(path)]


Chunks = Callable[[str], list[str]]


def words(text: str) -> list[str]:
    """Pieces much like tokens."""
    return re.findall(r"\s?\w+|\s+|[^\w\s]+", text)


class Replay:
    """A `Backend` that says again what was recorded, under the request's stops."""

    def __init__(self, row: Situation, chunks: Chunks = words):
        self._row, self._chunks = row, chunks

    @property
    def ready(self) -> Health:
        return Health("ready", "1", "replay", "", 0, window=4096, chars_per_token=3.0)

    def ensure(self) -> asyncio.Task[None]:
        return asyncio.ensure_future(asyncio.sleep(0))

    async def fim(self, request: FimRequest) -> AsyncGenerator[Piece | End, None]:
        stopper = Stopper(request.stops)
        for chunk in self._chunks(self._row.said or ""):
            if certain := stopper.feed(chunk):
                yield Piece(certain, -0.01)
            if stopper.reason:
                break
        if rest := stopper.finish("tokens" if self._row.cut else "eos"):
            yield Piece(rest, -0.01)
        yield End(stopper.reason or "eos")


def complete(row: Situation, shaping: Shaping = ALL, chunks: Chunks = words) -> Completion | None:
    """The edit that the recording becomes."""

    async def run() -> Completion | None:
        settings = Settings(completion_cache=False, speculation=False)
        completer = Completer(Replay(row, chunks), settings, shaping=shaping)
        if row.selected:
            return await completer.complete_behind(row.session(), row.cursor, row.selected)
        return await completer.complete(row.session(), row.cursor)

    return asyncio.run(run())
