"""Connections that are bounded in time, from the look-up of a name to the last byte.

``requests`` and urllib3 have timeouts for single operations of a socket only. The classes here add
a deadline below them.
"""

from __future__ import annotations

import functools
import http.cookiejar
import ipaddress
import os
import socket
import ssl
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import requests
import requests.adapters
import urllib3
import urllib3.connection
import urllib3.util.connection
import urllib3.util.ssl_
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from airflow_provider_cdm.client.bounded import NotFinishedError, run_bounded
from airflow_provider_cdm.client.http.responses import BoundedResponse
from airflow_provider_cdm.client.locks import ProcessLock


class NothingSentError(Exception):
    """The exchange failed before anything was sent."""


class Deadline:
    """Context manager that aborts the exchange of this thread after some seconds.

    Timeouts of sockets are not enough, since they start again with every byte that arrives. Sending
    and receiving, the answer of a proxy to ``CONNECT`` and the TLS handshake are aborted. Nothing
    can abort the look-up of a host name, so it is made in a thread that may outlive the exchange.

    :param seconds: how long the exchange may take.
    """

    _current = threading.local()

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.expired = False
        self._ends_at = time.monotonic() + seconds
        self._sock: socket.socket | None = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(max(seconds, 0.0), self.abort)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        try:
            self._timer.start()
        except RuntimeError as error:
            raise NothingSentError(f"no thread can be started ({error})") from None
        Deadline._current.deadline = self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        Deadline._current.deadline = None
        self._timer.cancel()
        self._replace(None)

    @classmethod
    def current(cls) -> Deadline | None:
        """Return the deadline of this thread's exchange."""
        deadline: Deadline | None = getattr(cls._current, "deadline", None)
        return deadline

    @property
    def remaining(self) -> float:
        """Seconds that are left, never below a hundredth."""
        return max(0.01, self._ends_at - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Whether no time is left, even if the exchange was not aborted yet."""
        return time.monotonic() >= self._ends_at

    def attach(self, sock: socket.socket) -> None:
        """Set the socket that the exchange uses, so that the deadline can close it.

        A duplicate is kept: TLS takes over the descriptor of a socket, and shutting down the
        duplicate ends the connection on whatever layer the exchange is blocked.
        """
        self._replace(socket.fromfd(sock.fileno(), sock.family, sock.type))
        if self.expired:
            self.abort()

    def abort(self) -> None:
        """End the exchange now."""
        self.expired = True
        with self._lock, suppress(OSError):
            if self._sock is not None:
                self._sock.shutdown(socket.SHUT_RDWR)

    def _replace(self, sock: socket.socket | None) -> None:
        with self._lock:
            if self._sock is not None:
                self._sock.close()
            self._sock = sock


#: What ``socket.getaddrinfo`` returns of one address.
_Address: TypeAlias = tuple[Any, Any, int, str, Any]


def _look_up(host: str, port: int, deadline: Deadline) -> list[_Address]:
    """Return the addresses of a host, in the time that the exchange has left.

    :raises OSError: when there is none; ``socket.gaierror`` also when the look-up takes too long.
    :raises NothingSentError: when no thread can be started for the look-up.
    """
    host = host.strip("[]")
    family: int = urllib3.util.connection.allowed_gai_family()
    with suppress(ValueError):
        version = ipaddress.ip_address(host).version
        if "%" not in host:
            family = socket.AF_INET6 if version == 6 else socket.AF_INET
            return [(family, socket.SOCK_STREAM, 0, "", (host, port))]
    try:
        return run_bounded(
            lambda: socket.getaddrinfo(host, port, family, socket.SOCK_STREAM), deadline.remaining
        )
    except NotFinishedError:
        problem = f"looking up the name took longer than {deadline.seconds:g} s"
        raise socket.gaierror(socket.EAI_AGAIN, problem) from None
    except ValueError:
        raise urllib3.exceptions.LocationParseError(f"{host!r}, label empty or too long") from None
    except RuntimeError as error:
        raise NothingSentError(f"no thread can be started ({error})") from None


class _BoundedConnection(urllib3.connection.HTTPConnection):
    response_class = BoundedResponse

    def _new_conn(self) -> socket.socket:
        deadline = Deadline.current()
        if deadline is None:
            return super()._new_conn()
        # The errors of urllib3, in whose place this is, to which requests and transport refer.
        try:
            sock = self._connect(deadline, _look_up(self._dns_host, self.port, deadline))
        except socket.gaierror as error:
            raise urllib3.exceptions.NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise urllib3.exceptions.ConnectTimeoutError(
                self, f"Connection to {self.host} timed out."
            ) from error
        except OSError as error:
            raise urllib3.exceptions.NewConnectionError(
                self, f"Failed to establish a new connection: {error}"
            ) from error
        deadline.attach(sock)
        return sock

    def _connect(self, deadline: Deadline, addresses: list[_Address]) -> socket.socket:
        """Return a socket that is connected to the first address that accepts."""
        failure = OSError("the name has no address")
        for family, kind, protocol, _, address in addresses:
            if deadline.is_over:
                raise TimeoutError("the time is over")
            left = deadline.remaining
            timeout = left if self.timeout is None else min(self.timeout, left)
            try:
                return self._open(socket.socket(family, kind, protocol), address, timeout)
            except OSError as error:
                failure = error
        raise failure

    def _open(self, sock: socket.socket, address: Any, timeout: float) -> socket.socket:
        try:
            for option in self.socket_options or ():
                sock.setsockopt(*option)
            sock.settimeout(timeout)
            sock.connect(address)
        except BaseException:
            sock.close()
            raise
        return sock

    def request(self, *args: Any, **kwargs: Any) -> None:
        # A connection that was kept open has its socket already.
        if self.sock is not None and (deadline := Deadline.current()) is not None:
            deadline.attach(self.sock)
        super().request(*args, **kwargs)


class _BoundedTlsConnection(_BoundedConnection, urllib3.connection.HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _BoundedConnection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _BoundedTlsConnection


class _Adapter(requests.adapters.HTTPAdapter):
    _verify: bool | str = True

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _use_our_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: Any, **kwargs: Any) -> Any:
        # Our pools would send past such a proxy, and urllib3's own have no limits.
        if not proxy.lower().startswith(("http://", "https://")):
            raise requests.exceptions.InvalidSchema("only http and https proxies can be used")
        if proxy.lower().startswith("https:"):
            kwargs["proxy_ssl_context"] = context = _tls_context(self._verify)
            known = self.proxy_manager.get(proxy)
            # The manager of a proxy is kept, and the settings may have changed since.
            if known is not None and known.proxy_ssl_context is not context:
                del self.proxy_manager[proxy]
        return _use_our_pools(super().proxy_manager_for(proxy, **kwargs))

    def get_connection_with_tls_context(
        self, request: Any, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        self._verify = verify
        return super().get_connection_with_tls_context(request, verify, proxies, cert)

    def build_connection_pool_key_attributes(
        self, request: Any, verify: Any, cert: Any = None
    ) -> Any:
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        if host["scheme"] != "https":
            return host, {}
        reqs = "CERT_REQUIRED" if verify else "CERT_NONE"
        return host, {"ssl_context": _tls_context(verify), "cert_reqs": reqs}

    def cert_verify(self, *args: Any) -> None:
        """Leave the connection alone: the context holds the certificates."""


def _use_our_pools(manager: Any) -> Any:
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
    return manager


def _tls_context(verify: bool | str) -> ssl.SSLContext:
    """Return the TLS context for a CA bundle, one for all connections of the process.

    To load a bundle takes ten times as long as the rest of a new connection. A bundle that was
    replaced is loaded again, and a forked process loads its own: a thread of the parent may have
    held a lock inside of OpenSSL.

    :param verify: path of a file or folder of certificates; ``True`` for the bundle of
        ``requests``, ``False`` to accept any certificate.
    :raises NothingSentError: when there is no such file.
    """
    if not verify:
        return _load_tls_context(None, (os.getpid(),))
    path = Path(DEFAULT_CA_BUNDLE_PATH if verify is True else str(verify))
    try:
        status = path.stat()
    except (OSError, ValueError):
        raise NothingSentError(f"the CA bundle {str(path)!r} cannot be read") from None
    version = (os.getpid(), status.st_ino, status.st_mtime_ns, status.st_size)
    with _loading:
        return _load_tls_context(path, version)


#: Held while a bundle is loaded, so that threads that need it at the same time load it once.
_loading = ProcessLock()


@functools.lru_cache(maxsize=16)
def _load_tls_context(path: Path | None, version: object) -> ssl.SSLContext:  # noqa: ARG001 - part of the key
    context = urllib3.util.ssl_.create_urllib3_context()
    if path is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    folder = path.is_dir()
    try:
        context.load_verify_locations(None if folder else path, path if folder else None)
    except (OSError, ValueError) as error:
        raise NothingSentError(f"the CA bundle {str(path)!r} cannot be read ({error})") from None
    return context


def open_http_session() -> requests.Session:
    """Return a ``requests`` session, which keeps connections open, for one thread."""
    session = requests.Session()
    # Nothing in this API needs cookies, and one server must not mark the calls of another.
    session.cookies.set_policy(_NoCookies())
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter())
    return session


class _NoCookies(http.cookiejar.DefaultCookiePolicy):
    def set_ok(self, *_: Any) -> bool:
        return False
