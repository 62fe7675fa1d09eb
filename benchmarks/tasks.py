"""A thousand deferred tasks of a real Airflow, to the end: scheduler, workers and one triggerer."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # a part of every Airflow

from airflow_provider_cdm.simulator import CdmSimulator
from benchmarks.common import HERE, Result, say, short, table, verdict
from demo.databases import SqliteFile
from tests.support.airflow_stack import AirflowStack

TITLE = "A thousand deferred tasks in a real Airflow"
#: Tasks on workers at a time, for each core.
_SLOTS = 3
#: Seconds: the shortest run, what runs differ by at random, and by how much longer than the next
#: one each lasts, for about as long later it is started: all shall be deferred before any ends.
_SHORTEST, _MIXED, _PACE = 120.0, 600.0, 1.0
_PATIENCE = 3 * 3600.0
_DAG = "waits"


@dataclass
class Sample:
    """What there was at an instant.

    :param at: seconds since the begin.
    :param states: how many tasks are in each state.
    :param cpu: seconds that the triggerer has used so far.
    :param memory: bytes that it has.
    """

    at: float
    states: Counter[str]
    cpu: float
    memory: int


@dataclass
class Yard:
    """The jobs: each moves a row of its own to the one target table.

    :param folder: of the databases.
    """

    sim: CdmSimulator
    folder: Path
    jobs: list[str] = field(default_factory=list)

    def open(self, count: int, mixed: float) -> None:
        """Make databases, links and jobs.

        :param mixed: seconds by which the lengths of runs differ at random.
        """
        for name in ("source", "target"):
            database = SqliteFile(self.folder / f"{name}.db")
            database.run("CREATE TABLE orders (id INTEGER)")
            if name == "source":
                rows = [(number,) for number in range(count)]
                database.run_many("INSERT INTO orders VALUES (?)", rows)
            self.sim.add_link(name, url=database.url)
        dice = random.Random(count)
        for number in range(count):
            self.jobs.append(f"load_{number:05}")
            self.sim.add_job(
                self.jobs[-1],
                from_={"link": "source", "table": "orders", "where": f"id = {number}"},
                to={"link": "target", "table": "orders"},
                seconds=_SHORTEST + _PACE * (count - number) + mixed * dice.random(),
            )

    def wrong_rows(self) -> int:
        """How many rows are missing in the target, or there more than once."""
        rows = SqliteFile(self.folder / "target.db").run("SELECT id FROM orders")
        found = Counter(number for (number,) in rows)
        return sum(found[number] != 1 for number in range(len(self.jobs)))


def measure(*, quick: bool) -> Result:
    """Run the tasks; with a thousand it takes more than half an hour."""
    count, mixed = (20, 20.0) if quick else (1000, _MIXED)
    with tempfile.TemporaryDirectory(prefix="cdm-tasks-") as path, _simulator() as sim:
        folder = Path(path)
        yard = Yard(sim, folder)
        yard.open(count, mixed)
        stack = _stack(sim, folder, count)
        try:
            stack.start()
            stack.wait_for_dags(1)
            began = time.time()
            stack.trigger(_DAG, "once", "2026-01-01T00:00:00Z")
            samples = _follow(stack, began)
            return Result("tasks", [_row(stack, yard, samples, began)])
        finally:
            stack.stop()


def _simulator() -> CdmSimulator:
    return CdmSimulator({"quotas": "documented"})


def _stack(sim: CdmSimulator, folder: Path, count: int) -> AirflowStack:
    (folder / "dags").mkdir()
    (folder / "airflow").mkdir()
    shutil.copy(HERE / "waits_dag.py", folder / "dags")
    environment = {
        "AIRFLOW_CONN_CDM_DEFAULT": json.dumps(sim.connection),
        "BENCHMARK_TASKS": str(count),
    }
    slots = str(_SLOTS * (psutil.cpu_count() or 1))
    settings = {
        "CORE__MAX_ACTIVE_TASKS_PER_DAG": slots,
        "CORE__PARALLELISM": slots,
        # Many tasks on few cores: a slow one is not a dead one.
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "300",
        "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "60",
    }
    return AirflowStack(folder / "airflow", folder / "dags", environment, settings=settings)


def _follow(stack: AirflowStack, began: float) -> list[Sample]:
    """Look every few seconds until the DAG run is over."""
    samples: list[Sample] = []
    leader = psutil.Process(stack.processes["triggerer"].pid)
    while stack.dag_run(_DAG, "once") not in ("success", "failed"):
        if time.time() > began + _PATIENCE:
            raise TimeoutError(f"still at work: {samples[-1]}")
        rows = stack.query(
            "SELECT state, count(*) FROM task_instance WHERE dag_id = ? GROUP BY state", _DAG
        )
        states = Counter({state or "none": number for state, number in rows})
        processes = [leader, *leader.children(recursive=True)]
        cpu = sum(sum(process.cpu_times()[:2]) for process in processes)
        memory = sum(process.memory_info().rss for process in processes)
        samples.append(Sample(time.time() - began, states, cpu, memory))
        if len(samples) % 20 == 1:
            say(f"tasks: {samples[-1].at:.0f} s, {dict(states)}")
        time.sleep(3)
    return samples


def _row(stack: AirflowStack, yard: Yard, samples: list[Sample], began: float) -> dict[str, Any]:
    total = time.time() - began
    ended = stack.query(
        "SELECT map_index, state, try_number, end_date FROM task_instance WHERE dag_id = ?", _DAG
    )
    runs = {job: yard.sim.runs(job) for job in yard.jobs}
    most = max(sample.states["deferred"] for sample in samples)
    held = [sample for sample in samples if sample.states["deferred"] == most]
    first, last = held[0], held[-1]
    calls = [each for each in yard.sim.requests if each.route != "token"]
    row = {
        "tasks": len(yard.jobs),
        "well": sum(state == "success" for _, state, _, _ in ended),
        "attempts": max(attempt for _, _, attempt, _ in ended),
        "runs": sum(map(len, runs.values())),
        "runs_well": sum(run.status == "SUCCEEDED" for one in runs.values() for run in one),
        "wrong_rows": yard.wrong_rows(),
        "held": most,
        "held_from_s": short(first.at),
        "held_to_s": short(last.at),
        "total_s": short(total),
        "cpu_percent": short(100 * (last.cpu - first.cpu) / max(1.0, last.at - first.at)),
        "memory_mb": round(max(sample.memory for sample in samples) / 1e6),
        "memory_before_mb": round(samples[0].memory / 1e6),
        "calls": dict(Counter(each.route for each in calls)),
        "refused": dict(Counter(each.route for each in calls if each.status == 429)),
        "peak": {
            route: _peak([each.at for each in calls if each.route == route])
            for route in {each.route for each in calls}
        },
    }
    say(f"tasks: {row}")
    return row


def _peak(times: list[float]) -> int:
    """The most within any minute."""
    times.sort()
    return max(sum(1 for one in times[i:] if one < at + 60) for i, at in enumerate(times))


def tables(result: Result) -> str:
    """What was seen."""
    (row,) = result.rows
    lines = [
        ("tasks that ended well", f"{row['well']:,} of {row['tasks']:,}"),
        ("most attempts of a task", row["attempts"]),
        ("runs at CDM, and those that ended well", f"{row['runs']:,}, {row['runs_well']:,}"),
        ("rows missing in the target, or there twice", row["wrong_rows"]),
        ("deferred at the same time", row["held"]),
        ("all were deferred after", f"{row['held_from_s'] / 60:.0f} min"),
        ("all were over after", f"{row['total_s'] / 60:.0f} min"),
        ("the triggerer while it held them all, % of a core", row["cpu_percent"]),
        (
            "its memory before, and at most",
            f"{row['memory_before_mb']:,} MB, {row['memory_mb']:,} MB",
        ),
    ]
    for route, count in sorted(row["calls"].items()):
        seen = f"{count:,}, at most {row['peak'][route]:,} a minute"
        lines.append((f"calls: {route}", f"{seen}, {row['refused'].get(route, 0)} refused"))
    return table(("seen", ""), lines)


def goals(result: Result) -> list[tuple[str, str]]:
    """What was to be reached, and what was."""
    (row,) = result.rows
    counts = {row["tasks"], row["held"], row["well"], row["runs"], row["runs_well"]}
    what = f"A triggerer holds {row['tasks']:,} deferred tasks at a time, and all end well"
    well = len(counts) == 1 and not row["wrong_rows"]
    seen = f"{row['held']:,} at a time, {row['well']:,} ended well, {row['runs']:,} runs,"
    return [(what, f"{verdict(well)}: {seen} {row['wrong_rows']} wrong rows")]
