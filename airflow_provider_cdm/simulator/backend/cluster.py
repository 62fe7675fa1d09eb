"""A cluster with its links, jobs and submissions, and the operations on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.simulator.backend import whole_database
from airflow_provider_cdm.simulator.backend.lifecycle import RunLifecycle
from airflow_provider_cdm.simulator.backend.links import Links
from airflow_provider_cdm.simulator.backend.models import Job
from airflow_provider_cdm.simulator.backend.planning import (
    extractors_of,
    is_deleted_after,
    is_disposable,
    transfer_of,
)
from airflow_provider_cdm.simulator.backend.run import Plan, Run
from airflow_provider_cdm.simulator.config.job_config import JobConfig
from airflow_provider_cdm.simulator.config.reader import read
from airflow_provider_cdm.simulator.errors import CdmError
from airflow_provider_cdm.simulator.transfer import jdbc

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.backend.event_queue import EventQueue
    from airflow_provider_cdm.simulator.config.config import (
        ClusterConfig,
        SimulatorConfig,
    )

#: Status of a running cluster. Jobs can be started in this status only.
NORMAL = "200"
STOPPED = "900"
STOPPING = "910"


class Cluster:
    """One cluster. All methods expect that the caller holds the backend's lock.

    :param config: initial state.
    :param project_id: id of the project that it belongs to.
    :param event_queue: queue for the phases of runs and of the cluster.
    :param defaults: configuration of the simulator, for defaults and switches.
    """

    def __init__(
        self,
        config: ClusterConfig,
        project_id: str,
        event_queue: EventQueue,
        defaults: SimulatorConfig,
    ) -> None:
        self.config, self.project_id = config, project_id
        self.id, self.name = config.id, config.name
        self.status: str = config.status
        self.event_queue, self.defaults = event_queue, defaults
        self.behaviour = defaults.behaviour
        self.created = self.updated = event_queue.now()
        self.draining = False
        self.links = Links(event_queue, defaults)
        self.jobs: dict[str, Job] = {}
        #: All submissions, including those of jobs that have been deleted.
        self.lifecycles: list[RunLifecycle] = []
        self._job_count = 0
        for link in config.links:
            self.links.put_configured(link)
        for job in config.jobs:
            self.put_job(job, user=job.user)

    # Jobs

    def users_of(self, link_name: str) -> list[str]:
        """Return the names of the jobs that use a link.

        :param link_name: name of the link.
        """
        return [
            job.name
            for job in self.jobs.values()
            if link_name in {job.config.to_wire().get(f"{end}-link-name") for end in ("from", "to")}
        ]

    def put_job(self, config: JobConfig, user: str) -> Job:
        """Add a job, or change the configuration of the job with the same name.

        :param config: configuration of the job.
        :param user: name of the user who adds it.
        """
        now = self.event_queue.now()
        job = self.jobs.get(config.name)
        if job is None:
            self._job_count += 1
            job = Job(self._job_count, config, user, created=now, updated=now)
            self.jobs[config.name] = job
        else:
            job.config, job.updated = config, now
        return job

    def change_job(self, name: str, changes: Mapping[str, Any]) -> Job:
        """Change some settings of a job, for example to remove the cause of a failure, or add it.

        :param name: name of the job.
        :param changes: new values by configuration key.
        :raises ConfigError: if they are not valid.
        """
        job = self.jobs.get(name)
        changes = {key.rstrip("_"): value for key, value in changes.items()}
        if job is None:
            config = read(JobConfig, {**changes, "name": name}, f"job {name}")
            return self.put_job(config, "console")
        config = job.config.with_changes(changes)
        if "outcome" in changes or "outcomes" in changes:
            job.outcomes_from = len(job.lifecycles)
        return self.put_job(config, job.user)

    def replace_wire(self, job: Job, wire: Mapping[str, Any]) -> None:
        """Replace the job object, as an update call does; the course of its runs is kept.

        :param job: job to change.
        :param wire: new job object (JSON); its name is ignored (ASSUMED).
        """
        type_ = wire.get("job_type", job.config.type)
        self.put_job(replace(job.config, wire=wire, from_=None, to=None, type=type_), job.user)

    def job(self, name: str, code: str, status: str | None = None) -> Job:
        """Return a job.

        :param name: name of the job.
        :param code: error code if it does not exist; job actions and job queries have different
            codes.
        :param status: HTTP status if it does not exist; default the configured one.
        :raises CdmError: if the job does not exist.
        """
        job = self.jobs.get(name)
        if job is None:
            http_status = int(status or self.behaviour.not_found_status)
            raise CdmError(http_status, code, f"Job[{name}] doesn't exist.")
        return job

    # Submissions

    def start(
        self, name: str, variables: Mapping[str, str], user: str, auto: bool = False
    ) -> RunLifecycle:
        """Start a job.

        :param name: name of the job.
        :param variables: variables of the run.
        :param user: name of the user who starts it.
        :param auto: whether CDM's own scheduler starts it.
        :raises CdmError: if the state of the cluster, the job or a link does not allow it.
        """
        self.require_status(NORMAL)
        job = self.job(name, "Cdm.0054")
        self._check_startable(job)
        lifecycle = self.launch(job, variables, user, auto)
        # The response shows whether the databases can be reached, unless they take long.
        self.event_queue.wait_until(lambda: not lifecycle.busy)
        return lifecycle

    def launch(
        self,
        job: Job,
        variables: Mapping[str, str],
        user: str,
        auto: bool = False,
        part_of: whole_database.Tables | None = None,
    ) -> RunLifecycle:
        """Begin a run without checking whether the job can be started.

        :param job: job to run.
        :param variables: variables of the run.
        :param user: name of the user who starts it.
        :param auto: whether CDM's own scheduler starts it.
        :param part_of: tables of the whole-database run that this run belongs to.
        """
        now, number = self.event_queue.now(), len(self.lifecycles) + 1
        run = Run(number, self.id, job.name, dict(variables), user, auto, now, now)
        run.disposable = is_disposable(job.config)
        plan = self._plan(job, variables)
        if part_of is not None:
            run.part_of, plan = part_of.submission_id, replace(plan, on_end=part_of.on_run_end)
        lifecycle = RunLifecycle(run, plan, self.event_queue, self.behaviour)
        job.lifecycles.append(lifecycle)
        self.lifecycles.append(lifecycle)
        lifecycle.begin()
        return lifecycle

    def stop(self, name: str) -> RunLifecycle:
        """Request that the active run of a job stops.

        :param name: name of the job.
        :raises CdmError: if the job does not exist or none of its runs can be stopped.
        """
        last = self.job(name, "Cdm.0054").last
        pending = last is not None and last.run.status == "PENDING"
        if last is None or not last.run.active or (pending and not self.behaviour.stop_pending):
            raise self._conflict("Cdm.0053", f"Job {name} is not running")
        last.request_stop()
        return last

    def fail_active_runs(self, reason: str) -> None:
        """Fail all active runs.

        :param reason: error summary of the runs.
        """
        for lifecycle in self.lifecycles:
            lifecycle.kill(reason)

    def _check_startable(self, job: Job) -> None:
        if not job.config.enabled:
            raise self._conflict("Cdm.0059", f"Job {job.name} is disabled")
        wire = job.config.to_wire()
        for end in ("from", "to"):
            link = self.links.get(str(wire.get(f"{end}-link-name")))
            if link is not None and not link.enabled:
                raise self._conflict("Cdm.0060", f"Link {link.name} is disabled")
        if job.active:
            raise self._conflict("Cdm.0052", f"Job {job.name} is running")

    def _conflict(self, code: str, message: str) -> CdmError:
        return CdmError(int(self.behaviour.conflict_status), code, message)

    def _plan(self, job: Job, variables: Mapping[str, str]) -> Plan:
        used = variables if self.behaviour.variables == "used" else {}
        values = {**self.config.variables, **used}  # ASSUMED: the variables of the run win

        def transfer(job: Job) -> jdbc.Transfer | None:
            now = self.event_queue.now()
            return transfer_of(job.config, self.links, values, now, self.behaviour)

        tables = None
        if whole_database.has_tables(job.config, lambda: transfer(job)):
            tables = whole_database.Tables(self, job, variables, transfer)
        return Plan(
            seconds=job.config.seconds or self.defaults.seconds,
            outcome=job.config.outcome_of(len(job.lifecycles) - job.outcomes_from),
            script=job.config.statuses,
            prepare=lambda: transfer(job),
            on_end=lambda run: self._on_run_end(job, run),
            tables=tables,
            # The runs of its tables occupy extractors.
            extractors=0 if tables else extractors_of(job.config),
            has_room=self._has_room,
            on_room=self._admit_waiting,
        )

    def _has_room(self, extractors: int) -> bool:
        limit = self.config.max_extractors
        used = sum(each.plan.extractors for each in self.lifecycles if each.admitted)
        return limit is None or not used or used + extractors <= limit

    def _admit_waiting(self) -> None:
        """Begin runs that wait, in the order of their starts, as long as there is room."""
        for lifecycle in self.lifecycles:
            if lifecycle.waiting and self._has_room(lifecycle.plan.extractors):
                lifecycle.admit()

    def _on_run_end(self, job: Job, run: Run) -> None:
        if is_deleted_after(job.config, run) and self.jobs.get(job.name) is job:
            whole_database.delete(self.jobs, job, self.behaviour)
        if self.draining:
            self.drain()

    # Status

    def require_status(self, *statuses: str) -> None:
        """Raise an error unless the cluster is in one of some statuses.

        The error of a cluster that is not running is ASSUMED.

        :param statuses: status codes as in the details of the cluster, such as ``200``.
        :raises CdmError: if the cluster is in another status.
        """
        if self.status not in statuses:
            code = self.behaviour.cluster_not_ready_code
            raise CdmError(
                400, code, f"Cluster {self.name} is not available: status {self.status}."
            )

    def drain(self) -> None:
        """Stop the cluster some time after its last active run has ended."""
        self.draining = any(lifecycle.run.active for lifecycle in self.lifecycles)
        if not self.draining:
            self.event_queue.call_later(self.config.seconds.stop, lambda: self.set_status(STOPPED))

    def set_status(self, status: str) -> None:
        """Enter a status.

        :param status: status code as in the details of the cluster.
        """
        self.status, self.updated = status, self.event_queue.now()
