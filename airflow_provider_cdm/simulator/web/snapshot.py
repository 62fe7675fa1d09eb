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
    shown, total = asdict(lifecycle.run), lifecycle.rows_total
    if total is not None and lifecycle.run.status == "RUNNING":
        # A run without databases knows only the counters of its end.
        shown["rows_read"] = int(total * lifecycle.run.progress)
    return {**shown, "active": lifecycle.run.active, "rows_total": total}


def runs_of(cluster: Cluster, job_name: str) -> list[dict[str, Any]] | None:
    """Return the runs of a job, the newest first; ``None`` if there never was such a job.

    :param cluster: cluster of the job.
    :param job_name: name of the job, which may have been deleted.
    """
    found = [item for item in cluster.lifecycles if item.run.job_name == job_name]
    if not found and job_name not in cluster.jobs:
        return None
    return [run(lifecycle) for lifecycle in reversed(found[-RUNS_SHOWN:])]


def tables(cluster: Cluster, lifecycle: RunLifecycle) -> list[dict[str, Any]]:
    """Return the runs of the tables of a whole-database run.

    :param cluster: cluster of the run.
    :param lifecycle: lifecycle of the run; for any other run, the list is empty.
    """
    number = lifecycle.run.submission_id
    return [run(item) for item in cluster.lifecycles if item.run.part_of == number]


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


def links_of(job: Job) -> dict[str, str | None]:
    """Return the names of a job's links; a job that is configured without any has none.

    :param job: job to show; its object (JSON) has made-up names then, since CDM requires them.
    """
    scripted = job.config.from_ is None and job.config.wire is None
    wire = {} if scripted else job.config.to_wire()
    return {end: wire.get(f"{end}-link-name") for end in ("from", "to")}


def _job(job: Job, cluster: Cluster) -> dict[str, Any]:
    links = links_of(job)
    return {
        "name": job.name,
        "cluster_id": cluster.id,
        "type": job.config.type,
        "enabled": job.config.enabled,
        "from": links["from"],
        "to": links["to"],
        "missing_links": sorted(set(filter(None, links.values())) - set(cluster.links)),
        "status": job.last.run.status if job.last else "NEW",
        "runs": len(job.lifecycles),
        "tables": whole_database.count_statuses(cluster.jobs, job.name),
    }
