"""Time, as something the simulator is given rather than something it looks up."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock(Protocol):
    """Anything that tells the time in seconds since 1970."""

    def now(self) -> float:
        """Return the present instant, in seconds since 1970 (UTC)."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Return the present instant, in seconds since 1970 (UTC)."""
        return time.time()


class ManualClock:
    """A clock that moves only when told to; for tests without sleeps.

    :param start: the first instant, in seconds since 1970; default 2025-01-02T03:04:05Z.
    """

    def __init__(self, start: float = 1_735_787_045.0) -> None:
        self._now = start
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []

    def now(self) -> float:
        """Return the present instant, in seconds since 1970 (UTC)."""
        with self._lock:
            return self._now

    def advance(self, seconds: float) -> None:
        """Move forward and return when everything that fell due has happened.

        :param seconds: how far; time does not run backwards.
        :raises ValueError: when ``seconds`` is negative.
        """
        if seconds < 0:
            raise ValueError("a clock does not run backwards")
        with self._lock:
            self._now += seconds
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after every advance, in the thread that advances.

        :param listener: takes nothing and settles what is due.
        """
        with self._lock:
            self._listeners.append(listener)

    def unsubscribe(self, listener: Callable[[], None]) -> None:
        """Stop calling ``listener``.

        :param listener: the one given to :meth:`subscribe`.
        """
        with self._lock:
            self._listeners.remove(listener)
