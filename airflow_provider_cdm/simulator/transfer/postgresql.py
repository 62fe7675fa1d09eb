"""Reads rows of PostgreSQL without what its drivers change.

Drivers turn an interval of a month into one of 30 days, numbers in JSON into floats, the JSON value
``null`` into a missing one, and the end of time into a day of the year 9999, each in its own way.
Values of such types are therefore read as PostgreSQL's own text, which it also accepts.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

#: Ids of the types that all drivers read without a change: bool, bytea, integers, floats, numeric,
#: and text.
_AS_DRIVER = frozenset({16, 17, 18, 19, 20, 21, 23, 25, 26, 700, 701, 705, 1042, 1043, 1700})


def read(
    connection: sa.engine.Connection, query: Any
) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Return the names of a query's columns, and its rows.

    :param connection: connection to PostgreSQL, in a transaction.
    :param query: SQLAlchemy query without parameters.
    :raises sqlalchemy.exc.SQLAlchemyError: if the query fails.
    """
    dialect: Any = postgresql.dialect
    sql = str(query.compile(dialect=dialect(paramstyle="named"))).rstrip("; \n\t")
    described = _describe(connection, sql)
    if described is None:
        result = connection.execute(query)
        return tuple(result.keys()), [tuple(row) for row in result]
    names, types = described
    aliases = [f"c{number}" for number in range(len(names))]
    columns = ", ".join(
        alias if type_ in _AS_DRIVER else f"{alias}::text"
        for alias, type_ in zip(aliases, types, strict=True)
    )
    inner = f"(\n{sql}\n) AS q ({', '.join(aliases)})"
    rows = _execute(connection, f"SELECT {columns} FROM {inner}")  # noqa: S608 - the job's own SQL
    parsers = [_PARSERS.get(type_) for type_ in types]
    return names, [_parsed(row, parsers) for row in rows]


def column_types(
    connection: sa.engine.Connection, table: str, schema: str | None
) -> dict[str, str]:
    """Return the types of a table's columns by name; none if there is no such table.

    :param connection: connection to PostgreSQL.
    :param table: name of the table.
    :param schema: its schema; ``None`` for those that are searched by default.
    """
    # SQLAlchemy would warn of types that it does not know.
    query = sa.text(
        "SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a"
        " JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relname = :name AND a.attnum > 0 AND NOT a.attisdropped"
        " AND (n.nspname = :space OR :space = '' AND pg_table_is_visible(c.oid))"
        " ORDER BY a.attnum"
    )
    values = {"name": table, "space": schema or ""}
    return {str(name): str(type_) for name, type_ in connection.execute(query, values)}


def _describe(
    connection: sa.engine.Connection, sql: str
) -> tuple[tuple[str, ...], list[int]] | None:
    """Return names and types of the columns of a query; ``None`` if it can only be executed."""
    _execute(connection, "SET datestyle TO ISO")
    try:
        with connection.begin_nested():
            inner = f"(\n{sql}\n) AS q LIMIT 0"
            result = _execute(connection, f"SELECT * FROM {inner}")  # noqa: S608 - as above
            description = result.cursor.description or ()
            result.close()
    except sa.exc.DBAPIError:
        return None
    if not description:
        return None
    return tuple(str(column[0]) for column in description), [column[1] for column in description]


def _execute(connection: sa.engine.Connection, sql: str) -> Any:
    return connection.execute(sa.text(sql.replace(":", r"\:")))


def _parsed(row: Sequence[Any], parsers: list[Callable[[str], Any] | None]) -> tuple[Any, ...]:
    return tuple(
        value if value is None or parser is None else parser(value)
        for value, parser in zip(row, parsers, strict=True)
    )


def _date(text: str) -> dt.date | str:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:  # infinity, or a year that Python does not know
        return text


def _timestamp(text: str) -> dt.datetime | str:
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError:
        return text


def _time(text: str) -> dt.time | str:
    if text.startswith("24"):  # the end of a day, which is not its beginning
        return text
    try:
        return dt.time.fromisoformat(text)
    except ValueError:
        return text


_PARSERS: dict[int, Callable[[str], Any]] = {
    1082: _date,
    1083: _time,
    1114: _timestamp,
    1184: _timestamp,
    1266: _time,
}
