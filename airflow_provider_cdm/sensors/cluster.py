"""The sensor for the state of a CDM cluster."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm._compat import PokeReturnValue
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.sensors.base import CdmSensor
from airflow_provider_cdm.tasks.base import fail_without_retry

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import Context
    from airflow_provider_cdm.client.api.cluster import Cluster
    from airflow_provider_cdm.client.clusters import ClusterWaiter


class CdmClusterSensor(CdmSensor):
    """Waits until a CDM cluster is in a state, such as ``normal``, in which jobs can run.

    Fails at once with :class:`~airflow_provider_cdm.exceptions.CdmClusterUnusable` when the cluster
    is frozen or has failed, unless that is the state it waits for. Returns ``cluster_id, name`` and
    ``state``.

    :param state: ``normal``, ``stopped``, ``starting``, ``stopping``, ``restarting``, ``creating``,
        ``frozen``, ``failed`` or ``creation failed``, or a list of those (templated).
    :param cluster_id: the cluster; by default the connection's (templated).
    :param project_id: project of the cluster; by default the connection's (templated).
    :param deferrable: wait in the triggerer. ``poke_interval`` and ``timeout`` mean the same there.
    :param cdm_conn_id: connection of type ``huaweicloud_cdm`` (templated).
    """

    template_fields: Sequence[str] = ("state", *CdmSensor.template_fields)

    def __init__(self, *, state: str | Sequence[str] = "normal", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.state = state

    @fail_without_retry
    def execute(self, context: Context) -> Any:
        """Wait, by poking or by deferring."""
        from airflow_provider_cdm.triggers.cluster import CdmClusterTrigger

        if not self.deferrable:
            return super().execute(context)
        answer = self.poke(context)
        if not answer.is_done:
            waiter = self._waiter
            self.defer(
                trigger=CdmClusterTrigger(
                    cluster_id=waiter.cluster_id,
                    states=list(waiter.states),
                    poll_interval=self.poke_interval,
                    deadline=self.hook.get_conn().clock() + self.timeout,
                    project_id=self.project_id,
                    cdm_conn_id=self.cdm_conn_id,
                ),
                method_name="execute_complete",
            )
        return answer.xcom_value

    def poke(self, context: Context) -> PokeReturnValue:
        """Read the state once.

        While CDM cannot be reached, the sensor waits on for ten minutes; in reschedule mode, where
        each poke is a process of its own, until the timeout.

        :raises CdmClusterUnusable: when the cluster is frozen or has failed.
        """
        if not self.reschedule:
            return self._poll()
        from airflow_provider_cdm.tasks.journal import SensorStore

        # Only refusals are stored, so that the pokes together do not lock the user.
        exchanger, waiter = self.hook.get_conn().api.exchanger, self._waiter
        question = [context["ti"].try_number, waiter.cluster_id, list(waiter.states)]
        store = SensorStore(context, {"cluster": question})
        stored = store.read()
        blocked = waiter.refusals.restore(stored, exchanger.uptime(), exchanger.clock())
        state = None
        try:
            answer = PokeReturnValue(is_done=False) if blocked else self._poll()
            state = waiter.refusals.dump(exchanger.uptime(), exchanger.clock())
        finally:
            if state != stored:
                store.replace(state)
        return answer

    def _poll(self) -> PokeReturnValue:
        session = self.hook.get_conn()
        try:
            state = session.run(self._waiter.poll(session.api))
        except errors.CdmClusterUnusable as error:
            self._skip_if_soft(error)
            raise
        if state is None or state.state not in self._waiter.states:
            if state is not None:
                self.log.info("The %s is %s", state, state.state)
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=self._result(state))

    @fail_without_retry
    def execute_complete(
        self,
        context: Context,  # noqa: ARG002 - Airflow passes it
        event: Any = None,
    ) -> dict[str, Any]:
        """Go on after a deferred wait."""
        from airflow_provider_cdm.triggers.cluster import unwrap

        try:
            return self._result(unwrap(event))
        except errors.CdmWaitTimeout as error:
            self._time_out(error)
        except errors.CdmClusterUnusable as error:
            self._skip_if_soft(error)
            raise

    @cached_property
    def _waiter(self) -> ClusterWaiter:
        """What reads the state, for all pokes of this process.

        :raises CdmConfigError: when an argument cannot be used.
        """
        from airflow_provider_cdm.client.api import cluster
        from airflow_provider_cdm.client.clusters import ClusterWaiter

        names = [self.state] if isinstance(self.state, str) else list(self.state)
        return ClusterWaiter(self.hook.resolve_cluster(), [cluster.state(name) for name in names])

    def _result(self, found: Cluster) -> dict[str, Any]:
        self.log.info("The %s is %s", found, found.state)
        return {"cluster_id": found.cluster_id, "name": found.name, "state": found.state}
