"""Jobs, links and clusters through both drivers: what is sent, and lost answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from airflow_provider_cdm.client import clusters, errors
from airflow_provider_cdm.client.api import parsing, resources
from airflow_provider_cdm.client.api.cluster import STATES, Cluster, state
from airflow_provider_cdm.client.api.definitions import JOB, LINK
from airflow_provider_cdm.client.jobs import apply, stop
from airflow_provider_cdm.client.sansio import Response
from airflow_provider_cdm.client.submission import RunRef
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.client.fixture_types import Drive, MakeSession, Sent


def link(name: str = "shop", host: str = "10.0.0.1") -> Any:
    """Return a link with a password."""
    inputs = [
        {"name": "linkConfig.host", "value": host},
        {"name": "linkConfig.password", "value": "pa55word"},
    ]
    values = {"configs": [{"name": "linkConfig", "inputs": inputs}]}
    connector = "generic-jdbc-connector"
    return parsing.link({"name": name, "connector-name": connector, "link-config-values": values})


def job(name: str = "orders") -> Any:
    """Return a job between two links."""
    block: dict[str, Any] = {"configs": []}
    ends = {f"{end}-connector-name": "generic-jdbc-connector" for end in ("from", "to")}
    blocks = {f"{end}-config-values": block for end in ("from", "to")}
    links = {"from-link-name": "shop", "to-link-name": "warehouse"}
    return parsing.job({"name": name, **ends, **links, **blocks})


CALLS: dict[str, tuple[Callable[[str], Any], str, str, Any]] = {
    "create job": (lambda c: resources.create(c, job()), "POST", "/cdm/job", job().body),
    "update job": (lambda c: resources.update(c, job()), "PUT", "/cdm/job/orders", job().body),
    "show job": (lambda c: resources.show(JOB, c, "orders"), "GET", "/cdm/job/orders", None),
    "delete job": (lambda c: resources.delete(JOB, c, "a"), "DELETE", "/cdm/job/a", None),
    "create link": (lambda c: resources.create(c, link()), "POST", "/cdm/link", link().body),
    "update link": (lambda c: resources.update(c, link()), "PUT", "/cdm/link/shop", link().body),
    "show link": (
        lambda c: resources.show(LINK, c, "a/b ü"),
        *("GET", "/cdm/link/a%2Fb%20%C3%BC", None),
    ),
    "delete link": (lambda c: resources.delete(LINK, c, ".."), "DELETE", "/cdm/link/%2E%2E", None),
    "show cluster": (resources.show_cluster, "GET", "", None),
    "start cluster": (resources.start_cluster, "POST", "/action", {"start": {}}),
    "stop cluster": (
        lambda c: resources.stop_cluster(c, graceful=True),
        *("POST", "/action", {"stop": {"stopMode": "GRACEFULLY", "delayTime": -1}}),
    ),
    "stop cluster late": (
        lambda c: resources.stop_cluster(c, graceful=True, delay=90),
        *("POST", "/action", {"stop": {"stopMode": "GRACEFULLY", "delayTime": 90}}),
    ),
    "stop cluster at once": (
        lambda c: resources.stop_cluster(c, graceful=False),
        *("POST", "/action", {"stop": {"stopMode": "IMMEDIATELY", "delayTime": -1}}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_calls_on_the_wire(
    name: str, drive: Drive, sim: CdmSimulator, make_session: MakeSession, sent: Sent
) -> None:
    """Each call sends what the API documents."""
    make, method, path, body = CALLS[name]
    session = make_session()
    with suppress(errors.CdmError):  # only the request matters
        drive(session, session.api.call(make(sim.cluster_id)))
    request = sent()[-1]
    assert request.method == method
    assert request.path == f"/v1.1/{sim.project_id}/clusters/{sim.cluster_id}{path}"
    assert request.json() == body


ANSWERS: list[tuple[Any, list[str] | type[errors.CdmError]]] = [
    ({"name": "a", "validation-result": []}, []),
    ({"name": "a"}, []),
    ({"validation-result": [{}, {}, {}]}, []),
    (b"", []),
    ({"validation-result": [{"message": "slow", "status": "WARNING"}]}, ["slow"]),
    ({"validation-result": [{"fromJobConfig": [{"message": "no", "status": "ERROR"}]}]},
     errors.CdmRefused),
    (b"<html>", errors.CdmBadResponse),
]  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), ANSWERS)
def test_answers_to_create_and_update(body: Any, expected: Any) -> None:
    """Every documented form of the answer is read: warnings are returned, errors are raised."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    for call in (resources.create("c", job()), resources.update("c", job())):
        if isinstance(expected, list):
            assert call.parse(Response(200, {}, raw), call) == expected
        else:
            with pytest.raises(expected):
                call.parse(Response(200, {}, raw), call)


def test_a_password_is_in_no_repr() -> None:
    """Neither a definition nor the call that sends it shows a password."""
    assert "pa55word" not in repr(resources.create("c", link()))


@pytest.mark.parametrize("config", [{"clusters": [{"name": "demo", "links": [{"name": "shop"}]}]}])
def test_lifecycle_of_a_link(
    drive: Drive, sim: CdmSimulator, make_session: MakeSession, sent: Sent
) -> None:
    """A link is created, found unchanged although its password is not shown, and updated."""
    session = make_session()

    def apply_link(wanted: Any, **options: Any) -> Any:
        return drive(session, apply.apply(session.api, sim.cluster_id, wanted, **options))

    assert apply_link(link("new")).action == "created"
    assert apply_link(link("new")).action == "unchanged"
    assert apply_link(link("new"), always=True).action == "updated"
    result = apply_link(link("new", "10.0.0.2"))
    assert [difference.what for difference in result.differences] == ["linkConfig.host"]
    for deleted in (True, False):
        delete = apply.delete(session.api, LINK, sim.cluster_id, "new")
        assert drive(session, delete) is deleted
    assert "pa55word" in str(sent("update_link")[-1].json())


@pytest.mark.parametrize(
    "config",
    [{"databases": {"bad": "sqlite:////no/such/folder/x.db"}, "clusters": [{"name": "demo"}]}],
)
def test_a_link_that_does_not_connect(
    drive: Drive, sim: CdmSimulator, make_session: MakeSession, sent: Sent
) -> None:
    """CDM answers 500 to a link that cannot connect; that is a refusal, and is not repeated."""
    session = make_session()
    with pytest.raises(errors.CdmRefused, match="unable to open database") as refusal:
        drive(session, apply.apply(session.api, sim.cluster_id, link("bad")))
    assert "host, port, user and password" in str(refusal.value)
    assert (refusal.value.retryable, len(sent("create_link"))) == (False, 1)


def test_a_link_in_use(drive: Drive, sim: CdmSimulator, make_session: MakeSession) -> None:
    """A link that jobs use is not deleted; its documented error code has another meaning in the
    table of codes, so the text decides.
    """
    sim.add_link("shop")
    end = {"link": "shop", "table": "a"}
    sim.add_job("orders", from_=end, to=end)
    session = make_session()
    with pytest.raises(errors.CdmInUse, match=r"Cdm\.0021"):
        drive(session, apply.delete(session.api, LINK, sim.cluster_id, "shop"))


def test_hidden_jobs(drive: Drive, sim: CdmSimulator, make_session: MakeSession) -> None:
    """A job of another user can be neither shown nor created; the first refusal is raised."""
    taken = {"errCode": "Cdm.0104", "externalMessage": "exists or was created by another user"}
    sim.fail("create_job", "status", status=400, body=taken)
    session = make_session()
    with pytest.raises(errors.CdmAlreadyExists, match="another user"):
        drive(session, apply.apply(session.api, sim.cluster_id, job()))


def test_a_job_that_runs_again_is_not_deleted(
    drive: Drive, sim: CdmSimulator, clock: ManualClock, make_session: MakeSession, sent: Sent
) -> None:
    """The job of a stopped run is kept if somebody has started it again in the meantime."""
    sim.add_job("orders", seconds=100)
    stopped = sim.start("orders")
    sim.stop("orders")
    clock.advance(10)
    sim.start("orders")
    session = make_session()
    run = RunRef(sim.cluster_id, "orders", stopped.submission_id)
    delete = stop.delete_after_stop(session.api, run, within=20)
    assert drive(session, delete) is False
    assert sent("delete_job") == []


# Clusters


def test_states() -> None:
    """States may be spelled freely; an unknown one is an error that lists all states."""
    assert [state(name) for name in ("normal", " Stopped ", "CREATION_FAILED")] == [
        *("normal", "stopped", "creation failed"),
    ]
    with pytest.raises(errors.CdmConfigError, match="the states are creating, normal"):
        state("running")


WIRE = [
    ({"status": "200", "name": "a"}, ("normal", "a")),
    ({"status": 900}, ("stopped", "")),
    ({"clusters": [{"status": "910"}]}, ("stopping", "")),
    ({"clusters": {"status": "920"}}, ("starting", "")),
    ({"status": "200", "isFrozen": "1"}, ("frozen", "")),
    ({"status": "200", "isFrozen": 1}, ("frozen", "")),
    ({"status": "200", "isFrozen": True}, ("frozen", "")),
    ({"status": "200", "isFrozen": False}, ("normal", "")),
    ({"status": "12345"}, ("status 12345", "")),
]


@pytest.mark.parametrize(("wire", "means"), WIRE)
def test_clusters_on_the_wire(wire: Any, means: tuple[str, str]) -> None:
    """Details may be wrapped, codes may be text or numbers; an unknown code is no error."""
    cluster = Cluster.from_wire(wire, "c")
    assert (cluster.state, cluster.name) == means
    assert Cluster.from_payload(json.loads(json.dumps(cluster.to_payload()))) == cluster


@pytest.mark.parametrize("actions", ["REBOOTING", ["REBOOTING"], ["Rebooting"], {"a": "rebooting"}])
def test_a_restart_among_the_actions(actions: Any) -> None:
    """A restart is known in each form, and in any letters; other actions are none."""
    assert Cluster.from_wire({"status": "200", "actions": actions}, "c").is_restarting
    assert not Cluster.from_wire({"status": "200", "actions": ["STOPPING"]}, "c").is_restarting


@pytest.mark.parametrize(
    "wire", [None, [], {}, {"status": None}, {"status": True}, {"clusters": []}]
)
def test_an_answer_without_a_cluster(wire: Any) -> None:
    """An answer without a state is an error."""
    call = resources.show_cluster("c")
    with pytest.raises(errors.CdmBadResponse):
        call.parse(Response(200, {}, json.dumps(wire).encode()), call)


def test_dead_ends() -> None:
    """A failed cluster is an error with CDM's reason, a frozen one with the usual reason."""
    reasons = {"CREATE_FAILED": {"errorCode": "CDM.1", "errorMsg": "no address"}}
    failed = Cluster.from_wire({"status": "303", "name": "a", "failedReasons": reasons}, "c")
    with pytest.raises(
        errors.CdmClusterUnusable, match=r"no address\. Cluster .* is creation failed\. Check it"
    ):
        failed.ensure_usable()
    with pytest.raises(errors.CdmClusterUnusable, match="unpaid bill"):
        Cluster("c", "a", "800").ensure_usable()
    usable = [name for name in STATES if name not in ("failed", "creation failed", "frozen")]
    assert len(usable) == 6


def test_an_unknown_cluster(drive: Drive, sim: CdmSimulator, make_session: MakeSession) -> None:
    """The error lists the clusters of the project."""
    session = make_session()
    with pytest.raises(errors.CdmNotFound, match=r"Clusters of this project: .*demo") as refusal:
        drive(session, clusters.poll(session.api, "nowhere"))
    assert sim.cluster_id in str(refusal.value)
    sim.fail("list_clusters", "status", status=403)
    with pytest.raises(errors.CdmNotFound, match="Check the spelling"):
        drive(session, clusters.poll(session.api, "nowhere"))


@pytest.mark.parametrize(
    ("when", "status", "sends"),
    [("before", None, 2), ("after", None, 1), ("before", 503, 2), ("after", 503, 1)],
)
def test_an_action_without_an_answer(
    when: Any,
    status: int | None,
    sends: int,
    drive: Drive,
    sim: CdmSimulator,
    make_session: MakeSession,
    sent: Sent,
) -> None:
    """After a stop whose answer is lost, it is sent again only if it had no effect."""
    more = {"status": status} if status else {}
    sim.fail("stop_cluster", "status" if status else "drop", when, **more)
    session = make_session()
    seen = drive(session, clusters.poll(session.api, sim.cluster_id))
    stop = resources.stop_cluster(sim.cluster_id, graceful=False)
    drive(session, clusters.send(session.api, stop, seen))
    assert len(sent("stop_cluster")) == sends
    assert sim.cluster_status() in ("910", "900")


def test_actions_without_effect_end(
    drive: Drive, sim: CdmSimulator, make_session: MakeSession, sent: Sent
) -> None:
    """After three actions without an answer or an effect the error is raised."""
    sim.fail("stop_cluster", "status", status=503, times=None)
    session = make_session()
    seen = drive(session, clusters.poll(session.api, sim.cluster_id))
    stop = resources.stop_cluster(sim.cluster_id, graceful=False)
    with pytest.raises(errors.CdmUnavailable):
        drive(session, clusters.send(session.api, stop, seen))
    assert len(sent("stop_cluster")) == 3


def test_busy_jobs(
    drive: Drive, sim: CdmSimulator, clock: ManualClock, make_session: MakeSession, sent: Sent
) -> None:
    """Active runs are found among jobs of all types and on all pages; ended ones do not count."""
    for number in range(230):
        sim.add_job(f"job_{number:03d}")
    sim.start("job_000")
    clock.advance(60)
    for name, kind in (("job_229", "NORMAL_JOB"), ("whole", "BATCH_JOB"), ("play", "SCENARIO_JOB")):
        sim.add_job(name, type=kind, seconds=1000)
        sim.start(name)
    sim.add_job("odd", statuses=["UNKNOWN"])
    sim.start("odd")
    session = make_session()
    busy = drive(session, clusters.busy_jobs(session.api, sim.cluster_id))
    assert sorted(busy) == ["job_229", "odd", "play", "whole"]
    assert len(sent("list_jobs")) == 5


@pytest.mark.parametrize("config", [{"behaviour": {"status_letters": "small"}}])
def test_busy_jobs_in_small_letters(
    drive: Drive, sim: CdmSimulator, clock: ManualClock, make_session: MakeSession, sent: Sent
) -> None:
    """A job that was never run, or whose run has ended, costs no status call in any spelling."""
    for name in ("new", "ended", "active"):
        sim.add_job(name, seconds=1000 if name == "active" else 10)
    sim.start("ended")
    sim.start("active")
    clock.advance(60)
    session = make_session()
    assert drive(session, clusters.busy_jobs(session.api, sim.cluster_id)) == ["active"]
    assert len(sent("status")) == 1


def test_a_listing_that_is_out_of_date(
    drive: Drive, sim: CdmSimulator, clock: ManualClock, make_session: MakeSession
) -> None:
    """A job that a listing shows as running counts only if a status call confirms it."""
    sim.add_job("orders")
    listed = {"total": 1, "jobs": [{"name": "orders", "status": "RUNNING"}]}
    sim.fail("list_jobs", "body", body=listed)
    session = make_session()
    assert drive(session, clusters.busy_jobs(session.api, sim.cluster_id)) == []


def test_a_listing_that_never_ends(
    drive: Drive, sim: CdmSimulator, make_session: MakeSession, sent: Sent
) -> None:
    """A server that ignores the page number and gives no total causes no endless loop."""
    jobs = [{"name": f"job_{number}", "status": "NEW"} for number in range(100)]
    sim.fail("list_jobs", "body", body={"jobs": jobs}, times=None)
    session = make_session()
    assert drive(session, clusters.busy_jobs(session.api, sim.cluster_id)) == []
    assert [request.query["page_no"] for request in sent("list_jobs")] == ["1", "2", "1", "1"]
