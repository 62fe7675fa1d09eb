"""The tables of a run that moves a whole database, as values: what became of each, and of all.

How they are read is in ``subjobs``, and when, in ``collecting``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from airflow_provider_cdm.client.api.definitions import JOB_TYPES
from airflow_provider_cdm.client.api.job_list import ListedJob
from airflow_provider_cdm.client.submission import Submission, Verdict, read_int, verdict_of

#: Tables that a result names; of the others it says how many they are.
TABLES_SHOWN = 50
#: Characters of a reason.
_REASON_LIMIT = 200
#: Names of tables in one line of text.
_NAMES_SHOWN = 10
#: CDM's names of counters by those that a listing has for them.
_COUNTERS = {
    f"{what}_{done}": f"{what}_{done}".upper()
    for what in ("rows", "files", "bytes")
    for done in ("read", "written")
}


class TableState(Enum):
    """What a table of a run has come to; the order is that of a result."""

    FAILED = "failed"
    RUNNING = "running"
    WAITING = "waiting"
    DONE = "succeeded"
    #: What its sub-job shows is of an earlier run.
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class Table:
    """A table by what is seen of its sub-job.

    :param name: of the source table, as far as the sub-job's name tells.
    :param status: of the sub-job's newest run.
    :param created: when that run was created, epoch milliseconds.
    :param made: when the sub-job was made, epoch milliseconds.
    :param counters: rows, bytes and files by CDM's names, where they apply.
    :param reason: why it failed, one line.
    """

    name: str
    status: str
    created: int | None = None
    sub_job_created: int | None = None
    counters: Mapping[str, int] = field(default_factory=dict)
    reason: str | None = None

    @classmethod
    def of(cls, listed: ListedJob, parent: str) -> Table:
        """Read a sub-job of a listing."""
        counts = ((name, read_int(listed.wire.get(key))) for key, name in _COUNTERS.items())
        return cls(
            listed.name[len(parent) + 1 :],
            listed.status,
            listed.created,
            read_int(listed.wire.get("creation-date")),
            {name: count for name, count in counts if count is not None and count >= 0},
        )

    def with_status(self, run: Submission) -> Table:
        """The same with what the status of its sub-job says."""
        if run.verdict is Verdict.NO_RUN:
            return replace(self, status=run.status, created=None)
        counters = {name: count for name, count in run.counters.items() if count >= 0}
        reason = (run.error_summary or run.error_details or "").strip().partition("\n")[0]
        return replace(
            self,
            status=run.status,
            created=self.created if run.creation_date is None else run.creation_date,
            counters={**self.counters, **counters},
            reason=reason[:_REASON_LIMIT] or None,
        )

    def state(self, since: int | None) -> TableState:
        """Say what has become of it in a run.

        :param since: when the run was created, epoch milliseconds. While that is not known, all
            that shows is taken for its own: an old failure rather than an overlooked one.
        """
        verdict = verdict_of(self.status)
        begun = verdict is not Verdict.NO_RUN and self.status != "NEW"
        if since is not None and begun and self.created is not None:
            begun = self.created >= since
        if not begun:
            old = (
                since is not None
                and self.sub_job_created is not None
                and self.sub_job_created < since
            )
            return TableState.STALE if old else TableState.WAITING
        return {Verdict.SUCCESS: TableState.DONE, Verdict.FAILURE: TableState.FAILED}.get(
            verdict, TableState.RUNNING
        )

    def as_waiting(self) -> Table:
        """The same without what it shows of an earlier run."""
        return replace(self, status="NEW", counters={}, reason=None)

    def to_dict(self) -> dict[str, Any]:
        """Itself as a small JSON object: ``table, status, counters``, and ``reason`` if any."""
        shown = {"table": self.name, "status": self.status, "counters": dict(self.counters)}
        return shown if self.reason is None else {**shown, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class TableReport:
    """The tables of a run.

    :param tables: by state, then by name; without those that are left from earlier runs.
    :param stale: names of those.
    """

    tables: Sequence[tuple[TableState, Table]]
    stale: Sequence[str]

    @classmethod
    def of(cls, tables: Sequence[Table], since: int | None) -> TableReport:
        """Sort tables by what has become of them in a run that was created at an instant."""
        order = list(TableState)
        states = [(table.state(since), table) for table in tables]
        states.sort(key=lambda each: (order.index(each[0]), each[1].name))
        own = [
            (state, table.as_waiting() if state is TableState.WAITING else table)
            for state, table in states
            if state is not TableState.STALE
        ]
        return cls(own, [table.name for state, table in states if state is TableState.STALE])

    def named(self, *states: TableState) -> list[str]:
        """Names of the tables in some states."""
        return [table.name for state, table in self.tables if state in states]

    def progress_line(self) -> str:
        """One line for people who wait."""
        done, failed = self.named(TableState.DONE), self.named(TableState.FAILED)
        parts = [f"{len(done)} of {len(self.tables)} tables done"]
        if running := self.named(TableState.RUNNING):
            parts.append(f"{len(running)} running ({join_names(running)})")
        if failed:
            parts.append(f"{len(failed)} failed ({join_names(failed)})")
        return ", ".join(parts)

    def failure_summary(self) -> str:
        """Which tables did not end well; empty if all did."""
        unfinished = self.named(TableState.RUNNING, TableState.WAITING)
        parts = [
            f"{len(names)} {verb} ({join_names(names)})"
            for names, verb in (
                (self.named(TableState.FAILED), "failed"),
                (unfinished, "did not end"),
            )
            if names
        ]
        return f"of {len(self.tables)} tables {' and '.join(parts)}" if parts else ""

    def totals(self) -> dict[str, int]:
        """Sums of those counters that all tables that are done have."""
        done = [table.counters for state, table in self.tables if state is TableState.DONE]
        shared = set.intersection(*(set(one) for one in done)) if done else set()
        return {name: sum(one[name] for one in done) for name in sorted(shared)}

    def to_dict(self) -> dict[str, Any]:
        """What a task returns of it: a JSON object of bounded size.

        ``total, succeeded, failed, unfinished`` are numbers of tables; ``list`` holds the first of
        them, failed ones first, and ``left_out`` is the number of those that it does not hold.
        """
        done, failed = len(self.named(TableState.DONE)), len(self.named(TableState.FAILED))
        return {
            "total": len(self.tables),
            "succeeded": done,
            "failed": failed,
            "unfinished": len(self.tables) - done - failed,
            "list": [table.to_dict() for _, table in self.tables[:TABLES_SHOWN]],
            "left_out": max(0, len(self.tables) - TABLES_SHOWN),
        }


def job_type_of(definition: Mapping[str, Any] | None) -> str | None:
    """The type that a job's definition names; ``None`` if it names none that is known."""
    found = (definition or {}).get("job_type")
    return found if found in JOB_TYPES else None


def failure_lines(run: Submission) -> list[str]:
    """Lines about the tables that did not end well; none for an ordinary job."""
    shown = (run.tables or {}).get("list", ())
    bad = [one for one in shown if verdict_of(one["status"]) is not Verdict.SUCCESS]
    lines = [
        f"  table {one['table']}: {one['status']}, {one.get('reason', 'no reason is known')}"
        for one in bad[:_NAMES_SHOWN]
    ]
    left = (run.tables or {}).get("failed", 0) + (run.tables or {}).get("unfinished", 0)
    return [*lines, f"  and {left - len(lines)} more"] if left > len(lines) else lines


def join_names(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    left = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {left} more" if left > 0 else "")
