"""Which column of the target a column of the source goes to, and how errors name the two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


class TransferError(ValueError):
    """Rows that cannot be moved without a change.

    :param table: name of the table, ``""`` for a query.
    :param columns: names of the columns; none if it is unknown which ones are meant.
    :param reason: what is wrong; the values of rows do not belong into it.
    """

    def __init__(self, table: str, columns: Sequence[str], reason: str) -> None:
        place = f"table {table!r}" if table else "the query"
        if columns:
            names = ", ".join(repr(name) for name in columns)
            place += f", column{'s' if len(columns) > 1 else ''} {names}"
        super().__init__(f"{place}: {reason}")


def match(
    table: str, read: Sequence[str], listed: Sequence[str], existing: Sequence[str]
) -> list[str]:
    """Return the target column of each column that was read.

    Columns are matched by position if the job lists those of the target, or by name (ASSUMED). No
    two of them may have the same target, for only the last one would be moved.

    :param table: name of the target table, for error messages.
    :param read: names of the columns that were read.
    :param listed: names of the target's columns that the job lists.
    :param existing: names of all columns of the target.
    :raises TransferError: if a column has no target, or two have the same.
    """
    if listed and len(listed) != len(read):
        raise ValueError(
            f"{len(read)} columns were read, but {len(listed)} are listed for the target"
        )
    wanted = listed or read
    targets = [_find(table, name, existing) for name in wanted]
    if missing := [name for name, found in zip(wanted, targets, strict=True) if found is None]:
        raise ValueError(f"table {table!r} has no column {', '.join(missing)}")
    found = [target for target in targets if target is not None]
    if twice := [name for name, count in Counter(found).items() if count > 1]:
        reason = (
            "the job lists it more than once"
            if listed
            else "more than one column of the source has this name; give each a name of its own "
            "with AS, or list the columns of the target"
        )
        raise TransferError(table, twice, reason)
    return found


def _find(table: str, name: str, existing: Sequence[str]) -> str | None:
    """Return the column with a name, or else the one whose name differs in case only."""
    if name in existing:
        return name
    similar = [column for column in existing if column.lower() == name.lower()]
    if len(similar) > 1:
        raise TransferError(table, similar, f"it is not clear which of them {name!r} is")
    return similar[0] if similar else None
