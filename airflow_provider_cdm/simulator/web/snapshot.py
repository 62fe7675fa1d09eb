"""The current state as plain data, for the page and for ``/_sim/state``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.simulator.backend import whole_database

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.backend.backend import Backend
    from airflow_provider_cdm.simulator.backend.cluster import Cluster
    from airflow_provider_cdm.simulator.backend.lifecycle import RunLifecycle
    from airflow_provider_cdm.simulator.backend.models import Job
    from airflow_provider_cdm.simulator.config.faults import Fault

#: Maximum number of runs of a cluster, and of requests, that are shown.
RUNS_SHOWN = 200
REQUESTS_SHOWN = 100


def state(backend: Backend) -> dict[str, Any]:
    """Return clusters, jobs, runs and requests, the newest first, with redacted secrets.

    :param backend: state of the simulator; its lock is held.
    """
    requests = backend.log.entries()[-REQUESTS_SHOWN:]
    return {
        "clusters": [_cluster(cluster) for cluster in backend.clusters.values()],
        "faults": [_fault(fault) for fault in backend.faults.remaining()],
        "requests": [request.redacted() for request in reversed(requests)],
    }


def run(lifecycle: RunLifecycle) -> dict[str, Any]:
    """Return the current state of one run.

    :param lifecycle: lifecycle of the run.
    """
    lifecycle.update_progress()
    return asdict(lifecycle.run)


def tables(lifecycle: RunLifecycle) -> list[dict[str, Any]]:
    """Return the runs of the tables of a whole-database run.

    :param lifecycle: lifecycle of the run; for any other run, the list is empty.
    """
    table_runs = lifecycle.plan.tables
    if table_runs is None:
        return []
    table_runs.update_progress()
    return [asdict(run) for run in table_runs.runs]


def _fault(fault: Fault) -> dict[str, Any]:
    return {"route": fault.route, "kind": fault.kind, "when": fault.when, "job": fault.job}


def _cluster(cluster: Cluster) -> dict[str, Any]:
    jobs = [job for job in cluster.jobs.values() if job.part_of is None]
    # The runs of sub-jobs are shown on the page of the run that they belong to.
    lifecycles = [item for item in cluster.lifecycles if item.run.part_of is None]
    return {
        "id": cluster.id,
        "name": cluster.name,
        "status": cluster.status,
        "jobs": [_job(job, cluster) for job in jobs],
        "runs": [run(lifecycle) for lifecycle in reversed(lifecycles[-RUNS_SHOWN:])],
    }


def _job(job: Job, cluster: Cluster) -> dict[str, Any]:
    wire = job.config.to_wire()
    return {
        "name": job.name,
        "type": job.config.type,
        "enabled": job.config.enabled,
        "from": wire.get("from-link-name"),
        "to": wire.get("to-link-name"),
        "status": job.last.run.status if job.last else "NEW",
        "runs": len(job.lifecycles),
        "tables": whole_database.count_statuses(cluster.jobs, job.name),
    }
