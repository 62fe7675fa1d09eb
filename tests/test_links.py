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
START_MODES: dict[str, dict[str, Any]] = {
    "start only": {"wait_for_completion": False, "deferrable": False},
    "on the worker": {"wait_for_completion": True, "deferrable": False},
    "deferred": {"wait_for_completion": True, "deferrable": True},
}
SENSOR_MODES: dict[str, dict[str, Any]] = {
    "poke": {"deferrable": False, "mode": "poke"},
    "reschedule": {"deferrable": False, "mode": "reschedule"},
    "deferred": {"deferrable": True},
}


@pytest.fixture
def pushed_links(
    sim: CdmSimulator, task_runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[str, bool]]:
    """Record every address that the task stores, and whether its run was active at that time."""
    links: list[tuple[str, bool]] = []
    original_push = task_runner.ti.xcom_push

    def push(key: str, value: Any) -> None:
        original_push(key, value)
        if key == "cdm_run_link":
            job = value.split("/jobs/")[1].split("/")[0]
            links.append((value, sim.runs(job)[-1].active))

    monkeypatch.setattr(task_runner.ti, "xcom_push", push)
    return links


def make_operator(**arguments: Any) -> CdmStartJobOperator:
    """Make an operator that starts the job."""
    return CdmStartJobOperator(**{"task_id": "t", "job_name": JOB, **arguments})


def open_page(address: str) -> str:
    """Return the page that a user who clicks the button sees."""
    response = requests.get(address, timeout=10)
    assert response.status_code == 200
    return response.text


@pytest.mark.parametrize("outcome", ["SUCCEEDED", "FAILED"])
@pytest.mark.parametrize("mode", START_MODES.values(), ids=START_MODES)
def test_link_of_an_operator_leads_to_the_active_and_ended_run(
    mode: dict[str, Any],
    outcome: str,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    clock: ManualClock,
    pushed_links: list[tuple[str, bool]],
) -> None:
    """The link leads to the run while it is active and after it succeeded or failed."""
    sim.add_job(JOB, outcome=outcome, seconds=60)
    try:
        task_runner.run(lambda: make_operator(**mode))
    except errors.CdmSubmissionFailed:
        assert outcome == "FAILED"
    clock.advance(60)
    address, active = pushed_links[0]
    assert active
    assert {link for link, _ in pushed_links} == {address}
    assert outcome in open_page(address)
    assert address.endswith(f"/clusters/{sim.cluster_id}/jobs/{JOB}/runs/1")


@pytest.mark.parametrize("mode", SENSOR_MODES.values(), ids=SENSOR_MODES)
@pytest.mark.parametrize("by_number", [True, False], ids=["by number", "by time"])
def test_link_of_a_sensor_leads_to_the_run_it_waits_for(
    by_number: bool,
    mode: dict[str, Any],
    sim: CdmSimulator,
    task_runner: TaskRunner,
    clock: ManualClock,
    pushed_links: list[tuple[str, bool]],
) -> None:
    """The link leads to the run that the sensor waits for, as soon as that run is known."""
    sim.add_job(JOB, seconds=60)
    sim.start(JOB)
    clock.advance(90)
    second_run = sim.start(JOB)
    since = int((clock.now() - 10) * 1000)
    run_arguments: dict[str, Any] = {"started_after": since}
    if by_number:
        run_arguments = {"submission_id": second_run.submission_id}
    task_runner.run(
        lambda: CdmSubmissionSensor(
            task_id="t", job_name=JOB, poke_interval=10, timeout=600, **run_arguments, **mode
        )
    )
    assert all(address.endswith("/runs/2") for address, _ in pushed_links)
    assert pushed_links[0][1] or (mode["deferrable"] and not by_number)
    assert "SUCCEEDED" in open_page(pushed_links[0][0])


def test_link_of_a_timed_out_sensor_leads_to_the_run(
    sim: CdmSimulator, task_runner: TaskRunner, pushed_links: list[tuple[str, bool]]
) -> None:
    """The link leads to the run even if the sensor timed out."""
    sim.add_job(JOB, seconds=6000)
    submission_id = sim.start(JOB).submission_id
    with pytest.raises(AirflowSensorTimeout):
        task_runner.run(
            lambda: CdmSubmissionSensor(
                task_id="t",
                job_name=JOB,
                submission_id=submission_id,
                poke_interval=10,
                timeout=60,
                deferrable=True,
            )
        )
    assert "RUNNING" in open_page(pushed_links[0][0])


@pytest.mark.parametrize("deferrable", [False, True], ids=["on the worker", "deferred"])
def test_link_leads_to_the_run_of_a_deleted_job(
    deferrable: bool,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    pushed_links: list[tuple[str, bool]],
) -> None:
    """The link leads to the run although the task deletes the job afterwards."""
    connectors = {"from-connector-name": "a", "to-connector-name": "b"}
    links = {"from-link-name": "x", "to-link-name": "y"}
    configs: dict[str, Any] = {f"{side}-config-values": {"configs": []} for side in ("from", "to")}
    definition = {"name": JOB, **connectors, **links, **configs}
    for name in ("x", "y"):
        sim.add_link(name)
    task_runner.run(
        lambda: CdmRunJobOperator(task_id="t", definition=definition, deferrable=deferrable)
    )
    assert JOB not in "".join(sim.jobs())
    address, active = pushed_links[0]
    assert active
    assert "SUCCEEDED" in open_page(address)


def test_link_of_a_run_that_begins_while_the_sensor_is_deferred(
    sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """The link works at the end at the latest, if there was no run when the task deferred."""
    sim.add_job(JOB, seconds=10)
    began = clock.now()

    def start_later() -> None:
        if clock.now() - began > 100 and not sim.runs(JOB):
            sim.start(JOB)

    clock.subscribe(start_later)
    task_runner.run(
        lambda: CdmSubmissionSensor(
            task_id="t", job_name=JOB, started_after=int(began * 1000), deferrable=True
        )
    )
    assert task_runner.ti.xcoms["cdm_run_link"].endswith("/runs/1")


@pytest.mark.parametrize(
    ("console_url", "expected_link"),
    [
        (None, "https://console.huaweicloud.com/cdm/?region={region}"),
        ("https://x/{project_id}?j={job_name}&n={submission_id}", "https://x/{project_id}?j=a%2Fb%20%C3%A9&n=1"),
        ("https://x/{cluster_id}/{what}", "https://x/{cluster_id}/{{what}}"),
    ],
)  # fmt: skip
def test_console_url_of_the_connection_is_filled_in(
    console_url: str | None,
    expected_link: str,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The link is made of the connection's console URL: names are quoted, and unknown placeholders
    are kept.
    """
    name = "a/b é"
    sim.add_job(name)
    extra = {**sim.connection_extra, "console_url": console_url}
    monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", json.dumps({**sim.connection, "extra": extra}))
    task_runner.run(lambda: make_operator(job_name=name, **START_MODES["start only"]))
    values = {field: extra[field] for field in ("region", "project_id", "cluster_id")}
    assert task_runner.ti.xcoms["cdm_run_link"] == expected_link.format(**values)
