"""One task and its answer, judged."""

from __future__ import annotations

import re

import attrs

from evaluation.metrics import edit_similarity, first_line
from evaluation.sandbox import run
from evaluation.syntax import imbalance, problems
from evaluation.tasks import Task
from lsp_server.languages import language_of


@attrs.frozen
class Answer:
    """What came of a request: `text` at the cursor, in place of `covers` characters behind it; empty: nothing shown."""

    text: str = ""
    covers: int = 0
    ms: float = 0.0
    logprob: float = 0.0
    """Of the tokens that the model wrote, summed, in nats."""
    tokens: int = 0


@attrs.frozen
class Score:
    """What is kept of an answer. The last five count only where something is shown."""

    task: str
    language: str
    place: str
    lone_bracket: bool
    text: str
    covers: int
    ms: float
    logprob: float
    tokens: int
    first: bool
    """The first line is the one that stood there, up to white space at its end."""
    whole: bool
    """All of it is what stood there."""
    similarity: float
    """Edit similarity of the whole, 0 to 1; of nothing shown 0."""
    passed: bool | None
    """Its program passes its tests; None: there are none."""
    right: bool
    """All that is shown stood there: it may stop earlier, but not inside a word."""
    repeats: bool
    """Its last line stands below it once more, other than in the original."""
    unbalanced: bool
    """It leaves brackets less balanced than they were without it."""
    broken: bool
    """It brings a syntax error that was not there without it."""
    multi_line: bool

    @property
    def shown(self) -> bool:
        return bool(self.text)


def score(task: Task, answer: Answer, *, execute: bool = True) -> Score:
    """Judges an answer; runs the task's tests if it has some and `execute` says so."""
    document = task.before + answer.text + task.after[answer.covers :]
    middle = _middle(task, answer, document)
    grammar = language_of(task.language, "")
    without = task.before + task.after
    shown = bool(answer.text)
    return Score(
        task=task.name,
        language=task.language,
        place=task.place,
        lone_bracket=task.lone_bracket,
        text=answer.text,
        covers=answer.covers,
        ms=round(answer.ms, 1),
        logprob=round(answer.logprob, 3),
        tokens=answer.tokens,
        first=shown and first_line(middle) == first_line(task.middle),
        whole=shown and middle.rstrip() == task.middle.rstrip(),
        similarity=round(edit_similarity(middle.strip(), task.middle.strip()), 4) if shown else 0.0,
        passed=run(task.program(document)) == "passed" if task.test and execute else None,
        right=shown and _right(task, answer),
        repeats=shown and _repeats(task, answer),
        unbalanced=shown and _worse(dict(imbalance(without, grammar)), dict(imbalance(document, grammar))),
        broken=shown and problems(document, grammar) > problems(without, grammar),
        multi_line="\n" in answer.text.strip(),
    )


def _middle(task: Task, answer: Answer, document: str) -> str:
    """What now stands between the texts on both sides of the hole."""
    end = len(document) - len(task.after)
    return (
        document[len(task.before) : end] if end >= len(task.before) and document.endswith(task.after) else answer.text
    )


def _right(task: Task, answer: Answer) -> bool:
    original = task.before + task.middle + task.after
    text = task.before + answer.text.rstrip()
    if not original.startswith(text):
        return False
    return not re.match(r"\w\w", original[len(text) - 1 : len(text) + 1])


def _repeats(task: Task, answer: Answer) -> bool:
    begun = task.before.rpartition("\n")[2]
    after = task.after[answer.covers :]
    return _repeated(begun + answer.text, after) and not _repeated(begun + task.middle, task.after)


def _repeated(text: str, after: str) -> bool:
    """Whether the last line of `text` is the line that follows: the rest of its own line, else the next not blank.

    Lines without a word, such as a lone bracket, count where they stand in the same column.
    """
    rest, _, below = after.partition("\n")
    last = text.rstrip().rpartition("\n")[2]
    if rest.strip():
        return bool(re.search(r"\w", rest)) and last.endswith(rest.rstrip())
    following = next((line for line in below.split("\n") if line.strip()), "").rstrip()
    if re.search(r"\w", last):
        return last.strip() == following.strip()
    return bool(last) and last == following


def _worse(before: dict[str, int], after: dict[str, int]) -> bool:
    return any(abs(after.get(bracket, 0)) > abs(before.get(bracket, 0)) for bracket in ")]}")
