"""The complete state of a simulator, behind one lock."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from airflow_provider_cdm.simulator.backend.cluster import Cluster
from airflow_provider_cdm.simulator.backend.event_queue import EventQueue
from airflow_provider_cdm.simulator.backend.request_log import RequestLog
from airflow_provider_cdm.simulator.config.faults import FaultScript
from airflow_provider_cdm.simulator.errors import CdmError, GatewayError
from airflow_provider_cdm.simulator.gateway.api_gateway import Gateway
from airflow_provider_cdm.simulator.gateway.iam import Iam
from airflow_provider_cdm.simulator.gateway.quotas import Quotas
from airflow_provider_cdm.simulator.transfer import jdbc

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from airflow_provider_cdm.simulator.backend.lifecycle import RunLifecycle
    from airflow_provider_cdm.simulator.clock import Clock
    from airflow_provider_cdm.simulator.config.config import ProjectConfig, SimulatorConfig


class Backend:
    """The clusters, identities, quotas, faults and the request log.

    Hold :attr:`lock` to access clusters or identities; faults and request log have their own locks.

    :param config: initial state.
    :param clock: source of the time.
    :param routes: short names of all routes.
    :raises ConfigError: if quotas or faults are not valid.
    """

    def __init__(self, config: SimulatorConfig, clock: Clock, routes: Collection[str]) -> None:
        self.config, self.clock = config, clock
        self.behaviour = config.behaviour
        self.lock = threading.RLock()
        self.event_queue = EventQueue(clock, self.lock)
        self.faults = FaultScript(routes)
        self.log = RequestLog()
        #: Function to call at each reset; the server uses it to end hanging requests.
        self.on_reset: Callable[[], None] = lambda: None
        self.clusters: dict[str, Cluster] = {}
        self.reset()

    def reset(self) -> None:
        """Return to the configured state; rows that were moved between databases stay moved."""
        with self.lock:
            config = self.config
            self._abandon_runs()
            self.event_queue.clear()
            self.iam = Iam(config)
            self.gateway = Gateway(config, self.iam)
            self.quotas = Quotas(config.quotas, self.behaviour)
            self.clusters = {
                cluster.id: Cluster(
                    cluster, self._project(cluster.project).id, self.event_queue, config
                )
                for cluster in config.clusters
            }
            self.log.clear()
            self.faults.clear()
            self.faults.add(*config.faults)
        self.on_reset()

    def close(self) -> None:
        """Stop all events; when this returns, no rows are inserted any more."""
        with self.lock:
            lifecycles = self._abandon_runs()
        self.event_queue.stop()
        self.event_queue.wait_until(
            lambda: not any(lifecycle.committing for lifecycle in lifecycles), jdbc.BUSY_TIMEOUT
        )

    def cluster(self, cluster_id: str, project_id: str | None = None) -> Cluster:
        """Return a cluster.

        :param cluster_id: id of the cluster.
        :param project_id: id of the project that it must belong to; ``None`` for any.
        :raises CdmError: if there is no such cluster; this error of job routes is ASSUMED.
        """
        cluster = self.clusters.get(cluster_id)
        if cluster is None or project_id not in (None, cluster.project_id):
            raise CdmError(400, "Cdm.0001", f"Cluster {cluster_id} does not exist.")
        return cluster

    def require_project(self, project_id: str) -> None:
        """Raise an error unless a project exists; used if credentials are not checked.

        :param project_id: id in the path of the request.
        :raises GatewayError: if there is no such project.
        """
        if project_id not in {project.id for project in self.config.projects}:
            raise GatewayError(403, "APIGW.0310", "The project does not exist.")

    def _abandon_runs(self) -> list[RunLifecycle]:
        lifecycles = [item for cluster in self.clusters.values() for item in cluster.lifecycles]
        for lifecycle in lifecycles:
            lifecycle.abandon()
        return lifecycles

    def _project(self, key: str | None) -> ProjectConfig:
        projects = self.config.projects
        matching = (project for project in projects if key in (project.id, project.name))
        return next(matching, projects[0])
