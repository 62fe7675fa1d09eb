"""A worker and a triggerer are lost while migrations run."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.deployment.deployment import DEFAULT, PATIENT, SLOTS, Deployment
from tests.deployment.mapped_dags import Yard
from tests.deployment.mapped_dag_plans import KILLS
from tests.support.airflow_stack import wait_until

#: Seconds from one step to the next.
PATIENCE = 180
WORKER = "worker-2"
LOGICAL_DATE = "2025-01-01T00:00:00Z"


@dataclass(frozen=True)
class Lost:
    """What was under way where the processes were killed.

    :param running: tasks at the worker.
    :param held: how many deferred tasks were in the triggerer.
    :param began: when it all began, by :func:`time.monotonic`.
    """

    running: set[tuple[str, int]]
    held: int
    began: float


def kill_meanwhile(deployment: Deployment, yard: Yard) -> Lost:
    """Start the migrations, kill, start others in place of the killed, wait until all is over."""
    stack, began = deployment.stack, time.monotonic()
    stack.trigger(KILLS.dag, "once", LOGICAL_DATE)

    def under_way() -> bool:
        statuses = yard.statuses(KILLS)
        jobs = [KILLS.jobs[task][index] for task, index in deployment.running_at(WORKER)]
        started = [job for job in jobs if statuses[job]]
        # All its slots: nothing else can begin there before it is killed.
        return len(started) == SLOTS and deployment.held(KILLS.dag).total() > 2

    wait_until(under_way, PATIENCE, "worker and triggerer have runs to wait for")
    ((triggerer, held),) = deployment.held(KILLS.dag).most_common(1)
    lost = Lost(deployment.running_at(WORKER), held, began)
    stack.kill(WORKER)
    stack.kill(triggerer)
    deployment.start_worker("worker-3", DEFAULT, PATIENT)
    stack.start_triggerer("triggerer-3")
    wait_until(
        lambda: stack.dag_run(KILLS.dag, "once") in ("success", "failed"),
        PATIENCE,
        "all are over",
    )
    return lost
