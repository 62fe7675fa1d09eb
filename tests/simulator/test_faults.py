from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests

from airflow_provider_cdm.simulator import CdmSimulator, Fault, ManualClock
from airflow_provider_cdm.simulator.config.reader import ConfigError
from tests.support.raw_client import Cdm

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def config() -> dict[str, Any]:
    return {"clusters": [{"name": "demo", "jobs": ["load", "other"]}]}


def start_over_socket(sim: CdmSimulator, cdm: Cdm) -> bytes:
    """Start the job over a plain socket, and return the bytes up to the end of the stream."""
    path = f"/v1.1/{sim.project_id}/clusters/{sim.cluster_id}/cdm/job/load/start"
    head = f"PUT {path} HTTP/1.1\r\nHost: localhost\r\nX-Auth-Token: {cdm.login()}\r\n"
    with socket.create_connection(("127.0.0.1", int(sim.url.rsplit(":")[-1]))) as connection:
        connection.sendall(f"{head}Content-Length: 2\r\n\r\n{{}}".encode())
        connection.settimeout(5)
        return connection.recv(65_536)


@pytest.mark.parametrize(("when", "runs"), [("before", 0), ("after", 1)])
def test_drop(sim: CdmSimulator, cdm: Cdm, when: Any, runs: int) -> None:
    """``drop`` closes the connection without a response, before or after the effect."""
    sim.fail("start", "drop", when)
    assert start_over_socket(sim, cdm) == b""
    assert len(sim.runs("load")) == runs


@pytest.mark.parametrize(("when", "runs"), [("before", 0), ("after", 1)])
def test_reset(sim: CdmSimulator, cdm: Cdm, when: Any, runs: int) -> None:
    """The client sees ``reset`` as a TCP reset, not as the end of the stream."""
    sim.fail("start", "reset", when)
    with pytest.raises(ConnectionResetError):
        start_over_socket(sim, cdm)
    assert len(sim.runs("load")) == runs


def test_hang_with_seconds(sim: CdmSimulator, cdm: Cdm) -> None:
    """``hang`` with seconds sends nothing for this time and then closes the connection."""
    sim.fail("start", "hang", "after", seconds=0.1)
    started = time.monotonic()
    assert start_over_socket(sim, cdm) == b""
    assert time.monotonic() - started >= 0.1
    assert sim.runs("load")[0].active


def test_hang_until_the_client_times_out(sim: CdmSimulator, cdm: Cdm) -> None:
    """``hang`` without seconds lasts until the client times out; the request is recorded."""
    sim.fail("status", "hang")
    token = cdm.login()
    with pytest.raises(requests.ReadTimeout):
        requests.get(f"{cdm.base}/job/load/status", headers={"X-Auth-Token": token}, timeout=0.1)
    assert (sim.requests[-1].route, sim.requests[-1].status) == ("status", None)


def test_many_hangs_do_not_block(config: dict[str, Any]) -> None:
    """Sixty hanging requests delay neither other requests nor the stop of the simulator."""
    with ThreadPoolExecutor(60) as pool, CdmSimulator(config) as sim:
        cdm = Cdm(sim)
        cdm.start("load")
        sim.fail("submissions", "hang", times=None)
        hanging = [pool.submit(cdm.history, "load") for _ in range(60)]
        while sum(request.route == "submissions" for request in sim.requests) < 60:
            time.sleep(0.005)
        started = time.monotonic()
        assert cdm.status("load")["submission-id"] == 1
        assert time.monotonic() - started < 1
        sim.__exit__(None, None, None)
        assert time.monotonic() - started < 2
        assert all(isinstance(future.exception(), requests.ConnectionError) for future in hanging)
        sim.__enter__()


@pytest.mark.parametrize(("when", "early"), [("before", 0), ("after", 1)])
def test_delay(sim: CdmSimulator, cdm: Cdm, when: Any, early: int) -> None:
    """``delay`` sends the correct response late; with ``before``, the effect is late, too."""
    sim.fail("start", "delay", when, seconds=0.3)
    with ThreadPoolExecutor(1) as pool:
        response = pool.submit(cdm.start, "load")
        while not sim.requests or sim.requests[-1].route != "start":
            time.sleep(0.005)
        time.sleep(0.1)
        assert len(sim.runs("load")) == early
        assert response.result()["submission-id"] == 1


@pytest.mark.parametrize(("when", "runs"), [("before", 0), ("after", 1)])
def test_status(sim: CdmSimulator, cdm: Cdm, when: Any, runs: int) -> None:
    """``status`` sends the given headers and, without a body, an error of the gateway."""
    sim.fail("start", "status", when, status=503, headers={"Retry-After": "7"})
    response = cdm.on_job("PUT", "load", "/start")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "7")
    assert response.json()["error_code"] == "APIGW.0613"
    assert len(sim.runs("load")) == runs


def test_status_of_iam_redirects_and_bodies(sim: CdmSimulator, cdm: Cdm) -> None:
    """Faults of IAM have its error format, a redirect has no body, and a body can be set."""
    sim.fail("token", "status", status=401)
    response = requests.post(f"{sim.url}/v3/auth/tokens", json={}, timeout=5)
    assert response.json()["error"]["code"] == 401
    sim.fail("status", "status", status=302, headers={"Location": "/elsewhere"})
    redirect = cdm.on_job("GET", "load", "/status", allow_redirects=False)
    assert (redirect.status_code, redirect.content) == (302, b"")
    sim.fail("status", "status", status=500, body={"errCode": "Cdm.0202"})
    assert cdm.on_job("GET", "load", "/status").json() == {"errCode": "Cdm.0202"}


@pytest.mark.parametrize("body", ["<html>proxy</html>", '{"submissions":[{"job', ""])
def test_body(sim: CdmSimulator, cdm: Cdm, body: str) -> None:
    """``body`` replaces the body of the response, with status 200."""
    sim.fail("start", "body", "after", body=body)
    response = cdm.on_job("PUT", "load", "/start")
    assert (response.status_code, response.text, len(sim.runs("load"))) == (200, body, 1)


def test_objects_and_bytes_as_body(sim: CdmSimulator, cdm: Cdm) -> None:
    """An object as body is sent as JSON, bytes unchanged; ``/_sim/state`` can show both."""
    sim.fail("status", "body", body={"submissions": []})
    sim.fail("status", "body", body=b"\xff")
    assert requests.get(f"{sim.url}/_sim/state", timeout=5).json()["faults"][1]["kind"] == "body"
    assert cdm.on_job("GET", "load", "/status").json() == {"submissions": []}
    assert cdm.on_job("GET", "load", "/status").content == b"\xff"


def test_times_skip_and_job(sim: CdmSimulator, cdm: Cdm) -> None:
    """A fault skips some requests, hits some, and never those about other jobs."""
    sim.fail("status", "status", status=500, job="load", skip=1, times=2)
    statuses = [cdm.on_job("GET", "load", "/status").status_code for _ in range(5)]
    assert statuses == [200, 500, 500, 200, 200]
    sim.fail("status", "status", status=500, job="load", times=None)
    assert cdm.on_job("GET", "other", "/status").status_code == 200
    assert cdm.on_job("GET", "load", "/status").status_code == 500


def test_order_of_faults(sim: CdmSimulator, cdm: Cdm) -> None:
    """Faults occur in the order in which they were added."""
    cdm.status("load")
    sim.fail("status", "status", status=500)
    sim.faults.add(Fault(route="*", kind="status", status=502))
    statuses = [cdm.on_job("GET", "load", "/status").status_code for _ in range(3)]
    assert (statuses, sim.faults.remaining()) == ([500, 502, 200], [])


def test_failed_request_keeps_an_after_fault(sim: CdmSimulator, cdm: Cdm) -> None:
    """An ``after`` fault hits only a request that had an effect."""
    sim.fail("start", "drop", "after")
    assert cdm.on_job("PUT", "missing", "/start").status_code == 400
    with pytest.raises(requests.ConnectionError):
        cdm.start("load")


@pytest.mark.parametrize("kind", ["drop", "status"])
def test_effect_delay(sim: CdmSimulator, cdm: Cdm, clock: ManualClock, kind: Any) -> None:
    """The effect of a request can be later than its faulty response."""
    sim.fail("start", kind, "after", effect_delay=30, status=504)
    if kind == "drop":
        with pytest.raises(requests.ConnectionError):
            cdm.start("load")
    else:
        assert cdm.on_job("PUT", "load", "/start").status_code == 504
    clock.advance(29)
    assert cdm.status("load")["status"] == "NEVER_EXECUTED"
    clock.advance(1)
    assert cdm.status("load")["submission-id"] == 1
    assert sim.runs("load")[0].user == sim.user


def test_reset_of_the_simulator(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """A reset removes requests, faults, runs, tokens and events, and ends hanging requests."""
    cdm.start("load")
    sim.fail("start", "drop", effect_delay=5)
    with pytest.raises(requests.ConnectionError):
        cdm.start("load")
    sim.add_job("added")
    sim.fail("stop", "hang", times=None)
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(cdm.on_job, "PUT", "load", "/stop")
        while sim.requests[-1].route != "stop":
            time.sleep(0.005)
        sim.reset()
        assert isinstance(hanging.exception(5), requests.ConnectionError)
    clock.advance(100)
    assert (sim.requests, sim.faults.remaining(), sim.runs("load")) == ([], [], [])
    assert cdm.on_job("GET", "load", "/status").status_code == 401  # the token is unknown now
    assert Cdm(sim).status("load")["status"] == "NEVER_EXECUTED"
    assert Cdm(sim).on_job("GET", "added").status_code == 400


@pytest.mark.parametrize(
    "call",
    [
        lambda sim: sim.fail("strat", "drop"),
        lambda sim: sim.fail("start", "explode"),
        lambda sim: sim.fail("start", "status"),
        lambda sim: sim.fail("start", "delay"),
        lambda sim: sim.fail("start", "delay", seconds=1, effect_delay=1),
        lambda sim: sim.fail("start", "drop", tmies=2),
    ],
)
def test_invalid_faults(sim: CdmSimulator, call: Callable[[CdmSimulator], object]) -> None:
    """An invalid fault is rejected when it is added."""
    with pytest.raises(ValueError, match=r"strat|kind|needs|tmies"):
        call(sim)


def test_faults_of_the_configuration() -> None:
    """Faults of the configuration exist from the start and after each reset."""
    fault = {"route": "token", "kind": "status", "status": 500}
    with CdmSimulator({"faults": [fault]}) as sim:
        for _ in range(2):
            with pytest.raises(AssertionError):
                Cdm(sim).login()
            Cdm(sim).login()
            sim.reset()
    with pytest.raises(ConfigError, match=r"faults\[0\].kind"):
        CdmSimulator({"faults": [{"route": "token", "kind": "?"}]})


def test_faults_and_concurrent_requests(sim: CdmSimulator, cdm: Cdm) -> None:
    """A fault hits the given number of requests, even if they are concurrent."""
    cdm.status("load")
    sim.fail("status", "status", status=500, times=5)
    with ThreadPoolExecutor(10) as pool:
        responses = list(pool.map(lambda _: cdm.on_job("GET", "load", "/status"), range(20)))
    assert sorted(response.status_code for response in responses) == [200] * 15 + [500] * 5


def test_no_thread_remains(config: dict[str, Any]) -> None:
    """After the ``with`` block, no thread of the simulator is running."""
    with CdmSimulator(config) as sim:
        Cdm(sim).start("load")
    assert not [item for item in threading.enumerate() if item.name.startswith("cdm-simulator")]
