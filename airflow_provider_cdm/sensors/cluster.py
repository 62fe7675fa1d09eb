"""A sensor for the state of a CDM cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm._compat import (
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import cluster
from airflow_provider_cdm.client.clusters import ClusterWaiter
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.tasks.base import CdmTask, fail_without_retry
from airflow_provider_cdm.triggers.cluster import CdmClusterTrigger, unwrap

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import Context
    from airflow_provider_cdm.client.api.cluster import Cluster
    from airflow_provider_cdm.client.session import CdmSession


class CdmClusterSensor(CdmTask, BaseSensorOperator):
    """Waits until a CDM cluster is in a state, such as ``normal``, in which jobs can run.

    Fails at once with :class:`~airflow_provider_cdm.exceptions.CdmClusterUnusable` when the
    cluster is frozen or has failed, unless that is what it waits for. Returns ``cluster_id, name``
    and ``state``.

    :param state: ``normal``, ``stopped``, ``starting``, ``stopping``, ``restarting``, ``creating``,
        ``frozen``, ``failed`` or ``creation failed``, or a list of those (templated).
    :param cluster_id: the cluster; by default the connection's (templated).
    :param project_id: project of the cluster; by default the connection's (templated).
    :param deferrable: wait in the triggerer. ``poke_interval`` and ``timeout`` mean the same there.
    :param cdm_conn_id: connection of type ``huaweicloud_cdm`` (templated).
    """

    template_fields: Sequence[str] = ("state", "cluster_id", "project_id", "cdm_conn_id")
    ui_color = "#e3ecf4"

    def __init__(
        self,
        *,
        state: str | Sequence[str] = cluster.NORMAL,
        cluster_id: str | None = None,
        project_id: str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        cdm_conn_id: str = CdmHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.state = state
        self.cluster_id = cluster_id
        self.project_id = project_id
        self.deferrable = deferrable
        self.cdm_conn_id = cdm_conn_id
        self._session: CdmSession | None = None
        self._watch: ClusterWaiter | None = None

    @fail_without_retry
    def execute(self, context: Context) -> Any:
        """Wait, by poking or by deferring."""
        if not self.deferrable:
            return super().execute(context)
        answer = self.poke(context)
        if not answer.is_done:
            session, watch = self._connect()
            self.defer(
                trigger=CdmClusterTrigger(
                    cluster_id=watch.cluster_id,
                    states=list(watch.states),
                    poll_interval=self.poke_interval,
                    deadline=session.clock() + self.timeout,
                    project_id=self.project_id,
                    cdm_conn_id=self.cdm_conn_id,
                ),
                method_name="execute_complete",
            )
        return answer.xcom_value

    def poke(self, context: Context) -> PokeReturnValue:  # noqa: ARG002 - Airflow passes it
        """Look once. What keeps CDM from answering is borne for ten minutes, or between reschedules
        until the timeout.

        :raises CdmClusterUnusable: when the cluster has come to a dead end.
        """
        session, watch = self._connect()
        try:
            seen = session.run(watch.poll(session.api))
        except errors.CdmClusterUnusable as error:
            self._skip_if_soft(error)
            raise
        if seen is None or seen.state not in watch.states:
            if seen is not None:
                self.log.info("The %s is %s", seen, seen.state)
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=self._result(seen))

    @fail_without_retry
    def execute_complete(
        self,
        context: Context,  # noqa: ARG002 - Airflow passes it
        event: Any = None,
    ) -> dict[str, Any]:
        """Go on after a deferred wait."""
        try:
            return self._result(unwrap(event))
        except errors.CdmWaitTimeout as error:
            self._skip_if_soft(error)
            raise AirflowSensorTimeout(str(error)) from error
        except errors.CdmClusterUnusable as error:
            self._skip_if_soft(error)
            raise

    def _connect(self) -> tuple[CdmSession, ClusterWaiter]:
        """Check the rendered arguments, and resolve the connection, once for all pokes."""
        if self._session is None or self._watch is None:
            wanted = [self.state] if isinstance(self.state, str) else list(self.state)
            states = [cluster.state(each) for each in wanted]
            hook = CdmHook(self.cdm_conn_id, self.cluster_id, self.project_id)
            self._session = hook.get_conn()
            self._watch = ClusterWaiter(hook.resolve_cluster(), states)
        return self._session, self._watch

    def _result(self, seen: Cluster) -> dict[str, Any]:
        self.log.info("The %s is %s", seen, seen.state)
        return {"cluster_id": seen.cluster_id, "name": seen.name, "state": seen.state}

    def _skip_if_soft(self, error: errors.CdmError) -> None:
        if self.soft_fail or getattr(self, "never_fail", False):
            raise AirflowSkipException(f"Skipped because of soft_fail: {error}") from error
