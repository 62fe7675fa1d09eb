from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_cdm.simulator import CdmSimulator
from airflow_provider_cdm.simulator.errors import WireError
from tests.support.raw_client import Cdm, error_code

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator import ManualClock

STOP = {"stopMode": "IMMEDIATELY", "delayTime": -1}


@pytest.fixture
def config(tmp_path: Any) -> dict[str, Any]:
    return {
        "databases": {"good": "sqlite://", "bad": f"sqlite:///{tmp_path}/no/such.db"},
        "clusters": [{"name": "demo", "seconds": {"start": 30, "stop": 20, "restart": 40}}],
    }


def link(name: str) -> dict[str, Any]:
    inputs = [
        {"name": "linkConfig.host", "value": "10.0.0.1"},
        {"name": "linkConfig.password", "value": "hidden"},
    ]
    values = {"configs": [{"name": "linkConfig", "inputs": inputs}]}
    connector = "generic-jdbc-connector"
    link = {"name": name, "connector-name": connector, "link-config-values": values}
    return {"links": [link]}


def test_create_show_update_and_delete_a_link(cdm: Cdm) -> None:
    """A link is created, shown without its password, updated and deleted."""
    created = cdm.call("POST", "link", json=link("good"))
    assert created.json() == {"name": "good", "validation-result": [{}]}
    again = cdm.call("POST", "link", json=link("good"))
    assert (again.status_code, again.json()["code"]) == (400, "Cdm.0315")
    shown = cdm.call("GET", "link/good")
    assert "10.0.0.1" in shown.text
    assert "hidden" not in shown.text
    assert shown.json().keys() == {"links", "fromTo-unMapping", "batchFromTo-mapping"}
    updated = cdm.call("PUT", "link/good", json=link("good"))
    assert updated.json() == {"validation-result": [{}]}
    assert cdm.call("DELETE", "link/good").status_code == 200
    assert error_code(cdm.call("GET", "link/good")) == "Cdm.0101"
    assert error_code(cdm.call("PUT", "link/good", json=link("good"))) == "Cdm.0316"


def test_validated_link_is_not_created(cdm: Cdm) -> None:
    """A link that is only validated is not created."""
    assert cdm.call("POST", "link?validate=true", json=link("good")).status_code == 200
    assert cdm.call("GET", "link/good").status_code == 400


def test_failed_connection_test(cdm: Cdm) -> None:
    """A link to an unreachable database is status 500 with a finding, and is not created."""
    response = cdm.call("POST", "link", json=link("bad"))
    [finding] = response.json()["validation-result"]
    assert (response.status_code, finding["linkConfig"][0]["status"]) == (500, "ERROR")
    assert cdm.call("GET", "link/bad").status_code == 400


def test_link_in_use_is_not_deleted(sim: CdmSimulator, cdm: Cdm) -> None:
    """A link that a job uses is not deleted."""
    sim.add_link("good", url="sqlite://")
    source, target = {"link": "good", "table": "a"}, {"link": "good", "table": "b"}
    sim.add_job("copy", from_=source, to=target)
    response = cdm.call("DELETE", "link/good")
    assert (response.status_code, error_code(response)) == (500, "Cdm.0021")
    assert cdm.call("GET", "link/good").status_code == 200


def action(cdm: Cdm, **body: Any) -> Any:
    return cdm.call("POST", f"{cdm.project}/clusters/{cdm.sim.cluster_id}/action", json=body)


def status(cdm: Cdm) -> str:
    response = cdm.call("GET", f"{cdm.project}/clusters/{cdm.sim.cluster_id}")
    assert response.status_code == 200
    return str(response.json()["status"])


def test_cluster_listing_and_details(sim: CdmSimulator, cdm: Cdm) -> None:
    """The listing and the details show the same object; an unknown cluster is status 404."""
    [listed] = cdm.call("GET", f"{cdm.project}/clusters").json()["clusters"]
    detail = cdm.call("GET", f"{cdm.project}/clusters/{sim.cluster_id}").json()
    assert listed == detail
    assert (detail["id"], detail["status"], detail["statusDetail"]) == (
        sim.cluster_id,
        "200",
        "Normal",
    )
    assert cdm.call("GET", f"{cdm.project}/clusters/nowhere").status_code == 404
    assert Cdm(sim, "nowhere").on_job("GET", "load").status_code == 400


def test_stop_and_start_of_a_cluster(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """A stop fails running jobs and takes time; jobs cannot be started until the next start."""
    sim.add_job("load", seconds=1000)
    cdm.start("load")
    response = action(cdm, stop=STOP)
    assert len(response.json()["jobId"][0]) == 32
    assert (status(cdm), cdm.status("load")["status"]) == ("910", "FAILED")
    assert cdm.history("load")["total"] == 1
    assert error_code(cdm.on_job("PUT", "load", "/start")) == "Cdm.0201"
    clock.advance(20)
    assert status(cdm) == "900"
    with pytest.raises(WireError, match="status 900"):
        sim.start("load")
    assert error_code(cdm.on_job("GET", "load", "/status")) == "Cdm.0201"
    assert action(cdm, stop=STOP).status_code == 400
    action(cdm, start={})
    assert status(cdm) == "920"
    clock.advance(30)
    assert status(cdm) == "200"
    assert cdm.start("load")["submission-id"] == 2


def test_cluster_status_in_python(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """``cluster_status`` returns the status of a cluster without a request."""
    assert sim.cluster_status() == "200"
    action(cdm, stop=STOP)
    clock.advance(20)
    assert sim.cluster_status(sim.cluster_id) == "900"


@pytest.mark.parametrize("config", [{"clusters": [{"name": "demo", "status": "303"}]}])
def test_failed_cluster(cdm: Cdm) -> None:
    """The details of a cluster that could not be created contain the reason."""
    detail = cdm.call("GET", f"{cdm.project}/clusters/{cdm.sim.cluster_id}").json()
    assert detail["status"] == "303"
    assert detail["failedReasons"]["CREATE_FAILED"]["errorMsg"]


@pytest.mark.parametrize(("delay", "outcome"), [(-1, "SUCCEEDED"), (5, "FAILED")])
def test_graceful_stop(
    sim: CdmSimulator, cdm: Cdm, clock: ManualClock, delay: int, outcome: str
) -> None:
    """A graceful stop waits for active runs, at most for the given delay."""
    sim.add_job("load", seconds={"booting": 0, "running": 60})
    cdm.start("load")
    action(cdm, stop={"stopMode": "GRACEFULLY", "delayTime": delay})
    clock.advance(60)
    assert cdm.sim.runs("load")[0].status == outcome
    clock.advance(20)
    assert status(cdm) == "900"


def test_restart_of_a_cluster(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """A restart fails running jobs; its response has a string."""
    sim.add_job("load", seconds=1000)
    cdm.start("load")
    response = action(cdm, restart={"restartDelayTime": 5, "restartMode": "IMMEDIATELY"})
    assert len(response.json()["jobId"]) == 32
    assert (status(cdm), sim.runs("load")[0].status) == ("200", "BOOTING")
    clock.advance(5)
    assert (status(cdm), sim.runs("load")[0].status) == ("500", "FAILED")
    clock.advance(40)
    assert status(cdm) == "200"


@pytest.mark.parametrize("body", [{}, {"start": {}, "stop": {}}, {"stop": {"stopMode": "NOW"}},
                                  {"restart": {"restartLevel": "HOST"}},
                                  {"restart": {"restartLevel": "SERVICE", "group": "g"}},
                                  {"restart": {"type": "dws"}}])  # fmt: skip
def test_invalid_actions(cdm: Cdm, body: dict[str, Any]) -> None:
    """A body without an action, with two or with a misspelled mode changes nothing."""
    assert action(cdm, **body).status_code == 400
    assert status(cdm) == "200"


def test_route_names_of_actions(sim: CdmSimulator, cdm: Cdm) -> None:
    """The three actions share a path, but have different names for the log and for faults."""
    sim.fail("restart_cluster", "status", status=500)
    assert action(cdm, stop=STOP).status_code == 200
    assert sim.requests[-1].route == "stop_cluster"
    assert action(cdm, restart={}).status_code == 500
