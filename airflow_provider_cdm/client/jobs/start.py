"""Starting a job exactly once, although the start call has no idempotency key.

What makes that possible: CDM runs a job only once at a time, and its history shows every run. So an
*intent* is written down before the start is sent, together with the newest run at that time (the
*baseline*). When no answer says whether the start took effect, a later run than the baseline in
the history is the answer. Only when none has shown up for a settling time is the start sent again.

Nothing here reads a clock, a journal or a socket by itself: :func:`start_once` is a flow, and
yields :class:`~airflow_provider_cdm.client.sansio.Save` for everything that must be remembered.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import runs
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.runs import History
from airflow_provider_cdm.client.jobs.follower import Follower
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
    pause,
    save,
)
from airflow_provider_cdm.client.submission import RunRef, Submission, Verdict

log = logging.getLogger(__name__)

#: The history may show no more runs than this.
_ROWS = 10


def start_once(
    api: CdmApi, request: StartRequest, payload: Mapping[str, Any] | None, policy: StartPolicy
) -> Flow[StartResult]:
    """Start a job unless it is started already, and say which run is ours.

    :param payload: what the last :class:`~airflow_provider_cdm.client.sansio.Save` of this or an
        earlier attempt held, ``None`` if there was none.
    :returns: our run: just started, found again, or ended well before.
    :raises CdmAlreadyRunning: when a run of somebody else is active; its ``submission`` says which.
    :raises CdmStartUncertain: when it cannot be established whether the job was started; the
        journal stays open, so that the next attempt looks again.
    :raises CdmOutcomeUnknown: when the run of an earlier attempt has vanished.
    :raises CdmError: when CDM refused; then nothing was started.
    """
    record = StartRecord.from_payload(payload) if payload else None
    if record is not None and record.fingerprint != request.fingerprint:
        log.warning(
            "The journal of this task tells of a start with other arguments; that run is not"
            " followed, and goes on if it is active."
        )
        record = None
    starter = _Starter(api, request, policy)
    floor = None
    if record is not None:
        record, ours = yield from starter.resume(record)
        if ours is not None:
            return StartResult(ours, from_earlier_attempt=True)
        floor = record.run or record.baseline
    return StartResult((yield from starter.start(floor)))


@dataclass(slots=True)
class _Starter:
    """One order on its way."""

    api: CdmApi
    request: StartRequest
    policy: StartPolicy
    ahead: float = -math.inf

    def resume(self, record: StartRecord) -> Flow[tuple[StartRecord, Submission | None]]:
        """Take up where an earlier attempt left off; no submission when a new start is due."""
        retry = record.generation == self.request.generation
        if retry and (ended := record.ended_run()) is not None:
            log.info("The run of an earlier attempt ended well, so nothing is started again.")
            return record, ended
        if record.open:
            log.info("An earlier attempt may have started the job; looking for its run.")
            settings = self.api.settings
            given_up_at = record.sent_at + settings.connect_timeout + settings.read_timeout
            settled_at = given_up_at + self.policy.settle + self.policy.clock_tolerance
            found = yield from self._reconcile(record, settled_at, retry=retry)
            if found is None:
                return record, None
            record = record.with_run(found)
            yield from save(record.to_payload())
        if record.run is None:
            return record, None
        return record, (yield from self._recall(record, retry=retry))

    def start(self, floor: Mapping[str, Any] | None) -> Flow[Submission]:
        """Start the job.

        :param floor: a run that is over; the new one is newer.
        """
        record, active = yield from self._intent(floor)
        if active is not None:
            return (yield from self._in_the_way(record, active))
        run: Submission | None = None
        while run is None:
            record = replace(record, sends=record.sends + 1, sent_at=self._now())
            try:
                run = yield from self._send(record)
            except errors.CdmAlreadyRunning as refusal:
                return (yield from self._refused_as_running(record, refusal))
            except errors.CdmError as error:
                run = yield from self._after_failure(record, error)
        return (yield from self._started(record, run))

    def _send(self, record: StartRecord) -> Flow[Submission]:
        """Send the start, and write the intent down right before each time that it goes out.

        A new token, a quota or a refused connection may take minutes of waiting in between.
        """
        start = runs.start_job(
            self.request.cluster_id, self.request.job_name, self.request.variables
        )
        flow = self.api.call(start)
        try:
            step = next(flow)
            while True:
                if isinstance(step, Request) and step.method == start.method:
                    yield from save(replace(record, sent_at=self._now()).to_payload())
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

    def _intent(
        self, floor: Mapping[str, Any] | None
    ) -> Flow[tuple[StartRecord, Submission | None]]:
        """Read the baseline, and see whether a run is in the way.

        Costs one history call. When that quota (120 a minute) is used up, as in a burst of starts
        (1,200 a minute), the start goes on without: then creation dates tell our run from others.
        """
        call = runs.history(self.request.cluster_id, self.request.job_name)
        baseline, known, active = floor, True, None
        try:
            history = yield from self.api.call(replace(call, wait_for_quota=False))
        except errors.CdmThrottled:
            known = False
        else:
            shown = [run for run in history.submissions if RunRef.of(run).known]
            baseline = key_of(shown[0]) if shown else floor
            active = shown[0] if shown and shown[0].verdict is Verdict.ACTIVE else None
        record = StartRecord(
            self.request.fingerprint,
            self.request.generation,
            baseline=baseline,
            baseline_known=known,
            intent_at=self._by_server_clock(self._now()),
        )
        return record, active

    def _after_failure(
        self, record: StartRecord, error: errors.CdmError
    ) -> Flow[Submission | None]:
        """Say what a failed start has come to: our run, or ``None`` to send it again."""
        if not error.effect_unknown:
            if record.sends == 1:
                yield from self._nothing_under_way(record)
            raise error
        log.warning("%s Whether the job was started is not known; looking for its run.", error)
        found = yield from self._reconcile(record, self._now() + self.policy.settle)
        if found is None and record.sends >= self.policy.max_sends:
            raise self._uncertain(
                f"none of {record.sends} starts was answered or shows a run", error
            )
        if found is None:
            log.warning("No run has shown up for %.0f s: starting again.", self.policy.settle)
        return found

    def _refused_as_running(
        self, record: StartRecord, refusal: errors.CdmAlreadyRunning
    ) -> Flow[Submission]:
        if record.sends > 1:
            # What is in the way may be the late effect of a start that was given up.
            found = yield from self._reconcile(record, self._now())
            if found is not None:
                return (yield from self._started(record, found))
        # Before the next call, which may fail: what is in the way must not be taken for ours later.
        yield from self._nothing_under_way(record)
        active = yield from self.api.active_run(self.request.cluster_id, self.request.job_name)
        if active is None:
            raise refusal
        return (yield from self._in_the_way(record, active, refusal))

    def _in_the_way(
        self,
        record: StartRecord,
        active: Submission,
        refusal: errors.CdmAlreadyRunning | None = None,
    ) -> Flow[Submission]:
        if self.request.if_running == "attach":
            log.warning("Attached to %s, which this task did not start.", RunRef.of(active))
            yield from save(record.with_run(active).to_payload())
            return active
        error = refusal or errors.CdmAlreadyRunning(
            f"Could not start job {self.request.job_name!r} in cluster {self.request.cluster_id}:"
            f" {RunRef.of(active)} is {active.status}, and CDM runs a job only once at a time. Wait"
            " until that run has ended, or set if_running to 'wait' or 'attach'."
        )
        error.submission = active
        raise error

    def _started(self, record: StartRecord, run: Submission) -> Flow[Submission]:
        if not RunRef.of(run).known:
            # Some documented answers show neither number nor date; the history does.
            found = yield from self._reconcile(record, self._now() + self.policy.settle)
            if found is None:
                raise self._uncertain("CDM accepted the start, but its history shows no run")
            run = found
        elif run.submission_id is None:
            run = yield from self._numbered(record, run)
        yield from save(record.with_run(run).to_payload())
        return run

    def _numbered(self, record: StartRecord, run: Submission) -> Flow[Submission]:
        """Find the number of a run that was answered without one: dates may be the same for two."""
        call = runs.history(self.request.cluster_id, self.request.job_name)
        try:
            history = yield from self.api.call(replace(call, wait_for_quota=False))
        except errors.CdmError:
            return run
        baseline = self.request.run(record.baseline)
        same = [
            seen
            for seen in history.submissions
            if seen.creation_date == run.creation_date
            and not seen.is_execute_auto
            and (not baseline.known or baseline.is_before(seen))
        ]
        return same[-1] if same else run

    def _recall(self, record: StartRecord, *, retry: bool) -> Flow[Submission | None]:
        """Look at the run of an earlier attempt; ``None`` when it is over and a new one is due."""
        if record.result is not None:
            return None
        run = self.request.run(record.run)
        follower = Follower(run)
        try:
            # Whether it is over decides what comes next, so there is no going on without a look.
            while (seen := (yield from follower.poll(self.api))) is None:
                yield from pause(10.0)
        except errors.CdmOutcomeUnknown:
            if retry:
                raise
            return None
        if not seen.ended:
            log.info("Attached to %s of an earlier attempt: %s.", run, seen.status)
            if not retry:
                yield from save(
                    replace(record, generation=self.request.generation, result=None).to_payload()
                )
            return seen
        log.info("%s of an earlier attempt ended %s.", run, seen.status)
        return seen if retry and seen.verdict is Verdict.SUCCESS else None

    def _reconcile(
        self, record: StartRecord, settled_at: float, *, retry: bool = True
    ) -> Flow[Submission | None]:
        """Look for the run that a start has made, until one would have shown up.

        :param settled_at: epoch seconds by our clock; a run created later is not ours.
        :raises CdmStartUncertain: when the history cannot be read.
        """
        call = runs.history(self.request.cluster_id, self.request.job_name)
        delay = 1.0
        while True:
            asked_at = self._now()
            trouble: errors.CdmError | None = None
            try:
                history = yield from self.api.call(call)
            except (errors.CdmUnavailable, errors.CdmThrottled, errors.CdmBadResponse) as error:
                trouble = error
            else:
                found = self._ours(record, history, settled_at, retry=retry)
                if found is not None:
                    log.warning("Took %s for the one that the start made.", RunRef.of(found))
                    return found
                # An answer may be slow; what counts is that it was not made too early.
                if asked_at >= settled_at:
                    return None
            if trouble is not None and self._now() >= settled_at + self.policy.history_timeout:
                raise self._uncertain("the history of the job cannot be read", trouble)
            left = settled_at - self._now()
            yield from pause(delay if trouble is not None and left <= 0 else min(delay, left))
            delay = min(2 * delay, 15.0)

    def _ours(
        self, record: StartRecord, history: History, settled_at: float, *, retry: bool
    ) -> Submission | None:
        """Choose the run that our start has made: the first that came after the baseline."""
        baseline = self.request.run(record.baseline)
        shown = [run for run in reversed(history.submissions) if RunRef.of(run).known]
        since = (record.intent_at - self.policy.date_tolerance) * 1000
        until = (self._by_server_clock(settled_at) + self.policy.date_tolerance) * 1000
        after = [run for run in shown if not baseline.known or baseline.is_before(run)]
        # Before this many rows, a history without a total is taken for complete.
        cut = len(shown) >= _ROWS if history.total is None else not history.complete
        if (
            retry
            and cut
            and len(after) == len(shown)
            and (after[0].creation_date or since) >= since
        ):
            raise self._uncertain("the history of the job does not reach back to the start")
        later = [
            run
            for run in after
            if not run.is_execute_auto and (run.creation_date is None or run.creation_date <= until)
        ]
        timely = [
            run
            for run in later
            if (record.baseline_known if run.creation_date is None else run.creation_date >= since)
        ]
        if not record.baseline_known and not timely:
            doubtful_from = since - self.policy.clock_tolerance * 1000
            doubtful = [
                run
                for run in later
                if run.creation_date is None or run.creation_date >= doubtful_from
            ]
            if doubtful and retry:
                raise self._uncertain(
                    f"{RunRef.of(doubtful[0])} was created about when the start was sent, and may"
                    " be its run or somebody else's"
                )
            return None
        candidates = timely or later
        if len(candidates) > 1:
            names = ", ".join(str(RunRef.of(run)) for run in candidates)
            log.warning("Several runs came after the start: %s. The first is taken.", names)
        return candidates[0] if candidates else None

    def _nothing_under_way(self, record: StartRecord) -> Flow[None]:
        # Whatever is newer than a run of ours that is over must stay distinguishable from it.
        yield from save(replace(record, sends=0).to_payload() if record.baseline else None)

    def _uncertain(
        self, what: str, cause: errors.CdmError | None = None
    ) -> errors.CdmStartUncertain:
        error = errors.CdmStartUncertain(
            f"Whether job {self.request.job_name!r} in cluster {self.request.cluster_id} was started is"
            f" not known: {what}.{f' The last attempt: {cause}' if cause else ''} A retry of this"
            " task looks again before it starts anything. Look at the runs of the job in the CDM"
            " console; clearing the task starts the job anew once no run of it is active.",
            effect_unknown=True,
        )
        error.__cause__ = cause
        return error

    def _by_server_clock(self, at: float) -> float:
        # A slow answer makes the server's clock look slow, and never fast.
        self.ahead = max(self.ahead, self.api.exchanger.server_clock.offset)
        return at + self.ahead

    def _now(self) -> float:
        return self.api.exchanger.clock()
