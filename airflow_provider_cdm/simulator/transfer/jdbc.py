"""Moves rows from one database to another, through SQLAlchemy 1.4 or 2.

A run reads all rows when it enters RUNNING and closes the source at once; at its end it writes them
in one transaction. An open cursor would return the same rows, but on SQLite it would also lock
other writers out of the source for the duration of the run.
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

#: Maximum time to wait for a locked SQLite file, in seconds.
BUSY_TIMEOUT = 10
_SCHEMA = "fromJobConfig.schemaName"


@dataclass(frozen=True)
class Rows:
    """Rows that were read: the names of the columns, and the values as the driver returns them."""

    columns: tuple[str, ...]
    values: list[tuple[Any, ...]]


@dataclass(frozen=True)
class Transfer:
    """The databases and parameters of one run.

    :param source: URL of the database to read from.
    :param target: URL of the database to write to.
    :param parameters: inputs of the job by full name, such as ``fromJobConfig.tableName``; all
        placeholders have been replaced.
    """

    source: str
    target: str
    parameters: Mapping[str, str]

    def check(self) -> None:
        """Connect to both databases.

        :raises sqlalchemy.exc.SQLAlchemyError: if one of them cannot be reached.
        """
        for url in (self.source, self.target):
            check(url)

    def tables(self) -> list[str]:
        """Return the names of the tables in the source.

        :raises sqlalchemy.exc.SQLAlchemyError: if they cannot be read.
        """
        with _engine(self.source) as engine:
            return sorted(sa.inspect(engine).get_table_names(self._get(_SCHEMA) or None))

    def read(self) -> Rows:
        """Return the rows of the source.

        :raises sqlalchemy.exc.SQLAlchemyError: if the query fails.
        """
        with _engine(self.source) as engine, engine.connect() as connection:
            result = connection.execute(self._query(engine))
            return Rows(tuple(result.keys()), [tuple(row) for row in result])

    def write(self, rows: Rows) -> None:
        """Insert rows into the target in one transaction.

        :param rows: rows that were read from the source.
        :raises sqlalchemy.exc.SQLAlchemyError: if the target rejects a row; none is inserted then.
        :raises ValueError: if the columns do not match those of the target.
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
        # The columns have no type, so that the driver's values are copied unchanged: SQLAlchemy
        # would convert them, for example a date that is stored as text.
        sql = self._get("fromJobConfig.sql")
        if sql and self._get("fromJobConfig.useSql").lower() != "false":
            return _text(sql)
        name = self._get("fromJobConfig.tableName")
        schema = self._get(_SCHEMA) or None
        names = _list(self._get("fromJobConfig.columnList")) or _columns(engine, name, schema)
        columns: list[Any] = [sa.column(column) for column in names]
        query: Any = sa.select(*columns).select_from(sa.table(name, *columns, schema=schema))
        where = self._get("fromJobConfig.whereClause")
        return query.where(_text(where)) if where else query

    def _target_columns(self, engine: sa.engine.Engine, read: Sequence[str]) -> list[str]:
        """Match columns by position if the job lists those of the target, or by name (ASSUMED)."""
        if listed := _list(self._get("toJobConfig.columnList")):
            if len(listed) != len(read):
                raise ValueError(
                    f"{len(read)} columns were read, but {len(listed)} are listed for the target"
                )
            return listed
        name = self._get("toJobConfig.tableName")
        schema = self._get("toJobConfig.schemaName") or None
        known = {column.lower(): column for column in _columns(engine, name, schema)}
        if missing := [column for column in read if column.lower() not in known]:
            raise ValueError(f"table {name!r} has no column {', '.join(missing)}")
        return [known[column.lower()] for column in read]

    def _clears_first(self) -> bool:
        # The newer input and the older one; ASSUMED: there are no values but those in the samples.
        newer = self._get("toJobConfig.beforeImportType")
        older = self._get("toJobConfig.shouldClearTable")
        return newer == "shouldClearTable" or older.lower() == "true"


def absolute(url: str, base: str) -> str:
    """Return a database URL in which a relative SQLite path starts from ``base``.

    :param url: SQLAlchemy URL.
    :param base: path of a folder; ``""`` returns the URL unchanged.
    :raises ValueError: if the URL is not valid; the message does not contain it, since it may
        contain a password.
    """
    try:
        parsed = sa.engine.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise ValueError("SQLAlchemy cannot parse a database URL") from None
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
    :raises sqlalchemy.exc.SQLAlchemyError: if it cannot be reached.
    """
    with _engine(url) as engine, engine.connect():
        pass


@contextmanager
def _engine(url: str) -> Iterator[sa.engine.Engine]:
    # No pool, since any thread may do the work, and no file may stay open between two steps.
    sqlite = sa.engine.make_url(url).get_backend_name() == "sqlite"
    options: dict[str, Any] = {"timeout": BUSY_TIMEOUT} if sqlite else {}
    # Error messages are logged and therefore must not contain rows.
    engine = sa.create_engine(url, poolclass=NullPool, connect_args=options, hide_parameters=True)
    try:
        yield engine
    finally:
        engine.dispose()


def _columns(engine: sa.engine.Engine, table: str, schema: str | None) -> list[str]:
    names = [column["name"] for column in sa.inspect(engine).get_columns(table, schema)]
    if not names:  # SQLAlchemy 1.4 reports a missing table in this way
        raise ValueError(f"no such table: {table}")
    return names


def _text(sql: str) -> Any:
    return sa.text(sql.replace(":", r"\:"))  # a colon in the job's SQL is not a bind parameter


def _list(value: str) -> list[str]:
    return [name.strip() for name in value.split("&") if name.strip()]


def _for_sqlite(value: Any) -> Any:
    """Convert a value of another database's driver to a type that the sqlite3 module accepts."""
    if isinstance(value, dt.datetime):
        return value.isoformat(" ")
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    return value


def _unchanged(value: Any) -> Any:
    return value
