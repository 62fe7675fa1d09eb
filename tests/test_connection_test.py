"""The Test button: what it says when all is well, and which step it names when not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_cdm import hooks
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.support.credentials import ACCOUNT, CONNECTIONS

Test = Callable[[dict[str, Any]], tuple[bool, str]]


@pytest.fixture
def sim(clock: ManualClock) -> Iterator[CdmSimulator]:
    """A simulator where every kind of credentials is good."""
    with CdmSimulator(ACCOUNT, clock=clock) as simulator:
        for cluster in simulator.config.clusters:
            simulator.add_job("orders", cluster.id)
            simulator.add_job("customers", cluster.id)
        yield simulator


@pytest.fixture
def press(cdm_default: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Test:
    """Press the Test button on a connection."""

    def press(connection: dict[str, Any]) -> tuple[bool, str]:
        monkeypatch.setenv("AIRFLOW_CONN_TESTED", json.dumps(connection))
        return CdmHook("tested").test_connection()

    return press


def changed(connection: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The connection with other fields, in its extra where they belong."""
    own = {name: value for name, value in changes.items() if name in connection}
    more = {name: value for name, value in changes.items() if name not in connection}
    return {**connection, **own, "extra": {**connection["extra"], **more}}


@pytest.mark.parametrize("kind", list(CONNECTIONS))
def test_good(kind: str, sim: CdmSimulator, press: Test) -> None:
    """User, project, cluster with its state, and how many jobs can be seen."""
    connection = CONNECTIONS[kind](sim)
    good, text = press(connection)
    assert good, text
    delegated = "agency" in kind
    cluster = sim.config.clusters[delegated]
    project_id = "f" * 32 if delegated else sim.project_id
    for part in (project_id, cluster.name, cluster.id, ": normal", "2 jobs"):
        assert part in text
    by_token = delegated or kind == "password"
    assert ("2025-01-03 03:04 UTC" if by_token else "access key") in text
    secrets = [connection.get("password"), *map(connection["extra"].get, SECRET_FIELDS)]
    assert not [secret for secret in secrets if secret and secret in text]


SECRET_FIELDS = ("secret_key", "security_token")


def test_without_a_cluster(sim: CdmSimulator, press: Test) -> None:
    """A connection without a cluster id works, and the clusters are listed to choose from."""
    good, text = press(changed(CONNECTIONS["password"](sim), cluster_id=None))
    assert good
    assert "no Cluster ID is filled in" in text
    assert f"'own' ({sim.cluster_id}): normal" in text
    assert "2 jobs" in text


@pytest.mark.parametrize(
    ("kind", "changes", "step", "advice"),
    [
        ("password", {"password": "wrong"}, "credentials", "Check user, password"),
        ("keys", {"secret_key": "wrong"}, "credentials", "verify aksk signature fail"),
        ("agency by password", {"agency_name": "x"}, "credentials, or permission", "agency 'x'"),
        ("password", {"iam_endpoint": "http://127.0.0.1:9"}, "IAM endpoint", "127.0.0.1:9"),
        ("password", {"host": "http://127.0.0.1:9"}, "CDM endpoint", "check the endpoint"),
        ("keys", {"host": "http://127.0.0.1:9"}, "CDM endpoint", "127.0.0.1:9"),
        ("keys", {"region": "nowhere"}, "project", "Fill in Project ID"),
        ("password", {"cluster_id": "nothing"}, "cluster", "Check the spelling"),
        ("password", {"region": None, "project_id": None}, "fields", "Region is missing"),
        ("password", {"access_key": "AK"}, "fields", "not both"),
    ],
)
def test_bad(
    kind: str, changes: dict[str, Any], step: str, advice: str, sim: CdmSimulator, press: Test
) -> None:
    """The step that failed is named, with what came back and what to do."""
    good, text = press(changed(CONNECTIONS[kind](sim), **changes))
    assert not good
    assert f"Failed at: {step}" in text
    assert advice in text


@pytest.mark.parametrize(
    ("route", "step", "fine"),
    [
        ("show_cluster", "cluster, or permission for it", "IAM accepts user 'airflow'"),
        ("list_jobs", "list of jobs, or permission for it", "'own'"),
    ],
)
def test_missing_permission(
    route: str, step: str, fine: str, sim: CdmSimulator, press: Test
) -> None:
    """A permission that the user lacks is told from wrong credentials."""
    sim.fail(route, "status", status=403, body={"error_code": "APIGW.0302", "error_msg": "no"})
    good, text = press(CONNECTIONS["password"](sim))
    assert not good
    assert f"Failed at: {step}" in text
    assert fine in text.split("Passed before: ")[1]


def test_stopped_cluster(sim: CdmSimulator, press: Test, clock: ManualClock) -> None:
    """A cluster that is stopped makes no bad connection, and is told."""
    body = {"id": sim.cluster_id, "name": "own", "status": "900"}
    sim.fail("show_cluster", "body", body=body)
    good, text = press(CONNECTIONS["password"](sim))
    assert good
    assert ": stopped; jobs can run only on a cluster in state normal" in text


@pytest.mark.parametrize("route", ["token", "show_cluster"])
def test_server_that_hangs(
    route: str, sim: CdmSimulator, press: Test, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that never answers does not hold up the button, and the step is named."""
    monkeypatch.setattr(hooks, "_TEST_SECONDS", 0.5)
    sim.fail(route, "hang")
    good, text = press(CONNECTIONS["password"](sim))
    assert not good
    asked = "IAM" if route == "token" else "CDM"
    assert f"Failed at: {asked} endpoint" in text


def test_unknown_connection() -> None:
    """A connection that does not exist is a sentence, too."""
    good, text = CdmHook("no_such_connection").test_connection()
    assert not good
    assert "no_such_connection" in text


def test_one_attempt(sim: CdmSimulator, press: Test) -> None:
    """A button is pressed again by its user, so nothing is repeated."""
    sim.fail("show_cluster", "status", status=503, times=None)
    assert not press(CONNECTIONS["password"](sim))[0]
    assert len([request for request in sim.requests if request.route == "show_cluster"]) == 1


def by_server(connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[bool, str]:
    """As the API server does it, and the web server of Airflow 2."""
    from airflow.models.connection import Connection

    made = Connection(conn_id="x1", **{**connection, "extra": json.dumps(connection["extra"])})
    monkeypatch.setenv("AIRFLOW_CONN_X1", made.get_uri())
    outcome: tuple[bool, str] = made.test_connection()  # type: ignore[no-untyped-call]
    return outcome


def by_worker(connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[bool, str]:
    """As a worker of Airflow 3.3 does it for the server."""
    definitions = pytest.importorskip("airflow.sdk.definitions.connection")
    made = definitions.Connection(
        conn_id="x2", **{**connection, "extra": json.dumps(connection["extra"])}
    )
    if not hasattr(made, "test_connection"):
        pytest.skip("this Airflow tests connections on its server only")
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")
    monkeypatch.setenv("AIRFLOW_CONN_X2", made.get_uri())
    outcome: tuple[bool, str] = made.test_connection()
    return outcome


@pytest.mark.parametrize("variant", [by_server, by_worker])
@pytest.mark.parametrize("kind", [kind for kind in CONNECTIONS if "other" not in kind])
def test_as_airflow_calls_it(
    variant: Callable[..., tuple[bool, str]],
    kind: str,
    sim: CdmSimulator,
    cdm_default: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every kind survives the way through Airflow's own connection, its URI and the hook."""
    good, text = variant(CONNECTIONS[kind](sim), monkeypatch)
    assert good, text
    bad, text = variant(changed(CONNECTIONS[kind](sim), cluster_id="nothing"), monkeypatch)
    assert not bad
    assert "Failed at: cluster" in text
