"""The sensor for the state of a CDM cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm._compat import PokeReturnValue
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.sensors.base import CdmSensor

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import BaseTrigger, Context
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
    :param poke_interval: seconds between two polls (templated); by default ``[cdm] poll_interval``
        of ``airflow.cfg``, or 60.
    :param timeout: seconds after which the sensor times out (templated); by default ``[sensors]
        default_timeout``, which is seven days.
    :param deferrable: wait in the triggerer. ``poke_interval`` and ``timeout`` mean the same there;
        ``exponential_backoff`` has no effect there, and the log warns.
    :param cdm_conn_id: connection of type ``huaweicloud_cdm`` (templated).
    """

    template_fields: Sequence[str] = ("state", *CdmSensor.template_fields)
    object_fields = frozenset({"state"})
    process_fields = CdmSensor.process_fields | {"_waiter"}
    soft_failures = (errors.CdmClusterUnusable,)

    def __init__(self, *, state: str | Sequence[str] = "normal", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.state = state

    def poke(self, context: Context) -> PokeReturnValue:
        """Read the state once.

        While CDM cannot be reached, the sensor waits on for ten minutes; in reschedule mode, where
        each poke is a process of its own, until the timeout.

        :raises CdmClusterUnusable: when the cluster is frozen or has failed.
        """
        if not self.reschedule:
            return self._poll(context)
        from airflow_provider_cdm.tasks.journal import SensorStore

        # Only refusals are stored, so that the pokes together do not lock the user.
        exchanger, waiter = self.hook.get_conn().api.exchanger, self._waiter
        question = [context["ti"].try_number, waiter.cluster_id, list(waiter.states)]
        store = SensorStore(context, {"cluster": question})
        stored = store.read()
        blocked = waiter.refusals.restore(stored, exchanger.uptime(), exchanger.clock())
        state = None
        try:
            answer = PokeReturnValue(is_done=False) if blocked else self._poll(context)
            state = waiter.refusals.dump(exchanger.uptime(), exchanger.clock())
        finally:
            if state != stored:
                store.replace(state)
        return answer

    def _poll(self, context: Context) -> PokeReturnValue:  # noqa: ARG002 - as the base has it
        session = self.hook.get_conn()
        with self._soft_outcomes():
            state = session.run(self._waiter.poll(session.api))
        if state is None or state.state not in self._waiter.states:
            if state is not None:
                self.log.info("Cluster %r: %s", state.name, state.state)
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=self._result(state))

    def _complete(self, context: Context, event: Any) -> dict[str, Any]:  # noqa: ARG002 - as above
        from airflow_provider_cdm.triggers.cluster import unwrap

        with self._soft_outcomes():
            return self._result(unwrap(event))

    def _trigger(
        self,
        deadline: float,
        limit: str,  # noqa: ARG002 - as above
        delay: float,  # noqa: ARG002 - the first poll comes after poke_interval in any case
    ) -> BaseTrigger:
        from airflow_provider_cdm.triggers.cluster import CdmClusterTrigger

        waiter = self._waiter
        return CdmClusterTrigger(
            cluster_id=waiter.cluster_id,
            states=list(waiter.states),
            poll_interval=self.poke_interval,
            deadline=deadline,
            project_id=self.project_id,
            cdm_conn_id=self.cdm_conn_id,
        )

    @cached_property
    def _waiter(self) -> ClusterWaiter:
        """What reads the state, for all pokes of this process.

        :raises CdmConfigError: when an argument cannot be used.
        """
        from airflow_provider_cdm.client.api import cluster
        from airflow_provider_cdm.client.clusters import ClusterWaiter

        given: Any = self.state
        several = isinstance(given, Iterable) and not isinstance(given, str)
        names = given if several else [given]
        return ClusterWaiter(self.hook.resolve_cluster(), [cluster.state(name) for name in names])

    def _result(self, found: Cluster) -> dict[str, Any]:
        self.log.info("The %s is %s", found, found.state)
        return {"cluster_id": found.cluster_id, "name": found.name, "state": found.state}
