"""Hints from the job list: which waits are worth a status call, and which are not.

For each job, a listing shows the status of its *newest* run. It does not show the number of that
run, its status words differ from those of the status call, and it may be out of date. CDM runs a
job only once at a time. Therefore:

* The job is not active: the run that we wait for has ended, or does not show yet. A status call
  finds out which.
* The job is active, and that run was created when ours was: it is most probably ours.
* The job is active, and that run was created later than ours: ours has ended. A status call
  confirms it.
* The job is active, and no creation date is shown: the run may be ours, or a later one. Our run
  still has to be polled from time to time.
* The job is not listed: it has another type, is hidden from this user, is a sub-job of a
  whole-database job, or is deleted. The listing says nothing about it.

A listing never ends a wait.
"""

from __future__ import annotations

from enum import Enum

from airflow_provider_cdm.client.api.job_list import ListedJob
from airflow_provider_cdm.client.submission import RunRef


class Hint(Enum):
    """What a listing suggests about the run of a wait."""

    #: The run has probably ended, or now exists: poll it.
    POLL = "poll"
    #: The run is most probably active.
    ACTIVE = "active"
    #: Nothing suggests a poll, and nothing shows that the run is active.
    INCONCLUSIVE = "inconclusive"


def hint_for(run: RunRef, created_from: int, listed: ListedJob) -> Hint:
    """Return what a listing suggests about one wait.

    :param run: the run that is waited for.
    :param created_from: if the run is not known yet: earliest creation time, epoch milliseconds.
    :param listed: the job as the listing shows it.
    """
    if not run.known:
        new = listed.active if listed.created is None else listed.created >= created_from
        return Hint.POLL if new else Hint.INCONCLUSIVE
    if not listed.active:
        return Hint.POLL
    if listed.created is None or run.creation_date is None:
        return Hint.INCONCLUSIVE
    if listed.created > run.creation_date:
        return Hint.POLL
    return Hint.ACTIVE if listed.created == run.creation_date else Hint.INCONCLUSIVE
