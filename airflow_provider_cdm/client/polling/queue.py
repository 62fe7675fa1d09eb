"""Priority queue of the jobs to poll; every operation takes logarithmic time."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable
from enum import IntEnum
from typing import Generic, Protocol, TypeVar

#: Replaced entries that one step removes at most, so that no step takes long.
_MAX_REMOVED = 200


class Priority(IntEnum):
    """Why a job is due; lower values go first."""

    #: The run has probably ended, or the deadline of a wait has passed.
    CONFIRM = 0
    #: A wait has not been polled yet.
    NEW = 1
    #: The poll interval has passed.
    ROUTINE = 2
    #: For a long time only listings have shown the job.
    STALE = 3


#: To iterate over an enumeration itself takes much longer.
_PRIORITIES = tuple(Priority)


#: Number of entries of one priority below which replaced ones are not dropped before they come up.
_MIN_LIMIT = 64


class Schedulable(Protocol):
    """An item with a due time for each priority, epoch seconds; ``inf`` if not due."""

    due_at: list[float]


J = TypeVar("J", bound=Schedulable)


class PollQueue(Generic[J]):
    """Jobs ordered by priority, then by due time.

    A steady stream of urgent jobs does not starve the others: every fourth turn goes to the job
    that has been due longest; every eighth turn, that job may also be one that is merely stale.
    """

    def __init__(self) -> None:
        self._heaps: list[list[tuple[float, int, J]]] = [[] for _ in _PRIORITIES]
        self._sequence = itertools.count()
        self._turns = 0
        #: Numbers of entries at which those that were replaced are dropped.
        self._limits = [_MIN_LIMIT for _ in _PRIORITIES]

    def put(self, job: J, priority: Priority, due_at: float) -> None:
        """Schedule a job; an earlier entry of the same priority is replaced.

        :param due_at: due time, epoch seconds; ``inf`` to remove the entry.
        """
        job.due_at[priority] = due_at
        if due_at < math.inf:
            heapq.heappush(self._heaps[priority], (due_at, next(self._sequence), job))
            if len(self._heaps[priority]) > self._limits[priority]:
                self._drop_replaced(priority)

    def next_due(self) -> float:
        """Return the earliest due time, epoch seconds; ``inf`` if the queue is empty.

        Entries that were replaced may make it too early, never too late.
        """
        return min(self.due_times())

    def due_times(self) -> list[float]:
        """Return the earliest due time of each priority; see :meth:`next_due`."""
        return [self._earliest(priority) for priority in _PRIORITIES]

    def peek(self, priority: Priority, now: float) -> J | None:
        """Return the job of a priority that has been due longest; it stays in the queue."""
        earliest = self._earliest(priority)
        job = self._heaps[priority][0][2] if earliest <= now else None
        return job if job is not None and job.due_at[priority] == earliest else None

    def pop(self, now: float) -> tuple[J, Priority] | None:
        """Remove the next due job, under all its priorities, and return it with the highest one.

        Returns ``None`` when nothing is due or a replaced entry came up; see :meth:`next_due`.
        """
        due = [(self._earliest(priority), priority) for priority in _PRIORITIES]
        due = [(due_at, priority) for due_at, priority in due if due_at <= now]
        if not due:
            return None
        self._turns += 1
        priority = due[0][1]
        if self._turns % 4 == 0:
            without_stale = [entry for entry in due if entry[1] < Priority.STALE]
            priority = min(due if self._turns % 8 == 0 else without_stale or due)[1]
        due_at, _, job = heapq.heappop(self._heaps[priority])
        if job.due_at[priority] != due_at:
            return None
        # A job that came up because it was due longest may be urgent as well.
        priority = next(priority for priority in _PRIORITIES if job.due_at[priority] <= now)
        unschedule(job)
        return job, priority

    def rebuild(self, jobs: Iterable[J]) -> None:
        """Replace all entries with those of these jobs, after their due times were changed."""
        for heap in self._heaps:
            heap.clear()
        for job in jobs:
            for priority in _PRIORITIES:
                self.put(job, priority, job.due_at[priority])

    def _drop_replaced(self, priority: Priority) -> None:
        heap = self._heaps[priority]
        heap[:] = {id(e[2]): e for e in heap if e[2].due_at[priority] == e[0]}.values()
        heapq.heapify(heap)
        self._limits[priority] = max(_MIN_LIMIT, 2 * len(heap))

    def _earliest(self, priority: Priority) -> float:
        heap = self._heaps[priority]
        for _ in range(_MAX_REMOVED):
            if not heap or heap[0][2].due_at[priority] == heap[0][0]:
                break
            heapq.heappop(heap)
        return heap[0][0] if heap else math.inf


def unschedule(job: Schedulable) -> None:
    """Make a job not due at all; its entries are dropped when they come up."""
    job.due_at = [math.inf] * len(_PRIORITIES)
