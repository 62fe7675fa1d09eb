"""An operator that makes a CDM job, runs it once, and takes it away."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import definitions, parsing
from airflow_provider_cdm.client.api.definitions import JOB
from airflow_provider_cdm.client.arguments import JOB_NAME_LIMIT
from airflow_provider_cdm.client.jobs import apply, stop
from airflow_provider_cdm.client.jobs.start_record import StartRecord
from airflow_provider_cdm.client.submission import RunRef, Submission
from airflow_provider_cdm.operators.base import DefinitionField
from airflow_provider_cdm.operators.start_job import CdmStartJobOperator
from airflow_provider_cdm.tasks.base import fail_without_retry
from airflow_provider_cdm.tasks.journal import Journal
from airflow_provider_cdm.tasks.outcome import RunOutcomeMixin
from airflow_provider_cdm.triggers.owned_job import CdmOwnedJobTrigger

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import Context
    from airflow_provider_cdm.client.api.definitions import Definition
    from airflow_provider_cdm.client.jobs.start_record import StartRequest, StartResult
    from airflow_provider_cdm.client.session import CdmSession

#: Seconds within which the kill of an earlier attempt may still take its job away.
_KILL_LASTS = 120.0
#: Seconds for which to try to delete the job of a run that is over.
_DELETE_SECONDS = 300.0
#: Seconds within which a run that was stopped must have ended for its job to be deleted.
_DISCARD_SECONDS = 60.0


class CdmRunJobOperator(DefinitionField, CdmStartJobOperator):
    """Makes a CDM job of a definition, runs it exactly once, waits for it, and deletes the job.

    The job has a name of its own: that of the definition and a digest of DAG, task, run and map
    index. So tasks of several dates run side by side, where one job could run only once at a time,
    and all attempts of a task mean the same job. What a killed or crashed attempt leaves behind is
    taken up or taken away by the next one. Where several deployments of Airflow share a cluster,
    give their definitions different names.

    The job is deleted when its run is over and the outcome is written down, also after a failure
    (CDM's reason is in the error) and, as far as time allows, after a kill. It stays while its run
    is not over, as after ``wait_timeout``: the next attempt, or a cleared task, goes on with it.

    Waits, is retried and is cleared as :class:`~airflow_provider_cdm.operators.CdmStartJobOperator`
    with ``wait_for_completion`` does, and returns the same object. A definition that differs from
    the last attempt's is a new migration: a run of the old one is waited for first.

    :param definition: the job as CDM's create call takes it and its console exports it: a mapping,
        or the path of a JSON or YAML file (templated). It may hold templates such as ``{{ ds }}``
        itself, and must not make CDM schedule or delete the job.
    :param variables: values for ``${name}`` in the definition (templated).
    :param keep_job_on_failure: leave the job in CDM when its run failed, to look at it there; the
        next attempt uses it again, and deletes it when it succeeds.
    :param cluster_id: cluster for the job; by default the connection's (templated).
    :param project_id: project of the cluster; by default the connection's (templated).
    :param cdm_conn_id: connection of type ``huaweicloud_cdm`` (templated).

    ``deferrable``, ``poll_interval``, ``wait_timeout``, ``cancel_on_kill``, ``on_giving_up`` and
    the thresholds are those of :class:`~airflow_provider_cdm.operators.CdmStartJobOperator`.
    """

    template_fields: Sequence[str] = (
        "definition",
        "cluster_id",
        "variables",
        "project_id",
        "cdm_conn_id",
        *RunOutcomeMixin.template_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "definition": "json",
        "variables": "json",
    }
    trigger_class = CdmOwnedJobTrigger

    def __init__(
        self,
        *,
        definition: Mapping[str, Any] | str,
        keep_job_on_failure: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            definition=definition,
            job_name="",
            wait_for_completion=True,
            # Only a run of another definition is not followed, and so in the way.
            if_running="wait",
            **kwargs,
        )
        self.keep_job_on_failure = keep_job_on_failure
        self._wanted: Definition | None = None
        self._followed_at: float | None = None
        self._killed = False

    @fail_without_retry
    def execute(self, context: Context) -> dict[str, Any]:
        """Make the job, run it, wait for it, delete it."""
        self._name_job(context)
        return super().execute(context)

    @fail_without_retry
    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Go on after a deferral."""
        self._name_job(context)
        return super().resume_execution(next_method, next_kwargs, context)

    def execute_complete(
        self,
        context: Context,
        event: Any = None,
        deadline: float | None = None,
        attached_at: float | None = None,
    ) -> dict[str, Any]:
        """Go on after a deferred wait for this task's run."""
        try:
            return super().execute_complete(context, event, deadline, attached_at)
        except errors.CdmOutcomeUnknown as error:
            return self._after_loss(context, error, deadline, attached_at)

    def on_kill(self) -> None:
        """Stop the run of this task and delete its job, unless ``cancel_on_kill`` is off."""
        self._killed = True
        super().on_kill()

    def _name_job(self, context: Context) -> None:
        """Check the definition, and give it the name that all attempts of this task have for it."""
        wanted = parsing.job(self._draft())
        if wrong := _acts_by_itself(wanted):
            raise errors.CdmConfigError(
                f"The definition of the job {wanted.name!r} lets CDM act by itself: {wrong}."
                " Airflow starts and deletes this job; take these inputs out of the definition."
            )
        ti = context["ti"]
        owner = "\n".join(map(str, (ti.dag_id, ti.task_id, ti.run_id, ti.map_index)))
        digest = hashlib.sha256(owner.encode()).hexdigest()[:16]
        self._wanted = wanted.named(f"{wanted.name[: JOB_NAME_LIMIT - 17]}_{digest}")
        self.job_name = self._wanted.name

    def _start_and_wait(self, context: Context, deadline: float | None) -> dict[str, Any]:
        try:
            return super()._start_and_wait(context, deadline)
        except errors.CdmOutcomeUnknown as error:
            return self._after_loss(context, error, deadline, self._followed_at)

    def _start(self, journal: Journal, deadline: float | None) -> tuple[CdmSession, StartResult]:
        session = self._session or self._connect()
        request = self._request(journal)
        payload = journal.read()
        record = StartRecord.from_payload(payload) if payload else None
        if record is not None and record.fingerprint != request.fingerprint:
            record = None
        done = record is not None and record.result and record.generation == request.generation
        if not done:
            self._make_job(session, journal, request, record, deadline)
        return super()._start(journal, deadline)

    def _make_job(
        self,
        session: CdmSession,
        journal: Journal,
        request: StartRequest,
        record: StartRecord | None,
        deadline: float | None,
    ) -> None:
        """See that there is the job, as it is defined; not while its run is to be followed."""
        if self._wanted is None:
            raise RuntimeError("_name_job comes first")
        api, cluster_id, name = session.api, request.cluster_id, request.job_name
        followed = record is not None and not record.result and (record.open or record.run)
        self._followed_at = None
        if record is not None and followed:
            if session.run(api.find(JOB, cluster_id, name)) is not None:
                self._followed_at = session.clock()
                return
            journal.save(self._without_job(record, request).to_payload())
        try:
            # Without a look before: the quota of creating is ten times that of looking.
            done = session.run(apply.create(api, cluster_id, self._wanted))
        except errors.CdmAlreadyExists:
            self.log.info("Job %r is left from an attempt with another definition", name)
            while active := session.run(api.active_run(cluster_id, name)):
                self._wait_for_other(session, RunRef.of(active), deadline)
            done = session.run(apply.apply(api, cluster_id, self._wanted))
        self.log.info("Job %r in cluster %s: %s", name, cluster_id, done.action)
        for warning in done.warnings:
            self.log.warning("CDM warns about job %r: %s", name, warning)

    def _without_job(self, record: StartRecord, request: StartRequest) -> StartRecord:
        """What to make of a record whose job is gone.

        An attempt deletes the job after it has written the outcome down, so the outcome would be
        here; or because it was killed, and then only if the run did not end well.
        """
        if record.open and record.generation == request.generation:
            raise errors.CdmOutcomeUnknown(
                f"Job {request.job_name!r} in cluster {request.cluster_id} was deleted by somebody else"
                " while its run was under way, so how the run ended cannot be learnt. Check the"
                " target; a cleared task runs the job anew.",
                Submission(request.cluster_id, request.job_name, "UNKNOWN"),
            )
        self.log.warning("The job was deleted when an earlier attempt was killed; running it anew")
        return replace(record, baseline=record.run or record.baseline, run=None, sends=0)

    def _after_loss(
        self,
        context: Context,
        error: errors.CdmOutcomeUnknown,
        deadline: float | None,
        followed_at: float | None,
    ) -> dict[str, Any]:
        """When the job has vanished under its run: by the kill of an earlier attempt, or not."""
        session = self._session or self._connect()
        cluster_id = str(self.cluster_id)
        if session.run(session.api.find(JOB, cluster_id, self.job_name)) is not None:
            raise error
        if followed_at is not None and session.clock() < followed_at + _KILL_LASTS:
            return self._start_and_wait(context, deadline)
        journal = Journal(context)
        # A process may live on after its kill, and see what that has done.
        if not self._killed and (payload := journal.read()):
            # As if no answer had come: no attempt starts it again, only a cleared task does.
            record = StartRecord.from_payload(payload)
            journal.save(replace(record, run=None, sends=max(1, record.sends)).to_payload())
        raise error

    def _conclude(
        self,
        context: Context,
        run: Submission,
        deadline: float | None,
        attached_at: float | None,
    ) -> dict[str, Any]:
        run = self._with_tables(run)
        Journal(context).note(run)
        if run.failed and self.keep_job_on_failure:
            self.log.warning("Job %r is kept in CDM (keep_job_on_failure)", run.job_name)
        else:
            self._delete_job(run)
        return super()._conclude(context, run, deadline, attached_at)

    def _definition(self, session: CdmSession, run: Submission) -> Mapping[str, Any] | None:
        # The job is gone by now.
        return super()._definition(session, run) if self._wanted is None else self._wanted.wire

    def _own_definition(self) -> Mapping[str, Any] | None:
        # A type that is not named is that of tables and files.
        return None if self._wanted is None else {**JOB.defaults, **self._wanted.wire}

    def _delete_job(self, run: Submission) -> None:
        session = self._session or self._connect()
        delete = apply.delete(
            session.api, JOB, run.cluster_id, run.job_name, give_up_after=_DELETE_SECONDS
        )
        try:
            session.run(delete)
        except errors.CdmError as error:
            self.log.warning("%s The job stays in CDM; delete it there.", error)
        else:
            self.log.info("Deleted job %r in cluster %s", run.job_name, run.cluster_id)

    def _stop(self, session: CdmSession, run: RunRef) -> None:
        super()._stop(session, run)
        deadline = session.clock() + _DISCARD_SECONDS
        # Without its job, the next attempt takes a run for one that did not end well.
        discard = stop.delete_after_stop(
            session.api, run, deadline=deadline, keep_if_succeeded=True
        )
        try:
            gone = session.run(discard)
        except errors.CdmError as error:
            self.log.warning("Job %r stays in CDM for now: %s", run.job_name, error)
        else:
            self.log.info(
                "Job %r: %s", run.job_name, "deleted" if gone else "left, its run is over"
            )

    def _request(self, journal: Journal) -> StartRequest:
        definition = self._wanted.fingerprint if self._wanted else None
        return replace(super()._request(journal), definition=definition)


def _acts_by_itself(wanted: Definition) -> str:
    """The inputs by which CDM would start or delete the job; empty if there are none."""
    harmless = {"isSchedulerJob": ("", "false"), "disposableType": ("", "NONE")}
    given = definitions.inputs_of(wanted.wire, "driver-config-values")
    return ", ".join(
        f"{name}={value}"
        for name, value in given.items()
        if value not in harmless.get(name.rpartition(".")[2], (value,))
    )
