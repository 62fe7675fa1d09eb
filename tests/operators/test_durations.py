"""Durations: numbers, text, ``timedelta``, templates and outputs of other tasks."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators import (
    CdmStartJobOperator,
    CdmStopClusterOperator,
    CdmStopJobOperator,
)
from airflow_provider_cdm.sensors import CdmSubmissionSensor
from airflow_provider_cdm.simulator import CdmSimulator
from tests.operators.test_empty_places import NEEDED, TASKS, make
from tests.support.task_harness import TaskRunner

DURATIONS = {"poll_interval", "poke_interval", "wait_timeout", "timeout", "stalled_after", "delay"}
#: Each duration of each operator and sensor.
EVERY_DURATION = [
    (name, argument)
    for name, task in TASKS.items()
    for argument in sorted(DURATIONS & set(task.template_fields))
]
every_duration = pytest.mark.parametrize(("name", "argument"), EVERY_DURATION)


def rendered(task: Any, context: dict[str, Any] | None = None) -> Any:
    """Return a copy of a task with its fields rendered."""
    running = copy.copy(task)
    running.render_template_fields(context or {})
    return running


def test_every_operator_and_sensor_that_waits_has_durations() -> None:
    """The tests below cover all classes that wait."""
    waiting = {name for name, _ in EVERY_DURATION}
    assert waiting == {name for name in NEEDED if not name.endswith("LinkOperator")} - {
        *("CdmApplyJobOperator", "CdmCreateJobOperator", "CdmUpdateJobOperator"),
        "CdmDeleteJobOperator",
    }


@every_duration
@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (timedelta(minutes=1), 60),
        ("60", 60),
        (" 1.5 ", 1.5),
        (Decimal("7.5"), 7.5),
        (5, 5),
        ("{{ pause }}", 90),
        ("{% if true %}90{% endif %}", 90),
    ],
)
def test_duration_is_taken_in_every_form(
    given: Any, seconds: float, name: str, argument: str
) -> None:
    """A duration is a number, a number as text, a ``timedelta`` or a template."""
    task = rendered(make(name, **{argument: given}), {"pause": 90})
    task._settle_durations()
    assert getattr(task, argument) == seconds


@every_duration
@pytest.mark.parametrize(
    "given",
    [
        *(-1, "-1", "soon", "30s", "1e3", "0:05:00", True, [30], timedelta(seconds=-1)),
        *(float("nan"), float("inf"), "inf", "nan", ""),
    ],
    ids=repr,
)
def test_wrong_duration_is_refused_with_its_name(given: Any, name: str, argument: str) -> None:
    """A duration that cannot be used is an error when the DAG is parsed, and names the argument."""
    with pytest.raises(errors.CdmConfigError, match=f"^{argument} must be"):
        make(name, **{argument: given})


@every_duration
def test_wrong_rendered_duration_is_refused_with_its_name(
    name: str, argument: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """The same error comes from a template, before anything is sent."""
    with pytest.raises(errors.CdmConfigError, match=f"^{argument} must be"):
        task_runner.run(lambda: rendered(make(name, **{argument: "{{ it }}"}), {"it": "soon"}))
    assert sim.requests == []


def test_poll_interval_of_a_stop_cannot_be_left_out() -> None:
    """``None`` means no limit, and there is no poll without an interval. Of the other operators it
    means the default; see ``tests/test_poll_interval.py``.
    """
    with pytest.raises(errors.CdmConfigError, match=r"^poll_interval must be .*, not None"):
        make("CdmStopJobOperator", poll_interval=None)


@pytest.mark.parametrize("name", ["CdmStartJobOperator", "CdmStartClusterOperator"])
def test_poll_interval_that_renders_to_nothing_is_refused(name: str) -> None:
    """An interval that a template or another task was to give is not replaced by the default."""
    task = make(name, poll_interval="{{ it }}")
    task.poll_interval = None
    with pytest.raises(errors.CdmConfigError, match=r"^poll_interval must be .*, not None"):
        task._settle_durations()


@every_duration
def test_output_of_another_task_is_a_dependency(name: str, argument: str) -> None:
    """A duration may come from another task, which then runs first."""
    with DAG("d", schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC)):
        other = BaseOperator(task_id="other")
        task = make(name, **{argument: other.output})
    assert task.upstream_task_ids == {"other"}


def test_durations_work_where_they_are_used(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """Rendered durations reach the trigger as plain numbers."""
    sim.add_job("orders", seconds=60)
    arguments: dict[str, Any] = {
        "poll_interval": "{{ n }}", "wait_timeout": timedelta(hours=1), "stalled_after": "900",
    }  # fmt: skip
    task_runner.run(
        lambda: rendered(
            CdmStartJobOperator(task_id="t", job_name="orders", deferrable=True, **arguments),
            {"n": "20"},
        )
    )
    (sent,) = task_runner.deferrals
    assert (sent["poll_interval"], sent["stalled_after"]) == (20, 900)
    number = sim.start("orders").submission_id
    task_runner.run(
        lambda: rendered(
            CdmSubmissionSensor(
                task_id="t", job_name="orders", submission_id=number, deferrable=True,
                poke_interval="{{ n }}", timeout=timedelta(minutes=10),
            ),
            {"n": "20"},
        )
    )  # fmt: skip
    assert task_runner.deferrals[-1]["poll_interval"] == 20
    assert json.dumps(task_runner.deferrals)


def test_stop_without_a_time_limit(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A stop may wait as long as it takes."""
    sim.add_job("orders", seconds=600)
    sim.start("orders")
    result = task_runner.run(
        lambda: CdmStopJobOperator(task_id="t", job_name="orders", wait_timeout=None)
    )
    assert result["action"] == "stopped"


def test_delay_of_a_stop_may_be_a_timedelta(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """Runs that are active end after the delay."""
    sim.add_job("orders", seconds=3000)
    sim.start("orders")
    delay = timedelta(seconds=5)
    task_runner.run(lambda: CdmStopClusterOperator(task_id="t", delay=delay, only_if_idle=False))
    assert sim.runs("orders")[0].status == "FAILED"
