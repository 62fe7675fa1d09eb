from __future__ import annotations

import pytest
import requests

from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from airflow_provider_cdm.simulator.config.reader import ConfigError
from tests.support.raw_client import Cdm, error_code, password_login


def test_no_quotas_by_default(sim: CdmSimulator, cdm: Cdm) -> None:
    """By default, the simulator does not limit the number of calls."""
    sim.add_job("load")
    responses = [cdm.on_job("GET", "load", "/status").status_code for _ in range(130)]
    assert set(responses) == {200}


def test_documented_quota(clock: ManualClock) -> None:
    """The gateway throttles after 120 status calls in a minute, until the minute has passed."""
    with CdmSimulator({"quotas": "documented"}, clock=clock) as sim:
        sim.add_job("load")
        cdm = Cdm(sim)
        for _ in range(120):
            cdm.status("load")
        response = cdm.on_job("GET", "load", "/status")
        assert (response.status_code, error_code(response)) == (429, "APIGW.0308")
        assert "limit:120,time:1 minute" in response.json()["error_msg"]
        assert "Retry-After" not in response.headers
        assert cdm.on_job("PUT", "load", "/start").status_code == 200
        clock.advance(60)
        cdm.status("load")


def test_sliding_window(clock: ManualClock) -> None:
    """Any 60 seconds have at most the allowed number of calls; rejected calls do not count."""
    with CdmSimulator({"quotas": {"status": 2}}, clock=clock) as sim:
        sim.add_job("load")
        cdm, statuses = Cdm(sim), []
        for _ in range(6):
            statuses.append(cdm.on_job("GET", "load", "/status").status_code)
            clock.advance(20)
    assert statuses == [200, 200, 429, 200, 200, 429]


def test_limits_by_user_and_operation(clock: ManualClock) -> None:
    """Each user has separate limits; calls for single jobs and listings share one limit."""
    users = [{"name": "a", "password": "a"}, {"name": "b", "password": "b"}]
    config = {"users": users, "quotas": {"list_jobs": 1}, "behaviour": {"retry_after": True}}
    with CdmSimulator(config, clock=clock) as sim:
        sim.add_job("load")
        cdm = Cdm(sim)
        assert cdm.on_job("GET", "all").status_code == 200
        clock.advance(12.5)
        response = cdm.on_job("GET", "load")
        assert (response.status_code, response.headers["Retry-After"]) == (429, "48")
        login = password_login(sim, name="b", password="b")
        url = f"{sim.iam_url}/v3/auth/tokens"
        token = requests.post(url, json=login, timeout=5).headers["X-Subject-Token"]
        headers = {"X-Auth-Token": token}
        assert requests.get(f"{cdm.base}/job/all", headers=headers, timeout=5).status_code == 200


def test_token_quota(clock: ManualClock) -> None:
    """IAM, not the gateway, rejects too many token requests."""
    with CdmSimulator({"quotas": {"token": 1}}, clock=clock) as sim:
        url = f"{sim.iam_url}/v3/auth/tokens"
        responses = [requests.post(url, json=password_login(sim), timeout=5) for _ in range(2)]
    assert [response.status_code for response in responses] == [201, 429]
    assert error_code(responses[1]) == "IAM.0012"


@pytest.mark.parametrize(
    ("counts", "statuses"), [(False, [200, 429, 200]), (True, [200, 429, 429])], ids=str
)
def test_window_and_counting(counts: bool, statuses: list[int], clock: ManualClock) -> None:
    """The window is a switch, and so is whether a refused call counts in it."""
    behaviour = {"quota_seconds": 300, "refused_calls_count": counts, "retry_after": True}
    with CdmSimulator({"quotas": {"status": 1}, "behaviour": behaviour}, clock=clock) as sim:
        sim.add_job("load")
        cdm, responses = Cdm(sim), []
        for _ in statuses:
            responses.append(cdm.on_job("GET", "load", "/status"))
            clock.advance(200)
    assert [response.status_code for response in responses] == statuses
    assert "policy user over ratelimit,limit:1,time:5 minute" in responses[1].json()["error_msg"]
    assert responses[1].headers["Retry-After"] == ("300" if counts else "100")


def test_limits_by_address(clock: ManualClock) -> None:
    """All users of an address share a limit of that address, and a 429 may be plain text."""
    users = [{"name": "a", "password": "a"}, {"name": "b", "password": "b"}]
    behaviour = {"quota_policy": "ip", "throttled_text": "plain"}
    config = {"users": users, "quotas": {"list_jobs": 1}, "behaviour": behaviour}
    with CdmSimulator(config, clock=clock) as sim:
        cdm = Cdm(sim)
        assert cdm.on_job("GET", "all").status_code == 200
        login = password_login(sim, name="b", password="b")
        url = f"{sim.iam_url}/v3/auth/tokens"
        token = requests.post(url, json=login, timeout=5).headers["X-Subject-Token"]
        response = requests.get(f"{cdm.base}/job/all", headers={"X-Auth-Token": token}, timeout=5)
    assert (response.status_code, response.headers["Content-Type"]) == (429, "text/plain")
    assert response.text == "Too many requests, wait up to one minute."


@pytest.mark.parametrize("quotas", ["some", {"stauts": 1}, {"status": "many"}, {"status": -1}])
def test_invalid_quotas(quotas: object) -> None:
    """Invalid quotas are rejected when the simulator is created."""
    with pytest.raises(ConfigError, match="quotas"):
        CdmSimulator({"quotas": quotas})
