"""Pytest fixtures for tests of your own DAGs.

Usage: ``pytest_plugins = ["airflow_provider_cdm.simulator.pytest_plugin"]``
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_cdm.simulator.simulator import CdmSimulator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@pytest.fixture
def cdm_simulator_config() -> Mapping[str, Any] | str | Path | None:
    """Return the configuration of :func:`cdm_simulator`; override it with a mapping or a path."""
    return None


@pytest.fixture
def cdm_simulator(
    cdm_simulator_config: Mapping[str, Any] | str | Path | None,
) -> Iterator[CdmSimulator]:
    """Run a new simulator for each test."""
    with CdmSimulator(cdm_simulator_config) as simulator:
        yield simulator


@pytest.fixture
def cdm_connection(cdm_simulator: CdmSimulator, monkeypatch: pytest.MonkeyPatch) -> str:
    """Point the Airflow connection ``cdm_default`` to the simulator, and return its id."""
    monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", cdm_simulator.connection_json)
    return "cdm_default"
