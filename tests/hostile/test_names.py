"""Host names whose look-up never ends: no exchange, wait, start or test of a connection hangs."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_cdm import metrics
from airflow_provider_cdm.client import errors, poll_loop
from airflow_provider_cdm.client.http import transport
from airflow_provider_cdm.client.sansio import Obstacle, Request, TransportError, send_request
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.client.settings import KeyCredentials, Settings
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.simulator import CdmSimulator
from tests.hostile.test_forks import in_child
from tests.support.byte_server import ByteServer, once
from tests.support.task_harness import TaskRunner

#: Seconds after which a call that has not ended counts as hanging.
HANGS = 60.0
LIMIT = 0.2
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Names:
    """Stands in for the resolver of the machine, which does not answer for names while it hangs.

    :param answers: addresses by name; other names are looked up as usual.
    :param asked: hosts that were looked up, with the thread that waited for it.
    """

    def __init__(self) -> None:
        self.answers: dict[str, list[str]] = {}
        self.asked: list[tuple[str, threading.Thread]] = []
        self._answering = threading.Event()
        self._look_up = socket.getaddrinfo

    def hang(self) -> None:
        """Answer no more, until :meth:`go_on`."""
        self._answering.clear()

    def go_on(self) -> None:
        """Answer again, also what was asked meanwhile."""
        self._answering.set()

    def __call__(self, host: str, *arguments: Any, **options: Any) -> Any:
        self.asked.append((host, threading.current_thread()))
        if not host[0].isdigit():
            self._answering.wait(2 * HANGS)
        addresses = self.answers.get(host, [host])
        return [found for each in addresses for found in self._look_up(each, *arguments, **options)]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """Return a resolver that hangs, and limit each exchange."""
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names)
    monkeypatch.setattr(transport, "EXCHANGE_LIMIT", LIMIT)
    yield names
    names.go_on()


@pytest.fixture
def server() -> Iterator[ByteServer]:
    """Start a server that answers."""
    server = ByteServer()
    server.respond = once(OK)
    yield server
    server.close()


def ended(work: Callable[[], Any]) -> Any:
    """Return the result or the error of some work; fail if it does not end."""
    outcomes: list[Any] = []

    def run() -> None:
        try:
            outcomes.append(work())
        except BaseException as error:
            outcomes.append(error)

    caller = threading.Thread(target=run, daemon=True)
    caller.start()
    caller.join(HANGS)
    assert outcomes, "it does not end"
    return outcomes[0]


def exchange(url: str, *, triggerer: bool = False, proxy: str | None = None) -> Any:
    """Return the response or the error of one exchange; fail if it does not end."""
    keys = KeyCredentials("ak", "sk")
    with CdmSession(Settings(url, url, keys, project_id="p", proxy=proxy)) as session:
        flow = send_request(Request("GET", f"{url}/x"))
        if triggerer:
            return ended(lambda: asyncio.run(session.arun(flow)))
        return ended(lambda: session.run(flow))


WAYS = {
    "http": ("http://cdm.test", None),
    "https": ("https://cdm.test", None),
    "http through a proxy": ("http://127.0.0.1:9", "http://proxy.test:3128"),
    "https through a proxy": ("https://127.0.0.1:9", "http://user:proxy-password@proxy.test:3128"),
    "https through TLS to a proxy": ("https://127.0.0.1:9", "https://proxy.test:3128"),
}


@pytest.mark.parametrize("triggerer", [False, True], ids=["worker", "triggerer"])
@pytest.mark.parametrize("way", WAYS)
def test_an_exchange_ends(way: str, triggerer: bool, names: Names) -> None:
    """The time limit of an exchange covers the look-up of a name; nothing was sent."""
    url, proxy = WAYS[way]
    failure = exchange(url, triggerer=triggerer, proxy=proxy)
    assert isinstance(failure, TransportError)
    assert not failure.sent
    assert failure.obstacle is (Obstacle.PROXY if proxy else Obstacle.NAME)
    assert "looking up the name took longer than" in failure.reason
    assert names.asked[0][0] == ("proxy.test" if proxy else "cdm.test")


@pytest.mark.long
@pytest.mark.parametrize("triggerer", [False, True], ids=["worker", "triggerer"])
def test_a_wait_ends(triggerer: bool, sim: CdmSimulator, names: Names, task_runner: Any,
                     monkeypatch: pytest.MonkeyPatch, clock: Any) -> None:  # fmt: skip
    """A wait ends at its wait_timeout while no name can be looked up."""
    use_name(sim, monkeypatch)
    names.go_on()
    sim.add_job("orders", seconds=10**6)
    # So that each poll needs a new connection.
    sim.fail("status", "drop", times=None)
    outcomes: list[int | None] = []
    # The task runs in this thread, where Airflow 2 expects it; a look-up without end holds it up.
    held_up = threading.Timer(HANGS, names.go_on)

    def hang_once_it_runs(_: Request, status: int | None) -> None:
        outcomes.append(status)
        if sim.runs("orders") and held_up.is_alive():
            names.hang()

    monkeypatch.setattr(metrics, "count_call", hang_once_it_runs)
    monkeypatch.setattr(poll_loop, "LAST_POLL", LIMIT)

    def task() -> CdmStartJobOperator:
        return CdmStartJobOperator(
            task_id="t",
            job_name="orders",
            wait_for_completion=True,
            wait_timeout=60,
            deferrable=triggerer,
        )

    held_up.start()
    try:
        with pytest.raises(errors.CdmWaitTimeout):
            task_runner.run(task)
        assert held_up.is_alive(), "it does not end"
    finally:
        held_up.cancel()
    assert outcomes[-1] is None
    assert names.asked[-1][0] == "localhost"


@pytest.mark.long
@pytest.mark.parametrize("triggerer", [False, True], ids=["worker", "triggerer"])
def test_a_start_ends(
    triggerer: bool,
    sim: CdmSimulator,
    names: Names,
    task_runner: TaskRunner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A start whose server's name cannot be looked up has started nothing; a retry starts once."""
    use_name(sim, monkeypatch)
    sim.add_job("orders")

    def attempt() -> Any:
        return task_runner.run(
            lambda: CdmStartJobOperator(
                task_id="t", job_name="orders", wait_for_completion=True, deferrable=triggerer
            )
        )

    with pytest.raises(errors.CdmUnavailable, match="looking up the name") as caught:
        attempt()
    assert not caught.value.effect_unknown
    names.go_on()
    task_runner.retry()
    assert attempt()["status"] == "SUCCEEDED"
    assert len(sim.runs("orders")) == 1


def test_the_test_button_ends(
    sim: CdmSimulator,
    names: Names,
    cdm_default: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The Test button names the reason within its own limit, and leaves only the look-up behind."""
    use_name(sim, monkeypatch)
    before = set(threading.enumerate())
    works, text = ended(lambda: CdmHook().test_connection())
    assert not works
    assert "looking up the name took longer than" in text
    left = set(threading.enumerate()) - before - {thread for _, thread in names.asked}
    assert not [thread for thread in left if thread.name == "cdm-bounded"]


def use_name(sim: CdmSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the connection name the simulator's host by a name, and not by its address."""
    connection = json.loads(sim.connection_json.replace("127.0.0.1", "localhost"))
    monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", json.dumps(connection))


def test_addresses_need_no_look_up(server: ByteServer, names: Names) -> None:
    """An address is not looked up, and needs no thread."""
    assert exchange(server.url).status == 200
    assert names.asked == []


def test_all_addresses_of_a_name_are_tried(server: ByteServer, names: Names) -> None:
    """An address that refuses is followed by the next one; the name is looked up once."""
    names.go_on()
    names.answers["cdm.test"] = ["127.0.0.2", "127.0.0.3", "127.0.0.1"]
    assert exchange(server.url.replace("127.0.0.1", "cdm.test")).status == 200
    assert [host for host, _ in names.asked] == ["cdm.test"]


def test_addresses_share_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many addresses a name has, none is tried after the end of the exchange."""
    (found,) = socket.getaddrinfo("127.0.0.1", 9, type=socket.SOCK_STREAM)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [found] * 10_000)
    monkeypatch.setattr(transport, "EXCHANGE_LIMIT", LIMIT)
    tried = []

    def connect(sock: socket.socket, address: Any) -> None:
        tried.append(address)
        threading.Event().wait(sock.gettimeout())
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket.socket, "connect", connect)
    failure = exchange("http://cdm.test:9")
    assert isinstance(failure, TransportError)
    assert not failure.sent
    assert failure.obstacle is Obstacle.NO_ROUTE
    assert len(tried) < 100


REFUSED_NAMES = {
    "no such name": socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
    "no answer": socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
    "out of memory": socket.gaierror(socket.EAI_MEMORY, "Memory allocation failure"),
    "a name that cannot be encoded": UnicodeError("label empty or too long"),
    "another error": OSError("no resolver"),
}


@pytest.mark.parametrize("what", REFUSED_NAMES)
def test_names_that_are_refused(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a look-up fails, the error is one of the transport, and nothing was sent."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise REFUSED_NAMES[what]

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    failure = exchange("http://cdm.test")
    assert isinstance(failure, TransportError)
    assert not failure.sent
    expected = Obstacle.NO_ROUTE if what == "another error" else Obstacle.NAME
    assert failure.obstacle is expected


def test_a_name_without_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up that finds nothing is an error of the transport."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    failure = exchange("http://cdm.test")
    assert isinstance(failure, TransportError)
    assert not failure.sent


def test_no_thread_for_the_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no thread can be started for a look-up, nothing is sent, and the error says so."""
    start = threading.Thread.start

    def start_others(thread: threading.Thread) -> None:
        if thread.name == "cdm-bounded":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_others)
    failure = exchange("http://cdm.test")
    assert isinstance(failure, TransportError)
    assert not failure.sent
    assert failure.obstacle is None
    assert "can't start new thread" in failure.reason


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_during_a_look_up(server: ByteServer, names: Names) -> None:
    """A process that is forked while a name is looked up looks it up itself."""
    url = server.url.replace("127.0.0.1", "localhost")
    hanging = threading.Thread(target=exchange, args=(url,), daemon=True)
    hanging.start()
    while not names.asked:
        assert hanging.is_alive()

    def ask() -> int:
        names.go_on()
        return int(exchange(url).status)

    assert in_child(ask) == 200
    hanging.join(HANGS)
