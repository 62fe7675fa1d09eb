"""Rows really moved: from one database to another, through SQLAlchemy 1.4 or 2.

A run reads a snapshot when it starts running and closes the source at once, then writes everything
in one transaction at its end. A cursor held open in between would give the same rows, but on SQLite
it would also lock other writers out of the source for as long as the run lasts.
"""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

#: How long a locked SQLite file is waited for, in seconds.
BUSY_TIMEOUT = 10
_SCHEMA = "fromJobConfig.schemaName"


@dataclass(frozen=True)
class Rows:
    """What was read: names of the columns, and the rows as the database driver gave them."""

    columns: tuple[str, ...]
    values: list[tuple[Any, ...]]


@dataclass(frozen=True)
class Transfer:
    """Where from and where to, every placeholder filled in.

    :param source: URL of the database to read.
    :param target: URL of the database to write.
    :param parameters: inputs of the job by full name, such as ``fromJobConfig.tableName``.
    """

    source: str
    target: str
    parameters: Mapping[str, str]

    def check(self) -> None:
        """Connect to both databases.

        :raises sqlalchemy.exc.SQLAlchemyError: when one cannot be reached.
        """
        for url in (self.source, self.target):
            check(url)

    def tables(self) -> list[str]:
        """Return the names of the tables of the source.

        :raises sqlalchemy.exc.SQLAlchemyError: when they cannot be read.
        """
        with _engine(self.source) as engine:
            return sorted(sa.inspect(engine).get_table_names(self._get(_SCHEMA) or None))

    def read(self) -> Rows:
        """Return the rows of the source.

        :raises sqlalchemy.exc.SQLAlchemyError: when the query fails.
        """
        with _engine(self.source) as engine, engine.connect() as connection:
            result = connection.execute(self._query(engine))
            return Rows(tuple(result.keys()), [tuple(row) for row in result])

    def write(self, rows: Rows) -> None:
        """Insert rows in the target, all or none.

        :param rows: what was read.
        :raises sqlalchemy.exc.SQLAlchemyError: when the target refuses; nothing is inserted then.
        :raises ValueError: when the columns do not fit the target's.
        """
        with _engine(self.target) as engine:
            names = self._target_columns(engine, rows.columns)
            table = sa.table(
                self._get("toJobConfig.tableName"),
                *(sa.column(name) for name in names),
                schema=self._get("toJobConfig.schemaName") or None,
            )
            convert = _for_sqlite if engine.dialect.name == "sqlite" else _unchanged
            records = [
                dict(zip(names, map(convert, values), strict=True)) for values in rows.values
            ]
            with engine.begin() as connection:
                if self._clears_first():
                    connection.execute(table.delete())
                if records:
                    connection.execute(table.insert(), records)

    def _get(self, name: str) -> str:
        return self.parameters.get(name, "").strip()

    def _query(self, engine: sa.engine.Engine) -> Any:
        # Columns carry no type, so the driver's own values come out and go in: what SQLAlchemy
        # would make of a date typed as text is not the business of a copy.
        sql = self._get("fromJobConfig.sql")
        if sql and self._get("fromJobConfig.useSql").lower() != "false":
            return _text(sql)
        name = self._get("fromJobConfig.tableName")
        schema = self._get(_SCHEMA) or None
        names = _list(self._get("fromJobConfig.columnList")) or _columns(engine, name, schema)
        columns: list[Any] = [sa.column(each) for each in names]
        query: Any = sa.select(*columns).select_from(sa.table(name, *columns, schema=schema))
        where = self._get("fromJobConfig.whereClause")
        return query.where(_text(where)) if where else query

    def _target_columns(self, engine: sa.engine.Engine, read: Sequence[str]) -> list[str]:
        """Pair by position when the job lists target columns, otherwise by name (ASSUMED)."""
        if listed := _list(self._get("toJobConfig.columnList")):
            if len(listed) != len(read):
                raise ValueError(f"{len(read)} columns read, {len(listed)} listed for the target")
            return listed
        name = self._get("toJobConfig.tableName")
        schema = self._get("toJobConfig.schemaName") or None
        known = {each.lower(): each for each in _columns(engine, name, schema)}
        if missing := [each for each in read if each.lower() not in known]:
            raise ValueError(f"table {name!r} has no column {', '.join(missing)}")
        return [known[each.lower()] for each in read]

    def _clears_first(self) -> bool:
        # The newer input and its older twin; values as in samples, ASSUMED to be all of them.
        newer = self._get("toJobConfig.beforeImportType")
        older = self._get("toJobConfig.shouldClearTable")
        return newer == "shouldClearTable" or older.lower() == "true"


def absolute(url: str, base: str) -> str:
    """Return a database URL in which a relative SQLite path starts from ``base``.

    :param url: SQLAlchemy URL.
    :param base: a folder; ``""`` leaves the URL alone.
    :raises ValueError: when it is no URL; the text does not repeat it, for it may hold a password.
    """
    try:
        parsed = sa.engine.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise ValueError("a database URL is not one that SQLAlchemy can read") from None
    path = parsed.database or ""
    if not base or parsed.get_backend_name() != "sqlite" or path in {"", ":memory:"}:
        return url
    if path.startswith("file:"):
        return url
    full = parsed.set(database=str(Path(base, path)))
    return full.render_as_string(hide_password=False)


def check(url: str) -> None:
    """Connect to a database.

    :param url: SQLAlchemy URL.
    :raises sqlalchemy.exc.SQLAlchemyError: when it cannot be reached.
    """
    with _engine(url) as engine, engine.connect():
        pass


@contextmanager
def _engine(url: str) -> Iterator[sa.engine.Engine]:
    # No pool: work may happen in any thread, and nothing shall hold a file open between two steps.
    sqlite = sa.engine.make_url(url).get_backend_name() == "sqlite"
    options: dict[str, Any] = {"timeout": BUSY_TIMEOUT} if sqlite else {}
    # Without rows in error texts, which come to logs.
    engine = sa.create_engine(url, poolclass=NullPool, connect_args=options, hide_parameters=True)
    try:
        yield engine
    finally:
        engine.dispose()


def _columns(engine: sa.engine.Engine, table: str, schema: str | None) -> list[str]:
    names = [column["name"] for column in sa.inspect(engine).get_columns(table, schema)]
    if not names:  # SQLAlchemy 1.4 says so in this way
        raise ValueError(f"no such table: {table}")
    return names


def _text(sql: str) -> Any:
    return sa.text(sql.replace(":", r"\:"))  # a colon in typed SQL is no parameter of ours


def _list(value: str) -> list[str]:
    return [name.strip() for name in value.split("&") if name.strip()]


def _for_sqlite(value: Any) -> Any:
    """Spell what another database's driver returns in a way the sqlite3 module takes."""
    if isinstance(value, dt.datetime):
        return value.isoformat(" ")
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    return value


def _unchanged(value: Any) -> Any:
    return value
