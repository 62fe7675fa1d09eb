"""The HTTP transport: one exchange with ``requests``, bounded in time and size.

The session imports this module at the first exchange, since importing ``requests`` is slow.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import requests
import requests.adapters
import urllib3
import urllib3.connection
import urllib3.exceptions

from airflow_provider_cdm.client.sansio import Request, Response, TransportError

if TYPE_CHECKING:
    from airflow_provider_cdm.client.settings import Settings

#: Longest body that is read, in bytes; a page of a hundred jobs is far shorter. Parsed, a body may
#: take thirty times as much memory.
BODY_LIMIT = 8 * 1024 * 1024
#: Longest line that is read, in bytes, as in ``http.client``.
LINE_LIMIT = 64 * 1024
#: Seconds for one exchange in total, against a server that sends a byte now and then.
EXCHANGE_LIMIT = 300.0


class Deadline:
    """Context manager that aborts the exchange of this thread after some seconds.

    Timeouts of sockets are not enough, since they start again with every byte that arrives.

    :param seconds: how long the exchange may take.
    """

    _current = threading.local()

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self.sock: socket.socket | None = None
        self._seconds = seconds
        self._timer = threading.Timer(max(seconds, 0.0), self.abort)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        Deadline._current.deadline = self
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        Deadline._current.deadline = None
        if self.expired:
            raise TransportError(f"the response took longer than {self._seconds:g} s", sent=True)

    @classmethod
    def attach(cls, sock: socket.socket | None) -> None:
        """Set the socket that this thread's exchange uses, so that the deadline can close it."""
        deadline: Deadline | None = getattr(cls._current, "deadline", None)
        if deadline is not None:
            deadline.sock = sock
            if deadline.expired:
                deadline.abort()

    def abort(self) -> None:
        """End the exchange now."""
        self.expired = True
        if self.sock is not None:
            with suppress(OSError):
                # Below the TLS layer, which the thread of the exchange is reading from.
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


class _BoundedReader(io.BufferedReader):
    def readline(self, size: int | None = -1, /) -> bytes:
        # urllib3 before 2.8 reads the line in front of a chunk without a limit.
        return super().readline(LINE_LIMIT if size is None or size < 0 else size)


class _BoundedResponse(http.client.HTTPResponse):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fp = _BoundedReader(self.fp.detach())


class _Connection(urllib3.connection.HTTPConnection):
    response_class = _BoundedResponse

    def request(self, *args: Any, **kwargs: Any) -> None:
        super().request(*args, **kwargs)
        Deadline.attach(self.sock)


class _TlsConnection(urllib3.connection.HTTPSConnection):
    response_class = _BoundedResponse

    def request(self, *args: Any, **kwargs: Any) -> None:
        super().request(*args, **kwargs)
        Deadline.attach(self.sock)


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(requests.adapters.HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _use_our_pools(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        return _use_our_pools(super().proxy_manager_for(*args, **kwargs))


def _use_our_pools(manager: Any) -> Any:
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
    return manager


def open_http_session() -> requests.Session:
    """Return a ``requests`` session, which keeps connections open, for one thread."""
    http = requests.Session()
    for scheme in ("http://", "https://"):
        http.mount(scheme, _Adapter())
    return http


def exchange(
    http: requests.Session, request: Request, settings: Settings, user_agent: str
) -> Response:
    """Send a request and return the complete response.

    :param http: session of the calling thread.
    :param request: request with credentials.
    :param settings: timeouts, proxy and certificates.
    :param user_agent: value of the ``User-Agent`` header.
    :raises TransportError: when no usable response arrives within the limits.
    """
    try:
        with Deadline(EXCHANGE_LIMIT):
            return _send(http, request, settings, user_agent)
    # Errors of requests and a missing CA bundle are OSErrors; requests lets some of urllib3's pass.
    except (OSError, urllib3.exceptions.HTTPError) as failure:
        raise TransportError(_reason(failure), sent=_may_have_been_sent(failure)) from None


def _send(
    http: requests.Session, request: Request, settings: Settings, user_agent: str
) -> Response:
    prepared = http.prepare_request(
        requests.Request(
            request.method,
            request.url,
            headers={**request.headers, "User-Agent": user_agent},
            data=request.body,
            auth=_no_netrc,
        )
    )
    # requests decodes %2E and resolves "..", which would make the path name another job.
    prepared.url = request.url
    kwargs = http.merge_environment_settings(
        request.url, {}, stream=True, verify=settings.verify, cert=None
    )
    if settings.proxy:
        kwargs["proxies"] = {"http": settings.proxy, "https": settings.proxy}
    timeout = (settings.connect_timeout, settings.read_timeout)
    with http.send(prepared, timeout=timeout, allow_redirects=False, **kwargs) as received:
        return Response(
            status=received.status_code,
            headers={name.lower(): value for name, value in received.headers.items()},
            body=_read_body(received),
        )


def _read_body(received: requests.Response) -> bytes:
    body = bytearray()
    for chunk in received.iter_content(64 * 1024):
        body += chunk
        if len(body) > BODY_LIMIT:
            raise TransportError(f"the response is longer than {BODY_LIMIT} bytes", sent=True)
    return bytes(body)


def _no_netrc(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
    # With a callable for auth, requests does not add credentials from a .netrc file.
    return prepared


def _may_have_been_sent(failure: Exception) -> bool:
    # Only these prove that nothing was sent: TLS may also fail while the response is read, and
    # urllib3 reports a proxy that dropped a complete request like one that could not be reached.
    before_sending = (
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
        urllib3.exceptions.LocationValueError,
        urllib3.exceptions.NewConnectionError,
        urllib3.exceptions.ConnectTimeoutError,
        ssl.SSLCertVerificationError,
    )
    return not any(isinstance(cause, before_sending) for cause in _causes(failure))


def _causes(failure: Exception) -> Iterator[object]:
    """Yield the errors that requests and urllib3 wrapped in each other, outermost first."""
    cause: object = failure
    while isinstance(cause, Exception):
        yield cause
        argument = cause.args[0] if cause.args else None
        cause = getattr(cause, "original_error", None) or getattr(cause, "reason", None) or argument


def _reason(failure: Exception) -> str:
    """Describe a failure without the URL, a proxy's password and memory addresses of objects."""
    *_, innermost = _causes(failure)
    text = re.sub(r"^<?[\w.]*HTTPS?Connection\b[^:]*: ", "", str(innermost))
    text = re.sub(r"//[^/]*@", "//", text)
    return f"{type(failure).__name__}: {text}"[:300]
