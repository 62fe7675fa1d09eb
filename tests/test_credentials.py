"""Every kind of credentials, from the connection to the end of a run, on worker and triggerer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_cdm.exceptions import CdmAuthError
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmSubmissionSensor
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.support.credentials import ACCOUNT, CONNECTIONS

JOB = "orders"


@pytest.fixture
def sim(clock: ManualClock) -> Iterator[CdmSimulator]:
    """Return a simulator that accepts every kind, and whose tokens are valid for ten minutes."""
    with CdmSimulator({**ACCOUNT, "token_seconds": 600}, clock=clock) as simulator:
        for cluster in simulator.config.clusters:
            simulator.add_job(JOB, cluster.id, seconds=1500)
        yield simulator


@pytest.fixture(params=list(CONNECTIONS))
def connection(
    request: pytest.FixtureRequest,
    sim: CdmSimulator,
    cdm_default: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Any]:
    """Return the connection ``cdm_default`` with one kind of credentials."""
    connection = CONNECTIONS[request.param](sim)
    monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", json.dumps(connection))
    return connection


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "triggerer"])
def test_start_and_wait(
    deferrable: bool, connection: dict[str, Any], sim: CdmSimulator, task_runner: Any
) -> None:
    """A run is started and followed while tokens expire, in the right project."""
    result = task_runner.run(
        lambda: CdmStartJobOperator(
            task_id="move",
            job_name=JOB,
            wait_for_completion=True,
            deferrable=deferrable,
            poll_interval=60,
        )
    )
    cluster_id = connection["extra"]["cluster_id"]
    assert (result["status"], result["cluster_id"]) == ("SUCCEEDED", cluster_id)
    assert [run.status for run in sim.runs(JOB, cluster_id)] == ["SUCCEEDED"]
    assert {request.status for request in sim.requests} <= {200, 201}
    signed = "agency_name" not in connection["extra"] and not connection["extra"].get("domain_name")
    assert all("authorization" in request.headers for request in sim.requests) is signed
    assert bool(task_runner.deferrals) is deferrable


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "triggerer"])
def test_a_policy_ends_a_wait_as_a_missing_permission_does(
    deferrable: bool,
    connection: dict[str, Any],
    sim: CdmSimulator,
    clock: ManualClock,
    task_runner: Any,
) -> None:
    """A wait that a policy forbids ends at once, and the credentials can still be used."""
    body = {"error": {"code": "EPS.0003", "message": "Policy doesn't allow it."}}
    sim.fail("status", "status", status=401, body=body)
    began = clock.now()
    with pytest.raises(CdmAuthError, match="a policy refuses the call"):
        task_runner.run(
            lambda: CdmStartJobOperator(
                task_id="move", job_name=JOB, wait_for_completion=True, deferrable=deferrable
            )
        )
    assert clock.now() - began < 120
    assert CdmHook().stop_job(JOB)


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "triggerer"])
def test_sensor(
    deferrable: bool, connection: dict[str, Any], sim: CdmSimulator, task_runner: Any
) -> None:
    """A sensor waits for a run that was started elsewhere."""
    run = CdmHook().start_job(JOB)
    result = task_runner.run(
        lambda: CdmSubmissionSensor(
            task_id="wait", submission=run.to_dict(), deferrable=deferrable, poke_interval=60
        )
    )
    assert (result["submission_id"], result["status"]) == (run.submission_id, "SUCCEEDED")


def test_nothing_secret_leaves_the_session(
    connection: dict[str, Any], sim: CdmSimulator, task_runner: Any
) -> None:
    """Trigger arguments, events, results and XComs contain no secret and no token."""
    task_runner.run(
        lambda: CdmStartJobOperator(
            task_id="move", job_name=JOB, wait_for_completion=True, deferrable=True
        )
    )
    shown = json.dumps([task_runner.deferrals, task_runner.events, task_runner.ti.xcoms])
    extra = connection["extra"]
    secrets = [connection.get("password"), extra.get("secret_key"), extra.get("security_token")]
    tokens = [request.headers.get("x-auth-token") for request in sim.requests]
    assert not [secret for secret in (*secrets, *tokens) if secret and secret in shown]
