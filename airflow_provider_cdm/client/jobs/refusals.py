"""Refusals of credentials during one wait: how long they have lasted, and when they are tolerable.

What to do about them, looking the connection up and pausing before credentials are sent again, is
decided in :mod:`airflow_provider_cdm.client.auth`, for all waits of a process.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.http.retry import Exchanger

log = logging.getLogger(__name__)

#: Seconds for which credentials may be refused that the connection holds, before a wait fails:
#: longer than IAM locks an account, so that a correct password ends it.
REFUSED_SECONDS = 1200.0
#: Refusals in a row before a wait fails; one that polls seldom must not fail because of two.
_MIN_REFUSALS = 3
#: Seconds for which no process makes a call at least, after the first of them was refused, after a
#: second one was, and so on: each only knows how long it would pause itself.
_PAUSES_OF_PROCESSES = (0.0, 300.0, 900.0)
#: Longest pause after a refusal that another process can have noted, in seconds.
_LONGEST_PAUSE = 3600.0


@dataclass(slots=True)
class Refusals:
    """The refusals in a row that one wait has met.

    :param since: time of the first one, by the monotonic clock; ``None`` if the last call was not
        refused.
    :param until: when the credentials may be sent again, epoch seconds.
    :param count: number of refusals.
    :param processes: number of processes that met them, one after the other.
    """

    since: float | None = None
    until: float = 0.0
    count: int = 0
    processes: int = 1

    def record(
        self, error: errors.CdmError, exchanger: Exchanger, limit: float = REFUSED_SECONDS
    ) -> tuple[float, bool]:
        """Record a refusal.

        :param limit: seconds for which they are tolerated.
        :returns: for how many seconds they have lasted, and whether a wait goes on.
        """
        now = exchanger.uptime()
        # Before the connection has been read again, nobody knows that it holds what is refused.
        if self.since is None or error.connection_unread:
            self.since = now
        self.count += 1
        shortest = _PAUSES_OF_PROCESSES[min(self.processes, len(_PAUSES_OF_PROCESSES)) - 1]
        self.until = exchanger.clock() + max(error.retry_after or 0.0, shortest)
        lasted = now - self.since
        return lasted, lasted < limit or self.count < _MIN_REFUSALS

    def clear(self) -> None:
        """Record a call that was not refused."""
        self.since, self.until, self.count, self.processes = None, 0.0, 0, 1

    def dump(self, now: float, instant: float) -> dict[str, Any] | None:
        """Return what another process needs to go on, as plain JSON; ``None`` for nothing.

        :param now: time by the monotonic clock.
        :param instant: time by the wall clock.
        """
        if self.since is None:
            return None
        return {
            "lasted": now - self.since,
            "at": instant,
            "until": self.until,
            "count": self.count,
            "processes": self.processes,
        }

    def restore(self, dump: Mapping[str, Any] | None, now: float, instant: float) -> bool:
        """Go on where another process stopped.

        :param dump: what :meth:`dump` returned there.
        :param now: time by the monotonic clock.
        :param instant: time by the wall clock. Only that measures the time between two processes,
            and it may have been set, so that time counts for half of the limit at most.
        :returns: whether to make no call now: this process does not know which credentials that one
            has sent, and many processes together must not lock the user.
        """
        if not dump:
            return False
        between = min(max(0.0, instant - dump["at"]), REFUSED_SECONDS / 2)
        self.since, self.until = now - dump["lasted"] - between, dump["until"]
        self.count, self.processes = dump["count"], dump["processes"]
        if not 0 < self.until - instant <= _LONGEST_PAUSE:
            self.processes += 1
            return False
        log.warning(
            "The credentials were refused; in %.0f s they are used again, or what the connection"
            " holds by then.",
            self.until - instant,
        )
        return True
