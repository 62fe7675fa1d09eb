"""A run (one submission of a job), and the plan for its course."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.config.job_config import Outcome, Seconds
    from airflow_provider_cdm.simulator.transfer.jdbc import Transfer

#: Final statuses; a run in any other status, known or not, is active.
ENDED = frozenset({"SUCCEEDED", "FAILED", "FAILURE_ON_SUBMIT", "STOPPED"})
#: Scripted status of a run that status and history calls do not show yet.
INVISIBLE = "NEVER_EXECUTED"


@dataclass
class Run:
    """One submission.

    :param auto: whether CDM's own scheduler started it.
    :param created: time of the start call, in seconds since 1970.
    :param updated: time of the last change of status, in seconds since 1970.
    :param executed: time at which it entered RUNNING, in seconds since 1970.
    :param progress: progress from 0 to 1, or -1 after a failure, when it was last updated.
    :param rows_read: number of rows read when it was last updated.
    :param stopping: whether a stop call has been accepted.
    :param disposable: whether its job may be deleted after the run.
    """

    submission_id: int
    cluster_id: str
    job_name: str
    variables: Mapping[str, str]
    user: str
    auto: bool
    created: float
    updated: float
    status: str = "BOOTING"
    executed: float | None = None
    progress: float = 0.0
    rows_read: int = 0
    rows_written: int = 0
    counters: dict[str, int] | None = None
    error_summary: str | None = None
    error_details: str | None = None
    stopping: bool = False
    disposable: bool = False
    #: Submission id of the whole-database run that this run of a sub-job belongs to.
    part_of: int | None = None

    @property
    def active(self) -> bool:
        """Whether the run has not ended."""
        return self.status not in ENDED


class TableRuns(Protocol):
    """What a whole-database run needs of the runs of its tables."""

    @property
    def runs(self) -> Sequence[Run]:
        """The runs of sub-jobs that have been started."""

    def finder(self) -> Callable[[], list[str]]:
        """Return a function that finds the names of the tables, which may block.

        :raises Exception: any, if the job's parameters are not valid.
        """

    def begin(self, run: Run, names: Sequence[str], on_end: Callable[[], None]) -> None:
        """Create the sub-jobs and start the first of them.

        :param run: whole-database run.
        :param names: names of the tables.
        :param on_end: function to call once, when all sub-jobs have ended.
        """

    def stop(self) -> None:
        """Stop the active runs, and start no more."""

    def update_progress(self) -> tuple[float, int, int]:
        """Return the share of tables that have ended, and the rows read and written."""

    def failed(self) -> list[str]:
        """Return the names of the sub-jobs that did not succeed."""


@dataclass(frozen=True)
class Plan:
    """The planned course of a run.

    :param seconds: duration of each phase.
    :param outcome: final status, counters and error texts.
    :param script: statuses for consecutive reads; if given, they replace the clock.
    :param prepare: function that returns the transfer of a database job, or ``None`` for a
        scripted job; it does not block, and may raise any exception.
    :param on_end: function to call once, when the run has ended.
    :param tables: runs of the tables of a whole-database job.
    :param extractors: number of extractors that it occupies in its cluster.
    :param has_room: function that returns whether the cluster has so many left.
    :param on_room: function to call when the run has given its extractors back.
    """

    seconds: Seconds
    outcome: Outcome
    script: tuple[str, ...]
    prepare: Callable[[], Transfer | None]
    on_end: Callable[[Run], None]
    tables: TableRuns | None = None
    extractors: int = 0
    has_room: Callable[[int], bool] = lambda _: True
    on_room: Callable[[], None] = lambda: None
