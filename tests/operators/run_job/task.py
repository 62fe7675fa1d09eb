"""The task under test, its job, and what it sent."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_cdm.operators import CdmRunJobOperator
from airflow_provider_cdm.simulator import CdmSimulator
from tests.support.order_databases import DAY

MODES = {"on the worker": {"deferrable": False}, "deferred": {"deferrable": True}}
each_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)


def config_block(block: str, **values: Any) -> dict[str, Any]:
    """Return a block of a definition with one configuration."""
    listed = [{"name": f"{block}.{name}", "value": value} for name, value in values.items()]
    return {"configs": [{"name": block, "inputs": listed}]}


def definition(
    where: str | None = "day = '${dt}'",
    target: str = "orders",
    name: str = "orders",
    driver: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the definition of a job that moves the rows of a day, or all without a condition."""
    source = (
        {"tableName": "orders"} if where is None else {"tableName": "orders", "whereClause": where}
    )
    body = {
        "name": name,
        "from-connector-name": "generic-jdbc-connector",
        "from-link-name": "shop",
        "from-config-values": config_block("fromJobConfig", **source),
        "to-connector-name": "generic-jdbc-connector",
        "to-link-name": "warehouse",
        "to-config-values": config_block("toJobConfig", tableName=target),
    }
    return {**body, "driver-config-values": driver} if driver else body


def migrate(**arguments: Any) -> CdmRunJobOperator:
    """Make the operator under test."""
    defaults = {"task_id": "t", "definition": definition(), "variables": {"dt": DAY}}
    return CdmRunJobOperator(**{**defaults, **MODES["on the worker"], **arguments})


def sent_routes(sim: CdmSimulator) -> list[str]:
    """Return the routes of the calls that CDM received, without logins and calls that only read."""
    read_routes = ("token", "show_job", "status", "submissions")
    return [request.route for request in sim.requests if request.route not in read_routes]


def created_job_names(sim: CdmSimulator) -> list[str]:
    """Return the names of all jobs ever created, oldest first."""
    names = [r.json()["jobs"][0]["name"] for r in sim.requests if r.route == "create_job"]
    return list(dict.fromkeys(names))
