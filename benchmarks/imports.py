"""Cost of importing operators into a process that has loaded Airflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks.common import Result, log, median, percentile, quartile_range, table, verdict

TITLE = "Import of operators"
#: Module with operators by name of the distribution.
MODULES = {
    "airflow-provider-cdm": "airflow_provider_cdm.operators",
    "apache-airflow-providers-airbyte": "airflow.providers.airbyte.operators.airbyte",
    "apache-airflow-providers-apache-livy": "airflow.providers.apache.livy.operators.livy",
    "apache-airflow-providers-dbt-cloud": "airflow.providers.dbt.cloud.operators.dbt",
    "apache-airflow-providers-huawei": "airflow.providers.huawei.cloud.operators.cdm",
}
OURS, SMALLEST_PEER = "airflow-provider-cdm", "apache-airflow-providers-airbyte"
# Loads what a DAG processor has loaded before it opens the first DAG file, and what all providers
# of Airflow import from Airflow.
_CHILD = """
import gc, json, sys, time, warnings
warnings.simplefilter("ignore")
import psutil
import airflow.dag_processing.processor
import airflow.sdk
from airflow.providers.common.compat import sdk
for name in sdk.__all__:
    try:
        getattr(sdk, name)
    except ImportError:
        pass  # not in this version
import airflow.triggers.base
# One pass of the garbage collector over all of Airflow takes longer than an import, and would hit
# some of the imports at random.
gc.collect()
gc.freeze()
process, before = psutil.Process(), set(sys.modules)
memory, cpu, wall = process.memory_info().rss, time.process_time(), time.perf_counter()
# All operators: a module may import what it names only on first use.
exec(f"from {sys.argv[1]} import *")
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
memory = process.memory_info().rss - memory
sample = {"modules": len(set(sys.modules) - before), "kb": memory / 1024}
print(json.dumps({**sample, "wall_ms": wall * 1000, "cpu_ms": cpu * 1000}))
"""


def measure(*, quick: bool) -> Result:
    """Import each module in new processes, by turns."""
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in MODULES}
    with tempfile.TemporaryDirectory() as home:
        # The first round writes bytecode files, and is not counted.
        for turn in range(2 if quick else 9):
            log(f"imports: round {turn}")
            for name, module in MODULES.items():
                sample = _import(module, home)
                if turn:
                    samples[name].append(sample)
    rows = [_row(name, samples[name]) for name in MODULES]
    return Result("imports", sorted(rows, key=lambda row: row["cpu_ms"]))


def _import(module: str, home: str) -> dict[str, float]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["AIRFLOW_HOME"] = home
    command = [sys.executable, "-c", _CHILD, module]
    process = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    sample: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    if not sample["modules"]:
        raise RuntimeError(f"{module} was loaded already, so its import cannot be measured.")
    return sample


def _row(name: str, samples: list[dict[str, float]]) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "repeats": len(samples)}
    for key in samples[0]:
        row[key] = median(sample[key] for sample in samples)
    for key in ("cpu_ms", "wall_ms"):
        values = [sample[key] for sample in samples]
        row[f"{key}_spread"] = [percentile(values, 0.25), percentile(values, 0.75)]
    return row


def goals(result: Result) -> list[tuple[str, str]]:
    """Return the goal, and whether it was reached."""
    rows = {row["name"]: row for row in result.rows}
    ratio = rows[OURS]["cpu_ms"] / rows[SMALLEST_PEER]["cpu_ms"]
    modules = rows[OURS]["modules"]
    outcome = (
        f"CPU {verdict(ratio <= 0.5)}, {ratio:.2f}; modules {verdict(modules <= 20)}, {modules:g}"
    )
    return [("Import of all operators: at most half of the CPU of Airbyte's, 20 modules", outcome)]


def tables(result: Result) -> str:
    """Return the table."""
    ours = next(row for row in result.rows if row["name"] == OURS)
    heads = ("operators of", "CPU, ms", "quartiles", "vs ours", "wall, ms", "modules", "memory, KB")
    return table(
        heads,
        [
            (
                row["name"],
                row["cpu_ms"],
                quartile_range(row["cpu_ms_spread"]),
                f"{row['cpu_ms'] / ours['cpu_ms']:.1f}",
                row["wall_ms"],
                row["modules"],
                row["kb"],
            )
            for row in result.rows
        ],
    )
