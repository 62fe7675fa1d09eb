"""What arrives on a socket: any bytes at all, and answers that never end or blow up.

``CDM_FUZZ_CASES`` counts here for a twentieth (100 cases), since each one takes a connection.
"""

from __future__ import annotations

import gzip
import socket
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as options
from hypothesis import strategies as st

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.auth import factory
from airflow_provider_cdm.client.http import transport
from airflow_provider_cdm.client.http.retry import RetryPolicy
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.client.settings import KeyCredentials, Settings
from tests.client.test_fuzz import CASES, EACH, VISITS, sound, sound_error
from tests.support.canned_responses import Answer, answers

#: Seconds after which something that should have ended is called hanging.
PATIENCE = 20.0
LIMIT = 512 * 1024
OK = b"HTTP/1.1 200 OK\r\n"
Say = Callable[[socket.socket], None]


class Wire:
    """A server that reads requests and answers with bytes.

    :param say: answers a request on its connection.
    """

    def __init__(self) -> None:
        self.say: Say = lambda _: None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop, and hang up on everybody."""
        self._listener.close()
        self.hang_up()

    def hang_up(self) -> None:
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
            length = 0
            while (line := reader.readline()).strip():
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            reader.read(length)
            self.say(connection)
        self._open.discard(connection)


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    """A server of bytes."""
    wire = Wire()
    yield wire
    wire.close()


def settle(wire: Wire, say: Say, patience: float = PATIENCE) -> Any:
    """What a status call comes to: a value or an error; fails if it does not end."""
    wire.say = say
    factory.forget_everything()
    keys = KeyCredentials("ak", "sk-of-u")
    settings = Settings(wire.url, wire.url, keys, project_id="p", read_timeout=2)
    came: list[Any] = []

    def call() -> None:
        with CdmSession(settings, policy=RetryPolicy(attempts=1)) as session:
            visit, _ = VISITS["read the status of job 'j' in cluster c"]
            try:
                came.append(session.run(visit(session.api)))
            except BaseException as error:
                came.append(error)

    caller = threading.Thread(target=call, daemon=True)
    caller.start()
    caller.join(patience)
    hangs = caller.is_alive()
    wire.hang_up()
    assert not hangs, "still waiting"
    caller.join()
    return came[0]


def forever(piece: bytes, pause: float = 0.0) -> Say:
    """Say something without end, as fast as it is read or slowly."""

    def say(connection: socket.socket) -> None:
        wait = threading.Event()
        while not wait.wait(pause):
            connection.sendall(piece)

    return say


def first(head: bytes, then: Say) -> Say:
    """Say something, and go on."""

    def say(connection: socket.socket) -> None:
        connection.sendall(head)
        then(connection)

    return say


def once(data: bytes) -> Say:
    """Say something, and hang up."""
    return lambda connection: connection.sendall(data)


def framed(body: bytes, *headers: bytes) -> bytes:
    """A well-formed answer."""
    lines = [OK.strip(), b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


ZEROS = b"0" * 64_000_000
BOMB = gzip.compress(ZEROS)
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
SLOWLY = 0.02
ENDLESS: dict[str, Say] = {
    "a body": first(OK + b"\r\n", forever(b"x" * 65_536)),
    "a body, by its length": first(OK + b"Content-Length: 9999999999\r\n\r\n", forever(b"x" * 999)),
    "chunks": first(CHUNKED, forever(b"400\r\n" + b"x" * 1024 + b"\r\n")),
    "small chunks": first(CHUNKED, forever(b"1\r\nx\r\n" * 1000)),
    "a line of a chunk": first(CHUNKED, forever(b"1;x=" + b"y" * 4096)),
    "the status line": forever(b"HTTP/1.1 200 " + b"x" * 4096),
    "a header": first(OK + b"a: ", forever(b"x" * 4096)),
    "headers": first(OK, forever(b"a: b\r\n" * 100)),
    "a gzip bomb": once(framed(BOMB, b"Content-Encoding: gzip")),
    "a gzip bomb in a gzip bomb": once(
        framed(gzip.compress(gzip.compress(ZEROS * 4)), b"Content-Encoding: gzip, gzip")
    ),
    "a deflate bomb": once(framed(zlib.compress(ZEROS), b"Content-Encoding: deflate")),
    "bombs one after the other": once(framed(BOMB * 20, b"Content-Encoding: gzip")),
    "a bomb in chunks": first(CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n"),
                              once(b"%x\r\n%s\r\n0\r\n\r\n" % (len(BOMB), BOMB))),
}  # fmt: skip
STUBBORN: dict[str, Say] = {
    "a body": first(OK + b"Content-Length: 99999\r\n\r\n", forever(b"x", SLOWLY)),
    "a body to the end": first(OK + b"\r\n", forever(b"x", SLOWLY)),
    "chunks": first(CHUNKED, forever(b"1\r\nx\r\n", SLOWLY)),
    "a chunk's line": first(CHUNKED, forever(b"0", SLOWLY)),
    "trailers": first(CHUNKED + b"0\r\n", forever(b"a: b\r\n", SLOWLY)),
    "a header": first(OK, forever(b"x", SLOWLY)),
    "interim answers": forever(b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_endless(what: str, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer of any length takes a bounded amount of memory, and is refused as our error."""
    monkeypatch.setattr(transport, "BODY_LIMIT", LIMIT)
    tracemalloc.start()
    try:
        came = settle(wire, ENDLESS[what])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(came, errors.CdmUnavailable)
    sound_error(came)
    assert peak < 8 * LIMIT


@pytest.mark.parametrize("what", STUBBORN)
def test_stubborn(what: str, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that trickles in is given up, whichever part of it does."""
    monkeypatch.setattr(transport, "EXCHANGE_LIMIT", 0.5)
    came = settle(wire, STUBBORN[what])
    assert isinstance(came, errors.CdmUnavailable)


_LINES = st.sampled_from(
    [
        *(OK, b"HTTP/1.1 200\r\n", b"HTTP/1.0 503 No\r\n", b"HTTP/1.1 204 No Content\r\n"),
        *(b"HTTP/2 200\r\n", b"HTTP/1.1 999 \xff\r\n", b"HTTP/1.1 -1 x\r\n", b"HTTP/0.9 200 x\r\n"),
        *(b"ICY 200 OK\r\n", b"{}", b"HTTP/1.1 304 Not Modified\r\n", b"HTTP/1.1 101 Other\r\n"),
        b"HTTP/1.1 100 Go\r\n\r\n" + OK,
    ]
)
_HEADS = [
    b"Content-Length: %s" % n for n in (b"0", b"5", b"-1", b"1e3", b"9" * 30, b"7, 7", b"\xb2")
]
_HEADS += [
    b"Content-Encoding: %s" % n for n in (b"gzip", b"deflate", b"br", b"zstd", b"gzip, " * 9)
]
_HEADS += [b"Transfer-Encoding: %s" % n for n in (b"chunked", b"gzip, chunked", b"identity", b"x")]
_HEADS += [b"no colon", b": no name", b" folded", b"a" * 70_000, b"a:b\r\n" * 120, b"\x00: \x00"]
_HEADS += [
    b"Connection: close",
    b"Set-Cookie: a=b",
    b"Retry-After: 1",
    b"Date: x",
    b"X-Request-Id: \xff",
]


@st.composite
def _bytes(draw: st.DrawFn) -> bytes:
    """An answer on the wire, with anything wrong."""
    answer: Answer = draw(answers("status"))
    body = getattr(answer, "body", b"")
    packed = draw(st.integers(0, 9))
    if packed == 0:
        body = gzip.compress(body)
    elif packed == 1:
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    heads = draw(st.lists(st.sampled_from(_HEADS) | st.binary(max_size=20), max_size=3))
    if draw(st.booleans()):
        heads.append(b"Content-Length: %d" % len(body))
    data = draw(_LINES) + b"".join(head + b"\r\n" for head in heads) + b"\r\n" + body
    cut = draw(st.none() | st.none() | st.integers(0, 1000))
    return data[:cut]


def test_any_bytes(wire: Wire) -> None:
    """Whatever bytes arrive, the call ends with a sound value or a typed error."""

    @options(EACH, max_examples=CASES // 20)
    @given(_bytes())
    def check(data: bytes) -> None:
        came = settle(wire, once(data))
        if isinstance(came, errors.CdmError):
            sound_error(came)
        else:
            assert not isinstance(came, BaseException), came
            sound(came)

    check()
