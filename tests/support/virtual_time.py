"""Sleeping in virtual time: pauses advance the clock of the test and take no real time."""

from __future__ import annotations

import asyncio
from typing import Any

from airflow_provider_cdm.simulator import ManualClock


class VirtualTime:
    """Sleep functions that advance the clock of the test.

    :param slept: all pauses so far, in seconds.
    :param jumped: seconds by which somebody has set the client's clock forward.
    """

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.slept: list[float] = []
        self.jumped = 0.0

    def sleep(self, seconds: float) -> None:
        """Advance the clock by a number of seconds."""
        self.slept.append(seconds)
        self._clock.advance(seconds)

    async def async_sleep(self, seconds: float) -> None:
        """Advance the clock, and let the other tasks of the event loop run."""
        self.sleep(seconds)
        await asyncio.sleep(0)

    def options(self) -> dict[str, Any]:
        """Return arguments for a session; pauses have no jitter, so that they are predictable."""
        return {
            "clock": lambda: self._clock.now() + self.jumped,
            "monotonic": self._clock.now,
            "sleep": self.sleep,
            "async_sleep": self.async_sleep,
            "rng": lambda: 0.5,
        }
