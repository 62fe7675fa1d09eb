"""An offline stand-in for Huawei Cloud CDM and IAM, spoken to over HTTP on the loopback interface.

``with CdmSimulator() as sim:`` serves ``sim.url``. Jobs between two databases really move rows, all
other jobs run as scripted. Nothing here is shared with the package's client: the two agree on the
wire or not at all. What the public documents leave open is a switch, see
:class:`airflow_provider_cdm.simulator.config.config.Behaviour`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.clock import ManualClock
    from airflow_provider_cdm.simulator.config.faults import Fault
    from airflow_provider_cdm.simulator.simulator import CdmSimulator

__all__ = ("CdmSimulator", "Fault", "ManualClock")

_HOMES = {"CdmSimulator": "simulator", "Fault": "config.faults", "ManualClock": "clock"}


def __getattr__(name: str) -> Any:
    """Load a public name on first use, so that importing the package needs no web server."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    try:
        module = import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.startswith("airflow_provider_cdm"):
            raise
        from airflow_provider_cdm.simulator.errors import MissingExtraError

        raise MissingExtraError(exc.name.partition(".")[0]) from exc
    return getattr(module, name)
