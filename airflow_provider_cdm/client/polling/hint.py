"""The list of a cluster's jobs as a hint: which waits it makes worth a poll, and which it does not.

What a listing can prove and what it cannot. It tells of each job the status of its *newest* run, in
other words than the status call, without the number of that run, and at an unknown age. CDM runs a
job only once at a time. So:

* The job is not active: our run is over, or does not show yet. That is worth a look, which decides.
* The job is active since the instant at which our run was created: most probably it is our run.
* The job is active since later than that: ours is over. That is worth a look.
* The job is active, since when is not said: some run is. Ours may be over and a later one active,
  so our run has to be looked at now and then all the same.
* The job does not show up: it is of another type, hidden from this user, a part of a whole-database
  job, or gone. The listing says nothing about it.

A listing never ends a wait.
"""

from __future__ import annotations

from enum import Enum

from airflow_provider_cdm.client.api.job_list import ListedJob
from airflow_provider_cdm.client.submission import RunRef


class Hint(Enum):
    """What a listing says about a wait."""

    #: Look at the run now: it is probably over.
    LOOK = "look"
    #: Our run is most probably active.
    OURS = "ours"
    #: Nothing suggests a look, and nothing says that our run is active.
    QUIET = "quiet"


def hint(run: RunRef, created_from: int, listed: ListedJob) -> Hint:
    """Say what a listing means for one wait.

    :param created_from: while the run is not known: it is created at or after this instant, epoch
        milliseconds.
    """
    if not run.known:
        new = listed.active if listed.created is None else listed.created >= created_from
        return Hint.LOOK if new else Hint.QUIET
    if not listed.active:
        return Hint.LOOK
    if listed.created is None or run.creation_date is None:
        return Hint.QUIET
    if listed.created > run.creation_date:
        return Hint.LOOK
    return Hint.OURS if listed.created == run.creation_date else Hint.QUIET
