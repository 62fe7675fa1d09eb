from __future__ import annotations

import http.client
import json
import socket
from typing import Any

import pytest
import requests

from airflow_provider_cdm.simulator import CdmSimulator
from tests.support.raw_client import Cdm, password_login

JSON = {"Content_Type": "application/json"}
NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.fixture
def config() -> dict[str, Any]:
    return {"clusters": [{"name": "demo", "jobs": ["load"]}]}


def send(
    sim: CdmSimulator,
    method: str = "GET",
    path: str = "/_sim/state",
    body: str | None = None,
    **headers: str,
) -> requests.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.request(method, sim.url + path, data=body, headers=named, timeout=5)


def port_of(sim: CdmSimulator) -> str:
    return sim.url.rpartition(":")[2]


FOREIGN_HOSTS = [
    *("evil.example", "evil.example:PORT", "localhost.evil.example:PORT", "127.0.0.1.nip.io:PORT"),
    *("evil-localhost", "localhost@evil.example", "evil.example/localhost", "localhost:PORT/x"),
    *("192.168.0.7:PORT", "0.0.0.0:PORT", "2130706433:PORT", "0x7f.1:PORT", "127.1:PORT"),
    *(
        "[::2]:PORT",
        "localhost:PORT, evil.example",
        "localhost evil.example",
        "local\u212aost",
        ":PORT",
    ),
]


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/_sim/state"), ("POST", "/_sim/reset"), ("POST", "/v3/auth/tokens")],
)
def test_other_hosts_are_refused(sim: CdmSimulator, method: str, path: str, host: str) -> None:
    """A page whose own name leads to the simulator can neither read nor change anything."""
    sim.start("load")
    name = host.replace("PORT", port_of(sim)).encode().decode("latin-1")
    body = json.dumps(password_login(sim)) if method == "POST" else None
    response = send(sim, method, path, body, Host=name, Content_Type="application/json")
    assert response.status_code == 421
    assert "hosts:" in response.json()["error_msg"]
    assert "demo" not in response.text
    assert len(sim.runs("load")) == 1
    assert sim.requests == []


def test_missing_and_repeated_hosts_are_refused(sim: CdmSimulator) -> None:
    """A request without a host, or with two, is refused."""
    port = int(port_of(sim))
    for head in (
        "GET /_sim/state HTTP/1.0\r\n",
        "GET /_sim/state HTTP/1.1\r\n",
        f"GET /_sim/state HTTP/1.1\r\nHost: localhost:{port}\r\nHost: evil.example\r\n",
        f"GET /_sim/state HTTP/1.1\r\nHost: evil.example\r\nHost: localhost:{port}\r\n",
        f"GET http://evil.example/_sim/state HTTP/1.1\r\nHost: localhost:{port}\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(f"{head}\r\n".encode())
            response = http.client.HTTPResponse(connection)
            response.begin()
            assert response.status in {400, 404, 421}
            assert b"demo" not in response.read()


@pytest.mark.parametrize(
    "host",
    ["localhost:PORT", "LOCALHOST:PORT", "localhost.:PORT", "127.0.0.1:PORT", "127.0.0.9", "[::1]"],
)
def test_names_of_the_loopback_interface(sim: CdmSimulator, host: str) -> None:
    """All names of this machine's own interface are answered, with any port for tunnels."""
    assert send(sim, Host=host.replace("PORT", port_of(sim))).status_code == 200


@pytest.mark.parametrize("config", [{"hosts": ["Cdm.Internal", "other"]}])
def test_configured_hosts(sim: CdmSimulator) -> None:
    """Host names in the configuration are answered, with any port."""
    for host in ("cdm.internal", "CDM.internal:80", "other:8642", "localhost"):
        assert send(sim, Host=host).status_code == 200
    assert send(sim, Host="cdm.internal.example").status_code == 421
    response = send(sim, "POST", "/_sim/reset", "{}", Host="other", Origin="http://other", **JSON)
    assert response.status_code == 200


def test_address_that_was_bound() -> None:
    """A simulator that listens everywhere answers to the address that was called."""
    with CdmSimulator(host="0.0.0.0", allow_any_host=True) as sim:
        port = port_of(sim)
        for host, status in ((f"127.0.0.1:{port}", 200), ("evil.example", 421), ("10.1.2.3", 421)):
            response = requests.get(
                f"http://127.0.0.1:{port}/_sim/state", headers={"Host": host}, timeout=5
            )
            assert response.status_code == status


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://localhost:1"},
        {"Origin": "http://HOST.evil.example"},
        {"Origin": "http://evil.example/HOST"},
        {"Origin": "http://user@HOST"},
        {"Origin": "file://HOST"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "something new"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "image"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"},
        {"Sec_Fetch_Site": "same-origin", "Origin": "https://evil.example"},
    ],
    ids=repr,
)
def test_other_sites_are_refused(sim: CdmSimulator, headers: dict[str, str]) -> None:
    """What a page of another site sends is refused before it has an effect."""
    sim.start("load")
    host = sim.url.removeprefix("http://")
    sent = {name: value.replace("HOST", host) for name, value in headers.items()}
    for method, path in (
        ("GET", "/"),
        ("GET", "/_sim/requests"),
        ("POST", "/_sim/reset"),
        ("POST", "/_sim/jobs/new"),
        ("POST", "/_sim/faults"),
        ("POST", "/v3/auth/tokens"),
        ("PUT", f"/v1.1/{sim.project_id}/clusters/{sim.cluster_id}/cdm/job/load/start"),
        ("OPTIONS", "/_sim/reset"),
    ):
        response = send(sim, method, path, "{}", **sent, **JSON)
        assert response.status_code == 403, path
        assert "access-control-allow-origin" not in response.headers
    assert (sim.jobs(), len(sim.runs("load")), sim.requests) == (["load"], 1, [])


def test_own_page_and_programs(sim: CdmSimulator) -> None:
    """The page itself, programs, typed addresses and links of other sites to pages are answered."""
    own = {"Sec_Fetch_Site": "same-origin", "Origin": sim.url}
    assert send(sim, **own).status_code == 200
    assert send(sim, "POST", "/_sim/reset", "{}", **own, **JSON).status_code == 200
    assert send(sim, Sec_Fetch_Site="none").status_code == 200
    sim.start("load")
    link = {"Sec-Fetch-Site": "cross-site", **NAVIGATION}
    for path in ("/", f"/clusters/{sim.cluster_id}/jobs/load/runs/1"):
        assert requests.get(sim.url + path, headers=link, timeout=5).status_code == 200
    for path in ("/_sim/state", "/_sim/requests", f"/v1.1/{sim.project_id}/clusters"):
        assert requests.get(sim.url + path, headers=link, timeout=5).status_code == 403


@pytest.mark.parametrize(
    "media_type",
    [
        None,
        "",
        "text/plain",
        "text/plain; charset=application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
    ],
)
def test_changes_are_json(sim: CdmSimulator, cdm: Cdm, media_type: str | None) -> None:
    """A change that a form can send, or that is not JSON, is refused before it has an effect."""
    headers = {} if media_type is None else {"Content-Type": media_type}
    sim.start("load")
    login = json.dumps(password_login(sim))
    for path, body in (
        ("/_sim/reset", ""),
        ("/_sim/jobs/new", "{}"),
        ("/_sim/faults", '{"route": "start", "kind": "drop"}'),
        ("/v3/auth/tokens", login),
    ):
        response = requests.post(sim.url + path, data=body, headers=headers, timeout=5)
        assert response.status_code == 415
    assert (sim.jobs(), len(sim.runs("load")), sim.faults.remaining()) == (["load"], 1, [])
    if media_type:
        response = cdm.on_job("PUT", "load", "/stop", data="{}", headers=headers)
        assert response.status_code == 415


def test_json_has_parameters(sim: CdmSimulator) -> None:
    """The type of JSON may have parameters and capitals; a call without a body needs none."""
    for media_type in ("application/json;charset=utf8", "Application/JSON ; charset=UTF-8"):
        assert send(sim, "POST", "/_sim/reset", "{}", Content_Type=media_type).status_code == 200
    sim.start("load")
    assert Cdm(sim).on_job("PUT", "load", "/stop").status_code == 200


# Sizes


def test_large_body_is_refused(sim: CdmSimulator, cdm: Cdm) -> None:
    """A body above 12 MB is refused while it arrives, with and without a length."""
    head = "POST /v3/auth/tokens HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for framing, chunk in (
        ("Content-Length: 209715200", b"x" * 65_536),
        ("Transfer-Encoding: chunked", b"10000\r\n" + b"x" * 65_536 + b"\r\n"),
    ):
        with socket.create_connection(("127.0.0.1", int(port_of(sim))), timeout=5) as connection:
            connection.sendall(f"{head}{framing}\r\n\r\n".encode())
            sent = 0
            try:
                while sent < 40 * 1024**2:
                    sent += connection.send(chunk)
            except OSError:
                pass
            assert sent < 40 * 1024**2
    assert sim.requests == []
    large = {"variables": {"a": "x" * (12 * 1024**2)}}
    assert cdm.on_job("PUT", "load", "/start", json=large).status_code == 413
    assert sim.runs("load") == []


@pytest.mark.long
def test_log_is_bounded(sim: CdmSimulator, cdm: Cdm) -> None:
    """The log keeps no body above 1 MB, and of the others the last 64 MB."""
    cdm.start("load", {"a": "x" * 2_000_000})
    assert (sim.requests[-1].body, sim.requests[-1].body_size > 2_000_000) == (b"", True)
    assert "too large to be kept" in repr(sim.requests[-1])
    assert "too large to be kept" in requests.get(f"{sim.url}/_sim/requests", timeout=5).text
    with pytest.raises(ValueError, match="not kept"):
        sim.requests[-1].json()
    for _ in range(80):
        cdm.on_job("PUT", "load", "/start", json={"variables": {"a": "x" * 900_000}})
    kept = [entry for entry in sim.requests if entry.body]
    assert 60 < len(kept) < 75
    assert sum(len(entry.body) for entry in kept) <= 64 * 1024**2


# Passwords


def test_passwords_are_generated() -> None:
    """A user without a password in the configuration has one that nobody can guess."""
    users = [{"name": "a"}, {"name": "b", "password": "named"}, {"name": "c", "password": ""}]
    with CdmSimulator({"users": users}) as one, CdmSimulator({"users": users}) as other:
        passwords = [user.password for sim in (one, other) for user in sim.config.users]
        assert passwords[1] == passwords[4] == "named"
        generated = {*passwords} - {"named"}
        assert len(generated) == 4
        assert all(len(password) >= 20 for password in generated)
        assert Cdm(one).login()
        for wrong in ("", "airflow-secret"):
            login = password_login(one, name="c", password=wrong)
            response = requests.post(f"{one.url}/v3/auth/tokens", json=login, timeout=5)
            assert response.status_code == 401
        one.reset()
        assert Cdm(one).login()
