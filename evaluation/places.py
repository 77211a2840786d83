"""Holes in a folder's own files, at the places where people's cursors are.

Where a line is being written, what stands behind the cursor on it is taken out, as it would not be there yet; inside
brackets and on blank lines the text after it stays.
"""

from __future__ import annotations

import itertools
import os
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

from evaluation.syntax import problems
from evaluation.tasks import Task
from lsp_server.languages import PLAIN, Language, language_of

MOST_BYTES = 60_000
FEWEST_LINES = 20
LONGEST_LINE = 160
"""Characters; files with longer lines are data or were not written by hand."""
LONGEST_BLOCK = 8
"""Lines of a block that is taken out."""
SKIPPED = re.compile(r"^(\..*|node_modules|vendor|third_party|dist|build|target|__pycache__|venv|site-packages)$")
GENERATED = re.compile(r"generated|do not edit|@license|minified", re.IGNORECASE)
WORDY = ("Python", "JavaScript", "TypeScript", "TSX", "Java", "Go", "Rust", "C", "C++", "C#", "Ruby", "PHP", "Lua")
"""Languages in which holes are picked: code that people type."""

TRIES = 200
"""Rows looked at for a hole of one kind in a file."""
_COMMENT = re.compile(r"\s*(#|//|/?\*|.*\*/|\"\"\"|'use strict')")
_WORD = re.compile(r"[A-Za-z_]\w+")
_AFTER_OPENER = re.compile(
    r"(?:[(\[{,.=:]|=>|->|&&|\|\|)\s?(?=\S)|\b(?:return|if|for|while|in|new|import|from)\s(?=\S)"
)
_CALL = re.compile(r"\w\((?=[^()\s])")


@attrs.frozen
class Source:
    """A file as holes are picked in it."""

    name: str
    """Its path in the folder, or in the package."""
    language: str
    """As in LSP."""
    text: str

    @property
    def grammar(self) -> Language:
        return language_of(self.language, self.name)


def sources(folder: Path) -> list[Source]:
    """The files of a folder that are source in a known language, in the order of their paths."""
    found: list[Source] = []
    for top, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not SKIPPED.match(name))
        for name in sorted(files):
            path = Path(top) / name
            try:
                if path.stat().st_size > MOST_BYTES:
                    continue
                text = path.read_bytes().decode()
            except (OSError, UnicodeDecodeError):  # what is no text, or can't be read, is no place to complete in
                continue
            if source := usable(path.relative_to(folder).as_posix(), text):
                found.append(source)
    return found


def usable(name: str, text: str) -> Source | None:
    """The file as a source of holes; None if it isn't one: no such language, generated, or with syntax errors."""
    language = language_of("", name)
    if language is PLAIN or language.name not in WORDY or "\r" in text or "\t\t\t\t\t\t\t\t" in text:
        return None
    lines = text.split("\n")
    if len(lines) < FEWEST_LINES or len(text) > MOST_BYTES or max(map(len, lines)) > LONGEST_LINE:
        return None
    if GENERATED.search(text[:600]) or problems(text, language):
        return None
    identifier = {"TSX": "typescriptreact", "C++": "cpp", "C#": "csharp"}.get(language.name, language.name.lower())
    return Source(name, identifier, text)


def pick(files: list[Source], count: int, seed: int) -> list[Task]:
    """`count` holes (fewer if the files have fewer), spread over the files; the same for the same seed and files."""
    chance = random.Random(seed)
    order = sorted(files, key=lambda file: file.name)
    chance.shuffle(order)
    kinds = [kind for kind, weight in PLACES.items() for _ in range(weight)]
    tasks: dict[str, Task] = {}
    misses = 0
    for source in itertools.cycle(order):
        if len(tasks) >= count or misses > 3 * len(order):
            break
        task = _one(source, chance.choice(kinds), chance)
        misses = misses + 1 if task is None or task.name in tasks else 0
        if task:
            tasks.setdefault(task.name, task)
    return list(tasks.values())


def _one(source: Source, place: str, chance: random.Random) -> Task | None:
    lines, grammar = source.text.split("\n"), source.grammar
    for _ in range(TRIES):
        row = chance.randrange(_head(lines) + 1, len(lines))
        hole = PICKERS[place](lines, row, grammar, chance)
        if hole is None:
            continue
        column, end_row, end_column = hole
        before = "\n".join([*lines[:row], lines[row][:column]])
        after = "\n".join([lines[end_row][end_column:], *lines[end_row + 1 :]])
        middle = source.text[len(before) : len(source.text) - len(after)]
        if middle.strip():
            name = f"{source.name}:{row + 1}:{column + 1} {place}"
            return Task(name, before, middle, after, source.language, place)
    return None


def _head(lines: list[str]) -> int:
    """The first row after a file's opening comment, which nobody types."""
    inside = False
    for row, line in enumerate(lines[:-2]):
        inside = (inside or line.lstrip().startswith("/*")) and "*/" not in line
        if line.strip() and not inside and not _COMMENT.match(line):
            return row
    return 0


Hole = tuple[int, int, int]
"""The column where it begins, and the row and column where it ends."""


def _within_word(lines: list[str], row: int, _: Language, chance: random.Random) -> Hole | None:
    words = list(_WORD.finditer(lines[row]))
    if not words:
        return None
    word = chance.choice(words)
    return chance.randrange(word.start() + 1, word.end()), row, len(lines[row].rstrip())


def _after_opener(lines: list[str], row: int, _: Language, chance: random.Random) -> Hole | None:
    places = [match.end() for match in _AFTER_OPENER.finditer(lines[row])]
    return (chance.choice(places), row, len(lines[row].rstrip())) if places else None


def _in_call(lines: list[str], row: int, _: Language, chance: random.Random) -> Hole | None:
    """Between the brackets of a call, the closing one and the rest of the line still there."""
    line = lines[row]
    calls = [match.end() for match in _CALL.finditer(line)]
    if not calls:
        return None
    begin = chance.choice(calls)
    depth = 0
    for at in range(begin, len(line)):
        depth += (line[at] in "([{") - (line[at] in ")]}")
        if depth < 0:
            return begin, row, at
    return None


def _blank_line(lines: list[str], row: int, _: Language, __: random.Random) -> Hole | None:
    """A line of a block, not yet begun: the cursor at its indentation."""
    line, above = lines[row], lines[row - 1]
    if not line.strip() or not above.strip() or not _indentation(line):
        return None
    return _indentation(line), row, len(line)


def _block(lines: list[str], row: int, language: Language, chance: random.Random) -> Hole | None:
    """The body of a block below the line that opens it; half of the time also the line that closes it."""
    opener = language.block_after(language.split(lines[row - 1])[0])
    indentation = _indentation(lines[row - 1])
    if opener is None or not lines[row].strip() or _indentation(lines[row]) <= indentation:
        return None
    last = row
    for at in range(row, min(len(lines), row + LONGEST_BLOCK + 1)):
        if lines[at].strip():
            if _indentation(lines[at]) <= indentation:
                closes = lines[at].strip().startswith(opener.closers) if opener.closers else False
                if closes and lines[at].strip() in opener.closers and chance.random() < 0.5:
                    last = at
                return _indentation(lines[row]), last, len(lines[last])
            last = at
    return None


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))


PICKERS: dict[str, Callable[[list[str], int, Language, random.Random], Hole | None]] = {
    "inside a word": _within_word,
    "after an opener": _after_opener,
    "in a call": _in_call,
    "blank line": _blank_line,
    "block": _block,
}
PLACES = {"inside a word": 6, "after an opener": 4, "in a call": 3, "blank line": 4, "block": 3}
"""In what proportion the places are picked."""


def numbered(tasks: list[Task]) -> Iterator[str]:
    """The lines of a JSON-lines file of these tasks, for others to read with `tasks.load`."""
    import json

    for task in tasks:
        fields = {"task_id": task.name, "prompt": task.before, "suffix": task.after, "canonical_solution": task.middle}
        yield json.dumps(fields | {"language": task.language, "place": task.place}, ensure_ascii=False)
