"""The trigger that waits for a state of a cluster, and the event that it sends back."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm._compat import trigger_event
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.cluster import Cluster
from airflow_provider_cdm.client.clusters import ClusterWaiter, RestartWatch
from airflow_provider_cdm.client.sansio import Flow, pause
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.triggers.base import CdmTrigger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from airflow_provider_cdm._compat import TriggerEvent
    from airflow_provider_cdm.client.session import CdmSession

log = logging.getLogger(__name__)


class CdmClusterTrigger(CdmTrigger):
    """Waits until a cluster is in one of some states, and yields one event.

    All arguments are plain JSON and the deadline is an instant, so a restart of the triggerer loses
    nothing. A start or stop of a cluster cannot be canceled, so a kill of the task stops nothing.

    :param cluster_id: the cluster.
    :param states: names of states, such as ``normal`` and ``stopped``.
    :param poll_interval: seconds between two polls.
    :param deadline: when to give up, epoch seconds.
    :param restart: what is known of a restart whose end to wait for.
    :param project_id: project of the cluster; by default the connection's.
    :param cdm_conn_id: connection of type ``huaweicloud_cdm``.
    """

    arguments = (*CdmTrigger.arguments, "states", "restart")

    def __init__(
        self,
        *,
        cluster_id: str,
        states: Sequence[str],
        poll_interval: float = 30.0,
        deadline: float | None = None,
        restart: Mapping[str, Any] | None = None,
        project_id: str | None = None,
        cdm_conn_id: str = CdmHook.default_conn_name,
    ) -> None:
        super().__init__(
            cluster_id=cluster_id,
            poll_interval=poll_interval,
            deadline=deadline,
            project_id=project_id,
            cdm_conn_id=cdm_conn_id,
        )
        self.states = list(states)
        self.restart = restart

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield exactly one event; :func:`unwrap` reads it."""
        session: CdmSession | None = None
        event: dict[str, Any]
        try:
            session = await CdmHook(self.cdm_conn_id, project_id=self.project_id).aget_conn()
            cluster = await session.arun(self._wait(session))
            event = {"cluster": cluster.to_payload()}
            text = f"cluster {cluster.name}: {cluster.state}"
        except errors.CdmError as error:
            event = {"error": errors.to_payload(error)}
            text = type(error).__name__
        except Exception as error:
            log.exception("The wait for cluster %s failed", self.cluster_id)
            text = type(error).__name__
            event = {"error": errors.to_payload(errors.CdmError(f"{text}: {error}"))}
        finally:
            if session is not None:
                session.close()
        yield trigger_event(event, text)

    def _wait(self, session: CdmSession) -> Flow[Cluster]:
        # The task read the state just before it deferred, and a deferral takes a moment.
        left = self.poll_interval if self.deadline is None else self.deadline - session.clock()
        yield from pause(max(0.0, min(self.poll_interval, left)))
        restart = self.restart and RestartWatch.from_payload(self.restart)
        waiter = ClusterWaiter(self.cluster_id, self.states, restart or None)
        return (
            yield from waiter.wait(
                session.api,
                poll_interval=self.poll_interval,
                deadline=self.deadline,
                info=log.info,
            )
        )


def unwrap(event: Any) -> Cluster:
    """Return the cluster from an event of :class:`CdmClusterTrigger`.

    :raises CdmBadResponse: when the event is missing or malformed.
    :raises CdmError: the error that the event holds.
    """
    found = event.get("cluster") if isinstance(event, dict) else None
    if isinstance(event, dict) and event.get("error"):
        raise errors.from_payload(event["error"])
    if not isinstance(found, dict):
        raise errors.CdmBadResponse(
            "The trigger ended without a usable event, so the state of the cluster is unknown. See"
            " the log of the triggerer; a retry of this task reads the state again. The event:"
            f" {event!r}"
        )
    return Cluster.from_payload(found)
