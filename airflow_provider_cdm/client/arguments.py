"""Checks of arguments that users pass, before anything is sent."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from airflow_provider_cdm.client.errors import CdmConfigError
from airflow_provider_cdm.client.text import shown

#: Seconds without any change after which a run counts as stalled, by default.
STALLED_AFTER = 1800.0

#: Longest duration, in seconds: what the clocks of operating systems can count, and calendars show.
LONGEST_DURATION = 100 * 365 * 86_400.0

#: No number of CDM is as large, and Airflow stores none beyond 64 bits.
_DIGITS = 18

#: Bits of the longest integer that can be sent; Python writes integers of up to 4,300 digits.
_MOST_BITS = 10_000

#: A number of seconds as text.
_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")

#: Longest job name that CDM accepts, in characters (from the official SDK's model of a job).
JOB_NAME_LIMIT = 240

#: Longest key of a partition, in characters, as Airflow stores it.
PARTITION_KEY_LIMIT = 250


def job_name(value: Any) -> str:
    """Return a job name after a check; which characters are allowed is left to CDM.

    :raises CdmConfigError: when the name is not text, empty, or too long.
    """
    return text("job_name", value, limit=JOB_NAME_LIMIT)


def cluster_id(*values: Any) -> str:
    """Return the first of several cluster ids that is set.

    :param values: cluster ids in order of precedence, such as the argument's and the connection's.
    :raises CdmConfigError: when none is set, or the first one set is not text.
    """
    for value in values:
        if value is not None and value != "":
            return text("cluster_id", value, limit=JOB_NAME_LIMIT)
    raise CdmConfigError(
        "No cluster is given. Pass cluster_id, or fill in Cluster ID in the connection. The CDM"
        " console shows the id under Cluster Management."
    )


def standby_clusters(value: Any, first: str) -> tuple[str, ...]:
    """Return the ids of stand-by clusters.

    :param value: list of ids, or the text of one; ``None`` for none.
    :param first: cluster that is tried before them.
    :raises CdmConfigError: when they are anything else, or one is named twice.
    """
    if value is None:
        return ()
    if not isinstance(value, str | list | tuple):
        raise CdmConfigError(
            f"standby_cluster_ids must be a list of cluster ids, not {type(value).__name__}."
        )
    if isinstance(value, str) and value.lstrip().startswith("["):
        raise CdmConfigError(
            f"standby_cluster_ids is the text {value[:80]!r}, because a template renders to text."
            " Pass a list with one template for each id, or the output of another task."
        )
    given = [value] if isinstance(value, str) else value
    ids = tuple(text("standby_cluster_ids", one, limit=JOB_NAME_LIMIT) for one in given)
    twice = [one for one in ids if (first, *ids).count(one) > 1]
    if twice:
        raise CdmConfigError(
            f"standby_cluster_ids must name other clusters than cluster_id ({first!r}), each once;"
            f" {twice[0]!r} is named twice."
        )
    return ids


def variables(value: Any) -> dict[str, str]:
    """Return the variables of a run as CDM expects them: a text for each name.

    Numbers, dates and booleans are converted with ``str``.

    :raises CdmConfigError: when variables cannot be sent; the message lists all problems.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        hint = ""
        if isinstance(value, str):
            hint = (
                " A template renders to text. Pass the output of the other task (other.output), or"
                " a mapping with a template for each value."
            )
        raise CdmConfigError(
            f"variables must be a mapping of names to values, not {type(value).__name__}.{hint}"
        )
    problems = [
        problem
        for name, content in value.items()
        for problem in (_name_problem(name), _value_problem(name, content))
        if problem
    ]
    if problems:
        raise CdmConfigError("The variables cannot be sent to CDM: " + "; ".join(problems) + ".")
    return {
        # The text itself, whatever a subclass such as an enumeration shows instead.
        name: str.__str__(content) if isinstance(content, str) else str(content)
        for name, content in value.items()
    }


def non_negative_int(argument: str, value: Any) -> int | None:
    """Return an integer that is not negative, which a template may have rendered as text.

    :param argument: name of the argument, for the message.
    :param value: value of the argument; ``None`` gives ``None``.
    :raises CdmConfigError: when the value is anything else; a template that rendered to nothing is
        never taken for an argument that was not given.
    """
    if value is None:
        return None
    try:
        # To write out an exponent of thousands takes minutes.
        number = -1 if isinstance(value, Decimal) and value.adjusted() > _DIGITS else int(value)
    except Exception:  # a template may leave an object of any kind
        number = -1
    is_text = isinstance(value, str)
    if isinstance(value, bool) or number < 0 or not (is_text or number == value):
        empty = is_text and value.strip() in ("", "None")
        reason = ": its template rendered to nothing" if empty else ""
        raise CdmConfigError(
            f"{argument} must be an integer of at least 0, not {shown(value)}{reason}."
        )
    if number >= 10**_DIGITS:
        raise CdmConfigError(f"{argument} must be below 10^{_DIGITS}, not {shown(value)}.")
    return number


def ensure_rendered(argument: str, value: Any) -> None:
    """Check that the template of an argument rendered to something.

    :param argument: name of an argument that was given.
    :param value: its value now.
    :raises CdmConfigError: when it is ``None``, as native templates and other tasks may leave it.
    """
    if value is None:
        raise CdmConfigError(
            f"{argument} was given, but its template rendered to nothing (None). Correct the"
            " template, or leave the argument out."
        )


def ensure_names_something(argument: str, value: Any) -> None:
    """Check that an argument with a default elsewhere, such as in the connection, names something.

    :param argument: name of an argument that was given.
    :param value: its value now.
    :raises CdmConfigError: when it is empty: the default is for arguments that were not given.
    """
    ensure_rendered(argument, value)
    if isinstance(value, str) and value.strip() in ("", "None"):
        raise CdmConfigError(
            f"{argument} was given, but it is {value!r}. If it is a template, it rendered to"
            " nothing. Correct it, or leave the argument out."
        )


def partition_key(value: Any) -> str:
    """Return the key of a partition that was given, after a check.

    :raises CdmConfigError: when it is empty, too long, or no text.
    """
    ensure_names_something("partition_key", value)
    return text("partition_key", value, limit=PARTITION_KEY_LIMIT)


def seconds(argument: str, value: Any, *, optional: bool = True, positive: bool = True) -> Any:
    """Return a duration in seconds.

    :param argument: name of the argument, for the message.
    :param value: a number, a number as text (as a template renders it), or a ``timedelta``;
        ``None`` gives ``None``.
    :param optional: whether ``None`` is allowed.
    :param positive: whether 0 is refused.
    :raises CdmConfigError: when the value is anything else.
    """
    if value is None and optional:
        return None
    duration = _duration(value)
    limit = ", or None for no limit" if optional else ""
    if duration is None or math.isnan(duration) or duration == math.inf:
        empty = isinstance(value, str) and value.strip() in ("", "None")
        reason = ": its template rendered to nothing" if empty else ""
        raise CdmConfigError(
            f"{argument} must be a finite number of seconds or a timedelta{limit}, not"
            f" {shown(value)}{reason}."
        )
    if duration < 0 or (positive and not duration):
        raise CdmConfigError(
            f"{argument} must be {'above' if positive else 'at least'} 0 s, not {shown(value)}."
        )
    if duration > LONGEST_DURATION:
        raise CdmConfigError(
            f"{argument} must be at most {LONGEST_DURATION:.0f} s (100 years){limit}, not"
            f" {shown(value)}."
        )
    return duration


def _duration(value: Any) -> float | None:
    """Return the seconds that a value stands for, or ``None``."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, str):
        return float(value) if _SECONDS.fullmatch(value.strip()) else None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    try:
        seconds = float(value)
    except OverflowError:  # an integer of hundreds of digits
        return math.nan
    except ValueError:  # a signaling NaN
        return None
    return seconds if isinstance(value, Decimal) else value


def one_of(argument: str, value: Any, allowed: Sequence[str]) -> None:
    """Check an argument that takes one of a few words.

    :param argument: name of the argument.
    :raises CdmConfigError: when the value is none of them.
    """
    if value not in allowed:
        *others, last = map(repr, allowed)
        raise CdmConfigError(
            f"{argument} must be {', '.join(others)} or {last}, not {shown(value)}."
        )


def _name_problem(name: Any) -> str | None:
    if not isinstance(name, str):
        return f"the name {shown(name)} is {type(name).__name__}, not text"
    if not name or name != name.strip() or any(c in "${}" or not c.isprintable() for c in name):
        return f"the name {name!r} cannot be used between ${{ and }}"
    return None


def _value_problem(name: Any, content: Any) -> str | None:
    if content is None:
        return f"{name!r} is None (does an expression return nothing?)"
    # Only the type is shown: values may be confidential.
    if not isinstance(content, str | int | float | Decimal | date | datetime):
        return f"{name!r} is {type(content).__name__}, not text, number or date"
    if not is_finite(content):
        return f"{name!r} is not a finite number"
    if not is_writable(content):
        return f"{name!r} is a number with too many digits"
    return None


def is_finite(value: Any) -> bool:
    """Return whether a value is not infinite, and not NaN of any kind."""
    if isinstance(value, Decimal):
        return value.is_finite()
    return not isinstance(value, float) or math.isfinite(value)


def is_writable(value: Any) -> bool:
    """Return whether a value can be written as text: Python refuses thousands of digits."""
    return not isinstance(value, int) or value.bit_length() <= _MOST_BITS


def text(argument: str, value: Any, *, limit: int) -> str:
    """Return a text after a check.

    :param argument: name of the argument, for the message.
    :param value: value of the argument.
    :param limit: longest text allowed, in characters.
    :raises CdmConfigError: when the value is not text, empty, or too long.
    """
    if not isinstance(value, str):
        raise CdmConfigError(f"{argument} must be text, not {type(value).__name__}.")
    if not value.strip():
        raise CdmConfigError(
            f"{argument} is empty. If it is a template, it was rendered to an empty text."
        )
    if len(value) > limit:
        raise CdmConfigError(
            f"{argument} has {len(value)} characters; CDM allows {limit}: {value[:40]!r}..."
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise CdmConfigError(
            f"{argument} contains a lone surrogate (half a character) and cannot be sent: {value!r}"
        ) from None
    return value
