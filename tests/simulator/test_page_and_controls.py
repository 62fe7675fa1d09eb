from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests

from airflow_provider_cdm.simulator import CdmSimulator
from tests.support.raw_client import Cdm

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator import ManualClock

HTML = "<script>alert('x')</script>/&\"'"


@pytest.fixture
def config() -> dict[str, Any]:
    return {"clusters": [{"name": "demo", "jobs": ["load"]}]}


def get(sim: CdmSimulator, path: str) -> requests.Response:
    return requests.get(sim.url + path, timeout=5)


def post(sim: CdmSimulator, path: str, body: object = None) -> requests.Response:
    return requests.post(sim.url + path, json=body, timeout=5)


def test_overview(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """The page shows clusters, jobs, runs with variables and errors, and requests."""
    sim.add_job("load", outcome="FAILED", error_summary="No space.")
    cdm.start("load", {"dt": "2025-01-01"})
    clock.advance(1)
    text = get(sim, "/").text
    for part in ("demo", sim.cluster_id, "load", "FAILED", "No space.", "dt=2025-01-01", "PUT /v1"):
        assert part in text
    assert "http" not in text.replace(sim.url, "")


def test_run_page(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """The page of a run has an address with cluster, job and id, and shows its counters."""
    sim.add_job("a/b 每日", counters={"ROWS_READ": 123456})
    cdm.start("a/b 每日")
    clock.advance(1)
    path = f"/clusters/{sim.cluster_id}/jobs/a%2Fb%20%E6%AF%8F%E6%97%A5/runs/1"
    assert path in get(sim, "/").text
    response = get(sim, path)
    assert (response.status_code, "ROWS_READ=123456" in response.text) == (200, True)
    assert get(sim, path[:-1] + "2").status_code == 404
    assert get(sim, path.replace(sim.cluster_id, "x")).status_code == 404


def test_page_escapes_values(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """Names, variables and error texts are escaped on the page."""
    sim.add_job(HTML, outcome="FAILED", error_summary=HTML, error_details=HTML)
    sim.start(HTML, variables={HTML: HTML}, user=HTML)
    clock.advance(1)
    cdm.on_job("GET", HTML, params={HTML: HTML})
    overview = get(sim, "/")
    [address] = [part.split('"')[0] for part in overview.text.split('href="') if "/runs/" in part]
    for response in (overview, get(sim, address)):
        assert response.status_code == 200
        assert "<script>alert" not in response.text
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]


def test_secrets_are_redacted(sim: CdmSimulator, cdm: Cdm) -> None:
    """Tests can read tokens and passwords of requests, but ``repr`` and the page redact them."""
    cdm.start("load")
    inputs = [{"name": "linkConfig.password", "value": "link-secret"}]
    values = {"configs": [{"name": "linkConfig", "inputs": inputs}]}
    link = {"name": "x", "connector-name": "y", "link-config-values": values}
    cdm.call("POST", "link", json={"links": [link]})
    token = sim.requests[1].headers["x-auth-token"]
    shown = [repr(sim.requests), get(sim, "/").text, get(sim, "/_sim/state").text]
    for text in [*shown, get(sim, "/_sim/requests").text]:
        assert sim.password not in text
        assert token not in text
        assert "link-secret" not in text
    assert sim.password.encode() in sim.requests[0].body


def test_request_log(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """The log contains requests with sender and status, but none to the page and controls."""
    clock.advance(5)
    cdm.start("load", {"a": "b"})
    cdm.history("load")
    get(sim, "/")
    get(sim, "/_sim/state")
    token, start, history = sim.requests
    assert (token.route, token.status, token.user) == ("token", 201, None)
    assert (start.method, start.route, start.status, start.user) == ("PUT", "start", 200, "airflow")
    assert (start.json(), start.at) == ({"variables": {"a": "b"}}, clock.now())
    assert history.query == {"jname": "load"}
    assert history.json() is None


def test_state(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """The state lists runs and requests, the newest first; reading it has no side effects."""
    sim.add_job("load", statuses=["RUNNING", "SUCCEEDED"])
    sim.start("load", user="first")
    cdm.status("load")
    cdm.status("load")
    cdm.start("load")
    for _ in range(3):
        state = get(sim, "/_sim/state").json()
    [cluster] = state["clusters"]
    runs = [(run["submission_id"], run["status"]) for run in cluster["runs"]]
    assert (runs, cluster["jobs"][0]["runs"]) == ([(2, "BOOTING"), (1, "SUCCEEDED")], 2)
    assert [request["route"] for request in state["requests"]] == [
        "start",
        "status",
        "status",
        "token",
    ]


def test_faults_over_http(sim: CdmSimulator, cdm: Cdm) -> None:
    """Another process can add faults; if one of them is not valid, none is added."""
    fault = {"route": "status", "kind": "status", "status": 500}
    assert post(sim, "/_sim/faults", [fault, fault]).status_code == 200
    assert [cdm.on_job("GET", "load", "/status").status_code for _ in range(3)] == [500, 500, 200]
    response = post(sim, "/_sim/faults", [fault, {"route": "status"}])
    assert (response.status_code, response.json()["problems"]) == (
        400,
        ["faults[1].kind: required key is missing"],
    )
    assert sim.faults.remaining() == []


def test_jobs_over_http(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """Another process can add a job and change it."""
    assert post(sim, "/_sim/jobs/new%2Fone", {"outcome": "FAILED"}).status_code == 200
    for outcome in ("FAILED", "SUCCEEDED"):
        post(sim, f"/_sim/jobs/new%2Fone?cluster_id={sim.cluster_id}", {"outcome": outcome})
        cdm.start("new/one")
        clock.advance(1)
        assert cdm.status("new/one")["status"] == outcome
    assert "unknown key" in post(sim, "/_sim/jobs/x", {"y": 1}).json()["problems"][0]
    assert post(sim, "/_sim/jobs/x?cluster_id=z", {}).status_code == 400
    assert requests.post(f"{sim.url}/_sim/jobs/x", data="{", timeout=5).status_code == 400


def test_reset_over_http(sim: CdmSimulator, cdm: Cdm) -> None:
    """Another process can reset the simulator."""
    cdm.start("load")
    assert post(sim, "/_sim/reset").status_code == 200
    assert (sim.requests, sim.runs("load")) == ([], [])
