"""When which job is due, and which of the due ones comes first; in logarithmic time."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable
from enum import IntEnum
from typing import Generic, Protocol, TypeVar

#: Replaced entries that are cleared away at a time, so that no step takes long.
_SLICE = 200


class Priority(IntEnum):
    """Why a job is due; the lower, the sooner its turn."""

    #: There is a reason to believe that a run is over, or its wait is.
    CONFIRM = 0
    #: A wait that was not looked at yet.
    FRESH = 1
    #: Its interval has passed.
    ROUTINE = 2
    #: Only listings have told of it for long.
    AGE = 3


class HasDue(Protocol):
    """A thing with a due instant for each urgency, ``inf`` for none."""

    due: list[float]


J = TypeVar("J", bound=HasDue)


class PollQueue(Generic[J]):
    """Jobs by urgency and due instant.

    A steady flow of urgent jobs does not starve the others: of four turns one goes to what has been
    due longest, and of eight one may even be of the least urgency.
    """

    def __init__(self) -> None:
        self._heaps: list[list[tuple[float, int, J]]] = [[] for _ in Priority]
        self._order = itertools.count()
        self._turn = 0

    def put(self, job: J, priority: Priority, due: float) -> None:
        """Make a job due; an earlier entry of the same urgency is replaced."""
        job.due[priority] = due
        if due < math.inf:
            heapq.heappush(self._heaps[priority], (due, next(self._order), job))

    def next_due(self) -> float:
        """When the first job is or was due; ``inf`` if there is none.

        Entries that were replaced may make it too early, never too late.
        """
        return min(self.dues())

    def dues(self) -> list[float]:
        """The same for each urgency."""
        return [self._top(priority) for priority in Priority]

    def first(self, priority: Priority, now: float) -> J | None:
        """The job that has been due longest of those with an urgency; it stays where it is."""
        top = self._top(priority)
        job = self._heaps[priority][0][2] if top <= now else None
        return job if job is not None and job.due[priority] == top else None

    def pop(self, now: float) -> tuple[J, Priority] | None:
        """Take a job out whose turn it is, for all urgencies; ``None`` while none is to be seen."""
        due = [(self._top(priority), priority) for priority in Priority]
        due = [one for one in due if one[0] <= now]
        if not due:
            return None
        self._turn += 1
        priority = due[0][1]
        if self._turn % 4 == 0:
            fair = due if self._turn % 8 == 0 else [o for o in due if o[1] < Priority.AGE] or due
            priority = min(fair)[1]
        entry, _, job = heapq.heappop(self._heaps[priority])
        if job.due[priority] != entry:
            return None
        # It may have come up as the one that is due longest, and be urgent all the same.
        priority = next(one for one in Priority if job.due[one] <= now)
        unschedule(job)
        return job, priority

    def rebuild(self, jobs: Iterable[J]) -> None:
        """Begin anew with these jobs, after their due instants were changed."""
        for heap in self._heaps:
            heap.clear()
        for job in jobs:
            for priority in Priority:
                self.put(job, priority, job.due[priority])

    def _top(self, priority: Priority) -> float:
        heap = self._heaps[priority]
        for _ in range(_SLICE):
            if not heap or heap[0][2].due[priority] == heap[0][0]:
                break
            heapq.heappop(heap)
        return heap[0][0] if heap else math.inf


def unschedule(job: HasDue) -> None:
    """Make a job not due at all; its entries vanish when they come up."""
    job.due = [math.inf] * len(Priority)
