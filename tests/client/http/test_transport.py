"""The transport: whether a request may have arrived decides if a start is repeated."""

from __future__ import annotations

import concurrent.futures
import ipaddress
import multiprocessing
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client import session as session_module
from airflow_provider_cdm.client.http import error_mapping, transport
from airflow_provider_cdm.client.sansio import (
    Obstacle,
    Request,
    Response,
    TransportError,
    send_request,
)
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.client.settings import PasswordCredentials, Settings
from airflow_provider_cdm.simulator import CdmSimulator
from tests.client.fixture_types import Drive

Handle = Callable[[socket.socket], object]
BODY = b'{"variables": {}}'
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class ScriptedServer:
    """A server that handles connections as a test specifies.

    ``arrived`` holds the complete requests that were read.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.arrived: list[bytes] = []

    def serve(self, handle: Handle) -> None:
        """Handle all connections from now on."""
        threading.Thread(target=self._serve, args=(handle,), daemon=True).start()

    def answer(self, data: bytes) -> None:
        """Respond to each request with some bytes, and close the connection."""

        def handle(connection: socket.socket) -> None:
            self.read(connection)
            connection.sendall(data)

        self.serve(handle)

    def read(self, connection: socket.socket) -> None:
        """Read a complete request, since closing the connection earlier would reset it."""
        data = b""
        while not data.endswith(BODY):
            data += connection.recv(65_536)
        self.arrived.append(data)

    @property
    def methods(self) -> list[bytes]:
        """Methods of the requests that were read."""
        return [request.split()[0] for request in self.arrived]

    def close(self) -> None:
        """Stop."""
        self._listener.close()

    def _serve(self, handle: Handle) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                try:
                    handle(connection)
                except OSError:
                    continue


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """Start a server that a test can let misbehave."""
    server = ScriptedServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a self-signed certificate of this machine with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1)
    builder = builder.not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = builder.add_extension(here, critical=False).sign(key, hashes.SHA256())
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(pem, form, serialization.NoEncryption())
    path.write_bytes(secret + signed.public_bytes(pem))
    return path


@pytest.fixture
def put(drive: Drive) -> Callable[..., Response]:
    """Return a function that sends one PUT; ``settings`` change the session."""

    def put(url: str, **settings: Any) -> Response:
        credentials = PasswordCredentials("u", "p", "d")
        with CdmSession(Settings(url, url, credentials, **settings)) as session:
            response: Response = drive(session, send_request(Request("PUT", url, {}, BODY)))
            return response

    return put


Put = Callable[..., Response]


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


def serve_tls(
    server: ScriptedServer, certificate: Path, answer: Callable[[ssl.SSLSocket], Any]
) -> None:
    """Serve requests over TLS: read each one, and do something in answer to it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def handle(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as tls:
            server.read(tls)
            answer(tls)

    server.serve(handle)


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


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record which CA bundles are loaded from now on."""
    paths: list[str] = []
    load = ssl.SSLContext.load_verify_locations

    def record(context: ssl.SSLContext, cafile: Any = None, *args: Any, **kwargs: Any) -> None:
        paths.append(str(cafile))
        load(context, cafile, *args, **kwargs)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", record)
    return paths


def copied(certificate: Path, folder: Path) -> Path:
    """Return a bundle that this process has not loaded yet."""
    bundle = folder / "bundle.pem"
    bundle.write_bytes(certificate.read_bytes())
    return bundle


def test_a_bundle_is_loaded_once(
    server: ScriptedServer, certificate: Path, put: Put, tmp_path: Path, loads: list[str]
) -> None:
    """All connections of a process share a context, also those of threads that begin at once; a
    wrong name is refused with it, and nothing is sent.
    """
    bundle = str(copied(certificate, tmp_path))
    serve_tls(server, certificate, lambda tls: tls.sendall(OK))
    go = threading.Barrier(8)

    def send() -> None:
        go.wait()
        put(f"https://{server.address}/start", verify=bundle)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.methods == [b"PUT"] * 8
    assert loads == [bundle]
    with pytest.raises(TransportError, match="Hostname mismatch") as caught:
        put(f"https://{server.address.replace('127.0.0.1', 'localhost')}/start", verify=bundle)
    assert not caught.value.sent
    assert caught.value.obstacle is Obstacle.CERTIFICATE
    assert server.methods == [b"PUT"] * 8
    assert loads == [bundle]


def test_a_bundle_that_is_replaced(
    server: ScriptedServer, certificate: Path, put: Put, tmp_path: Path
) -> None:
    """A process trusts what the file of its bundle holds when a connection is opened."""
    bundle = copied(certificate, tmp_path)
    serve_tls(server, certificate, lambda tls: tls.sendall(OK))
    url = f"https://{server.address}/start"
    assert put(url, verify=str(bundle)).status == 200
    bundle.unlink()
    bundle.write_bytes(Path(certifi.where()).read_bytes())
    with pytest.raises(TransportError, match="CERTIFICATE_VERIFY_FAILED"):
        put(url, verify=str(bundle))
    assert put(url, verify=False).status == 200
    with pytest.raises(TransportError, match="CERTIFICATE_VERIFY_FAILED"):
        put(url, verify=str(bundle))


def test_the_bundle_of_the_environment(
    server: ScriptedServer, certificate: Path, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``REQUESTS_CA_BUNDLE`` counts where the connection names no bundle."""
    serve_tls(server, certificate, lambda tls: tls.sendall(OK))
    url = f"https://{server.address}/start"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert put(url).status == 200
    with pytest.raises(TransportError, match="CERTIFICATE_VERIFY_FAILED"):
        put(url, verify=certifi.where())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_loads_its_own_bundle(
    server: ScriptedServer, certificate: Path, put: Put, tmp_path: Path, loads: list[str]
) -> None:
    """A context may be in use by a thread of the parent when a process is forked."""
    bundle = str(copied(certificate, tmp_path))
    serve_tls(server, certificate, lambda tls: tls.sendall(OK))
    put(f"https://{server.address}/start", verify=bundle)
    assert loads == [bundle]
    fork = multiprocessing.get_context("fork")
    results = fork.SimpleQueue()

    def send() -> None:
        status = put(f"https://{server.address}/start", verify=bundle).status
        results.put((status, loads))

    child = fork.Process(target=send)
    child.start()
    assert results.get() == (200, [bundle, bundle])
    child.join()


def test_certificates_of_a_proxy_are_verified_as_soon_as_the_connection_says_so(
    server: ScriptedServer, certificate: Path, drive: Drive
) -> None:
    """A session that goes on with other settings does not keep the trust of the earlier ones."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def refuse(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as tls:
            server.arrived.append(tls.recv(65_536))
            tls.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    server.serve(refuse)
    url, proxy = "https://cdm.invalid", f"https://{server.address}"
    lax = Settings(url, url, PasswordCredentials("u", "p", "d"), proxy=proxy, verify=False)
    with CdmSession(lax) as session, pool_of_one_thread():
        with pytest.raises(TransportError, match="403"):
            drive(session, send_request(Request("PUT", url, {}, BODY)))
        session.adopt(replace(lax, verify=True))
        with pytest.raises(TransportError, match="CERTIFICATE_VERIFY_FAILED"):
            drive(session, send_request(Request("PUT", url, {}, BODY)))
    assert server.methods == [b"CONNECT"]


@contextmanager
def pool_of_one_thread() -> Iterator[None]:
    """Perform all exchanges for event loops in one thread, on the same connections."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool, pytest.MonkeyPatch.context() as patch:
        patch.setattr(session_module, "_pool", pool)
        yield


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
