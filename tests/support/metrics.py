"""Collects what is sent through Airflow's own statistics."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any

#: Airflow's statistics: of the process of a task, and of a triggerer (3.2 and later).
MODULES = (
    "airflow.sdk._shared.observability.metrics.stats",
    "airflow._shared.observability.metrics.stats",
)


@dataclass
class Metrics:
    """A backend of Airflow's statistics.

    :param sent: kind, name, value and tags of each metric of this package.
    """

    sent: list[tuple[str, str, float, dict[str, str]]] = field(default_factory=list)

    def _record(self, kind: str, name: str, value: float, tags: dict[str, str] | None) -> None:
        if name.startswith("cdm."):
            self.sent.append((kind, name, value, dict(tags or {})))

    def incr(self, stat: str, count: int = 1, rate: float = 1, *, tags: Any = None) -> None:
        self._record("counter", stat, count, tags)

    def decr(self, stat: str, count: int = 1, rate: float = 1, *, tags: Any = None) -> None:
        self._record("counter", stat, -count, tags)

    def gauge(
        self, stat: str, value: float, rate: float = 1, delta: bool = False, *, tags: Any = None
    ) -> None:
        self._record("gauge", stat, value, tags)

    def timing(self, stat: str, dt: Any, *, tags: Any = None) -> None:
        self._record("timing", stat, dt, tags)

    def counts(self, prefix: str) -> dict[str, float]:
        """Return the sums of the counters whose names begin with a prefix, without it."""
        totals: dict[str, float] = {}
        for kind, name, value, _ in self.sent:
            if kind == "counter" and name.startswith(prefix):
                short = name.removeprefix(prefix)
                totals[short] = totals.get(short, 0) + value
        return totals

    def values(self, name: str) -> list[float]:
        """Return the values of a metric, in their order."""
        return [value for _, sent, value, _ in self.sent if sent == name]

    def tags(self, name: str) -> dict[str, str]:
        """Return the tags of the last metric of a name."""
        return [tags for _, sent, _, tags in self.sent if sent == name][-1]


def install(metrics: Metrics, monkeypatch: Any, module: str = MODULES[0]) -> None:
    """Make Airflow send metrics to a backend, as its own processes set it up.

    :param module: statistics that are set up; below Airflow 3.2 there is one kind only.
    """
    try:
        stats = importlib.import_module(module)
    except ImportError:
        monkeypatch.setattr(type(importlib.import_module("airflow.stats").Stats), "instance", None)
        monkeypatch.setattr(importlib.import_module("airflow.stats").Stats, "instance", metrics)
        return
    in_class = not hasattr(stats, "_factory")  # Airflow 3.2
    factory, backend = ("factory", "instance") if in_class else ("_factory", "_backend")
    for name in MODULES:
        holder = importlib.import_module(name)
        monkeypatch.setattr(holder.Stats if in_class else holder, factory, None)
        monkeypatch.setattr(holder.Stats if in_class else holder, backend, None)
    monkeypatch.setattr(stats.Stats if in_class else stats, factory, lambda: metrics)
