"""The worker's figures in Prometheus' text form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from inference.wire import Health

if TYPE_CHECKING:
    from inference.engine import Engine
    from inference.managed_llamacpp import ManagedLlamaCpp

COUNTERS = {
    "requests": "Requests that began.",
    "prompt": "Tokens of prompts.",
    "reused": "Prompt tokens found in the prefix cache.",
    "prefilled": "Prompt tokens computed.",
    "decoded": "Tokens generated.",
    "drafted": "Tokens guessed ahead and verified.",
    "accepted": "Guessed tokens that were right.",
    "steps": "Forwards of the model.",
    "given_up": "Forwards broken off, as nobody wanted what they computed and somebody waited.",
}


FIGURES = {
    "queued": "Requests that wait to begin.",
    "slots": "Tokens that the KV pool can hold.",
    "slots_held": "Tokens in the prefix cache.",
    "slots_free": "Slots that hold nothing.",
    "evicted": "Tokens given up for others since the start.",
    "sequences": "Sequences whose KV is kept.",
}


class _Figures:
    """A collector over the engine's own counts, read when asked."""

    def __init__(self, health: Health, engine: Engine | ManagedLlamaCpp | None):
        self._health, self._engine = health, engine

    def collect(self) -> Iterable[Metric]:
        counts: Mapping[str, int] = self._engine.counts if self._engine else {}
        for name, text in COUNTERS.items():
            yield CounterMetricFamily(f"fimble_{name}", text, value=counts.get(name, 0))
        seconds = self._engine.step_seconds if self._engine else 0.0
        yield CounterMetricFamily(
            "fimble_step_seconds", "Time in forwards; over fimble_steps, the mean.", value=seconds
        )
        for name, value in self._engine.figures().items() if self._engine else ():
            yield GaugeMetricFamily(f"fimble_{name}", FIGURES.get(name, name), value=value)
        ends = CounterMetricFamily("fimble_ends", "Completions by the reason for their end.", labels=["reason"])
        for name, value in list(counts.items()):
            if name.startswith("end_"):
                ends.add_metric([name.removeprefix("end_")], value)
        yield ends
        health = self._health
        yield GaugeMetricFamily("fimble_running", "Completions in hand or waiting.", value=health.running)
        yield GaugeMetricFamily("fimble_ready", "1 when the model is loaded.", value=int(health.status == "ready"))
        yield GaugeMetricFamily("fimble_idle_seconds", "Since the last request.", value=health.idle_s)
        yield GaugeMetricFamily("fimble_window_tokens", "Longest prompt and completion.", value=health.window)


def exposition(health: Health, engine: Engine | ManagedLlamaCpp | None) -> bytes:
    """All figures, as `GET /metrics` returns them."""
    registry = CollectorRegistry()
    registry.register(_Figures(health, engine))  # pyright: ignore[reportArgumentType]
    return generate_latest(registry)
