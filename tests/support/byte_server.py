"""A server that answers with any bytes, for tests of what a server or a proxy may send."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

#: Writes a response on a connection whose request was read.
Respond = Callable[[socket.socket], None]


class ByteServer:
    """A server that reads requests and responds with bytes; ``respond`` writes the response."""

    def __init__(self) -> None:
        self.respond: Respond = lambda _: None
        #: The heads of the requests that were read.
        self.requests: list[bytes] = []
        #: Their bodies.
        self.bodies: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop, and close all connections."""
        self._listener.close()
        self.close_connections()

    def close_connections(self) -> None:
        """Close all connections."""
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        self._open.add(connection)
        with suppress(OSError, ValueError), connection, connection.makefile("rb") as reader:
            length, head = 0, b""
            while (line := reader.readline()).strip():
                head += line
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            self.bodies.append(reader.read(length))
            self.requests.append(head)
            self.respond(connection)
        self._open.discard(connection)


class SilentServer:
    """Accepts connections and answers before it has read anything: a proxy, or a TLS server."""

    def __init__(self, respond: Respond) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._respond = respond
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Accept no more connections."""
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                self._respond(connection)
            except OSError:
                return


def forever(piece: bytes, pause: float = 0.0) -> Respond:
    """Send a piece again and again, as fast as it is read or with pauses in seconds."""

    def respond(connection: socket.socket) -> None:
        wait = threading.Event()
        while not wait.wait(pause):
            connection.sendall(piece)

    return respond


def first(head: bytes, then: Respond) -> Respond:
    """Send some bytes, and continue with another function."""

    def respond(connection: socket.socket) -> None:
        connection.sendall(head)
        then(connection)

    return respond


def once(data: bytes) -> Respond:
    """Send some bytes, and close the connection."""
    return lambda connection: connection.sendall(data)
