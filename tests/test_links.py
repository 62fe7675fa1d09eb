"""The button "CDM run": where it leads, and from when on."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from airflow_provider_cdm._compat import AirflowSensorTimeout
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators import CdmRunJobOperator, CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmSubmissionSensor
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.support.task_harness import TaskRunner

JOB = "orders"
START: dict[str, dict[str, Any]] = {
    "start only": {"wait_for_completion": False, "deferrable": False},
    "on the worker": {"wait_for_completion": True, "deferrable": False},
    "deferred": {"wait_for_completion": True, "deferrable": True},
}
SENSOR: dict[str, dict[str, Any]] = {
    "poke": {"deferrable": False, "mode": "poke"},
    "reschedule": {"deferrable": False, "mode": "reschedule"},
    "deferred": {"deferrable": True},
}


@pytest.fixture
def pushed(
    sim: CdmSimulator, task_runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[str, bool]]:
    """The addresses that a task leaves, and whether the run was active then."""
    found: list[tuple[str, bool]] = []
    keep = task_runner.ti.xcom_push

    def push(key: str, value: Any) -> None:
        keep(key, value)
        if key == "cdm_run_link":
            job = value.split("/jobs/")[1].split("/")[0]
            found.append((value, sim.runs(job)[-1].active))

    monkeypatch.setattr(task_runner.ti, "xcom_push", push)
    return found


def start(**arguments: Any) -> CdmStartJobOperator:
    """Make a task that starts."""
    return CdmStartJobOperator(**{"task_id": "t", "job_name": JOB, **arguments})


def shown(address: str) -> str:
    """What a person sees who clicks."""
    answer = requests.get(address, timeout=10)
    assert answer.status_code == 200
    return answer.text


@pytest.mark.parametrize("outcome", ["SUCCEEDED", "FAILED"])
@pytest.mark.parametrize("mode", START.values(), ids=START)
def test_after_a_start(
    mode: dict[str, Any],
    outcome: str,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    clock: ManualClock,
    pushed: list[tuple[str, bool]],
) -> None:
    """It leads to the run while it is active, and once it has failed as well."""
    sim.add_job(JOB, outcome=outcome, seconds=60)
    try:
        task_runner.run(lambda: start(**mode))
    except errors.CdmSubmissionFailed:
        assert outcome == "FAILED"
    clock.advance(60)
    address, active = pushed[0]
    assert active
    assert {each for each, _ in pushed} == {address}
    assert outcome in shown(address)
    assert address.endswith(f"/clusters/{sim.cluster_id}/jobs/{JOB}/runs/1")


@pytest.mark.parametrize("mode", SENSOR.values(), ids=SENSOR)
@pytest.mark.parametrize("known", [True, False], ids=["by number", "by time"])
def test_of_a_sensor(
    known: bool,
    mode: dict[str, Any],
    sim: CdmSimulator,
    task_runner: TaskRunner,
    clock: ManualClock,
    pushed: list[tuple[str, bool]],
) -> None:
    """It leads to the run that the sensor waits for, once that is known."""
    sim.add_job(JOB, seconds=60)
    sim.start(JOB)
    clock.advance(90)
    second = sim.start(JOB)
    since = int((clock.now() - 10) * 1000)
    wanted: dict[str, Any] = {"started_after": since}
    if known:
        wanted = {"submission_id": second.submission_id}
    task_runner.run(
        lambda: CdmSubmissionSensor(
            task_id="t", job_name=JOB, poke_interval=10, timeout=600, **wanted, **mode
        )
    )
    assert all(address.endswith("/runs/2") for address, _ in pushed)
    assert pushed[0][1] or (mode["deferrable"] and not known)
    assert "SUCCEEDED" in shown(pushed[0][0])


def test_of_a_sensor_that_gives_up(
    sim: CdmSimulator, task_runner: TaskRunner, pushed: list[tuple[str, bool]]
) -> None:
    """Who comes to look why nothing ended can click, too."""
    sim.add_job(JOB, seconds=6000)
    number = sim.start(JOB).submission_id
    with pytest.raises(AirflowSensorTimeout):
        task_runner.run(
            lambda: CdmSubmissionSensor(
                task_id="t", job_name=JOB, submission_id=number, poke_interval=10, timeout=60,
                deferrable=True,
            )
        )  # fmt: skip
    assert "RUNNING" in shown(pushed[0][0])


@pytest.mark.parametrize("deferrable", [False, True], ids=["on the worker", "deferred"])
def test_of_a_job_of_its_own(
    deferrable: bool, sim: CdmSimulator, task_runner: TaskRunner, pushed: list[tuple[str, bool]]
) -> None:
    """It leads to the run although the job that ran is deleted afterwards."""
    connectors = {"from-connector-name": "a", "to-connector-name": "b"}
    links = {"from-link-name": "x", "to-link-name": "y"}
    configs: dict[str, Any] = {f"{each}-config-values": {"configs": []} for each in ("from", "to")}
    definition = {"name": JOB, **connectors, **links, **configs}
    for name in ("x", "y"):
        sim.add_link(name)
    task_runner.run(
        lambda: CdmRunJobOperator(task_id="t", definition=definition, deferrable=deferrable)
    )
    assert JOB not in "".join(sim.jobs())
    address, active = pushed[0]
    assert active
    assert "SUCCEEDED" in shown(address)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (None, "https://console.huaweicloud.com/cdm/?region={region}"),
        ("https://x/{project_id}?j={job_name}&n={submission_id}", "https://x/{project_id}?j=a%2Fb%20%C3%A9&n=1"),
        ("https://x/{cluster_id}/{what}", "https://x/{cluster_id}/{{what}}"),
    ],
)  # fmt: skip
def test_console_url(
    given: str | None,
    wanted: str,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The connection says where it leads; names are quoted, unknown placeholders stay."""
    name = "a/b é"
    sim.add_job(name)
    extra = {**sim.connection_extra, "console_url": given}
    monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", json.dumps({**sim.connection, "extra": extra}))
    task_runner.run(lambda: start(job_name=name, **START["start only"]))
    facts = {each: extra[each] for each in ("region", "project_id", "cluster_id")}
    assert task_runner.ti.xcoms["cdm_run_link"] == wanted.format(**facts)
