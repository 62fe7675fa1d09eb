"""Starting a job exactly once, although the start call has no idempotency key.

This is possible because CDM runs a job only once at a time, and its history shows every run. Before
the start is sent, the flow saves an *intent*, together with the newest run at that time (the
*baseline*). If no answer says whether the start took effect, the history decides: a run that is
newer than the baseline means that it did. Only if no such run has appeared after a settling time is
the start sent again.

This module reads no clock, journal or socket itself: :func:`start_once` is a flow, and yields a
:class:`~airflow_provider_cdm.client.sansio.Save` for everything that must be remembered.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import runs
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.jobs.own_run import start_uncertain, with_number
from airflow_provider_cdm.client.jobs.run_search import RunSearch, note_run
from airflow_provider_cdm.client.jobs.standby import start_in_first
from airflow_provider_cdm.client.jobs.start_record import (
    StartPolicy,
    StartRecord,
    StartRequest,
    StartResult,
    key_of,
)
from airflow_provider_cdm.client.sansio import (
    Flow,
    Request,
    TransportError,
    save,
)
from airflow_provider_cdm.client.submission import RunRef, Submission, Verdict

log = logging.getLogger(__name__)


def start_once(
    api: CdmApi,
    request: StartRequest,
    payload: Mapping[str, Any] | None,
    policy: StartPolicy,
    *,
    deadline: float | None = None,
    limit: str = "wait_timeout",
    left_running: bool = False,
    before_restart: Callable[[], Flow[None]] | None = None,
    before_start: Callable[[str], Flow[None]] | None = None,
) -> Flow[StartResult]:
    """Start a job unless it has been started already, and return the run that is ours.

    :param request: what to start.
    :param payload: record of the last :class:`~airflow_provider_cdm.client.sansio.Save` of this or
        an earlier attempt; ``None`` if there was none.
    :param policy: time limits of the protocol.
    :param deadline: when to stop looking at the run of an earlier attempt, epoch seconds.
    :param limit: name of the task's argument that set the deadline.
    :param left_running: whether a clear has ended the earlier attempt while its run was active, and
        was not to stop it.
    :param before_restart: flow to perform before a start that follows an earlier one.
    :param before_start: flow to perform before any start, for the cluster that it goes to; what it
        raises ends the attempt without a start.
    :returns: our run: just started, found again, or already succeeded in an earlier attempt.
    :raises CdmAlreadyRunning: when a run of somebody else is active; its ``submission`` is that
        run.
    :raises CdmStartUncertain: when it cannot be determined whether the job was started. The journal
        stays open, so that the next attempt searches for the run first.
    :raises CdmOutcomeUnknown: when the run of an earlier attempt has disappeared.
    :raises CdmWaitTimeout: when it could not be seen until the deadline.
    :raises CdmError: when CDM rejected a call; then nothing was started.
    """
    record = None if payload is None else StartRecord.from_payload(payload)
    if record is not None:
        from airflow_provider_cdm.client.jobs.earlier_start import EarlierStart

        # What was begun in one of the clusters is settled there, before anything else.
        here = request.in_cluster_of(record)
        earlier = EarlierStart(api, here, policy, deadline, limit, left_running)
        if record.fingerprint != earlier.request.fingerprint:
            record = yield from earlier.settle_other_arguments(record)
        if record is not None:
            record, run = yield from earlier.settle(record)
            if run is not None:
                return StartResult(run, from_earlier_attempt=True, foreign=record.foreign)
            if before_restart is not None:
                yield from before_restart()

    def make(here: StartRequest) -> _Start:
        in_this = record is not None and record.cluster_id == here.cluster_id
        ended_run = (record.run or record.baseline) if record is not None and in_this else None
        return _Start(api, here, policy, before_start, ended_run)

    return (yield from start_in_first(api, request, make))


@dataclass(slots=True)
class _Start:
    """The start of a job, in one cluster, for which no earlier start counts any more.

    :param ended_run: key of a run that has ended; the new one is newer.
    """

    api: CdmApi
    request: StartRequest
    policy: StartPolicy
    before_start: Callable[[str], Flow[None]] | None = None
    ended_run: Mapping[str, Any] | None = None
    #: Whether a start was sent that was not certainly refused.
    may_have_effect: bool = field(default=False, init=False)
    search: RunSearch = field(init=False)
    #: Whether a search found the run, since no answer named it.
    found: bool = field(default=False, init=False)
    #: When the start was sent last, epoch seconds by the server's clock.
    _sent_at: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.search = RunSearch(self.api, self.request, self.policy)

    def perform(self) -> Flow[StartResult]:
        """Start the job."""
        run, foreign = yield from self._send_once()
        return StartResult(run, foreign=foreign, found=self.found)

    def _send_once(self) -> Flow[tuple[Submission, bool]]:
        """Return the run, and whether this task attached to it and did not start it."""
        if self.before_start is not None:
            # Before the baseline, which nothing may separate from the start but the intent.
            yield from self.before_start(self.request.cluster_id)
        record, active = yield from self._read_baseline(self.ended_run)
        if active is not None:
            return (yield from self._handle_active_run(record, active)), True
        run: Submission | None = None
        while run is None:
            record = replace(record, sends=record.sends + 1)
            self.may_have_effect = True
            try:
                run = yield from self._send(record)
            except errors.CdmAlreadyRunning as refusal:
                return (yield from self._handle_refusal(record, refusal))
            except errors.CdmError as error:
                run = yield from self._handle_failure(record, error)
        return (yield from self._save_run(record, run)), False

    def _send(self, record: StartRecord) -> Flow[Submission]:
        """Send the start, and save the intent immediately before each time that it goes out.

        Getting a token, waiting for a quota or repeating a refused connection may take minutes.
        """
        start = runs.start_job(
            self.request.cluster_id, self.request.job_name, self.request.variables
        )
        flow = self.api.call(start)
        try:
            step = next(flow)
            while True:
                if isinstance(step, Request) and step.method == start.method:
                    self._sent_at = self.search.server_now()
                    yield from save(replace(record, sent_at=self._sent_at).to_payload())
                try:
                    answer = yield step
                except TransportError as failure:
                    step = flow.throw(failure)
                else:
                    step = flow.send(answer)
        except StopIteration as end:
            return cast("Submission", end.value)
        finally:
            flow.close()

    def _read_baseline(
        self, ended_run: Mapping[str, Any] | None
    ) -> Flow[tuple[StartRecord, Submission | None]]:
        """Read the baseline, and return a new record and the active run, if there is one.

        This costs one history call. When that quota (120 a minute) is used up, as in a burst of
        starts (1,200 a minute), the start goes on without a baseline, and creation dates
        distinguish our run from others.
        """
        call = runs.history(self.request.cluster_id, self.request.job_name)
        baseline, known, active = ended_run, True, None
        try:
            history = yield from self.api.call(replace(call, wait_for_quota=False))
        except errors.CdmThrottled:
            known = False
        else:
            shown = [run for run in history.submissions if RunRef.of(run).known]
            baseline = self._newest(ended_run, shown)
            active = shown[0] if shown and shown[0].verdict is Verdict.ACTIVE else None
        record = StartRecord(
            self.request.fingerprint,
            self.request.generation,
            self.request.cluster_id,
            self.request.job_name,
            baseline=baseline,
            baseline_known=known,
            intent_at=self.search.server_now(),
            attempt_id=self.request.attempt_id,
        )
        return record, active

    def _newest(
        self, ended_run: Mapping[str, Any] | None, shown: Sequence[Submission]
    ) -> Mapping[str, Any] | None:
        """Return the key of the newest run that is known: a history may be out of date."""
        ended = self.request.run(ended_run)
        if not shown or (ended.known and not ended.is_before(shown[0])):
            return ended_run
        return key_of(shown[0])

    def _handle_failure(
        self, record: StartRecord, error: errors.CdmError
    ) -> Flow[Submission | None]:
        """Return the run that a failed start call created, or ``None`` to send the start again.

        :raises CdmError: when nothing was started, or when that cannot be determined.
        """
        if not error.effect_unknown:
            if record.sends == 1:
                self.may_have_effect = False
                yield from self._close_journal(record)
            raise error
        log.warning("%s It is not known whether the job was started; searching for its run.", error)
        run = yield from self.search.find(record, lambda began_at: began_at + self.policy.settle)
        if run is None and isinstance(error, errors.CdmRefused):
            # It had no effect, and sending it again cannot help.
            yield from self._close_journal(record)
            raise error
        if run is None and record.sends >= self.policy.max_sends:
            reason = (
                f"the start was sent {record.sends} times without an answer, and no run appeared"
            )
            raise start_uncertain(self.request, reason, error)
        self.found = run is not None
        if run is None:
            log.warning(
                "No run has appeared within %.0f s, so the start is sent again.", self.policy.settle
            )
        return run

    def _handle_refusal(
        self, record: StartRecord, refusal: errors.CdmAlreadyRunning
    ) -> Flow[tuple[Submission, bool]]:
        """Return our run if it is the active one, or do what ``if_running`` says."""
        if record.sends > 1:
            # The active run may be the late effect of a start that was given up.
            run = yield from self.search.find(record, lambda began_at: began_at)
            if run is not None:
                self.found = True
                return (yield from self._save_run(record, run)), False
        # Before the next call, which may fail: a retry must not take the active run for ours.
        yield from self._close_journal(record)
        active = yield from self.api.active_run(self.request.cluster_id, self.request.job_name)
        if active is None:
            raise refusal
        return (yield from self._handle_active_run(record, active, refusal)), True

    def _handle_active_run(
        self,
        record: StartRecord,
        active: Submission,
        refusal: errors.CdmAlreadyRunning | None = None,
    ) -> Flow[Submission]:
        """Attach to the active run of somebody else, or fail."""
        if self.request.if_running == "attach":
            log.warning("Attached to %s, which this task did not start.", RunRef.of(active))
            # Neither a kill nor giving up stops this run.
            yield from save(record.with_run(active, foreign=True).to_payload())
            return active
        error = refusal or errors.CdmAlreadyRunning(
            f"Job {self.request.job_name!r} is busy with {RunRef.of(active).number}"
            f" ({active.status}), and CDM runs a job only once at a time. Nothing was started in"
            f" cluster {self.request.cluster_id}. Wait until that run has ended, or set if_running"
            " to 'wait' or 'attach'."
        )
        error.submission = active
        raise error

    def _save_run(self, record: StartRecord, run: Submission) -> Flow[Submission]:
        """Save the run that the start created, once its number or creation date is known."""
        if not RunRef.of(run).known:
            # Some documented answers have neither number nor date; the history has them.
            in_history = yield from self.search.find(
                record, lambda began_at: began_at + self.policy.settle
            )
            if in_history is None:
                reason = "CDM accepted the start, but the history shows no run"
                raise start_uncertain(self.request, reason)
            run = in_history
        elif run.submission_id is None:
            run = yield from self._read_number(record, run)
        yield from note_run(replace(record, sent_at=self._sent_at).with_run(run))
        return run

    def _read_number(self, record: StartRecord, run: Submission) -> Flow[Submission]:
        """Read the number of a run from the history, because two runs may have the same date."""
        call = runs.history(self.request.cluster_id, self.request.job_name)
        try:
            history = yield from self.api.call(replace(call, wait_for_quota=False))
        except errors.CdmError:
            return run
        return with_number(self.request, record, history, run)

    def _close_journal(self, record: StartRecord) -> Flow[None]:
        """Save that no start is under way."""
        # The baseline is kept: a later start must be distinguishable from our run that has ended.
        yield from save(replace(record, sends=0).to_payload() if record.baseline else None)
