"""Following one run to its end: the only place that decides what was seen of it.

A worker's wait, a sensor's poke and the triggerer all look through a :class:`Follower`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import runs
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.poll_loop import poll_until_done
from airflow_provider_cdm.client.sansio import Flow
from airflow_provider_cdm.client.submission import RunRef, Submission, Verdict, newest_first

log = logging.getLogger(__name__)

#: Something to be done with what a look saw, such as looking at what belongs to the run as well.
SideTask: TypeAlias = Callable[[CdmApi, Submission], Flow[None]]


@dataclass(frozen=True, slots=True)
class GracePeriods:
    """How long a wait bears what is not an answer, in seconds.

    :param outage: CDM cannot be asked: no answer, errors of its own, throttling, nonsense.
    :param unknown_status: the run's status is ``UNKNOWN`` or not documented.
    :param no_run: a run that was started does not show up.
    """

    outage: float = 600.0
    unknown_status: float = 600.0
    no_run: float = 120.0


@dataclass(slots=True)
class Follower:
    """Follows one run from look to look, and bears what is not an answer for a bounded time.

    :param run: the run to follow; no other run ever decides.
    :param created_from: while the run is not known: it is the job's first run created at or after
        this instant, epoch milliseconds.
    :param grace: how long to bear what is not an answer.
    :param last: the run as last seen.
    :param problems_since: since when, in epoch seconds, each thing that is not an answer has lasted.
    """

    run: RunRef
    created_from: int = 0
    grace: GracePeriods = field(default_factory=GracePeriods)
    last: Submission | None = None
    problems_since: dict[str, float] = field(default_factory=dict)

    def follow(
        self,
        api: CdmApi,
        *,
        poll_interval: float,
        deadline: float | None = None,
        on_status: Callable[[Submission | None], None] | None = None,
        side_task: SideTask | None = None,
    ) -> Flow[Submission]:
        """Wait until a run has ended, well or badly.

        :param poll_interval: seconds between two looks, spread by a tenth.
        :param deadline: epoch seconds at which to give up; ``None`` to wait for as long as it runs.
        :param on_status: told what each look saw; ``None`` for nothing usable.
        :param side_task: performed after each look that saw the run.
        :returns: the ended run; whether it ended well is for the caller to say.
        :raises CdmWaitTimeout: at the deadline.
        :raises CdmSubmissionFailed: when the run cannot be followed to a known end.
        :raises CdmError: when CDM could not be asked for too long, or refused.
        """

        def poll() -> Flow[Submission | None]:
            seen = yield from self.poll(api)
            if on_status is not None:
                on_status(seen)
            if side_task is not None and seen is not None:
                yield from side_task(api, seen)
            return seen if seen is not None and seen.ended else None

        return (
            yield from poll_until_done(
                poll,
                api.exchanger,
                poll_interval=poll_interval,
                deadline=deadline,
                timed_out=self.timed_out,
            )
        )

    def poll(self, api: CdmApi) -> Flow[Submission | None]:
        """Ask once; find the run first if it is not known.

        :returns: the run, active or ended; ``None`` while it cannot be seen.
        :raises CdmSubmissionFailed: when it cannot be followed to a known end.
        :raises CdmError: when CDM could not be asked for too long, or refused.
        """
        clock = api.exchanger.clock
        try:
            if not self.run.known and not (yield from self._discover(api)):
                return None
            found, shown = yield from self._find(api)
        except (errors.CdmUnavailable, errors.CdmThrottled, errors.CdmBadResponse) as error:
            self._tolerate_outage(error, clock())
            return None
        except errors.CdmNotFound as error:
            if not self.run.known:
                raise
            raise self._job_deleted(error) from error
        self.problems_since.pop("outage", None)
        if found is None:
            self._tolerate("absence", shown, self.grace.no_run, clock())
            return None
        self._remember(found)
        if found.verdict is Verdict.UNKNOWN:
            self._tolerate("doubt", f"status {found.status}", self.grace.unknown_status, clock())
        else:
            self.problems_since.clear()
        return found

    def dump(self) -> dict[str, Any]:
        """What another process needs to go on looking, as plain JSON."""
        return {
            "submission_id": self.run.submission_id,
            "creation_date": self.run.creation_date,
            "problems_since": dict(self.problems_since),
        }

    def restore(self, dump: Mapping[str, Any] | None) -> None:
        """Go on where another process left off.

        :param dump: what :meth:`dump` returned there.
        """
        if dump:
            self.problems_since = dict(dump["problems_since"])
            self.run = replace(
                self.run,
                submission_id=dump["submission_id"],
                creation_date=dump["creation_date"],
            )

    def timed_out(self, limit: str = "wait_timeout") -> errors.CdmWaitTimeout:
        """The error for a wait that reached its deadline.

        :param limit: the task's argument that set it.
        """
        if not self.run.known:
            return errors.CdmWaitTimeout(
                f"The time to wait is over ({limit}), and job {self.run.job_name!r} in cluster"
                f" {self.run.cluster_id} has no run created at or after {self.created_from} ms."
            )
        status = f"last seen {self.last.status}" if self.last else "never seen"
        return errors.CdmWaitTimeout(
            f"The time to wait for {self.run} is over ({limit}); it was {status} and was left"
            f" alone. Give it more time with {limit}, or look at it in the CDM console.",
            self.last,
        )

    def unreachable(self, error: errors.CdmError, lasted: float) -> errors.CdmUnavailable:
        """The error for a wait during which CDM could not be asked for too long.

        :param error: what the last attempt failed with.
        :param lasted: for how long, in seconds.
        """
        return errors.CdmUnavailable(
            f"CDM could not be asked about {self.run} for {lasted:.0f} s, so the wait was given up;"
            f" the run itself was left alone. The last attempt: {error}",
            http_status=error.http_status,
            code=error.code,
            request_id=error.request_id,
        )

    def _discover(self, api: CdmApi) -> Flow[bool]:
        first = yield from api.first_run_since(
            self.run.cluster_id, self.run.job_name, self.created_from
        )
        self.problems_since.pop("outage", None)
        if first is not None:
            self.run = RunRef.of(first)
            log.info("Found %s, created at %s ms", self.run, first.creation_date)
        return first is not None

    def _find(self, api: CdmApi) -> Flow[tuple[Submission | None, str]]:
        run = self.run
        shown = yield from api.call(runs.status(run.cluster_id, run.job_name))
        # A job without any run is shown as NEVER_EXECUTED, dated now: that is not a later run.
        latest = [seen for seen in shown if seen.verdict is not Verdict.NO_RUN]
        for seen in newest_first(latest):
            if run.is_run(seen):
                return seen, ""
        newer = [seen for seen in latest if run.is_before(seen)]
        if not newer:
            return None, ", ".join(f"{RunRef.of(s)}, {s.status}," for s in latest) or "no run"
        history = yield from api.call(runs.history(run.cluster_id, run.job_name))
        for seen in history.submissions:
            if run.is_run(seen):
                return seen, ""
        raise errors.CdmOutcomeUnknown(
            f"{run} is no longer in the history of the job, and a later run"
            f" ({RunRef.of(newest_first(newer)[0])}) has taken its place, so how it ended cannot be"
            " learnt. Check the target before you run the job again.",
            self._as_submission(),
        )

    def _remember(self, found: Submission) -> None:
        self.last = found
        if self.run.submission_id is None or self.run.creation_date is None:
            self.run = replace(
                self.run,
                submission_id=found.submission_id,
                creation_date=found.creation_date,
            )

    def _tolerate_outage(self, error: errors.CdmError, now: float) -> None:
        lasted = now - self.problems_since.setdefault("outage", now)
        if lasted < self.grace.outage:
            log.warning("Cannot see %s at the moment: %s", self.run, error)
            return
        raise self.unreachable(error, lasted) from error

    def _tolerate(self, trouble: str, shown: str, grace: float, now: float) -> None:
        if trouble not in self.problems_since:
            log.warning("CDM shows %s for %s; waiting up to %.0f s.", shown, self.run, grace)
        lasted = now - self.problems_since.setdefault(trouble, now)
        if lasted >= grace:
            raise errors.CdmOutcomeUnknown(
                f"CDM has shown {shown} for {self.run} for {lasted:.0f} s, so how it ended cannot"
                " be learnt. Check the job in the CDM console, and the target, before you run it"
                " again.",
                self._as_submission(),
            )

    def _job_deleted(self, error: errors.CdmNotFound) -> errors.CdmError:
        if not error.reported_by_cdm:
            return error
        return errors.CdmOutcomeUnknown(
            f"The job of {self.run} no longer exists, so how the run ended cannot be learnt. A job"
            " that deletes itself after a run (disposableType) cannot be followed. CDM said:"
            f" {error}",
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
