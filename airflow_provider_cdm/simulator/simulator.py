"""The simulator as a context manager: what tests and demos hold in their hands."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlencode

from airflow_provider_cdm.simulator.app import App
from airflow_provider_cdm.simulator.backend.backend import Backend
from airflow_provider_cdm.simulator.clock import Clock, SystemClock
from airflow_provider_cdm.simulator.config.config import LinkConfig, SimulatorConfig, load
from airflow_provider_cdm.simulator.config.faults import Fault, FaultScript, Kind, When
from airflow_provider_cdm.simulator.config.reader import read
from airflow_provider_cdm.simulator.routes.router import ROUTER
from airflow_provider_cdm.simulator.server import Server
from airflow_provider_cdm.simulator.web.page import RUN_PAGE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from airflow_provider_cdm.simulator.backend.cluster import Cluster
    from airflow_provider_cdm.simulator.backend.request_log import RecordedRequest
    from airflow_provider_cdm.simulator.backend.run import RunLifecycle, Run


class CdmSimulator:
    """CDM and IAM on the loopback interface, from ``with`` to the end of its block.

    Everything here may be called from any thread while the server is running.

    :param config: what there is: a mapping, a path to YAML, or ``None`` for one user, one project
        and one cluster without jobs.
    :param host: address to listen on.
    :param port: port to listen on, 0 for any free one.
    :param clock: tells the simulator the time; default the machine's.
    :param allow_any_host: permit an address that other machines can reach.
    :raises ConfigError: when the configuration is wrong; it lists everything.
    :raises ValueError: when ``host`` is not a loopback address, unless permitted.
    """

    def __init__(
        self,
        config: SimulatorConfig | Mapping[str, Any] | str | Path | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Clock | None = None,
        allow_any_host: bool = False,
    ) -> None:
        self.config = load(config)
        self.clock: Clock = clock or SystemClock()
        self._backend = Backend(self.config, self.clock, ROUTER.names())
        self._app = App(self._backend)
        self._server = Server(
            self._app, host, port, allow_any_host=allow_any_host, on_stop=self._app.release
        )
        self._backend.on_reset = lambda: self._server.run_in_loop(self._app.release)

    def __enter__(self) -> Self:
        self._server.start()
        self._backend.event_queue.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.stop()
        self._backend.event_queue.stop()

    # Where and who

    @property
    def url(self) -> str:
        """The CDM endpoint; in a browser, the page of clusters, jobs and runs."""
        return self._server.url

    @property
    def iam_url(self) -> str:
        """The IAM endpoint, which is the same server."""
        return self.url

    @property
    def project_id(self) -> str:
        """Id of the first project."""
        return self.config.projects[0].id

    @property
    def region(self) -> str:
        """Name of the first project."""
        return self.config.projects[0].name

    @property
    def cluster_id(self) -> str:
        """Id of the first cluster."""
        return self.config.clusters[0].id

    @property
    def user(self) -> str:
        """Name of the first user."""
        return self.config.users[0].name

    @property
    def password(self) -> str:
        """Password of the first user."""
        return self.config.users[0].password

    @property
    def domain(self) -> str:
        """Account of the first user."""
        return self.config.users[0].domain or self.config.domain

    @property
    def connection_extra(self) -> dict[str, Any]:
        """``extra`` of an Airflow connection to this simulator."""
        return {
            "region": self.region,
            "project_id": self.project_id,
            "domain_name": self.domain,
            "iam_endpoint": self.iam_url,
            "cluster_id": self.cluster_id,
            # Where the button "CDM run" of a task leads.
            "console_url": f"{self.url}{RUN_PAGE}",
        }

    @property
    def connection(self) -> dict[str, Any]:
        """An Airflow connection to this simulator, as plain data."""
        return {
            "conn_type": "huaweicloud_cdm",
            "login": self.user,
            "password": self.password,
            "host": self.url,
            "extra": self.connection_extra,
        }

    @property
    def connection_json(self) -> str:
        """:attr:`connection` as a value for ``AIRFLOW_CONN_CDM_DEFAULT``."""
        return json.dumps(self.connection)

    @property
    def connection_uri(self) -> str:
        """:attr:`connection` in Airflow's URI form."""
        user, password, host = (
            quote(each, safe="") for each in (self.user, self.password, self.url)
        )
        return f"huaweicloud-cdm://{user}:{password}@{host}/?{urlencode(self.connection_extra)}"

    # What happened

    @property
    def requests(self) -> list[RecordedRequest]:
        """The requests since the start or the last reset, oldest first (of many, the last ones)."""
        return self._backend.log.entries()

    def runs(self, job_name: str, cluster_id: str | None = None) -> list[Run]:
        """Return copies of a job's submissions as they are now, newest last.

        Looking here is no read in the sense of a job's ``statuses``.

        :param job_name: name of the job, which may be gone.
        :param cluster_id: default the first cluster.
        """
        with self._backend.lock:
            self._backend.event_queue.run_due()
            lifecycles = [
                lifecycle for lifecycle in self._cluster(cluster_id).lifecycles if lifecycle.run.job_name == job_name
            ]
            return [_snapshot(lifecycle) for lifecycle in lifecycles]

    def jobs(self, cluster_id: str | None = None) -> list[str]:
        """Return the names of the jobs that a cluster has now, oldest first.

        :param cluster_id: default the first cluster.
        """
        with self._backend.lock:
            self._backend.event_queue.run_due()
            return list(self._cluster(cluster_id).jobs)

    def cluster_status(self, cluster_id: str | None = None) -> str:
        """Return the status code of a cluster, such as ``200``.

        :param cluster_id: default the first cluster.
        """
        with self._backend.lock:
            self._backend.event_queue.run_due()
            return self._cluster(cluster_id).status

    # What shall happen

    @property
    def faults(self) -> FaultScript:
        """The scripted misbehaviour that is still to come."""
        return self._backend.faults

    def fail(self, route: str, kind: Kind, when: When = "before", **settings: Any) -> Fault:
        """Script a misbehaviour.

        :param route: short route name, such as ``start``; ``*`` for every route.
        :param kind: ``drop``, ``reset``, ``hang``, ``delay``, ``status`` or ``body``.
        :param when: ``before`` the request has an effect, or ``call_later``.
        :param settings: what else :class:`Fault` takes.
        :raises ConfigError: when there is no such route, or the settings contradict each other.
        """
        fault = read(Fault, {**settings, "route": route, "kind": kind, "when": when}, "fault")
        self.faults.add(fault)
        return fault

    def add_job(self, name: str, cluster_id: str | None = None, **settings: Any) -> None:
        """Add a job, or change these settings of the job of that name.

        :param name: name of the job.
        :param cluster_id: default the first cluster.
        :param settings: keys of a job's configuration, with ``from_`` for ``from``.
        :raises ConfigError: when they are wrong.
        """
        with self._backend.lock:
            self._cluster(cluster_id).change_job(name, settings)

    def add_link(self, name: str, cluster_id: str | None = None, **settings: Any) -> None:
        """Add a link, or replace the one of that name.

        :param name: name of the link.
        :param cluster_id: default the first cluster.
        :param settings: keys of a link's configuration, such as ``url``.
        :raises ConfigError: when they are wrong.
        """
        link = read(LinkConfig, {**settings, "name": name}, f"link {name}")
        with self._backend.lock:
            self._cluster(cluster_id).put_configured_link(link)

    def start(
        self,
        job_name: str,
        cluster_id: str | None = None,
        variables: Mapping[str, str] | None = None,
        *,
        auto: bool = False,
        user: str = "somebody-else",
    ) -> Run:
        """Start a job as somebody else would, not over HTTP; return a copy of the submission.

        :param job_name: name of the job.
        :param cluster_id: default the first cluster.
        :param variables: values for this run.
        :param auto: CDM's own scheduler starts it.
        :param user: who starts it.
        :raises WireError: when CDM would refuse.
        """
        with self._backend.lock:
            self._backend.event_queue.run_due()
            cluster = self._cluster(cluster_id)
            return _snapshot(cluster.start(job_name, variables or {}, user, auto))

    def stop(self, job_name: str, cluster_id: str | None = None) -> Run:
        """Ask the active run of a job to stop, as somebody else would; return a copy of it.

        :param job_name: name of the job.
        :param cluster_id: default the first cluster.
        :raises WireError: when CDM would refuse.
        """
        with self._backend.lock:
            self._backend.event_queue.run_due()
            return _snapshot(self._cluster(cluster_id).stop(job_name))

    def revoke_tokens(self) -> None:
        """Make every token issued so far unknown, as a password change does."""
        with self._backend.lock:
            self._backend.iam.revoke_tokens()

    def reset(self) -> None:
        """Begin anew as configured: no requests, runs or tokens; hanging requests are dropped.

        Faults are those of the configuration. Rows moved between databases stay moved.
        """
        self._backend.reset()

    def _cluster(self, cluster_id: str | None) -> Cluster:
        return self._backend.cluster(cluster_id or self.cluster_id)


def _snapshot(lifecycle: RunLifecycle) -> Run:
    lifecycle.update_progress()
    return copy.copy(lifecycle.run)
