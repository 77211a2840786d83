"""Local figures: several servers add to one file, and nothing of what the user wrote is in it."""

from __future__ import annotations

import datetime
import multiprocessing
from pathlib import Path

import pytest

from lsp_server.metrics import BOUNDS_MS, Metrics, read, reset, together, total
from lsp_server.stats import as_json, table

DAY = datetime.date(2026, 11, 24)


def add(path: Path) -> None:
    """What one server does in a few minutes."""
    metrics = Metrics(path, lambda: DAY)
    for _ in range(20):
        metrics.count("Python", "shown")
        metrics.count("Python", "characters", 3)
        metrics.time("Python", "cache", 2.0)
        metrics.flush()


def test_several_servers_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "stats.json"
    processes = [multiprocessing.get_context("spawn").Process(target=add, args=(path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    totals = read(path)[DAY.isoformat()]["Python"]
    assert totals.counts == {"shown": 80, "characters": 240}
    assert sum(totals.latency["cache"]) == 80
    assert sorted(file.name for file in tmp_path.iterdir()) == ["stats.json", "stats.lock"]


def test_days_and_languages_are_kept_apart_and_summed(tmp_path: Path) -> None:
    path, day = tmp_path / "stats.json", DAY
    metrics = Metrics(path, lambda: day)
    metrics.count("Python", "shown", 4)
    metrics.count("Go", "shown", 2)
    day = DAY + datetime.timedelta(days=1)
    metrics.count("Python", "accepted", 1)
    metrics.flush()
    days = read(path)
    assert total(days, since=day)["Python"].counts == {"accepted": 1}
    assert together(total(days).values()).rate() == pytest.approx(1 / 6)
    assert len(table(days).renderables) == 2
    assert as_json(days)["all"]["Go"]["shown"] == 2


def test_percentiles_are_right_to_the_width_of_a_bucket() -> None:
    metrics = Metrics()
    times = [float(ms) for ms in range(1, 201)]
    for ms in times:
        metrics.time("Python", "model", ms)
    totals = metrics._pending[datetime.date.today().isoformat()]["Python"]
    for share in (0.05, 0.5, 0.95):
        found, exact = totals.percentile("model", share), times[int(share * len(times)) - 1]
        assert found is not None
        below = max([0.0, *(bound for bound in BOUNDS_MS if bound < exact)])
        assert below <= found <= min(bound for bound in BOUNDS_MS if bound >= exact)
    assert totals.percentile("cache", 0.5) is None


def test_a_file_that_is_not_ours_stops_nobody_and_is_told(tmp_path: Path) -> None:
    path = tmp_path / "stats.json"
    path.write_text("[1]")
    metrics = Metrics(path)
    metrics.count("Python", "shown")
    metrics.flush()
    assert path.read_text() == "[1]", "it is not overwritten"
    with pytest.raises(ValueError, match="--reset"):
        read(path)
    reset(path)
    metrics.flush()
    assert together(total(read(path)).values()).counts == {"shown": 1}, "the counts were not lost"
