"""Whose run is active, for many runs that are to be stopped: which call can tell it.

CDM stops a job by name, whichever run of it is active. So before each stop it must be known that
the active run is ours:

* A status call tells it for one job. The history tells the same on a quota of its own.
* A page of the job list tells it for a hundred jobs: a job that is active since exactly the instant
  at which our run was created runs ours. How old a list is, CDM does not say, so lists are read
  only when more runs are waiting than status calls are soon free.

A :class:`StopQueue` does no I/O and reads no clock.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TypeAlias

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.definitions import JOB_TYPES
from airflow_provider_cdm.client.api.job_list import JobPage, name_filter
from airflow_provider_cdm.client.jobs.stop import lists_as_active
from airflow_provider_cdm.client.submission import RunRef, Submission

#: Number of runs from which on a list is read: a page costs about as much as ten status calls.
_MIN_LISTED = 11
#: Runs on a page that it must be expected to tell about, so that the list is read to its end.
_MIN_PER_PAGE = 10


#: Function that is called with a failure after which a call is repeated; raises it to give up.
OnFailure: TypeAlias = Callable[[errors.CdmError], None]


@dataclass(slots=True, eq=False)
class UnprovenRun:
    """A run about which it is asked what the newest run of its job is.

    :param run: the run.
    :param on_answer: called with the newest run of the job (``None`` if it has none), or with the
        error of a call that cannot tell it.
    :param on_failure: called with each failure after which the call is repeated.
    :param on_listed: called instead of ``on_answer`` when a list shows that the run is active;
        ``None`` if it is not to be stopped, but something is to be done after its end.
    :param type_index: index in ``JOB_TYPES`` of the type whose list may show the job.
    :param looking: whether a call for this job is under way.
    """

    run: RunRef
    on_answer: Callable[[Submission | Exception | None], None]
    on_failure: OnFailure
    on_listed: Callable[[], None] | None = None
    type_index: int = 0
    looking: bool = False


@dataclass(frozen=True, slots=True)
class ListReading:
    """One reading of the job list.

    :param job_type: type of the jobs.
    :param name_filter: filter for job names; empty for none.
    :param runs: the runs that it is read for, by job.
    :param found: names of those jobs that it has shown.
    """

    job_type: str
    name_filter: str
    runs: dict[str, list[UnprovenRun]] = field(repr=False)
    found: set[str] = field(default_factory=set)

    def pages(self, first: JobPage) -> int:
        """Return how many pages to read, now that the first one is known; 1 for no more."""
        if first.total is None or not first.jobs:
            return 1
        pages = math.ceil(first.total / len(first.jobs))
        return pages if pages * _MIN_PER_PAGE <= len(self.runs) + _MIN_LISTED else 1


class StopQueue:
    """The runs of one cluster about which it is asked, in the order in which they came."""

    def __init__(self) -> None:
        #: Whether names are no filter, since a filtered list showed none of the jobs.
        self._unfiltered = False
        self._urgent: dict[UnprovenRun, None] = {}
        self._others: dict[UnprovenRun, None] = {}

    def put(self, unproven: UnprovenRun) -> None:
        """Add a run; those that are to be stopped go first."""
        queue = self._others if unproven.on_listed is None else self._urgent
        queue[unproven] = None

    def discard(self, unproven: UnprovenRun) -> None:
        """Remove a run, if it is still there."""
        self._urgent.pop(unproven, None)
        self._others.pop(unproven, None)

    def next_look(self) -> UnprovenRun | None:
        """Return the next run to look at, which stays in the queue; ``None`` if there is none."""
        return next(self._looks(), None)

    @property
    def looks_to_do(self) -> int:
        """Number of runs at which nobody looks yet."""
        return sum(1 for _ in self._looks())

    def _looks(self) -> Iterator[UnprovenRun]:
        waiting = (item for queue in (self._urgent, self._others) for item in queue)
        return (item for item in waiting if not item.looking)

    def next_reading(self) -> ListReading | None:
        """Return which list to read; ``None`` if status calls are as cheap."""
        types = Counter(item.type_index for item in self._urgent)
        del types[len(JOB_TYPES)]
        for type_index, count in types.most_common(1):
            if count >= _MIN_LISTED:
                jobs: dict[str, list[UnprovenRun]] = {}
                for item in self._urgent:
                    if item.type_index == type_index:
                        jobs.setdefault(item.run.job_name, []).append(item)
                prefix = "" if self._unfiltered else _common_prefix(jobs)
                return ListReading(JOB_TYPES[type_index], name_filter(prefix), jobs)
        return None

    def apply(self, reading: ListReading, page: JobPage) -> None:
        """Report the runs that a page shows active."""
        for listed in page.jobs:
            unproven = reading.runs.get(listed.name, [])
            reading.found.update(item.run.job_name for item in unproven)
            for item in unproven:
                if item not in self._urgent:
                    continue
                if item.on_listed is not None and lists_as_active(listed, item.run):
                    self.discard(item)
                    item.on_listed()
                else:
                    # It has ended, or is somebody else's: only a look can tell.
                    item.type_index = len(JOB_TYPES)

    def finish(self, reading: ListReading) -> None:
        """Have the next list read for the runs that this one did not show."""
        if reading.name_filter and not reading.found:
            self._unfiltered = True
            return
        index = JOB_TYPES.index(reading.job_type)
        for unproven in (item for items in reading.runs.values() for item in items):
            if unproven.type_index == index:
                unproven.type_index += 1


def _common_prefix(names: Collection[str]) -> str:
    pairs = zip(min(names), max(names), strict=False)
    return "".join(first for first, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
