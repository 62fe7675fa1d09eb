"""Operators that start and stop CDM clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from airflow_provider_cdm.client import arguments, clusters, errors
from airflow_provider_cdm.client.api import resources
from airflow_provider_cdm.client.api.cluster import NORMAL, STOPPED
from airflow_provider_cdm.client.clusters import ClusterWaiter
from airflow_provider_cdm.tasks.base import DeferrableCdmTask, fail_without_retry
from airflow_provider_cdm.triggers.cluster import CdmClusterTrigger, unwrap

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import Context
    from airflow_provider_cdm.client.api.cluster import Cluster
    from airflow_provider_cdm.client.session import CdmSession

StopMode = Literal["graceful", "immediate"]


class _Step(NamedTuple):
    """What comes next.

    :param action: what has been done to the cluster just now, if anything.
    :param states: what to wait for; none to stop here.
    :param last: whether the cluster is as wanted then.
    """

    action: str | None = None
    states: tuple[str, ...] = ()
    last: bool = True


class _ClusterStateOperator(DeferrableCdmTask):
    """Brings a cluster to a state: looks at it, acts where that is right, waits, and looks again.

    Every attempt begins with a look, so a retry takes up what an earlier one has begun.
    """

    ui_color = "#f4e3e3"
    _wanted: ClassVar[str]

    def __init__(
        self,
        *,
        wait_for_completion: bool = True,
        poll_interval: float = 30,
        wait_timeout: float | None = 3600,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.wait_for_completion = wait_for_completion
        self.poll_interval = poll_interval
        self.wait_timeout = wait_timeout
        arguments.positive_seconds(poll_interval=poll_interval, wait_timeout=wait_timeout)

    @fail_without_retry
    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - Airflow passes it
        """Bring the cluster to the state, and wait until it is there."""
        session, cluster_id = self.hook.get_conn(), self.hook.resolve_cluster()
        deadline = session.clock() + self.wait_timeout if self.wait_timeout else None
        seen = session.run(clusters.poll(session.api, cluster_id))
        return self._go_on(session, seen, deadline)

    @fail_without_retry
    def execute_complete(
        self,
        context: Context,  # noqa: ARG002 - Airflow passes it
        event: Any = None,
        deadline: float | None = None,
        action: str | None = None,
    ) -> dict[str, Any]:
        """Go on after a deferred wait."""
        seen = unwrap(event)
        return self._go_on(self.hook.get_conn(), seen, deadline, action)

    def _go_on(
        self,
        session: CdmSession,
        seen: Cluster,
        deadline: float | None,
        action: str | None = None,
    ) -> dict[str, Any]:
        while True:
            self.log.info("The %s is %s", seen, seen.state)
            if seen.state == self._wanted:
                break
            step = self._step(session, seen.ensure_usable())
            action = step.action or action
            if not step.states or (step.last and not self.wait_for_completion):
                break
            seen = self._wait(session, seen.cluster_id, step.states, deadline, action)
        if action is None:
            self.log.info("Nothing was to be done")
        return {
            "cluster_id": seen.cluster_id,
            "name": seen.name,
            "state": seen.state,
            "action": action or "none",
        }

    def _wait(
        self,
        session: CdmSession,
        cluster_id: str,
        states: tuple[str, ...],
        deadline: float | None,
        action: str | None,
    ) -> Cluster:
        if self.deferrable:
            self.defer(
                trigger=CdmClusterTrigger(
                    cluster_id=cluster_id,
                    states=states,
                    poll_interval=self.poll_interval,
                    deadline=deadline,
                    project_id=self.project_id,
                    cdm_conn_id=self.cdm_conn_id,
                ),
                method_name="execute_complete",
                kwargs={"deadline": deadline, "action": action},
            )
        wait = ClusterWaiter(cluster_id, states).wait(
            session.api,
            poll_interval=self.poll_interval,
            deadline=deadline,
            info=self.log.info,
        )
        return session.run(wait)

    def _step(self, session: CdmSession, seen: Cluster) -> _Step:
        """Do what brings the cluster nearer to the wanted state, which it is not in."""
        raise NotImplementedError


class CdmStartClusterOperator(_ClusterStateOperator):
    """Starts a stopped CDM cluster; one that runs already is a success.

    Made for the setup of migrations: ``start.as_setup() >> migrate >> stop.as_teardown(...)``. A
    cluster that is just stopping is started as soon as it has stopped. Fails with
    :class:`~airflow_provider_cdm.exceptions.CdmClusterUnusable` when it is frozen or has failed.

    Returns ``cluster_id, name, state`` and ``action`` (``started`` or ``none``).

    :param cluster_id: the cluster; by default the connection's (templated).
    :param wait_for_completion: wait until jobs can run on it.
    :param deferrable: wait in the triggerer instead of on a worker.
    :param poll_interval: seconds between two looks at the cluster.
    :param wait_timeout: seconds after which to stop waiting, with
        :class:`~airflow_provider_cdm.exceptions.CdmWaitTimeout`; ``None`` for never.
    :param project_id: project of the cluster; by default the connection's (templated).
    :param cdm_conn_id: connection of type ``huaweicloud_cdm`` (templated).
    """

    _wanted = NORMAL

    def _step(self, session: CdmSession, seen: Cluster) -> _Step:
        if seen.state == STOPPED:
            call = resources.start_cluster(seen.cluster_id)
            session.run(clusters.send(session.api, call, seen))
            self.log.info("CDM was asked to start the %s", seen)
            return _Step("started", (NORMAL,))
        if seen.state in ("starting", "restarting", "creating"):
            return _Step(states=(NORMAL,))
        # Stopping, or something that is not documented.
        return _Step(states=(STOPPED, NORMAL), last=False)


class CdmStopClusterOperator(_ClusterStateOperator):
    """Stops a running CDM cluster; one that is stopped already is a success.

    Made for the teardown of migrations. By default it stops nothing that somebody uses: with an
    active run of any job on it, the cluster is left running, the log says whose jobs those are, and
    the task succeeds. Fails with :class:`~airflow_provider_cdm.exceptions.CdmClusterUnusable`
    when the cluster is frozen or has failed.

    Returns ``cluster_id, name, state`` and ``action`` (``stopped``, ``left running`` or ``none``).

    :param cluster_id: the cluster; by default the connection's (templated).
    :param only_if_idle: leave a cluster running on which a run of any job is active.
    :param stop_mode: ``graceful``: the cluster takes no new runs, and those on it go on for
        ``delay``; ``immediate``: they fail.
    :param delay: seconds for which runs may go on; by default until they are over.
    :param wait_for_completion: wait until it has stopped.
    :param deferrable: wait in the triggerer instead of on a worker.
    :param poll_interval: seconds between two looks at the cluster.
    :param wait_timeout: seconds after which to stop waiting, with
        :class:`~airflow_provider_cdm.exceptions.CdmWaitTimeout`; ``None`` for never.
    :param project_id: project of the cluster; by default the connection's (templated).
    :param cdm_conn_id: connection of type ``huaweicloud_cdm`` (templated).
    """

    _wanted = STOPPED

    def __init__(
        self,
        *,
        only_if_idle: bool = True,
        stop_mode: StopMode = "graceful",
        delay: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.only_if_idle = only_if_idle
        self.stop_mode = stop_mode
        self.delay = delay
        if stop_mode not in ("graceful", "immediate"):
            raise errors.CdmConfigError(
                f"stop_mode must be 'graceful' or 'immediate', not {stop_mode!r}."
            )
        if delay is not None and (stop_mode != "graceful" or not delay > 0):
            raise errors.CdmConfigError(
                f"delay must be above 0 s and needs stop_mode='graceful'; it is {delay!r} with"
                f" {stop_mode!r}."
            )

    def _step(self, session: CdmSession, seen: Cluster) -> _Step:
        if seen.state == NORMAL:
            return self._stop(session, seen)
        if seen.state == "stopping":
            return _Step(states=(STOPPED,))
        # On its way to normal, or something that is not documented.
        return _Step(states=(STOPPED, NORMAL), last=False)

    def _stop(self, session: CdmSession, seen: Cluster) -> _Step:
        if self.only_if_idle:
            busy = session.run(clusters.busy_jobs(session.api, seen.cluster_id))
            if busy:
                self.log.warning(
                    "The %s is left running, since these jobs run on it: %s", seen, ", ".join(busy)
                )
                return _Step("left running")
        graceful = self.stop_mode == "graceful"
        call = resources.stop_cluster(seen.cluster_id, graceful=graceful, delay=self.delay)
        session.run(clusters.send(session.api, call, seen))
        self.log.info("CDM was asked to stop the %s", seen)
        return _Step("stopped", (STOPPED,))
