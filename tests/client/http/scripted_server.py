"""A server that handles connections as a test specifies, with TLS or without."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_provider_cdm.client.sansio import Response

Handle = Callable[[socket.socket], object]
#: Sends one PUT to an address; its arguments change the session.
Put = Callable[..., Response]
BODY = b'{"variables": {}}'
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class ScriptedServer:
    """A server that handles connections as a test specifies.

    ``arrived`` holds the complete requests that were read.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.arrived: list[bytes] = []

    def serve(self, handle: Handle) -> None:
        """Handle all connections from now on."""
        threading.Thread(target=self._serve, args=(handle,), daemon=True).start()

    def answer(self, data: bytes) -> None:
        """Respond to each request with some bytes, and close the connection."""

        def handle(connection: socket.socket) -> None:
            self.read(connection)
            connection.sendall(data)

        self.serve(handle)

    def read(self, connection: socket.socket) -> None:
        """Read a complete request, since closing the connection earlier would reset it."""
        data = b""
        while not data.endswith(BODY):
            data += connection.recv(65_536)
        self.arrived.append(data)

    @property
    def methods(self) -> list[bytes]:
        """Methods of the requests that were read."""
        return [request.split()[0] for request in self.arrived]

    def close(self) -> None:
        """Stop."""
        self._listener.close()

    def _serve(self, handle: Handle) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                try:
                    handle(connection)
                except OSError:
                    continue


def serve_tls(
    server: ScriptedServer, certificate: Path, answer: Callable[[ssl.SSLSocket], Any]
) -> None:
    """Serve requests over TLS: read each one, and do something in answer to it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def handle(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as tls:
            server.read(tls)
            answer(tls)

    server.serve(handle)
