from __future__ import annotations

import datetime as dt
import decimal
import re
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from airflow_provider_cdm.simulator.transfer.jdbc import Rows, Transfer
from tests.simulator.conftest import Database


@pytest.fixture
def config(shop: Database, warehouse: Database) -> dict[str, Any]:
    links = [{"name": "shop", "url": shop.url}, {"name": "warehouse", "url": warehouse.url}]
    return {"clusters": [{"name": "demo", "links": links}]}


def run_of(sim: CdmSimulator, clock: ManualClock, source: dict[str, Any], **target: Any) -> Any:
    """Run a job to its end."""
    to = {"link": "warehouse", "table": "orders", **target}
    sim.add_job("job", from_={"link": "shop", **source}, to=to)
    sim.start("job")
    clock.advance(10)
    return sim.runs("job")[-1]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT a.id, b.id FROM orders a JOIN orders b ON a.id = b.id + 1",
        "SELECT id, id AS ID FROM orders",
        "SELECT note, day, note FROM orders",
        "SELECT o.*, 7 AS id FROM orders o",
    ],
)
def test_columns_of_one_name(
    sim: CdmSimulator, clock: ManualClock, warehouse: Database, sql: str
) -> None:
    """A query with two columns of one name fails, for only one of them could be moved by name."""
    run = run_of(sim, clock, {"sql": sql})
    assert run.status == "FAILED"
    assert "table 'orders', column" in run.error_summary
    assert "more than one column of the source has this name" in run.error_summary
    assert warehouse.rows() == []


def test_columns_of_one_name_by_position(
    sim: CdmSimulator, clock: ManualClock, warehouse: Database
) -> None:
    """If the job lists the columns of the target, both columns of one name are moved."""
    sql = "SELECT a.id, b.id FROM orders a JOIN orders b ON a.id = b.id + 1 ORDER BY 1"
    run = run_of(sim, clock, {"sql": sql}, columns=["id", "amount"])
    assert (run.status, warehouse.rows()) == (
        "SUCCEEDED",
        [(2, None, 1, None), (3, None, 2, None)],
    )


@pytest.mark.parametrize("columns", [["id", "id"], ["id", "ID"]])
def test_target_column_listed_twice(
    sim: CdmSimulator, clock: ManualClock, warehouse: Database, columns: list[str]
) -> None:
    """A column of the target that is listed twice would keep one of the values, so it fails."""
    run = run_of(sim, clock, {"sql": "SELECT id, amount FROM orders"}, columns=columns)
    assert (run.status, warehouse.rows()) == ("FAILED", [])
    assert "the job lists it more than once" in run.error_summary


def test_source_column_listed_twice(
    sim: CdmSimulator, clock: ManualClock, warehouse: Database
) -> None:
    """A column of the source that is listed twice fails like one of a query."""
    run = run_of(sim, clock, {"table": "orders", "columns": ["id", "id"]})
    assert (run.status, warehouse.rows()) == ("FAILED", [])


def test_listed_column_that_does_not_exist(
    sim: CdmSimulator, clock: ManualClock, warehouse: Database
) -> None:
    """A listed column that the target lacks fails the run before anything is deleted."""
    warehouse.fill((9, "old", 0, None))
    target = {"columns": ["no_such"], "before_import": "shouldClearTable"}
    run = run_of(sim, clock, {"sql": "SELECT id FROM orders"}, **target)
    assert "no column no_such" in run.error_summary
    assert len(warehouse.rows()) == 1


class Digits(int):
    """A number that Python does not show, since it is too long."""

    def __repr__(self) -> str:
        return "many digits"


BIG = 2**65
#: Type of the target's column, value of the driver, stored value or what the error says.
STORED: list[tuple[str, Any, Any]] = [
    ("TEXT", dt.timedelta(days=1, hours=3, microseconds=5), "27:00:00.000005"),
    ("INTERVAL", dt.timedelta(seconds=-1), "-00:00:01"),
    ("TEXT", {"a": [1, None, "ä"]}, '{"a": [1, null, "ä"]}'),
    ("JSON", [1, [2, None]], "[1, [2, null]]"),
    ("TEXT", ["x", dt.date(2024, 2, 29)], '["x", "2024-02-29"]'),
    ("TEXT", {1: "a"}, ValueError),
    ("TEXT", [float("nan")], ValueError),
    ("TEXT", [b"x"], ValueError),
    ("TEXT", BIG, str(BIG)),
    ("", -BIG, str(-BIG)),
    ("INTEGER", BIG, ValueError),
    ("NUMERIC", BIG + 1, ValueError),
    ("REAL", 2**53 + 1, ValueError),
    ("TEXT", Digits(10**5000), "1" + "0" * 5000),
    ("NUMERIC", decimal.Decimal("0.1"), 0.1),
    ("NUMERIC", decimal.Decimal("9.50"), 9.5),
    ("TEXT", decimal.Decimal("9.50"), "9.50"),
    ("NUMERIC", decimal.Decimal("12345678901234567890.12345"), ValueError),
    ("TEXT", decimal.Decimal("NaN"), "NaN"),
    ("REAL", float("nan"), ValueError),
    ("TEXT", float("nan"), "nan"),
    ("REAL", float("inf"), float("inf")),
    ("TEXT", 0.1 + 0.2, "0.30000000000000004"),
    ("BOOLEAN", True, 1),
    ("TEXT", uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ("BLOB", memoryview(b"\0\xff"), b"\0\xff"),
    ("TEXT", b"", b""),
    ("TEXT", "", ""),
    ("TEXT", None, None),
    ("TEXT", "a\0b", "a\0b"),
    ("TEXT", "x" * 1_000_000, "x" * 1_000_000),
    ("TEXT", "\ud800", ValueError),
    ("TIMESTAMP", dt.datetime(2024, 3, 31, 1, 30, tzinfo=dt.UTC), "2024-03-31 01:30:00+00:00"),
    ("DATE", dt.date(2024, 2, 29), "2024-02-29"),
    ("TIME", dt.time(1, 2, 3, 4), "01:02:03.000004"),
    ("VARCHAR(10)", "007", "007"),
    ("STRING", "007", ValueError),
    ("UUID", "1e5", ValueError),
    ("JSON", "15", 15),
    ("JSON", "1.0", ValueError),
    ("DECIMAL(10,2)", "9.50", 9.5),
    ("BIGINT", "12345678901234567890123", ValueError),
    ("TEXT", {1, 2}, ValueError),
    ("TEXT", object(), ValueError),
]


@pytest.mark.parametrize(
    ("type_", "value", "expected"), STORED, ids=lambda item: re.sub(" at 0x.*", "", repr(item))[:30]
)
def test_value_is_kept_or_refused(tmp_path: Path, type_: str, value: Any, expected: Any) -> None:
    """SQLite stores each value of a driver without a change, or the error names the column.

    The values are those that drivers of PostgreSQL and others return, which tests cannot connect to
    everywhere.
    """
    path = tmp_path / "target.db"
    with closing(sqlite3.connect(path)) as target:
        target.execute(f'CREATE TABLE t ("the column" {type_}, n INTEGER)')
        parameters = {"toJobConfig.tableName": "t"}
        transfer = Transfer("sqlite://", f"sqlite:///{path}", parameters)
        rows = Rows(("n", "the column"), [(1, None), (2, value)])
        if expected is not ValueError:
            transfer.write(rows)
            assert target.execute("SELECT * FROM t").fetchall() == [(None, 1), (expected, 2)]
            return
        with pytest.raises(ValueError, match="table 't', column 'the column'") as caught:
            transfer.write(rows)
        assert target.execute("SELECT * FROM t").fetchall() == []
        if isinstance(value, (int, decimal.Decimal)):
            assert str(value) not in str(caught.value)


def test_run_names_table_and_column(
    sim: CdmSimulator, clock: ManualClock, shop: Database, warehouse: Database
) -> None:
    """A run whose value does not fit fails with table and column, and moves no row."""
    for database, type_ in ((shop, "TEXT"), (warehouse, "INTEGER")):
        database.run(f"CREATE TABLE t (id INTEGER, n {type_})")
    shop.run("INSERT INTO t VALUES (?, ?)", (1, "5"), (2, str(BIG + 1)))
    run = run_of(sim, clock, {"table": "t"}, table="t")
    assert run.status == "FAILED"
    assert run.error_summary.startswith("table 't', column 'n': ")
    assert warehouse.run("SELECT * FROM t") == []


def test_constraint_names_table(sim: CdmSimulator, clock: ManualClock, warehouse: Database) -> None:
    """A row that a constraint of the target refuses fails the run with table and constraint."""
    warehouse.run("CREATE TABLE strict (id INTEGER, note TEXT NOT NULL)")
    run = run_of(sim, clock, {"sql": "SELECT id, note FROM orders"}, table="strict")
    assert run.error_summary.startswith("table 'strict': ")
    assert "NOT NULL constraint failed: strict.note" in run.error_summary


def test_text_that_is_not_text(
    sim: CdmSimulator, clock: ManualClock, shop: Database, warehouse: Database
) -> None:
    """Text that is not UTF-8 fails the run with table and column, without the text."""
    shop.run("INSERT INTO orders VALUES (9, NULL, NULL, CAST(x'616263ff' AS TEXT))")
    run = run_of(sim, clock, {"table": "orders"})
    assert run.error_summary == "table 'orders', column 'note': a text is not valid UTF-8"
    assert "abc" not in run.error_details
    assert warehouse.rows() == []
