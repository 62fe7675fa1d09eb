"""Every operation, through both drivers: what is sent, and what is returned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import definitions, resources, runs
from airflow_provider_cdm.client.jobs.follower import Follower
from airflow_provider_cdm.client.submission import RunRef
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.client.fixture_types import Drive, MakeSession, Sent

JOB = "orders"
START, STATUS, STOP = ("PUT", "start"), ("GET", "status"), ("PUT", "stop")
HISTORY, SHOW = ("GET", "submissions"), ("GET", "show_job")
PATHS = {
    "start": "/cdm/job/orders/start",
    "status": "/cdm/job/orders/status",
    "stop": "/cdm/job/orders/stop",
    "submissions": "/cdm/submissions",
    "show_job": "/cdm/job/orders",
}


@dataclass(frozen=True)
class Op:
    """One operation.

    :param make: function that returns its flow, from the API, the cluster and the active run.
    :param calls: method and route of each request to CDM.
    :param result: expected result, or a part of it.
    :param body: JSON of the first request.
    """

    make: Callable[[Any, str, RunRef], Any]
    calls: list[tuple[str, str]]
    result: Any
    body: Any = None


ACTIVE = {"submission_id": 1, "job_name": JOB, "status": "BOOTING"}
STARTED = {"submission_id": 2, "job_name": JOB, "status": "BOOTING"}
OPERATIONS = {
    "start": Op(
        lambda f, c, _: f.call(runs.start_job(c, JOB)), [START], STARTED, body={"variables": {}}
    ),
    "start with variables": Op(
        lambda f, c, _: f.call(
            runs.start_job(c, JOB, {"ds": "2025-01-01", "区": "华东 \\ \"1\" 'x'"})
        ),
        [START],
        STARTED,
        body={"variables": {"ds": "2025-01-01", "区": "华东 \\ \"1\" 'x'"}},
    ),
    "status": Op(lambda f, c, _: f.call(runs.status(c, JOB)), [STATUS], [ACTIVE]),
    "submissions": Op(
        lambda f, c, _: f.call(runs.history(c, JOB)),
        [HISTORY],
        {"total": 1, "submissions": [ACTIVE]},
    ),
    "stop": Op(lambda f, c, _: f.stop(c, JOB), [STOP], True),
    "show_job": Op(
        lambda f, c, _: f.call(resources.show(definitions.JOB, c, JOB)),
        [SHOW],
        {"name": JOB, "job_type": "NORMAL_JOB"},
    ),
    "active_run": Op(lambda f, c, _: f.active_run(c, JOB), [STATUS], ACTIVE),
    "first_run_since": Op(lambda f, c, _: f.first_run_since(c, JOB, 0), [HISTORY], ACTIVE),
    "stop_run": Op(lambda f, c, run: f.stop_run(run), [STATUS, STOP], True),
    "follow": Op(
        lambda f, c, run: Follower(run).follow(f, poll_interval=1),
        [STATUS, STATUS],
        ACTIVE | {"status": "SUCCEEDED"},
    ),
}


def select(result: Any, wanted: Any) -> Any:
    """Return the parts of a result that an expected result contains."""
    if isinstance(wanted, list):
        return [select(item, part) for item, part in zip(result, wanted, strict=True)]
    if not isinstance(wanted, dict):
        return result
    values = result if isinstance(result, dict) else {n: getattr(result, n) for n in wanted}
    return {name: select(values[name], part) for name, part in wanted.items()}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(
    name: str,
    drive: Drive,
    sim: CdmSimulator,
    clock: ManualClock,
    make_session: MakeSession,
    sent: Sent,
) -> None:
    """Each operation sends what the API documents, with authorization, and returns the answer."""
    operation = OPERATIONS[name]
    sim.add_job(JOB)
    run = RunRef(sim.cluster_id, JOB, sim.start(JOB).submission_id)
    if name.startswith("start"):
        clock.advance(10)
    session = make_session()
    result = drive(session, operation.make(session.api, sim.cluster_id, run))
    assert select(result, operation.result) == operation.result

    requests = sent()
    prefix = f"/v1.1/{sim.project_id}/clusters/{sim.cluster_id}"
    assert [(r.method, r.path, dict(r.query)) for r in requests] == [
        (method, prefix + PATHS[route], {"jname": JOB} if route == "submissions" else {})
        for method, route in operation.calls
    ]
    assert [r.json() for r in requests] == [operation.body] + [None] * (len(requests) - 1)
    token = drive(session, session.api.auth.authorize()).value
    for request in requests:
        assert request.headers["x-auth-token"] == token
        assert request.headers["content-type"] == "application/json"
        assert request.headers["x-language"] == "en-us"
        assert request.headers["user-agent"].startswith("airflow-provider-cdm")
        assert not {"authorization", "cookie"} & request.headers.keys()
    assert len(sent("token")) == 1


@pytest.mark.parametrize("by", ["id", "name"])
def test_token(
    by: str,
    drive: Drive,
    sim: CdmSimulator,
    clock: ManualClock,
    make_session: MakeSession,
    sent: Sent,
) -> None:
    """A token is requested by password for one project, by its id or by the region's name."""
    scoped = {"id": sim.project_id} if by == "id" else {"name": sim.region}
    session = make_session(project_id=scoped.get("id"))
    token = drive(session, session.api.auth.authorize())
    assert (token.project_id, token.project_name) == (sim.project_id, sim.region)
    assert (token.user_name, token.expires_at) == (sim.user, clock.now() + 86_400)
    [request] = sent("token")
    assert (request.method, request.path) == ("POST", "/v3/auth/tokens")
    assert request.query["nocatalog"]
    assert request.headers["content-type"] == "application/json;charset=utf8"
    assert "x-auth-token" not in request.headers
    user = {"name": sim.user, "password": sim.password, "domain": {"name": sim.domain}}
    assert request.json() == {
        "auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": scoped},
        }
    }


PIECES = ["华东", "a.b", "..", ".", "/", "%", "%2F", "?", "#", "+", "&", " ", "=", ";", "\\", "\n"]
NAMES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=240),
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join),
)


@pytest.mark.long
@given(NAMES)
@example(".")
@example("..")
@example("....")
@example("../../x/cdm/job/other")
@example("订单 日报/a.b%2F?#+&")
@settings(
    derandomize=True,
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_names_arrive_unchanged(
    drive: Drive, sim: CdmSimulator, clock: ManualClock, make_session: MakeSession, name: str
) -> None:
    """Whatever characters a name has, the job of that name is started, shown and stopped."""
    sim.add_job(name)
    before = len(sim.runs(name))
    session = make_session()
    api, cluster = session.api, sim.cluster_id
    started = drive(session, api.call(runs.start_job(cluster, name)))
    [*_, run] = sim.runs(name)
    assert (len(sim.runs(name)), run.submission_id) == (before + 1, started.submission_id)
    [shown] = drive(session, api.call(runs.status(cluster, name)))
    history = drive(session, api.call(runs.history(cluster, name)))
    assert RunRef.of(shown) == RunRef.of(history.submissions[0]) == RunRef.of(started)
    assert drive(session, api.stop_run(RunRef.of(started)))
    clock.advance(10)
    assert sim.runs(name)[-1].status == "STOPPED"


@pytest.mark.parametrize(
    ("name", "segment"),
    [
        ("a.b", "a.b"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("a/b", "a%2Fb"),
        ("a b", "a%20b"),
        ("50%", "50%25"),
        ("a+b&c=d?e#f", "a%2Bb%26c%3Dd%3Fe%23f"),
        ("订单", "%E8%AE%A2%E5%8D%95"),
    ],
)
def test_names_on_the_wire(
    name: str,
    segment: str,
    drive: Drive,
    sim: CdmSimulator,
    make_session: MakeSession,
    sent: Sent,
) -> None:
    """A name is one percent-encoded segment of the path, even if it is ``.`` or ``..``."""
    sim.add_job(name)
    session = make_session()
    drive(session, session.api.call(runs.start_job(sim.cluster_id, name)))
    assert sent("start")[0].path.endswith(f"/cdm/job/{segment}/start")


def test_job_named_all() -> None:
    """A job named "all" cannot be shown, since that name lists all jobs."""
    with pytest.raises(errors.CdmConfigError, match="Rename"):
        resources.show(definitions.JOB, "c", "all")
