"""The triggerer's watcher against the simulator: many waits, few calls, and nobody disturbs others."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_cdm import watcher as watcher_module
from airflow_provider_cdm._compat import DEFERRAL_MARGIN, AirflowSkipException
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.following import Follower
from airflow_provider_cdm.client.models import RunRef, Submission
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmSubmissionSensor
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from airflow_provider_cdm.triggers import CdmSubmissionTrigger, SubmissionEvent
from airflow_provider_cdm.watcher import Watcher, watching

JOB = "orders"
TWO_CLUSTERS = {"clusters": [{"id": "first"}, {"id": "second"}]}


@pytest.fixture
def config() -> dict[str, Any]:
    """What the simulator is configured with."""
    return {}


@pytest.fixture
def sim(config: dict[str, Any], clock: ManualClock) -> Iterator[CdmSimulator]:
    """A fresh simulator that runs on the test's clock."""
    with CdmSimulator(config, clock=clock) as simulator:
        yield simulator


def asked(sim: CdmSimulator) -> Counter[str]:
    """How often each route was called, the token's left out."""
    return Counter(request.route for request in sim.requests if request.route != "token")


def refused(sim: CdmSimulator) -> int:
    """How many calls met a used-up quota."""
    return sum(request.status == 429 for request in sim.requests)


def started(sim: CdmSimulator, count: int, cluster: str | None = None, **job: Any) -> list[Any]:
    """Start some jobs and return a trigger for each."""
    triggers = []
    for number in range(count):
        name = f"{JOB}_{number:04}"
        sim.add_job(name, cluster, **{"seconds": 300 + 7 * (number % 100), **job})
        run = sim.start(name, cluster)
        triggers.append(
            CdmSubmissionTrigger(
                job_name=name,
                cluster_id=cluster or sim.cluster_id,
                submission_id=run.submission_id,
                creation_date=int(run.created * 1000),
            )
        )
    return triggers


def payloads(triggers: list[CdmSubmissionTrigger]) -> list[Any]:
    """Run triggers in one loop, as a triggerer does, and return their events."""

    async def events(trigger: CdmSubmissionTrigger) -> list[Any]:
        return [event.payload async for event in trigger.run()]

    async def gather() -> list[Any]:
        found = await asyncio.gather(*map(events, triggers))
        assert [len(each) for each in found] == [1] * len(triggers)
        return [each[0] for each in found]

    return asyncio.run(gather())


def statuses(triggers: list[CdmSubmissionTrigger]) -> Counter[str]:
    """How the runs of triggers ended, or what the waits failed with."""
    found: Counter[str] = Counter()
    for payload in payloads(triggers):
        try:
            found[SubmissionEvent.unwrap(payload).status] += 1
        except errors.CdmError as error:
            found[type(error).__name__] += 1
    return found


@pytest.mark.parametrize("config", [{"quotas": "documented"}])
def test_many_waits_keep_within_the_quota(sim: CdmSimulator, cdm_default: dict[str, Any]) -> None:
    """Three hundred waits on one cluster meet no 429, and cost few calls."""
    assert statuses(started(sim, 300)) == {"SUCCEEDED": 300}
    assert refused(sim) == 0
    # Each asked for every 30 s would be 6,500 calls and an hour of the quota.
    assert asked(sim).total() < 1500
    assert asked(sim)["show_job"] > 0


def test_zz(sim: CdmSimulator, cdm_default: dict[str, Any], clock: ManualClock) -> None:
    import time
    for n in (30, 100, 1000):
        sim.reset()
        b = time.time(); v = clock.now()
        print(statuses(started(sim, n)), asked(sim), refused(sim), time.time() - b, clock.now() - v)
    assert 0
