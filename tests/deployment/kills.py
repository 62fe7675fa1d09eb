"""Kills a worker and a triggerer while migrations run."""

from __future__ import annotations

import time
from dataclasses import dataclass

from demo.processes import wait_until
from tests.deployment.deployment import DEFAULT_QUEUE, SLOTS, WAITING_QUEUE, Deployment
from tests.deployment.mapped_dag_plans import KILLS
from tests.deployment.mapped_dags import MappedJobs

#: Time limit in seconds for each step.
TIMEOUT = 180
WORKER = "worker-2"
LOGICAL_DATE = "2025-01-01T00:00:00Z"


@dataclass(frozen=True)
class KilledProcesses:
    """What ran in the killed processes.

    :param running: tasks on the worker, as task id and map index.
    :param deferred: number of deferred tasks in the triggerer.
    :param started_at: start of the DAG run, by :func:`time.monotonic`.
    """

    running: set[tuple[str, int]]
    deferred: int
    started_at: float


def kill_during_runs(deployment: Deployment, mapped_jobs: MappedJobs) -> KilledProcesses:
    """Start the migrations, kill and replace the processes, and wait for the end of the DAG run."""
    stack, started_at = deployment.stack, time.monotonic()
    stack.trigger(KILLS.dag, "once", LOGICAL_DATE)

    def all_waiting() -> bool:
        statuses = mapped_jobs.statuses(KILLS)
        jobs = [KILLS.jobs[task][index] for task, index in deployment.running_on(WORKER)]
        started = [job for job in jobs if statuses[job]]
        # All its slots are taken, so no other task can start there before it is killed.
        deferred = deployment.deferred_by_triggerer(KILLS.dag).total()
        return len(started) == SLOTS and deferred > 2

    wait_until(all_waiting, TIMEOUT, "worker and triggerer wait for runs")
    ((triggerer, deferred),) = deployment.deferred_by_triggerer(KILLS.dag).most_common(1)
    killed = KilledProcesses(deployment.running_on(WORKER), deferred, started_at)
    stack.kill(WORKER)
    stack.kill(triggerer)
    deployment.start_worker("worker-3", DEFAULT_QUEUE, WAITING_QUEUE)
    stack.start_triggerer("triggerer-3")
    wait_until(
        lambda: stack.dag_run(KILLS.dag, "once") in ("success", "failed"),
        TIMEOUT,
        "the DAG run has ended",
    )
    return killed
