"""An event loop in virtual time: what sleeps on it takes no real time, calls take a given one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from airflow_provider_cdm.simulator import ManualClock

#: Resolution of the clock: the fraction of an epoch second is rounded.
_RESOLUTION = 1e-4


class VirtualEventLoop(asyncio.SelectorEventLoop):
    """Moves a clock on to the next timer as soon as nothing else is to be done.

    While work is in a thread, time stands still.

    :param clock: clock of the client and the simulator.
    :param latency: returns the seconds that a call to CDM takes after its effect.
    """

    def __init__(self, clock: ManualClock, latency: Callable[[], float] = lambda: 0.1) -> None:
        self._clock = clock
        self._latency = latency
        self._in_threads = 0
        super().__init__()
        self._clock_resolution = _RESOLUTION
        selector: Any = self._selector  # type: ignore[attr-defined]
        select = selector.select

        def select_or_jump(timeout: float | None = None) -> Any:
            if not timeout or timeout < 0 or self._in_threads:
                return select(None if self._in_threads and timeout else timeout)
            events = select(0)
            if not events:
                clock.advance(timeout + _RESOLUTION)
            return events

        selector.select = select_or_jump

    def time(self) -> float:
        """Return the virtual time."""
        return self._clock.now()

    def run_in_executor(  # type: ignore[override]  # any function
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> Any:
        """Run work in a thread; calls to CDM take virtual time after that."""
        future = super().run_in_executor(executor, func, *args)
        self._in_threads += 1
        future.add_done_callback(self._end_work)
        if executor is None or not executor._thread_name_prefix.startswith("cdm"):
            return future
        return self.create_task(self._delayed(future))

    async def _delayed(self, future: asyncio.Future[Any]) -> Any:
        await asyncio.wait({future})
        await asyncio.sleep(self._latency())
        return future.result()

    def _end_work(self, _: Any) -> None:
        self._in_threads -= 1
