"""A thousand waits in real time, over HTTP: ours and one poll for each wait, side by side."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from airflow_provider_cdm.client.http.retry import RetryPolicy
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.client.settings import PasswordCredentials, Settings
from airflow_provider_cdm.client.submission import RunRef
from airflow_provider_cdm.simulator import CdmSimulator
from benchmarks.common import Result
from benchmarks.virtual import RecordingSession
from benchmarks.waits import POLLING_RETRIES, SIDES, Scenario, Seen, row_of, tables, watch

__all__ = ["TITLE", "measure", "tables"]

TITLE = "Waits within the quota, in real time"


def measure(*, quick: bool) -> Result:
    """Wait; it takes 20 minutes."""
    logging.disable(logging.CRITICAL)  # each 429 would be a line
    return Result(
        "live", in_real_time(Scenario(20, 1, 0.5, 0.1) if quick else Scenario(1000, 1, 20))
    )


def in_real_time(scenario: Scenario) -> list[dict[str, Any]]:
    """Let both sides wait for the same runs at the same time, over HTTP, each as its own user."""
    sides = {side: Seen() for side in SIDES}
    with CdmSimulator(scenario.config()) as sim:
        runs = []
        for cluster, job, seconds in scenario.jobs:
            run = sim.start(job, cluster)
            ref = RunRef(cluster, job, run.submission_id, round(run.created * 1000))
            runs.append((ref, run.created + seconds))

        async def both() -> None:
            await asyncio.gather(
                *(
                    watch(SIDES[side], _over_http(sim, number, seen), runs, seen)
                    for number, (side, seen) in enumerate(sides.items())
                )
            )

        asyncio.run(both())
    return [row_of("real", scenario, side, seen) for side, seen in sides.items()]


def _over_http(sim: CdmSimulator, user: int, seen: Seen) -> Callable[[], CdmSession]:
    one = sim.config.users[user]
    credentials = PasswordCredentials(one.name, one.password, sim.domain)
    settings = Settings(sim.url, sim.iam_url, credentials, project_id=sim.project_id)
    policy = POLLING_RETRIES if user else RetryPolicy()
    return lambda: RecordingSession(settings, seen.traffic, policy=policy)
