from __future__ import annotations

import sqlite3
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.simulator.conftest import Database
from tests.support.raw_client import Cdm

DAY = "day = '${dt}'"


@pytest.fixture
def config(shop: Database, warehouse: Database) -> dict[str, Any]:
    links = [{"name": "shop", "url": shop.url}, {"name": "warehouse", "url": warehouse.url}]
    return {"clusters": [{"name": "demo", "links": links}]}


def orders(**source: Any) -> dict[str, Any]:
    source = source if "sql" in source else {"table": "orders", **source}
    return {
        "from_": {"link": "shop", **source},
        "to": {"link": "warehouse", "table": "orders"},
        "seconds": {"booting": 1, "running": 10},
    }


def test_moved_rows_and_counters(
    sim: CdmSimulator,
    cdm: Cdm,
    clock: ManualClock,
    shop: Database,
    warehouse: Database,
) -> None:
    """The rows of the condition are inserted and counted; files and bytes do not apply."""
    sim.add_job("daily", **orders(where=DAY))
    cdm.start("daily", {"dt": "2025-01-01"})
    clock.advance(11)
    run = cdm.status("daily")
    [counters] = run["counters"].values()
    assert warehouse.rows() == shop.rows()[:2]
    assert (counters["ROWS_READ"], counters["ROWS_WRITTEN"], counters["BYTES_READ"]) == (2, 2, -1)


def test_rows_of_a_running_job(
    sim: CdmSimulator, clock: ManualClock, shop: Database, warehouse: Database
) -> None:
    """While a run is active, its number of rows increases, and the target has no rows yet."""
    shop.fill(*((n, "2025-02-01", n, None) for n in range(10)))
    sim.add_job("all", **orders(where="day > '2025-01-31'"))
    sim.start("all")
    clock.advance(1 + 5)
    [run] = sim.runs("all")
    assert (run.status, run.rows_read, run.progress) == ("RUNNING", 5, 0.5)
    assert warehouse.rows() == []


def test_two_runs_insert_twice(sim: CdmSimulator, clock: ManualClock, warehouse: Database) -> None:
    """Two runs insert the rows twice, so that tests notice an additional start."""
    sim.add_job("all", **orders())
    for _ in range(2):
        sim.start("all")
        clock.advance(11)
    assert len(warehouse.rows()) == 6


@pytest.mark.parametrize("end", ["job", "cluster"])
def test_stopped_run_inserts_nothing(
    sim: CdmSimulator, cdm: Cdm, clock: ManualClock, warehouse: Database, end: str
) -> None:
    """A run that is stopped, or whose cluster is stopped, inserts no rows."""
    sim.add_job("all", **orders())
    cdm.start("all")
    clock.advance(6)
    if end == "job":
        cdm.on_job("PUT", "all", "/stop")
    else:
        url = f"{cdm.project}/clusters/{sim.cluster_id}/action"
        cdm.call("POST", url, json={"stop": {"stopMode": "IMMEDIATELY", "delayTime": -1}})
    clock.advance(100)
    assert sim.runs("all")[0].status == ("STOPPED" if end == "job" else "FAILED")
    assert warehouse.rows() == []


@pytest.mark.parametrize(
    ("source", "summary"),
    [
        ({"sql": "SELECT no_such FROM orders"}, "no such column: no_such"),
        ({"table": "missing"}, "missing"),
        ({"sql": "SELECT id, 1 AS extra FROM orders"}, "no column extra"),
        ({"where": DAY}, "variable 'dt' is not defined"),
        ({"where": "day = '${dateformat(QQ)}'"}, "letter 'Q' is not supported"),
    ],
)
def test_errors_of_databases_and_placeholders(
    sim: CdmSimulator,
    cdm: Cdm,
    clock: ManualClock,
    warehouse: Database,
    source: dict[str, Any],
    summary: str,
) -> None:
    """Errors of databases and placeholders fail the run, with a text and a stack trace."""
    sim.add_job("bad", **orders(**source))
    assert cdm.start("bad")["status"] == "BOOTING"
    clock.advance(11)
    run = cdm.status("bad")
    assert run["status"] == "FAILED"
    assert summary in run["error-summary"]
    assert "\n\tat " in run["error-details"]
    assert warehouse.rows() == []


def test_insert_is_all_or_nothing(
    sim: CdmSimulator, clock: ManualClock, warehouse: Database
) -> None:
    """If the target rejects a row, no rows are inserted."""
    warehouse.run("CREATE UNIQUE INDEX one_per_day ON orders (day)")
    sim.add_job("all", **orders())
    sim.start("all")
    clock.advance(11)
    assert sim.runs("all")[0].status == "FAILED"
    assert warehouse.rows() == []


def test_reset_ends_runs(
    sim: CdmSimulator,
    clock: ManualClock,
    shop: Database,
    warehouse: Database,
) -> None:
    """A run that was active when the simulator was reset inserts no rows."""
    sim.add_job("all", **orders())
    sim.start("all")
    clock.advance(5)
    sim.reset()
    clock.advance(100)
    assert warehouse.rows() == []


def test_unreachable_database_fails_on_submit(sim: CdmSimulator, cdm: Cdm, tmp_path: Path) -> None:
    """If a database cannot be reached, the status of the run is FAILURE_ON_SUBMIT."""
    sim.add_link("shop", url=f"sqlite:///{tmp_path}/no/such/folder.db")
    sim.add_job("all", **orders())
    run = cdm.start("all")
    assert run["status"] == "FAILURE_ON_SUBMIT"
    assert "unable to open" in run["error-summary"]


def test_query_columns_and_clearing(
    sim: CdmSimulator, clock: ManualClock, warehouse: Database
) -> None:
    """The columns of a query are inserted into the listed columns of a table cleared before."""
    warehouse.fill((99, "old", 0, None))
    job = orders(sql="SELECT 'x :y' AS b, id AS a FROM orders WHERE note LIKE '%:%'")
    job["to"] |= {"columns": ["note", "id"], "before_import": "shouldClearTable"}
    sim.add_job("query", **job)
    sim.start("query")
    clock.advance(11)
    assert sim.runs("query")[0].error_summary is None
    assert warehouse.rows() == [(3, None, None, "x :y")]


def test_scripted_statuses_move_rows_at_success(
    sim: CdmSimulator, cdm: Cdm, warehouse: Database
) -> None:
    """With scripted statuses, the rows are moved when a read takes SUCCEEDED."""
    sim.add_job("all", **orders(), statuses=["RUNNING", "SUCCEEDED"])
    cdm.start("all")
    cdm.status("all")
    assert warehouse.rows() == []
    assert cdm.status("all")["status"] == "SUCCEEDED"
    assert len(warehouse.rows()) == 3


def test_other_connectors_move_nothing(
    sim: CdmSimulator, clock: ManualClock, warehouse: Database
) -> None:
    """Only jobs from and to the generic JDBC connector move rows."""
    wire = {"from-connector-name": "hive-connector", "from-link-name": "shop"}
    wire |= {"to-connector-name": "generic-jdbc-connector", "to-link-name": "warehouse"}
    sim.add_job("other", wire=wire)
    sim.start("other")
    clock.advance(11)
    assert (sim.runs("other")[0].status, warehouse.rows()) == ("SUCCEEDED", [])


def test_scripted_failure_moves_nothing(
    sim: CdmSimulator, clock: ManualClock, warehouse: Database
) -> None:
    """A job between databases that is scripted to fail does not change the target."""
    sim.add_job("all", **orders(), outcome="FAILED")
    sim.start("all")
    clock.advance(11)
    assert (sim.runs("all")[0].status, warehouse.rows()) == ("FAILED", [])


@pytest.mark.parametrize("config", [{"behaviour": {"undefined_variable": "literal"}}])
def test_undefined_variable_is_kept(
    sim: CdmSimulator, clock: ManualClock, shop: Database, warehouse: Database
) -> None:
    """With a switch, an undefined variable is kept in the text, and no row matches it."""
    sim.add_link("shop", url=shop.url)
    sim.add_link("warehouse", url=warehouse.url)
    sim.add_job("daily", **orders(where=DAY))
    sim.start("daily")
    clock.advance(11)
    assert (sim.runs("daily")[0].status, warehouse.rows()) == ("SUCCEEDED", [])


def test_macros_use_the_start_time(
    sim: CdmSimulator, clock: ManualClock, shop: Database, warehouse: Database
) -> None:
    """Date macros are evaluated when the run starts, not when it ends."""
    sim.add_job("daily", **orders(where="day = '${dateformat(yyyy-MM-dd, -1, DAY)}'"))
    sim.start("daily")  # on 2025-01-02
    clock.advance(86_400)
    assert warehouse.rows() == shop.rows()[:2]


def test_variables_of_the_cluster(shop: Database, warehouse: Database) -> None:
    """Variables of the cluster apply unless the start call sets them."""
    clock = ManualClock()
    links = [{"name": "shop", "url": shop.url}, {"name": "warehouse", "url": warehouse.url}]
    cluster = {"name": "demo", "links": links, "variables": {"dt": "2025-01-02"}}
    with CdmSimulator({"clusters": [cluster]}, clock=clock) as sim:
        sim.add_job("daily", **orders(where=DAY))
        for variables in ({}, {"dt": "2025-01-01"}):
            sim.start("daily", variables=variables)
            clock.advance(11)
    assert [row[0] for row in warehouse.rows()] == [1, 2, 3]


def test_two_clusters_write_to_one_file(shop: Database, warehouse: Database) -> None:
    """Simultaneous runs of two clusters both insert their rows into one SQLite file."""
    links = [{"name": "shop", "url": shop.url}, {"name": "warehouse", "url": warehouse.url}]
    clusters = [{"name": name, "links": links} for name in ("one", "two")]
    with CdmSimulator({"clusters": clusters}) as sim:
        for cluster in sim.config.clusters:
            job = {**orders(), "seconds": {"booting": 0.01, "running": 0.05}}
            sim.add_job("all", cluster.id, **job)
        started = [
            threading.Thread(target=Cdm(sim, cluster.id).start, args=("all",))
            for cluster in sim.config.clusters
        ]
        with closing(sqlite3.connect(warehouse.path)) as other:
            other.execute(
                "INSERT INTO orders (id) VALUES (0)"
            )  # another connection locks the file meanwhile
            for thread in started:
                thread.start()
            time.sleep(0.3)
            other.commit()
        for thread in started:
            thread.join()
        ids = [cluster.id for cluster in sim.config.clusters]
        while any(sim.runs("all", cluster_id)[0].active for cluster_id in ids):
            time.sleep(0.01)
        assert {sim.runs("all", cluster_id)[0].status for cluster_id in ids} == {"SUCCEEDED"}
    assert len(warehouse.rows()) == 7


def test_source_is_not_locked(
    sim: CdmSimulator, clock: ManualClock, shop: Database, warehouse: Database
) -> None:
    """The source can be changed during a run, which moves the rows of its start."""
    sim.add_job("all", **orders())
    sim.start("all")
    clock.advance(5)
    shop.fill((4, "2025-01-03", 1, None))
    clock.advance(10)
    assert warehouse.rows() == shop.rows()[:3]


def test_special_characters_in_names(
    sim: CdmSimulator, clock: ManualClock, shop: Database, warehouse: Database
) -> None:
    """Names of tables and columns can contain any characters that databases allow."""
    for database in (shop, warehouse):
        database.run(
            'CREATE TABLE "select: 每日" ("a b" TEXT, "x:y" TEXT, "100%" TEXT, "(d)" TEXT)'
        )
    shop.run('INSERT INTO "select: 每日" VALUES (?, ?, ?, ?)', ("1", "2", "3", "4"))
    source = {"link": "shop", "table": "select: 每日", "where": "\"x:y\" = '2'"}
    sim.add_job("odd", from_=source, to={"link": "warehouse", "table": "select: 每日"})
    sim.start("odd")
    clock.advance(1)
    assert sim.runs("odd")[0].error_details is None
    assert warehouse.run('SELECT * FROM "select: 每日"') == [("1", "2", "3", "4")]


VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
    st.binary(max_size=8),
)


@settings(max_examples=25)
@given(
    rows=st.lists(st.tuples(st.integers(0, 9), VALUES, VALUES, VALUES), max_size=12),
    least=st.integers(0, 9),
)
def test_target_equals_source(rows: list[tuple[Any, ...]], least: int) -> None:
    """Rows that meet the condition arrive unchanged, whatever their values are."""
    clock = ManualClock()
    with tempfile.TemporaryDirectory() as folder:
        source, target = (Database(Path(folder, f"{name}.db")) for name in ("a", "b"))
        if rows:
            source.fill(*rows)
        links = [{"name": "shop", "url": source.url}, {"name": "warehouse", "url": target.url}]
        with CdmSimulator({"clusters": [{"name": "demo", "links": links}]}, clock=clock) as sim:
            sim.add_job("some", **orders(where="id >= ${least}"))
            sim.start("some", variables={"least": str(least)})
            clock.advance(11)
            [run] = sim.runs("some")
        query = f"SELECT *, typeof(day), typeof(amount) FROM orders WHERE id >= {least}"
        assert (run.status, target.run(query)) == ("SUCCEEDED", source.run(query))
