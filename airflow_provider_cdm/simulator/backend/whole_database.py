"""Whole-database jobs: each run moves every table with a sub-job of its own.

Documented: a run creates its sub-jobs when it enters RUNNING, one for each table, and every run
creates them again; they are called ``<job>_<source table>``; a limited number of them is active at
a time; target tables have the names of the source tables; sub-jobs have their own status. All other
behavior is ASSUMED.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_cdm.simulator.config.job_config import (
    JobConfig,
    Outcome,
    TableConfig,
    inputs_of,
    with_inputs,
)
from airflow_provider_cdm.simulator.transfer import jdbc

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.backend.event_queue import EventQueue
    from airflow_provider_cdm.simulator.backend.lifecycle import RunLifecycle
    from airflow_provider_cdm.simulator.backend.models import Job
    from airflow_provider_cdm.simulator.backend.run import Run
    from airflow_provider_cdm.simulator.config.behaviour import Behaviour

WHOLE_DATABASE = "BATCH_JOB"


class SubJobHost(Protocol):
    """What the tables of a whole-database run need of their cluster."""

    @property
    def jobs(self) -> dict[str, Job]:
        """All jobs of the cluster by name."""

    @property
    def event_queue(self) -> EventQueue:
        """The queue of future events."""

    @property
    def behaviour(self) -> Behaviour:
        """Switches of the configuration."""

    def put_job(self, config: JobConfig, user: str) -> Job:
        """Add a job.

        :param config: configuration of the job.
        :param user: name of the user who adds it.
        """

    def launch(
        self,
        job: Job,
        variables: Mapping[str, str],
        user: str,
        auto: bool = False,
        part_of: Tables | None = None,
    ) -> RunLifecycle:
        """Begin a run.

        :param job: job to run.
        :param variables: variables of the run.
        :param user: name of the user who starts it.
        :param auto: whether CDM's own scheduler starts it.
        :param part_of: tables of the whole-database run that this run belongs to.
        """


def has_tables(config: JobConfig, transfer: Callable[[], jdbc.Transfer | None]) -> bool:
    """Return whether the runs of a job have sub-jobs for tables.

    The tables are those of a database, or listed in the configuration.

    :param config: configuration of the job.
    :param transfer: function that returns the transfer of its runs, or ``None`` without databases;
        it may raise any exception.
    """
    if config.type != WHOLE_DATABASE or config.statuses:
        return False
    try:
        return bool(config.tables) or transfer() is not None
    except Exception:  # the run reports it
        return True


class Tables:
    """The tables of one run. All methods expect that the caller holds the backend's lock.

    :param cluster: cluster that the job belongs to.
    :param job: whole-database job.
    :param variables: variables of the run.
    :param prepare: function that returns the transfer of a job; it may raise any exception.
    """

    def __init__(
        self,
        cluster: SubJobHost,
        job: Job,
        variables: Mapping[str, str],
        prepare: Callable[[Job], jdbc.Transfer | None],
    ) -> None:
        self._cluster, self._job, self._variables = cluster, job, variables
        self._prepare = prepare
        self._waiting: deque[Job] = deque()
        self._lifecycles: list[RunLifecycle] = []
        self._count = 0
        self._run: Run | None = None
        self._on_end: Callable[[], None] = lambda: None

    @property
    def submission_id(self) -> int | None:
        """Submission id of the whole-database run, once it is RUNNING."""
        return self._run.submission_id if self._run else None

    @property
    def runs(self) -> list[Run]:
        """The runs of sub-jobs that have been started."""
        return [lifecycle.run for lifecycle in self._lifecycles]

    def finder(self) -> Callable[[], list[str]]:
        """Return a function that finds the source tables, which may block.

        The tables are those that match the job's patterns, which are separated by ``&``. It is
        ASSUMED which input of the job contains the chosen tables.

        :raises MacroError: if a placeholder in the job's parameters cannot be replaced.
        """
        transfer = self._prepare(self._job)
        if transfer is None:
            names = [table.name for table in self._job.config.tables]
            return lambda: names
        patterns = transfer.parameters.get("fromJobConfig.tableName", "").split("&")
        chosen = [pattern.strip() for pattern in patterns if pattern.strip()] or ["*"]
        return lambda: _matching(transfer.tables(), chosen)

    def begin(self, run: Run, names: Sequence[str], on_end: Callable[[], None]) -> None:
        """Create the sub-jobs and start the first of them.

        :param run: whole-database run.
        :param names: names of the tables.
        :param on_end: function to call once, when all sub-jobs have ended.
        :raises ValueError: if the name of a sub-job is that of another job.
        """
        self._run, self._on_end = run, on_end
        self._waiting = deque([self._create_sub_job(name) for name in names])
        self._count = len(self._waiting)
        self._start_next()

    def stop(self) -> None:
        """Stop the active runs, and start no more."""
        self._waiting.clear()
        for lifecycle in self._lifecycles:
            if lifecycle.run.active:
                lifecycle.request_stop()

    def update_progress(self) -> tuple[float, int, int]:
        """Return the share of tables that have ended, and the rows read and written."""
        for lifecycle in self._lifecycles:
            lifecycle.update_progress()
        runs = self.runs
        ended = sum(not run.active for run in runs)
        return (
            ended / self._count if self._count else 0.0,
            sum(run.rows_read for run in runs),
            sum(run.rows_written for run in runs),
        )

    def failed(self) -> list[str]:
        """Return the names of the sub-jobs that did not succeed."""
        return [run.job_name for run in self.runs if run.status != "SUCCEEDED"]

    def on_run_end(self, _run: Run) -> None:
        """Handle the end of a sub-job's run."""
        # Not at once: if a thousand sub-jobs failed immediately, the calls would nest too deeply.
        self._cluster.event_queue.call_later(0, self._start_next)

    def _start_next(self) -> None:
        run = self._run
        if run is None or not run.active or run.stopping:
            return
        while self._waiting and self._active_count() < self._max_active():
            job = self._waiting.popleft()
            lifecycle = self._cluster.launch(job, self._variables, run.user, run.auto, part_of=self)
            self._lifecycles.append(lifecycle)
        if not self._waiting and not self._active_count():
            self._on_end()

    def _active_count(self) -> int:
        return sum(run.active for run in self.runs)

    def _max_active(self) -> int:
        inputs = inputs_of(self._job.config.to_wire(), "driver-config-values")
        text = inputs.get("throttlingConfig.concurrentSubJobs", "")
        if text.isascii() and text.isdecimal() and len(text) <= 10:
            return max(1, int(text))
        return self._job.config.tables_at_once

    def _create_sub_job(self, table: str) -> Job:
        cluster, parent = self._cluster, self._job
        config = _sub_job_config(parent.config, table)
        old = cluster.jobs.pop(config.name, None)
        if old is not None and old.part_of != parent.name:
            cluster.jobs[config.name] = old
            raise ValueError(f"Job name {config.name} exists or was created by another user.")
        job = cluster.put_job(config, parent.user)
        job.part_of = parent.name
        if old is not None and cluster.behaviour.sub_job_history == "kept":
            job.lifecycles, job.outcomes_from = old.lifecycles, len(old.lifecycles)
        return job


def _matching(existing: list[str], chosen: list[str]) -> list[str]:
    """Return the tables that match a pattern, and the names without a pattern that do not exist."""
    matching = [name for name in existing if any(fnmatchcase(name, pattern) for pattern in chosen)]
    return matching + [name for name in chosen if "*" not in name and name not in existing]


def sub_jobs(jobs: Mapping[str, Job], parent: str) -> Iterator[Job]:
    """Yield the current sub-jobs of a job.

    :param jobs: all jobs of the cluster by name.
    :param parent: name of the whole-database job.
    """
    return (job for job in jobs.values() if job.part_of == parent)


def delete(jobs: dict[str, Job], job: Job, behaviour: Behaviour) -> None:
    """Delete a job and, depending on a switch, its sub-jobs.

    :param jobs: all jobs of the cluster by name.
    :param job: job to delete.
    :param behaviour: switches of the configuration.
    """
    del jobs[job.name]
    if behaviour.sub_jobs_of_deleted == "deleted":
        for sub_job in list(sub_jobs(jobs, job.name)):
            del jobs[sub_job.name]


def count_statuses(jobs: Mapping[str, Job], parent: str) -> dict[str, int]:
    """Return the number of sub-jobs of a job by their status.

    :param jobs: all jobs of the cluster by name.
    :param parent: name of the whole-database job.
    """
    statuses = (job.last.run.status if job.last else "NEW" for job in sub_jobs(jobs, parent))
    return dict(sorted(Counter(statuses).items()))


def _sub_job_config(parent: JobConfig, table: str) -> JobConfig:
    outcomes: dict[str, Outcome] = {config.name: config for config in parent.tables}
    outcome = outcomes.get(table, TableConfig(name=table))
    wire: dict[str, Any] = replace(parent, tables=()).to_wire()
    wire["job_type"] = "NORMAL_JOB"
    for side in ("from", "to"):
        wire[f"{side}-config-values"] = with_inputs(
            wire.get(f"{side}-config-values"), {f"{side}JobConfig.tableName": table}
        )
    return JobConfig(
        name=f"{parent.name}_{table}",
        wire=wire,
        seconds=parent.seconds,
        outcome=outcome.outcome,
        counters=outcome.counters,
        error_summary=outcome.error_summary,
        error_details=outcome.error_details,
    )
