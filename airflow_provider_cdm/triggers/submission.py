"""The trigger that waits for a run, and the event that it sends back to a worker."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm._compat import (
    TRIGGERS_HAVE_ON_KILL,
    TriggerEvent,
    aget_task_state,
)
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.arguments import STALLED_AFTER
from airflow_provider_cdm.client.jobs import stop
from airflow_provider_cdm.client.jobs.follower import Follower
from airflow_provider_cdm.client.jobs.progress import ProgressLog, StallPolicy
from airflow_provider_cdm.client.submission import RunRef, Submission
from airflow_provider_cdm.client.whole_database.collect import TableProgress
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.triggers.base import CdmTrigger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from airflow_provider_cdm.triggers.poller import ClusterPoller

log = logging.getLogger(__name__)

#: Seconds for a stop after a kill; Airflow gives ``on_kill`` 30.
_KILL_SECONDS = 25.0


@dataclass(frozen=True, slots=True)
class SubmissionEvent:
    """How a wait in the triggerer ended: with a run that has ended, or with an error.

    :param submission: the run as last seen.
    :param error: why the wait ended before the run did.
    """

    submission: Submission | None = None
    error: errors.CdmError | None = None

    def to_payload(self) -> dict[str, Any]:
        """Return the event as plain JSON."""
        return {
            "submission": self.submission and self.submission.to_payload(),
            "error": self.error and errors.to_payload(self.error),
        }

    @classmethod
    def unwrap(cls, payload: Any) -> Submission:
        """Return the ended run from the payload of an event.

        :raises CdmBadResponse: when the event is missing or malformed.
        :raises CdmError: the error that the event holds.
        """
        if not isinstance(payload, dict) or not (payload.get("submission") or payload.get("error")):
            raise errors.CdmBadResponse(
                f"The trigger ended without a usable event ({payload!r}), so the outcome of the run"
                " is unknown. See the log of the triggerer; a retry of this task reads the status"
                " again."
            )
        found = payload.get("submission")
        try:
            submission = Submission.from_payload(found) if found else None
        except (ValueError, TypeError) as problem:
            raise errors.CdmBadResponse(f"The event of the trigger is {problem}") from None
        if payload.get("error"):
            raise errors.from_payload(payload["error"], submission)
        if submission is None or not submission.ended:
            raise errors.CdmBadResponse(
                f"The trigger ended although the run is still active: {payload!r}"
            )
        return submission


class CdmSubmissionTrigger(CdmTrigger):
    """Waits for one run of a CDM job, and yields one event when the run has ended.

    All arguments are plain JSON and the deadline is an instant, so a restart of the triggerer loses
    nothing. Without ``submission_id`` and ``creation_date`` it first finds the run that
    ``started_after`` describes.

    :param job_name: name of the job.
    :param cluster_id: cluster of the job.
    :param submission_id: number of the run.
    :param creation_date: when the run was created, epoch milliseconds.
    :param started_after: take the first run created at or after this instant, epoch milliseconds.
    :param poll_interval: seconds between two polls, as far as CDM's rate limits allow.
    :param deadline: when to give up, epoch seconds.
    :param limit: name of the argument that set the deadline, for the error.
    :param stalled_after: seconds without a change after which to warn; ``None`` for never.
    :param fail_when_stalled: end the wait then, with an error.
    :param cancel_on_kill: stop the run when a user ends the deferred task; only for a run that this
        task started.
    :param project_id: project of the cluster; by default the connection's.
    :param cdm_conn_id: connection of type ``huaweicloud_cdm``.
    """

    arguments = (
        "job_name",
        *CdmTrigger.arguments,
        "submission_id",
        "creation_date",
        "started_after",
        "limit",
        "stalled_after",
        "fail_when_stalled",
        "cancel_on_kill",
    )

    def __init__(
        self,
        *,
        job_name: str,
        cluster_id: str,
        submission_id: int | None = None,
        creation_date: int | None = None,
        started_after: int | None = None,
        poll_interval: float = 30.0,
        deadline: float | None = None,
        limit: str = "wait_timeout",
        stalled_after: float | None = STALLED_AFTER,
        fail_when_stalled: bool = False,
        cancel_on_kill: bool = False,
        project_id: str | None = None,
        cdm_conn_id: str = CdmHook.default_conn_name,
    ) -> None:
        super().__init__(
            cluster_id=cluster_id,
            poll_interval=poll_interval,
            deadline=deadline,
            project_id=project_id,
            cdm_conn_id=cdm_conn_id,
        )
        self.job_name = job_name
        self.submission_id = submission_id
        self.creation_date = creation_date
        self.started_after = started_after
        self.limit = limit
        self.stalled_after = stalled_after
        self.fail_when_stalled = fail_when_stalled
        self.cancel_on_kill = cancel_on_kill
        self._poller: ClusterPoller | None = None

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield exactly one event: the payload of a :class:`SubmissionEvent`."""
        # Only the triggerer polls; parsing a DAG does not need the modules for it.
        from airflow_provider_cdm.triggers.poller import shared_poller

        try:
            session = await CdmHook(self.cdm_conn_id, project_id=self.project_id).aget_conn()
            with shared_poller(session, self.cluster_id) as self._poller:
                event = await self._wait(self._poller)
        except errors.CdmError as error:
            event = SubmissionEvent(getattr(error, "submission", None), error)
        except asyncio.CancelledError:
            if not TRIGGERS_HAVE_ON_KILL:
                await _to_the_end(self._stop_if_task_was_ended())
            raise
        except Exception as error:
            log.exception(
                "The wait for job %r in cluster %s failed", self.job_name, self.cluster_id
            )
            event = SubmissionEvent(error=errors.CdmError(f"{type(error).__name__}: {error}"))
        yield TriggerEvent(event.to_payload())  # type: ignore[no-untyped-call]  # as above

    async def on_kill(self) -> None:
        """Stop the run after a user ended the deferred task.

        Airflow 3.3 and later call this, also when another triggerer has taken over the trigger.
        """
        await _to_the_end(self._stop_if_task_was_ended())

    async def _stop_if_task_was_ended(self) -> None:
        """Stop the run if a user ended the task, which only the state of the task shows."""
        run = RunRef(self.cluster_id, self.job_name, self.submission_id, self.creation_date)
        if not run.known:
            return
        if not self.cancel_on_kill:
            log.info("Cancelled; %s is left running", run)
            return
        try:
            state = await aget_task_state(self.task_instance)
        except Exception as error:
            log.warning(
                "Cancelled; the state of the task cannot be read, so %s is left running: %s",
                *(run, error),
            )
            return
        if state == "deferred":
            log.info("Cancelled, but the task is still deferred, so nothing is stopped")
            return
        log.info("The task is now %s", state or "cleared")
        try:
            await self._stop(run)
        except Exception as error:
            if stop.job_is_gone(error):
                log.info("The task was ended; %s: its job no longer exists, nothing to stop", run)
                return
            log.warning(
                "The task was ended, but %s could not be stopped; stop it in the CDM console. %s",
                *(run, error),
            )

    async def _stop(self, run: RunRef) -> None:
        poller = self._poller
        if poller is not None:
            session = poller.session
        else:
            # A kill may arrive while the connection is still being read.
            session = await CdmHook(self.cdm_conn_id, project_id=self.project_id).aget_conn()
        try:
            sent = await session.arun(session.api.stop_run(run))
        finally:
            if poller is None or poller.closed:
                session.close()
        result = "asked CDM to stop it" if sent else "not active, nothing to stop"
        log.info("The task was ended; %s: %s", run, result)

    async def _wait(self, poller: ClusterPoller) -> SubmissionEvent:
        run = RunRef(self.cluster_id, self.job_name, self.submission_id, self.creation_date)
        stall = StallPolicy(self.stalled_after, self.fail_when_stalled)
        session = poller.session
        progress = ProgressLog(log, session.monotonic, stall, session.api.exchanger.server_time)
        tables = TableProgress(on_change=progress.record_change)
        ended = await poller.wait(
            Follower(run, created_from=self.started_after or 0),
            poll_interval=self.poll_interval,
            deadline=self.deadline,
            limit=self.limit,
            on_status=progress,
            side_task=tables,
        )
        return SubmissionEvent(tables.with_job_type(ended))


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Finish some work within a time limit, although the triggerer cancels it repeatedly."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    give_up_at = loop.time() + _KILL_SECONDS
    while not task.done() and loop.time() < give_up_at:
        # wait() does not cancel what it waits for.
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task}, timeout=give_up_at - loop.time())
    if not task.done():
        task.cancel()
        log.error(
            "CDM did not confirm within %.0f s that it stops the run. Check the run in the CDM"
            " console",
            _KILL_SECONDS,
        )
