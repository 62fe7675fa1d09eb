"""A cluster, a project or a connection whose template renders to nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_cdm import operators, sensors
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.simulator import CdmSimulator
from tests.operators.test_wrong_input import JOB, LINK
from tests.support.task_harness import TaskRunner

#: Arguments that each operator and sensor needs.
NEEDED: dict[str, dict[str, Any]] = {
    "CdmApplyJobOperator": {"definition": JOB},
    "CdmApplyLinkOperator": {"definition": LINK},
    "CdmClusterSensor": {},
    "CdmCreateJobOperator": {"definition": JOB},
    "CdmDeleteJobOperator": {"job_name": "a"},
    "CdmDeleteLinkOperator": {"link_name": "a"},
    "CdmRestartClusterOperator": {},
    "CdmRunJobOperator": {"definition": JOB},
    "CdmStartClusterOperator": {},
    "CdmStartJobOperator": {"job_name": "a"},
    "CdmStopClusterOperator": {},
    "CdmStopJobOperator": {"job_name": "a"},
    "CdmSubmissionSensor": {"job_name": "a", "submission_id": 1},
    "CdmUpdateJobOperator": {"definition": JOB},
}
TASKS = {
    name: getattr(module, name)
    for module in (operators, sensors)
    for name in module.__all__
    if name.startswith("Cdm")
}
PLACES = ["cluster_id", "project_id", "cdm_conn_id"]


def make(name: str, **arguments: Any) -> Any:
    """Make an operator or sensor."""
    return TASKS[name](task_id="t", **NEEDED[name], **arguments)


def test_every_operator_and_sensor_is_listed_here() -> None:
    """A new operator gets the tests below."""
    assert set(TASKS) == set(NEEDED)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", NEEDED)
def test_place_that_renders_to_nothing_is_an_error(
    name: str, place: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """An empty cluster, project or connection does not mean that of the connection or the default,
    and nothing is sent.
    """

    def render() -> Any:
        task = make(name, **{place: "{{ tenant.get('place', '') }}"})
        task.render_template_fields({"tenant": {}})
        return task

    with pytest.raises(errors.CdmConfigError, match=f"{place} was given, but it is ''"):
        task_runner.run(render)
    assert sim.requests == []


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("rendered", [None, "", "  ", "None"])
def test_whatever_nothing_looks_like_it_is_an_error(
    rendered: Any, place: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Native templates and the output of other tasks leave ``None``; other templates a text."""

    def render() -> Any:
        task = make("CdmStartJobOperator", **{place: "{{ it }}"})
        setattr(task, place, rendered)
        return task

    with pytest.raises(errors.CdmConfigError, match=f"{place} was given"):
        task_runner.run(render)
    assert sim.requests == []


@pytest.mark.parametrize("make_task", [lambda: make("CdmClusterSensor")])
def test_places_that_are_not_given_are_those_of_the_connection(
    make_task: Callable[[], Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Arguments that are not given mean the connection's cluster and project."""
    assert task_runner.run(make_task)["cluster_id"] == sim.cluster_id
