"""What is asked: text with a hole whose middle is known, read from JSON lines in the form of HumanEval-Infilling.

A line holds `task_id`, `prompt`, `suffix` and `canonical_solution`; `test` and `entry_point` where the whole can be run
(Python), `language` (as in LSP) where it is not Python.
"""

from __future__ import annotations

import gzip
import json
import random
import urllib.request
from pathlib import Path
from typing import Any, cast

import attrs
import platformdirs

SOURCE = "https://raw.githubusercontent.com/openai/human-eval-infilling/master/data/"
KNOWN = {
    "single-line": "HumanEval-SingleLineInfilling.jsonl.gz",
    "multi-line": "HumanEval-MultiLineInfilling.jsonl.gz",
    "random-span": "HumanEval-RandomSpanInfilling.jsonl.gz",
    "random-span-light": "HumanEval-RandomSpanInfillingLight.jsonl.gz",
}
"""The sets of HumanEval-Infilling (Bavarian et al. 2022, MIT) by the names that the command takes."""
SECONDS = 60
"""Longest wait for a download."""
BRACKETS = frozenset("()[]{};,")
EXTENSIONS = {
    "c": "c",
    "cpp": "cpp",
    "python": "py",
    "javascript": "js",
    "typescript": "ts",
    "java": "java",
    "go": "go",
    "rust": "rs",
}


class NoSet(Exception):
    """The set can't be had or read; the message says why and what to do."""


@attrs.frozen
class Task:
    """One hole. `before + middle + after` is the text as a person wrote it, with LF line breaks."""

    name: str
    before: str
    middle: str
    after: str
    language: str = "python"
    """As in LSP."""
    place: str = ""
    """What kind of place the cursor stands at, where tasks are picked by that."""
    test: str = ""
    """A program that defines `check(candidate)`; empty: the text can't be run."""
    entry_point: str = ""

    @property
    def lone_bracket(self) -> bool:
        """Whether the middle is brackets and punctuation alone, which anybody can guess."""
        return set(self.middle.split("\n")[0].strip() or self.middle.strip()) <= BRACKETS

    @property
    def inside_word(self) -> bool:
        """Whether the cursor stands between two characters of a word."""
        return _word(self.before[-1:]) and _word(self.middle[:1])

    def in_an_editor(self) -> Task:
        """The same hole where a cursor can be: the line break that ends the middle stays in the document."""
        shorter = self.middle[:-1]
        if not self.middle.endswith("\n") or not shorter.strip():
            return self
        return attrs.evolve(self, middle=shorter, after="\n" + self.after)

    def typed(self, seed: int) -> Task:
        """The hole with part of its first line typed: the cursor at a random column inside the line."""
        line = self.middle.split("\n", 1)[0]
        if len(line) < 2:
            return self
        column = random.Random(f"{seed} {self.name}").randrange(1, len(line))
        return attrs.evolve(self, before=self.before + self.middle[:column], middle=self.middle[column:])

    def program(self, text: str) -> str:
        """The program that tests `text`, the document with the hole filled. It exits with 0 if it passes."""
        return f"{text}\n{self.test}\ncheck({self.entry_point})\n"


def load(name: str, *, offline: bool = False) -> list[Task]:
    """The tasks of a file, or of a set of HumanEval-Infilling by its name in `KNOWN`. Raises `NoSet`."""
    path = Path(name)
    if name in KNOWN and not path.exists():
        path = _download(KNOWN[name], offline)
    try:
        data = path.read_bytes()
        lines = (gzip.decompress(data) if path.suffix == ".gz" else data).decode().splitlines()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        known = ", ".join(KNOWN)
        raise NoSet(f"{name} can't be read ({error}); give a folder, a JSON-lines file, or one of {known}") from None
    return [_task(line, f"{path.name}:{number}") for number, line in enumerate(lines, 1) if line.strip()]


def _task(line: str, place: str) -> Task:
    try:
        record = cast(dict[str, Any], json.loads(line))
        texts = [str(record[key]) for key in ("task_id", "prompt", "canonical_solution", "suffix")]
    except (ValueError, TypeError, KeyError) as error:
        raise NoSet(f"{place} is not a task of an infilling set ({type(error).__name__}: {error})") from None
    more = {key: str(record[key]) for key in ("language", "place", "test", "entry_point") if record.get(key)}
    return Task(*texts, **more)


def _download(file: str, offline: bool) -> Path:
    kept = Path(platformdirs.user_cache_dir("fimble")) / "evaluation" / file
    if kept.is_file():
        return kept
    advice = f"get {SOURCE}{file} by other means and give its path"
    if offline:
        raise NoSet(f"{file} is not in {kept.parent}; {advice}")
    try:
        with urllib.request.urlopen(SOURCE + file, timeout=SECONDS) as answer:
            data = cast(bytes, answer.read())
    except OSError as error:
        raise NoSet(f"{file} can't be downloaded ({error}); {advice}") from None
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(data)
    return kept


def _word(character: str) -> bool:
    return character.isalnum() or character == "_"
