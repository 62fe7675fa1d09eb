"""The job that belongs to one task instance: created before its run, deleted after it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.definitions import JOB
from airflow_provider_cdm.client.arguments import JOB_NAME_LIMIT
from airflow_provider_cdm.client.jobs import apply, stop
from airflow_provider_cdm.client.jobs.start import settle_other_arguments
from airflow_provider_cdm.client.jobs.start_record import Relation, StartPolicy, StartRecord
from airflow_provider_cdm.client.submission import RunRef, Submission

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_cdm._compat import Context
    from airflow_provider_cdm.client.api.definitions import Definition
    from airflow_provider_cdm.client.jobs.progress import Log
    from airflow_provider_cdm.client.session import CdmSession
    from airflow_provider_cdm.tasks.attempt import Attempt

#: Seconds within which the kill of an earlier attempt may still delete its job.
_KILL_SECONDS = 120.0
#: Seconds for which to try to delete the job of a run that has ended.
_DELETE_SECONDS = 300.0
#: Seconds within which a run that was stopped must have ended for its job to be deleted.
_STOP_SECONDS = 60.0


class OwnedJob:
    """A job that all attempts of one task instance share, and nobody else uses.

    Its name is that of the definition and a digest of DAG, task, run and map index.

    :param definition: the job as the user defined it.
    :param context: context of the running task.
    :param log: log of the task.
    :param keep_on_failure: leave the job in CDM when its run failed.
    """

    def __init__(
        self,
        definition: Definition,
        context: Context,
        log: Log,
        *,
        keep_on_failure: bool = False,
    ) -> None:
        ti = context["ti"]
        owner = "\n".join(map(str, (ti.dag_id, ti.task_id, ti.run_id, ti.map_index)))
        digest = hashlib.sha256(owner.encode()).hexdigest()[:16]
        self._definition = definition.named(f"{definition.name[: JOB_NAME_LIMIT - 17]}_{digest}")
        self._keep_on_failure = keep_on_failure
        self._log = log
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
        """Create or update the job, unless a run of it is to be followed first.

        :raises CdmOutcomeUnknown: when the job was deleted while its run was active.
        """
        request, session = attempt.request, attempt.session
        record = attempt.journal.record()
        if record is not None and record.fingerprint != request.fingerprint:
            settle = settle_other_arguments(session.api, request, record, StartPolicy())
            record = session.run(settle, attempt.journal.save)
        self.taken_over_at = None
        if record is not None and record.result:
            if request.relation_to(record) is Relation.SAME:
                return
        elif record is not None and (record.open or record.run):
            if session.run(session.api.find(JOB, request.cluster_id, self.name)) is not None:
                self.taken_over_at = session.clock()
                return
            attempt.journal.save(self._without_job(record, attempt).to_payload())
        self._create(attempt)

    def is_lost(
        self, attempt: Attempt, error: errors.CdmOutcomeUnknown, since: float | None
    ) -> bool:
        """Return whether the kill of an earlier attempt deleted the job, so that it is made again.

        A job that somebody else deleted is noted in the journal: no retry starts it again, only a
        cleared task does.

        :raises CdmOutcomeUnknown: the given error, when the job still exists.
        """
        request, session = attempt.request, attempt.session
        if session.run(session.api.find(JOB, request.cluster_id, self.name)) is not None:
            raise error
        if since is not None and session.clock() < since + _KILL_SECONDS:
            return True
        # A process may live on after its kill, and see what that has done.
        if not attempt.killed and (record := attempt.journal.record()) is not None:
            # As if no answer had come: no attempt starts the job again, only a cleared task does.
            unknown = replace(record, run=None, sends=max(1, record.sends))
            attempt.journal.save(unknown.to_payload())
        return False

    def dispose(self, attempt: Attempt, run: Submission) -> None:
        """Note the outcome in the journal, then delete the job."""
        attempt.journal.note(run)
        if run.failed and self._keep_on_failure:
            self._log.warning("Job %r is kept in CDM (keep_job_on_failure)", run.job_name)
            return
        session = attempt.session
        delete = apply.delete(
            session.api, JOB, run.cluster_id, run.job_name, give_up_after=_DELETE_SECONDS
        )
        try:
            session.run(delete)
        except errors.CdmError as error:
            self._log.warning("%s The job stays in CDM; delete it there.", error)
        else:
            self._log.info("Deleted job %r in cluster %s", run.job_name, run.cluster_id)

    def stopped(self, session: CdmSession, run: RunRef) -> None:
        """Delete the job once its run has ended, unless that run succeeded."""
        deadline = session.clock() + _STOP_SECONDS
        # Without its job, the next attempt takes a run for one that did not succeed.
        delete = stop.delete_after_stop(session.api, run, deadline=deadline, keep_if_succeeded=True)
        try:
            deleted = session.run(delete)
        except errors.CdmError as error:
            self._log.warning("Job %r stays in CDM for now: %s", run.job_name, error)
        else:
            outcome = "deleted" if deleted else "kept, its run succeeded or another one is active"
            self._log.info("Job %r: %s", run.job_name, outcome)

    def _create(self, attempt: Attempt) -> None:
        request, session = attempt.request, attempt.session
        api, cluster_id = session.api, request.cluster_id
        try:
            # Without a look before: the quota for creating is ten times that for showing.
            result = session.run(apply.create(api, cluster_id, self._definition))
        except errors.CdmAlreadyExists:
            self._log.info(
                "Job %r exists already: an attempt with another definition left it", self.name
            )
            while active := session.run(api.active_run(cluster_id, self.name)):
                attempt.wait_for_other(RunRef.of(active))
            result = session.run(apply.apply(api, cluster_id, self._definition))
        self._log.info("Job %r in cluster %s: %s", self.name, cluster_id, result.action)
        for warning in result.warnings:
            self._log.warning("CDM warns about job %r: %s", self.name, warning)

    def _without_job(self, record: StartRecord, attempt: Attempt) -> StartRecord:
        """Return the record to go on with when the job no longer exists.

        An attempt deletes the job after it has noted the outcome, and then the record has it; or
        because it was killed, and then only if the run did not succeed.
        """
        request = attempt.request
        if record.open and request.relation_to(record) is not Relation.NEW:
            raise errors.CdmOutcomeUnknown(
                f"Job {self.name!r} in cluster {request.cluster_id} was deleted, not by this task,"
                " while a run of it was active, so the outcome of that run is unknown. Check the"
                " target; clear the task to run the job again.",
                Submission(request.cluster_id, self.name, "UNKNOWN"),
            )
        self._log.warning(
            "Job %r was deleted when an earlier attempt was killed; running it again", self.name
        )
        return replace(record, baseline=record.run or record.baseline, run=None, sends=0)
