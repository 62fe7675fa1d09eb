"""A bare event loop with many triggers in a process of its own, started by :mod:`.triggerer`.

Reads the triggers from standard input, and runs them until the process is terminated. As soon as
all are running, it writes a file with the memory that it used when only one was running.
"""

from __future__ import annotations

import asyncio
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # a part of every Airflow

from benchmarks.baseline_triggers import measure_lag


async def _consume(trigger: Any) -> None:
    async for _ in trigger.run():
        raise RuntimeError("A run ended during the measurement; none should.")


async def _main(options: dict[str, Any]) -> None:
    module, name = options["classpath"].rsplit(".", 1)
    trigger_class = getattr(import_module(module), name)
    # The first trigger starts earlier, so that modules it imports late are loaded.
    tasks = [asyncio.ensure_future(_consume(trigger_class(**options["arguments"][0])))]
    tasks.append(asyncio.ensure_future(measure_lag(Path(options["lags"]))))
    await asyncio.sleep(options["settle"])
    before = psutil.Process().memory_info().rss
    for index, arguments in enumerate(options["arguments"][1:]):
        tasks.append(asyncio.ensure_future(_consume(trigger_class(**arguments))))
        if index % 100 == 0:
            await asyncio.sleep(0.1)  # in batches, as the triggerer does
    await asyncio.to_thread(Path(options["ready"]).write_text, str(before))
    await asyncio.gather(*tasks)


if __name__ == "__main__":
    asyncio.run(_main(json.load(sys.stdin)))
