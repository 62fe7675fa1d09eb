"""A start that takes effect, and whose answer a proxy spoils: it is found, and not repeated."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.simulator import CdmSimulator
from tests.support.byte_server import ByteServer
from tests.support.task_harness import TaskRunner

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
#: What arrives in place of the answer to a start.
SPOILED = {
    "a chunk of less than nothing": CHUNKED + b"-5\r\n",
    "a chunk of everything": CHUNKED + b"-1\r\n{}",
    "a chunk of no length": CHUNKED + b"five\r\n",
    "a length that is none": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
    "an interim answer only": b"HTTP/1.1 103 Early Hints\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 x\r\nUpgrade: x\r\n\r\n",
    "an encoding that nobody asked for": (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\n{}"
    ),
    "a broken encoding": (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"
    ),
    "brackets without an end": b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000,
    "no answer": b"",
    "a header that is none": b"HTTP/1.1 200 OK\r\nx\r\n\r\n{}",
    "half a character": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n\xff",
}


@pytest.fixture
def proxy(
    sim: CdmSimulator, cdm_default: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ByteServer]:
    """Start a proxy, which the connection names, that passes on what it is sent."""
    proxy = ByteServer()
    connection = json.loads(sim.connection_json)
    extra = connection["extra"]
    extra = json.loads(extra) if isinstance(extra, str) else extra
    connection["extra"] = json.dumps({**extra, "proxy": proxy.url})
    monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", json.dumps(connection))
    proxy.respond = lambda connection: relay(proxy, connection)
    yield proxy
    proxy.close()


def relay(
    proxy: ByteServer,
    connection: socket.socket,
    spoiled: bytes | None = None,
    date: str | None = None,
) -> None:
    """Pass a request on, and the answer; to a start, answer with other bytes.

    :param spoiled: answer to a start.
    :param date: value of the header ``Date`` of each answer.
    """
    first, *lines = proxy.requests[-1].decode().splitlines()
    method, url, _ = first.split(" ")
    host, path = re.fullmatch(r"http://([^/]+)(.*)", url).groups()  # type: ignore[union-attr]
    headers = dict(line.split(": ", 1) for line in lines)
    upstream = http.client.HTTPConnection(host, timeout=30)
    upstream.request(method, path, proxy.bodies[-1], headers)
    answer = upstream.getresponse()
    body = answer.read()
    upstream.close()
    if spoiled is not None and path.endswith("/start"):
        connection.sendall(spoiled)
        return
    received = {name.lower(): value for name, value in answer.getheaders()}
    for name in ("content-length", "transfer-encoding", "connection"):
        received.pop(name, None)
    if date is not None:
        received["date"] = date
    named = "".join(f"{name}: {value}\r\n" for name, value in received.items())
    head = f"HTTP/1.1 {answer.status} x\r\n{named}Connection: close\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "triggerer"])
@pytest.mark.parametrize("what", SPOILED)
def test_a_start_whose_answer_cannot_be_read(
    what: str,
    deferrable: bool,
    sim: CdmSimulator,
    proxy: ByteServer,
    task_runner: TaskRunner,
) -> None:
    """The run that it started is looked for and waited for, and there is no second one."""
    sim.add_job("orders", seconds=60)
    proxy.respond = lambda connection: relay(proxy, connection, SPOILED[what])
    result = task_runner.run(
        lambda: CdmStartJobOperator(
            task_id="t", job_name="orders", wait_for_completion=True, deferrable=deferrable
        )
    )
    assert result["status"] == "SUCCEEDED"
    assert len(sim.runs("orders")) == 1
