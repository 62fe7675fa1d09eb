"""What becomes of the run of an attempt that is killed, or that fails with no attempt after it.

While Airflow kills a task it may answer no look-ups, so a kill reads neither journal nor
connection, and waits only briefly for its note of the stop.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_cdm._compat import KILLED_TASKS_GO_ON, kill_seconds
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import runs
from airflow_provider_cdm.client.bounded import NotFinishedError, run_bounded
from airflow_provider_cdm.client.jobs import stop
from airflow_provider_cdm.client.jobs.own_run import find_own_run, start_uncertain
from airflow_provider_cdm.client.jobs.start_record import StartPolicy
from airflow_provider_cdm.client.submission import RunRef

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_cdm.client.api.client import CdmApi
    from airflow_provider_cdm.client.jobs.start_record import StartRecord, StartRequest
    from airflow_provider_cdm.client.sansio import Flow
    from airflow_provider_cdm.client.session import CdmSession
    from airflow_provider_cdm.tasks.attempt import Attempt

#: Seconds of a kill that a note of the stop may take; Airflow may not answer.
_NOTE_SECONDS = 0.5
#: Seconds for which a kill waits until a line is in the log.
_LOG_SECONDS = 0.5
#: Seconds for which a task that gives up tries to stop its run.
_GIVE_UP_SECONDS = 120.0


def kill(attempt: Attempt) -> None:
    """Stop the run of this attempt if it may be active and ``cancel_on_kill`` is on, and say
    what is known about it. The attempt does nothing more.

    :raises CdmKilled: out of a pause of the attempt, where the process goes on after a kill.
    """
    attempt.killed = True
    _stop_or_leave_run(attempt)
    session = vars(attempt).get("session")
    if KILLED_TASKS_GO_ON and session is not None:
        session.interrupt()


def _stop_or_leave_run(attempt: Attempt) -> None:
    # Nothing may be resolved now: while a task is being killed, Airflow answers no look-ups.
    at_hand = vars(attempt)
    record, run = _record_at_hand(attempt), attempt.own_run
    if run is None and record is not None:
        run = started_run(attempt.request.in_cluster_of(record), record)
    if run is not None:
        if not attempt.options.cancel_on_kill:
            _say(attempt.log.warning, "Killed; %s is left running (cancel_on_kill is off)", run)
            return
        noted = attempt.journal.stored
        seconds = kill_seconds()
        work = partial(
            _stop, attempt, at_hand["session"], run, noted=noted, killed=True, within=seconds
        )
        _within_kill_time(attempt, work, run, seconds)
    elif record is not None and record.open:
        _kill_unknown_run(attempt, at_hand["session"], record)
    elif record is not None and record.run is not None and record.result is None:
        _say(
            attempt.log.warning,
            "Killed; %s is left running: this task did not start it",
            attempt.request.in_cluster_of(record).run(record.run),
        )
    else:
        _say(attempt.log.info, "Killed; no start of this task is under way, so nothing is stopped")


def _record_at_hand(attempt: Attempt) -> StartRecord | None:
    """Return what the journal held when it was last used, without any look-up."""
    if {"session", "request", "journal"} <= vars(attempt).keys():
        return attempt.journal.remembered(attempt.request)
    return None


def _kill_unknown_run(attempt: Attempt, session: CdmSession, record: StartRecord) -> None:
    """Say that the job may have been started, and stop its run if that shows at once."""
    request = attempt.request.in_cluster_of(record)
    _say(
        attempt.log.warning,
        "Killed while a start of job %r in cluster %s was not settled: the job may have been"
        " started. The next attempt, or a cleared task, looks for its run first. %s",
        *(request.job_name, request.cluster_id, _how_to_stop(attempt, request.run(None))),
    )
    if not attempt.options.cancel_on_kill:
        _say(attempt.log.warning, "It is not stopped (cancel_on_kill is off)")
        return

    def find_and_stop() -> None:
        try:
            run = session.run(find_started_run(session.api, request, record))
        except errors.CdmError as error:
            attempt.log.warning("Nothing is stopped, since its run was not identified: %s", error)
            return
        if run is None:
            attempt.log.warning("Nothing is stopped: CDM's history shows no run of it so far")
        else:
            _stop(attempt, session, run, noted=False, killed=True, within=seconds)

    seconds = kill_seconds()
    _within_kill_time(attempt, find_and_stop, request.run(None), seconds)


def _within_kill_time(
    attempt: Attempt, work: Callable[[], None], run: RunRef, seconds: float
) -> None:
    # In a thread: the signal may have interrupted this one in the middle of an exchange.
    try:
        run_bounded(work, seconds)
    except NotFinishedError:
        _say(
            attempt.log.error,
            "Killed; CDM did not confirm within %.0f s that it stops %s, which may still be active."
            " %s",
            *(seconds, run, _how_to_stop(attempt, run)),
        )


def _say(log: Callable[..., None], text: str, *args: object) -> None:
    """Log in a thread: this one, which a signal interrupted, may hold the lock of the log."""
    with suppress(NotFinishedError):
        run_bounded(partial(log, text, *args), _LOG_SECONDS)


def _how_to_stop(attempt: Attempt, run: RunRef) -> str:
    return stop.how_to_stop(run, attempt.task.cdm_conn_id, attempt.task.project_id)


def give_up(attempt: Attempt, error: Exception) -> None:
    """Stop a run that is still active, or say that it is, when the attempt ends for good.

    :param attempt: the attempt.
    :param error: what it failed with.
    """
    if attempt.killed:
        # The kill has said what became of the run; the next attempt may have it already.
        return
    task, options = attempt.task, attempt.options
    try:
        timed_out = options.cancel_on_kill and _ended_by_execution_timeout(attempt, error)
        last = attempt.journal.last_attempt
        final = task.ends_for_good(error, attempt.context, last_attempt=last)
        record = attempt.journal.record()
        if record is None or record.run is None or record.result is not None:
            return
        request = attempt.request.in_cluster_of(record)
        ours = record.fingerprint == request.fingerprint
        run = started_run(request, record) if ours else None
        stops = timed_out or (final and options.on_giving_up == "stop")
        if run is not None and not stops:
            attempt.stop_notes.write(run, None)
        if run is None and (final or timed_out):
            attempt.log.warning(
                "%s may still be active. It is left running: this attempt did not start it.",
                request.run(record.run),
            )
        if run is None or not (final or timed_out):
            return
        if stops:
            reason = "execution_timeout is over" if timed_out else "No attempt follows"
            argument = "cancel_on_kill" if timed_out else "on_giving_up='stop'"
            attempt.log.info("%s; stopping %s (%s)", reason, run, argument)
            _stop(attempt, attempt.session, run)
            return
    except Exception as problem:  # the failure of the attempt is what the task reports
        attempt.log.warning("Whether a run of this task is still active is unknown: %s", problem)
    else:
        text = (
            f"No attempt follows, and {run} may still be active. {_how_to_stop(attempt, run)} A"
            " clear resumes it while it is active; after its end, a clear starts the job again,"
            " so if it has succeeded by then, mark the task as successful instead. With"
            " on_giving_up='stop' such runs are stopped."
        )
        if isinstance(error, errors.CdmError):
            # In the error, since that is what on_failure_callback gets, and mails show.
            error.add_detail(f" {text}")
        else:
            attempt.log.error("%s", text)


def _ended_by_execution_timeout(attempt: Attempt, error: Exception) -> bool:
    """Whether a deferred wait ended where Airflow would have killed a task on a worker."""
    return (
        isinstance(error, errors.CdmWaitTimeout)
        and not isinstance(error, errors.CdmStalled)
        and attempt.options.wait_limit[1] == "execution_timeout"
    )


def _stop(
    attempt: Attempt,
    session: CdmSession,
    run: RunRef,
    *,
    noted: bool = True,
    killed: bool = False,
    within: float = _GIVE_UP_SECONDS,
) -> None:
    """Stop a run, and clean up after it.

    :param noted: whether the journal has the run. If not, the next attempt looks for it, and
        needs its job for that.
    :param killed: whether Airflow is killing the task.
    :param within: seconds after which to give up.
    """
    try:
        sent = _send_stop(attempt, session, run, _NOTE_SECONDS if killed else None, within)
    except errors.CdmError as error:
        if stop.job_is_gone(error):
            attempt.log.info("%s: its job no longer exists, so there is nothing to stop", run)
            return
        # At the end, since the text of an error may be long.
        attempt.log.error(  # noqa: TRY400 - the error says what happened, its traceback does not
            "%s could not be stopped, and may still be active. %s The error: %s",
            *(run, _how_to_stop(attempt, run), error),
        )
    else:
        result = "asked CDM to stop it" if sent else "not active, nothing to stop"
        attempt.log.info("%s: %s", run, result)
    if noted:
        attempt.job.stopped(session, run)


def _send_stop(
    attempt: Attempt, session: CdmSession, run: RunRef, note_within: float | None, within: float
) -> bool:
    """Stop a run if it is the active one; note before that it is stopped by this task.

    :param note_within: seconds that the note may take; ``None`` for as long as it takes.
    :param within: seconds after which to give up.
    :returns: whether the stop was sent.
    """

    def write_note() -> None:
        # An answer has told the server's time by now.
        note = partial(attempt.stop_notes.write, run, session.api.exchanger.server_time())
        if note_within is None:
            note()
        else:
            with suppress(NotFinishedError):
                run_bounded(note, note_within)

    flow = stop.stop_in_time(
        session.api,
        run,
        within=within,
        seen_active=partial(attempt.wait.seen_active, run),
        before_stop=write_note,
    )
    return session.run(flow)


def started_run(request: StartRequest, record: StartRecord) -> RunRef | None:
    """Return the run in a record if this task started it and it may still be active.

    A run that the task attached to belongs to somebody else, so nothing ever stops it on behalf of
    this task.
    """
    if record.run is None or record.result is not None or record.foreign:
        return None
    return request.run(record.run)


def find_started_run(
    api: CdmApi, request: StartRequest, record: StartRecord
) -> Flow[RunRef | None]:
    """Look once for the run of a start that was sent and whose run is not known.

    :returns: the run, or ``None`` if the history shows none so far.
    :raises CdmStartUncertain: when a run that is shown may be ours or somebody else's.
    :raises CdmError: when the history cannot be read.
    """
    call = runs.history(request.cluster_id, request.job_name)
    history = yield from api.call(replace(call, wait_for_quota=False))
    evidence = find_own_run(
        request,
        record,
        history,
        policy=StartPolicy(),
        latest=api.exchanger.server_time(),
    )
    if evidence.run is None and evidence.doubt is not None:
        raise start_uncertain(request, evidence.doubt)
    return None if evidence.run is None else RunRef.of(evidence.run)
