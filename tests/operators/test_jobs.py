"""Operators that create, change, delete and stop jobs, against the simulator."""

from __future__ import annotations

import logging
from collections.abc import Iterator
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


def inputs(block: str, **values: Any) -> dict[str, Any]:
    """A block with one configuration."""
    listed = [{"name": f"{block}.{name}", "value": value} for name, value in values.items()]
    return {"configs": [{"name": block, "inputs": listed}]}


def definition(where: str | None = WHERE, **driver: Any) -> dict[str, Any]:
    """A job between databases."""
    source = {"tableName": "orders"} | ({} if where is None else {"whereClause": where})
    return {
        "name": JOB,
        "from-connector-name": "generic-jdbc-connector",
        "from-link-name": "shop",
        "from-config-values": inputs("fromJobConfig", **source),
        "to-connector-name": "generic-jdbc-connector",
        "to-link-name": "warehouse",
        "to-config-values": inputs("toJobConfig", tableName="orders"),
        "driver-config-values": inputs("throttlingConfig", **driver),
    }


@pytest.fixture(params=[False, True], ids=["plain", "encoded, with defaults"])
def sim(request: pytest.FixtureRequest, clock: ManualClock) -> Iterator[CdmSimulator]:
    """A cluster with two links, which shows jobs in both of the ways that CDM may have."""
    behaviour = {"encode_values": request.param, "default_inputs": request.param}
    links = [{"name": "shop"}, {"name": "warehouse"}]
    config = {"behaviour": behaviour, "clusters": [{"name": "demo", "links": links}]}
    with CdmSimulator(config, clock=clock) as simulator:
        yield simulator


def sent(sim: CdmSimulator) -> list[str]:
    """What was asked of CDM, without the token and what only looks."""
    looks = ("token", "show_job", "status")
    return [request.route for request in sim.requests if request.route not in looks]


def where_clause(sim: CdmSimulator) -> str:
    """The where clause that CDM was last given."""
    body = [r.json() for r in sim.requests if r.route in ("create_job", "update_job")][-1]
    block = body["jobs"][0]["from-config-values"]["configs"][0]["inputs"]
    return str({each["name"]: each["value"] for each in block}["fromJobConfig.whereClause"])


def done(sim: CdmSimulator, action: str, *differences: str) -> dict[str, Any]:
    """What an operator returns."""
    return {
        "cluster_id": sim.cluster_id,
        "job_name": JOB,
        "action": action,
        "differences": list(differences),
    }


def test_create(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """The job is there and not started; a second attempt finds it as it is defined."""
    for action in ("created", "unchanged"):
        made = task_runner.run(lambda: CdmCreateJobOperator(task_id="t", definition=definition()))
        assert made == done(sim, action)
    assert (sim.jobs(), sim.runs(JOB)) == ([JOB], [])


def test_create_of_another_job_with_that_name(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A job that differs is not touched; the error says what differs and what may be done."""
    task_runner.run(lambda: CdmCreateJobOperator(task_id="t", definition=definition("a = 1")))
    with pytest.raises(errors.CdmAlreadyExists) as refusal:
        task_runner.run(lambda: CdmCreateJobOperator(task_id="t", definition=definition()))
    assert "fromJobConfig.whereClause is 'a" in str(refusal.value)
    assert "update what exists" in str(refusal.value)
    assert sent(sim) == ["create_job", "create_job"]


@pytest.mark.parametrize("operator", DEFINING)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_answer(
    operator: Any, when: Any, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Whichever answer is lost, on its way there or back, the job is as defined in the end."""
    route = "create_job"
    if operator is not CdmCreateJobOperator:
        task_runner.run(lambda: CdmCreateJobOperator(task_id="t", definition=definition("a = 1")))
        route = "update_job"
    sim.fail(route, "drop", when)
    task_runner.run(lambda: operator(task_id="t", definition=definition()))
    unchanged = task_runner.run(lambda: CdmApplyJobOperator(task_id="t", definition=definition()))
    assert unchanged == done(sim, "unchanged")


def test_update(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """The whole definition is replaced, whatever it was."""
    task_runner.run(lambda: CdmCreateJobOperator(task_id="t", definition=definition("a = 1")))
    made = task_runner.run(lambda: CdmUpdateJobOperator(task_id="t", definition=definition()))
    assert made == done(sim, "updated")
    assert where_clause(sim) == WHERE


def test_update_of_a_missing_job(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """There is nothing to update; the code is read although its sample has a digit too many."""
    with pytest.raises(errors.CdmNotFound, match=r"Cdm\.0095"):
        task_runner.run(lambda: CdmUpdateJobOperator(task_id="t", definition=definition()))


@pytest.mark.parametrize("operator", [CdmUpdateJobOperator, CdmApplyJobOperator])
def test_update_of_a_running_job(operator: Any, sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """CDM's refusal is typed, and says what to wait for."""
    task_runner.run(lambda: CdmCreateJobOperator(task_id="t", definition=definition("a = 1")))
    sim.start(JOB)
    with pytest.raises(errors.CdmInUse, match="wait for those runs"):
        task_runner.run(lambda: operator(task_id="t", definition=definition()))


def test_apply(
    sim: CdmSimulator, task_runner: TaskRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """Apply creates, then does nothing, then updates what differs; log and result say which."""
    apply = CdmApplyJobOperator
    assert task_runner.run(lambda: apply(task_id="t", definition=definition())) == done(
        sim, "created"
    )
    reordered = definition()
    reordered["from-config-values"]["configs"][0]["inputs"].reverse()
    assert task_runner.run(lambda: apply(task_id="t", definition=reordered)) == done(
        sim, "unchanged"
    )
    caplog.set_level(logging.INFO)
    changed = definition("b = 2", numExtractors=4)
    names = ["fromJobConfig.whereClause", "throttlingConfig.numExtractors"]
    assert task_runner.run(lambda: apply(task_id="t", definition=changed)) == done(
        sim, "updated", *names
    )
    assert sent(sim) == ["create_job", "update_job"]
    assert task_runner.run(lambda: apply(task_id="t", definition=changed)) == done(sim, "unchanged")


def test_what_a_definition_does_not_name(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """An input that is left out stays as it is; one with an empty value is cleared."""
    apply = CdmApplyJobOperator
    task_runner.run(lambda: apply(task_id="t", definition=definition()))
    left_out = task_runner.run(lambda: apply(task_id="t", definition=definition(None)))
    assert left_out == done(sim, "unchanged")
    cleared = task_runner.run(lambda: apply(task_id="t", definition=definition("")))
    assert cleared == done(sim, "updated", "fromJobConfig.whereClause")
    assert where_clause(sim) == ""


def test_apply_while_another_creates(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """When somebody creates the same job between the look and the create, that is fine."""
    task_runner.run(lambda: CdmCreateJobOperator(task_id="t", definition=definition()))
    not_there = {"errCode": "Cdm.0100", "externalMessage": "Job[orders] doesn't exist."}
    sim.fail("show_job", "status", status=400, body=not_there)
    made = task_runner.run(lambda: CdmApplyJobOperator(task_id="t", definition=definition()))
    assert made == done(sim, "unchanged")


def test_delete(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A job is deleted; one that is gone is a success, which the result tells apart."""
    sim.add_job(JOB)
    for action in ("deleted", "absent"):
        made = task_runner.run(lambda: CdmDeleteJobOperator(task_id="t", job_name=JOB))
        assert made == {"cluster_id": sim.cluster_id, "job_name": JOB, "action": action}
    assert sim.jobs() == []


def test_delete_at_a_wrong_address(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """That an address is unknown does not mean that the job is gone."""
    sim.add_job(JOB)
    unknown = {"error_code": "APIGW.0101", "error_msg": "The API does not exist"}
    sim.fail("delete_job", "status", status=404, body=unknown)
    with pytest.raises(errors.CdmNotFound):
        task_runner.run(lambda: CdmDeleteJobOperator(task_id="t", job_name=JOB))
    assert sim.jobs() == [JOB]


def test_delete_of_a_running_job(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A job that runs is not deleted; stopped before, it is."""
    sim.add_job(JOB, seconds=1000)
    sim.start(JOB)
    with pytest.raises(errors.CdmInUse):
        task_runner.run(lambda: CdmDeleteJobOperator(task_id="t", job_name=JOB))
    task_runner.run(lambda: CdmStopJobOperator(task_id="t", job_name=JOB))
    task_runner.run(lambda: CdmDeleteJobOperator(task_id="t", job_name=JOB))
    assert sim.jobs() == []


def test_stop(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """The active run is stopped, whoever started it, and has ended when the task has."""
    sim.add_job(JOB, seconds=1000)
    sim.start(JOB)
    made = task_runner.run(lambda: CdmStopJobOperator(task_id="t", job_name=JOB))
    assert (made["action"], made["submission"]["status"]) == ("stopped", "STOPPED")
    assert sim.runs(JOB)[0].status == "STOPPED"


def test_stop_without_waiting(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """On request the task ends as soon as CDM has taken the stop."""
    sim.add_job(JOB, seconds=1000)
    sim.start(JOB)
    operator = CdmStopJobOperator(task_id="t", job_name=JOB, wait_for_completion=False)
    assert task_runner.run(lambda: operator)["submission"]["status"] == "BOOTING"


@pytest.mark.parametrize("ran", [False, True])
def test_stop_of_what_has_ended(
    ran: bool, sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """A job that does not run, or never did, is a success; nothing is sent."""
    sim.add_job(JOB)
    if ran:
        sim.start(JOB)
        clock.advance(100)
    made = task_runner.run(lambda: CdmStopJobOperator(task_id="t", job_name=JOB))
    assert (made["action"], made["submission"]) == ("not running", None)
    assert sent(sim) == []


def test_stop_of_a_run_that_ends_by_itself(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A run that ends between the look and the stop is a success as well."""
    sim.add_job(JOB, seconds=1000)
    sim.start(JOB)
    over = {"errCode": "Cdm.0053", "externalMessage": "Job is not running"}
    sim.fail("stop", "status", status=400, body=over)
    made = task_runner.run(lambda: CdmStopJobOperator(task_id="t", job_name=JOB))
    assert made["action"] == "not running"


def test_stop_of_an_unknown_job(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A job that does not exist cannot be stopped: that is most probably a slip of the pen."""
    with pytest.raises(errors.CdmNotFound, match="Check the spelling"):
        task_runner.run(lambda: CdmStopJobOperator(task_id="t", job_name=JOB))


def test_a_stop_that_takes_too_long(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """Waiting for the end of a stopped run has a limit."""
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
        (CdmStopJobOperator, {"job_name"}),
    ],
)
def test_templated_fields(operator: Any, fields: set[str]) -> None:
    """What names the work is templated, and so are cluster, project and connection."""
    assert set(operator.template_fields) == fields | {"cluster_id", "project_id", "cdm_conn_id"}
