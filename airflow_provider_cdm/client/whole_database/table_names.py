"""Names of tables: in the names of sub-jobs, and in the lists of tables of definitions."""

from __future__ import annotations

import re
from enum import IntEnum
from urllib.parse import unquote

#: What separates tables in a definition. Only ``&`` is known; others do no harm.
SEPARATOR = re.compile(r"[&,;|]")
_FLAGS = re.IGNORECASE | re.DOTALL
#: Variables and date macros, which are other texts in each run.
_VARIABLE = re.compile(r"\$\{[^{}]*\}|\$\w+\([^$)]*\)")
#: What makes a name in a list of tables a pattern, or another one in each run.
_PATTERN = re.compile(r"[*%?$]")
#: Characters of the longest list of tables that is made into a pattern.
_LONGEST_PATTERN = 100_000


class Fit(IntEnum):
    """How well the name of a job fits the table that it moves."""

    NONE = 0
    #: With the schema before the table, which is not documented.
    QUALIFIED = 1
    #: Apart from characters that CDM may replace.
    LOOSE = 2
    EXACT = 3


def fit_of(rest: str, table: str, schema: str) -> Fit:
    """Return how well a text fits a table.

    :param rest: name of a job without the prefix of sub-jobs.
    :param table: the table that it moves; empty if that is not known.
    :param schema: schema of that table; empty likewise.
    """
    if not table or not rest:
        return Fit.NONE
    names = {table, unquote(table)}
    if rest in names:
        return Fit.EXACT
    plain = {_plain(name) for name in names} - {""}
    if _plain(rest) in plain or any(_is_replaced(name, rest) for name in names):
        return Fit.LOOSE
    plain_schema = _plain(unquote(schema))
    qualified = _plain(rest) in {plain_schema + name for name in plain}
    return Fit.QUALIFIED if qualified else Fit.NONE


def without_variables(text: str) -> str:
    """Return a text; nothing if it is another one in each run."""
    return "" if _VARIABLE.search(unquote(text)) else text


def pattern_of(text: str) -> re.Pattern[str] | None:
    """Return the pattern of the schemas or tables that a definition names.

    ``None`` if all are possible, or the list is longer than any that can be compared.
    """
    if len(text) > _LONGEST_PATTERN:
        return None
    parts = {
        part.strip() for part in SEPARATOR.split(_VARIABLE.sub("*", unquote(text))) if part.strip()
    }
    # Tables may be listed with their schemas.
    parts |= {part.rpartition(".")[2] for part in parts}
    if not parts or "*" in parts:
        return None
    parts |= {unquote(text)}
    return re.compile("|".join(sorted(map(_expression, parts))), _FLAGS)


def _expression(part: str) -> str:
    """Return the regular expression of a name with ``*``, ``%`` and ``?``.

    What follows an asterisk is looked for once, where it first occurs: trying every place, also
    for all that follows, takes years for ten asterisks.
    """
    first, *rest = [re.escape(piece).replace(r"\?", ".") for piece in re.split(r"[*%]+", part)]
    if not rest:
        return first
    middle = "".join(f"(?>.*?{piece})" for piece in rest[:-1])
    return f"{first}{middle}.*{rest[-1]}"


def listed_names(text: str) -> list[str]:
    """Return the tables that a definition names one by one, without patterns and variables."""
    plain = unquote(text)
    parts = [part.strip() for part in SEPARATOR.split(plain)]
    return [part for part in parts if part and not _PATTERN.search(part)]


def is_named(name: str, table: str, schema: str) -> bool:
    """Return whether a name in the list of a definition means a table, as far as can be seen."""
    table, schema = unquote(table), unquote(schema)
    # The name of a table may contain what otherwise separates names.
    names = {table, schema + table, *SEPARATOR.split(table)}
    return bool({_plain(name), _plain(name.rpartition(".")[2])} & set(map(_plain, names)))


def between_separators(text: str) -> str:
    """Return a list of tables, or a table, in a form in which one can be found in the other."""
    return f"&{SEPARATOR.sub('&', text)}&".casefold()


def _is_replaced(name: str, rest: str) -> bool:
    """Return whether a text is the name of a table with some characters replaced by others."""
    return (
        len(name) == len(rest)
        and any(map(str.isalnum, name))
        and all(
            a.casefold() == b.casefold() or (b in "_-" and not (a.isascii() and a.isalnum()))
            for a, b in zip(name, rest, strict=True)
        )
    )


def _plain(name: str) -> str:
    """Return a name without the characters that CDM may replace in the name of a sub-job."""
    return "".join(filter(str.isalnum, name)).casefold()
