"""A start through operator code, against a bare request; and a burst of starts."""

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
    median,
    percentile,
    say,
    short,
    simulator,
    spread,
    table,
)
from benchmarks.life import StateStore, TaskInstance, context_of

TITLE = "Starts"
#: Seconds that an answer takes, where answers come from far away.
FAR = 0.1


def measure(*, quick: bool) -> Result:
    """Measure single starts, then bursts."""
    logging.disable(logging.CRITICAL)
    rows = []
    for delay, repeats in ((0.0, 10 if quick else 200), (FAR, 3 if quick else 50)):
        rows += _single(delay, repeats)
    bursts = [(200, 32)] if quick else [(1000, 32), (1000, 1000), (2000, 32)]
    return Result("starts", rows + [_burst(*burst) for burst in bursts])


# One start


def _single(delay: float, repeats: int) -> list[dict[str, Any]]:
    """Start by turns in different ways, in a process for each.

    :param delay: seconds by which the simulator holds back each answer.
    """
    ended_at_once = {"name": "orders", "seconds": {"booting": 0, "running": 0}}
    config: dict[str, Any] = {"clusters": [{"name": "demo", "jobs": [ended_at_once]}]}
    if delay:
        config["faults"] = [{"route": "*", "kind": "delay", "seconds": delay, "times": None}]
    with simulator(config) as sim:
        os.environ["AIRFLOW_CONN_CDM_DEFAULT"] = json.dumps(sim.connection)
        ways = _ways(sim)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        calls = {name: _calls_of(sim, way) for name, way in ways.items()}  # and warms up
        for _ in range(repeats):
            for name, way in ways.items():
                found[name].append(_timed(way))
    rows = []
    for name, samples in found.items():
        walls, cpus = [1000 * wall for wall, _ in samples], [1000 * cpu for _, cpu in samples]
        rows.append(
            {
                "kind": "single",
                "way": name,
                "delay": delay,
                "repeats": repeats,
                "calls": calls[name],
                "wall_ms": median(walls),
                "cpu_ms": median(cpus),
                "wall_spread": [percentile(walls, 0.25), percentile(walls, 0.75)],
                "cpu_spread": [percentile(cpus, 0.25), percentile(cpus, 0.75)],
            }
        )
        say(f"starts: {rows[-1]}")
    return rows


BARE, BARE_WITH_TOKEN = "bare requests.put, token at hand", "bare requests: token, then put"
WARM, COLD = "operator, token at hand", "operator in a new process: asks for a token"


def _ways(sim: Simulator) -> dict[str, Callable[[], None]]:
    extra = sim.connection["extra"]
    user = {"name": sim.connection["login"], "password": sim.connection["password"]}
    user["domain"] = {"name": extra["domain_name"]}
    identity = {"methods": ["password"], "password": {"user": user}}
    wish = {"auth": {"identity": identity, "scope": {"project": {"id": extra["project_id"]}}}}
    cluster = f"{sim.url}/v1.1/{extra['project_id']}/clusters/{extra['cluster_id']}"

    def token() -> str:
        answer = requests.post(f"{sim.url}/v3/auth/tokens", json=wish, timeout=60)
        return answer.headers["X-Subject-Token"]

    def put(value: str) -> None:
        headers = {"X-Auth-Token": value}
        url = f"{cluster}/cdm/job/orders/start"
        requests.put(url, json={}, headers=headers, timeout=60).raise_for_status()

    def operator() -> None:
        task = CdmStartJobOperator(task_id="move", job_name="orders")
        task.execute(context_of(TaskInstance(), StateStore(), task))

    def cold() -> None:
        forget_everything()
        operator()

    at_hand = token()
    return {
        BARE: lambda: put(at_hand),
        BARE_WITH_TOKEN: lambda: put(token()),
        WARM: operator,
        COLD: cold,
    }


def _calls_of(sim: Simulator, way: Callable[[], None]) -> dict[str, int]:
    way()
    before = len(sim.routes())
    way()
    return dict(Counter(sim.routes()[before:]))


def _timed(way: Callable[[], None]) -> tuple[float, float]:
    """Wall and CPU seconds, in a process forked from this one, as Airflow starts tasks."""
    process = multiprocessing.get_context("fork")
    receiving, sending = process.Pipe(duplex=False)

    def work() -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        way()
        sending.send((time.perf_counter() - wall, time.process_time() - cpu))

    child = process.Process(target=work)
    child.start()
    found: tuple[float, float] = receiving.recv()
    child.join()
    return found


# A burst of starts


@dataclass
class Crowd:
    """Time for many threads, which passes only while all of them sleep."""

    clock: ManualClock
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _awake: int = 0
    _order: Iterator[int] = field(default_factory=itertools.count)
    _sleepers: list[tuple[float, int, threading.Event]] = field(default_factory=list)

    def run(self, work: Callable[[], None], threads: int) -> None:
        """Do the same in many threads, to the end."""
        self._awake = threads
        crowd = [threading.Thread(target=self._one, args=(work,)) for _ in range(threads)]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()

    def _one(self, work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            with self._lock:
                self._one_less()

    def sleep(self, seconds: float) -> None:
        """Sleep in this thread."""
        called = threading.Event()
        with self._lock:
            until = self.clock.now() + seconds
            heapq.heappush(self._sleepers, (until, next(self._order), called))
            self._one_less()
        called.wait()

    def _one_less(self) -> None:
        self._awake -= 1
        if self._awake or not self._sleepers:
            return
        self.clock.advance(max(0.0, self._sleepers[0][0] - self.clock.now()))
        while self._sleepers and self._sleepers[0][0] <= self.clock.now():
            self._awake += 1
            heapq.heappop(self._sleepers)[2].set()


@contextmanager
def _in_time_of(crowd: Crowd) -> Iterator[None]:
    CdmHook.session_options = {"clock": crowd.clock.now, "sleep": crowd.sleep}
    try:
        yield
    finally:
        CdmHook.session_options = {}


def _burst(starts: int, slots: int) -> dict[str, Any]:
    """Let a mapped task start many jobs, each in a task of its own.

    :param slots: how many tasks run at a time.
    """
    names: SimpleQueue[str] = SimpleQueue()
    for number in range(starts):
        names.put(f"load_{number:04}")
    clock = ManualClock()
    crowd, failures = Crowd(clock), Counter[str]()
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
                task.execute(context_of(TaskInstance(), StateStore(), task))
            except Exception as error:
                failures[type(error).__name__] += 1

    with CdmSimulator(config, clock=clock) as sim, _in_time_of(crowd):
        os.environ["AIRFLOW_CONN_CDM_DEFAULT"] = sim.connection_json
        forget_everything()
        begin, real = clock.now(), time.monotonic()
        crowd.run(worker, slots)
        routes = Counter(request.route for request in sim.requests)
        refused = Counter(request.route for request in sim.requests if request.status == 429)
        runs = sum(len(sim.runs(f"load_{number:04}")) for number in range(starts))
    row = {
        "kind": "burst",
        "starts": starts,
        "slots": slots,
        "runs": runs,
        "calls": dict(routes),
        "refused": dict(refused),
        "failures": dict(failures),
        "waited_s": short(clock.now() - begin),
        "real_s": short(time.monotonic() - real),
    }
    say(f"starts: {row}")
    return row


def tables(result: Result) -> str:
    """Both tables."""
    return f"{_table_of_single(result)}\n\n{_table_of_bursts(result)}"


def _table_of_single(result: Result) -> str:
    heads = (
        *("one start", "answers take", "calls", "wall, ms", "quartiles", "to bare"),
        *("CPU, ms", "quartiles", "to bare"),
    )
    lines = []
    rows = [row for row in result.rows if row["kind"] == "single"]
    for row in rows:
        bare = next(r for r in rows if r["way"] == BARE and r["delay"] == row["delay"])
        lines.append(
            (
                row["way"],
                f"{row['delay'] * 1000:.0f} ms longer" if row["delay"] else "as long as they do",
                sum(row["calls"].values()),
                row["wall_ms"],
                spread(row["wall_spread"]),
                f"{row['wall_ms'] / bare['wall_ms']:.1f}",
                row["cpu_ms"],
                spread(row["cpu_spread"]),
                f"{row['cpu_ms'] / bare['cpu_ms']:.1f}",
            )
        )
    return table(heads, lines)


def _table_of_bursts(result: Result) -> str:
    heads = (
        *("mapped starts", "at a time", "runs", "failed tasks", "start calls", "history calls"),
        *("429s to starts", "429s to history", "waited for the quota, s"),
    )
    lines = []
    for row in result.rows:
        if row["kind"] == "burst":
            calls, refused = row["calls"], row["refused"]
            lines.append(
                (
                    *(row["starts"], row["slots"], row["runs"], sum(row["failures"].values())),
                    *(calls.get(kind, 0) for kind in ("start", "submissions")),
                    *(refused.get(kind, 0) for kind in ("start", "submissions")),
                    row["waited_s"],
                )
            )
    return table(heads, lines)
