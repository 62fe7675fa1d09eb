"""Stopping a run, and deleting the job of a run that was stopped."""

from __future__ import annotations

from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.definitions import JOB
from airflow_provider_cdm.client.jobs import apply
from airflow_provider_cdm.client.jobs.follower import Follower
from airflow_provider_cdm.client.sansio import Flow
from airflow_provider_cdm.client.submission import RunRef, Submission, Verdict


def stop_active_run(api: CdmApi, cluster_id: str, job_name: str) -> Flow[Submission | None]:
    """Ask CDM to stop the active run of a job, whoever started it; the run ends a little later.

    :returns: the run; ``None`` if none was active.
    :raises CdmNotFound: when the job does not exist.
    """
    active = yield from api.active_run(cluster_id, job_name)
    if active is None or not (yield from api.stop(cluster_id, job_name)):
        return None
    return active


def delete_after_stop(
    api: CdmApi, run: RunRef, *, deadline: float, keep_if_succeeded: bool = False
) -> Flow[bool]:
    """Delete the job of a run that is being stopped, as soon as that run has ended.

    :param deadline: epoch seconds at which to give up.
    :param keep_if_succeeded: whether to keep the job if the run succeeded in the meantime.
    :returns: whether the job was deleted.
    :raises CdmWaitTimeout: at the deadline.
    """
    follower = Follower(run)
    ended = yield from follower.follow(api, poll_interval=0.5, deadline=deadline)
    if keep_if_succeeded and ended.verdict is Verdict.SUCCESS:
        return False
    # A cleared task may have started the job again.
    if (yield from api.active_run(run.cluster_id, run.job_name)) is not None:
        return False
    yield from apply.delete(api, JOB, run.cluster_id, run.job_name)
    return True
