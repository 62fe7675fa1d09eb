"""Every kind of credentials, from the connection to the end of a run, on worker and triggerer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmSubmissionSensor
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.support.credentials import ACCOUNT, KINDS

JOB = "orders"


@pytest.fixture
def sim(clock: ManualClock) -> Iterator[CdmSimulator]:
    """A simulator where every kind is good, and whose tokens live for ten minutes."""
    with CdmSimulator({**ACCOUNT, "token_seconds": 600}, clock=clock) as simulator:
        for cluster in simulator.config.clusters:
            simulator.add_job(JOB, cluster.id, seconds=1500)
        yield simulator


@pytest.fixture(params=list(KINDS))
def connection(
    request: pytest.FixtureRequest,
    sim: CdmSimulator,
    cdm_default: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Any]:
    """The connection ``cdm_default`` with one kind of credentials."""
    made = KINDS[request.param](sim)
    monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", json.dumps(made))
    return made


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "triggerer"])
def test_start_and_wait(
    deferrable: bool, connection: dict[str, Any], sim: CdmSimulator, task_runner: Any
) -> None:
    """A run is started and followed over the end of tokens, in the project that is meant."""
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
    assert {one.status for one in sim.requests} <= {200, 201}
    by_keys = "agency_name" not in connection["extra"] and not connection["extra"].get(
        "domain_name"
    )
    assert all("authorization" in one.headers for one in sim.requests) is by_keys
    assert bool(task_runner.deferrals) is deferrable


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
    """Neither trigger arguments nor events nor results nor XComs hold a secret or a token."""
    task_runner.run(
        lambda: CdmStartJobOperator(
            task_id="move", job_name=JOB, wait_for_completion=True, deferrable=True
        )
    )
    shown = json.dumps([task_runner.deferrals, task_runner.events, task_runner.ti.xcoms])
    extra = connection["extra"]
    secrets = [connection.get("password"), extra.get("secret_key"), extra.get("security_token")]
    tokens = [one.headers.get("x-auth-token") for one in sim.requests]
    assert not [secret for secret in (*secrets, *tokens) if secret and secret in shown]
