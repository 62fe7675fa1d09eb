"""Triggers to compare with, one that does nothing, and one that measures."""

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
#: Seconds between two measurements of the event loop's lag, and between two lines about them.
_NAP, _LINE = 0.05, 5.0
#: Where the token is, which is no argument of a trigger.
TOKEN = "BENCHMARK_TOKEN"


class OneClientTrigger(BaseTrigger):
    """Polls by itself, with an HTTP client of its own, as triggers commonly do.

    :param url: of the job's status.
    """

    def __init__(self, url: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's triggers are untyped
        self.url = url

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Describe it for the database."""
        return f"benchmarks.pollers.{type(self).__name__}", {"url": self.url}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll to the end."""
        import httpx

        # Not all at the same instant.
        await asyncio.sleep(INTERVAL * random.random())
        headers = {"X-Auth-Token": os.environ[TOKEN]}
        async with httpx.AsyncClient(headers=headers, timeout=60, trust_env=False) as client:
            while True:
                try:
                    seen = (await client.get(self.url)).json()["submissions"][0]
                except httpx.TransportError:
                    seen = {"status": "RUNNING"}  # next time, then
                if seen["status"] not in ("PENDING", "BOOTING", "RUNNING"):
                    yield TriggerEvent(seen)  # type: ignore[no-untyped-call]  # as above
                    return
                await asyncio.sleep(INTERVAL)


class IdleTrigger(OneClientTrigger):
    """Does nothing: what a trigger costs before it does anything."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for ever."""
        await asyncio.Event().wait()
        yield TriggerEvent(None)  # type: ignore[no-untyped-call]  # as above


class LagProbe(OneClientTrigger):
    """Measures by how much later than asked for the event loop comes round.

    :param url: path of the file in which it leaves a line every few seconds: a list of lags.
    """

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Measure for ever."""
        await measure_lag(Path(self.url))
        yield TriggerEvent(None)  # type: ignore[no-untyped-call]  # as above


async def measure_lag(path: Path) -> None:
    """Leave the lags of the running event loop in a file, as seconds."""
    loop = asyncio.get_running_loop()
    lags: list[float] = []
    with path.open("a") as file:
        while True:
            before = loop.time()
            await asyncio.sleep(_NAP)
            lags.append(loop.time() - before - _NAP)
            if len(lags) * _NAP >= _LINE:
                file.write(json.dumps([round(lag, 6) for lag in lags]) + "\n")
                file.flush()
                lags.clear()
