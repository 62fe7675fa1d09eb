from __future__ import annotations

from typing import Any

import pytest
import requests

from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.simulator.conftest import Database
from tests.support.raw_client import Cdm

TABLES = ("customers", "orders", "parts", "stock")
WHOLE = {
    "type": "BATCH_JOB",
    "from_": {"link": "shop", "table": "*"},
    "to": {"link": "warehouse", "table": "*"},
    "seconds": {"booting": 1, "running": 10},
    "tables_at_once": 2,
}


@pytest.fixture
def shop(shop: Database) -> Database:
    """Three orders, and three more tables of two, three and four rows."""
    for count, name in enumerate(("customers", "parts", "stock"), start=2):
        shop.run(f"CREATE TABLE {name} (id INTEGER)")
        shop.run(f"INSERT INTO {name} VALUES (?)", *((n,) for n in range(count)))
    return shop


@pytest.fixture
def warehouse(warehouse: Database) -> Database:
    """Tables of the same names; it does not take part number 1."""
    warehouse.run("CREATE TABLE customers (id INTEGER)")
    warehouse.run("CREATE TABLE parts (id INTEGER CHECK (id <> 1))")
    warehouse.run("CREATE TABLE stock (id INTEGER)")
    return warehouse


@pytest.fixture
def behaviour() -> dict[str, Any]:
    """Override me: switches."""
    return {}


@pytest.fixture
def config(shop: Database, warehouse: Database, behaviour: dict[str, Any]) -> dict[str, Any]:
    links = [{"name": "shop", "url": shop.url}, {"name": "warehouse", "url": warehouse.url}]
    return {"clusters": [{"name": "demo", "links": links}], "behaviour": behaviour}


def count(database: Database, table: str) -> int:
    [(found,)] = database.run(f"SELECT count(*) FROM {table}")
    return int(found)


def listed(cdm: Cdm, type_: str = "NORMAL_JOB", part: str = "all_") -> dict[str, str]:
    """The status of jobs by name, as the listing has it."""
    response = cdm.on_job("GET", "all", params={"jobType": type_, "filter": part}).json()
    return {job["name"]: job["status"] for job in response["jobs"]}


def whole(sim: CdmSimulator, **changes: Any) -> None:
    sim.add_job("all", **{**WHOLE, **changes})


def mended(warehouse: Database) -> None:
    warehouse.run("DROP TABLE parts")
    warehouse.run("CREATE TABLE parts (id INTEGER)")


def test_every_table_is_moved_by_a_sub_job(
    sim: CdmSimulator, cdm: Cdm, clock: ManualClock, shop: Database, warehouse: Database
) -> None:
    """The rows of each table arrive, and its sub-job counts them; the run counts them all."""
    mended(warehouse)
    whole(sim)
    cdm.start("all")
    clock.advance(100)
    for table, rows in zip(TABLES, (2, 3, 3, 4), strict=True):
        [counters] = cdm.status(f"all_{table}")["counters"].values()
        assert (counters["ROWS_READ"], counters["ROWS_WRITTEN"]) == (rows, rows)
        assert count(warehouse, table) == rows
    [totals] = cdm.status("all")["counters"].values()
    assert totals["ROWS_WRITTEN"] == 12
    assert listed(cdm) == {f"all_{table}": "SUCCEEDED" for table in TABLES}
    assert listed(cdm, "BATCH_JOB", "all") == {"all": "SUCCEEDED"}


def test_some_run_at_once(
    sim: CdmSimulator, cdm: Cdm, clock: ManualClock, warehouse: Database
) -> None:
    """Sub-jobs are made when the run begins to work; no more than so many of them run at once."""
    mended(warehouse)
    whole(sim)
    cdm.start("all")
    assert listed(cdm) == {}
    clock.advance(5)
    assert list(listed(cdm).values()) == ["RUNNING", "RUNNING", "NEW", "NEW"]
    assert cdm.status("all_stock")["status"] == "NEVER_EXECUTED"
    clock.advance(11)
    assert list(listed(cdm).values()) == ["SUCCEEDED", "SUCCEEDED", "RUNNING", "RUNNING"]
    assert (cdm.status("all")["status"], cdm.status("all")["progress"]) == ("RUNNING", 50.0)
    clock.advance(11)
    assert cdm.status("all")["status"] == "SUCCEEDED"


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [({}, "SUCCEEDED"), ({"partial_status": "FAILED"}, "FAILED")],
    ids=["by default", "switched"],
)
def test_a_table_fails(
    sim: CdmSimulator, cdm: Cdm, clock: ManualClock, warehouse: Database, status: str
) -> None:
    """One table that the target refuses fails alone; what its run ends in is a switch."""
    whole(sim)
    cdm.start("all")
    clock.advance(100)
    failed = cdm.status("all_parts")
    assert (failed["status"], count(warehouse, "parts")) == ("FAILED", 0)
    assert "CHECK constraint failed" in failed["error-summary"]
    assert [count(warehouse, table) for table in ("customers", "orders", "stock")] == [2, 3, 4]
    assert cdm.status("all")["status"] == status


def test_all_tables_fail(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """A run of which nothing succeeded fails."""
    sim.add_job(
        "all", type="BATCH_JOB", tables=[{"name": n, "outcome": "FAILURE_ON_SUBMIT"} for n in "ab"]
    )
    cdm.start("all")
    clock.advance(100)
    assert cdm.status("all")["status"] == "FAILED"


def test_many_that_fail_at_once(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """A thousand sub-jobs that cannot even be submitted are no trouble."""
    bad = [{"name": f"t{n}", "outcome": "FAILURE_ON_SUBMIT"} for n in range(1000)]
    sim.add_job("all", type="BATCH_JOB", tables=[*bad, "good"])
    cdm.start("all")
    clock.advance(100)
    assert cdm.status("all")["status"] == "SUCCEEDED"
    assert cdm.status("all_good")["status"] == "SUCCEEDED"


def test_stopping_stops_the_tables(
    sim: CdmSimulator, cdm: Cdm, clock: ManualClock, warehouse: Database
) -> None:
    """After a stop what runs ends STOPPED with nothing inserted, and nothing more is started."""
    whole(sim)
    cdm.start("all")
    clock.advance(5)
    cdm.on_job("PUT", "all", "/stop")
    clock.advance(100)
    assert cdm.status("all")["status"] == "STOPPED"
    assert list(listed(cdm).values()) == ["STOPPED", "STOPPED", "NEW", "NEW"]
    assert [count(warehouse, table) for table in TABLES] == [0] * 4


@pytest.mark.parametrize(
    ("behaviour", "waiting"),
    [({}, "SUCCEEDED"), ({"sub_job_history": "dropped"}, "NEVER_EXECUTED")],
    ids=["by default", "switched"],
)
def test_made_anew_in_each_run(
    sim: CdmSimulator, cdm: Cdm, clock: ManualClock, warehouse: Database, waiting: str
) -> None:
    """A sub-job is another job in each run, which may still show the run before until its turn."""
    mended(warehouse)
    whole(sim)
    cdm.start("all")
    clock.advance(100)
    [before] = cdm.on_job("GET", "all_stock").json()["jobs"]
    cdm.start("all")
    clock.advance(5)
    [after] = cdm.on_job("GET", "all_stock").json()["jobs"]
    assert after["creation-date"] > before["creation-date"]
    assert cdm.status("all_stock")["status"] == waiting
    clock.advance(100)
    assert cdm.status("all_stock")["status"] == "SUCCEEDED"
    assert count(warehouse, "stock") == 8


def test_chosen_tables(
    sim: CdmSimulator, cdm: Cdm, clock: ManualClock, shop: Database, warehouse: Database
) -> None:
    """Patterns choose tables; a table that does not exist fails; the condition is for all."""
    condition = {"link": "shop", "table": "s*&orders&missing", "where": "id < 2"}
    whole(sim, from_=condition)
    cdm.start("all")
    clock.advance(100)
    assert listed(cdm) == {
        "all_orders": "SUCCEEDED",
        "all_stock": "SUCCEEDED",
        "all_missing": "FAILED",
    }
    assert (count(warehouse, "orders"), count(warehouse, "stock")) == (1, 2)


def test_a_name_that_is_taken(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """A sub-job does not replace an ordinary job."""
    sim.add_job("all_stock")
    whole(sim)
    cdm.start("all")
    clock.advance(100)
    run = cdm.status("all")
    assert (run["status"], "all_stock exists" in run["error-summary"]) == ("FAILED", True)
    assert cdm.status("all_stock")["status"] == "NEVER_EXECUTED"


@pytest.mark.parametrize("behaviour", [{"whole_counters": "absent"}])
def test_no_counters(sim: CdmSimulator, cdm: Cdm, clock: ManualClock, warehouse: Database) -> None:
    """As a switch, the run of a whole database counts nothing itself."""
    whole(sim)
    cdm.start("all")
    clock.advance(100)
    assert cdm.status("all")["status"] == "SUCCEEDED"
    assert "counters" not in cdm.status("all")


@pytest.mark.parametrize(
    ("behaviour", "types"),
    [
        ({"sub_jobs_listed_as": "BATCH_JOB"}, {"NORMAL_JOB": 0, "BATCH_JOB": 4}),
        ({"sub_jobs_listed_as": "nowhere"}, {"NORMAL_JOB": 0, "BATCH_JOB": 0}),
    ],
)
def test_where_sub_jobs_are_listed(
    sim: CdmSimulator, cdm: Cdm, clock: ManualClock, types: dict[str, int]
) -> None:
    """As a switch, another listing shows them, or none; their status can be read all the same."""
    whole(sim)
    cdm.start("all")
    clock.advance(100)
    assert {each: len(listed(cdm, each)) for each in types} == types
    assert cdm.status("all_stock")["status"] == "SUCCEEDED"


@pytest.mark.parametrize(
    ("behaviour", "left"),
    [({}, []), ({"sub_jobs_of_deleted": "kept"}, [f"all_{table}" for table in TABLES])],
)
def test_deleting_the_job(sim: CdmSimulator, cdm: Cdm, clock: ManualClock, left: list[str]) -> None:
    """Sub-jobs go along with their job, unless switched."""
    whole(sim)
    cdm.start("all")
    clock.advance(100)
    assert cdm.on_job("DELETE", "all").status_code == 200
    assert sim.jobs() == left


def test_a_job_made_by_a_call(
    sim: CdmSimulator, cdm: Cdm, clock: ManualClock, warehouse: Database
) -> None:
    """A created whole-database job moves its tables, as many at once as it says."""
    block = [{"name": "fromJobConfig.schemaName", "value": ""}]
    many = [{"name": "throttlingConfig.concurrentSubJobs", "value": "4"}]
    made = {
        "job_type": "BATCH_JOB",
        "name": "all",
        "from-connector-name": "generic-jdbc-connector",
        "from-link-name": "shop",
        "from-config-values": {"configs": [{"name": "fromJobConfig", "inputs": block}]},
        "to-connector-name": "generic-jdbc-connector",
        "to-link-name": "warehouse",
        "to-config-values": {"configs": [{"name": "toJobConfig", "inputs": []}]},
        "driver-config-values": {"configs": [{"name": "throttlingConfig", "inputs": many}]},
    }
    assert cdm.call("POST", "job", json={"jobs": [made]}).status_code == 200
    cdm.start("all")
    clock.advance(0.1)
    assert list(listed(cdm).values()) == ["RUNNING"] * 4
    clock.advance(100)
    assert [count(warehouse, table) for table in TABLES] == [2, 3, 0, 4]


def test_the_page(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """Sub-jobs do not crowd the page: their job shows how many are how far, its run shows each."""
    whole(sim)
    number = cdm.start("all")["submission-id"]
    clock.advance(100)
    text = requests.get(sim.url, timeout=5).text
    assert "tables: 1 FAILED, 3 SUCCEEDED" in text
    assert ">all_parts<" not in text
    path = f"/clusters/{sim.cluster_id}/jobs/all/runs/{number}"
    text = requests.get(sim.url + path, timeout=5).text
    assert all(f"<td>all_{table}</td>" in text for table in TABLES)
    assert "CHECK constraint failed" in text


def test_a_cluster_that_stops(
    sim: CdmSimulator, cdm: Cdm, clock: ManualClock, warehouse: Database
) -> None:
    """When its cluster is stopped at once, the run and its tables fail, and no more are started."""
    whole(sim)
    cdm.start("all")
    clock.advance(5)
    url = f"{cdm.project}/clusters/{sim.cluster_id}/action"
    cdm.call("POST", url, json={"stop": {"stopMode": "IMMEDIATELY", "delayTime": -1}})
    clock.advance(100)
    assert sim.runs("all")[0].status == "FAILED"
    assert [len(sim.runs(f"all_{table}")) for table in TABLES] == [1, 1, 0, 0]
    assert [count(warehouse, table) for table in TABLES] == [0] * 4
