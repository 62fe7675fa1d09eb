"""Watching a job for runs that end, whoever starts them: what a history shows that is new.

A :class:`WatchPosition` says which runs have been dealt with. :func:`compare` is told a history and
says which runs have ended since, which may have been missed, and the next position. It fires
nothing, keeps nothing, and never takes a run for an old one because of its number alone: numbers
begin again when a cluster is rebuilt.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import runs
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.definitions import JOB
from airflow_provider_cdm.client.api.runs import History
from airflow_provider_cdm.client.sansio import Flow
from airflow_provider_cdm.client.submission import RunRef, Submission, Verdict
from airflow_provider_cdm.client.whole_database import collect

log = logging.getLogger(__name__)

#: Version of the form in which positions are stored.
_VERSION = 1
#: Most runs that a position remembers one by one; a history usually shows ten.
_MAX_KNOWN = 50
#: Largest difference between two creation dates that says nothing, in milliseconds.
_DATE_TOLERANCE = 2_000
#: Seconds by which the date in an answer's header may be behind the instant of the answer.
_DATE_HEADER_ERROR = 0.5
_TRANSIENT = (errors.CdmUnavailable, errors.CdmThrottled, errors.CdmBadResponse)


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
class RunFilter:
    """Which ended runs an event is fired for.

    :param statuses: statuses in CDM's spelling; empty for all.
    :param started_by: names of users who may have started the run; empty for all.
    :param not_started_by: names of users who must not have started it.
    :param by_scheduler: whether CDM's scheduler must have started it, or must not; ``None`` if that
        does not matter.
    """

    statuses: Sequence[str] = ()
    started_by: Sequence[str] = ()
    not_started_by: Sequence[str] = ()
    by_scheduler: bool | None = None

    def accepts_starter(self, run: Submission) -> bool:
        """Return whether the run was started by somebody that this is about."""
        if self.by_scheduler is not None and run.is_execute_auto != self.by_scheduler:
            return False
        if (self.started_by or self.not_started_by) and run.creation_user is None:
            log.warning(
                "No event is fired for the end of %s (%s): CDM does not show who started it.",
                *(RunRef.of(run), run.status),
            )
            return False
        if self.started_by and run.creation_user not in self.started_by:
            return False
        return run.creation_user not in self.not_started_by

    def may_accept(self, run: Submission) -> bool:
        """Return whether the run is accepted, or may be once its tables are known."""
        if not self.accepts_starter(run):
            return False
        if not self.statuses or run.status in self.statuses:
            return True
        return run.verdict is Verdict.SUCCESS and "FAILED" in self.statuses

    def accepts_outcome(self, run: Submission) -> bool:
        """Return whether the run ended in one of the statuses; with a failed table, it failed."""
        with_failed_table = run.failed and run.status == "SUCCEEDED"
        return not self.statuses or ("FAILED" if with_failed_table else run.status) in self.statuses


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
        return max(1, lost + history.total - position.total - len(shown))
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


def with_outcome(api: CdmApi, run: Submission, *, last_try: bool) -> Flow[Submission | None]:
    """Return an ended run as the operators report it: with its tables, if its job has any.

    :param last_try: whether to go on without what cannot be read.
    :returns: the run; ``None``, after a warning, if CDM calls it a success and does not show
        whether all of its tables are.
    :raises CdmError: when CDM cannot be asked at the moment.
    """
    definition, problem = None, "Its job no longer exists."
    try:
        definition = yield from api.find(JOB, run.cluster_id, run.job_name)
    except errors.CdmError as error:
        if not last_try and (isinstance(error, _TRANSIENT) or error.refuses_credentials):
            raise
        problem = str(error)
    if definition is None:
        # The run's own status counts: nearly all jobs are of other types.
        log.warning(
            "It is not known whether %s has moved a whole database, so no tables are checked. %s",
            *(RunRef.of(run), problem),
        )
    try:
        return (yield from collect.with_tables(api, run, definition))
    except errors.CdmOutcomeUnknown as error:
        log.warning("%s", error)
    except errors.CdmError as error:
        if not last_try:
            raise
        log.warning("%s", error)
    return None


@dataclass(slots=True)
class RunWatch:
    """Looks at the history of a job until it shows something new; waits like a follower does.

    It does not move on by itself: whoever waits takes :attr:`look` and makes the next watch.

    :param cluster_id: cluster of the job.
    :param job_name: name of the job.
    :param position: what has been dealt with.
    :param look_back: seconds before the beginning of the watcher from which on ends are new.
    :param on_answer: called with each history that was read.
    :param look: the last look that moves the position; ``None`` while there is none.
    """

    cluster_id: str
    job_name: str
    position: WatchPosition
    look_back: float = 0.0
    on_answer: Callable[[], None] = lambda: None
    look: Look | None = None
    problems_since: dict[str, float] = field(default_factory=dict)

    @property
    def run(self) -> RunRef:
        """The active run, if one was seen; only to judge whether a poll is worth it."""
        pending = self.position.pending
        return pending[0] if pending else RunRef(self.cluster_id, self.job_name)

    @property
    def created_from(self) -> int:
        """Creation date from which on a run is new, as far as is known; epoch milliseconds."""
        newest = self.position.newest
        return 0 if newest is None or newest.creation_date is None else newest.creation_date + 1

    @property
    def asks_history(self) -> bool:
        """Whether polls begin with the history: always, as only that shows more than one run."""
        return True

    def poll(self, api: CdmApi) -> Flow[Submission | None]:
        """Read the history once.

        :returns: ``None``: no run ends this wait; see :attr:`look`.
        :raises CdmError: when CDM rejects the call for another reason than the credentials.
        """
        status = api.known_answer(runs.status(self.cluster_id, self.job_name))
        if status is not None and shows_nothing_new(self.position, status):
            # A wait for a run of the same job has just asked.
            self._record_answer()
            return None
        uptime = api.exchanger.uptime
        asked_at = uptime()
        try:
            history = yield from api.call(runs.history(self.cluster_id, self.job_name))
        except errors.CdmError as error:
            if not (isinstance(error, _TRANSIENT) or error.refuses_credentials):
                raise
            # The poller repeats the call, seldom, and gives up after the grace period of waits.
            if not self.problems_since:
                log.warning("The runs of job %r cannot be read: %s", self.job_name, error)
            self.problems_since.setdefault("outage", uptime())
            return None
        self._record_answer()
        # The server's clock is known from its answer, which was sent later than the question.
        ahead = api.exchanger.server_clock.offset + _DATE_HEADER_ERROR + uptime() - asked_at
        begin = (self.position.began_at + ahead - self.look_back) * 1000
        look = compare(self.position, history, begin)
        if look.ends or look.position != self.position:
            self.look = look
        return None

    def _record_answer(self) -> None:
        self.problems_since.clear()
        self.on_answer()

    def unreachable(self, error: errors.CdmError, lasted: float) -> errors.CdmError:
        """Return the error for a wait during which calls failed, or were refused, for too long."""
        error_type = errors.CdmAuthError if error.refuses_credentials else errors.CdmUnavailable
        return error_type(
            f"The runs of job {self.job_name!r} could not be read for {lasted:.0f} s (cluster"
            f" {self.cluster_id}). The last error: {error}",
            http_status=error.http_status,
            code=error.code,
            request_id=error.request_id,
        )

    def timed_out(self, limit: str = "wait_timeout") -> errors.CdmWaitTimeout:
        """Return the error for a wait that reached its deadline; watchers have none."""
        return errors.CdmWaitTimeout(f"No run of job {self.job_name!r} ended ({limit}).")


def _pair(run: RunRef) -> list[int | None]:
    return [run.submission_id, run.creation_date]
