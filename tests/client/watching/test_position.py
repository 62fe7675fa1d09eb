"""What a history says to a watcher: which ends are new, which are old, and which are missed."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_cdm.client.api.runs import HISTORY_PAGE, History
from airflow_provider_cdm.client.submission import RunRef, Submission
from airflow_provider_cdm.client.watching.position import (
    WatchPosition,
    compare,
    shows_nothing_new,
)

JOB = "orders"
BEGIN = 1_735_787_045_000
NEW = WatchPosition(began_at=BEGIN / 1000)


def run(number: int | None, status: str = "SUCCEEDED", minute: float | None = None) -> Submission:
    """Return a run that was created at a minute (by default its number) after the beginning."""
    minute = (number or 0) if minute is None else minute
    created = BEGIN + round(minute * 60_000)
    return Submission("c", JOB, status, number, created, last_update_date=created + 30_000)


def undated(number: int, status: str = "SUCCEEDED") -> Submission:
    """Return a run without dates."""
    return Submission("c", JOB, status, number)


def created_at(minute: int) -> Submission:
    """Return a run of which CDM does not show when it ended."""
    return replace(run(minute), last_update_date=None)


def history(*shown: Submission, total: int | None = None) -> History:
    """Return a history of these runs, newest first; complete unless a total says otherwise."""
    return History(list(shown), len(shown) if total is None else total)


def fired(
    position: WatchPosition, *histories: History, begin: float = BEGIN
) -> tuple[list[int | None], WatchPosition]:
    """Return the numbers of the runs that end in some histories, one after the other."""
    numbers: list[int | None] = []
    for each in histories:
        look = compare(position, each, begin)
        numbers += [end.submission_id for end in look.ends]
        stored = json.loads(json.dumps(look.position.to_payload()))
        position = WatchPosition.from_payload(stored, "c", JOB)
        assert position == look.position
    return numbers, position


@pytest.mark.parametrize(
    ("histories", "expected", "missed"),
    [
        ([history()], [], 0),
        ([history(), history(run(1))], [1], 0),
        ([history(run(-5)), history(run(1), run(-5))], [1], 0),
        ([history(run(1, "RUNNING")), history(run(1))], [1], 0),
        ([history(run(1, "RUNNING")), history(run(2), run(1, "FAILED"))], [1, 2], 0),
        ([history(run(1)), history(run(1)), history(run(2), run(1))], [1, 2], 0),
        ([history(run(2), run(1, "UNKNOWN")), history(run(2), run(1))], [2, 1], 0),
        # Out of date, or cut off, or about somebody else.
        ([history(run(2), run(1)), history(run(1)), history(run(2), run(1))], [1, 2], 0),
        ([history(run(1)), history(), history(run(1))], [1], 0),
        ([history(), history(run(-5), run(-6))], [], 0),
        ([history(run(-5)), history(run(-5), run(-6), run(-7))], [], 0),
        # Not shown at first, and not known to be old; and the instant at which the watcher began.
        ([history(run(-5), run(-7)), history(run(-5), run(-6), run(-7))], [-6], 0),
        ([history(run(0, minute=-0.5))], [0], 0),
        ([history(created_at(-1)), history(created_at(1), created_at(-1))], [1], 0),
        # Numbers begin again.
        ([history(run(57, minute=-60)), history(run(1, minute=90))], [1], 1),
        ([history(run(57, minute=-60)), history(run(1, minute=-90))], [], 0),
        ([history(undated(7)), history(run(None, minute=-90))], 1, 0),
        ([history(run(7)), history(run(1, minute=90))], [7, 1], 1),
        ([history(run(7)), history(run(7, minute=90))], [7, 7], 0),
        ([history(run(7)), history(run(7, minute=90)), history(run(7, minute=90))], [7, 7], 0),
        ([history(undated(7)), history(undated(8), undated(7))], [8], 0),
        ([history(undated(7)), history(undated(1))], [1], 1),
        ([history(undated(7)), history(undated(8), undated(7), undated(6))], [8], 0),
        # Only dates, or only numbers.
        ([history(run(None, minute=1)), history(run(None, minute=2), run(None, minute=1))], 2, 0),
        # Dates of the same run differ by less than two seconds.
        ([history(run(1)), history(run(1, minute=1.01))], [1], 0),
        # A job is made anew in the same cluster.
        ([history(run(3)), history(run(9))], [3, 9], 0),
        # More than the history shows.
        ([history(run(1)), history(run(30), run(29), total=30)], [1, 29, 30], 27),
        ([history(run(1), total=90), history(run(30), run(29), total=95)], [1, 29, 30], 4),
        ([history(run(1), total=90), history(run(30), run(29), total=80)], [1, 29, 30], 2),
        ([history(), history(run(30), run(29), total=30)], [29, 30], 28),
        ([history(run(30), run(29), total=30)], [29, 30], 1),
        ([history(run(1, "RUNNING")), history(run(30), total=30)], [30], 29),
        # One that has been seen active is gone.
        ([history(run(1, "RUNNING")), history(run(2))], [2], 1),
        ([history(run(2), run(1, "UNKNOWN")), history(run(3), run(2), total=9)], [2, 3], 1),
        ([history(run(1, "RUNNING")), history(), history(run(1))], [1], 0),
    ],
)
def test_histories(histories: list[History], expected: list[int] | int, missed: int) -> None:
    """Each end is new once, oldest first, and ends that no history shows are counted."""
    numbers, position = fired(NEW, *histories)
    assert (len(numbers) if isinstance(expected, int) else numbers) == expected
    assert position.missed == missed


def test_missed_ends_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The log says how many ends were missed, and which run was the last that is known."""
    caplog.set_level(logging.WARNING)
    fired(NEW, history(run(1)), history(run(30), run(29), total=30))
    assert "At least 27 run(s) of job 'orders'" in caplog.text
    assert "goes back to run 29, and does not show run 1" in caplog.text


def test_run_that_cannot_be_identified(caplog: pytest.LogCaptureFixture) -> None:
    """A run with neither number nor date is no event, and is in the log once."""
    nameless = Submission("another", JOB, "SUCCEEDED")
    numbers, _ = fired(NEW, history(nameless), history(nameless, run(1)))
    assert numbers == [1]
    assert caplog.text.count("neither a number nor a date") == 1


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        "text",
        {},
        {"version": 2},
        {**NEW.to_payload(), "known": [[1, 2, 3]]},
        {**NEW.to_payload(), "known": [["1", None]]},
        {**NEW.to_payload(), "known": 5},
        {**NEW.to_payload(), "floor": 5},
        {**NEW.to_payload(), "began_at": None},
        {**NEW.to_payload(), "missed": "many"},
        {"version": 1, "began_at": 1.0},
    ],
)
def test_payload_that_is_no_position(payload: Any) -> None:
    """What is no position is refused, and never taken for one."""
    with pytest.raises(ValueError, match="not a position"):
        WatchPosition.from_payload(payload, "c", JOB)


@pytest.mark.parametrize(
    ("seen", "status", "expected"),
    [
        ([run(1)], run(1), True),
        ([run(2), run(1)], run(2), True),
        ([run(2), run(1)], run(1), False),
        ([run(1)], run(2, "RUNNING"), False),
        ([run(1)], run(1, minute=60), False),
        ([run(1, "RUNNING")], run(1, "RUNNING"), True),
        ([run(1, "RUNNING")], run(1), False),
        ([run(1, "UNKNOWN")], run(1, "UNKNOWN"), False),
        ([run(2, "RUNNING"), run(1, "UNKNOWN")], run(2, "RUNNING"), False),
        ([], Submission("c", JOB, "NEVER_EXECUTED", None, BEGIN), False),
        ([], run(1, "RUNNING"), False),
    ],
)
def test_status_call_of_others(seen: list[Submission], status: Submission, expected: bool) -> None:
    """A status call replaces the history only where that cannot show anything new."""
    position = compare(NEW, history(*seen), BEGIN).position
    assert shows_nothing_new(position, [status]) is expected


def test_status_call_with_several_runs_or_none() -> None:
    """Only a status call that shows one run replaces the history."""
    position = compare(NEW, history(run(1)), BEGIN).position
    assert not shows_nothing_new(position, [])
    assert not shows_nothing_new(position, [run(1), run(2, "RUNNING")])


def test_job_without_a_run_is_no_run() -> None:
    """What CDM shows of a job that has never been executed is neither new, nor waited for."""
    never = replace(run(None, minute=1), status="NEVER_EXECUTED")
    look = compare(NEW, history(never), BEGIN)
    assert (look.ends, look.position) == ((), replace(NEW, total=1))


def test_newest_run_of_a_position() -> None:
    """The newest run is the last that ended, or the last old one if none has ended since."""
    assert NEW.newest is None
    first = compare(NEW, history(run(-5)), BEGIN).position
    assert first.newest == RunRef.of(run(-5))
    second = compare(first, history(run(2), run(1), run(-5)), BEGIN).position
    assert second.newest == RunRef.of(run(2))


class Model:
    """A job of CDM, and the watcher of its runs; every run is created a minute after the last.

    :param page: number of runs that the history shows.
    :param totals: whether it gives the number of all runs.
    """

    def __init__(self, page: int, totals: bool) -> None:
        self.page, self.totals = page, totals
        self.runs: list[Submission] = []
        self.minute = 1.0
        self.position, self.saved = NEW, NEW
        self.shown: History = History([], 0)
        self.fired: list[tuple[int | None, int | None]] = []

    def start(self) -> None:
        if self.runs and not self.runs[-1].ended:
            self.end()
        self.minute += 1
        numbers = [each.submission_id or 0 for each in self.runs]
        self.runs.append(run(max(numbers, default=0) + 3, "RUNNING", self.minute))

    def end(self) -> None:
        if self.runs and not self.runs[-1].ended:
            self.runs[-1] = replace(self.runs[-1], status="SUCCEEDED")

    def look(self) -> None:
        newest = self.runs[::-1][: self.page]
        total = len(self.runs) if self.totals else None
        self.shown = History(newest, total)
        self.apply()

    def apply(self) -> None:
        look = compare(self.position, self.shown, BEGIN)
        self.fired += [(each.submission_id, each.creation_date) for each in look.ends]
        self.position = look.position

    def save(self) -> None:
        self.saved = self.position

    def restart(self) -> None:
        self.position = WatchPosition.from_payload(self.saved.to_payload(), "c", JOB)


ACTIONS = ("start", "end", "start", "end", "look", "apply", "save", "restart")


@settings(max_examples=300)
@given(st.lists(st.sampled_from(ACTIONS), max_size=60), st.integers(1, 10), st.booleans())
# All runs since the last look are shown, and none before them.
@example(["start", "end", "look", "start"], 1, True)
def test_every_end_fires_or_is_counted(actions: list[str], page: int, totals: bool) -> None:
    """Whatever happens, each run that ends fires or is missed and counted; none fires twice but
    after a restart from an older position.
    """
    model = Model(page if totals else HISTORY_PAGE, totals)
    for action in actions:
        getattr(model, action)()
    model.look()
    ended = {(each.submission_id, each.creation_date) for each in model.runs if each.ended}
    lost = ended - set(model.fired)
    assert set(model.fired) <= ended
    assert not lost or model.position.missed
    if "restart" not in actions:
        assert len(model.fired) == len(set(model.fired))
        assert model.position.missed <= len(lost)
    # Nothing is fired again after the last look.
    count = len(model.fired)
    model.look()
    assert len(model.fired) == count


def test_position_stays_small() -> None:
    """After thousands of runs a position still remembers only the last ones, and repeats none."""
    position = NEW
    for number in range(1, 2000):
        shown = [run(each) for each in range(number, max(0, number - 10), -1)]
        look = compare(position, History(shown, number), BEGIN)
        assert [each.submission_id for each in look.ends] == [number]
        position = look.position
    assert (len(position.known), position.to_payload()["version"]) == (50, 1)
    assert len(json.dumps(position.to_payload())) < 3000
    old = [run(each) for each in range(1950, 1940, -1)]
    assert not compare(position, History(old, 1999), BEGIN).ends


def test_long_history() -> None:
    """Of a history that is longer than any that is documented, the newest runs count."""
    everything = [run(number) for number in range(20_000, 0, -1)]
    numbers, position = fired(NEW, History(everything, 20_000))
    assert numbers == list(range(19_801, 20_001))
    assert position.missed
    assert fired(position, History([run(20_001), *everything]))[0] == [20_001]


@pytest.mark.parametrize(("shown", "total"), [(200, None), (201, 201)])
def test_total_of_a_long_history(shown: int, total: int | None) -> None:
    """Where CDM gives no total, that of a history which is cut off is the number of its runs."""
    everything = [run(number) for number in range(shown, 0, -1)]
    assert compare(NEW, History(everything, None), BEGIN).position.total == total


@pytest.mark.parametrize(("milliseconds", "new"), [(2_000, False), (2_001, True)])
def test_dates_of_one_run_differ_by_two_seconds(milliseconds: int, new: bool) -> None:
    """A run that was created at most two seconds after the last old one is that one."""
    old = Submission("c", JOB, "SUCCEEDED", None, BEGIN - 60_000)
    position = compare(NEW, history(old), BEGIN).position
    position = replace(position, known=())
    later = replace(old, creation_date=BEGIN - 60_000 + milliseconds)
    assert bool(compare(position, history(later), BEGIN).ends) is new


@pytest.mark.parametrize(("begin", "expected"), [(0.0, [7]), (0.5, [])])
def test_first_look_at_a_run_without_dates(begin: float, expected: list[int]) -> None:
    """Nobody knows when it ended, so it is old if anything is; by default nothing is."""
    look = compare(NEW, history(undated(7)), begin) if begin else compare(NEW, history(undated(7)))
    assert [run.submission_id for run in look.ends] == expected


def test_refs_of_a_position_name_the_job() -> None:
    """A position that was stored belongs to the job that it is read for."""
    position = compare(NEW, history(run(1)), BEGIN).position
    read = WatchPosition.from_payload(position.to_payload(), "another", "job")
    assert read.newest == RunRef("another", "job", 1, run(1).creation_date)
