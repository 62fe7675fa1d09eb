"""The lifecycle of a run, from the start call to its end, by the clock or by scripted statuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_cdm.simulator.backend.run import ENDED, Plan, Run
from airflow_provider_cdm.simulator.backend.run_errors import first_line, stack_trace
from airflow_provider_cdm.simulator.transfer.macros import MacroError

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.backend.event_queue import EventQueue
    from airflow_provider_cdm.simulator.config.behaviour import Behaviour
    from airflow_provider_cdm.simulator.transfer.jdbc import Rows, Transfer

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

    All methods expect that the caller holds the backend's lock.
    """

    run: Run
    plan: Plan
    event_queue: EventQueue
    behaviour: Behaviour
    _script: list[str] = field(default_factory=list)
    _transfer: Transfer | None = None
    #: Seconds by which the run was slowed down, and those of them that it has yet to take.
    _slowed: float = 0.0
    _postponed: float = 0.0
    _prepare_error: Exception | None = None
    _rows: Rows | None = None

    def begin(self) -> None:
        """Submit the run: schedule its first phase, or fail at once.

        The response to the start call shows BOOTING (or PENDING if the plan has this phase) even if
        all phases take no time, since all samples show one of these statuses.
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
            self._prepare_error = exc  # ASSUMED: it is reported when the run enters RUNNING
        except Exception as exc:  # a driver may raise any exception, which the run reports
            self._fail("FAILURE_ON_SUBMIT", f"Cannot connect: {first_line(exc)}", exc)
            return
        self._script = list(self.plan.script)
        if self._script:
            return
        run.status = "PENDING" if seconds.pending else "BOOTING"
        self.event_queue.call_later(seconds.pending, self._start_booting)

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

    def advance_script(self) -> None:
        """Enter the next scripted status, if any; called for each status or history call."""
        if self._script and self.run.active:
            status = self._script[0] if len(self._script) == 1 else self._script.pop(0)
            self._enter(status)

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
            self._fail("FAILED", reason)

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
        if tables is not None:
            self._run_step(lambda: tables.begin(self.run, self._finish_tables))
        elif self._run_step(self._read_rows):
            self.event_queue.call_later(self.plan.seconds.running, self._finish)

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
        if self.run.active:
            self._enter(self.behaviour.stop_status)

    def _enter(self, status: str) -> None:
        """Enter a status, and do the work that this status implies."""
        run, outcome = self.run, self.plan.outcome
        if status == "SUCCEEDED":
            if self._run_step(self._write_rows):
                self._succeed()
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

    def _read_rows(self) -> None:
        if self._prepare_error is not None:
            raise self._prepare_error
        if self._transfer is not None:
            self._rows = self._transfer.read()

    def _write_rows(self) -> None:
        """Write the rows that were read; a run with scripted statuses reads them only now."""
        if self._rows is None:
            self._read_rows()
        if self._transfer is not None and self._rows is not None:
            self._transfer.write(self._rows)
            self.run.rows_read = self.run.rows_written = len(self._rows.values)

    def _run_step(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except Exception as exc:  # a driver may raise any exception, which the run reports
            self._fail("FAILED", first_line(exc), exc)
            return False
        return True

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
        self.plan.on_end(run)
