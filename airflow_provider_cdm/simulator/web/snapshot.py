"""The present state as plain data, for the page and for whoever asks ``/_sim/state``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.simulator.backend import whole_database

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.backend.backend import Backend
    from airflow_provider_cdm.simulator.backend.cluster import Cluster
    from airflow_provider_cdm.simulator.backend.models import Job
    from airflow_provider_cdm.simulator.backend.run import RunLifecycle
    from airflow_provider_cdm.simulator.config.faults import Fault

#: How many runs of a cluster, and how many requests, are shown.
RUNS_SHOWN = 200
REQUESTS_SHOWN = 100


def state(backend: Backend) -> dict[str, Any]:
    """Return clusters, their jobs and runs, and the last requests; newest first, no secrets.

    :param backend: the simulator's state; its lock is held.
    """
    requests = backend.log.entries()[-REQUESTS_SHOWN:]
    return {
        "clusters": [_cluster(each) for each in backend.clusters.values()],
        "faults": [_fault(each) for each in backend.faults.remaining()],
        "requests": [each.redacted() for each in reversed(requests)],
    }


def run(lifecycle: RunLifecycle) -> dict[str, Any]:
    """Return one run as it is now.

    :param lifecycle: the run.
    """
    lifecycle.update_progress()
    return asdict(lifecycle.run)


def tables(lifecycle: RunLifecycle) -> list[dict[str, Any]]:
    """Return the runs of a whole database's tables.

    :param lifecycle: the run that they are part of; for any other, the list is empty.
    """
    return [run(each) for each in lifecycle.plan.tables.lifecycles] if lifecycle.plan.tables else []


def _fault(fault: Fault) -> dict[str, Any]:
    return {"route": fault.route, "kind": fault.kind, "when": fault.when, "job": fault.job}


def _cluster(cluster: Cluster) -> dict[str, Any]:
    return {
        "id": cluster.id,
        "name": cluster.name,
        "status": cluster.status,
        "jobs": [_job(each, cluster) for each in cluster.jobs.values() if each.part_of is None],
        "runs": [run(each) for each in reversed(_own_runs(cluster)[-RUNS_SHOWN:])],
    }


def _own_runs(cluster: Cluster) -> list[RunLifecycle]:
    """Runs but for those of sub-jobs, which the page of their run shows."""
    return [lifecycle for lifecycle in cluster.lifecycles if lifecycle.run.part_of is None]


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
