"""One exchange with a hostile server or proxy: it ends in time, typed, and shows no secret."""

from __future__ import annotations

import asyncio
import base64
import multiprocessing
import threading
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.auth import factory
from airflow_provider_cdm.client.http import transport
from airflow_provider_cdm.client.http.retry import RetryPolicy
from airflow_provider_cdm.client.sansio import Request, TransportError, send_request
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.client.settings import KeyCredentials, Settings
from airflow_provider_cdm.simulator import CdmSimulator
from tests.support.byte_server import (
    ByteServer,
    Respond,
    SilentServer,
    first,
    forever,
    once,
)

#: Seconds after which a call that has not ended counts as hanging.
HANGS = 60.0
PAUSE = 0.02
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
SECRET = "a-secret/of+the=connection"


@pytest.fixture
def server() -> Iterator[ByteServer]:
    """Start a server that answers with any bytes."""
    server = ByteServer()
    yield server
    server.close()


def settings(endpoint: str, **other: Any) -> Settings:
    """Return settings of an access key for an endpoint."""
    return Settings(endpoint, endpoint, KeyCredentials("ak", "sk"), project_id="p", **other)


def perform(drive: Callable[..., Any], url: str, headers: Any = None, **other: Any) -> Any:
    """Return the response or error of one exchange; fail if it does not end."""
    outcomes: list[Any] = []

    def call() -> None:
        secrets = (SECRET,)
        request = Request("GET", f"{url}/x", headers or {}, secrets=secrets)
        with CdmSession(settings(url, **other)) as session:
            try:
                outcomes.append(drive(session, send_request(request)))
            except BaseException as error:
                outcomes.append(error)

    caller = threading.Thread(target=call, daemon=True)
    caller.start()
    caller.join(HANGS)
    assert outcomes, "the exchange does not end"
    return outcomes[0]


@pytest.fixture(params=["worker", "triggerer"])
def drive(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Return a function that performs a flow as a worker does, or as the triggerer does."""
    if request.param == "worker":
        return lambda session, flow: session.run(flow)
    return lambda session, flow: asyncio.run(session.arun(flow))


SLOW_BEGINNINGS: dict[str, Respond] = {
    "nothing": forever(b"", PAUSE),
    "a byte now and then": forever(b"H", PAUSE),
    "headers without an end": first(b"HTTP/1.1 200 OK\r\n", forever(b"a: b\r\n", PAUSE)),
    "a long line": first(b"HTTP/1.1 200 OK\r\na: ", forever(b"b", PAUSE)),
    "interim answers": forever(b"HTTP/1.1 100 Continue\r\n\r\n", PAUSE),
    # The beginning of a TLS record of a handshake, whose rest drips.
    "half a handshake": first(b"\x16\x03\x03\x40\x00", forever(b"\x00", PAUSE)),
    "many small records": forever(b"\x16\x03\x03\x00\x01\x00", PAUSE),
}


@pytest.mark.long
@pytest.mark.parametrize("way", ["CONNECT", "TLS", "TLS to the proxy"])
@pytest.mark.parametrize("what", SLOW_BEGINNINGS)
def test_slow_beginnings(
    what: str, way: str, drive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time limit also covers a proxy's answer to CONNECT, and the TLS handshake."""
    monkeypatch.setattr(transport, "EXCHANGE_LIMIT", 0.5)
    server = SilentServer(SLOW_BEGINNINGS[what])
    try:
        proxies = {"CONNECT": f"http://{server.address}", "TLS": None}
        proxy = proxies.get(way, f"https://{server.address}")
        url = f"https://{server.address}" if way == "TLS" else "https://cdm.invalid"
        assert isinstance(perform(drive, url, proxy=proxy), TransportError)
    finally:
        server.close()


CONNECT_ANSWERS: dict[str, Respond] = {
    "no TLS after it": once(b"HTTP/1.1 200 OK\r\n\r\n" + OK),
    "nothing": once(b""),
    "a page": once(b"<html>" + SECRET.encode()),
    "an interim answer": once(b"HTTP/1.1 103 x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
    "a redirect": once(f"HTTP/1.1 302 x\r\nLocation: http://x/?{SECRET}\r\n\r\n".encode()),
    "a status below 0": once(b"HTTP/1.1 -1 x\r\n\r\n"),
    "a status of six digits": once(b"HTTP/1.1 200200 OK\r\n\r\n"),
    "the secret as a reason": once(f"HTTP/1.1 502 {SECRET}\r\n\r\n".encode()),
    "the secret in a header without a colon": once(f"HTTP/1.1 502 x\r\n{SECRET}\r\n\r\n".encode()),
    "a thousand headers": once(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1000 + b"\r\n"),
    "a header without an end": first(b"HTTP/1.1 200 OK\r\na: ", forever(b"b" * 4096)),
    "headers without an end": first(b"HTTP/1.1 200 OK\r\n", forever(b"a: b\r\n" * 100)),
    "a reason without an end": first(b"HTTP/1.1 502 ", forever(b"b" * 4096)),
    "another protocol": once(b"HTTP/1.1 101 x\r\n\r\n"),
    "SOCKS": once(b"\x05\x00"),
}


@pytest.mark.parametrize("what", CONNECT_ANSWERS)
def test_answers_to_connect(
    what: str,
    drive: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever a proxy answers to CONNECT, the exchange ends with an error without secrets."""
    monkeypatch.setattr(transport, "EXCHANGE_LIMIT", 5.0)
    caplog.set_level("DEBUG")
    server = SilentServer(CONNECT_ANSWERS[what])
    try:
        proxy = f"http://user:{SECRET.replace('/', '%2F')}@{server.address}"
        outcome = perform(drive, "https://cdm.invalid", proxy=proxy)
    finally:
        server.close()
    assert isinstance(outcome, TransportError)
    assert len(outcome.reason) <= 300
    assert not shows(SECRET, outcome)
    assert SECRET not in caplog.text


LAX_CHUNKS = {
    "everything": b"-1\r\n",
    "less than nothing": b"-5\r\n",
    "a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "a prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "an underscore": b"0_5\r\nhello\r\n0\r\n\r\n",
    "a blank": b" 5\r\nhello\r\n0\r\n\r\n",
    "no number": b"five\r\nhello\r\n0\r\n\r\n",
    "nothing": b"\r\nhello\r\n0\r\n\r\n",
    "more than there are bytes": b"ffffffffffffffffff\r\nhello\r\n",
    "a sign, later": b"2\r\n{}\r\n-1\r\n",
}


@pytest.mark.parametrize("what", LAX_CHUNKS)
def test_lengths_of_chunks(what: str, server: ByteServer, drive: Callable[..., Any]) -> None:
    """A length of a chunk that is no hexadecimal number is an error of the transport."""
    server.respond = once(CHUNKED + LAX_CHUNKS[what])
    assert isinstance(perform(drive, server.url), TransportError)


INTERIM = {
    "processing": b"HTTP/1.1 102 Processing\r\n\r\n",
    "early hints": b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n",
    "one that nobody knows": b"HTTP/1.1 199 x\r\n\r\n",
    "several": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\n\r\n" * 3,
    "a thousand": b"HTTP/1.1 103 x\r\n\r\n" * 1000,
}


@pytest.mark.parametrize("what", INTERIM)
def test_interim_answers(what: str, server: ByteServer, drive: Callable[..., Any]) -> None:
    """An interim answer is not the answer, which would be left for the next request."""
    server.respond = once(INTERIM[what] + OK)
    outcome = perform(drive, server.url)
    assert not isinstance(outcome, TransportError), outcome
    assert (outcome.status, outcome.body) == (200, b"{}")


UNCLEAR = {
    "a sign": b"Content-Length: +2",
    "an underscore": b"Content-Length: 0_2",
    "a prefix": b"Content-Length: 0x2",
    "less than nothing": b"Content-Length: -1",
    "another alphabet": "Content-Length: \u0662".encode(),
    "5,000 digits": b"Content-Length: " + b"9" * 5000,
    "a word": b"Content-Length: two",
    "two lengths": b"Content-Length: 2\r\nContent-Length: 3",
    "two lengths in one line": b"Content-Length: 2, 3",
    "a coding that nobody knows": b"Transfer-Encoding: xchunked",
    "two codings": b"Transfer-Encoding: gzip, chunked",
    "a coding twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "another protocol": b"Upgrade: x\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nUpgrade: x",
    "no colon": f"X {SECRET}".encode(),
    "a blank before the colon": f"X : {SECRET}\r\nContent-Length : 2".encode(),
    "NUL in a name": f"X\x00: {SECRET}".encode(),
    "a first line that continues another": f" X: {SECRET}".encode(),
    "a line break of another kind": f"X: y\rZ {SECRET}".encode(),
}


@pytest.mark.parametrize("what", UNCLEAR)
def test_where_an_answer_ends(
    what: str, server: ByteServer, drive: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """If it is not clear where an answer ends, it is none, and no log shows its headers."""
    status = b"103 x" if what == "another protocol" else b"200 OK"
    server.respond = once(b"HTTP/1.1 %s\r\n%s\r\n\r\n{}" % (status, UNCLEAR[what]))
    caplog.set_level("DEBUG")
    outcome = perform(drive, server.url)
    assert isinstance(outcome, TransportError)
    assert outcome.sent
    assert SECRET not in caplog.text + outcome.reason


NO_HTTP = {
    "a body": b"{}",
    "a page": b"<html>hello</html>\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.7\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an alert of TLS": b"\x15\x03\x01\x00\x02\x02F",
    "an empty line": b"\r\n" + OK,
    "status 0": b"HTTP/1.1 000 x\r\n\r\n",
    "status 99": b"HTTP/1.1 99 x\r\n\r\n",
    "status 1000": b"HTTP/1.1 1000 x\r\n\r\n",
    "a status of another alphabet": "HTTP/1.1 \u0662\u0660\u0660 x\r\n\r\n".encode(),
    "a negative status": b"HTTP/1.1 -20 x\r\n\r\n",
    "a hundred headers": OK[:17] + b"a: b\r\n" * 101 + OK[17:],
    "nothing": b"",
}


@pytest.mark.parametrize("what", NO_HTTP)
def test_answers_that_are_no_http(what: str, server: ByteServer, drive: Callable[..., Any]) -> None:
    """What is no answer of HTTP/1 is an error of the transport, and may have had its effect."""
    server.respond = once(NO_HTTP[what])
    outcome = perform(drive, server.url)
    assert isinstance(outcome, TransportError), outcome
    assert outcome.sent


ENDLESS: dict[str, Respond] = {
    "a chunk of everything": first(CHUNKED + b"-1\r\n", forever(b"x" * 65_536)),
    "a huge chunk": first(CHUNKED + b"7fffffffffffffff\r\n", forever(b"x" * 65_536)),
    "trailers": first(CHUNKED + b"0\r\n", forever(b"a: " + b"b" * 4096 + b"\r\n")),
    "an extension": first(CHUNKED, forever(b"1;" + b"x" * 4096 + b"\r\ny\r\n")),
    "no length": first(b"HTTP/1.1 200 OK\r\n\r\n", forever(b"x" * 65_536)),
    "interim answers": forever(b"HTTP/1.1 100 Continue\r\na: " + b"x" * 999 + b"\r\n\r\n"),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_memory_is_bounded(what: str, server: ByteServer, drive: Callable[..., Any]) -> None:
    """However much is sent, some megabytes of it are kept at most."""
    server.respond = ENDLESS[what]
    tracemalloc.start()
    try:
        outcome = perform(drive, server.url)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(outcome, TransportError)
    assert peak < 40 * 1024 * 1024


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "gzip,deflate", "x"])
def test_encodings_that_nobody_asked_for(
    encoding: str, server: ByteServer, drive: Callable[..., Any]
) -> None:
    """An encoding that was not asked for is not decoded, since it may expand without a limit."""
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: 2\r\n\r\n"
    server.respond = once(head.encode() + b"{}")
    outcome = perform(drive, server.url)
    assert isinstance(outcome, TransportError)
    assert "content encoding" in outcome.reason


def test_too_many_threads(
    server: ByteServer, drive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If no thread can be started for the deadline, nothing is sent, and the error says so."""
    server.respond = once(OK)
    caller = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if isinstance(thread, threading.Timer):
            raise RuntimeError("can't start new thread")
        caller(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    outcome = perform(drive, server.url)
    assert isinstance(outcome, TransportError)
    assert not outcome.sent
    assert "can't start new thread" in outcome.reason


def test_a_full_thread_pool(server: ByteServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the triggerer cannot start a thread, the request may be sent later by another one."""

    async def call() -> None:
        with CdmSession(settings(server.url)) as session:
            loop = asyncio.get_running_loop()

            def no_thread(*_: Any) -> Any:
                raise RuntimeError("can't start new thread")

            monkeypatch.setattr(loop, "run_in_executor", no_thread)
            await session.arun(send_request(Request("PUT", f"{server.url}/x")))

    with pytest.raises(TransportError, match="can't start new thread") as caught:
        asyncio.run(call())
    assert caught.value.sent


@pytest.mark.parametrize(
    "value",
    [f"{SECRET}\r\nX-Other: 1", f"{SECRET}\nx", f" {SECRET}", f"{SECRET}\u0142", f"{SECRET}\ud800"],
)
def test_headers_that_cannot_be_sent(
    value: str, server: ByteServer, drive: Callable[..., Any]
) -> None:
    """A credential that no header can carry is an error that shows no part of it, nor its cause."""
    server.respond = once(OK)
    outcome = perform(drive, server.url, headers={"X-Security-Token": value})
    assert isinstance(outcome, TransportError)
    assert not outcome.sent
    assert not shows(SECRET, outcome)


def shows(secret: str, error: BaseException) -> bool:
    """Return whether an error, its causes and its traceback show a secret in any spelling."""
    text = "".join(traceback.format_exception(error))
    chain: BaseException | None = error
    while chain is not None:
        text += repr(chain) + repr(chain.args)
        chain = chain.__cause__ or chain.__context__
    spellings = {secret, base64.b64encode(secret.encode()).decode()}
    return any(spelling in text for spelling in spellings)


PROXY_PASSWORD = "proxy-p4ssw0rd"
ECHOES = {
    "the header": base64.b64encode(f"user:{PROXY_PASSWORD}".encode()).decode(),
    "the password": PROXY_PASSWORD,
    "user and password": f"user:{PROXY_PASSWORD}",
}


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("echo", ECHOES)
@pytest.mark.parametrize("status", [b"407 Proxy Authentication Required", b"502 Bad", b"200 OK"])
def test_a_proxy_that_repeats_its_credentials(
    status: bytes, echo: str, scheme: str, server: ByteServer, caplog: pytest.LogCaptureFixture
) -> None:
    """What a proxy repeats of its own credentials is in no error and no log, in no spelling."""
    text = ECHOES[echo].encode()
    head = b"HTTP/1.1 %s\r\nX-Request-Id: %s\r\nContent-Length: %d\r\n\r\n"
    if status.startswith(b"2"):
        text = b'{"submissions": "%s"}' % text
    server.respond = once(head % (status + b" " + text, text, len(text)) + text)
    proxy = server.url.replace("//", f"//user:{PROXY_PASSWORD}@")
    factory.forget_everything()
    caplog.set_level("DEBUG")
    behind_proxy = settings(f"{scheme}://cdm.invalid", proxy=proxy)
    session = CdmSession(behind_proxy, policy=RetryPolicy(attempts=1))
    with session, pytest.raises(errors.CdmError) as caught:
        session.run(session.api.active_run("c", "j"))
    for spelling in ECHOES.values():
        assert not shows(spelling, caught.value)
        assert spelling not in caplog.text


def test_cookies_are_not_kept(server: ByteServer) -> None:
    """A cookie is never sent back, whoever set it."""
    heads = b"\r\nSet-Cookie: a=b; Path=/\r\nConnection: close\r\n"
    server.respond = once(OK.replace(b"\r\n", heads, 1))
    with CdmSession(settings(server.url)) as session:
        for _ in range(2):
            session.run(send_request(Request("GET", f"{server.url}/x")))
    assert len(server.requests) == 2
    assert not any(b"cookie" in request.lower() for request in server.requests)


def ask(session: CdmSession, cluster_id: str, name: str, results: Any) -> None:
    """Ask for the runs of one job many times, and report which runs were shown."""
    shown = set()
    for _ in range(30):
        run = session.run(session.api.active_run(cluster_id, name))
        shown.add(run.submission_id if run else None)
    results.put((name, shown))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("config", [{"quotas": {"status": 100_000}}], ids=["no limit"])
def test_forked_processes_share_no_connections(sim: CdmSimulator, make_session: Any) -> None:
    """Processes that are forked with open connections each read answers to their own calls."""
    names = [f"job_{number}" for number in range(5)]
    numbers: dict[str, int] = {}
    session = make_session()
    for name in names:
        sim.add_job(name, seconds=3600)
        numbers[name] = sim.start(name).submission_id
        session.run(session.api.active_run(sim.cluster_id, name))
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    children = [
        context.Process(target=ask, args=(session, sim.cluster_id, name, results)) for name in names
    ]
    for child in children:
        child.start()
    found = dict(results.get(timeout=HANGS) for _ in names)
    for child in children:
        child.join(HANGS)
    assert found == {name: {number} for name, number in numbers.items()}
