"""One HTTP exchange, with ``requests``; imported when the first one is made, and not before."""

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

#: Bytes of an answer that are read at most; a page of a hundred jobs is far below it. Parsed, it
#: may take thirty times as much memory.
BODY_LIMIT = 8 * 1024 * 1024
#: Bytes of one line, as for ``http.client``.
LINE_LIMIT = 64 * 1024
#: Seconds for a whole exchange, against a server that sends a byte now and then.
EXCHANGE_LIMIT = 300.0


class Deadline:
    """Ends an exchange that takes too long, whatever it is doing.

    Time-outs of sockets begin anew with every byte that arrives.
    """

    _of_thread = threading.local()

    def __init__(self, seconds: float) -> None:
        self.over = False
        self._seconds = seconds
        self.connected: socket.socket | None = None
        self._timer = threading.Timer(max(seconds, 0.0), self.cut)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        Deadline._of_thread.now = self
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        Deadline._of_thread.now = None
        if self.over:
            raise TransportError(f"the answer took longer than {self._seconds:g} s", sent=True)

    @classmethod
    def watch(cls, connected: socket.socket | None) -> None:
        """Hand in the socket on which this thread's exchange goes on."""
        if (now := getattr(cls._of_thread, "now", None)) is not None:
            now.connected = connected
            if now.over:
                now.cut()

    def cut(self) -> None:
        """End the exchange now."""
        self.over = True
        if self.connected is not None:
            with suppress(OSError):
                # Past the TLS layer, which another thread is just reading from.
                socket.socket.shutdown(self.connected, socket.SHUT_RDWR)


class _Reader(io.BufferedReader):
    def readline(self, size: int | None = -1, /) -> bytes:
        # urllib3 below 2.8 would read the line in front of a chunk to its end, however long.
        return super().readline(LINE_LIMIT if size is None or size < 0 else size)


class _Answer(http.client.HTTPResponse):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fp = _Reader(self.fp.detach())


class _Connection(urllib3.connection.HTTPConnection):
    response_class = _Answer

    def request(self, *args: Any, **kwargs: Any) -> None:
        super().request(*args, **kwargs)
        Deadline.watch(self.sock)


class _TlsConnection(urllib3.connection.HTTPSConnection):
    response_class = _Answer

    def request(self, *args: Any, **kwargs: Any) -> None:
        super().request(*args, **kwargs)
        Deadline.watch(self.sock)


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(requests.adapters.HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _watched(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        return _watched(super().proxy_manager_for(*args, **kwargs))


def _watched(manager: Any) -> Any:
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
    return manager


def open_http() -> requests.Session:
    """Return something that keeps connections, for one thread."""
    http = requests.Session()
    for scheme in ("http://", "https://"):
        http.mount(scheme, _Adapter())
    return http


def exchange(
    http: requests.Session, request: Request, settings: Settings, user_agent: str
) -> Response:
    """Send a request and read the answer to its end.

    :raises TransportError: when there is no usable answer.
    """
    try:
        with Deadline(EXCHANGE_LIMIT):
            return _send(http, request, settings, user_agent)
    # Errors of requests are OSErrors, as is a missing CA bundle; some of urllib3 pass through.
    except (OSError, urllib3.exceptions.HTTPError) as failure:
        raise TransportError(_reason(failure), sent=_may_be_sent(failure)) from None


def _send(
    http: requests.Session, request: Request, settings: Settings, user_agent: str
) -> Response:
    prepared = http.prepare_request(
        requests.Request(
            request.method,
            request.url,
            headers={**request.headers, "User-Agent": user_agent},
            data=request.body,
            auth=_unchanged,
        )
    )
    # requests would decode %2E and fold "..", so that the path names another job.
    prepared.url = request.url
    kwargs = http.merge_environment_settings(
        request.url, {}, stream=True, verify=settings.verify, cert=None
    )
    if settings.proxy:
        kwargs["proxies"] = {"http": settings.proxy, "https": settings.proxy}
    timeout = (settings.connect_timeout, settings.read_timeout)
    with http.send(prepared, timeout=timeout, allow_redirects=False, **kwargs) as answer:
        return Response(
            status=answer.status_code,
            headers={name.lower(): value for name, value in answer.headers.items()},
            body=read(answer),
        )


def read(answer: requests.Response) -> bytes:
    """Read a body, unless it is too long."""
    body = bytearray()
    for chunk in answer.iter_content(64 * 1024):
        body += chunk
        if len(body) > BODY_LIMIT:
            raise TransportError(f"the answer is longer than {BODY_LIMIT} bytes", sent=True)
    return bytes(body)


def _unchanged(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
    # An auth callable of our own keeps requests from adding credentials out of a .netrc file.
    return prepared


def _may_be_sent(failure: Exception) -> bool:
    # Nothing else proves it: TLS may also fail while the answer is read, and urllib3 reports a
    # proxy that dropped a complete request like one that could not be reached.
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
    """What requests and urllib3 wrapped into each other, from the outside in."""
    cause: object = failure
    while isinstance(cause, Exception):
        yield cause
        inside = cause.args[0] if cause.args else None
        cause = getattr(cause, "original_error", None) or getattr(cause, "reason", None) or inside


def _reason(failure: Exception) -> str:
    """Name a failure without the URL, a proxy's password and objects' addresses."""
    *_, innermost = _causes(failure)
    text = re.sub(r"^<?[\w.]*HTTPS?Connection\b[^:]*: ", "", str(innermost))
    text = re.sub(r"//[^/]*@", "//", text)
    return f"{type(failure).__name__}: {text}"[:300]
