"""Triggers to compare with, one that does nothing, and one that measures the event loop's lag."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

#: Seconds between two polls.
INTERVAL = 10.0
#: Seconds between two measurements of the lag of the event loop, and between two lines written.
_LAG_INTERVAL, _WRITE_INTERVAL = 0.05, 5.0
#: Environment variable with the token, which must not be an argument of a trigger.
TOKEN_VARIABLE = "BENCHMARK_TOKEN"


class OneClientTrigger(BaseTrigger):
    """Polls with an HTTP client of its own, as triggers commonly do.

    :param url: address of the status call.
    """

    def __init__(self, url: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's triggers are untyped
        self.url = url

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        return f"benchmarks.baseline_triggers.{type(self).__name__}", {"url": self.url}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the run has ended."""
        import httpx

        # Spread the polls of many triggers.
        await asyncio.sleep(INTERVAL * random.random())
        headers = {"X-Auth-Token": os.environ[TOKEN_VARIABLE]}
        async with httpx.AsyncClient(headers=headers, timeout=60, trust_env=False) as client:
            while True:
                try:
                    seen = (await client.get(self.url)).json()["submissions"][0]
                except httpx.TransportError:
                    seen = {"status": "RUNNING"}  # retried with the next poll
                if seen["status"] not in ("PENDING", "BOOTING", "RUNNING"):
                    yield TriggerEvent(seen)  # type: ignore[no-untyped-call]  # as above
                    return
                await asyncio.sleep(INTERVAL)


class IdleTrigger(OneClientTrigger):
    """Does nothing, and so shows what any trigger costs."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait forever."""
        await asyncio.Event().wait()
        yield TriggerEvent(None)  # type: ignore[no-untyped-call]  # as above


class LagProbe(OneClientTrigger):
    """Measures how much later than requested the event loop wakes a task.

    :param url: path of the file to which it writes a list of lags every few seconds, one per line.
    """

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Measure forever."""
        await measure_lag(Path(self.url))
        yield TriggerEvent(None)  # type: ignore[no-untyped-call]  # as above


async def measure_lag(path: Path) -> None:
    """Write the lags of the running event loop to a file, in seconds."""
    loop = asyncio.get_running_loop()
    lags: list[float] = []
    with path.open("a") as file:
        while True:
            before = loop.time()
            await asyncio.sleep(_LAG_INTERVAL)
            lags.append(loop.time() - before - _LAG_INTERVAL)
            if len(lags) * _LAG_INTERVAL >= _WRITE_INTERVAL:
                file.write(json.dumps([round(lag, 6) for lag in lags]) + "\n")
                file.flush()
                lags.clear()
