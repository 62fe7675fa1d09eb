"""The tables of a run of a whole-database job, as values: the outcome of each and of all.

:mod:`~airflow_provider_cdm.client.whole_database.sub_jobs` reads them, and
:mod:`~airflow_provider_cdm.client.whole_database.collect` decides when.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import islice
from typing import Any

from airflow_provider_cdm.client.api.job_list import ListedJob
from airflow_provider_cdm.client.submission import Submission, Verdict, read_int, verdict_of
from airflow_provider_cdm.client.text import LINE_LIMIT, one_line
from airflow_provider_cdm.client.whole_database.look_alikes import ClassifiedJob, Standing

#: Maximum number of tables that a result lists; the others are only counted.
TABLES_SHOWN = 50
#: Maximum length of a reason, in characters.
_REASON_LIMIT = 200
#: Maximum length of a table's name in a result, and number of its counters.
_NAME_LIMIT, _COUNTERS_SHOWN = 256, 16
#: Largest difference between dates of one instant, in milliseconds: some have whole seconds.
DATE_TOLERANCE = 2_000
#: Maximum number of table names in one line of text.
_NAMES_SHOWN = 10
#: Names of counters in the answer of a status call, by their names in a listing.
_COUNTERS = {
    f"{unit}_{verb}": f"{unit}_{verb}".upper()
    for unit in ("rows", "files", "bytes")
    for verb in ("read", "written")
}


class TableState(Enum):
    """The state of a table in a run, in the order in which a result lists them."""

    FAILED = "failed"
    RUNNING = "running"
    WAITING = "waiting"
    DONE = "succeeded"
    #: The job was there before the run of the whole-database job, so it is no sub-job of it.
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class Table:
    """A table, as its sub-job shows it.

    :param name: name of the source table, taken from the name of the sub-job.
    :param status: status of the newest run of the sub-job.
    :param created: time at which that run was created, epoch milliseconds.
    :param sub_job_created: time at which the sub-job was created, epoch milliseconds.
    :param counters: rows, bytes and files by CDM's names, where they apply.
    :param reason: reason of a failure, one line.
    :param doubt: why it is not certain that the job is a sub-job; ``None`` if it is.
    """

    name: str
    status: str
    created: int | None = None
    sub_job_created: int | None = None
    counters: Mapping[str, int] = field(default_factory=dict)
    reason: str | None = None
    doubt: str | None = None

    @classmethod
    def of(cls, listed: ListedJob, parent: str, doubt: str | None = None) -> Table:
        """Return the table of a sub-job in a listing.

        :param parent: name of the whole-database job.
        :param doubt: why it is not certain that the job is a sub-job.
        """
        counts = ((name, read_int(listed.wire.get(key))) for key, name in _COUNTERS.items())
        return cls(
            listed.name[len(parent) + 1 :],
            listed.status,
            listed.created,
            read_int(listed.wire.get("creation-date")),
            {name: count for name, count in counts if count is not None and count >= 0},
            doubt=doubt,
        )

    def with_status(self, run: Submission) -> Table:
        """Return the table with the results of a status call for its sub-job."""
        if run.verdict is Verdict.NO_RUN:
            return replace(self, status=run.status, created=None)
        counters = {name: count for name, count in run.counters.items() if count >= 0}
        reason = (run.error_summary or run.error_details or "").strip().partition("\n")[0]
        return replace(
            self,
            status=run.status,
            created=self.created if run.creation_date is None else run.creation_date,
            counters={**self.counters, **counters},
            reason=one_line(reason, _REASON_LIMIT) or None,
        )

    def state(self, since: int | None) -> TableState:
        """Return the state of the table in a run of the whole-database job.

        :param since: time at which that run was created, epoch milliseconds. If it is not known,
            everything is attributed to that run: reporting an old failure is better than
            overlooking a new one.
        """
        if since is not None and self.sub_job_created is not None and self.sub_job_created < since:
            # Each run makes its sub-jobs anew, whatever this one has done since.
            return TableState.STALE
        if not self.has_run_since(since):
            return TableState.WAITING
        return {Verdict.SUCCESS: TableState.DONE, Verdict.FAILURE: TableState.FAILED}.get(
            verdict_of(self.status), TableState.RUNNING
        )

    def has_run_since(self, since: int | None) -> bool:
        """Return whether its newest run was created at or after an instant, as far as is known.

        :param since: that instant, epoch milliseconds, if it is known.
        """
        if verdict_of(self.status) is Verdict.NO_RUN or self.status == "NEW":
            return False
        return since is None or self.created is None or self.created >= since

    def is_run_after(self, until: int | None) -> bool:
        """Return whether its newest run was created after the whole-database run had ended."""
        return None not in (until, self.created) and (
            (self.created or 0) > (until or 0) + DATE_TOLERANCE
        )

    def as_unknown(self, reason: str) -> Table:
        """Return the table without the results of a later run, and without its own."""
        return replace(self, status="UNKNOWN", counters={}, reason=reason)

    def as_waiting(self) -> Table:
        """Return the table without the results of an earlier run."""
        return replace(self, status="NEW", counters={}, reason=None)

    def to_dict(self) -> dict[str, Any]:
        """Return a small JSON object: ``table, status, counters``, and ``reason, doubt`` if any."""
        texts = {"reason": self.reason, "doubt": self.doubt}
        return {
            "table": one_line(self.name, _NAME_LIMIT),
            "status": self.status,
            "counters": dict(islice(self.counters.items(), _COUNTERS_SHOWN)),
            **{key: one_line(text, 2 * _REASON_LIMIT) for key, text in texts.items() if text},
        }


@dataclass(frozen=True, slots=True)
class TableReport:
    """The tables of a run.

    :param tables: tables and their states, by state, then by name, without those of earlier runs.
    :param stale: names of the tables of earlier runs.
    :param older: those of them that ran since this run was created: probably separate jobs.
    :param missing: names of tables that the definition lists and for which there is no sub-job.
    """

    tables: Sequence[tuple[TableState, Table]]
    stale: Sequence[str]
    older: Sequence[str] = ()
    missing: Sequence[str] = ()

    @classmethod
    def of(cls, tables: Sequence[Table], since: int | None) -> TableReport:
        """Sort tables by their states in a run.

        :param since: time at which the run was created, epoch milliseconds, if it is known.
        """
        order = list(TableState)
        states = [(table.state(since), table) for table in tables]
        states.sort(key=lambda pair: (order.index(pair[0]), pair[1].name))
        own = [
            (state, table.as_waiting() if state is TableState.WAITING else table)
            for state, table in states
            if state is not TableState.STALE
        ]
        stale = [table for state, table in states if state is TableState.STALE]
        older = [table.name for table in stale if since is not None and table.has_run_since(since)]
        return cls(own, [table.name for table in stale], older)

    def names_in(self, *states: TableState) -> list[str]:
        """Return the names of the tables in any of these states."""
        return [table.name for state, table in self.tables if state in states]

    def progress_line(self, name: str) -> str:
        """Return one line about the progress of the tables, with as many names as fit.

        :param name: what the line begins with, such as ``Run 7``.
        """
        lines = (f"{name}: {self._progress(shown)}" for shown in range(_NAMES_SHOWN, -1, -1))
        return (
            next((line for line in lines if len(line) <= LINE_LIMIT), "")
            or (f"{name}: {self._progress(0)}"[:LINE_LIMIT])
        )

    def _progress(self, shown: int) -> str:
        done, failed = self.names_in(TableState.DONE), self.names_in(TableState.FAILED)
        parts = [f"{len(done)} of {len(self.tables)} tables done"]
        for names, verb in ((failed, "failed"), (self.names_in(TableState.RUNNING), "running")):
            if names:
                listed = f" ({join_names(names, shown)})" if shown else ""
                parts.append(f"{len(names)} {verb}{listed}")
        return ", ".join(parts)

    def failure_summary(self) -> str:
        """Return which tables did not succeed, as a part of a sentence; empty if all did."""
        unfinished = self.names_in(TableState.RUNNING, TableState.WAITING)
        parts = [
            f"{len(names)} {verb} ({join_names(names)})"
            for names, verb in (
                (self.names_in(TableState.FAILED), "failed"),
                (unfinished, "did not end"),
            )
            if names
        ]
        return f"of {len(self.tables)} tables {' and '.join(parts)}" if parts else ""

    def doubts(self) -> list[Table]:
        """Return the tables whose jobs may be other jobs."""
        return [table for _, table in self.tables if table.doubt is not None]

    def totals(self) -> dict[str, int]:
        """Return the sums of the counters that all succeeded tables have.

        Doubtful jobs are left out: other people's rows must not reach a threshold of ours.
        """
        done = [
            table.counters
            for state, table in self.tables
            if state is TableState.DONE and table.doubt is None
        ]
        shared = set.intersection(*map(set, done)) if done else set()
        return {name: sum(counters[name] for counters in done) for name in sorted(shared)}

    def to_dict(self) -> dict[str, Any]:
        """Return what a task returns of the tables: a JSON object of limited size.

        ``total, succeeded, failed, unfinished`` are numbers of tables. ``list`` contains the first
        tables, failed ones first, and ``left_out`` is the number of tables that it omits.
        ``missing``, if there are any, contains the first tables that the definition lists and for
        which there is no sub-job.
        """
        done, failed = len(self.names_in(TableState.DONE)), len(self.names_in(TableState.FAILED))
        names = [one_line(name, _NAME_LIMIT) for name in self.missing[:TABLES_SHOWN]]
        missing = {"missing": names} if names else {}
        return {
            "total": len(self.tables),
            "succeeded": done,
            "failed": failed,
            "unfinished": len(self.tables) - done - failed,
            "list": [table.to_dict() for _, table in self.tables[:TABLES_SHOWN]],
            "left_out": max(0, len(self.tables) - TABLES_SHOWN),
            **missing,
        }


def tables_of(classified: Iterable[ClassifiedJob], run: Submission) -> list[Table]:
    """Return the tables of the jobs that are or may be sub-jobs of a run, or of earlier ones."""
    return [
        Table.of(
            each.job, run.job_name, each.reason if each.standing is Standing.DOUBTFUL else None
        )
        for each in classified
        if each.standing is not Standing.OTHER
    ]


def failure_lines(run: Submission) -> list[str]:
    """Return lines about the tables that did not succeed; none for an ordinary job."""
    tables = run.tables or {}
    bad = [
        table
        for table in tables.get("list", ())
        if verdict_of(table["status"]) is not Verdict.SUCCESS
    ]
    lines = [
        f"  table {join_names([table['table']])}: {table['status']},"
        f" {table.get('reason', 'no reason is known')}"
        + (f" (doubtful: {table['doubt']})" if table.get("doubt") else "")
        for table in bad[:_NAMES_SHOWN]
    ]
    count = tables.get("failed", 0) + tables.get("unfinished", 0)
    return [*lines, f"  and {count - len(lines)} more"] if count > len(lines) else lines


def join_names(names: Sequence[str], shown: int = _NAMES_SHOWN) -> str:
    """Return the first names as text, and how many more there are."""
    hidden = len(names) - shown
    texts = (one_line(name, _REASON_LIMIT) for name in names[:shown])
    return ", ".join(texts) + (f" and {hidden} more" if hidden > 0 else "")
