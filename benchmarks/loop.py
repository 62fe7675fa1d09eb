"""A bare event loop with many triggers, as a process of its own: started by :mod:`.triggerer`.

Reads from standard input what to run, and runs it until it is ended. Leaves a file with its memory
before there were any triggers but one, as soon as all of them are running.
"""

from __future__ import annotations

import asyncio
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # a part of every Airflow

from benchmarks.pollers import measure_lag


async def _consume(trigger: Any) -> None:
    async for _ in trigger.run():
        raise RuntimeError("no run should end while this is measured")


async def _main(wanted: dict[str, Any]) -> None:
    module, name = wanted["classpath"].rsplit(".", 1)
    kind = getattr(import_module(module), name)
    # One of each kind comes first, so that what is imported late is there.
    tasks = [asyncio.ensure_future(_consume(kind(**wanted["arguments"][0])))]
    tasks.append(asyncio.ensure_future(measure_lag(Path(wanted["lags"]))))
    await asyncio.sleep(wanted["settle"])
    before = psutil.Process().memory_info().rss
    for index, arguments in enumerate(wanted["arguments"][1:]):
        tasks.append(asyncio.ensure_future(_consume(kind(**arguments))))
        if index % 100 == 0:
            await asyncio.sleep(0.1)  # in batches, as the triggerer does
    await asyncio.to_thread(Path(wanted["ready"]).write_text, str(before))
    await asyncio.gather(*tasks)


if __name__ == "__main__":
    asyncio.run(_main(json.load(sys.stdin)))
