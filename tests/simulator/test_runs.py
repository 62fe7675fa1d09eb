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
    """A run is pending, booting and running for the configured times and then succeeds."""
    sim.add_job("load", seconds=SECONDS)
    statuses = [cdm.start("load")["status"]]
    for _ in range(8):
        clock.advance(10)
        statuses.append(cdm.status("load")["status"])
    expected = ["PENDING", "BOOTING", "BOOTING", *["RUNNING"] * 4, "SUCCEEDED", "SUCCEEDED"]
    assert statuses == expected


def test_progress_while_running(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """Progress is the elapsed share of the running time, and 100 after a success."""
    sim.add_job("load", seconds=SECONDS)
    cdm.start("load")
    clock.advance(30 + 10)
    assert cdm.status("load")["progress"] == 25.0
    clock.advance(30)
    assert cdm.status("load")["progress"] == 100.0


def test_dates_are_times_of_events(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """Dates are the times of events, not of the requests that show them."""
    sim.add_job("load", seconds=SECONDS)
    started = int(clock.now() * 1000)
    cdm.start("load")
    clock.advance(1000)
    run = cdm.status("load")
    dates = [run["creation-date"], run["execute-date"], run["last-update-date"]]
    assert dates == [started, started + 30_000, started + 70_000]


def test_clock_cannot_be_moved_backwards(clock: ManualClock) -> None:
    """A manual clock rejects negative steps."""
    before = clock.now()
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)
    assert clock.now() == before


def test_order_of_events_in_a_long_step(sim: CdmSimulator, clock: ManualClock) -> None:
    """A long step of the clock runs events in the order of their due times."""
    sim.add_job("short", seconds={"booting": 1, "running": 1})
    sim.add_job("long", seconds={"booting": 1, "running": 5})
    sim.start("long")
    sim.start("short")
    clock.advance(100)
    [long], [short] = sim.runs("long"), sim.runs("short")
    assert (short.updated, long.updated) == (clock.now() - 98, clock.now() - 94)


def test_scripted_failure(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """A failed run has both error texts, progress -1 and no counters."""
    sim.add_job("load", outcome="FAILED", error_summary="No space.", error_details="at line 1")
    cdm.start("load")
    clock.advance(1)
    run = cdm.status("load")
    shown = (run["status"], run["progress"], run["error-summary"], run["error-details"])
    assert shown == ("FAILED", -1.0, "No space.", "at line 1")
    assert "counters" not in run


def test_scripted_counters(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """Counters are in Sqoop's group, with -1 for values that are not configured."""
    sim.add_job("load", counters={"ROWS_READ": 80, "ROWS_WRITTEN": 79})
    cdm.start("load")
    assert "counters" not in cdm.status("load")
    clock.advance(1)
    [(group, counters)] = cdm.status("load")["counters"].items()
    assert group == "org.apache.sqoop.submission.counter.SqoopCounters"
    assert (counters["ROWS_READ"], counters["ROWS_WRITTEN"], counters["TOTAL_SIZE"]) == (80, 79, -1)


def test_failure_on_submit(sim: CdmSimulator, cdm: Cdm) -> None:
    """The response for a run that cannot be submitted is 200 with its status and error texts."""
    sim.add_job("load", outcome="FAILURE_ON_SUBMIT", error_summary="No engine.")
    run = cdm.start("load")
    assert (run["status"], run["error-summary"]) == ("FAILURE_ON_SUBMIT", "No engine.")


def test_outcomes_per_run(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """A list of outcomes applies to consecutive runs, and the last one repeats."""
    sim.add_job("load", outcomes=["FAILED", {"outcome": "SUCCEEDED", "counters": {"ROWS_READ": 1}}])
    for _ in range(3):
        cdm.start("load")
        clock.advance(1)
    assert [run.status for run in sim.runs("load")] == ["FAILED", "SUCCEEDED", "SUCCEEDED"]


def test_each_read_takes_the_next_status(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """Each status or history call takes the next word, whatever it is; time has no effect."""
    sim.add_job("load", statuses=["PENDING", "SOMETHING_NEW", "UNKNOWN", "SUCCEEDED"])
    assert cdm.start("load")["status"] == "BOOTING"
    clock.advance(10_000)
    assert cdm.status("load")["status"] == "PENDING"
    assert cdm.history("load")["submissions"][0]["status"] == "SOMETHING_NEW"
    assert sim.runs("load")[0].status == "SOMETHING_NEW"
    assert cdm.on_job("GET", "load").json()["jobs"][0]["status"] == "SOMETHING_NEW"
    statuses = [cdm.status("load")["status"] for _ in range(3)]
    assert statuses == ["UNKNOWN", "SUCCEEDED", "SUCCEEDED"]


def test_scripted_run_may_be_invisible(sim: CdmSimulator, cdm: Cdm) -> None:
    """NEVER_EXECUTED in a script hides the run from status and history calls for one read."""
    sim.add_job("load", statuses=["NEVER_EXECUTED", "NEVER_EXECUTED", "RUNNING"])
    cdm.start("load")
    hidden = cdm.status("load")
    assert (hidden["status"], "submission-id" in hidden) == ("NEVER_EXECUTED", False)
    history = cdm.history("load")
    assert (history["submissions"], history["total"]) == ([], 0)
    assert cdm.status("load")["submission-id"] == 1


def test_start_of_an_active_job(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """A job has one active run at a time; after its end, the next start gets a new id."""
    sim.add_job("load")
    assert cdm.start("load")["submission-id"] == 1
    response = cdm.on_job("PUT", "load", "/start")
    assert (response.status_code, error_code(response)) == (400, "Cdm.0052")
    clock.advance(1)
    assert cdm.start("load")["submission-id"] == 2


def test_submission_ids_per_cluster(sim: CdmSimulator, cdm: Cdm) -> None:
    """All jobs of a cluster share one sequence of submission ids."""
    sim.add_job("a")
    sim.add_job("b")
    assert [cdm.start(name)["submission-id"] for name in ("a", "b")] == [1, 2]


def test_stop_is_asynchronous(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """A stopped run stays active for a moment and ends STOPPED, without counters or error texts."""
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


def test_accepted_stop_precedes_success(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """An accepted stop ends the run even if it would have succeeded before."""
    sim.add_job("load", seconds={"booting": 0, "running": 1})
    cdm.start("load")
    clock.advance(0.9)
    sim.stop("load")
    clock.advance(0.15)
    assert cdm.status("load")["status"] == "RUNNING"
    clock.advance(1)
    assert cdm.status("load")["status"] == "STOPPED"


def test_stop_of_scripted_statuses(sim: CdmSimulator, cdm: Cdm) -> None:
    """With scripted statuses, a stopped run is shown unchanged once and is then STOPPED."""
    sim.add_job("load", statuses=["RUNNING", "RUNNING", "RUNNING", "SUCCEEDED"])
    cdm.start("load")
    cdm.status("load")
    cdm.on_job("PUT", "load", "/stop")
    assert [cdm.status("load")["status"] for _ in range(3)] == ["RUNNING", "STOPPED", "STOPPED"]


def test_start_by_the_scheduler(sim: CdmSimulator, cdm: Cdm) -> None:
    """A run of CDM's scheduler has its flag, user and variables."""
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
def test_disposable_job_is_deleted(
    sim: CdmSimulator, cdm: Cdm, clock: ManualClock, rule: str, outcome: str, gone: bool
) -> None:
    """A disposable job is deleted after its run, which remains available in Python."""
    sim.add_job("once", disposable=rule, outcome=outcome)
    assert cdm.start("once")["isDeleteJob"] is (rule != "NONE")
    clock.advance(1)
    response = cdm.on_job("GET", "once", "/status")
    assert (response.status_code == 400 and error_code(response) == "Cdm.0054") is gone
    assert sim.runs("once")[0].status == outcome


def test_changed_outcome_of_a_job(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """A changed outcome applies to the next run of the job, not to earlier ones."""
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
    statuses = [run.status for run in sim.runs("load")]
    assert statuses == ["FAILED", "SUCCEEDED", "SUCCEEDED", "FAILED"]


def test_events_without_requests(config: dict[str, Any]) -> None:
    """With the system clock, a run ends even if no request arrives."""
    ended: list[float] = []
    with CdmSimulator(config) as sim:
        sim.add_job("load", seconds={"booting": 0.01, "running": 0.01}, disposable="DELETE")
        sim.start("load")
        deadline = time.monotonic() + 5
        while not ended and time.monotonic() < deadline:
            time.sleep(0.01)
            with sim._backend.lock:  # unlike the methods of sim, this does not run due events
                ended = [
                    1.0
                    for lifecycle in sim._backend.clusters[sim.cluster_id].lifecycles
                    if not lifecycle.run.active
                ]
    assert ended
