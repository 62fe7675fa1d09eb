"""Clusters with their links, jobs and submissions, and what can be done to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.simulator.backend import whole_database
from airflow_provider_cdm.simulator.backend.models import Job, Link
from airflow_provider_cdm.simulator.backend.run import RunLifecycle, Plan, Run
from airflow_provider_cdm.simulator.config.config import time_zone
from airflow_provider_cdm.simulator.config.job_config import JDBC, JobConfig, inputs_of
from airflow_provider_cdm.simulator.config.reader import read
from airflow_provider_cdm.simulator.errors import CdmError
from airflow_provider_cdm.simulator.transfer import jdbc
from airflow_provider_cdm.simulator.transfer.macros import fill

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.backend.event_queue import EventQueue
    from airflow_provider_cdm.simulator.config.config import (
        ClusterConfig,
        LinkConfig,
        SimulatorConfig,
    )

#: Status of a cluster on which jobs run; every other one is a reason to refuse.
NORMAL = "200"
STOPPING = "910"


class Cluster:
    """One cluster. Every method expects the simulator's lock to be held.

    :param config: how it begins.
    :param project_id: the project it belongs to.
    :param event_queue: where runs plan their phases.
    :param defaults: the simulator configuration, for defaults and switches.
    """

    def __init__(
        self, config: ClusterConfig, project_id: str, event_queue: EventQueue, defaults: SimulatorConfig
    ) -> None:
        self.config, self.project_id = config, project_id
        self.id, self.name = config.id, config.name
        self.status: str = config.status
        self.event_queue, self.defaults, self.behaviour = event_queue, defaults, defaults.behaviour
        self.created = self.updated = event_queue.now()
        self.draining = False
        self.links: dict[str, Link] = {}
        self.jobs: dict[str, Job] = {}
        #: All submissions there ever were, also of jobs that are gone.
        self.lifecycles: list[RunLifecycle] = []
        self._numbers = 0
        for link in config.links:
            self.put_configured_link(link)
        for job in config.jobs:
            self.put_job(job, user=job.user)

    # Links

    def put_link(
        self, wire: dict[str, Any], user: str, url: str | None = None, enabled: bool = True
    ) -> Link:
        """Add a link or replace the one of that name.

        :param wire: link object as on the wire.
        :param user: who does it.
        :param url: its database; default what ``databases`` says for the name.
        :param enabled: a disabled link keeps its jobs from starting.
        """
        name, now = wire["name"], self.event_queue.now()
        old = self.links.get(name)
        url = self.url_of(name, url or (old.url if old else None))
        link = Link(name, wire, url, user, old.created if old else now, now, enabled)
        self.links[name] = link
        return link

    def put_configured_link(self, link: LinkConfig) -> None:
        """Add a link as a configuration describes it.

        :param link: the description.
        """
        wire = {"name": link.name, "connector-name": link.connector, "link-config-values": {}}
        self.put_link(wire, user="console", url=link.url, enabled=link.enabled)

    def url_of(self, link_name: str, url: str | None = None) -> str | None:
        """Return the database URL a link of that name has.

        :param link_name: name of a link that need not exist yet.
        :param url: what takes precedence over the configured ``databases``.
        """
        url = url or self.defaults.databases.get(link_name)
        return jdbc.absolute(url, self.defaults.base) if url else None

    def users_of(self, link_name: str) -> list[str]:
        """Return the names of the jobs that use a link.

        :param link_name: name of the link.
        """
        return [
            job.name
            for job in self.jobs.values()
            if link_name in {job.config.to_wire().get(f"{end}-link-name") for end in ("from", "to")}
        ]

    # Jobs

    def put_job(self, config: JobConfig, user: str) -> Job:
        """Add a job, or give the one of that name another configuration.

        :param config: the job.
        :param user: who does it.
        """
        now = self.event_queue.now()
        job = self.jobs.get(config.name)
        if job is None:
            self._numbers += 1
            job = Job(self._numbers, config, user, created=now, updated=now)
            self.jobs[config.name] = job
        else:
            job.config, job.updated = config, now
        return job

    def change_job(self, name: str, changes: Mapping[str, Any]) -> Job:
        """Change some settings of a job, or add it: the cause of a failure is mended, say.

        :param name: name of the job.
        :param changes: keys of a job's configuration.
        :raises ConfigError: when they are wrong.
        """
        job = self.jobs.get(name)
        given = {key.rstrip("_"): value for key, value in changes.items()}
        if job is None:
            return self.put_job(read(JobConfig, {**given, "name": name}, f"job {name}"), "console")
        if "outcome" in given or "outcomes" in given:
            given.setdefault("outcomes", ())
            job.outcomes_from = len(job.lifecycles)
        if {"from", "to"} & given.keys():
            given.setdefault("wire", None)
        present = {
            each.name.rstrip("_"): getattr(job.config, each.name) for each in fields(JobConfig)
        }
        return self.put_job(read(JobConfig, {**present, **given}, f"job {name}"), job.user)

    def replace_wire(self, job: Job, wire: Mapping[str, Any]) -> None:
        """Take over the object of an update call; how runs go stays as configured.

        :param job: the job to change.
        :param wire: job object as on the wire; its name is ignored (ASSUMED).
        """
        type_ = wire.get("job_type", job.config.type)
        self.put_job(replace(job.config, wire=wire, from_=None, to=None, type=type_), job.user)

    def job(self, name: str, code: str, status: str | None = None) -> Job:
        """Return a job.

        :param name: its name.
        :param code: error code when there is none: job actions and job queries differ.
        :param status: HTTP status of that error, default the configured one.
        :raises CdmError: when there is no such job.
        """
        job = self.jobs.get(name)
        if job is None:
            http = int(status or self.behaviour.not_found_status)
            raise CdmError(http, code, f"Job[{name}] doesn't exist.")
        return job

    def require(self, *statuses: str) -> None:
        """Refuse unless the cluster is in one of some statuses.

        Which error a cluster that is down answers with is ASSUMED.

        :param statuses: two- or three-digit codes as in the cluster's details.
        :raises CdmError: otherwise.
        """
        if self.status not in statuses:
            code = self.behaviour.cluster_not_ready_code
            raise CdmError(
                400, code, f"Cluster {self.name} is not available: status {self.status}."
            )

    # Submissions

    def start(self, name: str, variables: Mapping[str, str], user: str, auto: bool = False) -> RunLifecycle:
        """Start a job.

        :param name: its name.
        :param variables: values for this run.
        :param user: who starts it.
        :param auto: whether CDM's own scheduler does.
        :raises CdmError: when the cluster, the job or a link does not allow it.
        """
        self.require(NORMAL)
        job = self.job(name, "Cdm.0054")
        self._check_startable(job)
        return self.launch(job, variables, user, auto)

    def launch(
        self,
        job: Job,
        variables: Mapping[str, str],
        user: str,
        auto: bool = False,
        part_of: whole_database.Tables | None = None,
    ) -> RunLifecycle:
        """Begin a run, whatever speaks against it.

        :param job: the job.
        :param variables: values for this run.
        :param user: who starts it.
        :param auto: whether CDM's own scheduler does.
        :param part_of: the run of a whole database that it is a part of.
        """
        now = self.event_queue.now()
        run = Run(len(self.lifecycles) + 1, self.id, job.name, dict(variables), user, auto, now, now)
        run.disposable = self._disposable(job) != "NONE"
        used = variables if self.behaviour.variables == "used" else {}
        values = {**self.config.variables, **used}  # ASSUMED: the run's own values win
        outcome = job.config.outcome_of(len(job.lifecycles) - job.outcomes_from)
        tables = None
        if whole_database.has_tables(job.config, lambda: self._transfer(job, values)):
            tables = whole_database.Tables(
                self, job, variables, lambda each: self._transfer(each, values)
            )
        plan = Plan(
            seconds=job.config.seconds or self.defaults.seconds,
            outcome=outcome,
            script=job.config.statuses,
            prepare=lambda: tables.check() if tables else self._transfer(job, values),
            ended=lambda ended: self._ended(job, ended),
            tables=tables,
        )
        if part_of is not None:
            run.part_of, plan = part_of.number, replace(plan, ended=part_of.ended)
        lifecycle = RunLifecycle(run, plan, self.event_queue, self.behaviour)
        job.lifecycles.append(lifecycle)
        self.lifecycles.append(lifecycle)
        lifecycle.begin()
        return lifecycle

    def stop(self, name: str) -> RunLifecycle:
        """Ask the active run of a job to stop.

        :param name: name of the job.
        :raises CdmError: when there is no such job, or none of its runs is active.
        """
        last = self.job(name, "Cdm.0054").last
        queued = last is not None and last.run.status == "PENDING"
        if last is None or not last.run.active or (queued and not self.behaviour.stop_pending):
            raise self._conflict("Cdm.0053", f"Job {name} is not running")
        last.request_stop()
        return last

    def fail_active_runs(self, reason: str) -> None:
        """Fail every active run.

        :param reason: their error summary.
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

    def _transfer(self, job: Job, values: Mapping[str, str]) -> jdbc.Transfer | None:
        """Return what a run of the job moves; ``None`` unless both ends lead to databases."""
        wire = job.config.to_wire()
        urls = []
        for end in ("from", "to"):
            link = self.links.get(str(wire.get(f"{end}-link-name")))
            if wire.get(f"{end}-connector-name") != JDBC or link is None or link.url is None:
                return None
            urls.append(link.url)
        keep = self.behaviour.undefined_variable == "literal"
        at = datetime.fromtimestamp(self.event_queue.now(), time_zone(self.behaviour.timezone))
        typed = {**inputs_of(wire, "from-config-values"), **inputs_of(wire, "to-config-values")}
        filled = {key: fill(text, values, at, keep_undefined=keep) for key, text in typed.items()}
        return jdbc.Transfer(urls[0], urls[1], filled)

    def _disposable(self, job: Job) -> str:
        inputs = inputs_of(job.config.to_wire(), "driver-config-values")
        return inputs.get("schedulerConfig.disposableType") or "NONE"

    def _ended(self, job: Job, run: Run) -> None:
        gone = {"DELETE": True, "DELETE_AFTER_SUCCEED": run.status == "SUCCEEDED"}
        if gone.get(self._disposable(job)) and self.jobs.get(job.name) is job:
            whole_database.delete(self.jobs, job, self.behaviour)
        if self.draining:
            self.drain()

    def drain(self) -> None:
        """Be stopped some time after the last active run has ended."""
        self.draining = any(lifecycle.run.active for lifecycle in self.lifecycles)
        if not self.draining:
            self.event_queue.call_later(self.config.seconds.stop, lambda: self.set_status("900"))

    def set_status(self, status: str) -> None:
        """Enter a status.

        :param status: code as in the cluster's details.
        """
        self.status, self.updated = status, self.event_queue.now()
