"""Durations are measured by a clock that nobody can set: whatever is set while a task waits."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.sensors import CdmSubmissionSensor
from airflow_provider_cdm.simulator import CdmSimulator
from tests.exactly_once.task import JOB, count_starts, each_mode, migrate
from tests.operators.run_job.task import migrate as migrate_with_own_job
from tests.support.order_databases import DAY, ROWS, OrderDatabases
from tests.support.task_harness import TaskRunner
from tests.support.virtual_time import VirtualTime

each_jump = pytest.mark.parametrize("jump", [7200.0, -7200.0], ids=["forward", "back"])


def set_clock_after(
    route: str, calls: int, jump: float, sim: CdmSimulator, virtual_time: VirtualTime
) -> None:
    """Set the clock of the worker once CDM has received a number of calls."""

    def watch() -> None:
        if [request.route for request in sim.requests].count(route) >= calls:
            virtual_time.jumped = jump

    sim.clock.subscribe(watch)  # type: ignore[attr-defined]


@pytest.mark.long
@each_jump
def test_lost_start_gets_its_full_time_to_show(
    jump: float,
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    virtual_time: VirtualTime,
) -> None:
    """A clock that is set while a lost start is settled leads neither to a second start nor to a
    longer search.
    """
    sim.fail("start", "drop", "before", effect_delay=40)
    set_clock_after("start", 1, jump, sim, virtual_time)
    began = sim.clock.now()
    assert task_runner.run(migrate)["submission_id"] == 1
    assert (len(sim.runs(JOB)), databases.count_rows(), count_starts(sim)) == (1, ROWS, 1)
    assert sim.clock.now() - began < 200


@each_jump
@each_mode
def test_run_stalls_after_the_time_that_really_passed(
    mode: dict[str, Any],
    jump: float,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    virtual_time: VirtualTime,
) -> None:
    """A clock that is set makes a run neither stall at once nor later than it really does."""
    sim.add_job(JOB, statuses=["RUNNING"])
    set_clock_after("status", 3, jump, sim, virtual_time)
    began = sim.clock.now()
    stall = {"stalled_after": 600, "fail_when_stalled": True, "poll_interval": 10}
    with pytest.raises(errors.CdmStalled, match="nothing has changed for 6"):
        task_runner.run(lambda: migrate(**mode, **stall))
    assert 600 <= sim.clock.now() - began < 700


@each_jump
def test_rescheduled_sensor_sees_a_run_stall_after_the_time_that_really_passed(
    jump: float, sim: CdmSimulator, task_runner: TaskRunner, virtual_time: VirtualTime
) -> None:
    """Between the processes of a rescheduled sensor the server's clock counts."""
    sim.add_job(JOB, statuses=["RUNNING"])
    number = sim.start(JOB, variables={"dt": DAY}).submission_id
    set_clock_after("status", 3, jump, sim, virtual_time)
    began = sim.clock.now()
    with pytest.raises(errors.CdmStalled, match="nothing has changed for 6"):
        task_runner.run(
            lambda: CdmSubmissionSensor(
                task_id="t",
                job_name=JOB,
                submission_id=number,
                mode="reschedule",
                deferrable=False,
                poke_interval=60,
                timeout=100_000,
                stalled_after=600,
                fail_when_stalled=True,
            )
        )
    assert 600 <= sim.clock.now() - began < 700


@each_mode
def test_outage_is_no_time_without_a_change(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """While CDM does not say what the run does, the run does not stall."""
    sim.add_job(JOB, statuses=["RUNNING"])
    sim.fail("status", "status", status=503, times=60, skip=2)
    began = sim.clock.now()
    stall = {"stalled_after": 300, "fail_when_stalled": True, "poll_interval": 10}
    with pytest.raises(errors.CdmStalled, match="nothing has changed for 3"):
        task_runner.run(lambda: migrate(**mode, **stall))
    outage = [request for request in sim.requests if request.status == 503]
    assert sim.clock.now() - began > 300 + (outage[-1].at - outage[0].at)


def test_own_job_is_deleted_although_the_clock_is_set(
    sim: CdmSimulator, task_runner: TaskRunner, virtual_time: VirtualTime
) -> None:
    """A clock that is set forward while the job cannot be deleted does not end the attempts."""
    sim.fail("delete_job", "status", status=503, times=8)
    set_clock_after("delete_job", 1, 7200.0, sim, virtual_time)
    assert task_runner.run(migrate_with_own_job)["status"] == "SUCCEEDED"
    assert sim.jobs() == [JOB]
