"""Everything a simulator consists of, behind one lock."""

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

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from airflow_provider_cdm.simulator.clock import Clock
    from airflow_provider_cdm.simulator.config.config import ProjectConfig, SimulatorConfig


class Backend:
    """Clusters, identities, quotas, faults and the log.

    Whoever looks at clusters or identities holds :attr:`lock`; faults and log have their own.

    :param config: how it begins.
    :param clock: tells the time.
    :param routes: short names of the routes there are.
    :raises ConfigError: when quotas or faults are not understood.
    """

    def __init__(self, config: SimulatorConfig, clock: Clock, routes: Collection[str]) -> None:
        self.config, self.clock = config, clock
        self.behaviour = config.behaviour
        self.lock = threading.RLock()
        self.event_queue = EventQueue(clock, self.lock)
        self.faults = FaultScript(routes)
        self.log = RequestLog()
        #: Called at each reset; the server ends hanging requests then.
        self.on_reset: Callable[[], None] = lambda: None
        self.reset()

    def reset(self) -> None:
        """Begin anew as configured; what was moved between databases stays moved."""
        with self.lock:
            config = self.config
            self.event_queue.clear()
            self.iam = Iam(config)
            self.gateway = Gateway(config, self.iam)
            self.quotas = Quotas(config.quotas, retry_after=self.behaviour.retry_after)
            self.clusters = {
                each.id: Cluster(each, self._project(each.project).id, self.event_queue, config)
                for each in config.clusters
            }
            self.log.clear()
            self.faults.clear()
            self.faults.add(*config.faults)
        self.on_reset()

    def cluster(self, cluster_id: str, project_id: str | None = None) -> Cluster:
        """Return a cluster.

        :param cluster_id: its id.
        :param project_id: the project it must belong to; ``None`` for any.
        :raises CdmError: when there is none; what job routes say then is ASSUMED.
        """
        cluster = self.clusters.get(cluster_id)
        if cluster is None or project_id not in (None, cluster.project_id):
            raise CdmError(400, "Cdm.0001", f"Cluster {cluster_id} does not exist.")
        return cluster

    def require_project(self, project_id: str) -> None:
        """Refuse a project that does not exist; for requests whose credentials nobody checks.

        :param project_id: id in the path.
        :raises GatewayError: when there is no such project.
        """
        if project_id not in {each.id for each in self.config.projects}:
            raise GatewayError(403, "APIGW.0310", "The project does not exist.")

    def _project(self, key: str | None) -> ProjectConfig:
        projects = self.config.projects
        return next((each for each in projects if key in (each.id, each.name)), projects[0])
