"""What users read when they give an operator or cluster sensor wrong arguments."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators import (
    CdmApplyJobOperator,
    CdmApplyLinkOperator,
    CdmCreateJobOperator,
    CdmDeleteJobOperator,
    CdmDeleteLinkOperator,
    CdmRestartClusterOperator,
    CdmRunJobOperator,
    CdmStartClusterOperator,
    CdmStopClusterOperator,
    CdmStopJobOperator,
    CdmUpdateJobOperator,
)
from airflow_provider_cdm.sensors import CdmClusterSensor
from airflow_provider_cdm.simulator import CdmSimulator
from tests.support.task_harness import TaskRunner

BLOCK = {"configs": [{"name": "c", "inputs": [{"name": "c.a", "value": "b"}]}]}
JOB = {
    "name": "orders",
    "from-connector-name": "generic-jdbc-connector",
    "from-link-name": "shop",
    "from-config-values": BLOCK,
    "to-connector-name": "generic-jdbc-connector",
    "to-link-name": "warehouse",
    "to-config-values": BLOCK,
}
LINK = {"name": "shop", "connector-name": "generic-jdbc-connector", "link-config-values": BLOCK}
DEFINING = [CdmCreateJobOperator, CdmUpdateJobOperator, CdmApplyJobOperator]
NULL = {"configs": [{"name": "c", "inputs": [{"name": "c.a", "value": None}]}]}

#: Invalid without asking CDM: operators, their arguments, part of the error message.
INVALID_ARGUMENTS: list[tuple[list[Any], dict[str, Any], str]] = [
    ([*DEFINING, CdmRunJobOperator], {"definition": None}, "not NoneType"),
    ([*DEFINING, CdmRunJobOperator], {"definition": {}}, "name is missing; from-connector-name"),
    ([*DEFINING, CdmRunJobOperator], {"definition": "name: a: b"}, "it is not valid YAML"),
    ([*DEFINING, CdmRunJobOperator], {"definition": {"jobs": [JOB, JOB]}}, "exactly one job"),
    ([*DEFINING, CdmRunJobOperator], {"definition": LINK}, "from-config-values is missing"),
    (
        [*DEFINING, CdmRunJobOperator],
        {"definition": {**JOB, "to-config-values": NULL, "to-link-name": ""}},
        "'orders' cannot be sent to CDM: to-link-name must be text, but is empty; 'c.a' is null",
    ),
    ([*DEFINING, CdmRunJobOperator], {"definition": JOB, "cluster_id": 5}, "cluster_id must be"),
    (DEFINING, {"definition": JOB, "job_name": "b"}, "its name is 'orders', but job_name is 'b'"),
    (DEFINING, {"definition": JOB, "job_name": ""}, "job_name was given, but it is ''"),
    ([CdmApplyLinkOperator], {"definition": LINK, "link_name": " "}, "link_name was given, but"),
    ([CdmRunJobOperator], {"definition": JOB, "variables": {"a": None}}, "'a' is None"),
    ([CdmDeleteJobOperator, CdmStopJobOperator], {"job_name": ""}, "rendered to an empty text"),
    ([CdmDeleteJobOperator, CdmStopJobOperator], {"job_name": "a" * 241}, "241 characters"),
    ([CdmApplyLinkOperator], {"definition": JOB}, "connector-name is missing; link-config-values"),
    ([CdmApplyLinkOperator], {"definition": LINK, "link_name": "b"}, "link_name is 'b'"),
    ([CdmApplyLinkOperator], {"definition": {"links": []}}, "exactly one link, not 0"),
    ([CdmDeleteLinkOperator], {"link_name": None}, "link_name must be text"),
    (
        [CdmClusterSensor],
        {"state": "running"},
        "There is no cluster state 'running'; the states are",
    ),
    ([CdmStartClusterOperator, CdmStopClusterOperator], {"poll_interval": 0}, "above 0 s"),
    ([CdmStartClusterOperator, CdmStopClusterOperator], {"wait_timeout": -1}, "above 0 s"),
    ([CdmStopJobOperator], {"job_name": "a", "wait_timeout": 0}, "wait_timeout must be above"),
    ([CdmStopClusterOperator], {"stop_mode": "now"}, "'graceful' or 'immediate', not 'now'"),
    (
        [CdmRestartClusterOperator],
        {"restart_mode": "hard"},
        "'immediate', 'soft' or 'force', not 'hard'",
    ),
    ([CdmStopClusterOperator], {"delay": 0}, "delay must be above 0 s"),
    (
        [CdmStopClusterOperator],
        {"delay": 5, "stop_mode": "immediate"},
        "needs stop_mode='graceful'",
    ),
]
#: Refused by CDM: operators, their arguments, class of the error, pattern of its message.
REFUSED_BY_CDM: list[tuple[list[Any], dict[str, Any], type[errors.CdmError], str]] = [
    (
        [*DEFINING[::2], CdmRunJobOperator],
        {"definition": JOB},
        errors.CdmNotFound,
        r"Link \[shop\] doesn't exist. Could not create job 'orders.* \(Cdm.0101",
    ),
    ([CdmUpdateJobOperator], {"definition": JOB}, errors.CdmNotFound, "Check the spelling"),
    ([CdmStopJobOperator], {"job_name": "a"}, errors.CdmNotFound, r"Job\[a\] doesn't exist"),
    (
        [CdmStartClusterOperator, CdmStopClusterOperator, CdmClusterSensor],
        {"cluster_id": "nowhere"},
        errors.CdmNotFound,
        r"Could not read the state of cluster nowhere.*Clusters of this project: .* \(demo\)",
    ),
    (
        [CdmDeleteJobOperator, CdmStopJobOperator],
        {"job_name": "a", "cluster_id": "nowhere"},
        errors.CdmRefused,
        "Cluster nowhere does not exist",
    ),
    (
        [CdmDeleteJobOperator, CdmStopJobOperator],
        {"job_name": "a", "project_id": "0" * 32},
        errors.CdmConfigError,
        "Could not find project: 0000",
    ),
]


def expand_operators(table: list[Any]) -> list[Any]:
    """Return one test case for each operator of each row."""
    return [
        pytest.param(operator, *row[1:], id=f"{operator.__name__}-{number}")
        for number, row in enumerate(table)
        for operator in row[0]
    ]


@pytest.mark.parametrize(("operator", "arguments", "message"), expand_operators(INVALID_ARGUMENTS))
def test_invalid_arguments_raise_before_anything_is_sent(
    operator: Any,
    arguments: dict[str, Any],
    message: str,
    sim: CdmSimulator,
    task_runner: TaskRunner,
) -> None:
    """Invalid arguments raise one clear error when the DAG is parsed or when the task begins, and
    nothing is sent.
    """
    with pytest.raises(errors.CdmConfigError) as raised:
        task_runner.run(lambda: operator(task_id="t", **arguments))
    assert message in str(raised.value)
    assert sim.requests == []


@pytest.mark.parametrize(
    ("operator", "arguments", "error_class", "message"), expand_operators(REFUSED_BY_CDM)
)
def test_refusal_of_cdm_raises_a_typed_error(
    operator: Any,
    arguments: dict[str, Any],
    error_class: type[errors.CdmError],
    message: str,
    sim: CdmSimulator,
    task_runner: TaskRunner,
) -> None:
    """What CDM refuses is a typed error that says what was tried, what came back and what to do."""
    with pytest.raises(error_class, match=message):
        task_runner.run(lambda: operator(task_id="t", **arguments))
