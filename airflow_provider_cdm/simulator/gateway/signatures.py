"""Verification of requests that are signed with an access key (``SDK-HMAC-SHA256``)."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote

from airflow_provider_cdm.simulator.errors import WireError, unauthorized

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_cdm.simulator.config.config import AccessKey
    from airflow_provider_cdm.simulator.messages import Request

ALGORITHM = "SDK-HMAC-SHA256"
MAX_SKEW = 15 * 60
MAX_FAILURES = 5
LOCKED_SECONDS = 5 * 60

_AUTHORIZATION = re.compile(
    rf"{ALGORITHM} Access=(?P<key>[^,]+), *"
    r"SignedHeaders=(?P<headers>[^,]+), *Signature=(?P<signature>[0-9a-fA-F]+)"
)


def canonical_request(request: Request, signed: list[str]) -> str:
    """Return the canonical form of a request, whose digest is signed.

    Like the official SDK, this decodes the entire path before it encodes the parts again, so that
    an encoded slash in the name of a job becomes a separator.

    :param request: request to verify.
    :param signed: lower-case names of the signed headers, sorted.
    """
    path = "/".join(quote(part, safe="~") for part in unquote(request.path).split("/"))
    pairs = sorted(parse_qsl(request.raw_query, keep_blank_values=True))
    query = "&".join(f"{quote(key, safe='~')}={quote(value, safe='~')}" for key, value in pairs)
    headers = "".join(f"{name}:{request.headers.get(name, '').strip()}\n" for name in signed)
    claimed = request.headers.get("x-sdk-content-sha256") if request.body else None
    digest = claimed or hashlib.sha256(request.body).hexdigest()
    path = path if path.endswith("/") else f"{path}/"
    return "\n".join((request.method.upper(), path, query, headers, ";".join(signed), digest))


def sign(request: Request, signed: list[str], secret_key: str) -> str:
    """Return the signature of a request.

    :param request: request with an ``x-sdk-date`` header.
    :param signed: lower-case names of the signed headers, sorted.
    :param secret_key: secret part of the access key.
    """
    digest = hashlib.sha256(canonical_request(request, signed).encode()).hexdigest()
    text = f"{ALGORITHM}\n{request.headers.get('x-sdk-date', '')}\n{digest}"
    return hmac.new(secret_key.encode(), text.encode(), hashlib.sha256).hexdigest()


@dataclass
class _Failures:
    count: int = 0
    locked_until: float = 0.0


class SignatureVerifier:
    """Verifies signatures; five invalid ones in a row lock an access key for five minutes.

    :param keys: all known keys by the id of the access key.
    """

    def __init__(self, keys: Mapping[str, AccessKey]) -> None:
        self.keys = keys
        self._failures: dict[str, _Failures] = {}

    def verify(self, request: Request, now: float) -> str:
        """Return the id of the access key that a request is signed with.

        :param request: request with an ``Authorization`` header.
        :param now: current time in seconds since 1970.
        :raises GatewayError: 401 if the signature is not valid or the key is locked.
        """
        match = _AUTHORIZATION.fullmatch(request.headers.get("authorization", "").strip())
        if match is None:
            raise unauthorized("verify aksk signature fail")
        key = self.keys.get(match["key"])
        if key is None:
            raise unauthorized("Get secretKey failed")
        failures = self._failures.setdefault(key.access_key, _Failures())
        if now < failures.locked_until:
            raise unauthorized("AK access failed to reach the limit,forbidden")
        signed = sorted(match["headers"].lower().split(";"))
        error = self._error_in(request, key, signed, match["signature"].lower(), now)
        if error is None:
            failures.count = 0
            return key.access_key
        failures.count += 1
        if failures.count >= MAX_FAILURES:
            self._failures[key.access_key] = _Failures(0, now + LOCKED_SECONDS)
        raise error

    def _error_in(
        self, request: Request, key: AccessKey, signed: list[str], signature: str, now: float
    ) -> WireError | None:
        date = request.headers.get("x-sdk-date", "")
        try:
            sent = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        except ValueError:
            return unauthorized("verify aksk signature fail")
        if abs(now - sent) > MAX_SKEW:  # the wording is ASSUMED, the limit is documented
            return unauthorized("verify aksk signature fail, signature expired")
        if not {"host", "x-sdk-date"} <= set(signed):
            return unauthorized("verify aksk signature fail")
        if key.security_token != request.headers.get("x-security-token"):
            return unauthorized("verify aksk signature fail")
        if not _body_matches_digest(request) or not hmac.compare_digest(
            sign(request, signed, key.secret_key), signature
        ):
            return unauthorized("verify aksk signature fail")
        return None


def _body_matches_digest(request: Request) -> bool:
    claimed = request.headers.get("x-sdk-content-sha256")
    actual = hashlib.sha256(request.body).hexdigest()
    return claimed in (None, "UNSIGNED-PAYLOAD", actual)
