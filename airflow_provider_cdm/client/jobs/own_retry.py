"""Whether CDM itself would repeat a failed run of a job that gets variables."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import unquote

from airflow_provider_cdm.client.api.definitions import inputs_of
from airflow_provider_cdm.client.text import one_line

#: Names of variables that a message lists, and the characters of a setting.
_NAMES, _SETTING = 20, 100


def own_retry_problem(definition: Mapping[str, Any], variables: Collection[str]) -> str | None:
    """Return what is wrong with passing variables to a job, or ``None``.

    The best practices of CDM's user guide say that the retry of a job must not be configured if
    parameters are passed to it. What CDM repeats the run with is not documented.

    :param definition: the job as CDM shows it, or as it is to be created.
    :param variables: names of the variables that a start passes.
    """
    if not variables:
        return None
    for name, value in inputs_of(definition, "driver-config-values").items():
        setting = one_line(unquote(value), _SETTING).strip()
        # Upper and lower case differ between documents and releases.
        is_retry = name.rpartition(".")[2].lower() == "retryjobtype"
        if is_retry and setting.upper() not in ("", "NONE"):
            passed = ", ".join(sorted(variables)[:_NAMES])
            hidden = len(variables) - _NAMES
            passed += f" and {hidden} more" if hidden > 0 else ""
            return (
                f"Job {definition.get('name')!r} has a retry of its own ({name} is {setting!r}) and"
                f" gets variables ({passed}). CDM's user guide rules that out: CDM may repeat a"
                f" failed run without them. Set {name} to NONE, and let the task retry instead."
            )
    return None
