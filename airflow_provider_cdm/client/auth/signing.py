"""Signatures of requests with an access key (``SDK-HMAC-SHA256``).

Implements "AK/SK Signing and Authentication" of the API gateway's documentation; the tests compare
it with the signer of the official SDK. This module needs only the standard library, while the
official signer depends on eight packages and imports about a hundred modules.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from airflow_provider_cdm.client.sansio import Request
from airflow_provider_cdm.client.settings import KeyCredentials

ALGORITHM = "SDK-HMAC-SHA256"


def sign(request: Request, keys: KeyCredentials, now: float) -> Request:
    """Return the request with a signature in its headers.

    :param request: complete request without a signature; all its headers are signed.
    :param keys: access key that signs.
    :param now: epoch seconds; the gateway accepts a difference of fifteen minutes to its clock.
    """
    headers = {
        **request.headers,
        "X-Sdk-Date": datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ"),
        "Host": urlsplit(request.url).netloc,
    }
    if keys.security_token:
        headers["X-Security-Token"] = keys.security_token
    signed = {name.lower(): value.strip() for name, value in headers.items() if "_" not in name}
    names = ";".join(sorted(signed))
    content = _canonical(request, signed, names)
    text = "\n".join((ALGORITHM, headers["X-Sdk-Date"], _digest(content.encode())))
    signature = hmac.new(keys.secret_key.encode(), text.encode(), hashlib.sha256).hexdigest()
    authorization = (
        f"{ALGORITHM} Access={keys.access_key}, SignedHeaders={names}, Signature={signature}"
    )
    secrets = (*request.secrets, *filter(None, [keys.security_token]))
    return replace(request, headers={**headers, "Authorization": authorization}, secrets=secrets)


def _canonical(request: Request, signed: dict[str, str], names: str) -> str:
    parts = urlsplit(request.url)
    path = quote(unquote(parts.path), safe="/~")
    query = sorted(parse_qsl(parts.query, keep_blank_values=True))
    return "\n".join(
        (
            request.method,
            path if path.endswith("/") else f"{path}/",
            "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in query),
            *(f"{name}:{signed[name]}" for name in sorted(signed)),
            "",
            names,
            _digest(request.body or b""),
        )
    )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
