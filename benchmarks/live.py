"""A thousand waits in real time, over HTTP: this provider and one poll for each wait."""

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
from benchmarks.waits import (
    POLLING_RETRIES,
    SIDES,
    Observations,
    Scenario,
    row_of,
    tables,
    wait_for_all,
)

__all__ = ["TITLE", "measure", "tables"]

TITLE = "Waits within the quota, in real time"


def measure(*, quick: bool) -> Result:
    """Measure both sides, which takes 20 minutes."""
    logging.disable(logging.CRITICAL)  # each 429 would be a log line
    return Result(
        "live", in_real_time(Scenario(20, 1, 0.5, 0.1) if quick else Scenario(1000, 1, 20))
    )


def in_real_time(scenario: Scenario) -> list[dict[str, Any]]:
    """Have both sides wait for the same runs at the same time, each as a user of its own."""
    sides = {side: Observations() for side in SIDES}
    with CdmSimulator(scenario.config()) as sim:
        runs = []
        for cluster, job, seconds in scenario.jobs:
            run = sim.start(job, cluster)
            ref = RunRef(cluster, job, run.submission_id, round(run.created * 1000))
            runs.append((ref, run.created + seconds))

        async def both() -> None:
            await asyncio.gather(
                *(
                    wait_for_all(
                        SIDES[side], _session_factory(sim, index, observed), runs, observed
                    )
                    for index, (side, observed) in enumerate(sides.items())
                )
            )

        asyncio.run(both())
    return [row_of("real", scenario, side, observed) for side, observed in sides.items()]


def _session_factory(
    sim: CdmSimulator, index: int, observed: Observations
) -> Callable[[], CdmSession]:
    user = sim.config.users[index]
    credentials = PasswordCredentials(user.name, user.password, sim.domain)
    settings = Settings(sim.url, sim.iam_url, credentials, project_id=sim.project_id)
    policy = POLLING_RETRIES if index else RetryPolicy()
    return lambda: RecordingSession(settings, observed.traffic, policy=policy)
