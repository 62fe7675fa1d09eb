"""Transfers between PostgreSQL and SQLite; ``nox -s deployment`` has a server and a driver."""

from __future__ import annotations

import importlib.util
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.deployment.servers import Postgres, find_program

#: SQLAlchemy 1.4 knows the last two not at all, or in another version.
NAMES = ["psycopg2"] if sa.__version__.startswith("1.") else ["psycopg2", "psycopg", "pg8000"]
DRIVERS = [name for name in NAMES if importlib.util.find_spec(name) is not None]
pytestmark = pytest.mark.skipif(
    "psycopg2" not in DRIVERS or find_program("initdb") is None,
    reason="needs a PostgreSQL server and psycopg2",
)

#: Values by type, as PostgreSQL reads them.
VALUES: dict[str, list[str]] = {
    "interval": ["1 mon 2 days 03:04:05.678901", "-1 day -00:00:01", "100 years"],
    "json": ['{"a": 1.00000000000000000001}', "null", '"x"', "12345678901234567890.5"],
    "jsonb": ["null", '{"a": [1, "ä"]}'],
    "integer[]": ["{1,2,NULL}", "{{1,2},{3,4}}", "{}"],
    "text[]": ['{a,NULL,"NULL","x,y"}'],
    "uuid[]": ["{550e8400-e29b-41d4-a716-446655440000}"],
    "numeric": ["36893488147419103232", "12345678901234567890.12345", "NaN", "9.50"],
    "bigint": ["9223372036854775807", "-9223372036854775808"],
    "uuid": ["550e8400-e29b-41d4-a716-446655440000"],
    "bytea": [r"\x00ff", r"\x"],
    "boolean": ["true", "false"],
    "double precision": ["NaN", "-Infinity", "0.1", "1e308", "0.30000000000000004"],
    "real": ["0.1"],
    "date": ["2024-02-29", "infinity", "0044-03-15 BC", "12024-01-01"],
    "timestamp": ["2024-02-29 10:11:12.5", "-infinity"],
    "timestamptz": ["2024-03-31 01:30:00.5+02", "infinity"],
    "time": ["24:00:00", "10:11:12.5"],
    "timetz": ["10:11:12+05:30"],
    "int4range": ["[1,5)"],
    "inet": ["10.0.0.1/8"],
    "point": ["(1,2)"],
    "money": ["$1.50"],
    "bit(3)": ["001"],
    "xml": ["<a/>"],
    "mood": ["so so"],
    "text": ["", "a\nb", "%s :x", "x" * 100_000],
    "character(5)": ["ab"],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    folder = tmp_path_factory.mktemp("postgres")
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)
    server = Postgres(folder)
    server.start()
    try:
        with sa.create_engine(server.url).begin() as connection:
            connection.execute(sa.text("CREATE TYPE mood AS ENUM ('so so')"))
        yield server
    finally:
        server.stop()


def moved(url: str, sqlite: Path, sql: str | None = None) -> list[Any]:
    """Move table ``one`` to SQLite, and from there to table ``two``; return both runs."""
    links = [{"name": "pg", "url": url}, {"name": "lite", "url": f"sqlite:///{sqlite}"}]
    clock = ManualClock()
    with CdmSimulator({"clusters": [{"name": "demo", "links": links}]}, clock=clock) as sim:
        source: dict[str, Any] = {"sql": sql} if sql else {"table": "one"}
        sim.add_job("there", from_={"link": "pg", **source}, to={"link": "lite", "table": "one"})
        sim.add_job(
            "back", from_={"link": "lite", "table": "one"}, to={"link": "pg", "table": "two"}
        )
        for name in ("there", "back"):
            sim.start(name)
            clock.advance(5)
        return [sim.runs(name)[0] for name in ("there", "back")]


@pytest.mark.parametrize("query", [None, "SELECT * FROM one ORDER BY n -- all of them\n;"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_values_return_unchanged(
    server: Postgres, tmp_path: Path, driver: str, query: str | None
) -> None:
    """All values of all types are the same after they were in columns of SQLite for text."""
    engine = sa.create_engine(server.url)
    names = {f"x{number}": type_ for number, type_ in enumerate(VALUES)}
    columns = ", ".join(f"{name} {type_}" for name, type_ in names.items())
    with engine.begin() as connection:
        for table in ("one", "two"):
            connection.execute(sa.text(f"DROP TABLE IF EXISTS {table}"))
            connection.execute(sa.text(f"CREATE TABLE {table} (n integer, {columns})"))
        for n in range(max(map(len, VALUES.values())) + 1):
            row = {
                name: VALUES[type_][n] if n < len(VALUES[type_]) else None
                for name, type_ in names.items()
            }
            places = ", ".join(f"CAST(:{name} AS {type_})" for name, type_ in names.items())
            connection.execute(sa.text(f"INSERT INTO one VALUES ({n}, {places})"), row)
    path = tmp_path / "values.db"
    # SQLite has no type for binary values and truth values in text.
    lite = {"bytea": "BLOB", "boolean": "BOOLEAN", "bigint": "INTEGER"}
    with closing(sqlite3.connect(path)) as database:
        texts = ", ".join(f"{name} {lite.get(type_, 'TEXT')}" for name, type_ in names.items())
        database.execute(f"CREATE TABLE one (n INTEGER, {texts})")
    url = server.url.replace("psycopg2", driver)
    there, back = moved(url, path, query)
    assert (there.error_summary, back.error_summary) == (None, None)
    shown = ", ".join(f"CAST({name} AS text)" for name in names)
    with engine.connect() as connection:
        before, after = (
            connection.execute(sa.text(f"SELECT {shown} FROM {table} ORDER BY n")).fetchall()
            for table in ("one", "two")
        )
    assert before == after
    engine.dispose()


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        ("integer", "1.5"),
        ("integer", "3000000000"),
        ("numeric(10, 2)", "9.999"),
        ("varchar(3)", "'abcd'"),
        ("date", "'no date'"),
        ("text", "CAST(x'610062' AS TEXT)"),
        ("uuid", "x'00'"),
    ],
)
@pytest.mark.parametrize("driver", DRIVERS)
def test_refused_values_name_the_column(
    server: Postgres, tmp_path: Path, driver: str, type_: str, value: str
) -> None:
    """What PostgreSQL would round or refuses fails the run with table and column."""
    engine = sa.create_engine(server.url)
    with engine.begin() as connection:
        for table in ("one", "two"):
            connection.execute(sa.text(f"DROP TABLE IF EXISTS {table}"))
        connection.execute(sa.text("CREATE TABLE one (n integer)"))
        connection.execute(sa.text(f'CREATE TABLE two (n integer, "the column" {type_})'))
    path = tmp_path / "values.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute('CREATE TABLE one (n INTEGER, "the column")')
        database.execute(f"INSERT INTO one VALUES (1, NULL), (2, {value})")
    _, run = moved(server.url.replace("psycopg2", driver), path)
    assert run.status == "FAILED"
    assert run.error_summary.startswith("table 'two', column 'the column': ")
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT * FROM two")).fetchall() == []
    engine.dispose()
