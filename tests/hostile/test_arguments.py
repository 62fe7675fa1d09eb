"""Arguments of any size and type, as templates and other tasks make them: errors that name them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators import (
    CdmApplyJobOperator,
    CdmStartJobOperator,
    CdmStopClusterOperator,
)
from airflow_provider_cdm.sensors import CdmClusterSensor, CdmSubmissionSensor
from airflow_provider_cdm.simulator import CdmSimulator
from tests.hostile.test_forks import ending
from tests.support.task_harness import TaskRunner

#: Numbers that are none, or that nothing can count to.
NUMBERS = {
    "400 digits": 10**400,
    "400 digits below 0": -(10**400),
    "5,000 digits": 10**5_000,
    "5,000 digits as text": "9" * 5_000,
    "a signaling NaN": Decimal("sNaN"),
    "NaN": Decimal("NaN"),
    "an infinite decimal": Decimal("Infinity"),
    "infinity": float("inf"),
    "a huge fraction": 1e300,
    "a complex number": 1j,
    "half a character": "\ud800",
    "bytes": b"5",
    "a list of 5,000 digits": [10**5_000],
    "an object": object(),
    "the longest time": timedelta.max,
}
TASKS: dict[str, tuple[Any, dict[str, Any]]] = {
    "start": (CdmStartJobOperator, {"job_name": "orders"}),
    "sensor": (CdmSubmissionSensor, {"job_name": "orders", "submission_id": 1}),
    "first run since": (CdmSubmissionSensor, {"job_name": "orders"}),
    "stop": (CdmStopClusterOperator, {}),
    "cluster": (CdmClusterSensor, {}),
}
ARGUMENTS = [
    ("start", "poll_interval"),
    ("start", "wait_timeout"),
    ("start", "stalled_after"),
    ("start", "if_running"),
    ("sensor", "poke_interval"),
    ("sensor", "timeout"),
    ("sensor", "submission_id"),
    ("first run since", "started_after"),
    ("stop", "delay"),
    ("stop", "stop_mode"),
    ("cluster", "state"),
]


@pytest.mark.parametrize("what", NUMBERS)
def test_numbers(what: str, sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """What is no number that can be meant is an error of the configuration with its name."""
    sim.add_job("orders")
    for task, argument in ARGUMENTS:
        operator, given = TASKS[task][0], {**TASKS[task][1], argument: NUMBERS[what]}
        text = refusal(task_runner, operator, given)
        assert argument in text, task
        assert len(text) < 1_000
    assert sim.runs("orders") == []


@pytest.mark.parametrize(("task", "argument"), ARGUMENTS)
def test_exponents(task: str, argument: str, sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A decimal with a huge exponent is refused, and not written out for hours."""
    operator, given = TASKS[task][0], {**TASKS[task][1], argument: Decimal("1e999999999")}
    end = ending(lambda: task_runner.run(lambda: operator(task_id="t", **given)))
    assert end.startswith("CdmConfigError: ")
    assert argument in end


def refusal(task_runner: TaskRunner, operator: Any, arguments: dict[str, Any]) -> str:
    """Return the text of the error of the configuration by which a task ends."""
    with pytest.raises(errors.CdmConfigError) as caught:
        task_runner.run(lambda: operator(task_id="t", **arguments))
    return str(caught.value)


def define(value: Any) -> dict[str, Any]:
    """Return the definition of a job whose input has some value."""
    inputs = [{"name": "fromJobConfig.a", "value": value}]
    ends = {
        f"{end}-{key}": value
        for end in ("from", "to")
        for key, value in (
            ("connector-name", "generic-jdbc-connector"),
            ("link-name", "shop"),
            ("config-values", {"configs": [{"name": "x", "inputs": inputs}]}),
        )
    }
    return {"name": "orders", **ends}


#: Values that no JSON can hold, or that Python cannot write.
VALUES = {
    "5,000 digits": 10**5_000,
    "a signaling NaN": Decimal("sNaN"),
    "an infinite decimal": Decimal("-Infinity"),
    "no number": float("nan"),
    "a list of 5,000 digits": [10**5_000],
    "a list of a signaling NaN": [Decimal("sNaN")],
    "a key of 5,000 digits": {10**5_000: 1},
    "a list of a complex number": [1j],
    "an object": object(),
    "bytes": b"x",
}


@pytest.mark.parametrize("what", VALUES)
def test_values_of_definitions(what: str, sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A value that cannot be sent is an error of the configuration, wherever it stands."""
    value = VALUES[what]
    for definition in (
        define(value),
        {**define("a"), "other": value},
        {**define("a"), "from-link-name": value},
        {**define("a"), "driver-config-values": {"other": value}},
    ):
        # As a person wrote it, and as CDM has shown it.
        for kind in ({}, {"creation-date": 1}):
            given = {"definition": {**definition, **kind}}
            assert len(refusal(task_runner, CdmApplyJobOperator, given)) < 1_000
    assert sim.requests == []


@pytest.mark.parametrize("what", [*VALUES, "an object in a list"])
def test_values_of_variables(what: str, sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A variable that cannot be sent is an error of the configuration with its name."""
    sim.add_job("orders")
    variables = {"day": VALUES.get(what, [object()])}
    given = {"job_name": "orders", "variables": variables}
    assert "'day' is " in refusal(task_runner, CdmStartJobOperator, given)
    assert sim.runs("orders") == []


@pytest.mark.parametrize(
    "instant",
    [
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
        datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-12))),
        Decimal("1e-999999999"),
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-12:00",
    ],
    ids=str,
)
def test_instants_beyond_the_calendar(
    instant: Any, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A time that is outside the calendar in UTC is an error of the configuration."""
    sim.add_job("orders")
    given = {"job_name": "orders", "started_after": instant}
    assert "started_after is " in refusal(task_runner, CdmSubmissionSensor, given)


def test_instants_within_the_calendar(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """The first and the last time of the calendar are times."""
    sim.add_job("orders", seconds=0)
    sim.start("orders")
    first = datetime(1, 1, 1, tzinfo=UTC)
    result = task_runner.run(
        lambda: CdmSubmissionSensor(task_id="t", job_name="orders", started_after=first)
    )
    assert result["status"] == "SUCCEEDED"
