"""Operators that start and stop CDM clusters, and what all operators for clusters share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from airflow_provider_cdm.client import arguments, errors
from airflow_provider_cdm.tasks.base import (
    DeferrableCdmTask,
    Duration,
    fail_without_retry,
    poll_interval_or_default,
)

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import Context
    from airflow_provider_cdm.client.api.cluster import Cluster
    from airflow_provider_cdm.client.clusters import RestartWatch
    from airflow_provider_cdm.client.session import CdmSession

StopMode = Literal["graceful", "immediate"]


class _Step(NamedTuple):
    """What an operator has done to a cluster, and what it does next.

    :param action: what was done to the cluster, if anything.
    :param states: states to wait for; empty to end the task.
    :param last: whether the cluster then is in the target state.
    """

    action: str | None = None
    states: tuple[str, ...] = ()
    last: bool = True


class ClusterStateOperator(DeferrableCdmTask):
    """Brings a cluster to a state: reads its state, acts if needed, waits, and reads again.

    Every attempt begins by reading the state, so a retry goes on with what an earlier one began.
    """

    template_fields: Sequence[str] = (
        *DeferrableCdmTask.template_fields,
        "poll_interval",
        "wait_timeout",
    )
    durations: ClassVar[Mapping[str, bool]] = {"poll_interval": False, "wait_timeout": True}
    ui_color = "#f4e3e3"
    _target: ClassVar[str]

    def __init__(
        self,
        *,
        wait_for_completion: bool = True,
        poll_interval: Duration | None = None,
        wait_timeout: Duration | None = 3600,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.wait_for_completion = wait_for_completion
        self.poll_interval: Any = poll_interval_or_default(poll_interval)
        self.wait_timeout: Any = wait_timeout

    @fail_without_retry
    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - Airflow passes it
        """Bring the cluster to the target state, and wait until it is there."""
        from airflow_provider_cdm.client import clusters

        self._settle_durations()
        session, cluster_id = self.hook.get_conn(), self.hook.resolve_cluster()
        deadline = session.clock() + self.wait_timeout if self.wait_timeout else None
        cluster = session.run(clusters.poll(session.api, cluster_id))
        return self._proceed(session, cluster, deadline)

    @fail_without_retry
    def execute_complete(
        self,
        context: Context,  # noqa: ARG002 - Airflow passes it
        event: Any = None,
        deadline: float | None = None,
        action: str | None = None,
    ) -> dict[str, Any]:
        """Go on after a deferred wait."""
        from airflow_provider_cdm.triggers.cluster import unwrap

        self._settle_durations()
        cluster = unwrap(event)
        return self._proceed(self.hook.get_conn(), cluster, deadline, action)

    def _proceed(
        self,
        session: CdmSession,
        cluster: Cluster,
        deadline: float | None,
        action: str | None = None,
    ) -> dict[str, Any]:
        while True:
            self.log.info("The %s is %s", cluster, cluster.state)
            if cluster.state == self._target:
                break
            step = self._step(session, cluster.ensure_usable())
            action = step.action or action
            if not step.states:
                break
            if step.last and not self.wait_for_completion:
                self.log.info(
                    "Not waiting until it is %s (wait_for_completion=False).",
                    self._target,
                )
                break
            cluster = self._wait(session, cluster.cluster_id, step.states, deadline, action)
        if action is None:
            self.log.info("Nothing to do")
        return self._result(cluster, action)

    @staticmethod
    def _result(cluster: Cluster, action: str | None) -> dict[str, Any]:
        return {
            "cluster_id": cluster.cluster_id,
            "name": cluster.name,
            "state": cluster.state,
            "action": action or "none",
        }

    def _wait(
        self,
        session: CdmSession,
        cluster_id: str,
        states: tuple[str, ...],
        deadline: float | None,
        action: str | None,
        restart: RestartWatch | None = None,
    ) -> Cluster:
        from airflow_provider_cdm.client.clusters import ClusterWaiter
        from airflow_provider_cdm.triggers.cluster import CdmClusterTrigger

        if self.deferrable:
            self.defer(
                trigger=CdmClusterTrigger(
                    cluster_id=cluster_id,
                    states=states,
                    poll_interval=self.poll_interval,
                    deadline=deadline,
                    restart=None if restart is None else restart.to_payload(),
                    project_id=self.project_id,
                    cdm_conn_id=self.cdm_conn_id,
                ),
                method_name="execute_complete",
                kwargs={"deadline": deadline, "action": action},
            )
        wait = ClusterWaiter(cluster_id, states, restart).wait(
            session.api,
            poll_interval=self.poll_interval,
            deadline=deadline,
            info=self.log.info,
        )
        return session.run(wait)

    def _step(self, session: CdmSession, cluster: Cluster) -> _Step:
        """Do what brings the cluster, which is in another state, nearer to the target state."""
        raise NotImplementedError


class InterruptingOperator(ClusterStateOperator):
    """Base of the operators that interrupt the runs on a cluster, unless they leave it alone.

    :param only_if_idle: leave the cluster running while a run of any job is active on it.
    :param delay: seconds that CDM waits (templated).
    """

    template_fields: Sequence[str] = (*ClusterStateOperator.template_fields, "delay")
    durations: ClassVar[Mapping[str, bool]] = {**ClusterStateOperator.durations, "delay": True}

    def __init__(
        self, *, only_if_idle: bool = True, delay: Duration | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.only_if_idle = only_if_idle
        self.delay: Any = delay

    @property
    def _whole_delay(self) -> int | None:
        """The delay in whole seconds, as CDM takes it."""
        return None if self.delay is None else math.ceil(self.delay)

    def _is_busy(self, session: CdmSession, cluster: Cluster) -> bool:
        """Return whether jobs are running on the cluster, and name them in the log."""
        from airflow_provider_cdm.client import clusters

        busy = session.run(clusters.busy_jobs(session.api, cluster.cluster_id))
        if busy:
            self.log.warning(
                "The %s is left running, because these jobs are running on it: %s",
                *(cluster, ", ".join(busy)),
            )
        return bool(busy)


class CdmStartClusterOperator(ClusterStateOperator):
    """Starts a stopped CDM cluster; succeeds if it is running already.

    Meant for the setup of migrations: ``start.as_setup() >> migrate >> stop.as_teardown(...)``. A
    cluster that is stopping is started as soon as it has stopped. Fails with
    :class:`~airflow_provider_cdm.exceptions.CdmClusterUnusable` when it is frozen or has failed.

    Returns ``cluster_id, name, state`` and ``action`` (``started`` or ``none``).

    :param cluster_id: the cluster; by default the connection's (templated).
    :param wait_for_completion: wait until jobs can run on it.
    :param deferrable: wait in the triggerer instead of on a worker.
    :param poll_interval: seconds between two polls of the cluster's state (templated); by default
        ``[cdm] poll_interval`` of ``airflow.cfg``, or 30.
    :param wait_timeout: seconds after which to stop waiting, with
        :class:`~airflow_provider_cdm.exceptions.CdmWaitTimeout`; ``None`` for never (templated).
    :param project_id: project of the cluster; by default the connection's (templated).
    :param cdm_conn_id: connection of type ``huaweicloud_cdm`` (templated).
    """

    _target = "normal"

    def _step(self, session: CdmSession, cluster: Cluster) -> _Step:
        from airflow_provider_cdm.client import clusters
        from airflow_provider_cdm.client.api import resources

        if cluster.state == "stopped":
            call = resources.start_cluster(cluster.cluster_id)
            session.run(clusters.send(session.api, call, cluster))
            self.log.info("Asked CDM to start the %s", cluster)
            return _Step("started", ("normal",))
        if cluster.state in ("starting", "restarting", "creating"):
            return _Step(states=("normal",))
        # Stopping, or a state that is not documented.
        return _Step(states=("stopped", "normal"), last=False)


class CdmStopClusterOperator(InterruptingOperator):
    """Stops a running CDM cluster; succeeds if it is stopped already.

    Meant for the teardown of migrations. By default it stops no cluster that is in use: while a run
    of any job is active, the cluster is left running, the log names those jobs, and the task
    succeeds. Fails with :class:`~airflow_provider_cdm.exceptions.CdmClusterUnusable`
    when the cluster is frozen or has failed.

    Returns ``cluster_id, name, state`` and ``action`` (``stopped``, ``left running`` or ``none``).

    :param cluster_id: the cluster; by default the connection's (templated).
    :param only_if_idle: leave the cluster running while a run of any job is active on it.
    :param stop_mode: ``graceful``: the cluster accepts no new runs, and active ones go on for
        ``delay``; ``immediate``: active runs fail.
    :param delay: seconds for which active runs may go on; by default until they have ended
        (templated).
    :param wait_for_completion: wait until it has stopped.
    :param deferrable: wait in the triggerer instead of on a worker.
    :param poll_interval: seconds between two polls of the cluster's state (templated); by default
        ``[cdm] poll_interval`` of ``airflow.cfg``, or 30.
    :param wait_timeout: seconds after which to stop waiting, with
        :class:`~airflow_provider_cdm.exceptions.CdmWaitTimeout`; ``None`` for never (templated).
    :param project_id: project of the cluster; by default the connection's (templated).
    :param cdm_conn_id: connection of type ``huaweicloud_cdm`` (templated).
    """

    _target = "stopped"

    def __init__(
        self, *, stop_mode: StopMode = "graceful", delay: Duration | None = None, **kwargs: Any
    ) -> None:
        super().__init__(delay=delay, **kwargs)
        self.stop_mode = stop_mode
        arguments.one_of("stop_mode", stop_mode, ("graceful", "immediate"))
        if delay is not None and stop_mode != "graceful":
            raise errors.CdmConfigError(
                f"delay needs stop_mode='graceful'; it is {delay!r} with {stop_mode!r}."
            )

    def _step(self, session: CdmSession, cluster: Cluster) -> _Step:
        if cluster.state == "normal":
            return self._stop(session, cluster)
        if cluster.state == "stopping":
            return _Step(states=("stopped",))
        # On its way to normal, or a state that is not documented.
        return _Step(states=("stopped", "normal"), last=False)

    def _stop(self, session: CdmSession, cluster: Cluster) -> _Step:
        from airflow_provider_cdm.client import clusters
        from airflow_provider_cdm.client.api import resources

        if self.only_if_idle and self._is_busy(session, cluster):
            return _Step("left running")
        graceful = self.stop_mode == "graceful"
        call = resources.stop_cluster(
            cluster.cluster_id, graceful=graceful, delay=self._whole_delay
        )
        session.run(clusters.send(session.api, call, cluster))
        self.log.info("Asked CDM to stop the %s", cluster)
        return _Step("stopped", ("stopped",))
