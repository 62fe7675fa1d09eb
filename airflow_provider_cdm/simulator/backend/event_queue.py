"""The queue of future events, and the slow work that some of them begin."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from airflow_provider_cdm.simulator.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_cdm.simulator.clock import Clock

T = TypeVar("T")

#: Maximum time for which a request waits for work that it has begun itself, in seconds. It is real
#: time, since the databases do not know the simulator's clock.
PATIENCE = 1.0


@dataclass(frozen=True)
class Result(Generic[T]):
    """What became of some work: its value, or the exception that it raised."""

    value: T | None = None
    error: Exception | None = None


class EventQueue:
    """Runs actions when they are due.

    Actions run under the backend's lock, the earliest first. While an action runs, :meth:`now`
    returns its due time: advancing a manual clock by one hour has the same result as sixty steps
    of a minute. With a real clock, a thread wakes up for the next action, so that events happen
    even if no request arrives.

    Whatever may take long, such as everything that a database does, is work for :meth:`offload`: it
    runs without the lock, in a thread of its own, and an action ends it. Advancing a manual clock
    waits for all work; no request waits for the work of another one.

    :param clock: source of the time.
    :param lock: lock that is held while actions run, and while anyone reads the state that they
        change.
    """

    def __init__(self, clock: Clock, lock: threading.RLock) -> None:
        self._clock = clock
        self._manual = isinstance(clock, ManualClock)
        self._changed = threading.Condition(lock)
        self._entries: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._work: set[object] = set()
        self._current_due_time: float | None = None
        self._running = False
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
            self.call_at(self.now() + seconds, action)

    def call_at(self, due: float, action: Callable[[], None]) -> None:
        """Schedule an action.

        :param due: time in seconds since 1970; one in the past means now.
        :param action: function to call while the lock is held.
        """
        with self._changed:
            heapq.heappush(self._entries, (max(due, self.now()), next(self._order), action))
            self._changed.notify_all()

    def offload(self, work: Callable[[], T], done: Callable[[Result[T]], None]) -> None:
        """Do something without the lock, in another thread.

        :param work: function that may block, and raise any exception.
        :param done: action to call with the result; it is not called after :meth:`clear`.
        """
        ticket, began = object(), self.now()

        def run() -> None:
            try:
                result = Result(work())
            except Exception as exc:  # a driver may raise any exception
                result = Result[T](error=exc)
            with self._changed:
                if ticket in self._work:
                    # With a manual clock, work takes no time.
                    at = began if self._manual else self._clock.now()
                    self._run_at(at, lambda: done(result))
                    self._work.discard(ticket)
                self._changed.notify_all()

        with self._changed:
            self._work.add(ticket)
        threading.Thread(target=run, name="cdm-simulator-work", daemon=True).start()

    def wait_until(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
        """Release the lock until a condition is met, at most for some time.

        :param condition: function to call while the lock is held.
        :param seconds: maximum time in real seconds.
        :returns: whether the condition is met.
        """
        with self._changed:
            due, self._current_due_time = self._current_due_time, None
            try:
                return self._changed.wait_for(condition, seconds)
            finally:
                self._current_due_time = due

    def locked(self, action: Callable[[], T]) -> T:
        """Call a function while the lock is held, from the thread of some work.

        :param action: function that does not block.
        """
        with self._changed:
            return action()

    def run_due(self, patience: float | None = PATIENCE) -> None:
        """Run all actions that are due, unless another thread does.

        With a manual clock, this waits for the work that they begin, and for all earlier work.

        :param patience: maximum time to wait in real seconds; ``None`` for no limit.
        """
        end = None if patience is None else time.monotonic() + patience
        with self._changed:
            if self._current_due_time is not None:  # called by an action
                return
            if patience is None:
                self._changed.wait_for(lambda: not self._running)
            if self._running:
                return
            self._running = True
            try:
                self._settle(end)
                while self._entries and self._entries[0][0] <= self._clock.now():
                    due, _, action = heapq.heappop(self._entries)
                    self._run_at(due, action)
                    self._settle(end)
            finally:
                self._running = False
                self._changed.notify_all()

    def clear(self) -> None:
        """Remove all scheduled actions, and ignore the results of all work."""
        with self._changed:
            self._entries.clear()
            self._work.clear()
            self._changed.notify_all()

    def start(self) -> None:
        """Begin to run actions: at each advance of a manual clock, otherwise in a thread."""
        if isinstance(self._clock, ManualClock):
            self._clock.subscribe(self._run_all)
            return
        self._stopped = False
        self._thread = threading.Thread(
            target=self._run_forever, name="cdm-simulator-events", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop running actions; work that has begun is not interrupted."""
        if isinstance(self._clock, ManualClock):
            self._clock.unsubscribe(self._run_all)
        elif self._thread is not None:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            self._thread.join()
            self._thread = None

    def _run_at(self, due: float, action: Callable[[], None]) -> None:
        self._current_due_time = due
        try:
            action()
        finally:
            self._current_due_time = None

    def _settle(self, end: float | None) -> None:
        """With a manual clock, wait until all work is done, so that the next event finds it so."""
        if self._manual:
            seconds = None if end is None else max(0.0, end - time.monotonic())
            self._changed.wait_for(lambda: not self._work, seconds)

    def _run_all(self) -> None:
        self.run_due(patience=None)

    def _run_forever(self) -> None:
        with self._changed:
            while not self._stopped:
                self.run_due()
                wait = self._entries[0][0] - self._clock.now() if self._entries else None
                if wait is None or wait > 0:
                    self._changed.wait(wait if wait is None else min(wait, threading.TIMEOUT_MAX))
