"""A start with the operator, compared with a bare request; and a burst of starts."""

from __future__ import annotations

import heapq
import itertools
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import certifi

from airflow_provider_cdm.client.auth.factory import forget_everything
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from benchmarks.common import (
    Result,
    Simulator,
    log,
    median,
    percentile,
    quartile_range,
    round_short,
    simulator,
    table,
    verdict,
)
from benchmarks.task_runner import context_of_a_new_task

TITLE = "Starts"
ROOT = Path(__file__).parents[1]
#: Seconds that an answer takes over a long distance.
LONG_DISTANCE = 0.1


def measure(*, quick: bool) -> Result:
    """Measure single starts, then bursts."""
    logging.disable(logging.CRITICAL)
    rows = []
    for delay, repeats in ((0.0, 10 if quick else 200), (LONG_DISTANCE, 3 if quick else 50)):
        rows += _single(delay, repeats)
    bursts = [(200, 32)] if quick else [(1000, 32), (1000, 1000), (2000, 32)]
    return Result("starts", rows + [_burst(*burst) for burst in bursts])


# One start

#: Ways to start a job by process; the first of each is what the others are compared with.
WAYS = {
    "modules loaded": {
        "put": "bare requests.put, with a token",
        "session": "bare requests.Session with a token: the operator's calls",
        "operator": "operator, with a token",
        "operator without a token": "operator, requests a token",
    },
    "new process": {
        "calls": "bare requests: token and the operator's calls",
        "session": "the same with a requests.Session",
        "put": "bare requests: token, then put",
        "operator": "operator, requests a token",
    },
}


def _single(delay: float, repeats: int) -> list[dict[str, Any]]:
    """Start a job in different ways by turns over TLS, each in a process of its own.

    :param delay: seconds by which the simulator delays each answer.
    :param repeats: number of starts in each way.
    """
    instant_job = {"name": "orders", "seconds": {"booting": 0, "running": 0}}
    config: dict[str, Any] = {"tls": True, "clusters": [{"name": "demo", "jobs": [instant_job]}]}
    if delay:
        config["faults"] = [{"route": "*", "kind": "delay", "seconds": delay, "times": None}]
    with ExitStack() as stack:
        sim = stack.enter_context(simulator(config))
        environment = _trusting(sim, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        processes = {
            process: _StartProcess(stack, environment, imported=process == "modules loaded")
            for process in WAYS
        }
        rows: list[dict[str, Any]] = []
        for process, ways in WAYS.items():
            for way, title in ways.items():
                calls = _count_calls(sim, processes[process], way)  # and a warm-up
                row = {"kind": "single", "process": process, "way": way, "variant": title}
                rows.append(row | {"delay": delay, "repeats": repeats, "calls": calls})
        timings: list[list[tuple[float, float]]] = [[] for _ in rows]
        for _ in range(repeats):
            for row, samples in zip(rows, timings, strict=True):
                samples.append(processes[row["process"]].time(row["way"]))
    for row, samples in zip(rows, timings, strict=True):
        row.update(_statistics(samples))
        log(f"starts: {row}")
    return rows


def _statistics(samples: list[tuple[float, float]]) -> dict[str, Any]:
    walls, cpus = [1000 * wall for wall, _ in samples], [1000 * cpu for _, cpu in samples]
    return {
        "wall_ms": median(walls),
        "cpu_ms": median(cpus),
        "wall_spread": [percentile(walls, 0.25), percentile(walls, 0.75)],
        "cpu_spread": [percentile(cpus, 0.25), percentile(cpus, 0.75)],
    }


def _trusting(sim: Simulator, folder: Path) -> dict[str, str]:
    """Return an environment for starts that trust the simulator and all usual authorities."""
    certificate = sim.connection["extra"]["verify"]
    # The bundle of requests is what takes time to load.
    bundle = folder / "bundle.pem"
    bundle.write_bytes(Path(certifi.where()).read_bytes() + Path(certificate).read_bytes())
    extra = {**sim.connection["extra"], "verify": str(bundle)}
    os.environ["SSL_CERT_FILE"] = certificate  # for the simulator's controls
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return environment | {
        "AIRFLOW_CONN_CDM_DEFAULT": json.dumps({**sim.connection, "extra": extra}),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL",
        "REQUESTS_CA_BUNDLE": str(bundle),
        "PYTHONPATH": str(ROOT),
    }


class _StartProcess:
    """A process that forks itself for each start; see :mod:`benchmarks.start_process`."""

    def __init__(self, stack: ExitStack, environment: dict[str, str], *, imported: bool) -> None:
        arguments = ["imported"] if imported else []
        self._process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.start_process", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
                cwd=ROOT,
            )
        )

    def time(self, way: str) -> tuple[float, float]:
        """Return wall and CPU seconds of a start."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("The process has no pipes.")
        self._process.stdin.write(f"{way}\n")
        self._process.stdin.flush()
        took = json.loads(self._process.stdout.readline())
        if took is None:
            raise RuntimeError(f"The start failed: {way}")
        wall, cpu = took
        return wall, cpu


def _count_calls(sim: Simulator, process: _StartProcess, way: str) -> dict[str, int]:
    process.time(way)
    before = len(sim.routes())
    process.time(way)
    return dict(Counter(sim.routes()[before:]))


# A burst of starts


@dataclass
class VirtualThreads:
    """Threads in virtual time, which passes only while all of them sleep."""

    clock: ManualClock
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _awake: int = 0
    _sequence: Iterator[int] = field(default_factory=itertools.count)
    _sleepers: list[tuple[float, int, threading.Event]] = field(default_factory=list)

    def run(self, work: Callable[[], None], threads: int) -> None:
        """Call a function in each of many threads, and wait for all of them."""
        self._awake = threads
        started = [threading.Thread(target=self._work, args=(work,)) for _ in range(threads)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()

    def _work(self, work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            with self._lock:
                self._count_asleep()

    def sleep(self, seconds: float) -> None:
        """Sleep in the calling thread."""
        wakeup = threading.Event()
        with self._lock:
            until = self.clock.now() + seconds
            heapq.heappush(self._sleepers, (until, next(self._sequence), wakeup))
            self._count_asleep()
        wakeup.wait()

    def _count_asleep(self) -> None:
        self._awake -= 1
        if self._awake or not self._sleepers:
            return
        self.clock.advance(max(0.0, self._sleepers[0][0] - self.clock.now()))
        while self._sleepers and self._sleepers[0][0] <= self.clock.now():
            self._awake += 1
            heapq.heappop(self._sleepers)[2].set()


@contextmanager
def _session_time(threads: VirtualThreads) -> Iterator[None]:
    now = threads.clock.now
    CdmHook.session_options = {"clock": now, "monotonic": now, "sleep": threads.sleep}
    try:
        yield
    finally:
        CdmHook.session_options = {}


def _burst(starts: int, parallel: int) -> dict[str, Any]:
    """Start many jobs like a mapped task, each with an operator of its own.

    :param starts: number of jobs.
    :param parallel: number of tasks that run at the same time.
    """
    names: SimpleQueue[str] = SimpleQueue()
    for number in range(starts):
        names.put(f"load_{number:04}")
    clock = ManualClock()
    threads, failures = VirtualThreads(clock), Counter[str]()
    jobs = [{"name": f"load_{number:04}", "seconds": 600} for number in range(starts)]
    config = {"quotas": "documented", "clusters": [{"name": "demo", "jobs": jobs}]}

    def worker() -> None:
        while True:
            try:
                name = names.get_nowait()
            except Empty:
                return
            task = CdmStartJobOperator(task_id="move", job_name=name)
            try:
                task.execute(context_of_a_new_task(task))
            except Exception as error:
                failures[type(error).__name__] += 1

    with CdmSimulator(config, clock=clock) as sim, _session_time(threads):
        os.environ["AIRFLOW_CONN_CDM_DEFAULT"] = sim.connection_json
        forget_everything()
        virtual_begin, real_begin = clock.now(), time.monotonic()
        threads.run(worker, parallel)
        routes = Counter(request.route for request in sim.requests)
        throttled = Counter(request.route for request in sim.requests if request.status == 429)
        runs = sum(len(sim.runs(f"load_{number:04}")) for number in range(starts))
    row = {
        "kind": "burst",
        "starts": starts,
        "parallel": parallel,
        "runs": runs,
        "calls": dict(routes),
        "throttled": dict(throttled),
        "failures": dict(failures),
        "waited_s": round_short(clock.now() - virtual_begin),
        "real_s": round_short(time.monotonic() - real_begin),
    }
    log(f"starts: {row}")
    return row


def tables(result: Result) -> str:
    """Return both tables."""
    return f"{_table_of_single(result)}\n\n{_table_of_bursts(result)}"


def _table_of_single(result: Result) -> str:
    heads = (
        *("one start over TLS", "process", "delay of answers", "calls"),
        *("wall, ms", "quartiles", "vs first", "CPU, ms", "quartiles", "vs first"),
    )
    lines = []
    rows = [row for row in result.rows if row["kind"] == "single"]
    for row in rows:
        first = next(
            other
            for other in rows
            if (other["process"], other["delay"]) == (row["process"], row["delay"])
        )
        lines.append(
            (
                row["variant"],
                row["process"],
                f"{row['delay'] * 1000:.0f} ms" if row["delay"] else "none",
                sum(row["calls"].values()),
                row["wall_ms"],
                quartile_range(row["wall_spread"]),
                f"{row['wall_ms'] / first['wall_ms']:.2f}",
                row["cpu_ms"],
                quartile_range(row["cpu_spread"]),
                f"{row['cpu_ms'] / first['cpu_ms']:.2f}",
            )
        )
    return table(heads, lines)


def goals(result: Result) -> list[tuple[str, str]]:
    """Return the goals of single starts, and whether they were reached."""
    rows = {(row["process"], row["way"]): row for row in result.rows if not row.get("delay", 1)}
    found = []
    for process, goal, text in (
        ("modules loaded", 1.5, "CPU of a start, token at hand, to that of a bare requests.put"),
        ("new process", 1.3, "CPU of a start in a new process to bare requests, same calls"),
    ):
        cpu = rows[process, "operator"]["cpu_ms"]
        ratio = cpu / rows[process, next(iter(WAYS[process]))]["cpu_ms"]
        session = cpu / rows[process, "session"]["cpu_ms"]
        outcome = f"{verdict(ratio <= goal)}, {ratio:.2f}; to one requests.Session: {session:.2f}"
        found.append((f"{text}: at most {goal}", outcome))
    return found


def _table_of_bursts(result: Result) -> str:
    heads = (
        *("mapped starts", "in parallel", "runs", "failed tasks", "start calls", "history calls"),
        *("start 429s", "history 429s", "waited for the quota, s"),
    )
    lines = []
    for row in result.rows:
        if row["kind"] == "burst":
            calls, throttled = row["calls"], row["throttled"]
            lines.append(
                (
                    *(row["starts"], row["parallel"], row["runs"], sum(row["failures"].values())),
                    *(calls.get(kind, 0) for kind in ("start", "submissions")),
                    *(throttled.get(kind, 0) for kind in ("start", "submissions")),
                    row["waited_s"],
                )
            )
    return table(heads, lines)
