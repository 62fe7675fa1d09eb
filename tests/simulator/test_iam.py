from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import requests

from airflow_provider_cdm.simulator import CdmSimulator
from airflow_provider_cdm.simulator.gateway.signatures import sign
from airflow_provider_cdm.simulator.messages import Request
from tests.support.raw_client import Cdm, error_code, password_login

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator import ManualClock

KEYS = {"access_key": "AK1", "secret_key": "SK1"}
TEMPORARY = {"access_key": "AK2", "secret_key": "SK2", "security_token": "ST2"}


@pytest.fixture
def config() -> dict[str, Any]:
    return {
        "users": [
            {"name": "airflow", "password": "s3cret", "access_keys": [KEYS, TEMPORARY]},
            {"name": "guest", "password": "other", "domain": "partner"},
        ],
        "projects": [
            {"name": "eu-west-101"},
            {"name": "eu-west-101_sub"},
            {"name": "far", "domain": "partner"},
        ],
        "agencies": [{"name": "cdm-agency", "domain": "partner"}],
        "clusters": [
            {"name": "demo", "jobs": ["load"]},
            {"name": "abroad", "project": "far", "jobs": ["load"]},
        ],
    }


def token(sim: CdmSimulator, body: object, query: str = "", **headers: str) -> requests.Response:
    url = f"{sim.iam_url}/v3/auth/tokens{query}"
    return requests.post(url, json=body, headers=headers, timeout=5)


def test_password_token(sim: CdmSimulator, clock: ManualClock) -> None:
    """A token by password is in a header; the body describes user, project and times."""
    response = token(sim, password_login(sim))
    body = response.json()["token"]
    assert (response.status_code, len(response.headers["x-subject-token"]) > 1000) == (201, True)
    assert body["expires_at"] == "2025-01-03T03:04:05.000000Z"
    assert body["project"]["id"] == sim.project_id
    assert body["user"]["domain"]["name"] == "acme"
    assert "catalog" in body
    assert "catalog" not in token(sim, password_login(sim), "?nocatalog=1").json()["token"]
    assert {"X-Request-Id", "X-IAM-Trace-Id"} <= response.headers.keys()


@pytest.mark.parametrize("by", ["id", "name"])
def test_scope_by_id_or_name(sim: CdmSimulator, by: str) -> None:
    """A scope selects the project by id or name; a domain scope has no project."""
    body = password_login(sim)
    value = sim.project_id if by == "id" else sim.region
    body["auth"]["scope"] = {"project": {by: value}, "domain": {"name": "acme"}}
    assert token(sim, body).json()["token"]["project"]["name"] == sim.region
    body["auth"]["scope"] = {"domain": {"name": "acme"}}
    assert "project" not in token(sim, body).json()["token"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"auth": {"identity": {"methods": ["password"]}}}, 400),
        ({"auth": {}}, 400),
        ({}, 400),
        ({"auth": {"identity": {"methods": ["totp"]}}}, 400),
        ([1], 400),
    ],
)
def test_malformed_token_request(sim: CdmSimulator, change: object, status: int) -> None:
    """A malformed request is status 400 in Keystone's format."""
    response = token(sim, change)
    assert (response.status_code, response.json()["error"]["code"]) == (status, status)


def test_unknown_project(sim: CdmSimulator) -> None:
    """A scope with a project of another account is status 404."""
    body = password_login(sim)
    body["auth"]["scope"] = {"project": {"name": "far"}}
    assert token(sim, body).status_code == 404


@pytest.mark.parametrize("wrong", [{"password": "x"}, {"name": "x"}, {"domain": {"name": "x"}}])
def test_wrong_credentials(sim: CdmSimulator, wrong: dict[str, Any]) -> None:
    """Wrong passwords, users and accounts have the same response."""
    response = token(sim, password_login(sim, **wrong))
    assert response.status_code == 401
    error = {"code": 401, "message": "The username or password is wrong.", "title": "Unauthorized"}
    assert response.json() == {"error": error}


def test_lock_out(sim: CdmSimulator, clock: ManualClock) -> None:
    """Five wrong passwords within 15 minutes lock the user out for 15 minutes."""
    for _ in range(5):
        assert token(sim, password_login(sim, password="x")).status_code == 401
    locked = token(sim, password_login(sim))
    assert (locked.status_code, error_code(locked)) == (401, "IAM.0061")
    clock.advance(15 * 60 - 1)
    assert token(sim, password_login(sim)).status_code == 401
    clock.advance(1)
    assert token(sim, password_login(sim)).status_code == 201


def test_correct_password_resets_the_count(sim: CdmSimulator) -> None:
    """A correct password resets the count of wrong ones."""
    for _ in range(2):
        for _ in range(4):
            token(sim, password_login(sim, password="x"))
        assert token(sim, password_login(sim)).status_code == 201


def test_old_failures_do_not_count(sim: CdmSimulator, clock: ManualClock) -> None:
    """Wrong passwords older than 15 minutes do not count."""
    for _ in range(10):
        token(sim, password_login(sim, password="x"))
        clock.advance(4 * 60)
    assert token(sim, password_login(sim)).status_code == 201


def test_token_expiry(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """A token is valid until its expiry; then the gateway's message contains that time."""
    assert cdm.on_job("GET", "load").status_code == 200
    clock.advance(86_399)
    assert cdm.on_job("GET", "load").status_code == 200
    clock.advance(1)
    response = cdm.on_job("GET", "load")
    assert (response.status_code, response.json()["error_code"]) == (401, "APIGW.0301")
    assert "token expires, expires_at: 2025-01-03T03:04:05" in response.json()["error_msg"]
    assert response.json()["request_id"] == response.headers["X-Request-Id"]


@pytest.mark.parametrize(
    ("headers", "text"),
    [({"X-Auth-Token": "MIInonsense"}, "decrypt token fail"), ({}, "x-auth-token not found")],
)
def test_invalid_token(sim: CdmSimulator, headers: dict[str, str], text: str) -> None:
    """An unknown token and a missing token have different messages."""
    response = requests.get(f"{Cdm(sim).base}/job/load", headers=headers, timeout=5)
    assert (response.status_code, error_code(response)) == (401, "APIGW.0301")
    assert text in response.json()["error_msg"]


def test_revoked_token(sim: CdmSimulator, cdm: Cdm) -> None:
    """A revoked token is rejected, and a new one is accepted."""
    cdm.status("load")
    sim.revoke_tokens()
    assert cdm.on_job("GET", "load").status_code == 401
    Cdm(sim).status("load")


def test_token_of_another_project(sim: CdmSimulator) -> None:
    """A token is valid for its own project only."""
    body = password_login(sim)
    body["auth"]["scope"] = {"project": {"name": "eu-west-101_sub"}}
    value = token(sim, body).headers["X-Subject-Token"]
    url = f"{Cdm(sim).base}/job/load"
    response = requests.get(url, headers={"X-Auth-Token": value}, timeout=5)
    assert (response.status_code, error_code(response)) == (403, "APIGW.0310")


def test_token_validation_and_projects(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """A token can be verified, and the projects of the account listed by name."""
    value = cdm.login()
    headers = {"X-Auth-Token": value, "X-Subject-Token": value}
    verified = requests.get(f"{sim.iam_url}/v3/auth/tokens", headers=headers, timeout=5)
    assert verified.json()["token"]["user"]["name"] == "airflow"
    headers["X-Subject-Token"] = "MIIx"
    assert (
        requests.get(f"{sim.iam_url}/v3/auth/tokens", headers=headers, timeout=5).status_code == 404
    )
    url = f"{sim.iam_url}/v3/projects"
    named = requests.get(url, params={"name": sim.region}, headers=headers, timeout=5).json()
    assert [project["id"] for project in named["projects"]] == [sim.project_id]
    assert len(requests.get(url, headers=headers, timeout=5).json()["projects"]) == 2
    assert requests.get(url, timeout=5).status_code == 401
    clock.advance(86_400)
    assert requests.get(url, headers=headers, timeout=5).status_code == 401


@pytest.mark.parametrize(("allowed", "status"), [(True, 200), (False, 403)])
def test_projects_with_and_without_the_permission(
    allowed: bool, status: int, clock: ManualClock
) -> None:
    """Listing all projects needs a permission; listing those that the user may use needs none."""
    user = {"name": "airflow", "password": "a", "lists_projects": allowed}
    with CdmSimulator({"users": [user]}, clock=clock) as sim:
        headers = {"X-Auth-Token": Cdm(sim).login()}
        every = requests.get(f"{sim.iam_url}/v3/projects", headers=headers, timeout=5)
        own = requests.get(f"{sim.iam_url}/v3/auth/projects", headers=headers, timeout=5)
        assert (every.status_code, own.status_code) == (status, 200)
        assert [project["id"] for project in own.json()["projects"]] == [sim.project_id]
    if not allowed:
        assert every.json()["error"]["title"] == "Forbidden"


@pytest.mark.parametrize(
    ("config", "status", "code"),
    [
        ({"behaviour": {"wrong_region": "no-api"}}, 404, "APIGW.0101"),
        ({"behaviour": {"wrong_region": "token"}}, 401, "APIGW.0307"),
        ({"users": [{"name": "airflow", "refused_by_policy": True}]}, 401, "EPS.0003"),
    ],
)
def test_refusals_that_are_not_about_credentials(
    config: dict[str, Any], status: int, code: str
) -> None:
    """The gateway of another region, and a policy, refuse a token that IAM has just issued."""
    with CdmSimulator(config) as sim:
        response = Cdm(sim).on_job("GET", "all")
    assert response.status_code == status
    body = response.json()
    assert code in (body.get("error_code"), body.get("error", {}).get("code"))


def test_agency_token(sim: CdmSimulator, cdm: Cdm) -> None:
    """A token of an agency gives access to the project of the other account."""
    role = {"domain_name": "partner", "agency_name": "cdm-agency"}
    auth = {"identity": {"methods": ["assume_role"], "assume_role": role}}
    body = {"auth": {**auth, "scope": {"project": {"name": "far"}}}}
    response = token(sim, body, **{"X-Auth-Token": cdm.login()})
    assert response.json()["token"]["assumed_by"] == {"user": {"name": "airflow"}}
    far = sim.config.projects[2].id
    url = f"{sim.url}/v1.1/{far}/clusters/{sim.config.clusters[1].id}/cdm/job/load/start"
    headers = {"X-Auth-Token": response.headers["X-Subject-Token"]}
    [run] = requests.put(url, headers=headers, timeout=5).json()["submissions"]
    assert run["creation-user"] == "partner/cdm-agency"
    assert token(sim, body).status_code == 401
    role["agency_name"] = "no-such-agency"
    assert token(sim, body, **{"X-Auth-Token": cdm.login()}).status_code == 403


# Signed requests


def signed(
    sim: CdmSimulator,
    at: float,
    path: str,
    key: dict[str, str],
    *,
    body: bytes = b"",
    secret: str | None = None,
    unsigned: str = "",
    **more: str,
) -> requests.Response:
    """Send a request that is signed without the simulator's own code."""
    date = datetime.fromtimestamp(at, UTC).strftime("%Y%m%dT%H%M%SZ")
    headers = {"content-type": "application/json", "host": sim.url[7:], "x-sdk-date": date, **more}
    if "security_token" in key:
        headers.setdefault("x-security-token", key["security_token"])
    names = sorted(headers.keys() - {unsigned})
    lines = [
        "PUT" if body else "GET",
        path.partition("?")[0] + "/",
        path.partition("?")[2],
        *[f"{name}:{headers[name]}" for name in names],
        "",
        ";".join(names),
        headers.get("x-sdk-content-sha256") or hashlib.sha256(body).hexdigest(),
    ]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    text = f"SDK-HMAC-SHA256\n{date}\n{digest}".encode()
    value = hmac.new((secret or key["secret_key"]).encode(), text, hashlib.sha256).hexdigest()
    headers["authorization"] = (
        f"SDK-HMAC-SHA256 Access={key['access_key']}, "
        f"SignedHeaders={';'.join(names)}, Signature={value}"
    )
    return requests.request(lines[0], sim.url + path, headers=headers, data=body, timeout=5)


def job_path(sim: CdmSimulator, name: str = "load") -> str:
    return f"/v1.1/{sim.project_id}/clusters/{sim.cluster_id}/cdm/job/{quote(name, safe='')}"


@pytest.mark.parametrize("key", [KEYS, TEMPORARY])
def test_signed_request(sim: CdmSimulator, clock: ManualClock, key: dict[str, str]) -> None:
    """A signed request needs no token, with permanent and with temporary keys."""
    start = f"{job_path(sim)}/start"
    response = signed(sim, clock.now(), start, key, body=b'{"variables":{"a":"b"}}')
    assert response.status_code == 200, response.text
    assert sim.runs("load")[0].user == "airflow"
    history = f"/v1.1/{sim.project_id}/clusters/{sim.cluster_id}/cdm/submissions?jname=load"
    assert signed(sim, clock.now(), history, key).json()["total"] == 1


def test_signature_of_an_encoded_path(sim: CdmSimulator, clock: ManualClock) -> None:
    """For a name that needs percent-encoding, the encoded path is signed."""
    sim.add_job("每日 100%")
    assert signed(sim, clock.now(), job_path(sim, "每日 100%"), KEYS).status_code == 200


@pytest.mark.parametrize(
    ("skew", "change", "text"),
    [
        (0, {"secret": "wrong"}, "verify aksk signature fail"),
        (0, {"unsigned": "host"}, "verify aksk signature fail"),
        (0, {"unsigned": "x-sdk-date"}, "verify aksk signature fail"),
        (901, {}, "verify aksk signature fail"),
        (-901, {}, "verify aksk signature fail"),
        (0, {"key": {"access_key": "??", "secret_key": "x"}}, "Get secretKey failed"),
        (0, {"key": TEMPORARY, "x-security-token": "old"}, "verify aksk signature fail"),
    ],
)
def test_invalid_signature(
    sim: CdmSimulator, clock: ManualClock, skew: float, change: dict[str, Any], text: str
) -> None:
    """Wrong secrets, clocks off by more than 15 minutes and unknown keys are rejected."""
    change = {"key": KEYS, **change}
    response = signed(sim, clock.now() + skew, job_path(sim), **change)
    assert (response.status_code, error_code(response)) == (401, "APIGW.0301")
    assert text in response.json()["error_msg"]


@pytest.mark.parametrize(("digest", "status"), [("UNSIGNED-PAYLOAD", 200), ("0" * 64, 401)])
def test_declared_digest(sim: CdmSimulator, clock: ManualClock, digest: str, status: int) -> None:
    """A body can be excluded from the signature, but the digest of another body is rejected."""
    declared = {"x-sdk-content-sha256": digest}
    start = f"{job_path(sim)}/start"
    response = signed(sim, clock.now(), start, KEYS, body=b'{"variables":{}}', **declared)
    assert response.status_code == status


def test_allowed_clock_skew(sim: CdmSimulator, clock: ManualClock) -> None:
    """A clock skew of up to 15 minutes is allowed."""
    for skew in (-900, 900):
        assert signed(sim, clock.now() + skew, job_path(sim), KEYS).status_code == 200


def test_lock_of_an_access_key(sim: CdmSimulator, clock: ManualClock) -> None:
    """Five invalid signatures in a row lock an access key for five minutes."""
    not_locked = [("x", 401)] * 4 + [("SK1", 200)]
    for secret, status in [*not_locked, *not_locked, *[("x", 401)] * 5]:
        response = signed(sim, clock.now(), job_path(sim), KEYS, secret=secret)
        assert response.status_code == status
    locked = signed(sim, clock.now(), job_path(sim), KEYS)
    assert "AK access failed to reach the limit,forbidden" in locked.json()["error_msg"]
    assert signed(sim, clock.now(), job_path(sim), TEMPORARY).status_code == 200
    clock.advance(300)
    assert signed(sim, clock.now(), job_path(sim), KEYS).status_code == 200


@pytest.mark.parametrize(
    ("method", "tail", "query", "body", "expected"),
    [
        (
            "PUT",
            "job/jdbc2hive/start",
            "",
            b'{"variables":{"dt":"20250101"}}',
            "e83934aa847778edafad1cf9db755bcfcc1d1c74d34d8226d516b3288a700061",
        ),
        (
            "GET",
            "submissions",
            "jname=jdbc2hive",
            b"",
            "c7fd71d0bd8e3fbc914adeeb19e72da271e6b2bd10a309db300b3efc57b52a27",
        ),
    ],
)
def test_signatures_of_the_official_sdk(
    method: str, tail: str, query: str, body: bytes, expected: str
) -> None:
    """The signatures of two known requests are those that the official SDK computes."""
    project = "1551c7f6c808414d8e9f3c514a170f2e"
    cluster = "6ec9a0a4-76be-4262-8697-e7af1fac7920"
    headers = {
        "content-type": "application/json",
        "host": "cdm.eu-west-101.myhuaweicloud.eu",
        "x-project-id": project,
        "x-sdk-date": "20250102T030405Z",
    }
    path = f"/v1.1/{project}/clusters/{cluster}/cdm/{tail}"
    call = Request(method, path, {}, query, headers, body)
    assert sign(call, sorted(headers), "SKexample00000000000000000000000000000001") == expected


def _guest_login(sim: CdmSimulator) -> dict[str, Any]:
    body = password_login(sim, name="guest", password="other", domain={"name": "partner"})
    body["auth"]["scope"] = {"project": {"name": "far"}}
    return body


def test_rotation(sim: CdmSimulator) -> None:
    """A rotation replaces password or keys of one user, and ends the tokens of that user alone."""
    foreign = token(sim, _guest_login(sim))
    own = token(sim, password_login(sim)).headers["x-subject-token"]
    sim.rotate(password="new")
    assert token(sim, password_login(sim)).status_code == 401
    assert token(sim, password_login(sim, password="new")).status_code == 201
    tokens = sim._backend.iam.tokens
    assert own not in tokens
    assert foreign.headers["x-subject-token"] in tokens
    sim.rotate(access_keys=[{"access_key": "AK3", "secret_key": "SK3"}])
    assert set(sim._backend.gateway._signatures.keys) == {"AK3"}
    sim.reset()
    assert token(sim, password_login(sim)).status_code == 201
