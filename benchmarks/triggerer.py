"""Cost of waits in the triggerer, compared with a client for each trigger."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # a part of every Airflow
import requests

from benchmarks.baseline_triggers import INTERVAL, TOKEN_VARIABLE
from benchmarks.common import (
    HERE,
    Result,
    Simulator,
    log,
    percentile,
    round_short,
    simulator,
    table,
    verdict,
)

TITLE = "Cost in the triggerer"
OURS = "airflow_provider_cdm.triggers.CdmSubmissionTrigger"
CLASSES = {
    "idle": "benchmarks.baseline_triggers.IdleTrigger",
    "ours": OURS,
    "one client each": "benchmarks.baseline_triggers.OneClientTrigger",
}
PLACES = {"loop": "a bare loop", "triggerer": "Airflow's triggerer"}
PROBE = "benchmarks.baseline_triggers.LagProbe"
GOAL_CPU, GOAL_KB, GOAL_LAG_MS = 5.0, 10.0, 10.0
#: What Airflow's triggerer itself takes grows with the waits, so ours is what comes on top of it.
GOAL_OVER_IDLE = 1.5


@dataclass(frozen=True)
class Durations:
    """Seconds to wait until all is settled, to measure, and to wait for the triggers at most."""

    settle: float
    measure: float
    start_timeout: float = 1200.0


def measure(*, quick: bool) -> Result:
    """Measure each kind of trigger in a bare event loop, then in a triggerer."""
    _allow_many_files()
    durations = Durations(5, 10) if quick else Durations(25, 45)
    counts = (50,) if quick else (1000, 5000)
    return Result("triggerer", [row for waits in counts for row in compare(waits, durations)])


def compare(waits: int, durations: Durations) -> list[dict[str, Any]]:
    """Measure each kind of trigger in both places."""
    rows = []
    with _running(waits) as jobs:
        for where in (_loop, _triggerer):
            for kind in CLASSES:
                with where(kind, jobs, durations) as place:
                    row = _measure(place, jobs.sim, durations)
                rows.append({"where": where.__name__[1:], "kind": kind, "waits": waits, **row})
                log(f"triggerer: {rows[-1]}")
    return rows


def _allow_many_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# The runs that are waited for


@dataclass
class Jobs:
    """Jobs that run for hours in a simulator in another process.

    :param sim: the simulator.
    :param runs: arguments of our trigger for each run.
    :param token: token for the other triggers.
    """

    sim: Simulator
    runs: list[dict[str, Any]]
    token: str

    def triggers(self, kind: str) -> tuple[str, list[dict[str, Any]]]:
        """Return the class path of a kind of trigger, and its arguments for each run."""
        extra = self.sim.connection["extra"]
        root = f"{self.sim.url}/v1.1/{extra['project_id']}/clusters/{extra['cluster_id']}/cdm/job"
        if kind == "ours":
            return OURS, self.runs
        return CLASSES[kind], [{"url": f"{root}/{run['job_name']}/status"} for run in self.runs]

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process with triggers."""
        connection = json.dumps(self.sim.connection)
        return {**os.environ, "AIRFLOW_CONN_CDM_DEFAULT": connection, TOKEN_VARIABLE: self.token}


@contextmanager
def _running(waits: int) -> Iterator[Jobs]:
    names = [f"load_{number:05}" for number in range(waits)]
    jobs = [{"name": name, "seconds": 24 * 3600} for name in names]
    # Without quotas: otherwise "one client each" would mostly get 429, which costs it less.
    with simulator({"clusters": [{"name": "demo", "jobs": jobs}]}) as sim:
        extra = sim.connection["extra"]
        user = {"name": sim.connection["login"], "password": sim.connection["password"]}
        user["domain"] = {"name": extra["domain_name"]}
        identity = {"methods": ["password"], "password": {"user": user}}
        auth = {"identity": identity, "scope": {"project": {"id": extra["project_id"]}}}
        with requests.Session() as http:
            response = http.post(f"{sim.url}/v3/auth/tokens", json={"auth": auth}, timeout=60)
            token = response.headers["X-Subject-Token"]
            http.headers["X-Auth-Token"] = token
            root = f"{sim.url}/v1.1/{extra['project_id']}/clusters/{extra['cluster_id']}/cdm/job"
            runs = []
            for name in names:
                response = http.put(f"{root}/{name}/start", json={}, timeout=60)
                run = response.json()["submissions"][0]
                arguments = {"job_name": name, "cluster_id": extra["cluster_id"]}
                arguments |= {"submission_id": run["submission-id"], "poll_interval": INTERVAL}
                runs.append(arguments | {"creation_date": run["creation-date"]})
        yield Jobs(sim, runs, token)


# Where triggers run


@dataclass
class Place:
    """Where triggers run.

    :param processes: the processes by name.
    :param lags: file that the lag probe writes.
    :param memory_before: memory before there were triggers, in bytes, if that is known.
    """

    processes: dict[str, Any]
    lags: Path
    memory_before: int | None = None


@contextmanager
def _loop(kind: str, jobs: Jobs, durations: Durations) -> Iterator[Place]:
    """Run triggers in a bare event loop, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        classpath, arguments = jobs.triggers(kind)
        lags = Path(folder, "lags")
        ready = Path(folder, "ready")
        options: dict[str, Any] = {"classpath": classpath, "arguments": arguments}
        options |= {"settle": durations.settle / 4}
        options |= {"lags": str(lags), "ready": str(ready)}
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.loop"],
                cwd=HERE.parent,
                env=jobs.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        stack.callback(process.terminate)
        if process.stdin is None:
            raise RuntimeError("The process was started without a pipe for its input.")
        process.stdin.write(json.dumps(options).encode())
        process.stdin.close()
        _wait_for(lambda: ready.exists() and ready.read_text() != "", process, durations)
        yield Place({"loop": psutil.Process(process.pid)}, lags, int(ready.read_text()))


@contextmanager
def _triggerer(kind: str, jobs: Jobs, durations: Durations) -> Iterator[Place]:
    """Run triggers in the triggerer of a real Airflow."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        home = Path(folder)
        lags = home / "lags"
        classpath, arguments = jobs.triggers(kind)
        triggers = [(classpath, kwargs) for kwargs in arguments] + [(PROBE, {"url": str(lags)})]
        (home / "dags").mkdir()
        shutil.copy(HERE / "waits_dag.py", home / "dags")
        environment = {
            **jobs.environment,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW__CORE__MAX_MAP_LENGTH": str(len(triggers)),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
            "BENCHMARK_TASKS": str(len(triggers)),
            "PYTHONPATH": str(HERE.parent),
        }

        def run_module(*arguments: str, stdin: str = "") -> None:
            command = (sys.executable, "-m", *arguments)
            subprocess.run(
                command, env=environment, check=True, input=stdin.encode(), capture_output=True
            )

        run_module("airflow", "db", "migrate")
        run_module("airflow", "dags", "reserialize")
        run_module("airflow", "dags", "trigger", "waits")
        run_module("benchmarks.deferrals", stdin=json.dumps(triggers))
        command = ["airflow", "triggerer", "--skip-serve-logs", "--capacity", str(len(triggers))]
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", *command],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        stack.callback(_kill, process)
        # A running trigger has a log file.
        logs, count = home / "logs", len(triggers)
        _wait_for(
            lambda: sum(1 for _ in logs.rglob("*.trigger.*.log")) >= count, process, durations
        )
        parent = psutil.Process(process.pid)
        (runner,) = parent.children()
        yield Place({"parent": parent, "runner": runner}, lags)


def _wait_for(
    done: Callable[[], bool], process: subprocess.Popen[bytes], durations: Durations
) -> None:
    deadline = time.monotonic() + durations.start_timeout
    while not done():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("The process has ended, or did not start all triggers in time.")
        time.sleep(1)


def _kill(process: subprocess.Popen[bytes]) -> None:
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()


# Measurements


def _measure(place: Place, sim: Simulator, durations: Durations) -> dict[str, Any]:
    time.sleep(durations.settle)
    lines_before = len(place.lags.read_text().splitlines())
    cpu_before = {name: _cpu_seconds(process) for name, process in place.processes.items()}
    began, began_at = time.monotonic(), time.time()
    time.sleep(durations.measure)
    duration = time.monotonic() - began
    cpu = {
        name: round_short(100 * (_cpu_seconds(process) - cpu_before[name]) / duration)
        for name, process in place.processes.items()
    }
    memory = {name: process.memory_info().rss for name, process in place.processes.items()}
    lines = place.lags.read_text().splitlines()[lines_before:]
    lags = [1000 * lag for line in lines for lag in json.loads(line)]
    requests_made = sim.control("/_sim/requests")
    calls = [request["at"] for request in requests_made if request["at"] >= began_at]
    span = max(calls) - min(calls) if len(calls) > 1 else 0
    return {
        "cpu_percent": cpu,
        "memory_mb": {name: round(size / 1e6, 1) for name, size in memory.items()},
        "grown_mb": place.memory_before and round((memory["loop"] - place.memory_before) / 1e6, 2),
        "lag_ms": [percentile(lags, share) for share in (0.5, 0.99, 1.0)],
        "calls_per_minute": round_short(60 * (len(calls) - 1) / span) if span else 0.0,
    }


def _cpu_seconds(process: psutil.Process) -> float:
    return float(sum(process.cpu_times()[:2]))


def tables(result: Result) -> str:
    """Return the table."""
    heads = (
        *("where", "waits", "triggers", "CPU, % of a core", "memory, MB", "KB a wait"),
        *("loop lag p50, ms", "p99", "longest", "calls a minute", "CPU, vs ours"),
        "memory, vs ours",
    )
    lines = []
    for row in result.rows:
        ours = _other(result, row, "ours")
        cpu, kb = sum(row["cpu_percent"].values()), _kb_per_wait(result, row)
        one_client_each = row["kind"] == "one client each"
        lines.append(
            (
                PLACES[row["where"]],
                *(row["waits"], row["kind"], _parts(row["cpu_percent"]), _parts(row["memory_mb"])),
                kb,
                *row["lag_ms"],
                row["calls_per_minute"],
                f"{cpu / max(0.1, sum(ours['cpu_percent'].values())):.1f}"
                if one_client_each
                else "",
                f"{kb / max(0.1, _kb_per_wait(result, ours)):.0f}" if one_client_each else "",
            )
        )
    return table(heads, lines)


def _parts(values: dict[str, float]) -> str:
    total = f"{round_short(sum(values.values())):,g}"
    parts = ", ".join(f"{name} {value:g}" for name, value in values.items())
    return total if len(values) == 1 else f"{total} ({parts})"


def _other(result: Result, row: dict[str, Any], kind: str) -> dict[str, Any]:
    keys = ("where", "waits")
    rows = [other for other in result.rows if all(other[key] == row[key] for key in keys)]
    return next(other for other in rows if other["kind"] == kind)


def _kb_per_wait(result: Result, row: dict[str, Any]) -> float:
    """Return the memory per wait: what triggers added, in the triggerer compared to idle ones."""
    if row["where"] == "loop":
        return round_short(1000 * row["grown_mb"] / row["waits"])
    idle = _other(result, row, "idle")
    grown = sum(row["memory_mb"].values()) - sum(idle["memory_mb"].values())
    return round_short(1000 * grown / row["waits"])


def goals(result: Result) -> list[tuple[str, str]]:
    """Return the goals, and whether each was reached."""
    goals = []
    for row in result.rows:
        if row["kind"] != "ours":
            continue
        cpu, kb, lag = sum(row["cpu_percent"].values()), _kb_per_wait(result, row), row["lag_ms"][1]
        idle = _other(result, row, "idle")
        idle_cpu, idle_lag = sum(idle["cpu_percent"].values()), idle["lag_ms"][1]
        over_idle = round_short(cpu - idle_cpu)
        if row["where"] == "loop":
            goal_cpu, reached = f"under {GOAL_CPU:g} % of a core", cpu < GOAL_CPU
        else:
            goal_cpu = f"at most {GOAL_OVER_IDLE:g} points of CPU over idle triggers"
            reached = over_idle <= GOAL_OVER_IDLE
        goal = (
            f"{row['waits']:,} waits in {PLACES[row['where']]}: {goal_cpu},"
            f" under {GOAL_KB:g} KB a wait, loop lag p99 under {GOAL_LAG_MS:g} ms"
        )
        outcome = (
            f"CPU {verdict(reached)}, {round_short(cpu):g} %, {over_idle:g} over idle triggers;"
            f" memory {verdict(kb < GOAL_KB)}, {kb:g} KB;"
            f" lag {verdict(lag < GOAL_LAG_MS)}, {lag:.1f} ms (idle triggers:"
            f" {round_short(idle_cpu):g} % and {idle_lag:.1f} ms)"
        )
        goals.append((goal, outcome))
    return goals
