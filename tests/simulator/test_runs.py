from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_cdm.simulator import CdmSimulator
from tests.support.raw_client import Cdm, error_code

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator import ManualClock

SECONDS = {"pending": 10, "booting": 20, "running": 40}


def test_phases_follow_the_clock(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """A run is pending, booting and running for as long as configured, then it has succeeded."""
    sim.add_job("load", seconds=SECONDS)
    seen = [cdm.start("load")["status"]]
    for _ in range(8):
        clock.advance(10)
        seen.append(cdm.status("load")["status"])
    expected = ["PENDING", "BOOTING", "BOOTING", *["RUNNING"] * 4, "SUCCEEDED", "SUCCEEDED"]
    assert seen == expected


def test_progress_while_running(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """Progress is the share of the running time that has passed, and 100 after a success."""
    sim.add_job("load", seconds=SECONDS)
    cdm.start("load")
    clock.advance(30 + 10)
    assert cdm.status("load")["progress"] == 25.0
    clock.advance(30)
    assert cdm.status("load")["progress"] == 100.0


def test_dates_are_due_instants(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """Dates tell when something happened, not when somebody asked."""
    sim.add_job("load", seconds=SECONDS)
    began = int(clock.now() * 1000)
    cdm.start("load")
    clock.advance(1000)
    run = cdm.status("load")
    dates = [run["creation-date"], run["execute-date"], run["last-update-date"]]
    assert dates == [began, began + 30_000, began + 70_000]


def test_time_does_not_run_backwards(clock: ManualClock) -> None:
    """A clock refuses to be set back, for what has happened has happened."""
    before = clock.now()
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)
    assert clock.now() == before


def test_long_advance_keeps_order(sim: CdmSimulator, clock: ManualClock) -> None:
    """One long step of the clock runs phases in the order in which they fall due."""
    sim.add_job("short", seconds={"booting": 1, "running": 1})
    sim.add_job("long", seconds={"booting": 1, "running": 5})
    sim.start("long")
    sim.start("short")
    clock.advance(100)
    [long], [short] = sim.runs("long"), sim.runs("short")
    assert (short.updated, long.updated) == (clock.now() - 98, clock.now() - 94)


def test_scripted_failure_shows_its_texts(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """A failed run has both error texts, progress -1 and no counters."""
    sim.add_job("load", outcome="FAILED", error_summary="No space.", error_details="at line 1")
    cdm.start("load")
    clock.advance(1)
    run = cdm.status("load")
    shown = (run["status"], run["progress"], run["error-summary"], run["error-details"])
    assert shown == ("FAILED", -1.0, "No space.", "at line 1")
    assert "counters" not in run


def test_scripted_counters(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """Counters of a success are under Sqoop's group name, -1 where nothing was said."""
    sim.add_job("load", counters={"ROWS_READ": 80, "ROWS_WRITTEN": 79})
    cdm.start("load")
    assert "counters" not in cdm.status("load")
    clock.advance(1)
    [(group, counters)] = cdm.status("load")["counters"].items()
    assert group == "org.apache.sqoop.submission.counter.SqoopCounters"
    assert (counters["ROWS_READ"], counters["ROWS_WRITTEN"], counters["TOTAL_SIZE"]) == (80, 79, -1)


def test_failure_on_submit_is_an_answer(sim: CdmSimulator, cdm: Cdm) -> None:
    """A run that cannot be submitted answers 200, with the status and texts in the submission."""
    sim.add_job("load", outcome="FAILURE_ON_SUBMIT", error_summary="No engine.")
    run = cdm.start("load")
    assert (run["status"], run["error-summary"]) == ("FAILURE_ON_SUBMIT", "No engine.")


def test_outcomes_per_run(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """A list of outcomes serves one run after the other, and the last one stays."""
    sim.add_job("load", outcomes=["FAILED", {"outcome": "SUCCEEDED", "counters": {"ROWS_READ": 1}}])
    for _ in range(3):
        cdm.start("load")
        clock.advance(1)
    assert [run.status for run in sim.runs("load")] == ["FAILED", "SUCCEEDED", "SUCCEEDED"]


def test_statuses_are_consumed_by_reads(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """Each status or history call takes the next word, whatever it is; time does not matter."""
    sim.add_job("load", statuses=["PENDING", "SOMETHING_NEW", "UNKNOWN", "SUCCEEDED"])
    assert cdm.start("load")["status"] == "BOOTING"
    clock.advance(10_000)
    assert cdm.status("load")["status"] == "PENDING"
    assert cdm.history("load")["submissions"][0]["status"] == "SOMETHING_NEW"
    assert sim.runs("load")[0].status == "SOMETHING_NEW"
    assert cdm.on_job("GET", "load").json()["jobs"][0]["status"] == "SOMETHING_NEW"
    seen = [cdm.status("load")["status"] for _ in range(3)]
    assert seen == ["UNKNOWN", "SUCCEEDED", "SUCCEEDED"]


def test_scripted_run_may_be_invisible(sim: CdmSimulator, cdm: Cdm) -> None:
    """NEVER_EXECUTED in a script hides the run from status and history for one read."""
    sim.add_job("load", statuses=["NEVER_EXECUTED", "NEVER_EXECUTED", "RUNNING"])
    cdm.start("load")
    hidden = cdm.status("load")
    assert (hidden["status"], "submission-id" in hidden) == ("NEVER_EXECUTED", False)
    history = cdm.history("load")
    assert (history["submissions"], history["total"]) == ([], 0)
    assert cdm.status("load")["submission-id"] == 1


def test_double_start_is_refused(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """A job runs once at a time; after the end it can be started again, with a new id."""
    sim.add_job("load")
    assert cdm.start("load")["submission-id"] == 1
    response = cdm.on_job("PUT", "load", "/start")
    assert (response.status_code, error_code(response)) == (400, "Cdm.0052")
    clock.advance(1)
    assert cdm.start("load")["submission-id"] == 2


def test_ids_count_per_cluster(sim: CdmSimulator, cdm: Cdm) -> None:
    """Jobs of one cluster share one sequence of submission ids."""
    sim.add_job("a")
    sim.add_job("b")
    assert [cdm.start(name)["submission-id"] for name in ("a", "b")] == [1, 2]


def test_stop_is_asynchronous(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """A stopped run goes on for a moment; then it is STOPPED, without counters or error texts."""
    sim.add_job("load", seconds=100)
    cdm.start("load")
    clock.advance(1)
    response = cdm.on_job("PUT", "load", "/stop")
    assert (response.status_code, response.json()) == (200, {})
    assert cdm.status("load")["status"] == "RUNNING"
    clock.advance(0.2)
    run = cdm.status("load")
    assert run["status"] == "STOPPED"
    assert not {"counters", "error-summary"} & run.keys()
    assert (sim.runs("load")[0].error_summary, sim.runs("load")[0].error_details) == (None, None)
    assert error_code(cdm.on_job("PUT", "load", "/stop")) == "Cdm.0053"


def test_stop_wins_over_success(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """A stop that was accepted ends the run even if it would have ended before."""
    sim.add_job("load", seconds={"booting": 0, "running": 1})
    cdm.start("load")
    clock.advance(0.9)
    sim.stop("load")
    clock.advance(0.15)
    assert cdm.status("load")["status"] == "RUNNING"
    clock.advance(1)
    assert cdm.status("load")["status"] == "STOPPED"


def test_stop_in_a_script(sim: CdmSimulator, cdm: Cdm) -> None:
    """In a script of statuses, a stop leaves one more read as it was, then the run is stopped."""
    sim.add_job("load", statuses=["RUNNING", "RUNNING", "RUNNING", "SUCCEEDED"])
    cdm.start("load")
    cdm.status("load")
    cdm.on_job("PUT", "load", "/stop")
    assert [cdm.status("load")["status"] for _ in range(3)] == ["RUNNING", "STOPPED", "STOPPED"]


def test_started_by_the_scheduler(sim: CdmSimulator, cdm: Cdm) -> None:
    """A run of CDM's own scheduler says so, and so do its user and variables."""
    sim.add_job("load")
    sim.start("load", variables={"dt": "x"}, auto=True, user="timer")
    run = cdm.status("load")
    assert (run["is-execute-auto"], run["creation-user"]) == (True, "timer")
    assert sim.runs("load")[0].variables == {"dt": "x"}


@pytest.mark.parametrize(
    ("rule", "outcome", "gone"),
    [
        ("DELETE", "FAILED", True),
        ("DELETE_AFTER_SUCCEED", "FAILED", False),
        ("DELETE_AFTER_SUCCEED", "SUCCEEDED", True),
        ("NONE", "SUCCEEDED", False),
    ],
)
def test_disposable_job_vanishes(
    sim: CdmSimulator, cdm: Cdm, clock: ManualClock, rule: str, outcome: str, gone: bool
) -> None:
    """A disposable job is unknown after its run, while the run itself can be told in Python."""
    sim.add_job("once", disposable=rule, outcome=outcome)
    assert cdm.start("once")["isDeleteJob"] is (rule != "NONE")
    clock.advance(1)
    response = cdm.on_job("GET", "once", "/status")
    assert (response.status_code == 400 and error_code(response) == "Cdm.0054") is gone
    assert sim.runs("once")[0].status == outcome


def test_change_of_a_job_mends_it(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """Changing the outcome of a job affects its next run and no run before."""
    sim.add_job("load", outcomes=["FAILED", "FAILED"])
    cdm.start("load")
    clock.advance(1)
    sim.add_job("load", outcome="SUCCEEDED")
    cdm.start("load")
    clock.advance(1)
    sim.add_job("load", outcomes=["SUCCEEDED", "FAILED"])
    for _ in range(2):
        cdm.start("load")
        clock.advance(1)
    seen = [run.status for run in sim.runs("load")]
    assert seen == ["FAILED", "SUCCEEDED", "SUCCEEDED", "FAILED"]


def test_work_happens_by_itself(config: dict[str, Any]) -> None:
    """With the machine's clock a run ends although nobody asks about it."""
    ended: list[float] = []
    with CdmSimulator(config) as sim:
        sim.add_job("load", seconds={"booting": 0.01, "running": 0.01}, disposable="DELETE")
        sim.start("load")
        deadline = time.monotonic() + 5
        while not ended and time.monotonic() < deadline:
            time.sleep(0.01)
            with sim._backend.lock:  # looking in this way settles nothing
                ended = [
                    1.0
                    for lifecycle in sim._backend.clusters[sim.cluster_id].lifecycles
                    if not lifecycle.run.active
                ]
    assert ended
