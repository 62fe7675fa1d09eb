"""Clocks that are passed to the simulator, so that tests can control the time."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock(Protocol):
    """Any object that returns the time in seconds since 1970."""

    def now(self) -> float:
        """Return the current time in seconds since 1970 (UTC)."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> float:
        """Return the current time in seconds since 1970 (UTC)."""
        return time.time()


class ManualClock:
    """A clock that only moves when :meth:`advance` is called, for tests that do not sleep.

    :param start: initial time in seconds since 1970; default 2025-01-02T03:04:05Z.
    """

    def __init__(self, start: float = 1_735_787_045.0) -> None:
        self._now = start
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []

    def now(self) -> float:
        """Return the current time in seconds since 1970 (UTC)."""
        with self._lock:
            return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock forward, and return when every event that became due has been run.

        :param seconds: number of seconds, zero or more.
        :raises ValueError: if ``seconds`` is negative.
        """
        if seconds < 0:
            raise ValueError("a clock cannot be moved backwards")
        with self._lock:
            self._now += seconds
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after every advance, in the thread that advances the clock.

        :param listener: function without parameters that runs the due events.
        """
        with self._lock:
            self._listeners.append(listener)

    def unsubscribe(self, listener: Callable[[], None]) -> None:
        """Stop calling ``listener``.

        :param listener: function that was passed to :meth:`subscribe`.
        """
        with self._lock:
            self._listeners.remove(listener)
