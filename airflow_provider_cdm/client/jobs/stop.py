"""Stopping a run, and deleting the job of a run that was stopped."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from enum import Enum

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import resources, runs
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.definitions import JOB
from airflow_provider_cdm.client.api.job_list import JobPage, ListedJob, name_filter
from airflow_provider_cdm.client.jobs import apply
from airflow_provider_cdm.client.sansio import Flow, offload, pause
from airflow_provider_cdm.client.submission import RunRef, Submission, Verdict, newest_first

log = logging.getLogger(__name__)

#: Seconds for which it is relied on that a run that was seen active is the active one of its job.
PROOF_SECONDS = 10.0


def stop_active_run(api: CdmApi, cluster_id: str, job_name: str) -> Flow[Submission | None]:
    """Ask CDM to stop the active run of a job, whoever started it; the run ends a little later.

    :returns: the run; ``None`` if none was active.
    :raises CdmNotFound: when the job does not exist.
    """
    active = yield from api.active_run(cluster_id, job_name)
    if active is None or not (yield from api.stop(cluster_id, job_name)):
        return None
    return active


def lists_as_active(listed: ListedJob, run: RunRef) -> bool:
    """Return whether a job list shows a run as the active one of its job.

    The list shows no number of the run, but the instant at which it was created.
    """
    return listed.active and run.creation_date is not None and listed.created == run.creation_date


def is_active(run: RunRef, newest: Submission | None) -> bool:
    """Return whether a run is active, by the newest run of its job (``None`` if it has none)."""
    return newest is not None and not newest.ended and run.is_run(newest)


def how_to_stop(run: RunRef, conn_id: str, project_id: str | None = None) -> str:
    """Return a sentence that says how a person stops a run."""
    hook = f"CdmHook({conn_id!r}" + (f", project_id={project_id!r})" if project_id else ")")
    return (
        f"To stop it, use {hook}.stop_job({run.job_name!r}, {run.cluster_id!r}) or the CDM console;"
        " both stop whichever run of the job is active."
    )


def without_retries(api: CdmApi) -> CdmApi:
    """Return the same API, which repeats no call."""
    return replace(api, exchanger=api.exchanger.once())


def stop_in_time(
    api: CdmApi,
    run: RunRef,
    *,
    within: float,
    seen_active: Callable[[], float | None] = lambda: None,
    before_stop: Callable[[], None] = lambda: None,
) -> Flow[bool]:
    """Stop one run, and no other, although other processes use up the quotas at the same time.

    The active run is read first, by the calls that still have a quota: the status, the history, the
    job list. A call without an answer, or beyond its quota, is repeated while there is time.

    :param within: seconds after which to give up.
    :param seen_active: returns when the run was last seen active, by
        :meth:`~airflow_provider_cdm.client.http.retry.Exchanger.uptime`; a moment ago is good
        enough where all quotas are used up.
    :param before_stop: function to call before the stop is sent; it may block.
    :returns: whether the stop was sent; ``False`` if the run is not the active one.
    :raises CdmError: the last failure, when the time is over or repeating cannot help.
    """
    api, uptime = without_retries(api), api.exchanger.uptime
    give_up_at, proven_at, failures = uptime() + within, -math.inf, 0
    while True:
        try:
            if uptime() > proven_at + PROOF_SECONDS:
                if not (yield from _is_active_one(api, run, seen_active())):
                    return False
                proven_at = uptime()
                yield from offload(before_stop)
            return (yield from api.stop(run.cluster_id, run.job_name))
        except (errors.CdmThrottled, errors.CdmUnavailable, errors.CdmBadResponse) as error:
            failures += 1
            seconds = pause_after_failure(error, failures, api.exchanger.random)
            if uptime() + seconds > give_up_at:
                raise
            log.info("%s is not stopped yet; trying again in %.1f s. %s", run, seconds, error)
        yield from pause(seconds)


def pause_after_failure(
    error: errors.CdmError, failures: int, random: Callable[[], float]
) -> float:
    """Return the seconds until a call for a stop is repeated; longer pauses would lose the stop.

    :param failures: number of failures in a row.
    """
    if error.retry_after is not None:
        return error.retry_after + random()
    return (0.5 + random()) * min(5.0, 0.5 * 2.0 ** min(failures - 1, 10))


def _is_active_one(api: CdmApi, run: RunRef, seen_at: float | None) -> Flow[bool]:
    """Read whether a run is the active one of its job, by a call that still has a quota.

    :param seen_at: when the run was last seen active.
    """
    try:
        return is_active(run, (yield from newest_run(api, run.cluster_id, run.job_name)))
    except errors.CdmThrottled as error:
        throttled = error
    with suppress(errors.CdmThrottled):
        history = yield from api.call(runs.history(run.cluster_id, run.job_name))
        return is_active(run, newest_of(history.submissions))
    with suppress(errors.CdmThrottled):
        filtered = name_filter(run.job_name)
        call = resources.list_jobs(run.cluster_id, 1, name_filter=filtered)
        if any(lists_as_active(listed, run) for listed in _named(run, (yield from api.call(call)))):
            return True
    if seen_at is not None and api.exchanger.uptime() <= seen_at + PROOF_SECONDS:
        return True
    raise throttled


def _named(run: RunRef, page: JobPage) -> list[ListedJob]:
    return [listed for listed in page.jobs if listed.name == run.job_name]


def job_is_gone(error: Exception) -> bool:
    """Return whether a call failed because its job does not exist, so that no run of it does."""
    return isinstance(error, errors.CdmNotFound) and error.reported_by_cdm


def newest_run(api: CdmApi, cluster_id: str, job_name: str) -> Flow[Submission | None]:
    """Return the newest run of a job; ``None`` if it never ran.

    :raises CdmNotFound: when the job does not exist.
    """
    return newest_of((yield from api.call(runs.status(cluster_id, job_name))))


def newest_of(shown: list[Submission]) -> Submission | None:
    """Return the newest of the runs that CDM shows; ``None`` if none is a run."""
    newest = newest_first(shown)[0] if shown else None
    return None if newest is None or newest.verdict is Verdict.NO_RUN else newest


class JobFate(Enum):
    """What becomes of the job of a run that was asked to stop."""

    #: The run has not ended yet.
    PENDING = "pending"
    #: The run has ended without success: the job is deleted.
    DELETE = "deleted"
    #: The only evidence that a process which is being killed can leave: without the job, the next
    #: attempt would run it again.
    SUCCEEDED = "kept, since its run succeeded"
    #: Another run is the newest: an attempt after it uses the job.
    USED = "kept, since a later attempt uses it"


def fate_of_job(run: RunRef, newest: Submission | None) -> JobFate:
    """Return what becomes of the job of a run that was asked to stop.

    :param newest: the newest run of the job; ``None`` if it has none.
    """
    if newest is None or not run.is_run(newest):
        later = newest is not None and run.is_before(newest)
        return JobFate.USED if later else JobFate.PENDING
    if newest.verdict is Verdict.SUCCESS:
        return JobFate.SUCCEEDED
    return JobFate.DELETE if newest.ended else JobFate.PENDING


def delete_after_stop(api: CdmApi, run: RunRef, *, within: float) -> Flow[bool]:
    """Delete the job of a run that is being stopped, as soon as that run has ended; log the result.

    See :class:`JobFate` for when the job stays. It stays as well where the quota of calls is used
    up: stops need them.

    :param within: seconds after which to give up.
    :returns: whether the job was deleted.
    :raises CdmWaitTimeout: when the run has not ended by then.
    :raises CdmError: when a call fails.
    """
    give_up_at, seconds = api.exchanger.uptime() + within, 0.5
    try:
        while (fate := (yield from _read_fate(api, run))) is JobFate.PENDING:
            if api.exchanger.uptime() + seconds > give_up_at:
                raise not_ended(run, within)
            yield from pause(seconds)
            seconds = min(2 * seconds, 4.0)
        deleted = fate is JobFate.DELETE and (
            yield from apply.delete(api, JOB, run.cluster_id, run.job_name)
        )
    except errors.CdmNotFound as error:
        if not job_is_gone(error):
            raise
        fate, deleted = JobFate.DELETE, False
    log_fate(run, fate, deleted=deleted)
    return deleted


def not_ended(run: RunRef, seconds: float) -> errors.CdmWaitTimeout:
    """Return the error for a run that was asked to stop, and goes on."""
    return errors.CdmWaitTimeout(
        f"{run} was asked to stop, and had not ended {seconds:.0f} s later."
    )


def _read_fate(api: CdmApi, run: RunRef) -> Flow[JobFate]:
    """Read what becomes of a job; without an answer it is not known yet."""
    try:
        newest = yield from newest_run(without_retries(api), run.cluster_id, run.job_name)
    except (errors.CdmUnavailable, errors.CdmBadResponse):
        return JobFate.PENDING
    return fate_of_job(run, newest)


def log_fate(run: RunRef, fate: JobFate, *, deleted: bool) -> None:
    """Log what became of a job.

    :param deleted: whether a call deleted it; otherwise, if it was to be, it was gone before.
    """
    gone = fate is JobFate.DELETE and not deleted
    outcome = "no longer there" if gone else fate.value
    log.info("Job %r in cluster %s: %s", run.job_name, run.cluster_id, outcome)
