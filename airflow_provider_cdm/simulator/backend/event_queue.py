"""What will happen when: actions with a due instant, carried out in order of time."""

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
    """The simulator's future.

    Actions run under the simulator's lock, the earliest first, and while one runs :meth:`now` is
    its due instant: advancing a manual clock by an hour gives the history sixty minutes would.
    With a real clock a thread wakes at the next due instant, so work happens even if nobody asks.

    :param clock: tells the time.
    :param lock: held while actions run and while anybody looks at the state they change.
    """

    def __init__(self, clock: Clock, lock: threading.RLock) -> None:
        self._clock = clock
        self._changed = threading.Condition(lock)
        self._entries: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._acting_at: float | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False

    def now(self) -> float:
        """Return the present instant; during an action, the instant the action was due."""
        return self._clock.now() if self._acting_at is None else self._acting_at

    def call_later(self, seconds: float, action: Callable[[], None]) -> None:
        """Plan an action.

        :param seconds: how long from now.
        :param action: called with the lock held.
        """
        with self._changed:
            entry = (self.now() + seconds, next(self._order), action)
            heapq.heappush(self._entries, entry)
            self._changed.notify_all()

    def run_due(self) -> None:
        """Carry out everything that is due."""
        with self._changed:
            if self._acting_at is not None:  # called from within an action
                return
            while self._entries and self._entries[0][0] <= self._clock.now():
                due, _, action = heapq.heappop(self._entries)
                self._acting_at = due
                try:
                    action()
                finally:
                    self._acting_at = None

    def clear(self) -> None:
        """Forget everything planned."""
        with self._changed:
            self._entries.clear()

    def start(self) -> None:
        """Begin to act by itself: with the manual clock at each advance, otherwise in a thread."""
        if isinstance(self._clock, ManualClock):
            self._clock.subscribe(self.run_due)
            return
        self._stopped = False
        self._thread = threading.Thread(target=self._tick, name="cdm-simulator-agenda", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop acting by itself."""
        if isinstance(self._clock, ManualClock):
            self._clock.unsubscribe(self.run_due)
        elif self._thread is not None:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            self._thread.join()
            self._thread = None

    def _tick(self) -> None:
        with self._changed:
            while not self._stopped:
                self.run_due()
                wait = self._entries[0][0] - self._clock.now() if self._entries else None
                if wait is None or wait > 0:
                    self._changed.wait(wait)
