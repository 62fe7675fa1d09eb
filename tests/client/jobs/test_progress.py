"""Log lines about an active run."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.jobs.progress import (
    ProgressLog,
    StallPolicy,
    outcome_line,
    progress_line,
)
from airflow_provider_cdm.client.submission import Submission

BEGIN = 1_735_787_045.0
RUN = Submission("c", "orders", "RUNNING", 5, creation_date=int(BEGIN * 1000))


class Reader:
    """Collects the log lines about a run, and advances the clock."""

    def __init__(self, **stall: Any) -> None:
        self.now = BEGIN
        self.lines: list[str] = []
        self.warnings: list[str] = []
        self.stall = StallPolicy(**stall)
        self.log = ProgressLog(self, lambda: self.now, self.stall)

    def info(self, message: str, *values: object) -> None:
        self.lines.append(message % values)

    def warning(self, message: str, *values: object) -> None:
        self.warnings.append(message % values)

    def see(self, seconds: float, **seen: Any) -> None:
        self.now = BEGIN + seconds
        self.log(replace(RUN, **seen))


def test_a_line_when_something_changed_else_one_a_minute() -> None:
    """Every change is logged; between changes there is one line a minute at most."""
    reader = Reader()
    for seconds in range(0, 200, 10):
        reader.see(seconds, write_rows=100 if seconds < 30 else 200)
    assert len(reader.lines) == 4
    assert "100 rows written" in reader.lines[0]
    assert "200 rows written, 3.33 rows/s, created 30 s ago" in reader.lines[1]
    assert reader.lines[2].endswith("last change 60 s ago, created 90 s ago")


def test_nothing_seen_is_no_line() -> None:
    """A poll that did not show the run is not logged."""
    reader = Reader()
    reader.log(None)
    assert reader.lines == []


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({"progress": 45.0}, "RUNNING, 45 %, created"),
        # A value up to 1 may be on either scale.
        ({"progress": 0.5}, "RUNNING, progress 0.5, created"),
        ({"progress": -1.0}, "RUNNING, created"),
        # CDM's number for a counter that does not apply.
        ({"write_rows": -1}, "RUNNING, created"),
        ({"creation_date": None}, "RUNNING"),
        ({"submission_id": None}, "The run created at 2025-01-02 03:04:05 UTC: RUNNING, created"),
    ],
)
def test_progress_line(seen: dict[str, Any], words: str) -> None:
    """A line contains status, progress and age, as far as CDM reports them."""
    assert words in progress_line(replace(RUN, **seen), BEGIN + 9)


@pytest.mark.parametrize(
    ("seen", "line"),
    [
        (
            {"counters": {"ROWS_READ": 7777, "ROWS_WRITTEN": 6}},
            "Run 5: SUCCEEDED, 7,777 rows read, 6 rows written, took 2.5 s",
        ),
        ({"status": "FAILED", "write_rows": 9}, "Run 5: FAILED, 9 rows written, took 2.5 s"),
        # CDM's number for a counter that does not apply.
        ({"counters": {"ROWS_WRITTEN": -1}}, "Run 5: SUCCEEDED, rows unknown, took 2.5 s"),
        ({"tables": {"total": 5, "succeeded": 3}}, "Run 5: SUCCEEDED, 2 of 5 tables not moved, "),
    ],
)
def test_outcome_line(seen: dict[str, Any], line: str) -> None:
    """The line about the end names status, rows and duration."""
    ended: dict[str, Any] = {"status": "SUCCEEDED", "last_update_date": int(BEGIN * 1000) + 2500}
    run = replace(RUN, **{**ended, **seen})
    assert outcome_line(run).startswith(line)


def test_every_line_ends_before_the_hundredth_character() -> None:
    """However long its parts are, a line fits beside the time on a screen."""
    numbers: dict[str, Any] = dict.fromkeys(
        ("write_rows", "submission_id", "creation_date"), 10**17
    )
    run = replace(RUN, progress=0.123456, status="S" * 100, counters={"ROWS_READ": 1}, **numbers)
    for line in (
        progress_line(run, BEGIN, 1e7, 1.234e8, foreign=True),
        outcome_line(run, foreign=True),
        progress_line(replace(run, status="RUNNING"), BEGIN, 1e7),
    ):
        assert len(line) < 100


def test_another_run_is_marked() -> None:
    """The progress of a run that the task did not start says so."""
    assert progress_line(RUN, BEGIN, foreign=True).startswith("Run 5 (not of this task): RUNNING")


def test_the_end_is_no_progress() -> None:
    """The end is logged by whoever judges the run, so that it is in the log once."""
    reader = Reader()
    reader.see(0)
    reader.see(60, status="SUCCEEDED")
    assert len(reader.lines) == 1


def test_a_run_that_stalls_is_warned_about() -> None:
    """Without a change there is a warning after each period, until something changes."""
    reader = Reader(after=600)
    for seconds in range(0, 1900, 100):
        reader.see(seconds, progress=0.1)
    assert len(reader.warnings) == 3
    assert "nothing has changed for 600 s" in reader.warnings[0]
    for seconds in range(1900, 2600, 100):
        reader.see(seconds, progress=0.2)
    assert len(reader.warnings) == 4


@pytest.mark.parametrize("moving", ["status", "progress", "write_rows", "update_rows"])
def test_a_change_is_no_stall(moving: str) -> None:
    """Status, progress and rows count; dates do not, since a status call may renew them."""
    reader = Reader(after=600, fail=True)
    for seconds in range(0, 3000, 100):
        value: Any = seconds if moving != "status" else f"S{seconds}"
        reader.see(seconds, **{moving: value})
    reader.see(3000)
    reader.see(3500, last_update_date=3500)
    with pytest.raises(errors.CdmStalled, match="nothing has changed for 600 s"):
        reader.see(3600, last_update_date=3600)


def test_a_change_elsewhere_is_no_stall() -> None:
    """What moves although the run shows nothing, such as a table, counts as well."""
    reader = Reader(after=600, fail=True)
    for seconds in range(0, 3000, 100):
        reader.see(seconds, write_rows=-1)
        if seconds % 500 == 0:
            reader.log.record_change()
    with pytest.raises(errors.CdmStalled):
        reader.see(3100, write_rows=-1)


def test_stalls_may_be_ignored() -> None:
    """With ``None`` nothing counts as stalled."""
    reader = Reader(after=None, fail=True)
    reader.see(0)
    reader.see(1e7)
    assert reader.warnings == []


def test_an_ended_run_never_stalls() -> None:
    """An ended run is not stalled, however long nothing has changed."""
    reader = Reader(after=600, fail=True)
    reader.see(0, status="SUCCEEDED")
    reader.see(9000, status="SUCCEEDED")
    assert reader.warnings == []


def test_another_process_continues() -> None:
    """The state passes from poke to poke as JSON."""
    reader = Reader(after=600)
    reader.see(0, progress=0.1)
    for seconds in range(100, 1300, 100):
        dump = json.loads(json.dumps(reader.log.dump()))
        reader.log = ProgressLog(reader, lambda: reader.now, reader.stall)
        reader.log.restore(dump)
        reader.see(seconds, progress=0.1)
    assert len(reader.warnings) == 2
    fresh = ProgressLog(reader, lambda: reader.now)
    fresh.restore(None)
    assert fresh.dump() is None
