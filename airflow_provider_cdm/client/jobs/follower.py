"""Following one run to its end: the only place that decides what a status call shows of it.

The wait of a worker, the poke of a sensor and the triggerer all use a :class:`Follower`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import runs
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.http.retry import Exchanger
from airflow_provider_cdm.client.jobs.refusals import REFUSED_SECONDS, Refusals
from airflow_provider_cdm.client.poll_loop import poll_until_done
from airflow_provider_cdm.client.sansio import Flow
from airflow_provider_cdm.client.submission import RunRef, Submission, Verdict, newest_first
from airflow_provider_cdm.client.text import format_duration, format_instant

log = logging.getLogger(__name__)

#: Polls in a row that must fail before a wait is given up.
_MIN_FAILURES = 5
#: Seconds of the first pause; each further one is as long as the wait so far, up to the interval.
_FIRST_PAUSE = 1.0
#: Extra work after a poll that showed the run, such as reading the state of its tables.
SideTask: TypeAlias = Callable[[CdmApi, Submission], Flow[None]]


@dataclass(frozen=True, slots=True)
class GracePeriods:
    """How long a wait tolerates missing answers, in seconds.

    :param outage: time for which calls may fail: no answer, 5xx, 429, unreadable answers (600 by
        default).
    :param unknown_status: time for which the status of the run may be ``UNKNOWN`` or undocumented
        (600 by default).
    :param no_run: time for which a run that was started may not be shown (120 by default).
    :param refused: time for which credentials may be refused that the connection holds (1200 by
        default).
    """

    outage: float = 600.0
    refused: float = REFUSED_SECONDS
    unknown_status: float = 600.0
    no_run: float = 120.0

    def before_giving_up(self, error: errors.CdmError) -> float:
        """Return for how long calls may fail with an error that says nothing about the run."""
        return self.refused if error.refuses_credentials else self.outage


@dataclass(slots=True)
class Follower:
    """Polls one run until it has ended, and tolerates missing answers for a limited time.

    :param run: run to follow; no other run ever decides the outcome.
    :param created_from: epoch milliseconds; while the run is not known, it is the first run of the
        job created at or after this time.
    :param grace: how long to tolerate missing answers.
    :param last: run as last seen.
    :param problems_since: since when each problem has lasted, by the name of its grace period:
        ``outage``, ``unknown_status``, ``no_run``; by the monotonic clock. Time in which CDM could
        not be asked is no part of the last two.
    """

    run: RunRef
    created_from: int = 0
    grace: GracePeriods = field(default_factory=GracePeriods)
    last: Submission | None = None
    problems_since: dict[str, float] = field(default_factory=dict)
    #: When CDM last showed the run, by the monotonic clock; ``None`` if it has not yet.
    seen_at: float | None = field(default=None, init=False)
    #: End of the last poll, by the monotonic clock and by the wall clock.
    _polled_at: tuple[float, float] = field(default=(0.0, 0.0), init=False, repr=False)
    #: Number of polls in a row that failed.
    _failures: int = field(default=0, init=False, repr=False)
    _refusals: Refusals = field(default_factory=Refusals, init=False, repr=False)
    #: What another process left, until the next poll takes it over.
    _restored: Mapping[str, Any] | None = field(default=None, init=False, repr=False)
    #: The later run that the status call showed, until the history has been read.
    _later: RunRef | None = field(default=None, init=False, repr=False)

    @property
    def asks_history(self) -> bool:
        """Whether the next poll begins with the history of the job, not with its status."""
        return not self.run.known or self._later is not None

    def follow(
        self,
        api: CdmApi,
        *,
        poll_interval: float,
        deadline: float | None = None,
        within: float | None = None,
        on_status: Callable[[Submission | None], None] | None = None,
        side_task: SideTask | None = None,
        is_new: bool = False,
    ) -> Flow[Submission]:
        """Wait until the run has ended, whether it succeeded or failed.

        :param poll_interval: seconds between two polls, with a jitter of a tenth.
        :param is_new: whether the run was started just now, so that it is polled also after 1, 2,
            4, 8, ... seconds: many runs are short.
        :param deadline: epoch seconds at which to give up; ``None`` to wait as long as the run
            takes.
        :param within: seconds after which to give up, in place of a deadline.
        :param on_status: called with the result of each poll, which is ``None`` if the run was not
            seen.
        :param side_task: performed after each poll that showed the run.
        :returns: the ended run; the caller decides whether it succeeded.
        :raises CdmWaitTimeout: at the deadline.
        :raises CdmSubmissionFailed: when the outcome of the run cannot be known any more.
        :raises CdmError: when calls failed for longer than the grace period, or CDM rejected one.
        """

        def poll() -> Flow[Submission | None]:
            seen = yield from self.poll(api)
            if on_status is not None:
                on_status(seen)
            if side_task is not None and seen is not None:
                yield from side_task(api, seen)
            return seen if seen is not None and seen.ended else None

        uptime = api.exchanger.uptime
        began = uptime()

        def interval() -> float:
            # While calls fail, or the quota is used up, none is made in addition.
            waited = math.inf if self.problems_since else uptime() - began
            return min(poll_interval, max(_FIRST_PAUSE, waited))

        wait = poll_until_done(
            *(poll, api.exchanger),
            poll_interval=interval if is_new else poll_interval,
            deadline=deadline if within is None else uptime() + within,
            timed_out=self.timed_out,
            clock=None if within is None else uptime,
        )
        return (yield from wait)

    def poll(self, api: CdmApi) -> Flow[Submission | None]:
        """Read the status of the run once; find the run first if it is not known.

        :returns: the run, active or ended; ``None`` if it was not seen.
        :raises CdmSubmissionFailed: when the outcome of the run cannot be known any more.
        :raises CdmError: when calls failed for longer than the grace period, or CDM rejected one.
        """
        uptime = api.exchanger.uptime
        began = uptime()
        if self._resume_problems(began, api.exchanger.clock()):
            return None
        try:
            return (yield from self._poll(api))
        except (errors.CdmUnavailable, errors.CdmThrottled, errors.CdmBadResponse) as error:
            self._tolerate_outage(error, began, uptime())
            return None
        except errors.CdmError as error:
            if not error.refuses_credentials:
                raise
            self._tolerate_refusal(error, began, api.exchanger)
            return None
        finally:
            self._polled_at = uptime(), api.exchanger.clock()

    def _poll(self, api: CdmApi) -> Flow[Submission | None]:
        try:
            if not self.run.known and not (yield from self._find_first_run(api)):
                return None
            seen, shown_instead = yield from self._read(api)
        except errors.CdmNotFound as error:
            if not self.run.known:
                raise
            raise self._job_deleted(error) from error
        self._end_outage()
        if seen is None:
            now = api.exchanger.uptime()
            self._tolerate("no_run", shown_instead, self.grace.no_run, now)
            return None
        self._remember(seen)
        self.seen_at = api.exchanger.uptime()
        if seen.verdict is Verdict.UNKNOWN:
            shown = f"status {seen.status}"
            now = api.exchanger.uptime()
            self._tolerate("unknown_status", shown, self.grace.unknown_status, now)
        else:
            self.problems_since.clear()
        return seen

    def _end_outage(self) -> None:
        self.problems_since.pop("outage", None)
        self._failures = 0
        self._refusals.clear()

    def dump(self) -> dict[str, Any]:
        """Return what another process needs to continue, as plain JSON."""
        now, instant = self._polled_at
        problems = {name: now - since for name, since in self.problems_since.items()}
        return {
            "submission_id": self.run.submission_id,
            "creation_date": self.run.creation_date,
            "problems": problems,
            "failures": self._failures,
            "refusals": self._refusals.dump(now, instant),
            # Only with problems, so that nothing is stored anew after each poll without any.
            "polled_at": instant if problems else None,
        }

    def restore(self, dump: Mapping[str, Any] | None) -> None:
        """Continue where another process stopped.

        :param dump: what :meth:`dump` returned there; nothing to start afresh.
        """
        if dump:
            self._restored = dump
            self.run = replace(
                self.run,
                submission_id=dump["submission_id"],
                creation_date=dump["creation_date"],
            )

    def timed_out(self, limit: str = "wait_timeout") -> errors.CdmWaitTimeout:
        """Return the error for a wait that reached its deadline.

        :param limit: name of the task's argument that set the deadline.
        """
        if not self.run.known:
            return errors.CdmWaitTimeout(
                f"Job {self.run.job_name!r} has had no run since"
                f" {format_instant(self.created_from)}, and the wait timed out ({limit}). Check"
                " started_after, and whether anything starts the job (cluster"
                f" {self.run.cluster_id})."
            )
        status = f"was last seen {self.last.status}" if self.last else "was never seen"
        # Whether a task stops its run at its execution_timeout is up to the task, and in its log.
        left = "" if limit == "execution_timeout" else ", and was not stopped"
        return errors.CdmWaitTimeout(
            f"The wait for {self.run} timed out ({limit}). The run {status}{left}."
            f" Increase {limit}, or check the run in the CDM console (cluster"
            f" {self.run.cluster_id}).",
            self.last,
        )

    def unreachable(self, error: errors.CdmError, lasted: float) -> errors.CdmError:
        """Return the error for a wait during which calls failed, or were refused, for too long.

        :param error: error of the last call.
        :param lasted: seconds for which calls failed.
        """
        if error.refuses_credentials:
            return self._refused(error, lasted)
        return errors.CdmUnavailable(
            f"{error} The wait for {self.run} was given up, since its status could not be read for"
            f" {format_duration(lasted)}. The run was not stopped.",
            http_status=error.http_status,
            code=error.code,
            request_id=error.request_id,
        )

    def _refused(self, error: errors.CdmError, lasted: float) -> errors.CdmAuthError:
        return errors.CdmAuthError(
            f"The credentials for the status of {self.run} were refused for {lasted:.0f} s, so the"
            " wait was given up. In that time the connection was looked up again and again, and"
            " what it holds was tried again as often as does not lock the user. The run was not"
            f" stopped. Correct the connection, and clear the task. The last error: {error}",
            http_status=error.http_status,
            code=error.code,
            request_id=error.request_id,
        )

    def _find_first_run(self, api: CdmApi) -> Flow[bool]:
        """Find the run to follow; return whether there is one by now."""
        first = yield from api.first_run_since(
            self.run.cluster_id, self.run.job_name, self.created_from
        )
        self._end_outage()
        if first is not None:
            self.run = RunRef.of(first)
            log.info("Found %s, created at %s", self.run, format_instant(first.creation_date))
        return first is not None

    def _read(self, api: CdmApi) -> Flow[tuple[Submission | None, str]]:
        """Return the run, or ``None`` and a description of what CDM shows instead.

        If the status call shows a later run, only the history can show this one. A rate limit may
        postpone that call, so then the next poll begins with it.
        """
        run = self.run
        if self._later is not None:
            return (yield from self._read_history(api, self._later)), ""
        shown = yield from api.call(runs.status(run.cluster_id, run.job_name))
        # A job without any run has status NEVER_EXECUTED with the date of now: no later run.
        latest = [seen for seen in shown if seen.verdict is not Verdict.NO_RUN]
        for seen in newest_first(latest):
            if run.is_run(seen):
                return seen, ""
        newer = [seen for seen in latest if run.is_before(seen)]
        if not newer:
            others = (f"{RunRef.of(other).number}, {other.status}," for other in latest)
            return None, ", ".join(others) or "no run"
        self._later = RunRef.of(newest_first(newer)[0])
        # CDM has answered, even if a rate limit postpones the next call.
        self._end_outage()
        return (yield from self._read_history(api, self._later)), ""

    def _read_history(self, api: CdmApi, later: RunRef) -> Flow[Submission]:
        """Return the run, which is not the latest one, as the history shows it."""
        run = self.run
        history = yield from api.call(runs.history(run.cluster_id, run.job_name))
        self._later = None
        for seen in history.submissions:
            if run.is_run(seen):
                return seen
        raise errors.CdmOutcomeUnknown(
            f"The outcome of {run} is unknown: the run is no longer in the history of the job, and"
            f" there is a later one ({later.number}). Check the target before you run the job again"
            f" (cluster {run.cluster_id}).",
            self._as_submission(),
        )

    def _remember(self, seen: Submission) -> None:
        self.last = seen
        if self.run.submission_id is None or self.run.creation_date is None:
            self.run = replace(
                self.run,
                submission_id=seen.submission_id,
                creation_date=seen.creation_date,
            )

    def _resume_problems(self, now: float, instant: float) -> bool:
        """Take over the problems that another process saw.

        Only the wall clock measures the time between two processes, and it may have been set, or
        be that of another machine. So this time counts for half of a grace period at most, and not
        at all for what CDM could not be asked about.

        :param now: time by the monotonic clock.
        :param instant: time by the wall clock.
        :returns: whether to make no call now, because credentials were refused recently.
        """
        dump, self._restored = self._restored, None
        if dump is None:
            return False
        problems = dump.get("problems") or {}
        gap = max(0.0, instant - (dump.get("polled_at") or instant))
        for name, lasted in problems.items():
            counts = name == "outage" or not ("outage" in problems or dump.get("refusals"))
            between = min(gap, getattr(self.grace, name) / 2) if counts else 0.0
            self.problems_since[name] = now - lasted - between
        self._failures = dump.get("failures") or 0
        self._polled_at = now, instant
        return self._refusals.restore(dump.get("refusals"), now, instant)

    def _suspend_other_problems(self, began: float, now: float) -> None:
        unasked = "outage" in self.problems_since or self._refusals.since is not None
        unanswered_from = self._polled_at[0] if unasked else began
        for problem in ("unknown_status", "no_run"):
            if problem in self.problems_since:
                self.problems_since[problem] += now - unanswered_from

    def _tolerate_refusal(self, error: errors.CdmError, began: float, exchanger: Exchanger) -> None:
        self._suspend_other_problems(began, exchanger.uptime())
        # A refusal is an answer.
        self.problems_since.pop("outage", None)
        lasted, tolerable = self._refusals.record(error, exchanger, self.grace.refused)
        if not tolerable:
            raise self._refused(error, lasted) from error
        log.warning("The status of %s cannot be read at the moment: %s", self.run, error)

    def _tolerate_outage(self, error: errors.CdmError, began: float, now: float) -> None:
        self._suspend_other_problems(began, now)
        lasted = now - self.problems_since.setdefault("outage", now)
        self._failures += 1
        # A run that is polled seldom must not be given up because of two calls far apart.
        if lasted < self.grace.outage or self._failures < _MIN_FAILURES:
            log.warning("%s The wait for %s goes on.", error, self.run.number)
            return
        raise self.unreachable(error, lasted) from error

    def _tolerate(self, problem: str, shown: str, grace: float, now: float) -> None:
        if problem not in self.problems_since:
            log.warning(
                "CDM shows %s for %s. Waiting up to %s for that to change.",
                *(shown, self.run.number, format_duration(grace)),
            )
        lasted = now - self.problems_since.setdefault(problem, now)
        if lasted >= grace:
            raise errors.CdmOutcomeUnknown(
                f"The outcome of {self.run} is unknown: CDM has shown {shown} for {lasted:.0f} s."
                f" Check the job in the CDM console (cluster {self.run.cluster_id}), and the"
                " target, before you run the job again.",
                self._as_submission(),
            )

    def _job_deleted(self, error: errors.CdmNotFound) -> errors.CdmError:
        if not error.reported_by_cdm:
            return error
        return errors.CdmOutcomeUnknown(
            f"The outcome of {self.run} is unknown: its job no longer exists. The run of a job that"
            f" deletes itself afterwards (disposableType) cannot be followed. {error}",
            self._as_submission(),
        )

    def _as_submission(self) -> Submission:
        return self.last or Submission(
            cluster_id=self.run.cluster_id,
            job_name=self.run.job_name,
            status="UNKNOWN",
            submission_id=self.run.submission_id,
            creation_date=self.run.creation_date,
        )
