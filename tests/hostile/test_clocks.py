"""Dates that a server sends of itself and of its tokens: none leaves the calendar."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.operators import CdmRunJobOperator, CdmStartJobOperator
from airflow_provider_cdm.simulator import CdmSimulator
from tests.hostile.test_starts import proxy as proxy
from tests.hostile.test_starts import relay
from tests.support.byte_server import ByteServer
from tests.support.task_harness import TaskRunner

#: Values of the header ``Date``.
DATES = {
    "the end of time": "Fri, 31 Dec 9999 23:59:59 GMT",
    "the end of time, further west": "Fri, 31 Dec 9999 23:59:59 -1200",
    "the beginning of time": "Mon, 01 Jan 0001 00:00:00 GMT",
    "the beginning of time, further east": "Mon, 01 Jan 0001 00:00:00 +2359",
    "1970": "Thu, 01 Jan 1970 00:00:00 GMT",
    "a zone beyond all": "Fri, 31 Dec 9999 23:59:59 +99999999999999",
    "5,000 digits": "9" * 5_000,
    "no date": "soon",
}
#: When a token expires, and when it was issued.
LIVES = {
    "for ever": ("9999-12-31T23:59:59Z", None),
    "for ever, further west": ("9999-12-31T23:59:59-23:59", None),
    "since ever and for ever": ("9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"),
    "until the beginning of time": ("0001-01-01T00:00:00+23:59", None),
    "issued later than it expires": ("2025-01-01T00:00:00Z", "9999-12-31T23:59:59Z"),
}
TOKEN = "token-of-a-user" * 20


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "triggerer"])
@pytest.mark.parametrize("what", DATES)
def test_the_date_of_a_server(
    what: str,
    deferrable: bool,
    sim: CdmSimulator,
    proxy: ByteServer,
    task_runner: TaskRunner,
) -> None:
    """A job is created, checked and run once, whatever all answers name as the time."""
    proxy.respond = lambda connection: relay(proxy, connection, date=DATES[what])
    inputs = [{"name": "fromJobConfig.whereClause", "value": "d = '${dateformat(yyyyMMdd)}'"}]
    definition: dict[str, Any] = {"name": "made"}
    for end in ("from", "to"):
        sim.add_link(end)
        definition |= {
            f"{end}-connector-name": "generic-jdbc-connector",
            f"{end}-link-name": end,
            f"{end}-config-values": {"configs": [{"name": "x", "inputs": inputs}]},
        }
    result = task_runner.run(
        lambda: CdmRunJobOperator(task_id="t", definition=definition, deferrable=deferrable)
    )
    assert result["status"] == "SUCCEEDED"
    sim.add_job("orders")
    result = task_runner.run(
        lambda: CdmStartJobOperator(
            task_id="s", job_name="orders", wait_for_completion=True, deferrable=deferrable
        )
    )
    assert result["status"] == "SUCCEEDED"
    assert len(sim.runs("orders")) == 1


@pytest.mark.parametrize("what", DATES)
def test_the_test_button_and_dates(what: str, sim: CdmSimulator, cdm_default: Any) -> None:
    """The Test button says what IAM has accepted, whatever IAM takes for the time."""
    headers = {"Date": DATES[what], "X-Subject-Token": TOKEN}
    body = {"token": {"expires_at": "2030-01-01T00:00:00Z"}}
    sim.fail("token", "status", status=201, headers=headers, body=body, times=None)
    _, text = CdmHook().test_connection()
    assert "Passed before: IAM accepts user" in text


@pytest.mark.parametrize("what", LIVES)
def test_the_life_of_a_token(what: str, sim: CdmSimulator, cdm_default: Any) -> None:
    """However long IAM says that a token lives, its end is in the calendar."""
    expires_at, issued_at = LIVES[what]
    body = {"token": {"expires_at": expires_at, "issued_at": issued_at}}
    headers = {"X-Subject-Token": TOKEN}
    sim.fail("token", "status", status=201, headers=headers, body=body, times=None)
    _, text = CdmHook().test_connection()
    assert "Passed before: IAM accepts user" in text
