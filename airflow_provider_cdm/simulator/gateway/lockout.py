"""The lock-out of IAM users after wrong passwords."""

from __future__ import annotations

from collections import deque

MAX_FAILURES = 5
FAILURE_SECONDS = 15 * 60
LOCKED_SECONDS = 15 * 60


class LoginAttempts:
    """The failed logins of one user; five within 15 minutes lock the user out for 15 minutes."""

    def __init__(self) -> None:
        self._failed_at: deque[float] = deque()
        self._locked_until = 0.0

    def is_locked(self, now: float) -> bool:
        """Return whether the user is locked out.

        :param now: current time in seconds since 1970.
        """
        return now < self._locked_until

    def add_failure(self, now: float) -> None:
        """Count a wrong password, and lock the user out if it is one too many.

        :param now: current time in seconds since 1970.
        """
        while self._failed_at and self._failed_at[0] <= now - FAILURE_SECONDS:
            self._failed_at.popleft()
        self._failed_at.append(now)
        if len(self._failed_at) >= MAX_FAILURES:
            self._failed_at.clear()
            self._locked_until = now + LOCKED_SECONDS

    def clear(self) -> None:
        """Forget all failures, as after a correct password."""
        self._failed_at.clear()
