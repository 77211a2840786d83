"""Whether a machine did something else while it was measured."""

from __future__ import annotations

from typing import Any

import psutil

IDLE = 0.1
"""Share of the processors that may be busy with other work."""


class Quiet:
    """Looks for a second, then counts what processes other than this one and its children use until `finish`."""

    def __init__(self) -> None:
        self.before = psutil.cpu_percent(1.0) / 100
        self.others: float | None = None
        self._began = self._used()

    @property
    def idle(self) -> bool:
        """Whether others use less than `IDLE` of the processors, as far as is known."""
        return max(self.before, self.others or 0.0) < IDLE

    @property
    def figures(self) -> dict[str, Any]:
        """For a result."""
        during = None if self.others is None else round(self.others, 3)
        return {"busy before": round(self.before, 3), "others meanwhile": during, "idle": self.idle}

    def finish(self) -> None:
        """The measuring is over; its children have ended."""
        busy, all_, mine = (now - then for now, then in zip(self._used(), self._began, strict=True))
        self.others = max(0.0, busy - mine) / all_ if all_ else 0.0

    def _used(self) -> tuple[float, float, float]:
        """Seconds of processor time: busy, in all, and of this process and the children that it has waited for."""
        times, own = psutil.cpu_times(), psutil.Process().cpu_times()
        rest = times.idle + getattr(times, "iowait", 0.0)
        mine = own.user + own.system + getattr(own, "children_user", 0.0) + getattr(own, "children_system", 0.0)
        return sum(times) - rest, sum(times), mine

    def __str__(self) -> str:
        meanwhile = "" if self.others is None else f", {self.others:.0%} by others meanwhile"
        return f"processors {self.before:.0%} busy before{meanwhile}"
