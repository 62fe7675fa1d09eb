"""The base of the operators that manage jobs and links."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.tasks.base import CdmTask

if TYPE_CHECKING:
    from airflow_provider_cdm.client.api.definitions import Kind


class CdmOperator(CdmTask):
    """Base of the operators that manage jobs and links."""

    ui_color = "#f4e3e3"

    def _delete(self, kind: Kind, name: str) -> dict[str, Any]:
        """Delete a job or link.

        :returns: the task's result; ``action`` is ``deleted``, or ``absent`` if there was none.
        """
        from airflow_provider_cdm.client.jobs import apply

        session, cluster_id = self.hook.get_conn(), self.hook.resolve_cluster()
        deleted = session.run(apply.delete(session.api, kind, cluster_id, name))
        outcome = "deleted" if deleted else "does not exist, nothing to delete"
        self.log.info("%s %r: %s (cluster %s)", kind.noun.capitalize(), name, outcome, cluster_id)
        return {
            "cluster_id": cluster_id,
            f"{kind.noun}_name": name,
            "action": "deleted" if deleted else "absent",
        }
