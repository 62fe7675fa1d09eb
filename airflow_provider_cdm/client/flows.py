"""Control flow, written once for threads and event loops: call, start, follow, find, stop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from airflow_provider_cdm.client import endpoints, errors
from airflow_provider_cdm.client.auth import Token, TokenAccess
from airflow_provider_cdm.client.endpoints import Call
from airflow_provider_cdm.client.messages import Flow, Request, Response, pause
from airflow_provider_cdm.client.models import RunRef, Settings, Submission, Verdict, newest_first
from airflow_provider_cdm.client.retry import Exchanger

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a wait bears what is not an answer, in seconds.

    :param outage: CDM cannot be asked: no answer, errors of its own, throttling, nonsense.
    :param doubt: the run's status is ``UNKNOWN`` or not documented.
    :param absence: a run that was started does not show up.
    """

    outage: float = 600.0
    doubt: float = 600.0
    absence: float = 120.0


@dataclass(frozen=True, slots=True)
class CdmFlows:
    """The flows of one user in one project.

    :param settings: where to send calls.
    :param access: authorises them.
    :param exchanger: performs them.
    """

    settings: Settings
    access: TokenAccess
    exchanger: Exchanger

    def call(self, call: Call[T]) -> Flow[T]:
        """Perform one operation: authorise, send, interpret, repeat where that is right.

        :raises CdmError: what the last attempt came to.
        """
        token = yield from self.access.token()
        try:
            response = yield from self._send(call, token)
        except errors.CdmError as error:
            if not _token_refused(error):
                raise
            # Tokens die early when permissions or passwords change: once, a new one may do.
            self.access.reject(token)
            response = yield from self._send(call, (yield from self.access.token()))
        return call.parse(response, call)

    def start(
        self, cluster_id: str, job_name: str, variables: Mapping[str, str]
    ) -> Flow[Submission]:
        """Start a job and establish which run that made.

        :raises CdmStartUncertain: when the start may have taken effect, but no answer says so.
        :raises CdmAlreadyRunning: when the job has an active run.
        """
        call = endpoints.start_job(cluster_id, job_name, variables)
        try:
            started = yield from self.call(call)
        except errors.CdmError as error:
            if not error.effect_unknown:
                raise
            raise errors.CdmStartUncertain(
                f"The start of job {job_name!r} in cluster {cluster_id} was sent, but no answer"
                f" says whether it took effect, so it is not sent again. {error} Look at the job's runs"
                " before you start it once more.",
                http_status=error.http_status,
                code=error.code,
                request_id=error.request_id,
                effect_unknown=True,
            ) from error
        if started.submission_id is None and started.creation_date is None:
            # Some samples of the answer show neither; the status call right after it does.
            seen = yield from self.call(endpoints.job_status(cluster_id, job_name))
            started = newest_first(seen)[0] if seen else started
        return started

    def active_run(self, cluster_id: str, job_name: str) -> Flow[Submission | None]:
        """Find the run of the job that is active now, whoever started it."""
        seen = yield from self.call(endpoints.job_status(cluster_id, job_name))
        newest = newest_first(seen)[0] if seen else None
        if newest is None or newest.ended or newest.verdict is Verdict.ABSENT:
            return None
        return newest

    def first_run_since(
        self, cluster_id: str, job_name: str, created_from: int
    ) -> Flow[Submission | None]:
        """Find the first run created at or after an instant.

        :param created_from: epoch milliseconds.
        :returns: the run, or ``None`` while there is none.
        :raises CdmOutcomeUnknown: when the history is too short to tell which run was the first.
        """
        history = yield from self.call(endpoints.submissions(cluster_id, job_name))
        dated = [s for s in history.submissions if s.creation_date is not None]
        later = [s for s in dated if (s.creation_date or 0) >= created_from]
        if not later:
            return None
        if len(later) == len(history.submissions) and not history.complete:
            raise errors.CdmOutcomeUnknown(
                f"CDM shows the {len(later)} newest of {history.total} runs of job {job_name!r} in"
                f" cluster {cluster_id}, all created since {created_from} ms; which one was the"
                " first cannot be told. Give the submission, or its id, to the sensor.",
                later[-1],
            )
        return newest_first(later)[-1]

    def stop(self, cluster_id: str, job_name: str) -> Flow[bool]:
        """Stop whatever run of the job is active.

        :returns: ``False`` when there was nothing to stop.
        """
        try:
            yield from self.call(endpoints.stop_job(cluster_id, job_name))
        except errors.CdmNotRunning:
            return False
        return True

    def follow(
        self,
        follower: Follower,
        *,
        poll_interval: float,
        deadline: float | None = None,
        on_look: Callable[[Submission | None], None] | None = None,
    ) -> Flow[Submission]:
        """Wait until a run has ended, well or badly.

        :param poll_interval: seconds between two looks, spread by a tenth.
        :param deadline: epoch seconds at which to give up; ``None`` to wait for as long as it runs.
        :param on_look: told what each look saw; ``None`` for nothing usable.
        :returns: the ended run; whether it ended well is for the caller to say.
        :raises CdmWaitTimeout: at the deadline.
        :raises CdmSubmissionFailed: when the run cannot be followed to a known end.
        :raises CdmError: when CDM could not be asked for too long, or refused.
        """
        while True:
            seen = yield from follower.look(self)
            if on_look is not None:
                on_look(seen)
            if seen is not None and seen.ended:
                return seen
            wait = poll_interval * (0.9 + 0.2 * self.exchanger.random())
            if deadline is not None:
                left = deadline - self.exchanger.clock()
                if left <= 0:
                    raise follower.timed_out()
                wait = min(wait, left)
            yield from pause(max(wait, 0.01))

    def _send(self, call: Call[T], token: Token) -> Flow[Response]:
        project_id = self.settings.project_id or token.project_id
        if project_id is None:
            raise errors.CdmConfigError(
                "The project is not known: IAM's token names none. Fill in Project ID."
            )
        request = Request(
            method=call.method,
            url=self.settings.cdm_endpoint + call.target(project_id),
            headers={
                "Content-Type": "application/json",
                "X-Language": "en-us",
                "X-Auth-Token": token.value,
            },
            body=call.payload(),
        )
        return self.exchanger.exchange(request, call.operation, idempotent=call.idempotent)


@dataclass(slots=True)
class Follower:
    """Follows one run from look to look, and bears what is not an answer for a bounded time.

    :param run: the run to follow; no other run ever decides.
    :param patience: how long to bear what is not an answer.
    :param last: the run as last seen.
    """

    run: RunRef
    patience: Patience = field(default_factory=Patience)
    last: Submission | None = None
    _trouble: str | None = None
    _trouble_since: float = 0.0

    def look(self, flows: CdmFlows) -> Flow[Submission | None]:
        """Ask once.

        :returns: the run, active or ended; ``None`` while it cannot be seen.
        :raises CdmSubmissionFailed: when it cannot be followed to a known end.
        :raises CdmError: when CDM could not be asked for too long, or refused.
        """
        try:
            found, shown = yield from self._find(flows)
        except (errors.CdmUnavailable, errors.CdmThrottled, errors.CdmBadResponse) as error:
            self._bear_outage(error, flows.exchanger.clock())
            return None
        except errors.CdmNotFound as error:
            raise self._job_gone(error) from error
        if found is None:
            self._bear("absence", shown, self.patience.absence, flows.exchanger.clock())
            return None
        self.run, self.last = RunRef.of(found), found
        if found.verdict in (Verdict.DOUBTFUL, Verdict.ABSENT):
            self._bear(
                "doubt", f"status {found.status}", self.patience.doubt, flows.exchanger.clock()
            )
        else:
            self._trouble = None
        return found

    def timed_out(self) -> errors.CdmWaitTimeout:
        """The error for a wait that reached its deadline."""
        status = f"last seen {self.last.status}" if self.last else "never seen"
        return errors.CdmWaitTimeout(
            f"The time to wait for {self.run} is over; it was {status} and was left alone."
            " Give it more time with wait_timeout, or look at it in the CDM console.",
            self.last,
        )

    def _find(self, flows: CdmFlows) -> Flow[tuple[Submission | None, str]]:
        run = self.run
        latest = yield from flows.call(endpoints.job_status(run.cluster_id, run.job_name))
        for seen in newest_first(latest):
            if run.is_run(seen):
                return seen, ""
        newer = [seen for seen in latest if run.is_before(seen)]
        if not newer:
            shown = ", ".join(f"{RunRef.of(s)}: {s.status}" for s in latest)
            return None, shown or "no run at all"
        history = yield from flows.call(endpoints.submissions(run.cluster_id, run.job_name))
        for seen in history.submissions:
            if run.is_run(seen):
                return seen, ""
        raise errors.CdmOutcomeUnknown(
            f"{run} is no longer in the history of the job, and a later run"
            f" ({RunRef.of(newest_first(newer)[0])}) has taken its place, so how it ended cannot be"
            " learnt. Check the target before you run the job again.",
            self._as_submission(),
        )

    def _bear_outage(self, error: errors.CdmError, now: float) -> None:
        since = self._since("outage", now)
        if now - since < self.patience.outage:
            log.warning("Cannot see %s at the moment: %s", self.run, error)
            return
        raise errors.CdmUnavailable(
            f"CDM could not be asked about {self.run} for {now - since:.0f} s, so the wait was"
            f" given up; the run itself was left alone. The last attempt: {error}",
            http_status=error.http_status,
            code=error.code,
            request_id=error.request_id,
        ) from error

    def _bear(self, trouble: str, shown: str, patience: float, now: float) -> None:
        first = self._trouble != trouble
        since = self._since(trouble, now)
        if first:
            log.warning("CDM shows %s for %s; waiting up to %.0f s.", shown, self.run, patience)
        if now - since >= patience:
            raise errors.CdmOutcomeUnknown(
                f"CDM has shown {shown} for {self.run} for {now - since:.0f} s, so how it ended"
                " cannot be learnt. Check the job in the CDM console, and the target, before you"
                " run it again.",
                self._as_submission(),
            )

    def _since(self, trouble: str, now: float) -> float:
        if self._trouble != trouble:
            self._trouble, self._trouble_since = trouble, now
        return self._trouble_since

    def _job_gone(self, error: errors.CdmError) -> errors.CdmError:
        if error.code is None or not error.code.startswith("Cdm."):
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


def ensure_succeeded(submission: Submission) -> Submission:
    """Return an ended run that ended well.

    :raises CdmSubmissionFailed: with CDM's reason, for any other.
    """
    if submission.verdict is Verdict.SUCCESS:
        return submission
    reason = submission.error_summary or "CDM gives no reason."
    details = f"\nDetails:\n{submission.error_details}" if submission.error_details else ""
    raise errors.CdmSubmissionFailed(
        f"{RunRef.of(submission)} ended {submission.status}: {reason}{details}", submission
    )


def _token_refused(error: errors.CdmError) -> bool:
    return error.http_status == 401 or error.code in ("APIGW.0301", "APIGW.0307")
