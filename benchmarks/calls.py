"""Calls and token requests for one migration of ten minutes, by mode of waiting."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
import types
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import requests
from airflow.sdk.bases import sensor as airflow_sensor

from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmSubmissionSensor
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from benchmarks.common import Result, table, verdict
from benchmarks.task_runner import TaskRunner

TITLE = "Calls and token requests of a ten-minute migration"
JOB = "orders"
SECONDS = 600.0
INTERVAL = 30.0


@dataclass
class Environment:
    """A simulator, and a clock that moves only when something sleeps."""

    sim: CdmSimulator
    clock: ManualClock

    def sleep(self, seconds: float) -> None:
        """Advance the clock."""
        self.clock.advance(seconds)

    async def async_sleep(self, seconds: float) -> None:
        """Advance the clock, on an event loop."""
        self.sleep(seconds)
        await asyncio.sleep(0)

    def tokens(self) -> int:
        """Count the token requests."""
        return sum(request.route == "token" for request in self.sim.requests)

    def run(self, *factories: Callable[[Any], Any]) -> tuple[int, int]:
        """Run tasks one after the other, each with the result of the previous one.

        :param factories: functions that create the operators.
        :returns: number of processes on workers, and of token requests of the triggerer.
        """
        result, runners = None, []
        for create in factories:
            runners.append(TaskRunner(advance=self.sleep, count_tokens=self.tokens))
            result = runners[-1].run(partial(create, result))
        processes = sum(runner.processes for runner in runners)
        return processes, sum(runner.tokens_in_triggerer for runner in runners)


def start(**arguments: Any) -> Callable[[Any], Any]:
    """Return a function that creates the operator."""
    return lambda _: CdmStartJobOperator(
        task_id="move", job_name=JOB, poll_interval=INTERVAL, **arguments
    )


def sensor(**arguments: Any) -> Callable[[Any], Any]:
    """Return a function that creates the sensor for the result of the operator."""
    return lambda submission: CdmSubmissionSensor(
        task_id="wait", submission=submission, poke_interval=INTERVAL, **arguments
    )


MODES: dict[str, list[Callable[[Any], Any]]] = {
    "operator waits on the worker": [start(wait_for_completion=True, deferrable=False)],
    "operator, deferrable": [start(wait_for_completion=True, deferrable=True)],
    "start, then sensor, poke": [start(), sensor(mode="poke", deferrable=False)],
    "start, then sensor, reschedule": [start(), sensor(mode="reschedule", deferrable=False)],
    "start, then sensor, deferrable": [start(), sensor(deferrable=True)],
}
BARE = "a bare loop of requests"


def measure(*, quick: bool) -> Result:
    """Measure each mode, with and without a token cache; always takes only seconds."""
    del quick
    logging.disable(logging.CRITICAL)
    rows = [_bare()]
    for name, factories in MODES.items():
        rows += [_mode(name, factories, cached=cached) for cached in (False, True)]
    return Result("calls", rows)


def _mode(name: str, factories: list[Callable[[Any], Any]], *, cached: bool) -> dict[str, Any]:
    clock = ManualClock()
    with tempfile.TemporaryDirectory() as folder, _simulator(clock) as sim:
        environment = Environment(sim, clock)
        connection = sim.connection
        if cached:
            connection["extra"] |= {"token_cache": f"{folder}/tokens"}
        os.environ["AIRFLOW_CONN_CDM_DEFAULT"] = json.dumps(connection)
        CdmHook.session_options = {
            "clock": clock.now,
            "monotonic": clock.now,
            "sleep": environment.sleep,
            "async_sleep": environment.async_sleep,
            "rng": lambda: 0.5,
        }
        # Airflow's sensor in mode poke uses the time module.
        times = types.SimpleNamespace(sleep=environment.sleep, monotonic=clock.now)
        with patch.object(airflow_sensor, "time", times):
            processes, triggerer = environment.run(*factories)
        CdmHook.session_options = {}
        return _row(name, sim, cached, processes, triggerer)


def _bare() -> dict[str, Any]:
    """Measure the least that is possible: request a token, start, and poll."""
    clock = ManualClock()
    with _simulator(clock) as sim, requests.Session() as http:
        user = {"name": sim.user, "password": sim.password, "domain": {"name": sim.domain}}
        identity = {"methods": ["password"], "password": {"user": user}}
        scope = {"project": {"id": sim.project_id}}
        body = {"auth": {"identity": identity, "scope": scope}}
        token = http.post(f"{sim.iam_url}/v3/auth/tokens", json=body, timeout=60)
        http.headers["X-Auth-Token"] = token.headers["X-Subject-Token"]
        job = f"{sim.url}/v1.1/{sim.project_id}/clusters/{sim.cluster_id}/cdm/job/{JOB}"
        http.put(f"{job}/start", json={}, timeout=60).raise_for_status()
        while True:
            seen = http.get(f"{job}/status", timeout=60).json()["submissions"][0]
            if seen["status"] == "SUCCEEDED":
                return _row(BARE, sim, cached=False, processes=1, triggerer=0)
            clock.advance(INTERVAL)


def _simulator(clock: ManualClock) -> CdmSimulator:
    job = {"name": JOB, "seconds": {"booting": 5, "running": SECONDS - 5}}
    config = {"quotas": "documented", "clusters": [{"name": "demo", "jobs": [job]}]}
    return CdmSimulator(config, clock=clock)


def _row(
    name: str, sim: CdmSimulator, cached: bool, processes: int, triggerer: int
) -> dict[str, Any]:
    (run,) = sim.runs(JOB)
    if run.status != "SUCCEEDED":
        raise RuntimeError(f"{name}: the run should have succeeded, but is {run.status}.")
    routes = Counter(request.route for request in sim.requests)
    tokens = routes.pop("token", 0)
    return {
        "mode": name,
        "token_cache": cached,
        "processes": processes,
        "calls": dict(routes),
        "tokens_on_workers": tokens - triggerer,
        "tokens_in_triggerer": triggerer,
    }


def tables(result: Result) -> str:
    """Return the table."""
    bare = next(row for row in result.rows if row["mode"] == BARE)
    bare_total = sum(bare["calls"].values())
    heads = (
        *("mode", "token cache", "processes", "start", "history", "job", "status", "all calls"),
        *("vs bare loop", "vs one with equal delay", "tokens on workers", "in the triggerer"),
    )
    lines = []
    for row in result.rows:
        calls = row["calls"]
        total = sum(calls.values())
        lines.append(
            (
                row["mode"],
                "yes" if row["token_cache"] else "no",
                row["processes"],
                *(calls.get(kind, 0) for kind in ("start", "submissions", "show_job", "status")),
                total,
                f"{total / bare_total:.2f}",
                f"{_at_equal_delay(row):.2f}",
                *(row["tokens_on_workers"], row["tokens_in_triggerer"]),
            )
        )
    return table(heads, lines)


def _at_equal_delay(row: dict[str, Any]) -> float:
    """Return the calls of a mode to those of a bare loop that polls at the same times, and so sees
    the end of a run as early, whenever it ends.
    """
    calls = row["calls"]
    return float(sum(calls.values()) / (calls["start"] + calls["status"]))


def goals(result: Result) -> list[tuple[str, str]]:
    """Return the goal, and whether it was reached."""
    ratio = max(
        _at_equal_delay(row) for row in result.rows if row["mode"] == "operator, deferrable"
    )
    goal = "Calls of a deferred run of ten minutes to a bare loop with equal delay: at most 1.1"
    return [(goal, f"{verdict(ratio <= 1.1)}, {ratio:.2f}")]
