"""Moves rows from one database to another, through SQLAlchemy 1.4 or 2.

A run reads all rows when it enters RUNNING and closes the source at once; at its end it writes them
in one transaction. An open cursor would return the same rows, but on SQLite it would also lock
other writers out of the source for the duration of the run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from airflow_provider_cdm.simulator.transfer import postgresql, staging
from airflow_provider_cdm.simulator.transfer.columns import TransferError, match

#: Maximum time to wait for a locked SQLite file, in seconds.
BUSY_TIMEOUT = 10
_SCHEMA = "fromJobConfig.schemaName"
#: Message of SQLite, which goes on with the text itself.
_NOT_TEXT = re.compile(r"Could not decode to UTF-8 column '(?P<column>[^']*)'")


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
        with (
            _engine(self.source) as engine,
            engine.connect() as connection,
            connection.begin(),
        ):
            query = self._query(engine)
            if engine.dialect.name == "postgresql":
                return Rows(*postgresql.read(connection, query))
            try:
                result = connection.execute(query)
                return Rows(tuple(result.keys()), [tuple(row) for row in result])
            except sa.exc.OperationalError as exc:
                if (invalid := _NOT_TEXT.search(str(exc))) is None:
                    raise
                table = "" if self._uses_sql() else self._get("fromJobConfig.tableName")
                reason = "a text is not valid UTF-8"
                raise TransferError(table, [invalid["column"]], reason) from None

    def write(self, rows: Rows, may_commit: Callable[[], bool] = lambda: True) -> bool:
        """Insert rows into the target in one transaction.

        :param rows: rows that were read from the source.
        :param may_commit: function that returns whether the rows are still wanted, called when they
            have been inserted.
        :returns: whether they were committed.
        :raises sqlalchemy.exc.SQLAlchemyError: if the target rejects a row; none is inserted then.
        :raises ValueError: if the columns do not match those of the target.
        """
        with _engine(self.target) as engine:
            target = self._find_target(engine, rows.columns)
            with engine.connect() as connection, connection.begin() as transaction:
                if self._clears_first():
                    connection.execute(target.table.delete())
                if engine.dialect.name in staging.DATABASES:
                    staging.insert(connection, target, rows.values)
                elif rows.values:
                    _insert(connection, target, rows.values)
                if may_commit():
                    return True
                transaction.rollback()
                return False

    def _get(self, name: str) -> str:
        return self.parameters.get(name, "").strip()

    def _uses_sql(self) -> bool:
        sql, switch = self._get("fromJobConfig.sql"), self._get("fromJobConfig.useSql")
        return bool(sql) and switch.lower() != "false"

    def _query(self, engine: sa.engine.Engine) -> Any:
        # The columns have no type, so that the driver's values are copied unchanged: SQLAlchemy
        # would convert them, for example a date that is stored as text.
        if self._uses_sql():
            return _text(self._get("fromJobConfig.sql"))
        name = self._get("fromJobConfig.tableName")
        schema = self._get(_SCHEMA) or None
        names = _list(self._get("fromJobConfig.columnList")) or list(_types(engine, name, schema))
        chosen: list[Any] = [sa.column(column) for column in names]
        query: Any = sa.select(*chosen).select_from(sa.table(name, *chosen, schema=schema))
        where = self._get("fromJobConfig.whereClause")
        return query.where(_text(where)) if where else query

    def _find_target(self, engine: sa.engine.Engine, read: Sequence[str]) -> staging.Target:
        name = self._get("toJobConfig.tableName")
        schema = self._get("toJobConfig.schemaName") or None
        types = _types(engine, name, schema)
        names = match(name, read, _list(self._get("toJobConfig.columnList")), list(types))
        return staging.Target(name, schema, {name: types[name] for name in names})

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


def _types(engine: sa.engine.Engine, table: str, schema: str | None) -> dict[str, str]:
    """Return the declared types of a table's columns by name."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            types = postgresql.column_types(connection, table, schema)
        elif engine.dialect.name == "sqlite":  # SQLAlchemy knows less types than SQLite allows
            quote = engine.dialect.identifier_preparer.quote
            prefix = f"{quote(schema)}." if schema else ""
            found = connection.execute(_text(f"PRAGMA {prefix}table_xinfo({quote(table)})"))
            types = {str(name): str(type_) for _, name, type_, *_, hidden in found if hidden != 1}
        else:
            columns = sa.inspect(connection).get_columns(table, schema)
            types = {column["name"]: str(column["type"]) for column in columns}
    if not types:
        raise ValueError(f"no such table: {table}")
    return types


def _insert(
    connection: sa.engine.Connection, target: staging.Target, rows: list[tuple[Any, ...]]
) -> None:
    records = [dict(zip(target.columns, row, strict=True)) for row in rows]
    try:
        connection.execute(target.table.insert(), records)
    except Exception as exc:
        reason = str(exc).partition("\n")[0]
        raise TransferError(target.name, list(target.columns), reason) from exc


def _text(sql: str) -> Any:
    return sa.text(sql.replace(":", r"\:"))  # a colon in the job's SQL is not a bind parameter


def _list(value: str) -> list[str]:
    return [name.strip() for name in value.split("&") if name.strip()]
