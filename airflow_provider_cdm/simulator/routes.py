"""Every route of the simulator."""

from __future__ import annotations

from airflow_provider_cdm.simulator import (
    routes_clusters,
    routes_iam,
    routes_jobs,
    routes_links,
    routes_own,
)
from airflow_provider_cdm.simulator.routing import Router

ROUTER = Router(
    [
        *routes_iam.ROUTES,
        *routes_jobs.ROUTES,
        *routes_links.ROUTES,
        *routes_clusters.ROUTES,
        *routes_own.ROUTES,
    ]
)
