"""Bytes on a socket: random ones, and responses that never end or expand enormously.

The number of cases is a twentieth of ``CDM_FUZZ_CASES`` (by default 100), since each one opens a
connection.
"""

from __future__ import annotations

import functools
import gzip
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
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
from tests.support.byte_server import ByteServer, Respond, first, forever, once
from tests.support.canned_responses import CannedResponse, canned_responses

#: Seconds after which a call that has not ended counts as hanging.
TIMEOUT = 60.0
LIMIT = 512 * 1024
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[ByteServer]:
    """Start a server that responds with bytes."""
    server = ByteServer()
    yield server
    server.close()


def outcome(server: ByteServer, respond: Respond) -> Any:
    """Return the result or error of a status call; fail if the call does not end."""
    server.respond = respond
    factory.forget_everything()
    keys = KeyCredentials("ak", "sk-of-u")
    settings = Settings(server.url, server.url, keys, project_id="p", read_timeout=2)
    outcomes: list[Any] = []

    def call() -> None:
        with CdmSession(settings, policy=RetryPolicy(attempts=1)) as session:
            visit, _ = VISITS["read the status of job 'j' in cluster c"]
            try:
                outcomes.append(session.run(visit(session.api)))
            except BaseException as error:
                outcomes.append(error)

    caller = threading.Thread(target=call, daemon=True)
    caller.start()
    caller.join(TIMEOUT)
    hangs = caller.is_alive()
    server.close_connections()
    assert not hangs, "the call does not end"
    caller.join()
    return outcomes[0]


def framed(body: bytes, *headers: bytes) -> bytes:
    """Return a valid response."""
    lines = [OK.strip(), b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
PAUSE = 0.02
ENDLESS: dict[str, Respond] = {
    "a body": first(OK + b"\r\n", forever(b"x" * 65_536)),
    "a body, by its length": first(OK + b"Content-Length: 9999999999\r\n\r\n", forever(b"x" * 999)),
    "chunks": first(CHUNKED, forever(b"400\r\n" + b"x" * 1024 + b"\r\n")),
    "small chunks": first(CHUNKED, forever(b"1\r\nx\r\n" * 1000)),
    "a line of a chunk": first(CHUNKED, forever(b"1;x=" + b"y" * 4096)),
    "the status line": forever(b"HTTP/1.1 200 " + b"x" * 4096),
    "a header": first(OK + b"a: ", forever(b"x" * 4096)),
    "headers": first(OK, forever(b"a: b\r\n" * 100)),
}


@functools.cache
def zeros() -> bytes:
    """Return much that compresses well."""
    return b"0" * 64_000_000


@functools.cache
def bomb() -> bytes:
    """Return what expands to a thousand times its size."""
    return gzip.compress(zeros())


#: Functions that make responses, which takes long.
BOMBS: dict[str, Callable[[], bytes]] = {
    "a gzip bomb": lambda: framed(bomb(), b"Content-Encoding: gzip"),
    "a gzip bomb in a gzip bomb": lambda: framed(
        gzip.compress(gzip.compress(zeros() * 4)), b"Content-Encoding: gzip, gzip"
    ),
    "a deflate bomb": lambda: framed(zlib.compress(zeros()), b"Content-Encoding: deflate"),
    "bombs one after the other": lambda: framed(bomb() * 20, b"Content-Encoding: gzip"),
    "a bomb in chunks": lambda: (
        CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
        + b"%x\r\n%s\r\n0\r\n\r\n" % (len(bomb()), bomb())
    ),
}
SLOW: dict[str, Respond] = {
    "a body": first(OK + b"Content-Length: 99999\r\n\r\n", forever(b"x", PAUSE)),
    "a body to the end": first(OK + b"\r\n", forever(b"x", PAUSE)),
    "chunks": first(CHUNKED, forever(b"1\r\nx\r\n", PAUSE)),
    "a chunk's line": first(CHUNKED, forever(b"0", PAUSE)),
    "trailers": first(CHUNKED + b"0\r\n", forever(b"a: b\r\n", PAUSE)),
    "a header": first(OK, forever(b"x", PAUSE)),
    "interim answers": forever(b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.long
@pytest.mark.parametrize("what", [*ENDLESS, *BOMBS])
def test_endless(what: str, server: ByteServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A response of any length needs limited memory, and is an error of this package."""
    monkeypatch.setattr(transport, "BODY_LIMIT", LIMIT)
    respond = once(BOMBS[what]()) if what in BOMBS else ENDLESS[what]
    tracemalloc.start()
    try:
        result = outcome(server, respond)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(result, errors.CdmUnavailable)
    sound_error(result)
    assert peak < 8 * LIMIT


@pytest.mark.long
@pytest.mark.parametrize("what", SLOW)
def test_slow(what: str, server: ByteServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A response that arrives too slowly ends at the time limit, in whichever part it is slow."""
    monkeypatch.setattr(transport, "EXCHANGE_LIMIT", 0.5)
    result = outcome(server, SLOW[what])
    assert isinstance(result, errors.CdmUnavailable)


_STATUS_LINES = st.sampled_from(
    [
        *(OK, b"HTTP/1.1 200\r\n", b"HTTP/1.0 503 No\r\n", b"HTTP/1.1 204 No Content\r\n"),
        *(b"HTTP/2 200\r\n", b"HTTP/1.1 999 \xff\r\n", b"HTTP/1.1 -1 x\r\n", b"HTTP/0.9 200 x\r\n"),
        *(b"ICY 200 OK\r\n", b"{}", b"HTTP/1.1 304 Not Modified\r\n", b"HTTP/1.1 101 Other\r\n"),
        b"HTTP/1.1 100 Go\r\n\r\n" + OK,
    ]
)
_HEADER_LINES = [
    b"Content-Length: %s" % n for n in (b"0", b"5", b"-1", b"1e3", b"9" * 30, b"7, 7", b"\xb2")
]
_HEADER_LINES += [
    b"Content-Encoding: %s" % n for n in (b"gzip", b"deflate", b"br", b"zstd", b"gzip, " * 9)
]
_HEADER_LINES += [
    b"Transfer-Encoding: %s" % n for n in (b"chunked", b"gzip, chunked", b"identity", b"x")
]
_HEADER_LINES += [
    b"no colon",
    b": no name",
    b" folded",
    b"a" * 70_000,
    b"a:b\r\n" * 120,
    b"\x00: \x00",
]
_HEADER_LINES += [
    b"Connection: close",
    b"Set-Cookie: a=b",
    b"Retry-After: 1",
    b"Date: x",
    b"X-Request-Id: \xff",
]


@st.composite
def _bytes(draw: st.DrawFn) -> bytes:
    """Draw the bytes of a response, with any corruption."""
    response: CannedResponse = draw(canned_responses("status"))
    body = getattr(response, "body", b"")
    encoding = draw(st.integers(0, 9))
    if encoding == 0:
        body = gzip.compress(body)
    elif encoding == 1:
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    headers = draw(st.lists(st.sampled_from(_HEADER_LINES) | st.binary(max_size=20), max_size=3))
    if draw(st.booleans()):
        headers.append(b"Content-Length: %d" % len(body))
    data = draw(_STATUS_LINES) + b"".join(line + b"\r\n" for line in headers) + b"\r\n" + body
    cut = draw(st.none() | st.none() | st.integers(0, 1000))
    return data[:cut]


@pytest.mark.long
def test_any_bytes(server: ByteServer) -> None:
    """Whatever bytes arrive, the call ends with a valid result or an error of this package."""

    @options(EACH, max_examples=CASES // 20)
    @given(_bytes())
    def check(data: bytes) -> None:
        result = outcome(server, once(data))
        if isinstance(result, errors.CdmError):
            sound_error(result)
        else:
            assert not isinstance(result, BaseException), result
            sound(result)

    check()
