"""Stopping a run, and deleting the job of a run that was stopped."""

from __future__ import annotations

import logging

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import runs
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.definitions import JOB
from airflow_provider_cdm.client.jobs import apply
from airflow_provider_cdm.client.jobs.follower import Follower
from airflow_provider_cdm.client.sansio import Flow
from airflow_provider_cdm.client.submission import RunRef, Submission, Verdict, newest_first

log = logging.getLogger(__name__)


def stop_active_run(api: CdmApi, cluster_id: str, job_name: str) -> Flow[Submission | None]:
    """Ask CDM to stop the active run of a job, whoever started it; the run ends a little later.

    :returns: the run; ``None`` if none was active.
    :raises CdmNotFound: when the job does not exist.
    """
    active = yield from api.active_run(cluster_id, job_name)
    if active is None or not (yield from api.stop(cluster_id, job_name)):
        return None
    return active


def job_is_gone(error: Exception) -> bool:
    """Return whether a call failed because its job does not exist, so that no run of it does."""
    return isinstance(error, errors.CdmNotFound) and error.reported_by_cdm


def newest_run(api: CdmApi, cluster_id: str, job_name: str) -> Flow[Submission | None]:
    """Return the newest run of a job; ``None`` if it never ran.

    :raises CdmNotFound: when the job does not exist.
    """
    shown = yield from api.call(runs.status(cluster_id, job_name))
    newest = newest_first(shown)[0] if shown else None
    return None if newest is None or newest.verdict is Verdict.NO_RUN else newest


def delete_after_stop(api: CdmApi, run: RunRef, *, within: float) -> Flow[bool]:
    """Delete the job of a run that is being stopped, as soon as that run has ended; log the result.

    The job stays if that run succeeded in the meantime: it is the only evidence that a process
    which is being killed can leave, and without it the next attempt would run the job again. It
    stays as well if the run is not the newest one of the job: then an attempt after it uses the
    job.

    :param within: seconds after which to give up.
    :returns: whether the job was deleted.
    :raises CdmWaitTimeout: when the run has not ended by then.
    """
    follower = Follower(run)
    try:
        ended = yield from follower.follow(api, poll_interval=0.5, within=within)
    except errors.CdmOutcomeUnknown:
        if (yield from api.find(JOB, run.cluster_id, run.job_name)) is not None:
            raise
        log.info("Job %r in cluster %s: no longer there", run.job_name, run.cluster_id)
        return False
    deleted = False
    if ended.verdict is Verdict.SUCCESS:
        outcome = "kept, since its run succeeded"
    elif not (yield from _is_newest(api, run)):
        outcome = "kept, since a later attempt uses it"
    else:
        deleted = yield from apply.delete(api, JOB, run.cluster_id, run.job_name)
        outcome = "deleted" if deleted else "no longer there"
    log.info("Job %r in cluster %s: %s", run.job_name, run.cluster_id, outcome)
    return deleted


def _is_newest(api: CdmApi, run: RunRef) -> Flow[bool]:
    newest = yield from newest_run(api, run.cluster_id, run.job_name)
    return newest is not None and run.is_run(newest)
