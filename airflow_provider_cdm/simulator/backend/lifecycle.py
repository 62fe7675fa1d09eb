"""The lifecycle of a run, from the start call to its end, by the clock or by scripted statuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, cast

from airflow_provider_cdm.date_macros import MacroError
from airflow_provider_cdm.simulator.backend.run import ENDED, Plan, Run
from airflow_provider_cdm.simulator.backend.run_errors import first_line, stack_trace

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.backend.event_queue import EventQueue, Result
    from airflow_provider_cdm.simulator.backend.run import TableRuns
    from airflow_provider_cdm.simulator.config.behaviour import Behaviour
    from airflow_provider_cdm.simulator.transfer.jdbc import Rows, Transfer

T = TypeVar("T")

#: Counters of a run between databases; -1 means "does not apply" (captured responses).
_DEFAULT_COUNTERS: dict[str, int] = {
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


@dataclass
class RunLifecycle:
    """Advances one run according to its plan.

    All methods expect that the caller holds the backend's lock. What databases do happens without
    it: the run keeps its status until it is done.
    """

    run: Run
    plan: Plan
    event_queue: EventQueue
    behaviour: Behaviour
    #: Whether a database works for this run.
    busy: bool = False
    #: Whether the rows are being committed, so that the run can no longer be stopped.
    committing: bool = False
    #: Whether it waits since the cluster is full, and whether it occupies its extractors.
    waiting: bool = False
    admitted: bool = False
    _script: list[str] = field(default_factory=list)
    _transfer: Transfer | None = None
    #: Seconds by which the run was slowed down, and those of them that it has yet to take.
    _slowed: float = 0.0
    _postponed: float = 0.0
    _prepare_error: Exception | None = None
    _rows: Rows | None = None
    _abandoned: bool = False

    def begin(self) -> None:
        """Submit the run: check its databases, and schedule its first phase, or fail at once.

        The response to the start call shows BOOTING (or PENDING if the plan has this phase) even if
        all phases take no time, since all samples show one of these statuses.
        """
        run, outcome = self.run, self.plan.outcome
        if outcome.outcome == "FAILURE_ON_SUBMIT":
            self._fail("FAILURE_ON_SUBMIT", outcome.error_summary or "Job could not be submitted.")
            run.error_details = outcome.error_details or run.error_details
            return
        self._script = list(self.plan.script)
        run.status = "PENDING" if self.plan.seconds.pending and not self._script else "BOOTING"
        transfer: Transfer | None = None
        try:
            transfer = self.plan.prepare()
        except MacroError as exc:
            self._prepare_error = exc  # ASSUMED: it is reported when the run enters RUNNING
        except Exception as exc:
            self._fail_on_submit(exc)
            return
        if transfer is None:
            self._submitted()
            return
        if self.plan.tables is None:
            self._transfer = transfer
        self._work(transfer.check, lambda _: self._submitted(), self._fail_on_submit)

    @property
    def rows_total(self) -> int | None:
        """Number of rows that the run reads, once it is known."""
        if self._rows is not None:
            return len(self._rows.values)
        return self.plan.outcome.counters.get("ROWS_READ")

    def update_progress(self) -> None:
        """Update ``progress`` and ``rows_read`` to the current time."""
        run = self.run
        if run.status != "RUNNING" or run.executed is None:
            return
        if self.plan.tables is not None:
            run.progress, run.rows_read, run.rows_written = self.plan.tables.update_progress()
            return
        duration = 0.0 if self._script else self.plan.seconds.running + self._slowed
        share = (self.event_queue.now() - run.executed) / duration if duration else 0.0
        run.progress = min(max(share, 0.0), 1.0)
        if self._rows is not None:
            run.rows_read = int(len(self._rows.values) * run.progress)

    def advance_script(self) -> bool:
        """Enter the next scripted status, if any; called for each status or history call.

        :returns: whether a database has to work first, so that the run keeps its status until then.
        """
        if not self._script or not self.run.active or self.busy:
            return False
        status = self._script[0] if len(self._script) == 1 else self._script.pop(0)
        self._enter(status)
        return self.busy

    def request_stop(self) -> None:
        """Accept a stop call; the run ends some time (with a script, one read) later."""
        self.run.stopping = True
        if self.plan.tables is not None:
            self.plan.tables.stop()
        if self._script:
            self._script = [self.run.status, self.behaviour.stop_status]
        else:
            self.event_queue.call_later(self.behaviour.stop_seconds, self._stop)

    def kill(self, reason: str) -> None:
        """Fail the run at once, as the stop of its cluster does.

        :param reason: error summary of the run.
        """
        if self.run.active:
            self._script = []
            if not self.committing:
                self._fail("FAILED", reason)

    def abandon(self) -> None:
        """Commit no rows from now on: the simulator is reset, or stops."""
        self._abandoned = True

    def _submitted(self) -> None:
        if not self._script and self.run.active:
            if not self.plan.has_room(self.plan.extractors):
                # A change of the status alone: the run is not executed yet.
                self.waiting, self.run.status = True, self.behaviour.full_cluster
                return
            self.admitted = True
            pending = self.plan.seconds.pending
            self.event_queue.call_at(self.run.created + pending, self._start_booting)

    def admit(self) -> None:
        """Begin a run that has waited for room in the cluster."""
        self.waiting, self.admitted = False, True
        if self.run.status == "RUNNING":
            self.event_queue.call_later(self.plan.seconds.booting, self._start_running)
        else:
            self._start_booting()

    def _fail_on_submit(self, exc: Exception) -> None:
        self._fail("FAILURE_ON_SUBMIT", f"Cannot connect: {first_line(exc)}", exc)

    def slow_down(self, seconds: float) -> bool:
        """Let the run take longer; return whether it can, since scripted statuses take no time.

        :param seconds: time that the run is RUNNING in addition.
        """
        if self._script or not self.run.active:
            return False
        self._slowed += seconds
        self._postponed += seconds
        return True

    def _start_booting(self) -> None:
        if self.run.active:
            self._enter("BOOTING")
            self.event_queue.call_later(self.plan.seconds.booting, self._start_running)

    def _start_running(self) -> None:
        if not self.run.active:
            return
        self._enter("RUNNING")
        tables = self.plan.tables
        if self._prepare_error is not None:
            self._fail_with(self._prepare_error)
        elif tables is not None:
            self._begin_tables(tables)
        elif self._transfer is not None:
            self._work(self._transfer.read, self._on_read)
        else:
            self.event_queue.call_later(self.plan.seconds.running, self._finish)

    def _begin_tables(self, tables: TableRuns) -> None:
        def begin(names: list[str]) -> None:
            if self.run.stopping:
                return
            try:
                tables.begin(self.run, names, self._finish_tables)
            except Exception as exc:
                self._fail_with(exc)

        try:
            find = tables.finder()
        except Exception as exc:
            self._fail_with(exc)
            return
        self._work(find, begin)

    def _on_read(self, rows: Rows) -> None:
        self._rows = rows
        executed = self.event_queue.now() if self.run.executed is None else self.run.executed
        self.event_queue.call_at(executed + self.plan.seconds.running, self._finish)

    def _finish(self) -> None:
        if self._postponed:
            seconds, self._postponed = self._postponed, 0.0
            self.event_queue.call_later(seconds, self._finish)
            return
        if self.run.active and not self.run.stopping:
            self._enter(self.plan.outcome.outcome)

    def _finish_tables(self) -> None:
        tables = self.plan.tables
        if tables is None:
            return
        self.update_progress()
        failed, count = tables.failed(), len(tables.runs)
        partial = 0 < len(failed) < count
        if failed and not (partial and self.behaviour.partial_status == "SUCCEEDED"):
            self._fail(
                "FAILED", f"{len(failed)} of {count} sub-jobs failed, the first is {failed[0]}."
            )
        else:
            self._finish()

    def _stop(self) -> None:
        if self.run.active and not self.committing:
            self._enter(self.behaviour.stop_status)

    def _enter(self, status: str) -> None:
        """Enter a status, and do the work that this status implies."""
        run, outcome = self.run, self.plan.outcome
        if status == "SUCCEEDED":
            self._complete()
        elif status in ENDED:
            summary, details = outcome.error_summary, outcome.error_details
            if run.stopping:
                summary, details = "Job Failed with status:KILLED", None
            self._fail(status, summary or f"Job ended in {status}.")
            run.error_details = details or run.error_details
            if status == "STOPPED":  # only failed runs have error texts
                run.error_summary = run.error_details = None
        else:
            if status == "RUNNING" and run.executed is None:
                run.executed = self.event_queue.now()
            if status != run.status:
                run.status, run.updated = status, self.event_queue.now()

    def _complete(self) -> None:
        """Write the rows and succeed; a run with scripted statuses reads them only now."""
        if self._prepare_error is not None:
            self._fail_with(self._prepare_error)
        elif self._transfer is None:
            self._succeed()
        elif self._rows is None:
            self._work(self._transfer.read, self._write)
        else:
            self._write(self._rows)

    def _write(self, rows: Rows) -> None:
        transfer, count = self._transfer, len(rows.values)

        def succeed(committed: bool) -> None:
            if committed:
                self.run.rows_read = self.run.rows_written = count
                self._succeed()

        if transfer is not None:
            self._work(lambda: transfer.write(rows, self._claim_commit), succeed)

    def _claim_commit(self) -> bool:
        """Return whether the rows may be committed, which nothing can stop any more then.

        Called without the lock.
        """

        def claim() -> bool:
            wanted = self.run.active and not self.run.stopping and not self._abandoned
            self.committing = wanted
            return wanted

        return self.event_queue.locked(claim)

    def _work(
        self,
        work: Callable[[], T],
        then: Callable[[T], None],
        on_error: Callable[[Exception], None] | None = None,
    ) -> None:
        """Let a database work, and go on if the run is still active afterwards."""
        self.busy = True

        def done(result: Result[T]) -> None:
            self.busy = self.committing = False
            if not self.run.active:
                return
            if result.error is not None:
                (on_error or self._fail_with)(result.error)
            else:
                then(cast("T", result.value))

        self.event_queue.offload(work, done)

    def _fail_with(self, cause: Exception) -> None:
        self._fail("FAILED", first_line(cause), cause)

    def _succeed(self) -> None:
        run = self.run
        rows = {"ROWS_READ": run.rows_read, "ROWS_WRITTEN": run.rows_written}
        counters = {**_DEFAULT_COUNTERS, **rows, **self.plan.outcome.counters}
        run.rows_read, run.rows_written = counters["ROWS_READ"], counters["ROWS_WRITTEN"]
        if self.plan.tables is None or self.behaviour.whole_counters == "sum":
            run.counters = counters
        self._end("SUCCEEDED", 1.0)

    def _fail(self, status: str, summary: str, cause: Exception | None = None) -> None:
        run = self.run
        self.update_progress()  # how many rows were read
        run.error_summary = summary
        # CDM returns a stack trace; this is a real one, or a text that there is none.
        run.error_details = (
            "\n".join(stack_trace(cause)) if cause else f"{summary} (no stack trace)"
        )
        self._end(status, -1.0)

    def _end(self, status: str, progress: float) -> None:
        run = self.run
        run.status, run.progress, run.updated = status, progress, self.event_queue.now()
        self._rows = None
        self.waiting = self.admitted = False
        self.plan.on_end(run)
        self.plan.on_room()
