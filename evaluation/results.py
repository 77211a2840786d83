"""What came of a run: one line a task, added as it is answered, so that a run that broke off can go on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import attrs

from evaluation.score import Score
from evaluation.significance import Difference, bootstrap, mcnemar

Setting = dict[str, Any]
"""All that decides an answer: the way it is asked for, the server's settings, the model, the version."""


class Unfit(Exception):
    """A file of results that does not fit; the message says why."""


def fingerprint(setting: Setting) -> str:
    """Names a setting."""
    return hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:12]


class Results:
    """A file of results: a first line with the setting, then a line a task."""

    def __init__(self, path: Path | None, setting: Setting, *, resume: bool = False):
        """Starts the file anew, or goes on with it. Raises `Unfit` if it is of another setting."""
        self._path, self.setting = path, setting
        self.scores: dict[str, Score] = {}
        if path is None:
            return
        if resume and path.is_file():
            found, self.scores = read(path)
            if fingerprint(found) != fingerprint(setting):
                changed = {name for name in {*found, *setting} if found.get(name) != setting.get(name)}
                raise Unfit(f"{path} is of another setting ({', '.join(sorted(changed))}); give another --out")
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"setting": setting}), *map(_line, self.scores.values())]  # without one that was cut
        path.write_text("\n".join(lines) + "\n", "utf-8")

    def add(self, score: Score) -> None:
        """Keeps a score, in the file too."""
        self.scores[score.task] = score
        if self._path:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line(score) + "\n")


def read(path: Path) -> tuple[Setting, dict[str, Score]]:
    """The setting and the scores of a file, the last line left out if it was cut. Raises `Unfit`."""
    try:
        lines = path.read_text("utf-8").splitlines()
        setting = cast(dict[str, Setting], json.loads(lines[0]))["setting"]
        whole = [line for line in lines[1:] if line.endswith("}")]
        scores = [Score(**cast(dict[str, Any], json.loads(line))) for line in whole]
    except (OSError, UnicodeDecodeError, ValueError, LookupError, TypeError) as error:
        raise Unfit(f"{path} holds no results of `fimble eval` ({error})") from None
    return setting, {score.task: score for score in scores}


def figures(scores: Iterable[Score]) -> dict[str, Any]:
    """A run in figures; shares are of all tasks unless they say otherwise."""
    every = list(scores)
    shown = [score for score in every if score.shown]
    blocks = [score for score in shown if score.multi_line]
    tested = [score.passed for score in every if score.passed is not None]
    wordy = [score for score in every if not score.lone_bracket]
    return {
        "tasks": len(every),
        "shown": _share(score.shown for score in every),
        "first line": _share(score.first for score in every),
        "first line, lone brackets left out": _share(score.first for score in wordy),
        "lone brackets": len(every) - len(wordy),
        "whole": _share(score.whole for score in every),
        "similarity": _share(score.similarity for score in every),
        "pass@1": _share(tested) if tested else None,
        "of the shown: first line": _share(score.first for score in shown),
        "of the shown: all right": _share(score.right for score in shown),
        "of the shown: repeats what follows": _share(score.repeats for score in shown),
        "of the shown: unbalanced brackets": _share(score.unbalanced for score in shown),
        "shown of several lines": len(blocks),
        "of those: no new syntax error": _share(not score.broken for score in blocks),
    }


Measure = Callable[[Score], Any]
"""Of a score; None where there is nothing to measure, and then the task is left out of a comparison."""
MEASURES: dict[str, Measure] = {
    "first line": lambda score: score.first,
    "whole": lambda score: score.whole,
    "pass@1": lambda score: score.passed,
    "shown": lambda score: score.shown,
    "all right": lambda score: score.right,
    "similarity": lambda score: score.similarity if score.shown else None,
}


def differences(first: dict[str, Score], second: dict[str, Score]) -> dict[str, tuple[float, float, Difference]]:
    """By measure, the share in both runs and whether it differs, over the tasks that both have. Raises `Unfit`."""
    names = [name for name in first if name in second]
    if not names:
        raise Unfit("the two runs have no task in common")
    found: dict[str, tuple[float, float, Difference]] = {}
    for measure, value in MEASURES.items():
        pairs = [(value(first[name]), value(second[name])) for name in names]
        known = [(a, b) for a, b in pairs if a is not None and b is not None]
        if not known:
            continue
        a, b = [a for a, _ in known], [b for _, b in known]
        test = bootstrap if measure == "similarity" else mcnemar
        found[measure] = _share(a), _share(b), test(a, b)
    return found


def _line(score: Score) -> str:
    return json.dumps(attrs.asdict(score), ensure_ascii=False)


def _share(values: Iterable[float]) -> float:
    kept = list(values)
    return round(sum(kept) / len(kept), 4) if kept else 0.0
