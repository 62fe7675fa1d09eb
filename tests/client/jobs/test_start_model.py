"""The start of a job against a model of CDM, of Airflow's attempts, and of faults.

Each schedule is a random sequence of crashes and kills, lost and late answers, histories that are
out of date, rebuilt clusters, wrong dates, spoiled journals, runs of other people, retries and
clears. The attempts are those of the product, without sockets or sleeping. The environment variable
``CDM_MODEL_SCHEDULES`` sets the number of schedules (2,000 by default; ``nox -s model`` plays
50,000), within which every old fault must be found as well.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from unittest import mock

import pytest

from airflow_provider_cdm.client.jobs.start_record import StartPolicy
from airflow_provider_cdm.tasks import attempt, kills
from tests.client.jobs.start_model.explorer import Explorer
from tests.client.jobs.start_model.old_faults import OLD_FAULTS, OldFault
from tests.client.jobs.start_model.tasks import drive_and_save_too_late

SCHEDULES = int(os.environ.get("CDM_MODEL_SCHEDULES", "2000"))
#: Events that must occur for the test to prove anything.
OCCURRENCES = [
    *(
        "crash",
        "kill",
        "life after a kill",
        "took a run that was left",
        "stopped",
        "retry",
        "clear",
        "clear of another task",
    ),
    *("DAG run created again", "edited retries", "failure after the success"),
    *("0052", "0054", "0104", "late effect", "cluster rebuilt", "stand-in job"),
    *("stale history", "empty history", "journal not written"),
    *("lost: start", "unanswered: start", "503 before: start", "503 after: start"),
    *("429: start", "429: other call", "broken: start", "refused: start", "late: start"),
    *("somebody's run", "scheduler's run", "attached to another's", "attached after a clear"),
    *("ended well", "start-only", "CdmSubmissionFailed", "CdmAlreadyRunning"),
    *("CdmStartUncertain", "CdmOutcomeUnknown", "CdmUnavailable", "CdmJournalError"),
    *("job created", "job updated", "job deleted"),
]


#: The same where tasks name a stand-by cluster.
STANDBY_OCCURRENCES = [
    *("cluster stopped", "cluster started", "cluster shown", "stopped cluster shown"),
    *("refused by a stopped cluster", "started", "ended well", "crash", "kill", "clear"),
    *("started in the stand-by cluster", "lost: start", "late effect", "refused: start"),
]


@pytest.fixture(autouse=True)
def airflow_3(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let killed tasks go on, as the model does, whichever Airflow is installed."""
    monkeypatch.setattr(kills, "KILLED_TASKS_GO_ON", True)


@pytest.fixture(autouse=True)
def without_log() -> Iterator[None]:
    """Let nothing be logged: there would be millions of lines."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def play(explorer: Explorer, schedules: int) -> None:
    """Play schedules, none of which may have a problem."""
    for seed in range(schedules):
        problems = explorer.play(seed)
        assert not problems, problems[0]


def test_a_sample_of_schedules() -> None:
    """A tenth of the schedules of the next test, which takes long."""
    play(Explorer(), SCHEDULES // 10)


@pytest.mark.long
def test_never_doubled_never_mistaken() -> None:
    """No schedule starts a run twice, loses a start, or wrongly takes a run for ours."""
    explorer = Explorer()
    play(explorer, SCHEDULES)
    missing = [name for name in OCCURRENCES if not explorer.seen[name]]
    assert not missing, explorer.seen
    # The documented limit: a run that somebody else starts during a lost start may be taken.
    assert explorer.seen["mistook another's run for ours"] < 0.1 * SCHEDULES


@pytest.mark.long
def test_a_standby_cluster_doubles_nothing() -> None:
    """The same with a stand-by cluster, while clusters stop and answer nothing useful then."""
    explorer = Explorer(standby=True)
    play(explorer, SCHEDULES // 2)
    missing = [name for name in STANDBY_OCCURRENCES if not explorer.seen[name]]
    assert not missing, explorer.seen


@pytest.mark.long
@pytest.mark.parametrize("fault", OLD_FAULTS, ids=str)
def test_an_old_fault_is_detected(fault: OldFault) -> None:
    """The model detects each fault that the product once had."""
    with fault.brought_back():
        seeds = range(fault.first_seed, fault.first_seed + SCHEDULES)
        found = (problem for seed in seeds for problem in Explorer().play(seed))
        assert any(fault.shows in problem.splitlines()[0] for problem in found)


def test_an_intent_saved_after_the_start_is_detected() -> None:
    """The model detects the second run of an implementation that saves the intent too late."""
    found = (p for seed in range(SCHEDULES) for p in Explorer().play(seed, drive_and_save_too_late))
    assert any("doubled" in problem for problem in found)


@pytest.mark.long
@pytest.mark.parametrize("settle", [0.0, 5.0])
def test_a_short_settling_time_is_detected(settle: float) -> None:
    """The model detects the second run of an implementation that ignores late effects."""

    def impatient() -> StartPolicy:
        return StartPolicy(settle=settle, clock_tolerance=0)

    with mock.patch.object(attempt, "StartPolicy", impatient):
        found = (problem for seed in range(SCHEDULES) for problem in Explorer().play(seed))
        assert any("doubled" in problem for problem in found)
