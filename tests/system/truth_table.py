"""The truth table of clears and retries: what each does, on Airflow 3.3 and on 2.11.

``python -m tests.system.truth_table`` writes it into the documentation.

Not all combinations are rows, only those that differ in what Airflow says about the attempt, or in
what the journal holds. Left out are:

* edits of the retries of an attempt that runs, is deferred or rescheduled, each with each act: the
  edit counts for the next attempt only, so one row for each state is enough;
* retries from 0, and retries while a task runs or is deferred: there are none;
* a DAG run that is deleted while its task runs: Airflow 3 refuses it;
* clears of mapped tasks one by one: they are task instances like all others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.migration_jobs import DAYS
from tests.system.truth_runner import Row

TWO, ONE = ("SUCCEEDED", "SUCCEEDED"), ("SUCCEEDED",)
STOPPED, FAILED = ("STOPPED", "SUCCEEDED"), ("FAILED", "SUCCEEDED")
POKED: dict[str, Any] = {"mode": "reschedule"}
DEFERRED: dict[str, Any] = {"deferrable": True}
CLEAR_THIS, CLEAR_OTHER = ("clear this task",), ("clear another task",)
CLEAR_RUN, CLEAR_TWICE = ("clear the DAG run",), ("clear this task", "clear it again")
RETRY = ("retry",)
#: Seconds of a first run that must be active when something happens, also on a slow machine.
LONG = 90
#: Deaths of the first attempt: while its run is active, and after its success is noted.
DIES_ACTIVE, DIES_NOTED = ("after the record",), ("before the report",)
DOUBT = "clear it once more to start the job again"

_AFTER_SUCCESS = [
    Row(
        name="success-clear",
        when="after success",
        act=CLEAR_THIS,
        runs=TWO,
        attempts=2,
        operator={"wait_for_completion": False},
        sensor=POKED | DEFERRED,
        judged=2,
        says="The job starts again, and a deferred sensor judges the new run.",
    ),
    Row(
        name="success-clear-1-0",
        when="after success",
        act=CLEAR_THIS,
        edit={"retries": 0},
        runs=TWO,
        attempts=2,
        says="The job starts again, although `max_tries` stays as it was.",
    ),
    Row(
        name="success-clear-1-0-old-version",
        when="after success",
        act=CLEAR_THIS,
        edit={"retries": 0},
        latest=False,
        runs=TWO,
        attempts=2,
        airflow_2=None,
        says="The same, where the DAG run keeps its version of the DAG.",
    ),
    Row(
        name="success-clear-3-1",
        when="after success",
        act=CLEAR_THIS,
        retries=3,
        retry_delay=1,
        edit={"retries": 1},
        crash=DIES_ACTIVE,
        runs=TWO,
        attempts=3,
        says="The job starts again after the success of a second attempt, too.",
    ),
    Row(
        name="success-clear-0-1",
        when="after success",
        act=CLEAR_THIS,
        retries=0,
        edit={"retries": 1},
        runs=TWO,
        attempts=2,
        says="The job starts again.",
    ),
    Row(
        name="success-clear-run-1-0",
        when="after success",
        act=CLEAR_RUN,
        edit={"retries": 0},
        sensor=POKED,
        judged=2,
        runs=TWO,
        attempts=2,
        says="The job starts again, and a rescheduled sensor judges the new run.",
    ),
    Row(
        name="success-clear-other-1-0",
        when="after success",
        act=CLEAR_OTHER,
        edit={"retries": 0},
        other=True,
        attempts=1,
        says="The task is not run again.",
    ),
    Row(
        name="success-clear-1-0-held",
        when="after success",
        act=CLEAR_TWICE,
        edit={"retries": 0},
        held=True,
        runs=TWO,
        attempts=3,
        logged=DOUBT,
        says="While the DAG run goes on, nothing proves the clear: doubt. Another clear starts the"
        " job again.",
    ),
    Row(
        name="success-clear-alone-1-0-held",
        when="after success",
        act=("clear this task alone",),
        edit={"retries": 0},
        held=True,
        attempts=2,
        state="success",
        airflow_2={"state": "failed", "logged": DOUBT},
        says="`reset_dag_runs=False`: Airflow 3.3 shows no clear, so the success is taken over;"
        " Airflow 2.11 never counts such clears, so there it is in doubt.",
    ),
    Row(
        name="success-deleted",
        when="after success",
        act=("delete the DAG run, make it anew",),
        runs=TWO,
        attempts=1,
        says="A new DAG run starts the job, whatever the one before left.",
    ),
    Row(
        name="success-deleted-crash",
        when="after success",
        act=("delete the DAG run, make it anew",),
        edit={"crash": ("before the journal",)},
        retry_delay=1,
        runs=TWO,
        attempts=2,
        airflow_2={"runs": ONE, "state": "failed", "logged": DOUBT},
        says="Its first attempt dies before the intent. Airflow 2.11 keeps the journal of the"
        " deleted DAG run, so there the second attempt is in doubt.",
    ),
    Row(
        name="success-clear-list",
        when="after success",
        act=("clear the list and this task",),
        mapped=True,
        operator={"if_running": "wait"},
        seconds=2,
        runs=TWO * 2,
        copies={DAYS[1]: 1, DAYS[2]: 2, DAYS[3]: 1},
        attempts=2,
        says="Each mapped task starts the job with the value that it has now.",
    ),
    Row(
        name="success-clear-default-1-0",
        when="after success",
        act=CLEAR_THIS,
        retries=None,
        edit={"default_retries": 0},
        runs=TWO,
        attempts=2,
        says="The job starts again, also where Airflow's setting was changed.",
    ),
]
_AFTER_FAILURE = [
    Row(
        name="failure-clear-0-1",
        when="after failure",
        act=CLEAR_THIS,
        retries=0,
        edit={"retries": 1},
        outcomes=FAILED,
        runs=FAILED,
        attempts=2,
        says="The job starts again.",
    ),
    Row(
        name="failure-clear-run-0-1",
        when="after failure",
        act=CLEAR_RUN,
        retries=0,
        edit={"retries": 1},
        outcomes=FAILED,
        sensor={},
        judged=2,
        runs=FAILED,
        attempts=2,
        says="The job starts again, and the sensor judges the new run.",
    ),
    Row(
        name="timeout-clear-0-1",
        when="after failure",
        act=CLEAR_THIS,
        retries=0,
        edit={"retries": 1, "operator": {"wait_timeout": 120}},
        operator={"wait_timeout": 3},
        seconds=LONG,
        attempts=2,
        says="The run is still active, so it is followed.",
    ),
]
_WHILE_WAITING = [
    Row(
        name="running-clear-1-0",
        when="while running",
        act=CLEAR_THIS,
        edit={"retries": 0},
        seconds=LONG,
        runs=STOPPED,
        attempts=2,
        says="The run is stopped (`cancel_on_kill`), and the job starts again.",
    ),
    Row(
        name="running-clear-other-1-0",
        when="while running",
        act=CLEAR_OTHER,
        edit={"retries": 0},
        other=True,
        seconds=LONG,
        attempts=1,
        says="The task goes on.",
    ),
    Row(
        name="running-clear-run",
        when="while running",
        act=CLEAR_RUN,
        seconds=LONG,
        runs=STOPPED,
        attempts=2,
        says="The run is stopped, and the job starts again.",
    ),
    Row(
        name="deferred-clear-1-0",
        when="while deferred",
        act=CLEAR_THIS,
        edit={"retries": 0},
        operator=DEFERRED,
        seconds=LONG,
        runs=STOPPED,
        attempts=2,
        says="The trigger stops the run, and the job starts again.",
    ),
    Row(
        name="deferred-clear-other-1-0",
        when="while deferred",
        act=CLEAR_OTHER,
        edit={"retries": 0},
        operator=DEFERRED,
        other=True,
        seconds=LONG,
        attempts=1,
        says="The task goes on.",
    ),
    Row(
        name="deferred-clear-run-0-1",
        when="while deferred",
        act=CLEAR_RUN,
        retries=0,
        edit={"retries": 1},
        operator=DEFERRED,
        seconds=LONG,
        runs=STOPPED,
        attempts=2,
        says="The trigger stops the run, and the job starts again.",
    ),
]
_UP_FOR_RETRY = [
    Row(
        name="retry-active-3-1",
        when="up for retry",
        act=RETRY,
        retries=3,
        edit={"retries": 1},
        crash=DIES_ACTIVE,
        seconds=LONG,
        says="The retry follows the run.",
    ),
    Row(
        name="retry-failed-1-3",
        when="up for retry",
        act=RETRY,
        edit={"retries": 3},
        outcomes=FAILED,
        runs=FAILED,
        attempts=2,
        says="The retry starts a run, since the one before failed.",
    ),
    Row(
        name="retry-noted-1-0",
        when="up for retry",
        act=RETRY,
        edit={"retries": 0},
        crash=DIES_NOTED,
        airflow_2={"state": "failed", "logged": DOUBT},
        says="The success is taken over. Airflow 2.11 would show a clear no differently, so there"
        " it is in doubt.",
    ),
    Row(
        name="retry-noted-other",
        when="up for retry",
        act=CLEAR_OTHER,
        other=True,
        crash=DIES_NOTED,
        says="The success is taken over.",
    ),
    Row(
        name="retry-noted-other-1-0",
        when="up for retry",
        act=CLEAR_OTHER,
        edit={"retries": 0},
        other=True,
        crash=DIES_NOTED,
        state="failed",
        logged=DOUBT,
        says="Nothing tells a retry from a clear: doubt, and no second run.",
    ),
    Row(
        name="retry-succeeded-other-1-0",
        when="up for retry",
        act=CLEAR_OTHER,
        edit={"retries": 0},
        other=True,
        crash=DIES_ACTIVE,
        state="failed",
        logged=DOUBT,
        says="The same, where the run succeeded after its attempt had died.",
    ),
    Row(
        name="retry-clear",
        when="up for retry",
        act=CLEAR_THIS,
        crash=DIES_NOTED,
        runs=TWO,
        says="The job starts again.",
    ),
    Row(
        name="retry-clear-noted-1-0",
        when="up for retry",
        act=CLEAR_TWICE,
        edit={"retries": 0},
        crash=DIES_NOTED,
        runs=TWO,
        attempts=3,
        logged=DOUBT,
        says="Nothing tells a clear from a retry: doubt. Another clear starts the job again.",
    ),
    Row(
        name="retry-clear-active-1-0",
        when="up for retry",
        act=CLEAR_THIS,
        edit={"retries": 0},
        crash=DIES_ACTIVE,
        seconds=LONG,
        says="The run is still active, so it is followed.",
    ),
]
_RESCHEDULED = [
    Row(
        name="rescheduled-clear-run-1-0",
        when="sensor up for reschedule",
        act=CLEAR_RUN,
        edit={"retries": 0},
        operator={"wait_for_completion": False},
        sensor=POKED,
        judged=1,
        seconds=LONG,
        attempts=2,
        says="The run is still active, so the task returns it again, and the sensor judges it.",
    ),
    Row(
        name="rescheduled-clear-ended",
        when="sensor up for reschedule",
        act=CLEAR_THIS,
        operator={"wait_for_completion": False},
        sensor=POKED | {"poke_interval": 90},
        edit={"sensor": POKED},
        stopped_by_hand=True,
        judged=2,
        seconds=LONG,
        runs=STOPPED,
        attempts=2,
        says="The run was stopped unnoticed: the job starts again, and the sensor judges the new"
        " run.",
    ),
    Row(
        name="rescheduled-clear-sensor",
        when="sensor up for reschedule",
        act=("clear the sensor",),
        operator={"wait_for_completion": False},
        sensor=POKED,
        judged=1,
        seconds=LONG,
        attempts=1,
        says="The sensor goes on with the same run.",
    ),
    Row(
        name="sensor-timeout-clear",
        when="after the sensor's time-out",
        act=CLEAR_THIS,
        edit={"sensor": POKED | {"timeout": 120}},
        operator={"wait_for_completion": False},
        sensor=POKED | {"timeout": 2},
        stopped_by_hand=True,
        judged=2,
        seconds=LONG,
        runs=STOPPED,
        attempts=2,
        says="The job starts again, and the sensor judges the new run.",
    ),
    Row(
        name="sensor-retry",
        when="after failure",
        act=RETRY,
        operator={"wait_for_completion": False},
        sensor={"retries": 1, "retry_delay": 1},
        sensor_state="failed",
        outcomes=("FAILED",),
        runs=("FAILED",),
        attempts=1,
        says="A retry of the sensor judges the same run, and starts none.",
    ),
]

#: In the order in which they start.
ROWS = [*_UP_FOR_RETRY, *_WHILE_WAITING, *_RESCHEDULED, *_AFTER_FAILURE, *_AFTER_SUCCESS]

#: Where the documentation includes the table from.
PAGE = Path(__file__).parents[2] / "docs" / "snippets" / "truth_table.md"


def page() -> str:
    """Return the table in Markdown."""
    heads = ("When", "Retries", "Then", "Runs started", "Rows moved", "Task", "Because")
    lines = [_line(heads), _line(["---"] * len(heads))]
    for row in sorted(ROWS, key=lambda row: row.when):
        now, old = row.on("3.3"), row.on("2.11")
        if now is None:
            raise ValueError(f"{row.name} is no row on Airflow 3.3")
        outcomes = [_outcome(each) if each else ("no such row",) * 3 for each in (now, old)]
        cells = [a if a == b else f"{a}; 2.11: {b}" for a, b in zip(*outcomes, strict=True)]
        lines.append(_line((row.when, row.edited_retries, ", ".join(row.act), *cells, row.says)))
    return "\n".join(lines) + "\n"


def _outcome(row: Row) -> tuple[str, str, str]:
    """Return what a row must do: runs, rows and the state of the task."""
    copies = sum((row.copies or {"": row.runs.count("SUCCEEDED")}).values())
    rows = {0: "none", 1: "once", 2: "twice"}.get(copies, f"{copies} times")
    return (f"{len(row.runs)}: {', '.join(map(str.lower, row.runs))}", rows, row.state)


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page())
