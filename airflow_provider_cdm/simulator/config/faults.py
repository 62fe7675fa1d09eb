"""Scripted faults: which response goes wrong, how, and whether the request has an effect."""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from airflow_provider_cdm.simulator.config.reader import ConfigError

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"([\x21-\x7e\xa0-\xff]([\t\x20-\x7e\xa0-\xff]*[\x21-\x7e\xa0-\xff])?)?")

Kind = Literal["drop", "reset", "hang", "delay", "status", "body"]
When = Literal["before", "after"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault of one route.

    Kinds: ``drop`` closes the connection without a response; ``reset`` does so with a TCP reset;
    ``hang`` sends nothing for ``seconds`` (without them, for ever) and then closes the connection;
    ``delay`` sends the response late; ``status`` responds with an HTTP status; ``body`` responds
    with status 200 and a body.

    :param route: short route name, such as ``start``; ``*`` for every route.
    :param kind: one of the kinds above.
    :param when: ``before``: the request has no effect (with ``delay``, the effect is late, too);
        ``after``: the request has its effect, and then the response goes wrong. A request that is
        answered with an error has no effect and does not use up an ``after`` fault.
    :param times: number of requests that are hit; ``None`` for all.
    :param skip: number of matching requests that are not hit before the first one that is.
    :param job: name of a job, to hit only requests about this job.
    :param status: HTTP status of kind ``status``.
    :param body: text, bytes, or an object that is sent as JSON; kind ``status`` has a default that
        matches the status.
    :param headers: additional headers of kinds ``status`` and ``body``.
    :param seconds: duration of ``hang`` and ``delay``, always in real time, since that is what the
        timeouts of clients are measured in.
    :param effect_delay: seconds of the simulator's clock after which the request has its effect.
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
        if self.status is not None and not 200 <= self.status <= 599:
            raise ValueError("the status of a fault is 200 to 599")
        if self.skip < 0 or (self.times is not None and self.times < 0):
            raise ValueError("skip and times of a fault are zero or more")
        for name, value in (self.headers or {}).items():
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise ValueError(f"header {name!r} of a fault cannot be sent")
        if self.kind == "delay" and self.seconds is None:
            raise ValueError("a fault of kind delay needs seconds")
        if self.kind == "delay" and self.effect_delay is not None:
            raise ValueError(
                "a fault of kind delay cannot have an effect_delay, since its response needs the "
                "effect"
            )

    @property
    def precedes_handling(self) -> bool:
        """Whether the fault takes effect before the request is handled."""
        return self.when == "before" or self.effect_delay is not None


class FaultScript:
    """The faults still to occur, in the order in which they were added; thread-safe.

    :param routes: short names of all routes.
    """

    def __init__(self, routes: Collection[str]) -> None:
        self._routes = routes
        self._lock = threading.Lock()
        self._entries: list[_Entry] = []

    def add(self, *faults: Fault) -> None:
        """Append faults to the script.

        :param faults: faults to add.
        :raises ConfigError: if a route does not exist; no fault is added in this case.
        """
        known = ", ".join(self._routes)
        unknown = [fault.route for fault in faults if fault.route not in (*self._routes, "*")]
        if unknown:
            raise ConfigError(
                [f"no route {name!r}; the routes are * and {known}" for name in unknown]
            )
        with self._lock:
            self._entries.extend(_Entry(fault, fault.skip, fault.times) for fault in faults)

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._entries.clear()

    def remaining(self) -> list[Fault]:
        """Return the faults that can still occur, in order."""
        with self._lock:
            return [entry.fault for entry in self._entries if entry.remaining != 0]

    def take(self, route: str, job: str | None, *, precedes_handling: bool) -> Fault | None:
        """Return the fault that hits a request, and count the hit.

        The first matching fault that does not skip the request hits it; later faults are not
        considered, so that their ``skip`` is not counted down either.

        :param route: short route name of the request.
        :param job: name of the job that the request is about.
        :param precedes_handling: whether the request has not been handled yet.
        """
        with self._lock:
            for entry in self._entries:
                fault = entry.fault
                if (
                    entry.remaining == 0
                    or fault.precedes_handling is not precedes_handling
                    or fault.route not in (route, "*")
                    or fault.job not in (None, job)
                ):
                    continue
                if entry.skip:
                    entry.skip -= 1
                    continue
                if entry.remaining is not None:
                    entry.remaining -= 1
                return fault
        return None


@dataclass
class _Entry:
    fault: Fault
    skip: int
    remaining: int | None
