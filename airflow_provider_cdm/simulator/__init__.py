"""An offline simulator of Huawei Cloud CDM and IAM, which serves HTTP on the loopback interface.

``with CdmSimulator() as sim:`` serves ``sim.url``. Jobs between two databases really move rows; all
other jobs run as scripted. The simulator shares no code with the package's client, so that tests
find differences in how the two understand the API. Behavior that the public documentation leaves
open is a switch, see :class:`airflow_provider_cdm.simulator.config.behaviour.Behaviour`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.clock import ManualClock
    from airflow_provider_cdm.simulator.config.faults import Fault
    from airflow_provider_cdm.simulator.simulator import CdmSimulator

__all__ = ("CdmSimulator", "Fault", "ManualClock")

_MODULES = {"CdmSimulator": "simulator", "Fault": "config.faults", "ManualClock": "clock"}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that importing the package needs no web server."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    try:
        module = import_module(f"{__name__}.{_MODULES[name]}")
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.startswith("airflow_provider_cdm"):
            raise
        from airflow_provider_cdm.simulator.errors import MissingExtraError

        raise MissingExtraError(exc.name.partition(".")[0]) from exc
    return getattr(module, name)
