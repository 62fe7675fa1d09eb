"""What waits cost the triggerer, against a client of its own for each trigger."""

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

from benchmarks.common import (
    HERE,
    Result,
    Simulator,
    percentile,
    say,
    short,
    simulator,
    table,
    verdict,
)
from benchmarks.pollers import INTERVAL, TOKEN

TITLE = "Cost in the triggerer"
OURS = "airflow_provider_cdm.triggers.CdmSubmissionTrigger"
CLASSES = {
    "nothing": "benchmarks.pollers.IdleTrigger",
    "ours": OURS,
    "a client each": "benchmarks.pollers.OneClientTrigger",
}
PLACES = {"loop": "a bare loop", "triggerer": "Airflow's triggerer"}
PROBE = "benchmarks.pollers.LagProbe"
GOAL_CPU, GOAL_KB, GOAL_LAG_MS = 5.0, 10.0, 10.0


@dataclass(frozen=True)
class Pace:
    """How long to wait and to measure, in seconds."""

    settle: float
    measure: float
    patience: float = 1200.0


def measure(*, quick: bool) -> Result:
    """Measure each kind of trigger in a bare loop, then in a triggerer."""
    _allow_many_files()
    pace = Pace(5, 10) if quick else Pace(25, 45)
    counts = (50,) if quick else (1000, 5000)
    return Result("triggerer", [row for waits in counts for row in compare(waits, pace)])


def compare(waits: int, pace: Pace) -> list[dict[str, Any]]:
    """Measure each kind of trigger in both places."""
    rows = []
    with _running(waits) as jobs:
        for where in (_loop, _triggerer):
            for kind in CLASSES:
                with where(kind, jobs, pace) as place:
                    row = _watch(place, jobs.sim, pace)
                rows.append({"where": where.__name__[1:], "kind": kind, "waits": waits, **row})
                say(f"triggerer: {rows[-1]}")
    return rows


def _allow_many_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# The runs that are waited for


@dataclass
class Jobs:
    """Jobs that run for hours at a simulator in another process.

    :param runs: arguments of our trigger for each.
    """

    sim: Simulator
    runs: list[dict[str, Any]]
    token: str

    def triggers(self, kind: str) -> tuple[str, list[dict[str, Any]]]:
        """Classpath of a kind, and arguments for each run."""
        extra = self.sim.connection["extra"]
        root = f"{self.sim.url}/v1.1/{extra['project_id']}/clusters/{extra['cluster_id']}/cdm/job"
        if kind == "ours":
            return OURS, self.runs
        return CLASSES[kind], [{"url": f"{root}/{run['job_name']}/status"} for run in self.runs]

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs that waits for them."""
        connection = json.dumps(self.sim.connection)
        return {**os.environ, "AIRFLOW_CONN_CDM_DEFAULT": connection, TOKEN: self.token}


@contextmanager
def _running(waits: int) -> Iterator[Jobs]:
    names = [f"load_{number:05}" for number in range(waits)]
    jobs = [{"name": name, "seconds": 24 * 3600} for name in names]
    # Quotas are off: otherwise the clients would be told 429 most of the time, which costs less.
    with simulator({"clusters": [{"name": "demo", "jobs": jobs}]}) as sim:
        extra = sim.connection["extra"]
        user = {"name": sim.connection["login"], "password": sim.connection["password"]}
        user["domain"] = {"name": extra["domain_name"]}
        identity = {"methods": ["password"], "password": {"user": user}}
        wish = {"identity": identity, "scope": {"project": {"id": extra["project_id"]}}}
        with requests.Session() as http:
            answer = http.post(f"{sim.url}/v3/auth/tokens", json={"auth": wish}, timeout=60)
            token = answer.headers["X-Subject-Token"]
            http.headers["X-Auth-Token"] = token
            root = f"{sim.url}/v1.1/{extra['project_id']}/clusters/{extra['cluster_id']}/cdm/job"
            runs = []
            for name in names:
                answer = http.put(f"{root}/{name}/start", json={}, timeout=60)
                run = answer.json()["submissions"][0]
                one = {"job_name": name, "cluster_id": extra["cluster_id"]}
                one |= {"submission_id": run["submission-id"], "poll_interval": INTERVAL}
                runs.append(one | {"creation_date": run["creation-date"]})
        yield Jobs(sim, runs, token)


# Where triggers run


@dataclass
class Place:
    """Where triggers run.

    :param processes: their names, and themselves.
    :param lags: where the probe writes.
    :param before: bytes of memory before there were triggers, if that is known.
    """

    processes: dict[str, Any]
    lags: Path
    before: int | None = None


@contextmanager
def _loop(kind: str, jobs: Jobs, pace: Pace) -> Iterator[Place]:
    """A bare event loop in a process."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        classpath, arguments = jobs.triggers(kind)
        lags = Path(folder, "lags")
        ready = Path(folder, "ready")
        wanted = {"classpath": classpath, "arguments": arguments, "settle": pace.settle / 4}
        wanted |= {"lags": str(lags), "ready": str(ready)}
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
            raise RuntimeError("no pipe")
        process.stdin.write(json.dumps(wanted).encode())
        process.stdin.close()
        _wait_for(lambda: ready.exists() and ready.read_text() != "", process, pace)
        yield Place({"loop": psutil.Process(process.pid)}, lags, int(ready.read_text()))


@contextmanager
def _triggerer(kind: str, jobs: Jobs, pace: Pace) -> Iterator[Place]:
    """A triggerer of a real Airflow, and its database."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        home = Path(folder)
        lags = home / "lags"
        classpath, arguments = jobs.triggers(kind)
        triggers = [(classpath, one) for one in arguments] + [(PROBE, {"url": str(lags)})]
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

        def airflow(*command: str, given: str = "") -> None:
            command = (sys.executable, "-m", *command)
            subprocess.run(
                command, env=environment, check=True, input=given.encode(), capture_output=True
            )

        airflow("airflow", "db", "migrate")
        airflow("airflow", "dags", "reserialize")
        airflow("airflow", "dags", "trigger", "waits")
        airflow("benchmarks.deferrals", given=json.dumps(triggers))
        command = ["airflow", "triggerer", "--skip-serve-logs", "--capacity", str(len(triggers))]
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", *command],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        stack.callback(_end, process)
        # A trigger that runs has a log.
        logs, count = home / "logs", len(triggers)
        _wait_for(lambda: sum(1 for _ in logs.rglob("*.trigger.*.log")) >= count, process, pace)
        parent = psutil.Process(process.pid)
        (runner,) = parent.children()
        yield Place({"parent": parent, "runner": runner}, lags)


def _wait_for(done: Callable[[], bool], process: subprocess.Popen[bytes], pace: Pace) -> None:
    deadline = time.monotonic() + pace.patience
    while not done():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("not all triggers came to run")
        time.sleep(1)


def _end(process: subprocess.Popen[bytes]) -> None:
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()


# What is measured


def _watch(place: Place, sim: Simulator, pace: Pace) -> dict[str, Any]:
    time.sleep(pace.settle)
    lines = len(place.lags.read_text().splitlines())
    before = {name: sum(each.cpu_times()[:2]) for name, each in place.processes.items()}
    began, at = time.monotonic(), time.time()
    time.sleep(pace.measure)
    passed = time.monotonic() - began
    cpu = {
        name: short(100 * (sum(each.cpu_times()[:2]) - before[name]) / passed)
        for name, each in place.processes.items()
    }
    memory = {name: each.memory_info().rss for name, each in place.processes.items()}
    found = place.lags.read_text().splitlines()[lines:]
    lags = [1000 * lag for line in found for lag in json.loads(line)]
    asked = [one["at"] for one in sim.ask("/_sim/requests") if one["at"] >= at]
    span = max(asked) - min(asked) if len(asked) > 1 else 0
    return {
        "cpu_percent": cpu,
        "memory_mb": {name: round(size / 1e6, 1) for name, size in memory.items()},
        "grown_mb": place.before and round((memory["loop"] - place.before) / 1e6, 2),
        "lag_ms": [percentile(lags, share) for share in (0.5, 0.99, 1.0)],
        "calls_per_minute": short(60 * (len(asked) - 1) / span) if span else 0.0,
    }


def tables(result: Result) -> str:
    """The table."""
    heads = (
        *("where", "waits", "triggers", "CPU, % of a core", "memory, MB", "KB a wait"),
        *("loop lag p50, ms", "p99", "longest", "calls a minute", "CPU, to ours"),
        "memory, to ours",
    )
    lines = []
    for row in result.rows:
        ours = _other(result, row, "ours")
        cpu, kb = sum(row["cpu_percent"].values()), _kb_a_wait(result, row)
        poor = row["kind"] == "a client each"
        lines.append(
            (
                PLACES[row["where"]],
                *(row["waits"], row["kind"], _parts(row["cpu_percent"]), _parts(row["memory_mb"])),
                kb,
                *row["lag_ms"],
                row["calls_per_minute"],
                f"{cpu / max(0.1, sum(ours['cpu_percent'].values())):.1f}" if poor else "",
                f"{kb / max(0.1, _kb_a_wait(result, ours)):.0f}" if poor else "",
            )
        )
    return table(heads, lines)


def _parts(values: dict[str, float]) -> str:
    total = f"{short(sum(values.values())):,g}"
    inside = ", ".join(f"{name} {value:g}" for name, value in values.items())
    return total if len(values) == 1 else f"{total} ({inside})"


def _other(result: Result, row: dict[str, Any], kind: str) -> dict[str, Any]:
    same = ("where", "waits")
    alike = [each for each in result.rows if all(each[key] == row[key] for key in same)]
    return next(each for each in alike if each["kind"] == kind)


def _kb_a_wait(result: Result, row: dict[str, Any]) -> float:
    """In the loop what came on top with the triggers, in the triggerer what came on top of idle
    ones.
    """
    if row["where"] == "loop":
        return short(1000 * row["grown_mb"] / row["waits"])
    idle = _other(result, row, "nothing")
    grown = sum(row["memory_mb"].values()) - sum(idle["memory_mb"].values())
    return short(1000 * grown / row["waits"])


def goals(result: Result) -> list[tuple[str, str]]:
    """What was to be reached, and what was."""
    found = []
    for row in result.rows:
        if row["kind"] != "ours":
            continue
        cpu, kb, lag = sum(row["cpu_percent"].values()), _kb_a_wait(result, row), row["lag_ms"][1]
        idle = _other(result, row, "nothing")
        idle_cpu, idle_lag = sum(idle["cpu_percent"].values()), idle["lag_ms"][1]
        what = (
            f"{row['waits']:,} waits in {PLACES[row['where']]}: under {GOAL_CPU:g} % of a core,"
            f" under {GOAL_KB:g} KB a wait, loop lag p99 under {GOAL_LAG_MS:g} ms"
        )
        seen = (
            f"CPU {verdict(cpu < GOAL_CPU)}, {short(cpu):g} %; memory {verdict(kb < GOAL_KB)},"
            f" {kb:g} KB; lag {verdict(lag < GOAL_LAG_MS)}, {lag:.1f} ms (idle triggers:"
            f" {short(idle_cpu):g} % and {idle_lag:.1f} ms)"
        )
        found.append((what, seen))
    return found
