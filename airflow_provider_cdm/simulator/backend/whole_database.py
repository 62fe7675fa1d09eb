"""Whole databases: each run of such a job moves every table by a sub-job of its own.

Documented: sub-jobs are made when the run begins to work, one for each table, and anew in each run;
they are called ``<job>_<source table>``; a number of them run at once; target tables have the names
of the source's; they have a status of their own. What else they do is ASSUMED.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.simulator.backend.models import Job
from airflow_provider_cdm.simulator.config.job_config import (
    JobConfig,
    Outcome,
    TableConfig,
    inputs_of,
    with_inputs,
)
from airflow_provider_cdm.simulator.transfer import jdbc

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.backend.cluster import Cluster
    from airflow_provider_cdm.simulator.backend.run import RunLifecycle, Run
    from airflow_provider_cdm.simulator.config.config import Behaviour

TYPE = "BATCH_JOB"


def has_tables(config: JobConfig, transfer: Callable[[], jdbc.Transfer | None]) -> bool:
    """Whether runs of a job have tables: known from databases, or from its configuration.

    :param config: the job.
    :param transfer: what its runs move, ``None`` without databases; may fail.
    """
    if config.type != TYPE or config.statuses:
        return False
    try:
        return bool(config.tables) or transfer() is not None
    except Exception:  # the run will report it
        return True


class Tables:
    """The tables of one run; every method expects the simulator's lock to be held.

    :param cluster: where it runs.
    :param job: the whole-database job.
    :param variables: values for the run.
    :param prepare: gives what a job moves; it may fail.
    """

    def __init__(
        self,
        cluster: Cluster,
        job: Job,
        variables: Mapping[str, str],
        prepare: Callable[[Job], jdbc.Transfer | None],
    ) -> None:
        self._cluster, self._job, self._variables = cluster, job, variables
        self._prepare = prepare
        self._waiting: deque[Job] = deque()
        self.lifecycles: list[RunLifecycle] = []
        self._total = 0
        self._run: Run | None = None
        self._conclude: Callable[[], None] = lambda: None

    @property
    def number(self) -> int | None:
        """Submission id of the run that they are part of, once it works."""
        return self._run.submission_id if self._run else None

    def check(self) -> None:
        """Connect to both databases.

        :raises sqlalchemy.exc.SQLAlchemyError: when one cannot be reached.
        """
        if (transfer := self._prepare(self._job)) is not None:
            transfer.check()

    def begin(self, run: Run, conclude: Callable[[], None]) -> None:
        """Make the sub-jobs, and start the first of them.

        :param run: the run that they are part of.
        :param conclude: called once, when the last of them has ended.
        """
        self._run, self._conclude = run, conclude
        self._waiting = deque([self._recreate(name) for name in self._names()])
        self._total = len(self._waiting)
        self._start_next()

    def stop(self) -> None:
        """Stop what runs, and start no more."""
        self._waiting.clear()
        for lifecycle in self.lifecycles:
            if lifecycle.run.active:
                lifecycle.request_stop()

    def update_progress(self) -> tuple[float, int, int]:
        """Return the share of tables that are over, and the rows read and written."""
        for lifecycle in self.lifecycles:
            lifecycle.update_progress()
        runs = [lifecycle.run for lifecycle in self.lifecycles]
        over = sum(not run.active for run in runs)
        return (
            over / self._total if self._total else 0.0,
            sum(run.rows_read for run in runs),
            sum(run.rows_written for run in runs),
        )

    def failed(self) -> list[str]:
        """Return the names of the sub-jobs that did not end well."""
        return [lifecycle.run.job_name for lifecycle in self.lifecycles if lifecycle.run.status != "SUCCEEDED"]

    def _start_next(self) -> None:
        run = self._run
        if run is None or not run.active or run.stopping:
            return
        while self._waiting and self._active() < self._max_active():
            lifecycle = self._cluster.launch(
                self._waiting.popleft(), self._variables, run.user, run.auto, part_of=self
            )
            self.lifecycles.append(lifecycle)
        if not self._waiting and not self._active():
            self._conclude()

    def ended(self, _run: Run) -> None:
        """Take note that the run of a sub-job has ended."""
        # Not at once: of a thousand that fail at once each would be a call within a call.
        self._cluster.event_queue.call_later(0, self._start_next)

    def _active(self) -> int:
        return sum(lifecycle.run.active for lifecycle in self.lifecycles)

    def _max_active(self) -> int:
        given = inputs_of(self._job.config.to_wire(), "driver-config-values")
        text = given.get("throttlingConfig.concurrentSubJobs", "")
        return max(1, int(text)) if text.isdecimal() else self._job.config.tables_at_once

    def _names(self) -> list[str]:
        """The tables of the source that the job's patterns mean, ``&`` between two of them.

        In which input CDM keeps the chosen tables is ASSUMED.
        """
        transfer = self._prepare(self._job)
        if transfer is None:
            return [table.name for table in self._job.config.tables]
        patterns = transfer.parameters.get("fromJobConfig.tableName", "").split("&")
        wanted = [pattern.strip() for pattern in patterns if pattern.strip()] or ["*"]
        found = transfer.tables()
        named = [name for name in wanted if "*" not in name and name not in found]
        return [n for n in found if any(fnmatchcase(n, each) for each in wanted)] + named

    def _recreate(self, table: str) -> Job:
        cluster, parent = self._cluster, self._job
        config = _sub_job(parent.config, table)
        old = cluster.jobs.pop(config.name, None)
        if old is not None and old.part_of != parent.name:
            cluster.jobs[config.name] = old
            raise ValueError(f"Job name {config.name} exists or was created by another user.")
        made = cluster.put_job(config, parent.user)
        made.part_of = parent.name
        if old is not None and cluster.behaviour.sub_job_history == "kept":
            made.lifecycles, made.outcomes_from = old.lifecycles, len(old.lifecycles)
        return made


def sub_jobs(jobs: Mapping[str, Job], parent: str) -> Iterator[Job]:
    """Yield the sub-jobs that a job has now.

    :param jobs: all jobs of the cluster.
    :param parent: name of the job.
    """
    return (job for job in jobs.values() if job.part_of == parent)


def delete(jobs: dict[str, Job], job: Job, behaviour: Behaviour) -> None:
    """Delete a job, and maybe its sub-jobs along with it.

    :param jobs: all jobs of the cluster.
    :param job: the job.
    :param behaviour: says what becomes of the sub-jobs.
    """
    del jobs[job.name]
    if behaviour.sub_jobs_of_deleted == "deleted":
        for each in list(sub_jobs(jobs, job.name)):
            del jobs[each.name]


def count_statuses(jobs: Mapping[str, Job], parent: str) -> dict[str, int]:
    """Return how many sub-jobs of a job are in which status.

    :param jobs: all jobs of the cluster.
    :param parent: name of the job.
    """
    words = (job.last.run.status if job.last else "NEW" for job in sub_jobs(jobs, parent))
    return dict(sorted(Counter(words).items()))


def _sub_job(parent: JobConfig, table: str) -> JobConfig:
    outcomes: dict[str, Outcome] = {each.name: each for each in parent.tables}
    outcome = outcomes.get(table, TableConfig(name=table))
    wire: dict[str, Any] = replace(parent, tables=()).to_wire()
    wire["job_type"] = "NORMAL_JOB"
    for service in ("from", "to"):
        wire[f"{service}-config-values"] = with_inputs(
            wire.get(f"{service}-config-values"), {f"{service}JobConfig.tableName": table}
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
