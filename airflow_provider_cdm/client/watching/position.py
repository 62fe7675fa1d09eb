"""What a watcher of a job has dealt with, and what a history shows that is new.

A :class:`WatchPosition` says which runs have been dealt with. :func:`compare` is told a history and
says which runs have ended since, which may have been missed, and the next position. It fires
nothing, keeps nothing, and never takes a run for an old one because of its number alone: numbers
begin again when a cluster is rebuilt.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from airflow_provider_cdm.client.api.runs import History
from airflow_provider_cdm.client.submission import RunRef, Submission, Verdict

log = logging.getLogger(__name__)

#: Version of the form in which positions are stored.
_VERSION = 1
#: Most runs that a position remembers one by one; a history usually shows ten.
_MAX_KNOWN = 50
#: Most runs of a history that are compared, the newest.
_MAX_SHOWN = 200
#: Largest difference between two creation dates that says nothing, in milliseconds.
_DATE_TOLERANCE = 2_000


@dataclass(frozen=True, slots=True)
class WatchPosition:
    """Which runs of a job a watcher has dealt with.

    :param began_at: when the watcher began, epoch seconds; counts until the first look.
    :param looked: whether a history has shown any run.
    :param floor: run up to which all runs are old.
    :param known: later runs whose end has been dealt with, newest first.
    :param pending: runs that have not ended.
    :param total: number of runs in the history, if CDM gave it.
    :param missed: number of ends, at least, that no event has reported yet.
    """

    began_at: float
    looked: bool = False
    floor: RunRef | None = None
    known: tuple[RunRef, ...] = ()
    pending: tuple[RunRef, ...] = ()
    total: int | None = None
    missed: int = 0

    def to_payload(self) -> dict[str, Any]:
        """Return the position as plain JSON."""
        return {
            "version": _VERSION,
            "began_at": self.began_at,
            "looked": self.looked,
            "floor": self.floor and _pair(self.floor),
            "known": [_pair(run) for run in self.known],
            "pending": [_pair(run) for run in self.pending],
            "total": self.total,
            "missed": self.missed,
        }

    @classmethod
    def from_payload(cls, payload: Any, cluster_id: str, job_name: str) -> WatchPosition:
        """Return the position that :meth:`to_payload` was called on.

        :raises ValueError: when the payload is not such an object.
        """
        if not isinstance(payload, Mapping) or payload.get("version") != _VERSION:
            raise ValueError(f"not a position of a watcher: {payload!r}")

        def run(pair: Any) -> RunRef:
            number, created = pair
            if not all(value is None or type(value) is int for value in (number, created)):
                raise ValueError(f"not a run: {pair!r}")
            return RunRef(cluster_id, job_name, number, created)

        try:
            return cls(
                began_at=float(payload["began_at"]),
                looked=bool(payload["looked"]),
                floor=None if payload["floor"] is None else run(payload["floor"]),
                known=tuple(map(run, payload["known"])),
                pending=tuple(map(run, payload["pending"])),
                total=None if payload["total"] is None else int(payload["total"]),
                missed=int(payload["missed"]),
            )
        except (KeyError, TypeError, ValueError) as problem:
            raise ValueError(f"not a position of a watcher ({problem}): {payload!r}") from None

    @property
    def newest(self) -> RunRef | None:
        """The newest run that has been dealt with."""
        return self.known[0] if self.known else self.floor


@dataclass(frozen=True, slots=True)
class Look:
    """What one history says.

    :param ends: runs that have ended since the position, oldest first.
    :param position: position after these ends.
    """

    ends: Sequence[Submission]
    position: WatchPosition


def compare(position: WatchPosition, history: History, begin: float = 0.0) -> Look:
    """Return what a history shows that a position does not.

    :param begin: for the first look: ends before this instant are old, epoch milliseconds by the
        server's clock.
    """
    history = _bounded(history)
    shown = [run for run in history.submissions if _is_identified(run)]
    if not shown:
        # It may be out of date, so what it shows next may be old.
        return Look((), position if position.looked else replace(position, total=history.total))
    if not position.looked:
        position = _after_first_look(position, shown, begin)
    restarted = _numbers_restarted(position, shown)
    new = [run for run in shown if _is_new(run, position, restarted)]
    pending = [run for run in shown if _is_among(run, position.pending)]
    watched = [run for run in shown if run in new or run in pending]
    ended = [run for run in watched if run.ended]
    active = tuple(RunRef.of(run) for run in watched if not run.ended)
    hidden = [run for run in position.pending if not any(map(run.is_run, shown))]
    lost = [run for run in hidden if history.complete or all(map(run.is_before, shown))]
    still_hidden = tuple(run for run in hidden if run not in lost)
    missed = len(lost)
    if len(new) == len(shown):
        # None of them was known or is older: the history does not reach back to the last look.
        missed = max(missed, _count_missed(position, history, shown, restarted, len(lost)))
    if missed:
        _warn_of_missed(position, shown, lost, missed)
    known = (*(RunRef.of(run) for run in ended), *position.known)
    floor = known[_MAX_KNOWN] if len(known) > _MAX_KNOWN else position.floor
    after = replace(
        position,
        looked=True,
        floor=floor,
        known=known[:_MAX_KNOWN],
        pending=(*active, *still_hidden),
        total=history.total,
        missed=position.missed + missed,
    )
    return Look(ended[::-1], after)


def shows_nothing_new(position: WatchPosition, status: Sequence[Submission]) -> bool:
    """Return whether the status of a job shows that its history can show nothing new.

    CDM runs a job only once at a time, so nothing has ended or begun since, if the newest run is
    still the same and active, or the same that was the last to end.
    """
    newest = [run for run in status if run.verdict is not Verdict.NO_RUN]
    if len(newest) != 1:
        return False
    if position.pending:
        same = len(position.pending) == 1 and position.pending[0].is_run(newest[0])
        return same and newest[0].verdict is Verdict.ACTIVE
    return bool(position.known) and position.known[0].is_run(newest[0]) and newest[0].ended


def _bounded(history: History) -> History:
    """Return the newest runs of a history that is longer than any that is documented."""
    if len(history.submissions) <= _MAX_SHOWN:
        return history
    return History(
        history.submissions[:_MAX_SHOWN], max(history.total or 0, len(history.submissions))
    )


def _is_identified(run: Submission) -> bool:
    if run.verdict is Verdict.NO_RUN:
        return False
    if not RunRef.of(run).known:
        _warn_of_unidentified(run.cluster_id, run.job_name)
        return False
    return True


@lru_cache(maxsize=1000)
def _warn_of_unidentified(cluster_id: str, job_name: str) -> None:
    """Warn once: each look would show them again."""
    log.warning(
        "The history of job %r shows runs with neither a number nor a date. They cannot be told"
        " from others, so no events are fired for them (cluster %s).",
        *(job_name, cluster_id),
    )


def _after_first_look(
    position: WatchPosition, shown: Sequence[Submission], begin: float
) -> WatchPosition:
    """Take all runs that ended before the watcher began for old ones."""
    old = tuple(RunRef.of(run) for run in shown if run.ended and _ended_at(run) < begin)
    return replace(position, known=old, floor=old[-1] if old else None)


def _ended_at(run: Submission) -> int:
    return run.last_update_date or run.creation_date or 0


def _is_among(run: Submission, known: Sequence[RunRef]) -> bool:
    return any(other.is_run(run) for other in known)


def _is_new(run: Submission, position: WatchPosition, restarted: bool) -> bool:
    if _is_among(run, position.known) or _is_among(run, position.pending):
        return False
    floor = position.floor
    if floor is None or restarted:
        return True
    by_number = by_date = None
    if run.submission_id is not None and floor.submission_id is not None:
        by_number = run.submission_id > floor.submission_id
    if run.creation_date is not None and floor.creation_date is not None:
        by_date = run.creation_date > floor.creation_date + _DATE_TOLERANCE
    # What cannot be compared is not known to be old.
    return bool(by_number or by_date) or (by_number is None and by_date is None)


def _numbers_restarted(position: WatchPosition, shown: Sequence[Submission]) -> bool:
    """Return whether runs without dates have lower numbers than before: a rebuilt cluster."""
    numbers = [run.submission_id for run in shown]
    known = [run.submission_id for run in (*position.known, *position.pending)]
    if not known or None in numbers or None in known:
        return False
    lower = max(number or 0 for number in numbers) < min(number or 0 for number in known)
    return lower and all(run.creation_date is None for run in shown)


def _count_missed(
    position: WatchPosition,
    history: History,
    shown: Sequence[Submission],
    restarted: bool,
    lost: int,
) -> int:
    """Return how many runs, at least, have ended unseen, if all that are shown are new.

    :param lost: number of active runs that are not shown any more.
    """
    if not history.complete:
        if position.total is None or history.total is None:
            return max(1, lost)
        unseen = history.total - position.total - len(shown)
        # Whatever a total may be that does not fit: some runs are not shown any more.
        return lost if unseen == 0 else max(1, lost + unseen)
    newest = position.newest
    number = newest.submission_id if newest else None
    highest = max((run.submission_id or 0 for run in shown), default=0)
    began_again = restarted or (number is not None and 0 < highest < number)
    return lost + began_again


def _warn_of_missed(
    position: WatchPosition, shown: Sequence[Submission], lost: Sequence[RunRef], missed: int
) -> None:
    last = position.newest
    log.warning(
        "At least %d run(s) of job %r may have ended without an event: CDM's history goes back to"
        " %s, and does not show %s. Check the target of the job, and look at it more often"
        " (poll_interval; cluster %s).",
        *(missed, shown[0].job_name, RunRef.of(shown[-1]).number),
        ", ".join(run.number for run in lost) or (last.number if last else "what was before"),
        shown[0].cluster_id,
    )


def _pair(run: RunRef) -> list[int | None]:
    return [run.submission_id, run.creation_date]
