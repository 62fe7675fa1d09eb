"""A submission's life: from the start call to its end, by the clock or by a script of statuses."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.simulator.transfer.macros import MacroError

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.backend.event_queue import EventQueue
    from airflow_provider_cdm.simulator.backend.whole_database import Tables
    from airflow_provider_cdm.simulator.config.config import Behaviour
    from airflow_provider_cdm.simulator.config.job_config import Outcome, Seconds
    from airflow_provider_cdm.simulator.transfer.jdbc import Rows, Transfer

#: Words after which nothing happens to a run any more; every other word, known or not, is active.
ENDED = frozenset({"SUCCEEDED", "FAILED", "FAILURE_ON_SUBMIT", "STOPPED"})
#: A run that a script shows like this is not visible yet.
INVISIBLE = "NEVER_EXECUTED"


@dataclass
class Run:
    """One submission; instants are seconds since 1970.

    ``rows_read`` and ``progress`` (0 to 1, -1 when failed) are those of the last look.
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
    #: Submission id of the run of a whole database that this one is a part of.
    part_of: int | None = None

    @property
    def active(self) -> bool:
        """Whether something can still happen to it."""
        return self.status not in ENDED


@dataclass(frozen=True)
class Plan:
    """How a run is going to go.

    :param seconds: time in each phase.
    :param outcome: how it ends.
    :param script: statuses that reads see, instead of time.
    :param prepare: gives the transfer of a database job, ``None`` for a scripted one; it may fail.
    :param ended: called once, when the run has ended.
    :param tables: those of a whole-database job.
    """

    seconds: Seconds
    outcome: Outcome
    script: tuple[str, ...]
    prepare: Callable[[], Transfer | None]
    ended: Callable[[Run], None]
    tables: Tables | None = None


@dataclass
class RunLifecycle:
    """Moves one run along its plan; every method expects the simulator's lock to be held."""

    run: Run
    plan: Plan
    event_queue: EventQueue
    behaviour: Behaviour
    _script: list[str] = field(default_factory=list)
    _transfer: Transfer | None = None
    _cannot_prepare: Exception | None = None
    _rows: Rows | None = None

    def begin(self) -> None:
        """Submit: plan the phases, or fail at once.

        The answer to the start call shows BOOTING (PENDING when the plan has such a phase) even if
        no time is planned at all: that is what all samples show.
        """
        run, seconds, outcome = self.run, self.plan.seconds, self.plan.outcome
        if outcome.outcome == "FAILURE_ON_SUBMIT":
            self._fail("FAILURE_ON_SUBMIT", outcome.error_summary or "Job could not be submitted.")
            run.error_details = outcome.error_details or run.error_details
            return
        try:
            self._transfer = self.plan.prepare()
            if self._transfer is not None:
                self._transfer.check()
        except MacroError as exc:
            self._cannot_prepare = exc  # ASSUMED to show when the run starts working
        except Exception as exc:  # a driver may raise anything, the run reports it
            self._fail("FAILURE_ON_SUBMIT", f"Cannot connect: {_first_line(exc)}", exc)
            return
        self._script = list(self.plan.script)
        if self._script:
            return
        run.status = "PENDING" if seconds.pending else "BOOTING"
        self.event_queue.call_later(seconds.pending, self._boot)

    def update_progress(self) -> None:
        """Bring ``progress`` and ``rows_read`` up to the present instant."""
        run = self.run
        if run.status != "RUNNING" or run.executed is None:
            return
        if self.plan.tables is not None:
            run.progress, run.rows_read, run.rows_written = self.plan.tables.update_progress()
            return
        whole = self.plan.seconds.running
        share = (self.event_queue.now() - run.executed) / whole if whole and not self._script else 0.0
        run.progress = min(max(share, 0.0), 1.0)
        if self._rows is not None:
            run.rows_read = int(len(self._rows.values) * run.progress)

    def advance_script(self) -> None:
        """Count a status or history call: a scripted run takes its next status."""
        if self._script and self.run.active:
            word = self._script[0] if len(self._script) == 1 else self._script.pop(0)
            self._enter(word)

    def request_stop(self) -> None:
        """Accept a stop: the run goes on for a while (in a script, for one more read)."""
        self.run.stopping = True
        if self.plan.tables is not None:
            self.plan.tables.stop()
        if self._script:
            self._script = [self.run.status, self.behaviour.stop_status]
        else:
            self.event_queue.call_later(self.behaviour.stop_seconds, self._stop)

    def kill(self, reason: str) -> None:
        """Fail the run now, as a stopping cluster does.

        :param reason: becomes the error summary.
        """
        if self.run.active:
            self._script = []
            self._fail("FAILED", reason)

    def _boot(self) -> None:
        if self.run.active:
            self._enter("BOOTING")
            self.event_queue.call_later(self.plan.seconds.booting, self._work)

    def _work(self) -> None:
        if not self.run.active:
            return
        self._enter("RUNNING")
        tables = self.plan.tables
        if tables is not None:
            self._run_step(lambda: tables.begin(self.run, self._conclude_tables))
        elif self._run_step(self._read):
            self.event_queue.call_later(self.plan.seconds.running, self._conclude)

    def _conclude(self) -> None:
        if self.run.active and not self.run.stopping:
            self._enter(self.plan.outcome.outcome)

    def _conclude_tables(self) -> None:
        tables = self.plan.tables
        if tables is None:
            return
        self.update_progress()
        failed, count = tables.failed(), len(tables.lifecycles)
        partial = 0 < len(failed) < count
        if failed and not (partial and self.behaviour.partial_status == "SUCCEEDED"):
            self._fail("FAILED", f"{len(failed)} of {count} sub-jobs failed: {failed[0]} first.")
        else:
            self._conclude()

    def _stop(self) -> None:
        if self.run.active:
            self._enter(self.behaviour.stop_status)

    def _enter(self, word: str) -> None:
        """Let the run be in a status, with everything that belongs to it."""
        run, outcome = self.run, self.plan.outcome
        if word == "SUCCEEDED":
            if self._run_step(self._deliver):
                self._succeed()
        elif word in ENDED:
            summary, details = outcome.error_summary, outcome.error_details
            if run.stopping:
                summary, details = "Job Failed with status:KILLED", None
            self._fail(word, summary or f"Job ended in {word}.")
            run.error_details = details or run.error_details
            if word == "STOPPED":  # texts belong to failures only
                run.error_summary = run.error_details = None
        else:
            if word == "RUNNING" and run.executed is None:
                run.executed = self.event_queue.now()
            if word != run.status:
                run.status, run.updated = word, self.event_queue.now()

    def _read(self) -> None:
        if self._cannot_prepare is not None:
            raise self._cannot_prepare
        if self._transfer is not None:
            self._rows = self._transfer.read()

    def _deliver(self) -> None:
        """Write what was read; a run with a script of statuses reads only now."""
        if self._rows is None:
            self._read()
        if self._transfer is not None and self._rows is not None:
            self._transfer.write(self._rows)
            self.run.rows_read = self.run.rows_written = len(self._rows.values)

    def _run_step(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except Exception as exc:  # whatever a database says, the run reports it
            self._fail("FAILED", _first_line(exc), exc)
            return False
        return True

    def _succeed(self) -> None:
        run = self.run
        rows = {"ROWS_READ": run.rows_read, "ROWS_WRITTEN": run.rows_written}
        counters = {**_NO_COUNTERS, **rows, **self.plan.outcome.counters}
        run.rows_read, run.rows_written = counters["ROWS_READ"], counters["ROWS_WRITTEN"]
        if self.plan.tables is None or self.behaviour.whole_counters == "sum":
            run.counters = counters
        self._end("SUCCEEDED", 1.0)

    def _fail(self, status: str, summary: str, cause: Exception | None = None) -> None:
        run = self.run
        run.error_summary = summary
        # CDM shows a stack trace; ours is a real one, or says that there is none.
        run.error_details = (
            "\n".join(_stack_trace(cause)) if cause else f"{summary} (no stack trace)"
        )
        self._end(status, -1.0)

    def _end(self, status: str, progress: float) -> None:
        run = self.run
        run.status, run.progress, run.updated = status, progress, self.event_queue.now()
        self._rows = None
        self.plan.ended(run)


def _stack_trace(cause: BaseException) -> Iterator[str]:
    """Yield the lines of a stack trace in the form of CDM's, which is Java's: no paths of files."""
    yield "".join(traceback.format_exception_only(cause)).rstrip()
    for frame, line in reversed(list(traceback.walk_tb(cause.__traceback__))):
        yield f"\tat {frame.f_globals.get('__name__')}.{frame.f_code.co_name}(:{line})"
    if cause.__cause__ is not None:
        first, *others = _stack_trace(cause.__cause__)
        yield from (f"Caused by: {first}", *others)


#: Counters of a run between databases: -1 is "does not apply" (captured answers).
_NO_COUNTERS: dict[str, int] = {
    "BYTES_WRITTEN": -1,
    "TOTAL_FILES": -1,
    "ROWS_READ": 0,
    "BYTES_READ": -1,
    "ROWS_WRITTEN": 0,
    "FILES_WRITTEN": -1,
    "FILES_READ": -1,
    "TOTAL_SIZE": -1,
    "FILES_SKIPPED": -1,
    "ROWS_WRITTEN_SKIPPED": 0,
}


def _first_line(exc: BaseException) -> str:
    return str(exc).partition("\n")[0] or type(exc).__name__


def wire_counters(run: Run) -> dict[str, Any] | None:
    """Return the counters under the group name they have on the wire.

    :param run: any run.
    """
    if run.counters is None:
        return None
    return {"org.apache.sqoop.submission.counter.SqoopCounters": dict(run.counters)}
