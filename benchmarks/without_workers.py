"""CPU of a sensor's wait in a real Airflow: begun on a worker, or in the triggerer."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # a part of every Airflow

from airflow_provider_cdm.simulator import CdmSimulator
from benchmarks.common import HERE, Result, log, median, round_short, table
from demo.processes import wait_until
from tests.support.airflow_stack import AirflowStack

TITLE = "Sensors that begin on a worker, and without one"
#: Sensors that wait at the same time, seconds that their runs take, and seconds of a round.
_SENSORS, _RUN_SECONDS, _ROUND_SECONDS = 10, 20.0, 60.0
_SIDES = {"worker": "deferrable", "triggerer": "start_from_trigger"}


def measure(*, quick: bool) -> Result:
    """Run rounds of sensors by turns, and rounds without any."""
    rounds = 1 if quick else 5
    with tempfile.TemporaryDirectory(prefix="cdm-workers-") as folder, CdmSimulator() as sim:
        for number in range(_SENSORS):
            sim.add_job(f"load_{number}", seconds=_RUN_SECONDS)
        stack = _stack(Path(folder), sim)
        try:
            stack.start()
            stack.wait_for_dags(len(_SIDES))
            for side in _SIDES:  # what is imported and cached only once
                _round(stack, sim, side, "first")
            rows = [
                {"side": side, **_round(stack, sim, side, f"round_{number}")}
                for number in range(rounds)
                for side in ("idle", *_SIDES)
            ]
        finally:
            stack.stop()
    return Result("without_workers", rows)


def _stack(folder: Path, sim: CdmSimulator) -> AirflowStack:
    (folder / "dags").mkdir()
    (folder / "airflow").mkdir()
    shutil.copy(HERE / "without_workers_dag.py", folder / "dags")
    environment = {
        "AIRFLOW_CONN_CDM_DEFAULT": sim.connection_json,
        "BENCHMARK_TASKS": str(_SENSORS),
    }
    return AirflowStack(folder / "airflow", folder / "dags", environment)


def _round(stack: AirflowStack, sim: CdmSimulator, side: str, run: str) -> dict[str, Any]:
    """Let the sensors of one side wait for new runs, and return what that used."""
    began, cpu, by_name = time.time(), _cpu(stack), _cpu_by_component(stack)
    first_poll = None
    if side != "idle":
        stack.trigger(side, run, f"2025-01-02T00:00:{time.time() % 60:09.6f}Z")
        wait_until(lambda: _deferred(stack, side, run), 120, "all sensors wait")
        first_poll = time.time() - began
        for number in range(_SENSORS):
            sim.start(f"load_{number}")
        wait_until(lambda: stack.dag_run(side, run) in ("success", "failed"), 300, "they end")
        if stack.dag_run(side, run) == "failed":
            raise RuntimeError(f"Sensors of {side} have failed")
    took = time.time() - began
    # All rounds take equally long, so that what an idle Airflow uses can be subtracted.
    time.sleep(max(0.0, _ROUND_SECONDS - took))
    after = _cpu_by_component(stack)
    row = {
        "seconds": round_short(time.time() - began),
        "cpu_s": round_short(_cpu(stack) - cpu),
        "waiting_after_s": first_poll and round_short(first_poll),
        "ended_after_s": round_short(took),
        "components": {name: round_short(after[name] - by_name[name]) for name in after},
    }
    log(f"without_workers: {side} {run} {row}")
    return row


def _deferred(stack: AirflowStack, side: str, run: str) -> bool:
    query = (
        "SELECT count(*) FROM task_instance WHERE dag_id = ? AND run_id = ? AND state = 'deferred'"
    )
    return bool(stack.query(query, side, run)[0][0] == _SENSORS)


def _cpu(stack: AirflowStack) -> float:
    return sum(_cpu_by_component(stack).values())


def _cpu_by_component(stack: AirflowStack) -> dict[str, float]:
    """Return the CPU seconds of all processes of Airflow, and of those that they have ended."""
    used = {}
    for name, leader in stack.processes.items():
        if leader.poll() is None:
            process = psutil.Process(leader.pid)
            family = [process, *process.children(recursive=True)]
            used[name] = sum(_cpu_of(each) for each in family)
    return used


def _cpu_of(process: Any) -> float:
    try:
        return float(sum(process.cpu_times()[:4]))
    except psutil.NoSuchProcess:
        return 0.0


def tables(result: Result) -> str:
    """Return the table."""
    by_side = {side: [row for row in result.rows if row["side"] == side] for side in _SIDES}
    idle = [row["cpu_s"] / row["seconds"] for row in result.rows if row["side"] == "idle"]
    lines = []
    for side, rows in by_side.items():
        waits = sorted((row["cpu_s"] - median(idle) * row["seconds"]) / _SENSORS for row in rows)
        lines.append(
            (
                _SIDES[side],
                median(waits),
                f"{waits[0]:.2f} to {waits[-1]:.2f}",
                median(row["waiting_after_s"] for row in rows),
                len(rows) * _SENSORS,
            )
        )
    heads = ("sensor", "CPU of a wait, s", "rounds", "all wait after, s", "waits")
    return table(heads, lines)
