"""A start with the operator, compared with a bare request; and a burst of starts."""

from __future__ import annotations

import heapq
import itertools
import json
import logging
import multiprocessing
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

import requests

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
)
from benchmarks.task_runner import context_of_a_new_task

TITLE = "Starts"
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


def _single(delay: float, repeats: int) -> list[dict[str, Any]]:
    """Start a job in different ways by turns, each in a new process.

    :param delay: seconds by which the simulator delays each answer.
    :param repeats: number of starts in each way.
    """
    instant_job = {"name": "orders", "seconds": {"booting": 0, "running": 0}}
    config: dict[str, Any] = {"clusters": [{"name": "demo", "jobs": [instant_job]}]}
    if delay:
        config["faults"] = [{"route": "*", "kind": "delay", "seconds": delay, "times": None}]
    with simulator(config) as sim:
        os.environ["AIRFLOW_CONN_CDM_DEFAULT"] = json.dumps(sim.connection)
        variants = _variants(sim)
        timings: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
        calls = {name: _count_calls(sim, start) for name, start in variants.items()}  # and warm-up
        for _ in range(repeats):
            for name, start in variants.items():
                timings[name].append(_time(start))
    rows = []
    for name, samples in timings.items():
        walls, cpus = [1000 * wall for wall, _ in samples], [1000 * cpu for _, cpu in samples]
        rows.append(
            {
                "kind": "single",
                "variant": name,
                "delay": delay,
                "repeats": repeats,
                "calls": calls[name],
                "wall_ms": median(walls),
                "cpu_ms": median(cpus),
                "wall_spread": [percentile(walls, 0.25), percentile(walls, 0.75)],
                "cpu_spread": [percentile(cpus, 0.25), percentile(cpus, 0.75)],
            }
        )
        log(f"starts: {rows[-1]}")
    return rows


BARE = "bare requests.put, with a token"
BARE_WITH_TOKEN = "bare requests: token, then put"
WARM = "operator, with a token"
COLD = "operator in a new process: requests a token"


def _variants(sim: Simulator) -> dict[str, Callable[[], None]]:
    extra = sim.connection["extra"]
    user = {"name": sim.connection["login"], "password": sim.connection["password"]}
    user["domain"] = {"name": extra["domain_name"]}
    identity = {"methods": ["password"], "password": {"user": user}}
    body = {"auth": {"identity": identity, "scope": {"project": {"id": extra["project_id"]}}}}
    cluster = f"{sim.url}/v1.1/{extra['project_id']}/clusters/{extra['cluster_id']}"

    def request_token() -> str:
        response = requests.post(f"{sim.url}/v3/auth/tokens", json=body, timeout=60)
        return response.headers["X-Subject-Token"]

    def put(token: str) -> None:
        headers = {"X-Auth-Token": token}
        url = f"{cluster}/cdm/job/orders/start"
        requests.put(url, json={}, headers=headers, timeout=60).raise_for_status()

    def operator() -> None:
        task = CdmStartJobOperator(task_id="move", job_name="orders")
        task.execute(context_of_a_new_task(task))

    def cold() -> None:
        forget_everything()
        operator()

    token = request_token()
    return {
        BARE: lambda: put(token),
        BARE_WITH_TOKEN: lambda: put(request_token()),
        WARM: operator,
        COLD: cold,
    }


def _count_calls(sim: Simulator, start: Callable[[], None]) -> dict[str, int]:
    start()
    before = len(sim.routes())
    start()
    return dict(Counter(sim.routes()[before:]))


def _time(start: Callable[[], None]) -> tuple[float, float]:
    """Return wall and CPU seconds of a start in a forked process, as Airflow starts tasks."""
    multiprocessing_context = multiprocessing.get_context("fork")
    receiver, sender = multiprocessing_context.Pipe(duplex=False)

    def work() -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        start()
        sender.send((time.perf_counter() - wall, time.process_time() - cpu))

    process = multiprocessing_context.Process(target=work)
    process.start()
    timing: tuple[float, float] = receiver.recv()
    process.join()
    return timing


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
    CdmHook.session_options = {"clock": threads.clock.now, "sleep": threads.sleep}
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
        *("one start", "delay of answers", "calls", "wall, ms", "quartiles", "vs bare"),
        *("CPU, ms", "quartiles", "vs bare"),
    )
    lines = []
    rows = [row for row in result.rows if row["kind"] == "single"]
    for row in rows:
        same_delay = [other for other in rows if other["delay"] == row["delay"]]
        bare = next(other for other in same_delay if other["variant"] == BARE)
        lines.append(
            (
                row["variant"],
                f"{row['delay'] * 1000:.0f} ms" if row["delay"] else "none",
                sum(row["calls"].values()),
                row["wall_ms"],
                quartile_range(row["wall_spread"]),
                f"{row['wall_ms'] / bare['wall_ms']:.1f}",
                row["cpu_ms"],
                quartile_range(row["cpu_spread"]),
                f"{row['cpu_ms'] / bare['cpu_ms']:.1f}",
            )
        )
    return table(heads, lines)


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
