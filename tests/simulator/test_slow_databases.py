from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
import requests

from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from airflow_provider_cdm.simulator.transfer import jdbc
from tests.simulator.conftest import Database
from tests.support.raw_client import Cdm

PHASES = {"booting": 0, "running": 0}


@pytest.fixture
def config(shop: Database, warehouse: Database) -> dict[str, Any]:
    links = [{"name": "shop", "url": shop.url}, {"name": "warehouse", "url": warehouse.url}]
    rows = {"to": {"link": "warehouse", "table": "orders"}, "seconds": PHASES}
    source = {"link": "shop", "table": "orders"}
    jobs = [
        {"name": "rows", "from": source, **rows},
        {"name": "other rows", "from": source, **rows},
        {"name": "tables", "type": "BATCH_JOB", "from": {**source, "table": "*"}, **rows},
        {"name": "script", "from": source, **rows, "statuses": ["RUNNING", "SUCCEEDED"]},
        {"name": "plain", "seconds": PHASES},
    ]
    return {"clusters": [{"name": "demo", "links": links, "jobs": jobs}]}


@pytest.fixture
def live(config: dict[str, Any]) -> Iterator[CdmSimulator]:
    """Start a simulator in real time."""
    with CdmSimulator(config) as simulator:
        yield simulator


@contextmanager
def locked(database: Database) -> Iterator[None]:
    """Let another connection lock a file, so that nobody else can read or write it."""
    with closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def call_every_route(sim: CdmSimulator, waiting: str) -> None:
    """Call what must not wait for a database, although the run of one job does."""
    cdm = Cdm(sim)
    assert cdm.status(waiting)["status"] in {"BOOTING", "RUNNING"}
    assert cdm.history(waiting)["total"] == 1
    assert cdm.status("plain")["status"] == "NEVER_EXECUTED"
    assert cdm.start("plain")["status"] == "BOOTING"
    for path in ("job/all", "job/rows", "link/shop"):
        assert cdm.call("GET", path).status_code == 200
    for path in ("/", "/_sim/state", "/_sim/requests", f"/v1.1/{sim.project_id}/clusters"):
        assert cdm.call("GET", sim.url + path).status_code == 200
    assert requests.post(f"{sim.url}/_sim/jobs/new", json={}, timeout=5).status_code == 200
    assert sim.runs(waiting)[0].active


@pytest.mark.long
@pytest.mark.parametrize("end", ["source", "target"])
@pytest.mark.parametrize("job", ["rows", "tables", "script"])
def test_no_route_waits_for_a_database(
    live: CdmSimulator, shop: Database, warehouse: Database, job: str, end: str
) -> None:
    """While a database is locked, all other calls are answered; then the run goes on."""
    cdm = Cdm(live)
    with locked(shop if end == "source" else warehouse):
        cdm.start(job)
        if job == "script":
            assert cdm.status(job)["status"] == "RUNNING"
            assert cdm.status(job)["status"] == "RUNNING"
        until(lambda: live.runs(job)[0].status == "RUNNING")
        call_every_route(live, job)
    until(lambda: not live.runs(job)[0].active)
    assert live.runs(job)[0].status == "SUCCEEDED"
    assert warehouse.rows() == shop.rows()


def test_advance_waits_for_the_rows_and_no_route_does(
    sim: CdmSimulator, clock: ManualClock, shop: Database, warehouse: Database
) -> None:
    """Advancing a manual clock returns when the rows are moved; meanwhile, routes answer."""
    Cdm(sim).start("rows")
    with locked(warehouse):
        advancing = threading.Thread(target=clock.advance, args=(5,))
        advancing.start()
        until(lambda: sim.runs("rows")[0].status == "RUNNING")
        call_every_route(sim, "rows")
        assert advancing.is_alive()
    advancing.join()
    assert sim.runs("rows")[0].status == "SUCCEEDED"
    assert warehouse.rows() == shop.rows()


@pytest.mark.long
@pytest.mark.parametrize("how", ["stop", "kill", "reset", "exit"])
def test_waiting_rows_are_not_inserted_after_an_end(
    config: dict[str, Any], warehouse: Database, how: str
) -> None:
    """A run that is stopped while its rows wait for a lock inserts none when the lock is gone."""
    with CdmSimulator(config) as live:
        cdm = Cdm(live)
        with locked(warehouse):
            cdm.start("rows")
            until(lambda: live.runs("rows")[0].status == "RUNNING")
            if how == "stop":
                assert cdm.on_job("PUT", "rows", "/stop").status_code == 200
                until(lambda: live.runs("rows")[0].status == "STOPPED")
            elif how == "kill":
                url = f"{cdm.project}/clusters/{live.cluster_id}/action"
                cdm.call("POST", url, json={"stop": {"stopMode": "IMMEDIATELY"}})
                assert live.runs("rows")[0].status == "FAILED"
            elif how == "reset":
                live.reset()
                assert live.runs("rows") == []
            else:
                live.__exit__(None, None, None)
        until(lambda: not any(t.name == "cdm-simulator-work" for t in threading.enumerate()))
        assert warehouse.rows() == []
        if how == "exit":
            live.__enter__()


def test_unreachable_databases(
    live: CdmSimulator, monkeypatch: pytest.MonkeyPatch, warehouse: Database
) -> None:
    """A start is answered although a database does not answer; its run fails when that is known."""
    answer, asked = threading.Event(), threading.Semaphore(0)

    def check(url: str) -> None:
        asked.release()
        answer.wait(30)
        raise OSError("no route to host")

    monkeypatch.setattr(jdbc, "check", check)
    cdm = Cdm(live)
    assert cdm.start("rows")["status"] == "BOOTING"
    assert cdm.on_job("PUT", "rows", "/start").status_code == 400
    call_every_route(live, "rows")
    assert cdm.on_job("PUT", "other rows", "/start").status_code == 200
    answer.set()
    until(lambda: not live.runs("rows")[0].active)
    run = cdm.status("rows")
    assert (run["status"], run["error-summary"]) == (
        "FAILURE_ON_SUBMIT",
        "Cannot connect: no route to host",
    )


def test_testing_a_link_holds_nobody_up(
    live: CdmSimulator, monkeypatch: pytest.MonkeyPatch, shop: Database
) -> None:
    """While the connection of a link is tested, other calls are answered, also a second test."""
    answer, asked = threading.Event(), threading.Semaphore(0)

    def check(url: str) -> None:
        asked.release()
        answer.wait(30)

    monkeypatch.setattr(jdbc, "check", check)
    cdm = Cdm(live)
    token = cdm.login()
    link = {"links": [{"name": "shop", "connector-name": "generic-jdbc-connector"}]}
    answers: list[requests.Response] = []

    def update() -> None:
        answers.append(
            requests.put(
                f"{cdm.base}/link/shop", json=link, headers={"X-Auth-Token": token}, timeout=30
            )
        )

    threads = [threading.Thread(target=update) for _ in range(60)]
    for thread in threads:
        thread.start()
    for _ in threads:
        asked.acquire()
    assert cdm.status("plain")["status"] == "NEVER_EXECUTED"
    answer.set()
    for thread in threads:
        thread.join()
    assert {response.status_code for response in answers} == {200}
