"""The simulator as a context manager, for tests and demos."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlencode

from airflow_provider_cdm.simulator.app import App
from airflow_provider_cdm.simulator.backend.backend import Backend
from airflow_provider_cdm.simulator.clock import Clock, SystemClock
from airflow_provider_cdm.simulator.config.config import (
    AccessKey,
    LinkConfig,
    SimulatorConfig,
    load,
)
from airflow_provider_cdm.simulator.config.faults import Fault, FaultScript, Kind, When
from airflow_provider_cdm.simulator.config.reader import read
from airflow_provider_cdm.simulator.gateway.certificate import Certificate
from airflow_provider_cdm.simulator.gateway.web_access import WebAccess
from airflow_provider_cdm.simulator.routes.router import ROUTER
from airflow_provider_cdm.simulator.server import Server
from airflow_provider_cdm.simulator.web.page import RUN_PAGE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from airflow_provider_cdm.simulator.backend.cluster import Cluster
    from airflow_provider_cdm.simulator.backend.lifecycle import RunLifecycle
    from airflow_provider_cdm.simulator.backend.request_log import RecordedRequest
    from airflow_provider_cdm.simulator.backend.run import Run


class CdmSimulator:
    """Serves CDM and IAM on the loopback interface for the duration of a ``with`` block.

    All methods and properties can be used from any thread while the server is running.

    :param config: mapping, path of a YAML file, or ``None`` for one user, one project and one
        cluster without jobs.
    :param host: address to listen on.
    :param port: port to listen on, 0 for any free port.
    :param clock: source of the time; default the clock of this machine.
    :param allow_any_host: whether addresses that other machines can reach are allowed.
    :raises ConfigError: if the configuration is not valid; it lists all problems.
    :raises ValueError: if ``host`` is not a loopback address, unless this is allowed.
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
        self._app = App(self._backend, WebAccess([host, *self.config.hosts]))
        self._certificate = self._new_certificate(host) if self.config.tls else None
        self._server = Server(
            self._app,
            host,
            port,
            allow_any_host=allow_any_host,
            on_stop=self._app.release,
            certificate=self._certificate,
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
        self._backend.close()

    # Addresses and credentials

    @property
    def url(self) -> str:
        """The CDM endpoint; a browser shows the page of clusters, jobs and runs here."""
        return self._server.url

    @property
    def iam_url(self) -> str:
        """The IAM endpoint, which is the same server."""
        return self.url

    @property
    def certificate_file(self) -> Path | None:
        """File of the certificate that clients have to trust; ``None`` without TLS."""
        return None if self._certificate is None else self._certificate.file

    @property
    def project_id(self) -> str:
        """Id of the first configured project."""
        return self.config.projects[0].id

    @property
    def region(self) -> str:
        """Region: the name of the first configured project."""
        return self.config.projects[0].name

    @property
    def cluster_id(self) -> str:
        """Id of the first configured cluster."""
        return self.config.clusters[0].id

    @property
    def user(self) -> str:
        """Name of the first configured user."""
        return self.config.users[0].name

    @property
    def password(self) -> str:
        """Password of the first configured user; a random one if the configuration names none."""
        return self.config.users[0].password

    @property
    def domain(self) -> str:
        """Account of the first configured user."""
        return self.config.users[0].domain or self.config.domain

    @property
    def connection_extra(self) -> dict[str, Any]:
        """``extra`` of an Airflow connection to this simulator."""
        trusted = {} if self.certificate_file is None else {"verify": str(self.certificate_file)}
        return {
            **trusted,
            "region": self.region,
            "project_id": self.project_id,
            "domain_name": self.domain,
            "iam_endpoint": self.iam_url,
            "cluster_id": self.cluster_id,
            # Target of the link "CDM run" of a task.
            "console_url": f"{self.url}{RUN_PAGE}",
        }

    @property
    def connection(self) -> dict[str, Any]:
        """An Airflow connection to this simulator, as a dictionary."""
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
        """:attr:`connection` in Airflow's URI form.

        It names the port by itself, because Airflow 3.3.2 cannot test a stored connection without.
        """
        url, _, port = self.url.rpartition(":")
        user, password, host = (quote(value, safe="") for value in (self.user, self.password, url))
        query = urlencode(self.connection_extra)
        return f"huaweicloud-cdm://{user}:{password}@{host}:{port}/?{query}"

    # State

    @property
    def requests(self) -> list[RecordedRequest]:
        """The requests since the start or the last reset, the oldest first.

        The log keeps the last 20,000, of at most 64 MB together, and no body of more than 1 MB.
        """
        return self._backend.log.entries()

    def runs(self, job_name: str, cluster_id: str | None = None) -> list[Run]:
        """Return copies of the current submissions of a job, the newest last.

        This does not count as a read of scripted ``statuses``.

        :param job_name: name of the job, which may have been deleted.
        :param cluster_id: id of the cluster; default the first cluster.
        """
        with self._backend.lock:
            self._backend.event_queue.run_due()
            lifecycles = self._cluster(cluster_id).lifecycles
            return [_copy_run(item) for item in lifecycles if item.run.job_name == job_name]

    def jobs(self, cluster_id: str | None = None) -> list[str]:
        """Return the names of the current jobs of a cluster, the oldest first.

        :param cluster_id: id of the cluster; default the first cluster.
        """
        with self._backend.lock:
            self._backend.event_queue.run_due()
            return list(self._cluster(cluster_id).jobs)

    def cluster_status(self, cluster_id: str | None = None) -> str:
        """Return the status code of a cluster, such as ``200``.

        :param cluster_id: id of the cluster; default the first cluster.
        """
        with self._backend.lock:
            self._backend.event_queue.run_due()
            return self._cluster(cluster_id).status

    # Control

    @property
    def faults(self) -> FaultScript:
        """The faults that can still occur."""
        return self._backend.faults

    def fail(self, route: str, kind: Kind, when: When = "before", **settings: Any) -> Fault:
        """Add a fault.

        :param route: short route name, such as ``start``; ``*`` for every route.
        :param kind: ``drop``, ``reset``, ``hang``, ``delay``, ``status`` or ``body``.
        :param when: ``before`` or ``after`` the request has its effect.
        :param settings: other parameters of :class:`Fault`.
        :raises ConfigError: if the route does not exist or the settings are not valid.
        """
        fault = read(Fault, {**settings, "route": route, "kind": kind, "when": when}, "fault")
        self.faults.add(fault)
        return fault

    def add_job(self, name: str, cluster_id: str | None = None, **settings: Any) -> None:
        """Add a job, or change some settings of the job with the same name.

        :param name: name of the job.
        :param cluster_id: id of the cluster; default the first cluster.
        :param settings: configuration of the job, with ``from_`` for the key ``from``.
        :raises ConfigError: if the settings are not valid.
        """
        with self._backend.lock:
            self._cluster(cluster_id).change_job(name, settings)

    def add_link(self, name: str, cluster_id: str | None = None, **settings: Any) -> None:
        """Add a link, or replace the link with the same name.

        :param name: name of the link.
        :param cluster_id: id of the cluster; default the first cluster.
        :param settings: configuration of the link, such as ``url``.
        :raises ConfigError: if the settings are not valid.
        """
        link = read(LinkConfig, {**settings, "name": name}, f"link {name}")
        with self._backend.lock:
            self._cluster(cluster_id).links.put_configured(link)

    def start(
        self,
        job_name: str,
        cluster_id: str | None = None,
        variables: Mapping[str, str] | None = None,
        *,
        auto: bool = False,
        user: str = "somebody-else",
    ) -> Run:
        """Start a job without HTTP, as another user would, and return a copy of the submission.

        :param job_name: name of the job.
        :param cluster_id: id of the cluster; default the first cluster.
        :param variables: variables of the run.
        :param auto: whether CDM's own scheduler starts it.
        :param user: name of the user who starts it.
        :raises WireError: if CDM would return an error.
        """
        with self._backend.lock:
            self._backend.event_queue.run_due()
            cluster = self._cluster(cluster_id)
            return _copy_run(cluster.start(job_name, variables or {}, user, auto))

    def stop(self, job_name: str, cluster_id: str | None = None) -> Run:
        """Stop the active run of a job, as another user would, and return a copy of it.

        :param job_name: name of the job.
        :param cluster_id: id of the cluster; default the first cluster.
        :raises WireError: if CDM would return an error.
        """
        with self._backend.lock:
            self._backend.event_queue.run_due()
            return _copy_run(self._cluster(cluster_id).stop(job_name))

    def revoke_tokens(self) -> None:
        """Invalidate all tokens that were issued so far, as a password change does."""
        with self._backend.lock:
            self._backend.iam.revoke_tokens()

    def rotate(
        self,
        *,
        password: str | None = None,
        access_keys: Sequence[Mapping[str, str]] | None = None,
        user: str | None = None,
    ) -> None:
        """Replace the password or the access keys of a user, and invalidate the user's tokens.

        Properties such as :attr:`connection` keep what is configured; a reset returns to that.

        :param password: new password; by default it stays.
        :param access_keys: all access keys from now on, as in the configuration; by default they
            stay.
        :param user: name of the user; default the first configured one.
        :raises ConfigError: if the access keys are not valid.
        """
        name = user or self.user
        keys = [read(AccessKey, key, "access_keys") for key in access_keys or ()]
        with self._backend.lock:
            if password is not None:
                self._backend.iam.change_password(name, password)
            if access_keys is not None:
                self._backend.gateway.change_access_keys(name, keys)
                self._backend.iam.forget_tokens_of(name)

    def reset(self) -> None:
        """Return to the configured state, without requests, runs and tokens.

        The faults are those of the configuration. The connections of hanging requests are closed.
        Rows that were moved between databases stay moved.
        """
        self._backend.reset()

    def _new_certificate(self, host: str) -> Certificate:
        file = self.config.certificate
        return Certificate(
            (host, *self.config.hosts), Path(self.config.base, file).absolute() if file else None
        )

    def _cluster(self, cluster_id: str | None) -> Cluster:
        return self._backend.cluster(cluster_id or self.cluster_id)


def _copy_run(lifecycle: RunLifecycle) -> Run:
    lifecycle.update_progress()
    return copy.copy(lifecycle.run)
