from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from airflow_provider_cdm.client.sansio import Request, Response, send_request
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.client.settings import PasswordCredentials, Settings
from tests.client.fixture_types import Drive
from tests.client.http.scripted_server import BODY, ScriptedServer


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
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    here = x509.SubjectAlternativeName([address, x509.DNSName("cdm.test")])
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
