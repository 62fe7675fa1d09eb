"""Fixtures: a simulator with links to two databases, and without a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.order_databases import OrderDatabases


@pytest.fixture
def databases(tmp_path: Path) -> OrderDatabases:
    """Create the databases."""
    return OrderDatabases(tmp_path)


@pytest.fixture
def config(databases: OrderDatabases) -> dict[str, Any]:
    """Return the configuration of a simulator with links to the databases and without a job."""
    return {
        "seconds": {"booting": 1, "running": 30},
        "clusters": [{"name": "demo", "links": databases.links}],
    }
