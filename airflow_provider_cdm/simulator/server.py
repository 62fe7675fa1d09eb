"""The web server: uvicorn in a thread, able to misbehave at the level of the connection."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp

#: How long running handlers may take to finish when the server stops, in seconds.
GRACE = 2.0


class Server:
    """Serves an application from a thread of its own until stopped.

    :param app: what to serve.
    :param host: address to bind.
    :param port: port to bind, 0 for any free one.
    :param allow_any_host: permit an address that other machines can reach.
    :param on_stop: called in the server's event loop before connections are closed.
    :raises ValueError: for an address other machines could reach, unless permitted.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        port: int,
        *,
        allow_any_host: bool,
        on_stop: Callable[[], None],
    ) -> None:
        if not allow_any_host and not _is_loopback(host):
            raise ValueError(
                f"{host} is not a loopback address. The simulator guards nothing: whoever reaches "
                "it can read and change everything, and through its links the databases as well. "
                "If that is meant, pass allow_any_host=True (--allow-any-host)."
            )
        self._app, self.host, self.port, self._on_stop = app, host, port, on_stop

    @property
    def url(self) -> str:
        """Where it is reached, without a slash at the end; the port is known once it listens."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def start(self) -> None:
        """Start serving; connections are accepted when this returns.

        :raises OSError: when the port is taken.
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
        self._server = _UvicornServer(config, self._on_stop)

        def run() -> None:
            try:
                asyncio.run(self._server.live(listener))
            finally:
                self._server.ready.set()  # whoever starts it must not wait for a dead thread

        self._thread = threading.Thread(target=run, name="cdm-simulator", daemon=True)
        self._thread.start()
        self._server.ready.wait()

    def stop(self) -> None:
        """Stop serving; every connection is closed when this returns."""
        self._server.request_stop()
        self._thread.join()

    def run_in_loop(self, function: Callable[[], None]) -> None:
        """Call a function in the server's event loop, soon.

        :param function: takes nothing and does not block.
        """
        self._server.call_soon(function)


class _Protocol(H11Protocol):
    """Shows the application the transport under the connection, for faults to break."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # asyncio does this only for sockets that name their protocol, and those of a listener made
        # by create_server do not; without it every answer waits 40 ms for the client's ACK.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.app_state = {**self.app_state, "transport": transport}
        super().connection_made(transport)


class _UvicornServer(uvicorn.Server):
    """Lives from event to event: no polling, no signal handlers, no words in the caller's log.

    :meth:`uvicorn.Server.serve` would take tenths of a second to stop, and say so.
    """

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self._on_stop = on_stop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    def call_soon(self, function: Callable[[], None]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nothing left to call
                self._loop.call_soon_threadsafe(function)

    def request_stop(self) -> None:
        if self._stopping is not None:
            self.call_soon(self._stopping.set)

    async def live(self, listener: socket.socket) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup([listener])
        self.ready.set()
        await self._stopping.wait()
        for server in self.servers:
            server.close()
        listener.close()
        self._on_stop()
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=GRACE)
        for connection in list(self.server_state.connections):
            transport: Any = connection.transport
            transport.abort()
        await asyncio.sleep(0)  # let the transports tell their protocols


def drop(transport: asyncio.Transport) -> None:
    """Close a connection without an answer: the client sees the end of the stream.

    :param transport: the connection.
    """
    transport.close()


def reset(transport: asyncio.Transport) -> None:
    """Break a connection so that the client gets a TCP reset.

    :param transport: the connection.
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
