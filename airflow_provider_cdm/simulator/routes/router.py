"""The router with all routes of the simulator."""

from __future__ import annotations

from airflow_provider_cdm.simulator.routes import clusters, control, iam, jobs, links
from airflow_provider_cdm.simulator.routes.routing import Router

ROUTER = Router(
    [
        *iam.ROUTES,
        *jobs.ROUTES,
        *links.ROUTES,
        *clusters.ROUTES,
        *control.ROUTES,
    ]
)
