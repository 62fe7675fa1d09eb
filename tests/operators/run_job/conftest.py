"""Fixtures: a simulator with links to two databases, and without a job."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.support.order_databases import OrderDatabases


@pytest.fixture
def databases(tmp_path: Path) -> OrderDatabases:
    """Create the databases."""
    return OrderDatabases(tmp_path)


@pytest.fixture
def sim(clock: ManualClock, databases: OrderDatabases) -> Iterator[CdmSimulator]:
    """Start a simulator with links to the databases and without a job."""
    config = {
        "seconds": {"booting": 1, "running": 30},
        "clusters": [{"name": "demo", "links": databases.links}],
    }
    with CdmSimulator(config, clock=clock) as simulator:
        yield simulator
