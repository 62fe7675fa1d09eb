"""The HTTP transport: one exchange with ``requests``, bounded in time and size.

The session imports this module at the first exchange, since importing ``requests`` is slow.
"""

from __future__ import annotations

import base64
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import requests
import urllib3
import urllib3.exceptions
from requests.utils import get_auth_from_url, select_proxy

from airflow_provider_cdm.client.http.connections import Deadline, NothingSentError
from airflow_provider_cdm.client.sansio import Obstacle, Request, Response, TransportError
from airflow_provider_cdm.client.text import redact

if TYPE_CHECKING:
    from airflow_provider_cdm.client.settings import Settings

#: Longest body that is read, in bytes; a page of a hundred jobs is far shorter. Parsed, a body may
#: take thirty times as much memory.
BODY_LIMIT = 8 * 1024 * 1024
#: Seconds for one exchange in total, against a server that sends a byte now and then.
EXCHANGE_LIMIT = 300.0
#: Bytes that are decompressed at a time, which may become a thousand times as many.
_PIECE = 16 * 1024
#: Content encodings that are asked for, and no others are read.
_ENCODINGS = ("gzip", "deflate")


def exchange(
    http: requests.Session,
    request: Request,
    settings: Settings,
    user_agent: str,
) -> Response:
    """Send a request and return the complete response.

    Whatever goes wrong below is a :class:`TransportError`. It has no cause, since the errors of
    libraries quote headers, and so credentials.

    :param http: session of the calling thread.
    :param request: request with credentials.
    :param settings: timeouts, proxy and certificates.
    :param user_agent: value of the ``User-Agent`` header.
    :raises TransportError: when no usable response arrives within the limits.
    """
    outcome = _try_exchange(http, request, settings, user_agent)
    if isinstance(outcome, TransportError):
        raise outcome
    return outcome


def _try_exchange(
    http: requests.Session, request: Request, settings: Settings, user_agent: str
) -> Response | TransportError:
    seconds = min(EXCHANGE_LIMIT, request.time_limit)
    try:
        prepared = _prepare(http, request, user_agent)
        options = _options(http, request, settings)
    except Exception as error:
        reason, obstacle = _reason_of_preparing(error), _obstacle(error, proxied=False)
        return TransportError(reason, sent=False, obstacle=obstacle)
    proxies = options["proxies"]
    secrets = tuple(_proxy_secrets(select_proxy(request.url, proxies))) if proxies else ()
    timeout = (min(settings.connect_timeout, seconds), min(settings.read_timeout, seconds))
    deadline = Deadline(seconds)
    too_slow = f"the response took longer than {seconds:g} s"
    try:
        with deadline:
            response = _send(http, prepared, {"timeout": timeout, **options})
    except Exception as error:
        # What a look-up of a name says is more exact, and it may end with the deadline.
        slow = deadline.expired and not _is_about_a_name(error)
        reason = too_slow if slow else _reason(error)
        hidden = (*request.secrets, *secrets)
        return TransportError(
            redact(reason, hidden),
            sent=_may_have_been_sent(error),
            obstacle=_obstacle(error, proxied=settings.proxy is not None),
        )
    if deadline.expired:
        return TransportError(too_slow, sent=True)
    return replace(response, secrets=secrets)


def _prepare(http: requests.Session, request: Request, user_agent: str) -> requests.PreparedRequest:
    headers = {"User-Agent": user_agent, "Accept-Encoding": ", ".join(_ENCODINGS)}
    prepared = http.prepare_request(
        requests.Request(
            request.method,
            request.url,
            headers={**request.headers, **headers},
            data=request.body,
            auth=_no_netrc,
        )
    )
    for value in prepared.headers.values():
        # As http.client does it, which has sent the request line by then.
        str(value).encode("latin-1")
    # requests decodes %2E and resolves "..", which would make the path name another job.
    prepared.url = request.url
    return prepared


def _options(http: requests.Session, request: Request, settings: Settings) -> dict[str, Any]:
    """Return proxies and certificates, from the settings and from environment variables."""
    options: Any = http.merge_environment_settings(
        request.url, {}, stream=True, verify=settings.verify, cert=None
    )
    if settings.proxy:
        options["proxies"] = {"http": settings.proxy, "https": settings.proxy}
    return {"allow_redirects": False, **options}


def _send(
    http: requests.Session, prepared: requests.PreparedRequest, options: dict[str, Any]
) -> Response:
    with http.send(prepared, **options) as received:
        encoding = received.headers.get("content-encoding", "identity").strip().lower()
        # Encodings that libraries add, and several on top of each other, expand without a limit.
        if encoding not in (*_ENCODINGS, "identity", ""):
            raise _UnusableResponseError("its content encoding was not asked for")
        return Response(
            status=received.status_code,
            headers={name.lower(): value for name, value in received.headers.items()},
            body=_read_body(received),
        )


class _UnusableResponseError(Exception):
    """The response is complete or endless, and cannot be read."""


def _read_body(received: requests.Response) -> bytes:
    body = bytearray()
    for chunk in received.iter_content(_PIECE):
        body += chunk
        if len(body) > BODY_LIMIT:
            raise _UnusableResponseError(f"the response is longer than {BODY_LIMIT} bytes")
    return bytes(body)


def _proxy_secrets(proxy: str | None) -> Iterator[str]:
    """Yield what a proxy may repeat of its own credentials: the password and the header."""
    user, password = get_auth_from_url(proxy or "")
    if user or password:
        yield password or user
        yield base64.b64encode(f"{user}:{password}".encode()).decode()


def _no_netrc(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
    # With a callable for auth, requests does not add credentials from a .netrc file.
    return prepared


def _may_have_been_sent(failure: Exception) -> bool:
    # Only these prove that nothing was sent: TLS may also fail while the response is read, and
    # urllib3 reports a proxy that dropped a complete request like one that could not be reached.
    before_sending = (
        NothingSentError,
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
        urllib3.exceptions.LocationValueError,
        urllib3.exceptions.NewConnectionError,
        urllib3.exceptions.ConnectTimeoutError,
        ssl.SSLCertVerificationError,
    )
    return not any(isinstance(cause, before_sending) for cause in _causes(failure))


def _obstacle(failure: Exception, *, proxied: bool) -> Obstacle | None:
    if isinstance(failure, NothingSentError) and "CA bundle" in str(failure):
        return Obstacle.CERTIFICATE
    kinds: tuple[tuple[type[Exception], Obstacle], ...] = (
        (urllib3.exceptions.ProxyError, Obstacle.PROXY),
        (requests.exceptions.ProxyError, Obstacle.PROXY),
        (requests.exceptions.InvalidProxyURL, Obstacle.PROXY),
        (requests.exceptions.InvalidSchema, Obstacle.PROXY),
        (ssl.SSLCertVerificationError, Obstacle.CERTIFICATE),
        (socket.gaierror, Obstacle.NAME),
        # The addresses in the connection have been checked, but not to the last character.
        (requests.exceptions.InvalidURL, Obstacle.PROXY if proxied else Obstacle.NAME),
        (urllib3.exceptions.LocationValueError, Obstacle.NAME),
        (ConnectionRefusedError, Obstacle.REFUSED),
        (urllib3.exceptions.ConnectTimeoutError, Obstacle.NO_ROUTE),
        (urllib3.exceptions.NewConnectionError, Obstacle.NO_ROUTE),
    )
    causes = [cause for each in _causes(failure) for cause in (each, each.__cause__)]
    return next(
        (found for kind, found in kinds if any(isinstance(cause, kind) for cause in causes)), None
    )


def _is_about_a_name(failure: Exception) -> bool:
    return any(isinstance(cause.__cause__, socket.gaierror) for cause in _causes(failure))


def _causes(failure: Exception) -> Iterator[Exception]:
    """Yield the errors that requests and urllib3 wrapped in each other, outermost first."""
    cause: object = failure
    while isinstance(cause, Exception):
        yield cause
        argument = cause.args[0] if cause.args else None
        cause = getattr(cause, "original_error", None) or getattr(cause, "reason", None) or argument


def _reason(failure: Exception) -> str:
    """Describe a failure without the URL, a proxy's password and memory addresses of objects."""
    if isinstance(failure, _UnusableResponseError):
        return str(failure)
    *_, innermost = _causes(failure)
    text = re.sub(r"^<?[\w.]{0,99}(Connection|Pool)\b[^:]*: ", "", str(innermost))
    text = re.sub(r"//[^/]*@", "//", text)
    return f"{type(failure).__name__}: {text}"[:300]


def _reason_of_preparing(failure: Exception) -> str:
    # The other errors quote the header that cannot be sent.
    if isinstance(failure, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
        return _reason(failure)
    return f"{type(failure).__name__}: the address or a header has characters that cannot be sent"
