"""Local figures: what was suggested, accepted and waited for. No text of the user's, and nothing leaves the machine.

A server counts in memory and adds its counts to one file of daily totals in the state folder, at most once a minute and
at its end. Several servers may do so at once: adding is reading, summing and replacing under a file lock.
"""

from __future__ import annotations

import bisect
import contextlib
import datetime
import json
import logging
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, cast

import attrs

log = logging.getLogger(__name__)

Event = Literal["requests", "answers", "shown", "accepted", "partly", "dismissed", "characters"]
Source = Literal["cache", "model"]

EVENTS: tuple[Event, ...] = ("requests", "answers", "shown", "accepted", "partly", "dismissed", "characters")
SOURCES: tuple[Source, ...] = ("cache", "model")
BOUNDS_MS = (
    *(0.5, 0.7, 1, 1.4, 2, 2.8, 4, 5.6, 8, 11, 16, 22, 32, 45, 64, 90, 128),
    *(180, 256, 360, 512, 720, 1024, 1440, 2048, 2900, 4096, 8192),
)
"""Upper ends of the latency histograms' buckets; one more bucket holds what took longer."""
FILE = "stats.json"
"""In the state folder."""
LOCK_S = 2.0
"""Longest wait for another server's adding; then the counts stay in memory until the next time."""


@attrs.define
class Totals:
    """One day of one language, or a sum of them."""

    counts: dict[str, int] = attrs.field(factory=dict[str, int])
    latency: dict[str, list[int]] = attrs.field(factory=dict[str, list[int]])
    """By source: how many answers with text fell into each bucket."""

    def add(self, other: Totals) -> None:
        """Adds another's figures to these."""
        for name, count in other.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        for source, buckets in other.latency.items():
            own = self.latency.setdefault(source, [0] * (len(BOUNDS_MS) + 1))
            self.latency[source] = [a + b for a, b in zip(own, buckets, strict=True)]

    def percentile(self, source: Source, share: float) -> float | None:
        """Milliseconds below which `share` of the answers came, to the width of a bucket; None of none."""
        buckets = self.latency.get(source, [])
        wanted, before = share * sum(buckets), 0
        if not wanted:
            return None
        for i, count in enumerate(buckets):
            if before + count >= wanted:
                low = BOUNDS_MS[i - 1] if i else 0.0
                high = BOUNDS_MS[min(i, len(BOUNDS_MS) - 1)]
                return round(low + (high - low) * (wanted - before) / count, 2)
            before += count
        return None

    def rate(self) -> float | None:
        """Suggestions accepted, wholly or partly, of those shown."""
        shown = self.counts.get("shown", 0)
        return (self.counts.get("accepted", 0) + self.counts.get("partly", 0)) / shown if shown else None


Days = dict[str, dict[str, Totals]]
"""Totals by day (ISO, local time) and language."""


class Metrics:
    """One server's counts since they were last added to the file. `path` None: they are not kept."""

    def __init__(self, path: Path | None = None, today: Callable[[], datetime.date] = datetime.date.today):
        self.path, self._today = path, today
        self._pending: Days = {}
        self._guard = threading.Lock()

    def count(self, language: str, event: Event, number: int = 1) -> None:
        """Counts an event."""
        with self._guard:
            counts = self._of(language).counts
            counts[event] = counts.get(event, 0) + number

    def time(self, language: str, source: Source, ms: float) -> None:
        """Counts an answer's time from request to answer."""
        with self._guard:
            buckets = self._of(language).latency.setdefault(source, [0] * (len(BOUNDS_MS) + 1))
            buckets[bisect.bisect_left(BOUNDS_MS, ms)] += 1

    def flush(self) -> None:
        """Adds what was counted to the file. Called from any thread; failing is logged, and tried again later."""
        with self._guard:
            pending, self._pending = self._pending, {}
        if not pending or self.path is None:
            return
        try:
            with _locked(self.path):
                days = read(self.path)
                _add(days, pending)
                _write(self.path, days)
        except (OSError, ValueError, TimeoutError) as error:
            log.warning("the figures could not be added to %s: %s", self.path, error)
            with self._guard:
                _add(self._pending, pending)

    def _of(self, language: str) -> Totals:
        return self._pending.setdefault(self._today().isoformat(), {}).setdefault(language, Totals())


def read(path: Path) -> Days:
    """The totals in a file, none if there is none. Raises `ValueError` for one that is not of this form."""
    if not path.is_file():
        return {}
    try:
        stored = cast(dict[str, dict[str, dict[str, Any]]], json.loads(path.read_text("utf-8"))["days"])
        return {
            day: {name: Totals(dict(t["counts"]), dict(t["latency"])) for name, t in languages.items()}
            for day, languages in stored.items()
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{path} is not a file of fimble's figures ({error}); `fimble stats --reset` removes it"
        ) from error


def total(days: Days, since: datetime.date | None = None) -> dict[str, Totals]:
    """Sums by language, of all days or from one on."""
    sums: dict[str, Totals] = {}
    for day, languages in days.items():
        if since is None or day >= since.isoformat():
            for name, totals in languages.items():
                sums.setdefault(name, Totals()).add(totals)
    return sums


def together(totals: Iterable[Totals]) -> Totals:
    """One sum of several."""
    summed = Totals()
    for one in totals:
        summed.add(one)
    return summed


def reset(path: Path) -> None:
    """Removes the file."""
    with _locked(path):
        path.unlink(missing_ok=True)


def _add(days: Days, more: Days) -> None:
    for day, languages in more.items():
        for name, totals in languages.items():
            days.setdefault(day, {}).setdefault(name, Totals()).add(totals)


def _write(path: Path, days: Days) -> None:
    new = path.with_suffix(f".{os.getpid()}.new")
    fields = {day: {name: attrs.asdict(t) for name, t in sorted(of.items())} for day, of in sorted(days.items())}
    try:
        new.write_text(json.dumps({"days": fields}, separators=(",", ":")), "utf-8")
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path) -> Any:
    from filelock import FileLock  # late: starting needs none

    with FileLock(path.with_suffix(".lock"), timeout=LOCK_S):
        yield
