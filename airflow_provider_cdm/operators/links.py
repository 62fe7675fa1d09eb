"""Operators that create, change and delete CDM links."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.client import arguments
from airflow_provider_cdm.operators.base import CdmOperator
from airflow_provider_cdm.operators.definition import DefinitionOperator
from airflow_provider_cdm.tasks.base import fail_without_retry

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import Context
    from airflow_provider_cdm.client.api.client import CdmApi
    from airflow_provider_cdm.client.api.definitions import Definition
    from airflow_provider_cdm.client.jobs.apply import ApplyResult
    from airflow_provider_cdm.client.sansio import Flow


class CdmApplyLinkOperator(DefinitionOperator):
    """Makes a CDM link match its definition: creates it, updates it, or does nothing.

    CDM tests a link before it saves it; if it cannot connect, the task fails with CDM's reason.

    Passwords and keys come from an Airflow connection, by a template in the definition::

        {"name": "linkConfig.password", "value": "{{ conn.warehouse.password }}"}

    They are masked in logs, and neither stored nor shown with the rendered definition. A secret in
    plain text in the DAG file is refused. CDM does not show secrets, so a new password alone is no
    difference: pass ``always_update=True`` when one has changed.

    Only what the definition names is compared. Returns ``cluster_id, link_name, action``
    (``created``, ``updated`` or ``unchanged``) and ``differences``, names of what was changed.

    :param definition: the link as CDM's create call takes it and its console exports it: a mapping,
        or the path of a JSON or YAML file (templated).
    :param link_name: name of the link, if the definition names none (templated).
    :param always_update: send the definition even if nothing differs.
    :param cluster_id: cluster of the link; by default the connection's (templated).
    :param project_id: project of the cluster; by default the connection's (templated).
    :param cdm_conn_id: connection of type ``huaweicloud_cdm`` (templated).
    """

    template_fields: Sequence[str] = ("definition", "link_name", *CdmOperator.template_fields)

    def __init__(
        self, *, link_name: str | None = None, always_update: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.link_name = link_name
        self._link_name_given = link_name is not None
        self.always_update = always_update

    @fail_without_retry
    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - Airflow passes it
        """Check the definition, compare it with the link in CDM, and send it if they differ."""
        from airflow_provider_cdm.client.api import parsing

        if self._link_name_given:
            arguments.ensure_names_something("link_name", self.link_name)
        return self._send(parsing.link(self._definition_with_secrets(), self.link_name))

    def _flow(self, api: CdmApi, cluster_id: str, definition: Definition) -> Flow[ApplyResult]:
        from airflow_provider_cdm.client.jobs import apply

        return apply.apply(api, cluster_id, definition, always=self.always_update)


class CdmDeleteLinkOperator(CdmOperator):
    """Deletes a CDM link; succeeds if there is none.

    Fails with :class:`~airflow_provider_cdm.exceptions.CdmInUse` while jobs refer to it.

    Returns ``cluster_id, link_name, action`` (``deleted`` or ``absent``).

    :param link_name: name of the link (templated).
    :param cluster_id: cluster of the link; by default the connection's (templated).
    :param project_id: project of the cluster; by default the connection's (templated).
    :param cdm_conn_id: connection of type ``huaweicloud_cdm`` (templated).
    """

    template_fields: Sequence[str] = ("link_name", *CdmOperator.template_fields)

    def __init__(self, *, link_name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.link_name = link_name

    @fail_without_retry
    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - Airflow passes it
        """Delete the link."""
        from airflow_provider_cdm.client.api.definitions import LINK

        name = arguments.text("link_name", self.link_name, limit=arguments.JOB_NAME_LIMIT)
        return self._delete(LINK, name)
