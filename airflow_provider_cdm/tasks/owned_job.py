"""The job that belongs to one task instance: created before its run, deleted after it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm._compat import loop_iteration
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.definitions import JOB
from airflow_provider_cdm.client.arguments import JOB_NAME_LIMIT
from airflow_provider_cdm.client.jobs import apply, stop
from airflow_provider_cdm.client.jobs.earlier_start import EarlierStart
from airflow_provider_cdm.client.jobs.start_record import (
    Relation,
    StartPolicy,
    StartRecord,
    StartRequest,
)
from airflow_provider_cdm.client.sansio import pause
from airflow_provider_cdm.client.submission import RunRef, Submission
from airflow_provider_cdm.triggers.owned_job import CdmOwnedJobTrigger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_cdm._compat import Context
    from airflow_provider_cdm.client.api.definitions import Definition
    from airflow_provider_cdm.client.jobs.job_check import JobCheck
    from airflow_provider_cdm.client.jobs.progress import Log
    from airflow_provider_cdm.client.sansio import Flow
    from airflow_provider_cdm.client.session import CdmSession
    from airflow_provider_cdm.tasks.attempt import Attempt

#: Seconds within which the kill of an earlier attempt may still delete its job.
_KILL_SECONDS = 120.0
#: Seconds for which to try to delete the job of a run that has ended.
_DELETE_SECONDS = 300.0
#: Seconds within which a run that was stopped must have ended for its job to be deleted.
_STOP_SECONDS = 60.0
#: How often to create a job that is deleted, or seems to exist, before it can be started.
_CREATIONS = 3


class OwnedJob:
    """A job that all attempts of one task instance share, and nobody else uses.

    Its name is that of the definition and a digest of DAG, task, run, map index and, in a loop, the
    iteration.

    :param definition: the job as the user defined it.
    :param check: check of the definition.
    :param context: context of the running task.
    :param log: log of the task.
    :param keep_on_failure: leave the job in CDM when its run failed.
    """

    trigger_class = CdmOwnedJobTrigger

    def __init__(
        self,
        definition: Definition,
        check: JobCheck,
        context: Context,
        log: Log,
        *,
        keep_on_failure: bool = False,
    ) -> None:
        ti = context["ti"]
        parts = [ti.dag_id, ti.task_id, ti.run_id, ti.map_index]
        iteration = loop_iteration(context)
        # Not the region of the loop, which a clear replaces: the next attempt finds the same job.
        parts += [] if iteration is None else [f"iteration {iteration}"]
        owner = "\n".join(map(str, parts))
        digest = hashlib.sha256(owner.encode()).hexdigest()[:16]
        self._definition = definition.named(f"{definition.name[: JOB_NAME_LIMIT - 17]}_{digest}")
        self.check = check
        self._keep_on_failure = keep_on_failure
        self._log = log
        self._times_missing = 0
        #: Whether this attempt has brought the job to its definition.
        self._defined = False
        self.taken_over_at: float | None = None

    @property
    def name(self) -> str:
        """Name of the job."""
        return self._definition.name

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the definition: a run of another definition is not followed."""
        return self._definition.fingerprint

    @property
    def definition(self) -> Mapping[str, Any]:
        """Definition of the job, with the type that CDM takes where it names none."""
        return {**JOB.defaults, **self._definition.wire}

    def prepare(self, attempt: Attempt) -> None:
        """Create the job, or bring one that is left exactly to its definition.

        A job whose run is to be followed first, or was a success, is left as it is; before a start
        that follows all the same, :meth:`redefine` does it.

        :raises CdmOutcomeUnknown: when the job was deleted while its run was active.
        """
        request, session = attempt.request, attempt.session
        record = attempt.journal.record()
        if record is not None and record.fingerprint != request.fingerprint:
            earlier = EarlierStart(session.api, request, StartPolicy())
            record = session.run(earlier.settle_other_arguments(record), attempt.journal.save)
        self.taken_over_at, self._defined = None, False
        if record is not None and record.result:
            if request.relation_to(record) is Relation.SAME:
                return
        elif record is not None and (record.open or record.run):
            if self._take_over(attempt, record):
                self.taken_over_at = attempt.server_time()
                return
            attempt.journal.save(self._without_job(record, attempt).to_payload())
        self._create(attempt)

    def before_start(
        self,
        session: CdmSession,  # noqa: ARG002 - part of the protocol, as the next
        cluster_id: str,  # noqa: ARG002
    ) -> Flow[None]:
        """Do nothing: the definition is checked before the job is created."""
        yield from ()

    def _check(self, session: CdmSession) -> None:
        """Check the definition, before the job is brought to it for the first time."""
        self.check.check(self._definition.wire, session.api.exchanger.server_time())

    def redefine(self, session: CdmSession, cluster_id: str) -> Flow[None]:
        """Replace the definition before a start, unless :meth:`prepare` has done it.

        :raises CdmNotFound: when the job, or a link that it names, does not exist.
        """
        if self._defined:
            return
        self._check(session)
        try:
            self._report((yield from apply.update(session.api, cluster_id, self._definition)))
        except errors.CdmInUse as refusal:
            self._log.info("Job %r has an active run, so it stays as it is: %s", self.name, refusal)

    def prepare_again(self, attempt: Attempt, error: errors.CdmNotFound) -> None:
        """Prepare the job again after it was not there when it was to be started.

        The kill of an earlier attempt may have deleted it at that moment.

        :raises CdmNotFound: the given error, when the job exists, so that something else is
            missing.
        :raises CdmOutcomeUnknown: when a start was sent, so that a run of the job may have been.
        """
        cluster_id, session = attempt.request.cluster_id, attempt.session
        if self._shown(session, cluster_id) is not None:
            raise error
        self._times_missing += 1
        if self._times_missing > _CREATIONS:
            raise errors.CdmError(
                f"Job {self.name!r} was deleted {self._times_missing} times before it could be"
                " started. Nothing was started. It belongs to this task; find out who deletes it."
                f" {error}"
            ) from error
        self._log.warning("Job %r was deleted before it could be started: %s", self.name, error)
        self.prepare(attempt)

    def is_lost(
        self, attempt: Attempt, error: errors.CdmOutcomeUnknown, since: float | None
    ) -> bool:
        """Return whether the kill of an earlier attempt deleted the job, so that it is made again.

        A job that somebody else deleted is noted in the journal: no retry starts it again, only a
        cleared task does.

        :raises CdmOutcomeUnknown: the given error, when the job still exists.
        """
        request, session = attempt.request, attempt.session
        if self._shown(session, request.cluster_id) is not None:
            raise error
        if since is not None and attempt.server_time() < since + _KILL_SECONDS:
            return True
        if (record := attempt.journal.record()) is not None:
            # As if no answer had come: no attempt starts the job again, only a cleared task does.
            unknown = replace(record, run=None, sends=max(1, record.sends))
            attempt.journal.save(unknown.to_payload())
        return False

    def dispose(self, attempt: Attempt, run: Submission) -> None:
        """Note the outcome in the journal, then delete the job."""
        try:
            attempt.journal.note(run)
        except errors.CdmJournalError as error:
            # The job is then the only evidence of the outcome; its rows are in the target.
            self._log.warning(
                "Job %r stays in CDM, since the outcome of its run could not be noted: %s",
                *(run.job_name, error),
            )
            return
        if run.failed and self._keep_on_failure:
            self._log.warning("Job %r is kept in CDM (keep_job_on_failure)", run.job_name)
            return
        session = attempt.session
        delete = apply.delete(
            session.api, JOB, run.cluster_id, run.job_name, give_up_after=_DELETE_SECONDS
        )
        try:
            deleted = session.run(delete)
        except errors.CdmError as error:
            self._log.warning("%s The job stays in CDM; delete it there.", error)
        else:
            outcome = "deleted" if deleted else "no longer there"
            self._log.info("Job %r: %s", run.job_name, outcome)

    def stopped(self, session: CdmSession, run: RunRef) -> None:
        """Delete the job once its run has ended, unless that run succeeded."""
        try:
            session.run(stop.delete_after_stop(session.api, run, within=_STOP_SECONDS))
        except errors.CdmError as error:
            self._log.warning("Job %r stays in CDM for now: %s", run.job_name, error)

    def _take_over(self, attempt: Attempt, record: StartRecord) -> bool:
        """Return whether the job of an unsettled start or run exists.

        Unless that run is still active, or succeeded, a start follows. So the job is updated:
        neither what somebody changed in CDM since nor an earlier password may run.
        """
        request, session = attempt.request, attempt.session
        try:
            newest = session.run(stop.newest_run(session.api, request.cluster_id, self.name))
        except errors.CdmNotFound as error:
            if not error.reported_by_cdm:
                raise
            return False
        if newest is not None and not _precedes_a_start(newest, request, record):
            return True
        try:
            return self._update(attempt)
        except errors.CdmInUse as refusal:
            self._log.info("Job %r has an active run, so it stays as it is: %s", self.name, refusal)
            return True

    def _create(self, attempt: Attempt) -> None:
        """Create the job; if there is one of its name, replace its definition.

        Such a job belongs to this task, and is not compared with the definition: what an earlier
        one set and this one does not name looks like a default of CDM, and secrets are not shown.
        """
        session, cluster_id = attempt.session, attempt.request.cluster_id
        self._check(session)
        for _ in range(_CREATIONS):
            try:
                # Without a look before: the quota for creating is ten times that for showing.
                self._report(
                    session.run(apply.create_new(session.api, cluster_id, self._definition))
                )
            except errors.CdmAlreadyExists as refusal:
                problem: errors.CdmError = refusal
            else:
                return
            self._log.info(
                "Job %r exists already, left by an earlier attempt or by a create call whose answer"
                " was lost; replacing its definition",
                self.name,
            )
            try:
                if self._replace(attempt):
                    return
            except errors.CdmInUse as refusal:
                problem = refusal
            session.run(pause(1.0))
        raise problem

    def _replace(self, attempt: Attempt) -> bool:
        """Update the job after its active run has ended; return whether the job still exists."""
        session, cluster_id = attempt.session, attempt.request.cluster_id
        try:
            while active := session.run(session.api.active_run(cluster_id, self.name)):
                if attempt.has_waited_for(active):
                    # CDM contradicts itself; whether the job can be updated settles it.
                    break
                attempt.wait_for_other(RunRef.of(active))
        except errors.CdmNotFound as error:
            if not error.reported_by_cdm:
                raise
            return False
        return self._update(attempt)

    def _update(self, attempt: Attempt) -> bool:
        """Replace the definition of the job; return whether the job still exists."""
        session, cluster_id = attempt.session, attempt.request.cluster_id
        self._check(session)
        try:
            result = session.run(apply.update(session.api, cluster_id, self._definition))
        except errors.CdmNotFound:
            # It may also be a link that is missing.
            if self._shown(session, cluster_id) is None:
                return False
            raise
        self._report(result)
        return True

    def _shown(self, session: CdmSession, cluster_id: str) -> Mapping[str, Any] | None:
        """Return the job as CDM shows it; ``None`` if it does not exist."""
        job_type = self.definition["job_type"]
        return session.run(session.api.find(JOB, cluster_id, self.name, job_type=job_type))

    def _report(self, result: apply.ApplyResult) -> None:
        self._defined = True
        self._log.info("Job %r: %s", self.name, result.action)
        for warning in result.warnings:
            self._log.warning("CDM warns about job %r: %s", self.name, warning)

    def _without_job(self, record: StartRecord, attempt: Attempt) -> StartRecord:
        """Return the record to go on with when the job no longer exists.

        An attempt deletes the job after it has noted the outcome, and then the record has it; or
        because it was killed, and then only if the run did not succeed. Who deleted it otherwise
        is not known.
        """
        request = attempt.request
        if record.open and request.relation_to(record) is not Relation.NEW:
            raise errors.CdmOutcomeUnknown(
                f"Job {self.name!r} was deleted, not by this task, while a run of it was active, so"
                " the outcome of that run is unknown. Check the target; clear the task to run the"
                f" job again (cluster {request.cluster_id}).",
                Submission(request.cluster_id, self.name, "UNKNOWN"),
            )
        self._log.warning(
            "Job %r of an earlier attempt no longer exists; creating and running it again. An"
            " attempt that is killed deletes its job, unless the run succeeded; if somebody else"
            " did, check the target",
            self.name,
        )
        return replace(record, baseline=record.run or record.baseline, run=None, sends=0)


def _precedes_a_start(newest: Submission, request: StartRequest, record: StartRecord) -> bool:
    """Return whether the newest run of a job has ended, and is not the result of its task.

    :param record: record of a start whose outcome was not noted.
    """
    if not newest.ended:
        return False
    if record.run:
        is_own = request.run(record.run).is_run(newest)
    else:
        is_own = not request.run(record.baseline).is_run(newest)
    repeats = request.relation_to(record) is Relation.NEW
    return repeats or newest.failed or not is_own
