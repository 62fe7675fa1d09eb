from __future__ import annotations

from typing import Any

import pytest
import requests

from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.simulator.conftest import Database
from tests.support.raw_client import Cdm

TABLES = ("customers", "orders", "parts", "stock")
WHOLE_DATABASE_JOB = {
    "type": "BATCH_JOB",
    "from_": {"link": "shop", "table": "*"},
    "to": {"link": "warehouse", "table": "*"},
    "seconds": {"booting": 1, "running": 10},
    "tables_at_once": 2,
}


@pytest.fixture
def shop(shop: Database) -> Database:
    """Three orders, and three more tables with two, three and four rows."""
    for count, name in enumerate(("customers", "parts", "stock"), start=2):
        shop.run(f"CREATE TABLE {name} (id INTEGER)")
        shop.run(f"INSERT INTO {name} VALUES (?)", *((n,) for n in range(count)))
    return shop


@pytest.fixture
def warehouse(warehouse: Database) -> Database:
    """Tables with the same names; part number 1 is rejected."""
    warehouse.run("CREATE TABLE customers (id INTEGER)")
    warehouse.run("CREATE TABLE parts (id INTEGER CHECK (id <> 1))")
    warehouse.run("CREATE TABLE stock (id INTEGER)")
    return warehouse


@pytest.fixture
def behaviour() -> dict[str, Any]:
    """Switches of the configuration; override it in a test."""
    return {}


@pytest.fixture
def config(shop: Database, warehouse: Database, behaviour: dict[str, Any]) -> dict[str, Any]:
    links = [{"name": "shop", "url": shop.url}, {"name": "warehouse", "url": warehouse.url}]
    return {"clusters": [{"name": "demo", "links": links}], "behaviour": behaviour}


def count(database: Database, table: str) -> int:
    [(number,)] = database.run(f"SELECT count(*) FROM {table}")
    return int(number)


def listed(cdm: Cdm, type_: str = "NORMAL_JOB", part: str = "all_") -> dict[str, str]:
    """Return the status of jobs by name from the listing."""
    response = cdm.on_job("GET", "all", params={"jobType": type_, "filter": part}).json()
    return {job["name"]: job["status"] for job in response["jobs"]}


def add_whole_database_job(sim: CdmSimulator, **changes: Any) -> None:
    sim.add_job("all", **{**WHOLE_DATABASE_JOB, **changes})


def accept_all_parts(warehouse: Database) -> None:
    warehouse.run("DROP TABLE parts")
    warehouse.run("CREATE TABLE parts (id INTEGER)")


def test_every_table_is_moved_by_a_sub_job(
    sim: CdmSimulator, cdm: Cdm, clock: ManualClock, shop: Database, warehouse: Database
) -> None:
    """The rows of each table arrive, and its sub-job counts them; the run has the sums."""
    accept_all_parts(warehouse)
    add_whole_database_job(sim)
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


def test_limited_number_of_active_sub_jobs(
    sim: CdmSimulator, cdm: Cdm, clock: ManualClock, warehouse: Database
) -> None:
    """Sub-jobs are created when the run enters RUNNING; a limited number is active at a time."""
    accept_all_parts(warehouse)
    add_whole_database_job(sim)
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
def test_partial_failure(
    sim: CdmSimulator, cdm: Cdm, clock: ManualClock, warehouse: Database, status: str
) -> None:
    """If the target rejects a table, only its sub-job fails; the status of the run is a switch."""
    add_whole_database_job(sim)
    cdm.start("all")
    clock.advance(100)
    failed = cdm.status("all_parts")
    assert (failed["status"], count(warehouse, "parts")) == ("FAILED", 0)
    assert "CHECK constraint failed" in failed["error-summary"]
    assert [count(warehouse, table) for table in ("customers", "orders", "stock")] == [2, 3, 4]
    assert cdm.status("all")["status"] == status


def test_all_sub_jobs_fail(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """A run without a successful sub-job fails."""
    sim.add_job(
        "all", type="BATCH_JOB", tables=[{"name": n, "outcome": "FAILURE_ON_SUBMIT"} for n in "ab"]
    )
    cdm.start("all")
    clock.advance(100)
    assert cdm.status("all")["status"] == "FAILED"


def test_many_immediate_failures(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """A thousand sub-jobs that fail on submit do not exceed the recursion limit."""
    bad = [{"name": f"t{n}", "outcome": "FAILURE_ON_SUBMIT"} for n in range(1000)]
    sim.add_job("all", type="BATCH_JOB", tables=[*bad, "good"])
    cdm.start("all")
    clock.advance(100)
    assert cdm.status("all")["status"] == "SUCCEEDED"
    assert cdm.status("all_good")["status"] == "SUCCEEDED"


def test_stop(sim: CdmSimulator, cdm: Cdm, clock: ManualClock, warehouse: Database) -> None:
    """A stop ends active sub-jobs as STOPPED without inserting rows, and starts no more."""
    add_whole_database_job(sim)
    cdm.start("all")
    clock.advance(5)
    cdm.on_job("PUT", "all", "/stop")
    clock.advance(100)
    assert cdm.status("all")["status"] == "STOPPED"
    assert list(listed(cdm).values()) == ["STOPPED", "STOPPED", "NEW", "NEW"]
    assert [count(warehouse, table) for table in TABLES] == [0] * 4


@pytest.mark.parametrize(
    ("behaviour", "status_before"),
    [({}, "SUCCEEDED"), ({"sub_job_history": "dropped"}, "NEVER_EXECUTED")],
    ids=["by default", "switched"],
)
def test_each_run_creates_sub_jobs_again(
    sim: CdmSimulator, cdm: Cdm, clock: ManualClock, warehouse: Database, status_before: str
) -> None:
    """Each run creates its sub-jobs again; until they start, they may show the previous run."""
    accept_all_parts(warehouse)
    add_whole_database_job(sim)
    cdm.start("all")
    clock.advance(100)
    [before] = cdm.on_job("GET", "all_stock").json()["jobs"]
    cdm.start("all")
    clock.advance(5)
    [after] = cdm.on_job("GET", "all_stock").json()["jobs"]
    assert after["creation-date"] > before["creation-date"]
    assert cdm.status("all_stock")["status"] == status_before
    clock.advance(100)
    assert cdm.status("all_stock")["status"] == "SUCCEEDED"
    assert count(warehouse, "stock") == 8


def test_table_patterns(
    sim: CdmSimulator, cdm: Cdm, clock: ManualClock, shop: Database, warehouse: Database
) -> None:
    """Patterns select tables, a missing table fails, and the condition applies to all tables."""
    condition = {"link": "shop", "table": "s*&orders&missing", "where": "id < 2"}
    add_whole_database_job(sim, from_=condition)
    cdm.start("all")
    clock.advance(100)
    assert listed(cdm) == {
        "all_orders": "SUCCEEDED",
        "all_stock": "SUCCEEDED",
        "all_missing": "FAILED",
    }
    assert (count(warehouse, "orders"), count(warehouse, "stock")) == (1, 2)


def test_sub_job_name_in_use(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """A sub-job does not replace an ordinary job with the same name."""
    sim.add_job("all_stock")
    add_whole_database_job(sim)
    cdm.start("all")
    clock.advance(100)
    run = cdm.status("all")
    assert (run["status"], "all_stock exists" in run["error-summary"]) == ("FAILED", True)
    assert cdm.status("all_stock")["status"] == "NEVER_EXECUTED"


@pytest.mark.parametrize("behaviour", [{"whole_counters": "absent"}])
def test_whole_counters_absent(
    sim: CdmSimulator, cdm: Cdm, clock: ManualClock, warehouse: Database
) -> None:
    """With the switch ``whole_counters: absent``, a whole-database run has no counters."""
    add_whole_database_job(sim)
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
def test_sub_jobs_listed_as(
    sim: CdmSimulator, cdm: Cdm, clock: ManualClock, types: dict[str, int]
) -> None:
    """A switch selects the listing that shows sub-jobs, or none; status calls always work."""
    add_whole_database_job(sim)
    cdm.start("all")
    clock.advance(100)
    assert {type_: len(listed(cdm, type_)) for type_ in types} == types
    assert cdm.status("all_stock")["status"] == "SUCCEEDED"


@pytest.mark.parametrize(
    ("behaviour", "remaining"),
    [({}, []), ({"sub_jobs_of_deleted": "kept"}, [f"all_{table}" for table in TABLES])],
)
def test_delete(sim: CdmSimulator, cdm: Cdm, clock: ManualClock, remaining: list[str]) -> None:
    """Sub-jobs are deleted with their job, unless a switch keeps them."""
    add_whole_database_job(sim)
    cdm.start("all")
    clock.advance(100)
    assert cdm.on_job("DELETE", "all").status_code == 200
    assert sim.jobs() == remaining


def test_job_created_over_http(
    sim: CdmSimulator, cdm: Cdm, clock: ManualClock, warehouse: Database
) -> None:
    """A job created over HTTP moves its tables, with the concurrency of its configuration."""
    block = [{"name": "fromJobConfig.schemaName", "value": ""}]
    limit = [{"name": "throttlingConfig.concurrentSubJobs", "value": "4"}]
    job = {
        "job_type": "BATCH_JOB",
        "name": "all",
        "from-connector-name": "generic-jdbc-connector",
        "from-link-name": "shop",
        "from-config-values": {"configs": [{"name": "fromJobConfig", "inputs": block}]},
        "to-connector-name": "generic-jdbc-connector",
        "to-link-name": "warehouse",
        "to-config-values": {"configs": [{"name": "toJobConfig", "inputs": []}]},
        "driver-config-values": {"configs": [{"name": "throttlingConfig", "inputs": limit}]},
    }
    assert cdm.call("POST", "job", json={"jobs": [job]}).status_code == 200
    cdm.start("all")
    clock.advance(0.1)
    assert list(listed(cdm).values()) == ["RUNNING"] * 4
    clock.advance(100)
    assert [count(warehouse, table) for table in TABLES] == [2, 3, 0, 4]


def test_page(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """The page summarizes the sub-jobs of a job, and the page of the run lists each of them."""
    add_whole_database_job(sim)
    number = cdm.start("all")["submission-id"]
    clock.advance(100)
    text = requests.get(sim.url, timeout=5).text
    assert "tables: 1 FAILED, 3 SUCCEEDED" in text
    assert ">all_parts<" not in text
    path = f"/clusters/{sim.cluster_id}/jobs/all/runs/{number}"
    text = requests.get(sim.url + path, timeout=5).text
    assert all(f"<td>all_{table}</td>" in text for table in TABLES)
    assert "CHECK constraint failed" in text


def test_cluster_stop(sim: CdmSimulator, cdm: Cdm, clock: ManualClock, warehouse: Database) -> None:
    """An immediate stop of the cluster fails the run and its sub-jobs, and starts no more."""
    add_whole_database_job(sim)
    cdm.start("all")
    clock.advance(5)
    url = f"{cdm.project}/clusters/{sim.cluster_id}/action"
    cdm.call("POST", url, json={"stop": {"stopMode": "IMMEDIATELY", "delayTime": -1}})
    clock.advance(100)
    assert sim.runs("all")[0].status == "FAILED"
    assert [len(sim.runs(f"all_{table}")) for table in TABLES] == [1, 1, 0, 0]
    assert [count(warehouse, table) for table in TABLES] == [0] * 4
