"""The certificate with which the simulator serves TLS, made anew at each start."""

from __future__ import annotations

import ipaddress
import ssl
import tempfile
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

#: First line of a file that the simulator has written, and may replace.
_MARK = "# Made by the CDM simulator; replaced at each start.\n"
#: How long it is valid, for a simulator that runs for months.
_LIFETIME = timedelta(days=365)


class Certificate:
    """A certificate that is its own authority; its key stays in the memory of this process.

    :param hosts: names and addresses that it is for, besides those of the loopback interface.
    :param file: where clients find it, ``None`` for a temporary file.
    """

    def __init__(self, hosts: Collection[str], file: Path | None) -> None:
        self._hosts = dict.fromkeys(("localhost", "127.0.0.1", "::1", *hosts))
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.file = file

    def create(self) -> ssl.SSLContext:
        """Make the certificate, write its file, and return what the server needs.

        :raises ValueError: when the file is there and was not written by a simulator.
        """
        from cryptography.hazmat.primitives.asymmetric import ec

        if self.file is None:
            self._folder = tempfile.TemporaryDirectory(prefix="cdm-simulator-")
            self.file = Path(self._folder.name, "certificate.pem")
        elif self.file.exists() and not self.file.read_bytes().startswith(_MARK.encode()):
            raise ValueError(f"{self.file} was not made by a simulator, so it is not replaced.")
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(key)
        self.file.write_bytes(_MARK.encode() + certificate)
        return _server_context(key, certificate)

    def delete(self) -> None:
        """Delete the file, if it is temporary."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = self.file = None

    def _sign(self, key: ec.EllipticCurvePrivateKey) -> bytes:
        """Return the certificate as PEM, with all that a strict client asks of an authority."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization

        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "CDM simulator")])
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        now = datetime.now(UTC)
        extensions: dict[x509.ExtensionType, bool] = {
            x509.SubjectAlternativeName(map(_general_name, self._hosts)): False,
            x509.BasicConstraints(ca=True, path_length=0): True,
            _key_usage(): True,
            identifier: False,
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier): False,
        }
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + _LIFETIME)
        )
        for extension, critical in extensions.items():
            builder = builder.add_extension(extension, critical)
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _general_name(host: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage() -> x509.KeyUsage:
    from cryptography import x509

    names = (
        *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(digital_signature=True, key_cert_sign=True, **dict.fromkeys(names, False))


def _server_context(key: ec.EllipticCurvePrivateKey, certificate: bytes) -> ssl.SSLContext:
    """Return the context of the server; OpenSSL reads keys from files only, for a moment here."""
    from cryptography.hazmat.primitives import serialization

    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.NamedTemporaryFile() as file:  # readable by its owner only
        file.write(secret + certificate)
        file.flush()
        context.load_cert_chain(file.name)
    return context
