"""The Test button: what it reports for a working connection, and which step it names otherwise."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_cdm import hooks
from airflow_provider_cdm._compat import FORM_HIDES_SECRETS
from airflow_provider_cdm.client.api.definitions import JOB_TYPES
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.support.credentials import ACCOUNT, CONNECTIONS

RunTest = Callable[[dict[str, Any]], tuple[bool, str]]


@pytest.fixture
def sim(clock: ManualClock) -> Iterator[CdmSimulator]:
    """Return a simulator that accepts every kind of credentials."""
    with CdmSimulator(ACCOUNT, clock=clock) as simulator:
        for cluster in simulator.config.clusters:
            simulator.add_job("orders", cluster.id)
            simulator.add_job("customers", cluster.id)
        yield simulator


@pytest.fixture
def run_test(cdm_default: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> RunTest:
    """Return a function that tests a connection as the Test button does."""

    def run_test(connection: dict[str, Any]) -> tuple[bool, str]:
        monkeypatch.setenv("AIRFLOW_CONN_TESTED", json.dumps(connection))
        return CdmHook("tested").test_connection()

    return run_test


def changed(connection: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the connection with some fields changed, in its extra where they belong."""
    fields = {name: value for name, value in changes.items() if name in connection}
    extra = {name: value for name, value in changes.items() if name not in connection}
    return {**connection, **fields, "extra": {**connection["extra"], **extra}}


@pytest.mark.parametrize("kind", list(CONNECTIONS))
def test_working_connection(kind: str, sim: CdmSimulator, run_test: RunTest) -> None:
    """The message names user, project, cluster with its state, and the number of visible jobs."""
    connection = CONNECTIONS[kind](sim)
    works, text = run_test(connection)
    assert works, text
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


@pytest.mark.parametrize("name", SECRET_FIELDS)
def test_hidden_secret_is_not_sent(name: str, sim: CdmSimulator, run_test: RunTest) -> None:
    """The text that Airflow 2 tests in place of a stored secret is no secret: it would count as a
    wrong one, and five of those lock an access key.
    """
    hidden = {name: "RATHER_LONG_SENSITIVE_FIELD_PLACEHOLDER"}
    works, text = run_test(changed(CONNECTIONS["temporary keys"](sim), **hidden))
    label = name.replace("_", " ").title()
    assert (works, f"{label} is hidden in the form; to test it, enter it again." in text) == (
        False,
        True,
    ), text
    assert not sim.requests


@pytest.mark.skipif(not FORM_HIDES_SECRETS, reason="Airflow tests what is stored")
def test_password_that_the_form_does_not_show(sim: CdmSimulator, run_test: RunTest) -> None:
    """The form of Airflow 2 sends no stored password, so the message says to enter it again."""
    works, text = run_test(changed(CONNECTIONS["password"](sim), password=""))
    assert not works
    assert text.endswith(
        "IAM Password is missing. The form does not show a stored password; to test it, enter it"
        " again."
    )


def test_without_a_cluster(sim: CdmSimulator, run_test: RunTest) -> None:
    """A connection without a cluster id works, and the message lists the clusters."""
    works, text = run_test(changed(CONNECTIONS["password"](sim), cluster_id=None))
    assert works
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
        ("password", {"host": "http://127.0.0.1:9"}, "CDM endpoint", "check host and port"),
        ("keys", {"host": "http://127.0.0.1:9"}, "CDM endpoint", "127.0.0.1:9"),
        ("keys", {"region": "nowhere"}, "project. ", "Fill in Project ID"),
        ("password", {"region": "nowhere"}, "project. ", "check Region, or fill in Project ID"),
        ("password", {"project_id": "0" * 32}, "project. ", "check Project ID"),
        ("agency by password", {"region": "nowhere"}, "project. ", "check Region"),
        ("agency by keys", {"region": "nowhere"}, "project. ", "check Region"),
        ("password", {"cluster_id": "nothing"}, "cluster", "Check the spelling"),
        ("password", {"region": None, "project_id": None}, "fields", "Region is missing"),
        ("password", {"access_key": "AK"}, "fields", "not both"),
    ],
)
def test_failing_connection(
    kind: str, changes: dict[str, Any], step: str, advice: str, sim: CdmSimulator, run_test: RunTest
) -> None:
    """The message names the step that failed, the reason, and advice."""
    works, text = run_test(changed(CONNECTIONS[kind](sim), **changes))
    assert not works
    assert f"Failed at: {step}" in text
    assert advice in text


@pytest.mark.parametrize("kind", ["password", "keys", "agency by keys"])
@pytest.mark.parametrize("cluster_id", [None, "the cluster"])
@pytest.mark.parametrize(("wrong", "code"), [("no-api", "APIGW.0101"), ("token", "APIGW.0307")])
def test_endpoint_of_another_region(
    wrong: str,
    code: str,
    cluster_id: str | None,
    kind: str,
    clock: ManualClock,
    cdm_default: dict[str, Any],
    run_test: RunTest,
) -> None:
    """Where IAM accepts the credentials and CDM does not, the project's region is in doubt."""
    with CdmSimulator({**ACCOUNT, "behaviour": {"wrong_region": wrong}}, clock=clock) as sim:
        works, text = run_test(changed(CONNECTIONS[kind](sim), cluster_id=cluster_id))
    assert not works
    assert text.startswith("Failed at: project, or the endpoint of its region. ")
    assert code in text
    assert "Check Region" in text
    assert "CDM Endpoint" in text
    for misleading in ("Check user, password", "job or link"):
        assert misleading not in text


def test_look_up_that_is_refused(clock: ManualClock, cdm_default: Any, run_test: RunTest) -> None:
    """A key that may not see projects fails at the project, and is told which field to fill in."""
    user = {**ACCOUNT["users"][0], "lists_projects": False}
    behaviour = {"signed_auth_projects": False}
    with CdmSimulator({**ACCOUNT, "users": [user], "behaviour": behaviour}, clock=clock) as sim:
        works, text = run_test(CONNECTIONS["keys"](sim))
        assert not works
        assert text.startswith("Failed at: project. ")
        assert "Fill in Project ID" in text
        works, text = run_test(changed(CONNECTIONS["keys"](sim), project_id=sim.project_id))
        assert works, text


@pytest.mark.parametrize(
    ("route", "step", "passed"),
    [
        ("show_cluster", "cluster, or permission for it", "IAM accepts user 'airflow'"),
        ("list_jobs", "list of jobs, or permission for it", "'own'"),
    ],
)
def test_missing_permission(
    route: str, step: str, passed: str, sim: CdmSimulator, run_test: RunTest
) -> None:
    """A missing permission is distinguished from wrong credentials."""
    sim.fail(route, "status", status=403, body={"error_code": "APIGW.0302", "error_msg": "no"})
    works, text = run_test(CONNECTIONS["password"](sim))
    assert not works
    assert f"Failed at: {step}" in text
    assert passed in text.split("Passed before: ")[1]


def test_stopped_cluster(sim: CdmSimulator, run_test: RunTest, clock: ManualClock) -> None:
    """A connection to a stopped cluster works, and the message says that it is stopped."""
    body = {"id": sim.cluster_id, "name": "own", "status": "900"}
    sim.fail("show_cluster", "body", body=body)
    works, text = run_test(CONNECTIONS["password"](sim))
    assert works
    assert ": stopped; jobs can run only on a cluster in state normal" in text


def test_number_of_jobs(sim: CdmSimulator, run_test: RunTest) -> None:
    """Jobs of all types are counted, although each type has a list of its own."""
    for job_type in JOB_TYPES:
        sim.add_job(job_type, type=job_type)
    works, text = run_test(CONNECTIONS["password"](sim))
    assert works, text
    assert ": normal; 5 jobs are visible there." in text


def test_a_type_of_jobs_that_cdm_does_not_know(sim: CdmSimulator, run_test: RunTest) -> None:
    """A release without one of the types is no reason to fail, but then the number is a minimum."""
    sim.fail("list_jobs", "status", status=400, body={"errCode": "Cdm.0010"}, skip=1)
    works, text = run_test(CONNECTIONS["password"](sim))
    assert works, text
    assert "at least 2 jobs are visible there" in text


@pytest.mark.parametrize(
    ("host", "reason", "advice"),
    [
        ("https://no-such-host.invalid", "Failed to resolve", "resolve the name"),
        ("http://127.0.0.1:9", "Connection refused", "check host and port of the endpoint"),
    ],
)
def test_endpoint_that_cannot_be_reached(
    host: str, reason: str, advice: str, sim: CdmSimulator, run_test: RunTest
) -> None:
    """The advice fits the reason, which comes first, and nobody is told that it is temporary."""
    works, text = run_test(changed(CONNECTIONS["password"](sim), host=host))
    assert not works
    assert text.startswith(f"Failed at: CDM endpoint. Cannot connect to {host} (")
    assert text.index(reason) < text.index("Could not read the state of cluster")
    assert advice in text
    assert "temporary" not in text


def test_made_up_id_is_not_shown(sim: CdmSimulator, run_test: RunTest) -> None:
    """Airflow invents an id for a connection in the form, which means nothing to the user."""
    works, text = run_test(changed(CONNECTIONS["password"](sim), region=None, project_id=None))
    assert not works
    assert "The connection cannot be used: Region is missing" in text
    assert "'tested'" not in text


@pytest.mark.parametrize("route", ["token", "show_cluster"])
def test_server_that_hangs(
    route: str, sim: CdmSimulator, run_test: RunTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test of a server that never responds ends in time, and the step is named."""
    monkeypatch.setattr(hooks, "_TEST_SECONDS", 0.5)
    sim.fail(route, "hang")
    works, text = run_test(CONNECTIONS["password"](sim))
    assert not works
    service = "IAM" if route == "token" else "CDM"
    assert f"Failed at: {service} endpoint" in text
    ours = {thread.name for thread in threading.enumerate() if thread.name == "cdm-bounded"}
    assert not ours


def test_unknown_connection() -> None:
    """A connection that does not exist is a message as well, not an error."""
    works, text = CdmHook("no_such_connection").test_connection()
    assert not works
    assert "no_such_connection" in text


def test_one_attempt(sim: CdmSimulator, run_test: RunTest) -> None:
    """The test repeats no calls."""
    sim.fail("show_cluster", "status", status=503, times=None)
    assert not run_test(CONNECTIONS["password"](sim))[0]
    assert len([request for request in sim.requests if request.route == "show_cluster"]) == 1


def by_server(connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[bool, str]:
    """Test a connection as the API server does, and the web server of Airflow 2."""
    from airflow.models.connection import Connection

    airflow_connection = Connection(
        conn_id="x1", **{**connection, "extra": json.dumps(connection["extra"])}
    )
    monkeypatch.setenv("AIRFLOW_CONN_X1", airflow_connection.get_uri())
    outcome: tuple[bool, str] = airflow_connection.test_connection()  # type: ignore[no-untyped-call]
    return outcome


def by_worker(connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[bool, str]:
    """Test a connection as a worker of Airflow 3.3 does for the server."""
    definitions = pytest.importorskip("airflow.sdk.definitions.connection")
    airflow_connection = definitions.Connection(
        conn_id="x2", **{**connection, "extra": json.dumps(connection["extra"])}
    )
    if not hasattr(airflow_connection, "test_connection"):
        pytest.skip("this Airflow tests connections on its server only")
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")
    monkeypatch.setenv("AIRFLOW_CONN_X2", airflow_connection.get_uri())
    outcome: tuple[bool, str] = airflow_connection.test_connection()
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
    """Every kind works with Airflow's own connection, its URI and the hook."""
    works, text = variant(CONNECTIONS[kind](sim), monkeypatch)
    assert works, text
    works, text = variant(changed(CONNECTIONS[kind](sim), cluster_id="nothing"), monkeypatch)
    assert not works
    assert "Failed at: cluster" in text
