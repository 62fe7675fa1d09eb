"""The queue of future events, which are run in the order of their due times."""

from __future__ import annotations

import heapq
import itertools
import threading
from typing import TYPE_CHECKING

from airflow_provider_cdm.simulator.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_cdm.simulator.clock import Clock


class EventQueue:
    """Runs actions when they are due.

    Actions run under the backend's lock, the earliest first. While an action runs, :meth:`now`
    returns its due time: advancing a manual clock by one hour has the same result as sixty steps
    of a minute. With a real clock, a thread wakes up for the next action, so that events happen
    even if no request arrives.

    :param clock: source of the time.
    :param lock: lock that is held while actions run, and while anyone reads the state that they
        change.
    """

    def __init__(self, clock: Clock, lock: threading.RLock) -> None:
        self._clock = clock
        self._changed = threading.Condition(lock)
        self._entries: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._current_due_time: float | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False

    def now(self) -> float:
        """Return the current time in seconds since 1970; during an action, its due time."""
        return self._clock.now() if self._current_due_time is None else self._current_due_time

    def call_later(self, seconds: float, action: Callable[[], None]) -> None:
        """Schedule an action.

        :param seconds: delay from now.
        :param action: function to call while the lock is held.
        """
        with self._changed:
            entry = (self.now() + seconds, next(self._order), action)
            heapq.heappush(self._entries, entry)
            self._changed.notify_all()

    def run_due(self) -> None:
        """Run all actions that are due."""
        with self._changed:
            if self._current_due_time is not None:  # called by an action
                return
            while self._entries and self._entries[0][0] <= self._clock.now():
                due, _, action = heapq.heappop(self._entries)
                self._current_due_time = due
                try:
                    action()
                finally:
                    self._current_due_time = None

    def clear(self) -> None:
        """Remove all scheduled actions."""
        with self._changed:
            self._entries.clear()

    def start(self) -> None:
        """Begin to run actions: at each advance of a manual clock, otherwise in a thread."""
        if isinstance(self._clock, ManualClock):
            self._clock.subscribe(self.run_due)
            return
        self._stopped = False
        self._thread = threading.Thread(
            target=self._run_forever, name="cdm-simulator-events", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop running actions."""
        if isinstance(self._clock, ManualClock):
            self._clock.unsubscribe(self.run_due)
        elif self._thread is not None:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            self._thread.join()
            self._thread = None

    def _run_forever(self) -> None:
        with self._changed:
            while not self._stopped:
                self.run_due()
                wait = self._entries[0][0] - self._clock.now() if self._entries else None
                if wait is None or wait > 0:
                    self._changed.wait(wait)
