from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
import requests
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.support.raw_client import Cdm, error_code, password_login

EXAMPLES = int(os.environ.get("CDM_SIMULATOR_REQUESTS", "150"))
fuzz = settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

NUMBERS = [
    *(
        "0",
        "-1",
        "+1",
        "1.0",
        "1e3",
        "1E400",
        "0x10",
        " 1",
        "1 ",
        "1_0",
        "\u0661",
        "\u00b2",
        "\uff11",
    ),
    *("NaN", "Infinity", "true", "2147483648", "9" * 20, "9" * 5000, "-" + "9" * 5000, "0" * 5000),
]


@pytest.fixture
def config() -> dict[str, Any]:
    jobs = [{"name": "load"}, {"name": "all tables", "type": "BATCH_JOB", "tables": ["a", "b"]}]
    links = [{"name": "shop"}, {"name": "warehouse"}]
    behaviour = {"default_inputs": True, "encode_values": True, "extra_keys": True}
    return {
        "clusters": [{"name": "demo", "links": links, "jobs": jobs}],
        "behaviour": behaviour,
        "agencies": [{"name": "migrations", "domain": "acme"}],
    }


# Numbers in queries


@pytest.mark.parametrize("name", ["page_no", "page_size"])
@pytest.mark.parametrize("route", ["job/all", "submissions?jname=load"])
@pytest.mark.parametrize("value", NUMBERS, ids=lambda value: ascii(value[:20]))
def test_numbers_of_queries(sim: CdmSimulator, cdm: Cdm, route: str, name: str, value: str) -> None:
    """A page that is not a number of the API is an error of the API, with a short text."""
    sim.start("load")
    response = cdm.call("GET", route, params={name: value})
    assert (response.status_code, error_code(response)) == (400, "Cdm.0009")
    assert len(response.content) < 300


def test_numbers_that_are_valid(sim: CdmSimulator, cdm: Cdm) -> None:
    """Empty values are defaults, the last of several counts, and pages after the last are empty."""
    sim.start("load")
    for query, total in (("page_no=", 1), ("page_no=x&page_no=1", 1), ("page_no=007", 0)):
        response = cdm.call("GET", f"submissions?jname=load&{query}")
        assert len(response.json()["submissions"]) == total
    response = cdm.call("GET", "job/all?page_no=2147483647&page_size=100")
    assert (response.status_code, response.json()["jobs"]) == (200, [])


@pytest.mark.parametrize(
    "value", [-2, 2**31, 10**400, 1.5, True, "1", None, [], {}], ids=lambda value: repr(value)[:20]
)
@pytest.mark.parametrize("field", ["delayTime", "restartDelayTime"])
def test_numbers_of_cluster_actions(sim: CdmSimulator, cdm: Cdm, field: str, value: Any) -> None:
    """A delay that is no number of seconds is an error of the API."""
    options = {"stopMode": "GRACEFULLY"} if field == "delayTime" else {}
    action = {"stop" if field == "delayTime" else "restart": {**options, field: value}}
    url = f"{cdm.project}/clusters/{sim.cluster_id}/action"
    response = cdm.call("POST", url, json=action)
    assert (response.status_code, error_code(response)) == (400, "Cdm.0010")
    assert sim.cluster_status() == "200"


@pytest.mark.parametrize(
    "settings",
    [
        {"seconds": -1},
        {"seconds": 1e300},
        {"seconds": 10**400},
        {"seconds": {"booting": True}},
        {"tables_at_once": 10**400},
        {"counters": {"ROWS_READ": 1.5}},
        {"counters": {"ROWS_READ": 2**64}},
        {"outcomes": [{}, {"outcome": []}]},
        {"tables": [{}]},
        {"name": {"a": 1}},
        {"wire": []},
        {"statuses": {"a": 1}},
    ],
    ids=lambda value: repr(value)[:30],
)
def test_settings_of_jobs(sim: CdmSimulator, settings: dict[str, Any]) -> None:
    """A setting of a job that is out of range is a problem that the control names."""
    response = requests.post(f"{sim.url}/_sim/jobs/load", json=settings, timeout=5)
    assert response.status_code == 400
    [problem] = response.json()["problems"]
    assert next(iter(settings)) in problem


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 99},
        {"kind": "status", "status": 600},
        {"kind": "status", "status": 10**400},
        {"kind": "delay", "seconds": -1},
        {"kind": "hang", "seconds": 1e300},
        {"kind": "drop", "times": -1},
        {"kind": "drop", "skip": -1},
        {"kind": "body", "headers": {"a b": "c"}},
        {"kind": "body", "headers": {"a": "b\r\nc: d"}},
        {"kind": "body", "headers": {"a": "\u2028"}},
    ],
    ids=lambda value: repr(value)[:40],
)
def test_settings_of_faults(sim: CdmSimulator, fault: dict[str, Any]) -> None:
    """A fault that cannot occur is refused when it is added."""
    response = requests.post(f"{sim.url}/_sim/faults", json={"route": "status", **fault}, timeout=5)
    assert response.status_code == 400
    assert sim.faults.remaining() == []


@pytest.mark.parametrize("status", [200, 201, 204, 299, 304, 404, 418, 503, 599])
@pytest.mark.parametrize("body", [None, "", "text \ud83d", {"a": ["\ud800"]}])
def test_scripted_statuses_arrive(sim: CdmSimulator, cdm: Cdm, status: int, body: Any) -> None:
    """Every status and body of a fault arrives, although some statuses have no body."""
    sim.fail("status", "status", status=status, body=body)
    assert cdm.on_job("GET", "load", "/status").status_code == status
    assert cdm.status("load")["status"] == "NEVER_EXECUTED"


# Bodies


DEEP = '{"a":' * 50_000 + "1" + "}" * 50_000
BODIES = {
    "deep object": DEEP,
    "deep list": "[" * 100_000,
    "deep job": '{"jobs":[{"a":' * 200 + "1" + "}]}" * 200,
    "no number": '{"variables": {"a": NaN}}',
    "too large": '{"variables": {"a": 1e999}}',
    "many digits": '{"variables": ' + "9" * 5000 + "}",
    "half of a pair": '{"variables": {"a": "\\ud800"}}',
    "name with half of a pair": '{"\\ud800": {}}',
    "NUL": '{"a": "\0"}',
    "not UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"variables": {"\u00e4": 1}}'.encode("utf-16"),
    "a number": "5",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_bodies_that_are_not_valid(sim: CdmSimulator, cdm: Cdm, body: str | bytes) -> None:
    """No body breaks a route, and none breaks the page that shows it."""
    raw = body.encode() if isinstance(body, str) else body
    json_type = {"Content-Type": "application/json"}
    for method, path in (
        ("PUT", "job/load/start"),
        ("POST", "job"),
        ("PUT", "job/load"),
        ("POST", "link"),
        ("PUT", "link/shop"),
        ("POST", f"{cdm.project}/clusters/{sim.cluster_id}/action"),
        ("POST", f"{sim.url}/v3/auth/tokens"),
        ("POST", f"{sim.url}/_sim/faults"),
        ("POST", f"{sim.url}/_sim/jobs/load"),
    ):
        response = cdm.call(method, path, data=raw, headers=json_type)
        assert response.status_code == 400, (path, response.text)
    assert sim.runs("load") == []
    assert_pages(sim)


def assert_pages(sim: CdmSimulator) -> None:
    for path in ("/", "/_sim/state", "/_sim/requests"):
        response = requests.get(sim.url + path, timeout=5)
        assert response.status_code == 200
        if path != "/":
            json.loads(response.content, parse_constant=pytest.fail)


# Any request


@dataclass
class Sent:
    method: str
    path: str
    query: list[tuple[str, str]]
    body: Any


TEXTS = st.one_of(
    st.sampled_from(
        ["load", "all", "all tables", "shop", "demo", "", ".", "..", "%", "*", "a/b", "\0"]
    ),
    st.sampled_from(NUMBERS),
    st.text(max_size=8),
)
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([10**30, -1, 0, 2**31, 1e308, 0.1]),
        st.floats(allow_nan=False, allow_infinity=False),
        TEXTS,
    ),
    lambda part: st.one_of(st.lists(part, max_size=3), st.dictionaries(TEXTS, part, max_size=3)),
    max_leaves=6,
)
JOB = {
    "name": "new",
    "job_type": "NORMAL_JOB",
    "from-connector-name": "generic-jdbc-connector",
    "from-link-name": "shop",
    "from-config-values": {
        "configs": [{"name": "a", "inputs": [{"name": "fromJobConfig.sql", "value": "${x}"}]}]
    },
    "to-connector-name": "generic-jdbc-connector",
    "to-link-name": "warehouse",
    "to-config-values": {"configs": []},
    "driver-config-values": {
        "configs": [
            {"inputs": [{"name": "throttlingConfig.concurrentSubJobs", "value": "9" * 5000}]}
        ]
    },
}
LINK = {
    "name": "new",
    "connector-name": "generic-jdbc-connector",
    "link-config-values": {
        "configs": [{"inputs": [{"name": "linkConfig.password", "value": "x"}]}]
    },
}
LOGIN = {
    "auth": {
        "identity": {
            "methods": ["password"],
            "password": {"user": {"name": "airflow", "password": "x", "domain": {"name": "acme"}}},
        },
        "scope": {"project": {"name": "eu-west-101"}},
    }
}
AGENCY = {
    "auth": {
        "identity": {
            "methods": ["assume_role"],
            "assume_role": {"agency_name": "migrations", "domain_name": "acme"},
        },
        "scope": {"project": {"id": "x"}},
    }
}
SAMPLES: list[Any] = [
    {"jobs": [JOB]},
    {"links": [LINK]},
    {"variables": {"dt": "2025-01-01"}},
    {"stop": {"stopMode": "GRACEFULLY", "delayTime": 5}},
    {"restart": {"restartMode": "SOFTLY", "restartDelayTime": 0}},
    {"start": {}},
    {"route": "start", "kind": "status", "status": 503, "times": 0, "headers": {"a": "b"}},
    {"outcome": "FAILED", "seconds": {"running": 1}, "tables": [{"name": "a"}], "counters": {}},
    LOGIN,
    AGENCY,
]


@st.composite
def changed(draw: st.DrawFn) -> Any:
    """Draw a valid body with one part replaced or removed."""
    body: Any = json.loads(json.dumps(draw(st.sampled_from(SAMPLES))))
    places: list[tuple[Any, Any]] = []

    def collect(value: Any) -> None:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in items:
            places.append((value, key))
            if isinstance(part, (dict, list)):
                collect(part)

    collect(body)
    for holder, key in draw(st.lists(st.sampled_from(places), min_size=1, max_size=2)):
        with contextlib.suppress(KeyError, IndexError):
            holder[key] = draw(VALUES)
    return body


PATHS = [
    *("job", "job/{}", "job/{}/start", "job/{}/stop", "job/{}/status", "submissions"),
    *("link", "link/{}"),
]
PARAMETERS = st.sampled_from(
    ["page_no", "page_size", "jname", "jobType", "filter", "validate", "cluster_id"]
)
OTHER_PATHS = [
    *("/v3/auth/tokens", "/v3/projects", "/v1.1/{}/clusters", "/v1.1/{}/clusters/{}"),
    *("/v1.1/{}/clusters/{}/action", "/v1.1/{}/clusters/{}/cdm/job/{}", "/", "/{}", "/{}/{}"),
    *("/_sim/state", "/_sim/requests", "/_sim/faults", "/_sim/jobs/{}"),
    *("/clusters/{}/jobs/{}/runs/{}",),
]


@st.composite
def any_request(draw: st.DrawFn) -> Sent:
    """Draw a request to a route, or near one."""
    base = draw(st.sampled_from(["cluster", "other"]))
    pattern = draw(st.sampled_from(PATHS if base == "cluster" else OTHER_PATHS))
    path = ""
    for part in pattern.split("{}"):
        path += part
        known = st.sampled_from(["PROJECT", "CLUSTER", "load", "shop", "1"])
        if path.count("\n") < pattern.count("{}"):
            text = draw(st.one_of(known, TEXTS))
            path += quote(text, safe="", errors="replace") + "\n"
    names = st.one_of(
        st.sampled_from(
            ["page_no", "page_size", "jname", "jobType", "filter", "validate", "cluster_id"]
        ),
        TEXTS,
    )
    query = draw(st.lists(st.tuples(names, TEXTS), max_size=3))
    method = draw(st.sampled_from(["GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS"]))
    body = draw(st.one_of(st.none(), changed(), VALUES))
    return Sent(method, f"{base} {path}".replace("\n", ""), query, body)


@contextlib.contextmanager
def fuzzed(config: dict[str, Any]) -> Iterator[tuple[CdmSimulator, Cdm, ManualClock]]:
    clock = ManualClock()
    with CdmSimulator(config, clock=clock) as sim:
        yield sim, Cdm(sim), clock


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[CdmSimulator, Cdm, ManualClock]]:
    values: dict[str, Any] = config.__wrapped__()  # type: ignore[attr-defined]
    with fuzzed(values) as parts:
        yield parts


@pytest.mark.long
@fuzz
@given(st.lists(any_request(), min_size=1, max_size=4))
@example(
    [Sent("POST", "cluster job", [], {"jobs": [JOB]}), Sent("PUT", "cluster job/new/start", [], {})]
)
def test_any_requests(shared: tuple[CdmSimulator, Cdm, ManualClock], sequence: list[Sent]) -> None:
    """No request is answered with an error of the server's own, and all pages can be shown."""
    sim, cdm, clock = shared
    for sent in sequence:
        base, _, path = sent.path.partition(" ")
        path = path.replace("PROJECT", sim.project_id).replace("CLUSTER", sim.cluster_id)
        url = f"{cdm.base}/{path}" if base == "cluster" else f"{sim.url}{path}"
        raw = None if sent.body is None else json.dumps(sent.body).encode()
        response = send(cdm, sent, url, raw)
        assert response.content != b"Internal Server Error", (sent, url)
        if sent.method != "HEAD" and "json" in response.headers.get("Content-Type", ""):
            json.loads(response.content, parse_constant=pytest.fail)
    clock.advance(1)
    sim.faults.clear()
    assert_pages(sim)
    if sim.cluster_status() != "200" or len(sim.jobs()) > 50 or len(sim.requests) > 200:
        sim.reset()
        cdm.forget_token()


def send(cdm: Cdm, sent: Sent, url: str, raw: bytes | None) -> requests.Response:
    query = "&".join(
        f"{quote(key, errors='replace')}={quote(value, errors='replace')}"
        for key, value in sent.query
    )
    headers = {"Content-Type": "application/json"}
    return cdm.call(sent.method, f"{url}?{query}"[:16_000], data=raw, headers=headers, timeout=60)


def test_wrong_logins_have_the_errors_of_iam(sim: CdmSimulator) -> None:
    """A login whose parts have other types is an error of IAM."""
    login = password_login(sim)
    changes: list[Any] = [None, 1, [], {}, "", True, {"user": []}]
    for change in changes:
        for keys in (["auth"], ["auth", "identity"], ["auth", "identity", "password"]):
            body = json.loads(json.dumps(login))
            holder = body
            for key in keys[:-1]:
                holder = holder[key]
            holder[keys[-1]] = change
            response = requests.post(f"{sim.url}/v3/auth/tokens", json=body, timeout=5)
            assert (response.status_code, response.json()["error"]["code"]) == (400, 400)


def test_longest_durations() -> None:
    """A run of the longest duration does not end the thread that runs all others."""
    with CdmSimulator({"clusters": [{"name": "demo", "jobs": ["quick"]}]}) as sim:
        sim.add_job("endless", seconds={"booting": 10**11})
        sim.start("endless")
        sim.start("quick")
        end = time.monotonic() + 30
        while sim.runs("quick")[0].active:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert [thread.name for thread in threading.enumerate()].count("cdm-simulator-events") == 1
