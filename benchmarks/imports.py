"""What importing operators costs a process that has Airflow already."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks.common import Result, median, percentile, say, spread, table

TITLE = "Import of operators"
#: Module by the name of its distribution.
MODULES = {
    "airflow-provider-cdm": "airflow_provider_cdm.operators",
    "apache-airflow-providers-airbyte": "airflow.providers.airbyte.operators.airbyte",
    "apache-airflow-providers-apache-livy": "airflow.providers.apache.livy.operators.livy",
    "apache-airflow-providers-dbt-cloud": "airflow.providers.dbt.cloud.operators.dbt",
    "apache-airflow-providers-huawei": "airflow.providers.huawei.cloud.operators.cdm",
}
OURS = "airflow-provider-cdm"
# What the process of a DAG processor has before it opens the first DAG file, and what all of
# Airflow's providers take from Airflow.
_CHILD = """
import gc, importlib, json, sys, time, warnings
warnings.simplefilter("ignore")
import psutil
import airflow.dag_processing.processor
import airflow.sdk
from airflow.providers.common.compat import sdk
for name in sdk.__all__:
    try:
        getattr(sdk, name)
    except ImportError:
        pass  # not of this version
import airflow.triggers.base
# One pass of the garbage collector over all of Airflow costs more than an import does, and would
# hit one or the other by chance.
gc.collect()
gc.freeze()
process, before = psutil.Process(), set(sys.modules)
memory, cpu, wall = process.memory_info().rss, time.process_time(), time.perf_counter()
importlib.import_module(sys.argv[1])
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
memory = process.memory_info().rss - memory
found = {"modules": len(set(sys.modules) - before), "kb": memory / 1024}
print(json.dumps({**found, "wall_ms": wall * 1000, "cpu_ms": cpu * 1000}))
"""


def measure(*, quick: bool) -> Result:
    """Import each module in fresh processes, by turns."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in MODULES}
    with tempfile.TemporaryDirectory() as home:
        # The first round leaves compiled files behind, and is not counted.
        for turn in range(2 if quick else 9):
            say(f"imports: round {turn}")
            for name, module in MODULES.items():
                sample = _import(module, home)
                if turn:
                    found[name].append(sample)
    rows = [_row(name, samples) for name, samples in found.items()]
    return Result("imports", sorted(rows, key=lambda row: row["cpu_ms"]))


def _import(module: str, home: str) -> dict[str, float]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["AIRFLOW_HOME"] = home
    command = [sys.executable, "-c", _CHILD, module]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    sample: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    if not sample["modules"]:
        raise RuntimeError(f"{module} was there already, so its import cannot be measured")
    return sample


def _row(name: str, samples: list[dict[str, float]]) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "repeats": len(samples)}
    for key in samples[0]:
        row[key] = median(sample[key] for sample in samples)
    for key in ("cpu_ms", "wall_ms"):
        values = [sample[key] for sample in samples]
        row[f"{key}_spread"] = [percentile(values, 0.25), percentile(values, 0.75)]
    return row


def tables(result: Result) -> str:
    """The table."""
    ours = next(row for row in result.rows if row["name"] == OURS)
    heads = ("operators of", "CPU, ms", "quartiles", "to ours", "wall, ms", "modules", "memory, KB")
    return table(
        heads,
        [
            (
                row["name"],
                row["cpu_ms"],
                spread(row["cpu_ms_spread"]),
                f"{row['cpu_ms'] / ours['cpu_ms']:.1f}",
                row["wall_ms"],
                row["modules"],
                row["kb"],
            )
            for row in result.rows
        ],
    )
