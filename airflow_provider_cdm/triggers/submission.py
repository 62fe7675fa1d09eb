"""The trigger that waits for a run."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm import metrics
from airflow_provider_cdm._compat import (
    TRIGGERS_HAVE_ON_KILL,
    aget_task_state,
    on_kill_seconds,
    trigger_event,
)
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.arguments import STALLED_AFTER
from airflow_provider_cdm.client.jobs import stop
from airflow_provider_cdm.client.jobs.follower import Follower
from airflow_provider_cdm.client.jobs.progress import ProgressLog, StallPolicy
from airflow_provider_cdm.client.sansio import pause
from airflow_provider_cdm.client.submission import RunRef
from airflow_provider_cdm.client.whole_database.collect import TableProgress
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.triggers.base import CdmTrigger
from airflow_provider_cdm.triggers.event import SubmissionEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from airflow_provider_cdm._compat import TriggerEvent
    from airflow_provider_cdm.client.session import CdmSession
    from airflow_provider_cdm.triggers.kill import Kill
    from airflow_provider_cdm.triggers.poller import ClusterPoller
    from airflow_provider_cdm.triggers.stopper import RunStopper

log = logging.getLogger(__name__)

#: Seconds of the time for ``on_kill`` that are left for Airflow.
_RESERVE = 5.0
#: Seconds for which a stop is tried. A stop that comes later than two minutes after a task was
#: cleared would fail the attempt that has taken the run over.
_STOP_SECONDS = 90.0
#: The same for a task that has ended for good.
_FINAL_STOP_SECONDS = 300.0
_FINAL_STATES = frozenset({"failed", "success", "skipped", "removed", "upstream_failed"})
#: Seconds for a new look-up of the connection, and between two of them while its credentials are
#: refused.
_LOOKUP_SECONDS, _AUTH_SECONDS = 5.0, 10.0


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
    :param foreign: whether the task did not start the run, which the log then says.
    :param report_stalls: end the wait at a stall, so that the task reports it and defers again.
    :param progress: state of the progress log of an earlier trigger, to go on with.
    :param delay: seconds to wait before the first poll.
    :param job_type: type of the job, if it is known; otherwise it is read after some time.
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
        "foreign",
        "report_stalls",
        "progress",
        "delay",
        "job_type",
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
        foreign: bool = False,
        report_stalls: bool = False,
        progress: Mapping[str, Any] | None = None,
        delay: float = 0.0,
        job_type: str | None = None,
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
        self.foreign = foreign
        self.report_stalls = report_stalls
        self.progress = progress
        self.delay = delay
        self.job_type = job_type
        self._poller: ClusterPoller | None = None
        self._kill: Kill | None = None

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield exactly one event: the payload of a :class:`SubmissionEvent`."""
        # Only the triggerer polls; parsing a DAG does not need the modules for it.
        from airflow_provider_cdm.triggers.poller import shared_poller

        try:
            session = await self._open_session()
            with shared_poller(session, self.cluster_id) as self._poller:
                event = await self._wait(self._poller)
        except errors.CdmError as error:
            event = SubmissionEvent(getattr(error, "submission", None), error)
        except asyncio.CancelledError:
            if not TRIGGERS_HAVE_ON_KILL:
                await self._end_run()
            raise
        except Exception as error:
            log.exception(
                "The wait for job %r in cluster %s failed", self.job_name, self.cluster_id
            )
            event = SubmissionEvent(error=errors.CdmError(f"{type(error).__name__}: {error}"))
        yield trigger_event(event.to_payload(), str(event))

    async def _open_session(self) -> CdmSession:
        return await CdmHook(self.cdm_conn_id, project_id=self.project_id).aget_conn()

    async def on_kill(self) -> None:
        """Stop the run after a user ended the deferred task.

        Airflow 3.3 and later call this, also when another triggerer has taken over the trigger.
        """
        await self._end_run()

    async def _end_run(self) -> None:
        """Stop the run if a user ended the task, within the time that Airflow gives.

        What could not be sent by then is named in the log, and tried on in the triggerer.
        """
        run = RunRef(self.cluster_id, self.job_name, self.submission_id, self.creation_date)
        if not run.known:
            return
        if not self.cancel_on_kill:
            log.info("Cancelled; %s is left running", run)
            return
        # Only a kill needs the module.
        from airflow_provider_cdm.triggers.kill import Kill, finish

        kill = self._kill = self._kill or Kill(run)
        given = on_kill_seconds() if TRIGGERS_HAVE_ON_KILL else None
        seconds = None if given is None else max(given - _RESERVE, given / 2)
        if not await finish(lambda: self._stop_if_task_was_ended(kill), seconds):
            kill.in_background = True
            log.error(
                "The task was ended, but within %.0f s CDM did not confirm that it stops %s. This"
                " triggerer goes on trying. %s %s",
                *(seconds, run, self._how_to_stop(run), kill.reason),
            )

    async def _stop_if_task_was_ended(self, kill: Kill) -> None:
        """Stop the run if a user ended the task, which only the state of the task shows."""
        run = kill.run
        try:
            if not await self._was_ended(kill):
                return
            seconds = _FINAL_STOP_SECONDS if kill.state in _FINAL_STATES else _STOP_SECONDS
            async with asyncio.timeout(seconds):
                await self._stop(kill, seconds)
        except TimeoutError:
            self._log_not_stopped(kill, f"It was tried for {seconds:.0f} s. {kill.reason}")
        except asyncio.CancelledError:
            if kill.in_background or kill.cancelled:
                self._log_not_stopped(kill, f"The triggerer ends. {kill.reason}")
            kill.cancelled = True
            raise
        except Exception as error:
            if stop.job_is_gone(error):
                log.info("The task was ended; %s: its job no longer exists, nothing to stop", run)
                return
            self._log_not_stopped(kill, f"The error: {error}")

    async def _was_ended(self, kill: Kill) -> bool:
        """Return whether a user ended the task; if so, ``kill.state`` is its state."""
        if kill.state is None:
            try:
                if kill.asked_state:
                    raise TimeoutError("the triggerer ends")
                kill.asked_state = True
                kill.state = await aget_task_state(self.task_instance) or "cleared"
            except Exception as error:
                log.warning(
                    "Cancelled; the state of the task cannot be read, so %s is left running. If"
                    " the task was ended: %s The error: %s",
                    *(kill.run, self._how_to_stop(kill.run), error),
                )
                return False
            if kill.state != "deferred":
                log.info("The task is now %s", kill.state)
        if kill.state == "deferred":
            # After a clear, the next attempt may wait for the run by now.
            log.info("Cancelled, but the task is deferred, still or again, so nothing is stopped")
        return kill.state != "deferred"

    async def _stop(self, kill: Kill, seconds: float) -> None:
        """Stop the run, with the connection as it is now: its credentials may have been changed.

        :param seconds: after which to give up when a call fails.
        """
        from airflow_provider_cdm.triggers.stopper import shared_stopper

        while True:
            session = await self._session_for_stop()
            if kill.give_up_at is None:
                kill.uptime = session.monotonic
                kill.give_up_at = kill.uptime() + seconds
            try:
                with shared_stopper(session, self.cluster_id) as kill.stopper:
                    return await self._stop_with(kill.stopper, kill)
            except errors.CdmAuthError as error:
                if not error.refuses_credentials:
                    raise  # a permission is missing
                kill.record_failure(error)
            await session.arun(pause(_AUTH_SECONDS))

    async def _stop_with(self, stopper: RunStopper, kill: Kill) -> None:
        if kill.sent:
            return
        sent = await stopper.stop(kill.run, kill.record_failure)
        kill.sent = True
        result = "asked CDM to stop it" if sent else "not active, nothing to stop"
        log.info("The task was ended; %s: %s", kill.run, result)

    async def _session_for_stop(self) -> CdmSession:
        """Return a session of its own, with the connection as it is now if Airflow answers."""
        try:
            async with asyncio.timeout(_LOOKUP_SECONDS):
                return await CdmHook(self.cdm_conn_id, project_id=self.project_id).aget_conn()
        except Exception:
            if self._poller is None:
                raise
            log.info("Connection %r cannot be read again at the moment", self.cdm_conn_id)
            return self._poller.session.with_time_limit(_LOOKUP_SECONDS)

    def _log_not_stopped(self, kill: Kill, reason: str) -> None:
        if kill.sent:
            return
        log.error(
            "The task was ended, but %s could not be stopped, and may still be active. %s %s",
            *(kill.run, self._how_to_stop(kill.run), reason),
        )

    def _how_to_stop(self, run: RunRef) -> str:
        return stop.how_to_stop(run, self.cdm_conn_id, self.project_id)

    def _note_stall(self, error: errors.CdmStalled) -> None:
        metrics.count_stall(self.cluster_id)
        if self.report_stalls and not self.fail_when_stalled:
            raise _StallReportError(error)

    async def _wait(self, poller: ClusterPoller) -> SubmissionEvent:
        run = RunRef(self.cluster_id, self.job_name, self.submission_id, self.creation_date)
        stall = StallPolicy(self.stalled_after, self.fail_when_stalled)
        session = poller.session
        server_time = session.api.exchanger.server_time
        progress = ProgressLog(
            *(log, session.monotonic, stall, server_time),
            foreign=self.foreign,
            on_stall=self._note_stall,
        )
        progress.restore(dict(self.progress) if self.progress else None)
        tables = TableProgress(on_change=progress.record_change)
        tables.job_type = self.job_type
        if self.delay:
            await session.arun(pause(self.delay))
        try:
            ended = await poller.wait(
                Follower(run, created_from=self.started_after or 0),
                poll_interval=self.poll_interval,
                deadline=self.deadline,
                limit=self.limit,
                on_status=progress,
                side_task=tables,
            )
        except _StallReportError as noted:
            to_go_on = {"progress": progress.dump(), "deadline": self.deadline}
            return SubmissionEvent(noted.error.submission, noted.error, to_go_on)
        metrics.time_notice(progress.notice_delay, self.cluster_id)
        return SubmissionEvent(tables.with_job_type(ended))


class _StallReportError(Exception):
    """Ends a wait so that a worker reports a stall."""

    def __init__(self, error: errors.CdmStalled) -> None:
        super().__init__(str(error))
        self.error = error
