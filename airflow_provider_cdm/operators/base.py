"""What operators that manage jobs, links and clusters have in common."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_cdm._compat import BaseOperator, mask_secret
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import definitions, parsing
from airflow_provider_cdm.client.api.definitions import MASK
from airflow_provider_cdm.client.jobs import apply
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.tasks.base import CdmTask

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import Context
    from airflow_provider_cdm.client.api.client import CdmApi
    from airflow_provider_cdm.client.api.definitions import Definition, Kind
    from airflow_provider_cdm.client.jobs.apply import ApplyResult
    from airflow_provider_cdm.client.sansio import Flow
    from airflow_provider_cdm.client.session import CdmSession


#: Characters of the shortest text that is masked in logs.
_SHORTEST_MASKED = 5


class CdmOperator(CdmTask):
    """Base of operators on one cluster.

    :param cluster_id: the cluster; by default the connection's (templated).
    :param project_id: project of the cluster; by default the connection's (templated).
    :param cdm_conn_id: connection of type ``huaweicloud_cdm`` (templated).
    """

    template_fields: Sequence[str] = ("cluster_id", "project_id", "cdm_conn_id")
    ui_color = "#f4e3e3"

    def __init__(
        self,
        *,
        cluster_id: str | None = None,
        project_id: str | None = None,
        cdm_conn_id: str = CdmHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cluster_id = cluster_id
        self.project_id = project_id
        self.cdm_conn_id = cdm_conn_id

    def _open(self) -> tuple[CdmSession, str]:
        """Resolve the connection; returns the session and the cluster."""
        hook = CdmHook(self.cdm_conn_id, self.cluster_id, self.project_id)
        return hook.get_conn(), hook.resolve_cluster()

    def _delete(self, kind: Kind, name: str) -> dict[str, Any]:
        """Delete a job or link, and say what came of it."""
        session, cluster_id = self._open()
        gone = not session.run(apply.delete(session.api, kind, cluster_id, name))
        found = "is gone already; nothing to delete" if gone else "deleted"
        self.log.info("%s %r in cluster %s %s", kind.noun.capitalize(), name, cluster_id, found)
        return {
            "cluster_id": cluster_id,
            f"{kind.noun}_name": name,
            "action": "absent" if gone else "deleted",
        }


class DefinitionField(BaseOperator):
    """The templated argument ``definition`` of a job or link.

    It is a mapping, or the path of a ``.json``, ``.yaml`` or ``.yml`` file beside the DAG file (or
    in the DAG's ``template_searchpath``), which is rendered and then read. Only this argument is
    taken for a path: a value inside that ends in ``.json`` is a value.

    Files are read when the task runs, so what they hold is not stored with the DAG. Secret inputs
    (``linkConfig.password`` and the like) come from a connection of Airflow by a template::

        {"name": "linkConfig.password", "value": "{{ conn.warehouse.password }}"}

    As soon as they are rendered they are masked in logs and taken out of the field, whose rendered
    form Airflow stores and shows. Secrets that stand in the DAG file itself are refused.
    """

    template_ext: Sequence[str] = (".json", ".yaml", ".yml")
    template_fields_renderers: ClassVar[dict[str, str]] = {"definition": "json"}

    def __init__(self, *, definition: Mapping[str, Any] | str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.definition = definition
        self._withheld: Mapping[str, str] = {}
        literal = [
            one["name"]
            for one in definitions.secret_inputs(definition)
            if "{{" not in str(one["value"])
        ]
        if literal:
            raise errors.CdmConfigError(
                f"The definition holds a secret in plain text: {', '.join(literal)}. Keep it in a"
                " connection of Airflow, and refer to it: {{ conn.its_id.password }}."
            )

    def resolve_template_files(self) -> None:
        """Leave files alone while the DAG is parsed: what they hold would be stored with it."""

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: Any = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Render one value of any templated field; only ``definition`` may be a path."""
        own = content is self.definition
        if isinstance(content, str) and content.endswith(tuple(self.template_ext)):
            if not own or "\n" in content:
                content += "{##}"  # an empty comment, so that Airflow sees no file extension
            else:
                return self._withhold(self._render_file(content, context, jinja_env, seen_oids))
        rendered = super().render_template(content, context, jinja_env, seen_oids)
        return self._withhold(rendered) if own else rendered

    def _draft(self) -> Any:
        """The definition with its secrets, to be checked and sent, and not to be shown."""
        given = self.definition
        given = parsing.read(given) if isinstance(given, str) else copy.deepcopy(given)
        for one in definitions.secret_inputs(given):
            if one["value"] == MASK:
                one["value"] = self._withheld.get(one["name"], MASK)
            _mask(one["value"])
        return given

    def _render_file(self, path: str, context: Context, jinja_env: Any, seen: Any) -> Any:
        from jinja2 import TemplateNotFound

        try:
            return super().render_template(path, context, jinja_env, seen)
        except TemplateNotFound as missing:
            raise errors.CdmConfigError(
                f"There is no file {missing.name!r}, neither beside the DAG file nor in the DAG's"
                " template_searchpath."
            ) from None

    def _withhold(self, rendered: Any) -> Any:
        if isinstance(rendered, str):
            rendered = parsing.read(rendered)
        rendered = copy.deepcopy(rendered)
        for one in definitions.secret_inputs(rendered):
            # Airflow may render a task twice.
            if one["value"] != MASK:
                _mask(one["value"])
                self._withheld = {**self._withheld, one["name"]: str(one["value"])}
                one["value"] = MASK
        return rendered


def _mask(value: Any) -> None:
    # Airflow 2 would replace a mere "1" in every line; Airflow 3 has the same limit itself.
    if len(str(value)) >= _SHORTEST_MASKED:
        mask_secret(str(value))


class DefiningOperator(DefinitionField, CdmOperator):
    """Base of operators that send a definition and say what came of it."""

    def _flow(self, api: CdmApi, cluster_id: str, wanted: Definition) -> Flow[ApplyResult]:
        """What to do with the definition."""
        raise NotImplementedError

    def _perform(self, wanted: Definition) -> dict[str, Any]:
        session, cluster_id = self._open()
        done = session.run(self._flow(session.api, cluster_id, wanted))
        what = f"{wanted.kind.noun} {wanted.name!r} in cluster {cluster_id}"
        if done.action == "unchanged":
            self.log.info("There is a %s as defined already; nothing to do", what)
        else:
            self.log.info("%s %s", done.action.capitalize(), what)
        for difference in done.differences:
            # Values of a link tell of systems that readers of this log may not know.
            shown = difference if wanted.kind is definitions.JOB else difference.what
            self.log.info("Before the update: %s", shown)
        if done.unmanaged:
            self.log.info(
                "Not compared, since the definition does not name them: %s. CDM's defaults, or left"
                " from an earlier definition; an empty value clears one.",
                ", ".join(done.unmanaged),
            )
        for warning in done.warnings:
            self.log.warning("CDM warns about %s: %s", what, warning)
        return {
            "cluster_id": cluster_id,
            f"{wanted.kind.noun}_name": wanted.name,
            "action": done.action,
            "differences": [difference.what for difference in done.differences],
        }
