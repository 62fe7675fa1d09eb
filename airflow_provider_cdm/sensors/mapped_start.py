"""Mapped sensors, which cannot begin in the triggerer; parsing a DAG with one needs no more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from airflow_provider_cdm.client.errors import CdmConfigError

ON_A_WORKER = "With start_from_trigger=False and deferrable=True it begins on a worker."


def refuse_mapping() -> NoReturn:
    """Raise the error for a mapped task that is to begin in the triggerer."""
    raise CdmConfigError(
        "start_from_trigger=True cannot be used with a mapped task: Airflow starts its instances"
        f" without their arguments. {ON_A_WORKER}"
    )


def check_mapping(names: Mapping[str, Any]) -> None:
    """Check the arguments of ``partial()`` or ``expand()``, or defaults of them.

    :raises CdmConfigError: when they start a mapped task in the triggerer.
    """
    given = names.get("start_from_trigger", False)
    if given is not False and given is not None:
        refuse_mapping()


class CheckedPartial:
    """What ``partial()`` of the sensor returns; refuses to start what is mapped in the triggerer.

    :param partial: Airflow's own.
    """

    def __init__(self, partial: Any) -> None:
        self._partial = partial
        given = partial.kwargs
        defaults = [
            getattr(given.get(name), "default_args", None) or {} for name in ("dag", "task_group")
        ]
        for names in (*defaults, given):
            check_mapping(names)

    def expand(self, **mapped: Any) -> Any:
        """Map over lists."""
        check_mapping(mapped)
        return self._partial.expand(**mapped)

    def expand_kwargs(self, kwargs: Any, **options: Any) -> Any:
        """Map over a list of arguments."""
        for each in kwargs if isinstance(kwargs, list | tuple) else ():
            if isinstance(each, Mapping):
                check_mapping(each)
        return self._partial.expand_kwargs(kwargs, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._partial, name)
