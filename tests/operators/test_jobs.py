"""The operators that create, update, apply, delete and stop jobs, against the simulator."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators import (
    CdmApplyJobOperator,
    CdmCreateJobOperator,
    CdmDeleteJobOperator,
    CdmStopJobOperator,
    CdmUpdateJobOperator,
)
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.support.task_harness import TaskRunner

JOB = "orders"
WHERE = "name = 'a b+c%' AND dt = '${dt}'"
DEFINING = (CdmCreateJobOperator, CdmUpdateJobOperator, CdmApplyJobOperator)


def config_block(block: str, **values: Any) -> dict[str, Any]:
    """Return a block of a definition with one configuration."""
    listed = [{"name": f"{block}.{name}", "value": value} for name, value in values.items()]
    return {"configs": [{"name": block, "inputs": listed}]}


def definition(where: str | None = WHERE, **driver: Any) -> dict[str, Any]:
    """Return the definition of a job between two databases."""
    source = {"tableName": "orders"} | ({} if where is None else {"whereClause": where})
    return {
        "name": JOB,
        "from-connector-name": "generic-jdbc-connector",
        "from-link-name": "shop",
        "from-config-values": config_block("fromJobConfig", **source),
        "to-connector-name": "generic-jdbc-connector",
        "to-link-name": "warehouse",
        "to-config-values": config_block("toJobConfig", tableName="orders"),
        "driver-config-values": config_block("throttlingConfig", **driver),
    }


@pytest.fixture(params=[False, True], ids=["plain", "encoded, with defaults"])
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return a configuration with two links that shows jobs in each form that CDM may show."""
    behaviour = {"encode_values": request.param, "default_inputs": request.param}
    links = [{"name": "shop"}, {"name": "warehouse"}]
    return {"behaviour": behaviour, "clusters": [{"name": "demo", "links": links}]}


def sent_routes(sim: CdmSimulator) -> list[str]:
    """Return the routes of the calls that CDM received, without logins and calls that only read."""
    read_routes = ("token", "show_job", "status")
    return [request.route for request in sim.requests if request.route not in read_routes]


def where_clause(sim: CdmSimulator) -> str:
    """Return the where clause of the definition that CDM last received."""
    body = [r.json() for r in sim.requests if r.route in ("create_job", "update_job")][-1]
    block = body["jobs"][0]["from-config-values"]["configs"][0]["inputs"]
    return str({entry["name"]: entry["value"] for entry in block}["fromJobConfig.whereClause"])


def expected_result(sim: CdmSimulator, action: str, *differences: str) -> dict[str, Any]:
    """Return the result that an operator should return."""
    return {
        "cluster_id": sim.cluster_id,
        "job_name": JOB,
        "action": action,
        "differences": list(differences),
    }


def test_create_makes_the_job_and_a_second_attempt_changes_nothing(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """The job is created and not started, and a second attempt finds it unchanged."""
    for action in ("created", "unchanged"):
        result = task_runner.run(lambda: CdmCreateJobOperator(task_id="t", definition=definition()))
        assert result == expected_result(sim, action)
    assert (sim.jobs(), sim.runs(JOB)) == ([JOB], [])


def test_create_refuses_to_change_a_job_of_the_same_name(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """An existing job that differs is not changed, and the error names the differences and what the
    user can do.
    """
    task_runner.run(lambda: CdmCreateJobOperator(task_id="t", definition=definition("a = 1")))
    with pytest.raises(errors.CdmAlreadyExists) as raised:
        task_runner.run(lambda: CdmCreateJobOperator(task_id="t", definition=definition()))
    assert "fromJobConfig.whereClause is 'a" in str(raised.value)
    assert "update the existing job" in str(raised.value)
    assert sent_routes(sim) == ["create_job", "create_job"]


@pytest.mark.parametrize("operator", DEFINING)
@pytest.mark.parametrize("when", ["before", "after"])
def test_lost_answer_leaves_the_job_as_defined(
    operator: Any, when: Any, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Whether the request or its answer is lost, the job is as defined afterwards."""
    route = "create_job"
    if operator is not CdmCreateJobOperator:
        task_runner.run(lambda: CdmCreateJobOperator(task_id="t", definition=definition("a = 1")))
        route = "update_job"
    sim.fail(route, "drop", when)
    task_runner.run(lambda: operator(task_id="t", definition=definition()))
    unchanged = task_runner.run(lambda: CdmApplyJobOperator(task_id="t", definition=definition()))
    assert unchanged == expected_result(sim, "unchanged")


def test_update_replaces_the_definition(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """The complete definition is replaced."""
    task_runner.run(lambda: CdmCreateJobOperator(task_id="t", definition=definition("a = 1")))
    result = task_runner.run(lambda: CdmUpdateJobOperator(task_id="t", definition=definition()))
    assert result == expected_result(sim, "updated")
    assert where_clause(sim) == WHERE


def test_update_of_a_missing_job_raises_not_found(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A job that does not exist cannot be updated; CDM's error code is read although its sample has
    a digit too many.
    """
    with pytest.raises(errors.CdmNotFound, match=r"Cdm\.0095"):
        task_runner.run(lambda: CdmUpdateJobOperator(task_id="t", definition=definition()))


@pytest.mark.parametrize("operator", [CdmUpdateJobOperator, CdmApplyJobOperator])
def test_update_of_a_running_job_raises_in_use(
    operator: Any, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """CDM's refusal to update a running job is a typed error that says what to wait for."""
    task_runner.run(lambda: CdmCreateJobOperator(task_id="t", definition=definition("a = 1")))
    sim.start(JOB)
    with pytest.raises(errors.CdmInUse, match="wait until those runs have ended"):
        task_runner.run(lambda: operator(task_id="t", definition=definition()))


def test_apply_creates_then_does_nothing_then_updates(
    sim: CdmSimulator, task_runner: TaskRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """Apply creates the job, does nothing when it is as defined, and updates what differs, and the
    result says which.
    """
    apply = CdmApplyJobOperator
    assert task_runner.run(lambda: apply(task_id="t", definition=definition())) == expected_result(
        sim, "created"
    )
    reordered = definition()
    reordered["from-config-values"]["configs"][0]["inputs"].reverse()
    assert task_runner.run(lambda: apply(task_id="t", definition=reordered)) == expected_result(
        sim, "unchanged"
    )
    caplog.set_level(logging.INFO)
    changed = definition("b = 2", numExtractors=4)
    names = ["fromJobConfig.whereClause", "throttlingConfig.numExtractors"]
    assert task_runner.run(lambda: apply(task_id="t", definition=changed)) == expected_result(
        sim, "updated", *names
    )
    assert sent_routes(sim) == ["create_job", "update_job"]
    assert task_runner.run(lambda: apply(task_id="t", definition=changed)) == expected_result(
        sim, "unchanged"
    )


def test_apply_keeps_inputs_that_the_definition_does_not_name(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """An input that the definition does not name keeps its value, and an empty value clears it."""
    apply = CdmApplyJobOperator
    task_runner.run(lambda: apply(task_id="t", definition=definition()))
    left_out = task_runner.run(lambda: apply(task_id="t", definition=definition(None)))
    assert left_out == expected_result(sim, "unchanged")
    cleared = task_runner.run(lambda: apply(task_id="t", definition=definition("")))
    assert cleared == expected_result(sim, "updated", "fromJobConfig.whereClause")
    assert where_clause(sim) == ""


def test_apply_accepts_a_job_created_by_somebody_else_meanwhile(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A job that somebody else creates between the read and the create is accepted when it is as
    defined.
    """
    task_runner.run(lambda: CdmCreateJobOperator(task_id="t", definition=definition()))
    not_found_body = {"errCode": "Cdm.0100", "externalMessage": "Job[orders] doesn't exist."}
    sim.fail("show_job", "status", status=400, body=not_found_body)
    result = task_runner.run(lambda: CdmApplyJobOperator(task_id="t", definition=definition()))
    assert result == expected_result(sim, "unchanged")


def test_delete_removes_the_job_and_accepts_an_absent_one(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A job is deleted, and deleting a job that is already gone succeeds with another result."""
    sim.add_job(JOB)
    for action in ("deleted", "absent"):
        result = task_runner.run(lambda: CdmDeleteJobOperator(task_id="t", job_name=JOB))
        assert result == {"cluster_id": sim.cluster_id, "job_name": JOB, "action": action}
    assert sim.jobs() == []


def test_delete_fails_when_the_api_is_unknown(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A 404 for an unknown API does not mean that the job is gone, so the task fails."""
    sim.add_job(JOB)
    unknown_api_body = {"error_code": "APIGW.0101", "error_msg": "The API does not exist"}
    sim.fail("delete_job", "status", status=404, body=unknown_api_body)
    with pytest.raises(errors.CdmNotFound):
        task_runner.run(lambda: CdmDeleteJobOperator(task_id="t", job_name=JOB))
    assert sim.jobs() == [JOB]


def test_delete_refuses_a_running_job_until_it_is_stopped(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A running job is not deleted until its run is stopped."""
    sim.add_job(JOB, seconds=1000)
    sim.start(JOB)
    with pytest.raises(errors.CdmInUse):
        task_runner.run(lambda: CdmDeleteJobOperator(task_id="t", job_name=JOB))
    task_runner.run(lambda: CdmStopJobOperator(task_id="t", job_name=JOB))
    task_runner.run(lambda: CdmDeleteJobOperator(task_id="t", job_name=JOB))
    assert sim.jobs() == []


def test_stop_ends_the_active_run_and_waits_for_its_end(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """The active run is stopped, whoever started it, and has ended when the task ends."""
    sim.add_job(JOB, seconds=1000)
    sim.start(JOB)
    result = task_runner.run(lambda: CdmStopJobOperator(task_id="t", job_name=JOB))
    assert (result["action"], result["submission"]["status"]) == ("stopped", "STOPPED")
    assert sim.runs(JOB)[0].status == "STOPPED"


def test_stop_returns_at_once_without_wait_for_completion(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """With ``wait_for_completion=False`` the task ends as soon as CDM has accepted the stop."""
    sim.add_job(JOB, seconds=1000)
    sim.start(JOB)
    operator = CdmStopJobOperator(task_id="t", job_name=JOB, wait_for_completion=False)
    assert task_runner.run(lambda: operator)["submission"]["status"] == "BOOTING"


@pytest.mark.parametrize("was_started", [False, True])
def test_stop_of_an_idle_job_sends_nothing(
    was_started: bool, sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """Stopping a job that is not running or never ran succeeds and sends no stop."""
    sim.add_job(JOB)
    if was_started:
        sim.start(JOB)
        clock.advance(100)
    result = task_runner.run(lambda: CdmStopJobOperator(task_id="t", job_name=JOB))
    assert (result["action"], result["submission"]) == ("not running", None)
    assert sent_routes(sim) == []


def test_stop_succeeds_when_the_run_ends_first(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A run that ends between the status call and the stop is a success."""
    sim.add_job(JOB, seconds=1000)
    sim.start(JOB)
    not_running_body = {"errCode": "Cdm.0053", "externalMessage": "Job is not running"}
    sim.fail("stop", "status", status=400, body=not_running_body)
    result = task_runner.run(lambda: CdmStopJobOperator(task_id="t", job_name=JOB))
    assert result["action"] == "not running"


def test_stop_of_an_unknown_job_raises_not_found(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Stopping a job that does not exist is an error, since the name is probably misspelled."""
    with pytest.raises(errors.CdmNotFound, match="Check the spelling"):
        task_runner.run(lambda: CdmStopJobOperator(task_id="t", job_name=JOB))


def test_wait_for_a_stop_times_out(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """The wait for the end of a stopped run ends after ``wait_timeout``."""
    sim.add_job(JOB, statuses=["RUNNING"])
    sim.start(JOB)
    sim.fail("stop", "body", body="{}")
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: CdmStopJobOperator(task_id="t", job_name=JOB, wait_timeout=30))


@pytest.mark.parametrize(
    ("operator", "fields"),
    [
        *((operator, {"definition", "job_name"}) for operator in DEFINING),
        (CdmDeleteJobOperator, {"job_name"}),
        (CdmStopJobOperator, {"job_name", "poll_interval", "wait_timeout"}),
    ],
)
def test_templated_fields(operator: Any, fields: set[str]) -> None:
    """The fields that name the job are templated, and so are cluster, project and connection."""
    assert set(operator.template_fields) == fields | {"cluster_id", "project_id", "cdm_conn_id"}
