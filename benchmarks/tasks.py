"""A thousand deferred tasks in a real Airflow with scheduler, workers and one triggerer."""

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
from airflow_provider_cdm.simulator.demo.databases import SqliteFile
from benchmarks.common import HERE, Result, log, round_short, table, verdict
from tests.support.airflow_stack import AirflowStack

TITLE = "A thousand deferred tasks in a real Airflow"
#: Tasks on workers at the same time, per core.
_TASKS_PER_CORE = 3
#: Seconds: duration of the shortest run, random part of the durations, and by how much each run is
#: longer than the next one, which starts about as much later: so all are deferred before any ends.
_SHORTEST, _RANDOM_PART, _STEP = 120.0, 600.0, 1.0
_TIMEOUT = 3 * 3600.0
_DAG = "waits"


@dataclass
class Sample:
    """The state of the tasks and the triggerer at some time.

    :param at: seconds since the begin.
    :param states: number of tasks in each state.
    :param cpu: CPU seconds that the triggerer has used so far.
    :param memory: memory of the triggerer, in bytes.
    """

    at: float
    states: Counter[str]
    cpu: float
    memory: int


@dataclass
class MigrationJobs:
    """Jobs each of which moves a row of its own to the same target table.

    :param sim: simulator of the jobs.
    :param folder: folder of the databases.
    :param names: names of the jobs.
    """

    sim: CdmSimulator
    folder: Path
    names: list[str] = field(default_factory=list)

    def create(self, count: int, random_part: float) -> None:
        """Create databases, links and jobs.

        :param count: number of jobs.
        :param random_part: random part of the durations, in seconds.
        """
        for name in ("source", "target"):
            database = SqliteFile(self.folder / f"{name}.db")
            database.run("CREATE TABLE orders (id INTEGER)")
            if name == "source":
                rows = [(number,) for number in range(count)]
                database.run_many("INSERT INTO orders VALUES (?)", rows)
            self.sim.add_link(name, url=database.url)
        rng = random.Random(count)
        for number in range(count):
            self.names.append(f"load_{number:05}")
            self.sim.add_job(
                self.names[-1],
                from_={"link": "source", "table": "orders", "where": f"id = {number}"},
                to={"link": "target", "table": "orders"},
                seconds=_SHORTEST + _STEP * (count - number) + random_part * rng.random(),
            )

    def wrong_rows(self) -> int:
        """Count the rows that are not in the target exactly once."""
        rows = SqliteFile(self.folder / "target.db").run("SELECT id FROM orders")
        copies = Counter(number for (number,) in rows)
        return sum(copies[number] != 1 for number in range(len(self.names)))


def measure(*, quick: bool) -> Result:
    """Run the tasks; a thousand take more than half an hour."""
    count, random_part = (20, 20.0) if quick else (1000, _RANDOM_PART)
    with tempfile.TemporaryDirectory(prefix="cdm-tasks-") as path, _simulator() as sim:
        folder = Path(path)
        jobs = MigrationJobs(sim, folder)
        jobs.create(count, random_part)
        stack = _stack(sim, folder, count)
        try:
            stack.start()
            stack.wait_for_dags(1)
            began = time.time()
            stack.trigger(_DAG, "once", "2026-01-01T00:00:00Z")
            samples = _sample_until_end(stack, began)
            return Result("tasks", [_row(stack, jobs, samples, began)])
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
    parallel = str(_TASKS_PER_CORE * (psutil.cpu_count() or 1))
    settings = {
        "CORE__MAX_ACTIVE_TASKS_PER_DAG": parallel,
        "CORE__PARALLELISM": parallel,
        # With many tasks on few cores, slow processes must not be taken for dead ones.
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "300",
        "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "60",
    }
    return AirflowStack(folder / "airflow", folder / "dags", environment, settings=settings)


def _sample_until_end(stack: AirflowStack, began: float) -> list[Sample]:
    """Take a sample every few seconds until the DAG run has ended."""
    samples: list[Sample] = []
    triggerer = psutil.Process(stack.processes["triggerer"].pid)
    while stack.dag_run(_DAG, "once") not in ("success", "failed"):
        if time.time() > began + _TIMEOUT:
            raise TimeoutError(f"The DAG run has not ended within {_TIMEOUT:.0f} s: {samples[-1]}")
        rows = stack.query(
            "SELECT state, count(*) FROM task_instance WHERE dag_id = ? GROUP BY state", _DAG
        )
        states = Counter({state or "none": number for state, number in rows})
        processes = [triggerer, *triggerer.children(recursive=True)]
        cpu = sum(sum(process.cpu_times()[:2]) for process in processes)
        memory = sum(process.memory_info().rss for process in processes)
        samples.append(Sample(time.time() - began, states, cpu, memory))
        if len(samples) % 20 == 1:
            log(f"tasks: {samples[-1].at:.0f} s, {dict(states)}")
        time.sleep(3)
    return samples


def _row(
    stack: AirflowStack, jobs: MigrationJobs, samples: list[Sample], began: float
) -> dict[str, Any]:
    total = time.time() - began
    ended = stack.query(
        "SELECT map_index, state, try_number, end_date FROM task_instance WHERE dag_id = ?", _DAG
    )
    runs = [run for name in jobs.names for run in jobs.sim.runs(name)]
    deferred = max(sample.states["deferred"] for sample in samples)
    all_deferred = [sample for sample in samples if sample.states["deferred"] == deferred]
    first, last = all_deferred[0], all_deferred[-1]
    calls = [request for request in jobs.sim.requests if request.route != "token"]
    row = {
        "tasks": len(jobs.names),
        "succeeded": sum(state == "success" for _, state, _, _ in ended),
        "attempts": max(attempt for _, _, attempt, _ in ended),
        "runs": len(runs),
        "runs_succeeded": sum(run.status == "SUCCEEDED" for run in runs),
        "wrong_rows": jobs.wrong_rows(),
        "deferred": deferred,
        "deferred_from_s": round_short(first.at),
        "deferred_to_s": round_short(last.at),
        "total_s": round_short(total),
        "cpu_percent": round_short(100 * (last.cpu - first.cpu) / max(1.0, last.at - first.at)),
        "memory_mb": round(max(sample.memory for sample in samples) / 1e6),
        "memory_before_mb": round(samples[0].memory / 1e6),
        "calls": dict(Counter(call.route for call in calls)),
        "throttled": dict(Counter(call.route for call in calls if call.status == 429)),
        "peak": {
            route: _peak([call.at for call in calls if call.route == route])
            for route in {call.route for call in calls}
        },
    }
    log(f"tasks: {row}")
    return row


def _peak(times: list[float]) -> int:
    """Return the largest number of calls within any minute."""
    times.sort()
    return max(sum(1 for at in times[i:] if at < begin + 60) for i, begin in enumerate(times))


def tables(result: Result) -> str:
    """Return the table."""
    (row,) = result.rows
    lines = [
        ("tasks that succeeded", f"{row['succeeded']:,} of {row['tasks']:,}"),
        ("most attempts of a task", row["attempts"]),
        ("runs in CDM, and of these succeeded", f"{row['runs']:,}, {row['runs_succeeded']:,}"),
        ("rows missing or duplicated in the target", row["wrong_rows"]),
        ("tasks deferred at the same time", row["deferred"]),
        ("all were deferred after", f"{row['deferred_from_s'] / 60:.0f} min"),
        ("all had ended after", f"{row['total_s'] / 60:.0f} min"),
        ("CPU of the triggerer while all were deferred, % of a core", row["cpu_percent"]),
        (
            "memory of the triggerer before, and at most",
            f"{row['memory_before_mb']:,} MB, {row['memory_mb']:,} MB",
        ),
    ]
    for route, count in sorted(row["calls"].items()):
        total = f"{count:,}, at most {row['peak'][route]:,} a minute"
        throttled = row["throttled"].get(route, 0)
        lines.append((f"calls: {route}", f"{total}, {throttled} throttled"))
    return table(("measured", ""), lines)


def goals(result: Result) -> list[tuple[str, str]]:
    """Return the goal, and whether it was reached."""
    (row,) = result.rows
    counts = {row[key] for key in ("tasks", "deferred", "succeeded", "runs", "runs_succeeded")}
    goal = f"One triggerer runs {row['tasks']:,} deferred tasks at the same time, and all succeed"
    reached = verdict(len(counts) == 1 and not row["wrong_rows"])
    result_text = (
        f"{row['deferred']:,} at the same time, {row['succeeded']:,} succeeded,"
        f" {row['runs']:,} runs, {row['wrong_rows']} wrong rows"
    )
    return [(goal, f"{reached}: {result_text}")]
