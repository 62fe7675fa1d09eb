"""Inserts rows through a temporary table, so that no database changes a value silently.

SQLite decides by the declared type of a column what it turns a value into, and turns what it does
not know into a floating-point number or nothing; PostgreSQL rounds numbers. The temporary table has
the types of the target, and what it has stored is compared with what was read before any row gets
into the target. It also tells which column refuses a value.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from airflow_provider_cdm.simulator.transfer import postgresql, values
from airflow_provider_cdm.simulator.transfer.columns import TransferError

#: Databases that rows are inserted into in this way.
DATABASES = frozenset({"sqlite", "postgresql"})


@dataclass(frozen=True)
class Target:
    """The table to insert into.

    :param columns: columns to insert into, with their declared types.
    """

    name: str
    schema: str | None
    columns: dict[str, str]

    @property
    def table(self) -> Any:
        """The table for SQLAlchemy, with the columns to insert into."""
        return sa.table(self.name, *map(sa.column, self.columns), schema=self.schema)


def insert(
    connection: sa.engine.Connection, target: Target, rows: Sequence[tuple[Any, ...]]
) -> None:
    """Insert rows in the current transaction.

    :param connection: connection to the database, in a transaction.
    :param target: table to insert into.
    :param rows: values of the target's columns.
    :raises TransferError: if a value would change, or the database refuses it.
    """
    if not rows:
        return
    plain = _plain(target, rows)
    names = [f"c{number}" for number in range(len(target.columns))]
    stage = sa.table(f"cdm_{secrets.token_hex(8)}", sa.column("n"), *map(sa.column, names))
    _create(connection, target, stage.name, names)
    sent = _converted(connection, target, stage.name, plain)
    records = [{"n": n, **dict(zip(names, row, strict=True))} for n, row in enumerate(sent)]
    try:
        with connection.begin_nested():
            connection.execute(stage.insert(), records)
    except Exception as exc:
        raise _refused(connection, target, stage, records, exc) from exc
    _check(connection, target, stage, names, plain)
    selected = sa.select(*(stage.c[name] for name in names)).order_by(stage.c.n)
    try:
        connection.execute(target.table.insert().from_select(list(target.columns), selected))
    except sa.exc.SQLAlchemyError as exc:
        raise TransferError(target.name, (), str(exc).partition("\n")[0]) from exc


def _plain(target: Target, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    result = []
    for row in rows:
        converted = []
        for name, value in zip(target.columns, row, strict=True):
            try:
                converted.append(values.plain(value))
            except ValueError as exc:
                raise TransferError(target.name, [name], str(exc)) from exc
        result.append(tuple(converted))
    return result


def _create(connection: sa.engine.Connection, target: Target, stage: str, names: list[str]) -> None:
    pairs = zip(target.columns, names, strict=True)
    columns: list[Any] = [sa.column(name).label(alias) for name, alias in pairs]
    query = sa.select(sa.literal_column("0").label("n"), *columns)
    query = query.select_from(target.table).where(sa.literal_column("1 = 0"))
    sql = str(query.compile(dialect=_without_percents(connection)))
    connection.execute(sa.text(f"CREATE TEMPORARY TABLE {stage} AS {sql}".replace(":", r"\:")))


def _without_percents(connection: sa.engine.Connection) -> Any:
    """Return a dialect that does not double the percent signs, which happens once more later."""
    dialect: Any = type(connection.dialect)
    return dialect(paramstyle="named")


def _converted(
    connection: sa.engine.Connection, target: Target, stage: str, rows: list[tuple[Any, ...]]
) -> list[list[Any]]:
    """Return the rows as the driver must get them."""
    if connection.dialect.name == "sqlite":
        info = connection.execute(sa.text(f"PRAGMA temp.table_info({stage})"))
        affinities = [str(column[2]).upper() for column in info][1:]
        return [
            [values.for_sqlite(*pair) for pair in zip(row, affinities, strict=True)] for row in rows
        ]
    types = [type_.partition("(")[0].upper() for type_ in target.columns.values()]
    return [[values.for_postgresql(*pair) for pair in zip(row, types, strict=True)] for row in rows]


def _refused(
    connection: sa.engine.Connection,
    target: Target,
    stage: Any,
    records: list[dict[str, Any]],
    cause: Exception,
) -> TransferError:
    """Return the error of a refused value, after looking for the first column that has one."""
    reason = str(cause).partition("\n")[0]
    for number, name in enumerate(target.columns):
        alias = f"c{number}"
        try:
            with connection.begin_nested():
                connection.execute(
                    sa.table(stage.name, sa.column(alias)).insert(),
                    [{alias: record[alias]} for record in records],
                )
        except Exception as exc:
            reason = str(exc).partition("\n")[0].replace(f'"{alias}"', f'"{name}"')
            return TransferError(target.name, [name], reason)
    return TransferError(target.name, list(target.columns), reason)


def _check(
    connection: sa.engine.Connection,
    target: Target,
    stage: Any,
    names: list[str],
    rows: list[tuple[Any, ...]],
) -> None:
    query = sa.select(*(stage.c[name] for name in names)).order_by(stage.c.n)
    if connection.dialect.name == "postgresql":
        kept = postgresql.read(connection, query)[1]
    else:
        kept = [tuple(row) for row in connection.execute(query)]
    for sent, stored in zip(rows, kept, strict=True):
        for (name, type_), before, after in zip(target.columns.items(), sent, stored, strict=True):
            if not values.is_kept(before, after, type_):
                reason = (
                    f"a value of type {type(before).__name__} cannot be stored unchanged in the "
                    f"type {type_ or 'of this column'}; a column for text keeps it"
                )
                raise TransferError(target.name, [name], reason)
