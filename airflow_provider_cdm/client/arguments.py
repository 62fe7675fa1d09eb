"""Checks of what users pass in, made before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from airflow_provider_cdm.client.errors import CdmConfigError

#: Longest job name that CDM accepts, in characters (model of a job in the official SDK).
JOB_NAME_LIMIT = 240


def job_name(value: Any) -> str:
    """Return a usable job name; its characters are CDM's business.

    :raises CdmConfigError: when it is not text, empty, or too long.
    """
    return text("job_name", value, limit=JOB_NAME_LIMIT)


def cluster_id(*values: Any) -> str:
    """Return the first cluster id that is given: the argument's, else the connection's.

    :raises CdmConfigError: when none is given, or one is not text.
    """
    for value in values:
        if value is not None and value != "":
            return text("cluster_id", value, limit=JOB_NAME_LIMIT)
    raise CdmConfigError(
        "No cluster is named: pass cluster_id, or fill in Cluster ID in the connection. The id is"
        " shown in the CDM console under Cluster Management."
    )


def variables(value: Any) -> dict[str, str]:
    """Return variables of a run as CDM wants them: text by name.

    Numbers, dates and booleans become text by ``str``.

    :raises CdmConfigError: names everything that is wrong with them, at once.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise CdmConfigError(
            f"variables must be a mapping of names to values, not {type(value).__name__}."
        )
    problems = [
        problem
        for name, content in value.items()
        for problem in (_name_problem(name), _value_problem(name, content))
        if problem
    ]
    if problems:
        raise CdmConfigError("variables cannot be sent to CDM: " + "; ".join(problems) + ".")
    return {name: str(content) for name, content in value.items()}


def non_negative_int(argument: str, value: Any) -> int | None:
    """Return a whole number from 0 on, which a template may have made text; ``None`` for none.

    :param argument: how the user calls it.
    :raises CdmConfigError: when it is anything else.
    """
    if value is None or value == "":
        return None
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = -1
    if isinstance(value, bool) or number < 0 or number != float(value):
        raise CdmConfigError(f"{argument} must be a whole number from 0 on, not {value!r}.")
    return number


def positive_seconds(**values: float | None) -> None:
    """Check durations that are known when the DAG is parsed; ``None`` means that there is none.

    :raises CdmConfigError: names the first that is not above 0.
    """
    for argument, value in values.items():
        if value is not None and not value > 0:
            raise CdmConfigError(f"{argument} must be above 0 s, not {value!r}.")


def one_of(argument: str, value: Any, allowed: Sequence[str]) -> None:
    """Check an argument that takes one of a few words.

    :param argument: name of the argument.
    :raises CdmConfigError: when the value is none of them.
    """
    if value not in allowed:
        *others, last = map(repr, allowed)
        raise CdmConfigError(f"{argument} must be {', '.join(others)} or {last}, not {value!r}.")


def _name_problem(name: Any) -> str | None:
    if not isinstance(name, str):
        return f"the name {name!r} is {type(name).__name__}, not text"
    if not name or name != name.strip() or any(c in "${}" or not c.isprintable() for c in name):
        return f"the name {name!r} cannot stand between ${{ and }}"
    return None


def _value_problem(name: Any, content: Any) -> str | None:
    if content is None:
        return f"{name!r} is None (an expression that yields nothing?)"
    # Only the type is shown: values may be confidential.
    if not isinstance(content, str | int | float | Decimal | date | datetime):
        return f"{name!r} is {type(content).__name__}, not text, number or date"
    return None


def text(argument: str, value: Any, *, limit: int) -> str:
    """Return a text that is not empty.

    :param argument: how the user calls it.
    :param limit: how long it may be, in characters.
    :raises CdmConfigError: when it is not text, empty, or too long.
    """
    if not isinstance(value, str):
        raise CdmConfigError(f"{argument} must be text, not {type(value).__name__}.")
    if not value.strip():
        raise CdmConfigError(f"{argument} is empty. If it is a template, it rendered to nothing.")
    if len(value) > limit:
        raise CdmConfigError(
            f"{argument} has {len(value)} characters, CDM allows {limit}: {value[:40]!r}..."
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise CdmConfigError(
            f"{argument} holds half a character and cannot be sent: {value!r}"
        ) from None
    return value
