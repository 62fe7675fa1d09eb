"""The web server: uvicorn in a thread, with access to the connections for faults."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import struct
import threading
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp

    from airflow_provider_cdm.simulator.gateway.certificate import Certificate

#: Maximum time for running handlers to finish when the server stops, in seconds.
GRACE_PERIOD = 2.0
#: Maximum number of requests that are handled at the same time.
MAX_THREADS = 1000


class Server:
    """Serves an application in a thread of its own.

    :param app: application to serve.
    :param host: address to listen on.
    :param port: port to listen on, 0 for any free port.
    :param allow_any_host: whether addresses that other machines can reach are allowed.
    :param on_stop: function to call in the server's event loop before connections are closed.
    :param certificate: certificate for TLS, ``None`` for plain HTTP.
    :raises ValueError: if other machines can reach ``host``, unless this is allowed.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        port: int,
        *,
        allow_any_host: bool,
        on_stop: Callable[[], None],
        certificate: Certificate | None = None,
    ) -> None:
        if not allow_any_host and not _is_loopback(host):
            raise ValueError(
                f"{host} is not a loopback address. The simulator is not protected: anyone who can "
                "reach it can read and change its state and, through its links, the databases. "
                "To listen on this address nevertheless, pass allow_any_host=True "
                "(--allow-any-host)."
            )
        self._app, self.host, self.port, self._on_stop = app, host, port, on_stop
        self._certificate = certificate

    @property
    def url(self) -> str:
        """URL of the server without a trailing slash; the port is known once the server listens."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme = "http" if self._certificate is None else "https"
        return f"{scheme}://{host}:{self.port}"

    def start(self) -> None:
        """Start the server, and return when it accepts connections.

        :raises OSError: if the port is in use.
        :raises ValueError: if the file of the certificate is somebody else's.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.create_server((self.host, self.port), family=family, backlog=512)
        self.port = int(listener.getsockname()[1])
        config = uvicorn.Config(
            self._app,
            http=_Protocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_keep_alive=75,
            date_header=False,
            server_header=False,
        )
        try:
            tls = None if self._certificate is None else self._certificate.create()
        except BaseException:
            listener.close()
            raise
        self._server = _UvicornServer(config, self._on_stop, tls)

        def run() -> None:
            try:
                asyncio.run(self._server.serve_until_stopped(listener))
            finally:
                self._server.ready.set()  # otherwise start() would wait for a thread that has ended

        self._thread = threading.Thread(target=run, name="cdm-simulator", daemon=True)
        self._thread.start()
        self._server.ready.wait()

    def stop(self) -> None:
        """Stop the server, and return when all connections are closed."""
        self._server.request_stop()
        self._thread.join()
        if self._certificate is not None:
            self._certificate.delete()

    def run_in_loop(self, function: Callable[[], None]) -> None:
        """Call a function in the server's event loop.

        :param function: function without parameters that does not block.
        """
        self._server.call_soon(function)


class _Protocol(H11Protocol):
    """Passes the transport of the connection to the application, which faults close or reset."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # asyncio sets this only for sockets with an explicit protocol, which a listener created by
        # create_server lacks; without it, each response waits 40 ms for the client's ACK.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.app_state = {**self.app_state, "transport": transport}
        super().connection_made(transport)


class _UvicornServer(uvicorn.Server):
    """A uvicorn server without polling, signal handlers and log messages.

    :meth:`uvicorn.Server.serve` needs several tenths of a second to stop, and logs that it does.
    """

    def __init__(
        self, config: uvicorn.Config, on_stop: Callable[[], None], tls: ssl.SSLContext | None
    ) -> None:
        super().__init__(config)
        self._tls = tls
        self.ready = threading.Event()
        self._on_stop = on_stop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    def call_soon(self, function: Callable[[], None]) -> None:
        if self._loop is not None:
            with contextlib.suppress(
                RuntimeError
            ):  # the loop is closed, and there is nothing to release
                self._loop.call_soon_threadsafe(function)

    def request_stop(self) -> None:
        if self._stopping is not None:
            self.call_soon(self._stopping.set)

    async def serve_until_stopped(self, listener: socket.socket) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self.config.load()
        self.config.ssl = self._tls
        self.lifespan = self.config.lifespan_class(self.config)
        # Requests that wait for their own database must not use up the threads of all others.
        anyio.to_thread.current_default_thread_limiter().total_tokens = MAX_THREADS
        await self.startup([listener])
        self.ready.set()
        await self._stopping.wait()
        for server in self.servers:
            server.close()
        listener.close()
        self._on_stop()
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=GRACE_PERIOD)
        for connection in list(self.server_state.connections):
            transport: Any = connection.transport
            transport.abort()
        await asyncio.sleep(0)  # let the transports notify their protocols


def close_connection(transport: asyncio.Transport) -> None:
    """Close a connection without a response; the client sees the end of the stream.

    :param transport: transport of the connection.
    """
    transport.close()


def reset_connection(transport: asyncio.Transport) -> None:
    """Close a connection so that the client receives a TCP reset.

    :param transport: transport of the connection.
    """
    # A linger time of zero makes the kernel send RST instead of FIN.
    transport.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
    )
    transport.abort()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
