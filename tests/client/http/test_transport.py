"""The transport: whether a request may have arrived decides if a start is repeated."""

from __future__ import annotations

import os
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.http import error_mapping, transport
from airflow_provider_cdm.client.sansio import (
    Obstacle,
    Request,
    TransportError,
)
from airflow_provider_cdm.simulator import CdmSimulator
from tests.client.fixture_types import Drive
from tests.client.http.scripted_server import OK, Put, ScriptedServer, serve_tls


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "RemoteDisconnected"),
        (b"\x00\x01 junk\r\n\r\n", "BadStatusLine"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n{}", "ChunkedEncodingError"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "InvalidChunkLength"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n{}", "InvalidHeader"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", "gzip"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n", "100 headers"),
    ],
)
def test_broken_responses(answer: bytes, reason: str, server: ScriptedServer, put: Put) -> None:
    """A request with an incomplete response, or none, counts as sent."""
    server.answer(answer)
    with pytest.raises(TransportError, match=reason) as caught:
        put(f"http://{server.address}/start")
    assert caught.value.sent
    assert server.methods == [b"PUT"]


@pytest.mark.parametrize(
    ("data", "ended"),
    [(OK, True), (b"", False)],
    ids=["answered", "dropped"],
)
def test_http_over_tls(
    data: bytes, ended: bool, server: ScriptedServer, certificate: Path, put: Put
) -> None:
    """A request is sent to a server whose certificate is trusted."""
    serve_tls(server, certificate, lambda tls: tls.sendall(data))
    if ended:
        answer = put(f"https://{server.address}/start", verify=str(certificate))
        assert (answer.status, answer.body) == (200, b"{}")
    else:
        with pytest.raises(TransportError) as caught:
            put(f"https://{server.address}/start", verify=str(certificate))
        assert caught.value.sent
    assert server.methods == [b"PUT"]


@pytest.mark.parametrize("raw", [b"no TLS at all", bytes([21, 3, 3, 0, 2, 2, 80])])
def test_tls_that_breaks_later(
    raw: bytes, server: ScriptedServer, certificate: Path, put: Put
) -> None:
    """TLS can fail after the request has arrived, so an error of TLS does not prove anything."""
    serve_tls(server, certificate, lambda tls: os.write(tls.fileno(), raw))
    with pytest.raises(TransportError, match="SSLError") as caught:
        put(f"https://{server.address}/start", verify=str(certificate))
    assert server.methods == [b"PUT"]
    assert caught.value.sent


def test_untrusted_certificate(server: ScriptedServer, certificate: Path, put: Put) -> None:
    """Nothing is sent to a server whose certificate is not trusted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.serve(lambda connection: context.wrap_socket(connection, server_side=True).close())
    with pytest.raises(TransportError, match="CERTIFICATE_VERIFY_FAILED") as caught:
        put(f"https://{server.address}/start")
    assert not caught.value.sent
    assert caught.value.obstacle is Obstacle.CERTIFICATE


@pytest.mark.parametrize(("name", "trusted"), [("cdm.test", True), ("other.test", False)])
def test_a_certificate_is_for_a_name(
    name: str,
    trusted: bool,
    server: ScriptedServer,
    certificate: Path,
    put: Put,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A certificate is compared with the name of the server, and not with its address."""
    serve_tls(server, certificate, lambda tls: tls.sendall(OK))
    look_up = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *other: look_up("127.0.0.1", *other))
    url = f"https://{server.address.replace('127.0.0.1', name)}/start"
    if trusted:
        assert put(url, verify=str(certificate)).status == 200
        return
    with pytest.raises(TransportError, match="Hostname mismatch") as caught:
        put(url, verify=str(certificate))
    assert not caught.value.sent
    assert caught.value.obstacle is Obstacle.CERTIFICATE


CLOSED = "127.0.0.1:1"
URL, TLS_URL = f"http://{CLOSED}/start", f"https://{CLOSED}/start"


@pytest.mark.parametrize(
    ("url", "settings", "reason", "sent", "obstacle"),
    [
        (URL, {}, "Connection refused", False, Obstacle.REFUSED),
        ("https://no-such-host.invalid/start", {}, "Failed to resolve", False, Obstacle.NAME),
        ("https://*.example/start", {}, "InvalidURL", False, Obstacle.NAME),
        (f"https://{'a' * 64}.example/start", {}, "LocationParseError", False, Obstacle.NAME),
        (TLS_URL, {"verify": "/no/bundle"}, "/no/bundle", False, Obstacle.CERTIFICATE),
        (URL, {"proxy": f"http://{CLOSED}"}, "Connection refused", False, Obstacle.PROXY),
        (TLS_URL, {"proxy": f"http://{CLOSED}"}, "Connection refused", False, Obstacle.PROXY),
        (TLS_URL, {"proxy": "bogus://x"}, "only http and https proxies", False, Obstacle.PROXY),
        (TLS_URL, {"proxy": "http://x:bad"}, "Invalid", False, Obstacle.PROXY),
    ],
)
def test_unreachable_servers(
    url: str,
    settings: dict[str, Any],
    reason: str,
    sent: bool,
    obstacle: Obstacle | None,
    put: Put,
) -> None:
    """An unreachable server or proxy is an error that names the reason, and what is in the way."""
    with pytest.raises(TransportError, match=reason) as caught:
        put(url, **settings)
    assert caught.value.sent is sent
    assert caught.value.obstacle is obstacle
    assert "0x" not in caught.value.reason
    assert "Connection(" not in caught.value.reason


def test_proxy_that_drops(server: ScriptedServer, put: Put) -> None:
    """A proxy that closes the connection after the request may have forwarded it."""
    server.answer(b"")
    with pytest.raises(TransportError) as caught:
        put("http://cdm.invalid/start", proxy=f"http://{server.address}")
    assert server.methods == [b"PUT"]
    assert caught.value.sent


def test_proxy_that_refuses_a_tunnel(server: ScriptedServer, put: Put) -> None:
    """A proxy that wants other credentials is told from one that cannot be reached."""

    def refuse(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")

    server.serve(refuse)
    with pytest.raises(TransportError) as caught:
        put("https://cdm.invalid/start", proxy=f"http://user:s3cret@{server.address}")
    request = Request("PUT", "https://cdm.invalid/start")
    error = error_mapping.from_transport(caught.value, "start job 'a'", request)
    assert (type(error), error.http_status) == (errors.CdmAuthError, 407)
    assert error.refuses_credentials
    assert "s3cret" not in str(error)
    assert "proxy's URL" in str(error)


def test_proxy_gets_the_request(server: ScriptedServer, put: Put) -> None:
    """With a proxy, nothing else is contacted, not even to resolve the name of the server."""
    server.answer(OK)
    assert put("http://cdm.invalid/start", proxy=f"http://{server.address}").status == 200
    assert server.methods == [b"PUT"]


@pytest.mark.parametrize(
    ("limit", "value", "reason"),
    [("BODY_LIMIT", 1, "longer than 1 bytes"), ("EXCHANGE_LIMIT", 0.0, "took longer than")],
)
def test_endless_responses(
    limit: str,
    value: float,
    reason: str,
    server: ScriptedServer,
    put: Put,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A response that exceeds the limit of size or time is an error."""
    monkeypatch.setattr(transport, limit, value)
    server.answer(OK)
    with pytest.raises(TransportError, match=reason) as caught:
        put(f"http://{server.address}/start")
    assert caught.value.sent


def test_netrc_adds_nothing(
    server: ScriptedServer, put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials in a .netrc file are not sent to CDM."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.answer(OK)
    put(f"http://{server.address}/start")
    assert b"authorization" not in server.arrived[0].lower()


def test_a_closed_session_opens_again(sim: CdmSimulator, make_session: Any, drive: Drive) -> None:
    """A closed session opens new connections."""
    sim.add_job("orders")
    session = make_session()
    for _ in range(2):
        assert drive(session, session.api.active_run(sim.cluster_id, "orders")) is None
        session.close()
