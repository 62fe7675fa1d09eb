"""TLS: which certificates are trusted, and how often that takes time."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import certifi
import pytest

from airflow_provider_cdm.client import session as session_module
from airflow_provider_cdm.client.sansio import Obstacle, Request, TransportError, send_request
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.client.settings import PasswordCredentials, Settings
from tests.client.fixture_types import Drive
from tests.client.http.scripted_server import BODY, OK, Put, ScriptedServer, serve_tls


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
