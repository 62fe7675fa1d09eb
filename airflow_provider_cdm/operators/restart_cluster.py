"""The operator that restarts a CDM cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_cdm.client import arguments, errors
from airflow_provider_cdm.operators.clusters import InterruptingOperator

if TYPE_CHECKING:
    from airflow_provider_cdm.client.api.cluster import Cluster
    from airflow_provider_cdm.client.session import CdmSession

RestartMode = Literal["immediate", "soft", "force"]


class CdmRestartClusterOperator(InterruptingOperator):
    """Restarts a running CDM cluster, and waits until jobs can run on it again.

    CDM fails all active runs when a cluster restarts. By default no cluster that is in use is
    restarted: while a run of any job is active, the cluster is left running, the log names those
    jobs, and the task succeeds. A cluster that is starting is restarted once it runs. One that is
    restarting already, such as for an earlier attempt of the task, is only waited for. A stopped
    cluster fails the task with :class:`~airflow_provider_cdm.exceptions.CdmRefused`, a frozen or
    failed one with :class:`~airflow_provider_cdm.exceptions.CdmClusterUnusable`.

    Returns ``cluster_id, name, state`` and ``action`` (``restarted``, ``left running`` or
    ``none``).

    :param cluster_id: the cluster; by default the connection's (templated).
    :param only_if_idle: leave the cluster running while a run of any job is active on it.
    :param restart_mode: how CDM restarts it: ``immediate``, ``soft`` or ``force``.
    :param delay: seconds after which CDM begins; by default at once (templated).
    :param wait_for_completion: wait until jobs can run on it again.
    :param deferrable: wait in the triggerer instead of on a worker.
    :param poll_interval: seconds between two polls of the cluster's state (templated); by default
        ``[cdm] poll_interval`` of ``airflow.cfg``, or 30.
    :param wait_timeout: seconds after which to stop waiting, with
        :class:`~airflow_provider_cdm.exceptions.CdmWaitTimeout`; ``None`` for never (templated).
    :param project_id: project of the cluster; by default the connection's (templated).
    :param cdm_conn_id: connection of type ``huaweicloud_cdm`` (templated).
    """

    _target = "normal"

    def __init__(self, *, restart_mode: RestartMode = "immediate", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.restart_mode = restart_mode
        arguments.one_of("restart_mode", restart_mode, ("immediate", "soft", "force"))

    def _proceed(
        self,
        session: CdmSession,
        cluster: Cluster,
        deadline: float | None,
        action: str | None = None,
    ) -> dict[str, Any]:
        self.log.info("The %s is %s", cluster, cluster.state)
        while action is None and (cluster.state != self._target or cluster.is_restarting):
            cluster, action = self._wait_until_running(session, cluster, deadline)
        if action is None:
            cluster, action = self._restart(session, cluster, deadline)
        return self._result(cluster, action)

    def _wait_until_running(
        self, session: CdmSession, cluster: Cluster, deadline: float | None
    ) -> tuple[Cluster, str | None]:
        """Wait for a cluster that is not running; return also what then was done to it."""
        from airflow_provider_cdm.client.clusters import RestartWatch

        cluster.ensure_usable()
        if cluster.state == "stopped":
            raise errors.CdmRefused(
                f"Cluster {cluster.name!r} is stopped, so it cannot be restarted. Start it with"
                f" CdmStartClusterOperator (cluster {cluster.cluster_id})."
            )
        if not cluster.is_restarting:
            states = ("normal", "stopped")
            return self._wait(session, cluster.cluster_id, states, deadline, None), None
        if not self.wait_for_completion:
            return cluster, "none"
        watch = RestartWatch(cluster, session.clock())
        return self._wait(session, cluster.cluster_id, ("normal",), deadline, "none", watch), "none"

    def _restart(
        self, session: CdmSession, cluster: Cluster, deadline: float | None
    ) -> tuple[Cluster, str]:
        """Restart a running cluster; return it afterwards, and what was done to it."""
        from airflow_provider_cdm.client import clusters
        from airflow_provider_cdm.client.api import resources

        if self.only_if_idle and self._is_busy(session, cluster):
            return cluster, "left running"
        delay = self._whole_delay or 0
        watch = clusters.RestartWatch(cluster, session.clock(), delay)
        call = resources.restart_cluster(cluster.cluster_id, mode=self.restart_mode, delay=delay)
        session.run(clusters.send(session.api, call, cluster))
        self.log.info("Asked CDM to restart the %s", cluster)
        if not self.wait_for_completion:
            return cluster, "restarted"
        states = ("normal",)
        return self._wait(
            session, cluster.cluster_id, states, deadline, "restarted", watch
        ), "restarted"
