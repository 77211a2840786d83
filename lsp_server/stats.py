"""`fimble stats`: the daily totals of today, of a week and of all time, by language."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from rich.console import Group
from rich.table import Table

from lsp_server.metrics import SOURCES, Days, Totals, together, total

PERIODS = {"today": 0, "7 days": 6, "all": None}
"""Days before today that belong to it; None: all."""
EVERY = "all languages"
SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def periods(days: Days, today: datetime.date | None = None) -> dict[str, dict[str, Totals]]:
    """Totals by period and language, each period with a sum under `EVERY`."""
    today = today or datetime.date.today()
    found: dict[str, dict[str, Totals]] = {}
    for name, before in PERIODS.items():
        since = None if before is None else today - datetime.timedelta(days=before)
        by_language = total(days, since)
        found[name] = {EVERY: together(by_language.values())} | dict(sorted(by_language.items()))
    return found


def as_json(days: Days) -> dict[str, Any]:
    """The figures as plain data; milliseconds, rates from 0 to 1, null where there is nothing to say."""
    return {
        period: {language: _figures(totals) for language, totals in languages.items()}
        for period, languages in periods(days).items()
    }


def _figures(totals: Totals) -> dict[str, Any]:
    latency = {source: {name: totals.percentile(source, share) for name, share in SHARES.items()} for source in SOURCES}
    return {
        "requests": totals.counts.get("requests", 0),
        "answers": totals.counts.get("answers", 0),
        "shown": totals.counts.get("shown", 0),
        "accepted": totals.counts.get("accepted", 0),
        "partly": totals.counts.get("partly", 0),
        "dismissed": totals.counts.get("dismissed", 0),
        "characters_saved": totals.counts.get("characters", 0),
        "acceptance_rate": totals.rate(),
        "without_model": _share(totals),
        "latency_ms": latency,
    }


def _share(totals: Totals) -> float | None:
    cached, asked = (sum(totals.latency.get(source, ())) for source in SOURCES)
    return round(cached / (cached + asked), 4) if cached + asked else None


def table(days: Days) -> Group:
    """The figures for people: by period, and of all time by language."""
    found = as_json(days)
    of_all = {period: languages[EVERY] for period, languages in found.items()}
    sums = Table("", *of_all, title="counted on this machine, up to the last minute; nothing leaves it")
    for title, figure in ROWS.items():
        sums.add_row(title, *(figure(figures) for figures in of_all.values()))
    titles = ("suggestions shown", "acceptance", "characters saved", "answered without the model")
    languages = Table("all time", *titles)
    for language, figures in found["all"].items():
        if language != EVERY:
            languages.add_row(language, *(ROWS[title](figures) for title in titles))
    return Group(sums, languages)


def _latency(source: str) -> Callable[[dict[str, Any]], str]:
    return lambda figures: " / ".join(_ms(figures["latency_ms"][source][share]) for share in SHARES)


ROWS: dict[str, Callable[[dict[str, Any]], str]] = {
    "suggestions shown": lambda figures: str(figures["shown"]),
    "accepted": lambda figures: str(figures["accepted"]),
    "accepted in part": lambda figures: str(figures["partly"]),
    "dismissed": lambda figures: str(figures["dismissed"]),
    "acceptance": lambda figures: _percent(figures["acceptance_rate"]),
    "characters saved": lambda figures: str(figures["characters_saved"]),
    "answered without the model": lambda figures: _percent(figures["without_model"]),
    "those, ms p50 / p95 / p99": _latency("cache"),
    "by the model, ms": _latency("model"),
}


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"
