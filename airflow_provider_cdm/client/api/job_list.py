"""The list of a cluster's jobs as a hint: which waits it makes worth a look, and which it does not.

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

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from airflow_provider_cdm.client.submission import RunRef, Verdict, judge, whole


@dataclass(frozen=True, slots=True)
class ListedJob:
    """A job as a listing shows it.

    :param status: of its newest run; ``NEW`` if it has none.
    :param created: when that run was created, epoch milliseconds.
    :param wire: all that the listing shows of it.
    """

    name: str
    status: str
    created: int | None = None
    wire: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def active(self) -> bool:
        """Whether its newest run is under way."""
        return judge(self.status) is Verdict.ACTIVE

    @classmethod
    def from_wire(cls, data: Any) -> ListedJob:
        """Read one element of ``jobs``.

        :raises ValueError: when it is not an object with a name.
        """
        name = data.get("name") if isinstance(data, Mapping) else None
        if not isinstance(name, str) or not name:
            raise ValueError("a job has no name")
        status = data.get("status")
        created = whole(data.get("execute_create_date"))
        return cls(name, status if isinstance(status, str) else "", created, data)


@dataclass(frozen=True, slots=True)
class JobPage:
    """One page of a listing.

    :param total: how many jobs there are on all pages, if the server says so.
    """

    jobs: list[ListedJob]
    total: int | None = None


def name_filter(common: str) -> str:
    """What to filter a listing by for names that begin alike: no more than surely means itself.

    :param common: what they all begin with.
    """
    match = re.match(r"[A-Za-z0-9_-]*", common)
    return match[0] if match else ""


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
