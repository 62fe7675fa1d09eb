"""Scripted misbehaviour: which answer goes wrong, in which way, and whether the effect happens."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from airflow_provider_cdm.simulator.config.reader import ConfigError

Kind = Literal["drop", "reset", "hang", "delay", "status", "body"]
When = Literal["before", "after"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One misbehaviour of one route.

    Kinds: ``drop`` closes the connection without an answer; ``reset`` does so with a TCP reset;
    ``hang`` is silent for ``seconds`` (for ever without) and then closes; ``delay`` answers late;
    ``status`` answers with that HTTP status; ``body`` answers 200 with that body.

    :param route: short route name, such as ``start``; ``*`` is every route.
    :param kind: see above.
    :param when: ``before``: the request has no effect (with ``delay``: the effect is late as well);
        ``call_later``: it has, and then the answer goes wrong. A refused request does not use up an
        ``call_later`` fault, for it had no effect.
    :param times: how many requests it hits; ``None`` for all.
    :param skip: how many matching requests pass unharmed first.
    :param job: only requests about this job.
    :param status: HTTP status of kind ``status``.
    :param body: text, bytes, or an object sent as JSON; kind ``status`` has a plausible default.
    :param headers: additional headers of kinds ``status`` and ``body``.
    :param seconds: duration of ``hang`` and ``delay``, always in real time: clients time out in it.
    :param effect_delay: the effect happens this many seconds (of the simulator's clock) later.
    """

    route: str
    kind: Kind
    when: When = "before"
    times: int | None = 1
    skip: int = 0
    job: str | None = None
    status: int | None = None
    body: Any = None
    headers: Mapping[str, str] | None = None
    seconds: float | None = None
    effect_delay: float | None = None

    def __post_init__(self) -> None:
        if self.kind == "status" and self.status is None:
            raise ValueError("a fault of kind status needs a status")
        if self.kind == "delay" and self.seconds is None:
            raise ValueError("a fault of kind delay needs seconds")
        if self.kind == "delay" and self.effect_delay is not None:
            raise ValueError("effect_delay needs an answer that does not wait for the effect")

    @property
    def precedes_handling(self) -> bool:
        """Whether the answer is decided before the request is looked at."""
        return self.when == "before" or self.effect_delay is not None


class FaultScript:
    """The faults to come, in the order in which they were added; safe to use from any thread.

    :param routes: short names of the routes there are.
    """

    def __init__(self, routes: Collection[str]) -> None:
        self._routes = routes
        self._lock = threading.Lock()
        self._entries: list[_Entry] = []

    def add(self, *faults: Fault) -> None:
        """Add faults behind the others.

        :param faults: what shall go wrong.
        :raises ConfigError: when a route does not exist; then none is added.
        """
        known = ", ".join(self._routes)
        wrong = [each.route for each in faults if each.route not in (*self._routes, "*")]
        if wrong:
            raise ConfigError([f"no route {name!r}; there are * and {known}" for name in wrong])
        with self._lock:
            self._entries.extend(_Entry(each, each.skip, each.times) for each in faults)

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._entries.clear()

    def remaining(self) -> list[Fault]:
        """Return the faults that can still hit, in order."""
        with self._lock:
            return [page.fault for page in self._entries if page.left != 0]

    def take(self, route: str, job: str | None, *, precedes_handling: bool) -> Fault | None:
        """Return the fault that hits a request and count the hit.

        The first fault that matches and is not skipping gets the request; faults behind it do not
        see it, not even to count their ``skip`` down.

        :param route: short route name of the request.
        :param job: job the request is about.
        :param precedes_handling: which of the two kinds of fault is asked for.
        """
        with self._lock:
            for page in self._entries:
                fault = page.fault
                if (
                    page.left == 0
                    or fault.precedes_handling is not precedes_handling
                    or fault.route not in (route, "*")
                    or fault.job not in (None, job)
                ):
                    continue
                if page.skip:
                    page.skip -= 1
                    continue
                if page.left is not None:
                    page.left -= 1
                return fault
        return None


@dataclass
class _Entry:
    fault: Fault
    skip: int
    left: int | None
