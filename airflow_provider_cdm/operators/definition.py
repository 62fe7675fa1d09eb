"""The argument ``definition`` of a job or link, and the base of the operators that send it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_cdm._compat import BaseOperator, mask_secret
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators.base import CdmOperator

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import Context
    from airflow_provider_cdm.client.api.client import CdmApi
    from airflow_provider_cdm.client.api.definitions import Definition
    from airflow_provider_cdm.client.jobs.apply import ApplyResult
    from airflow_provider_cdm.client.sansio import Flow

#: Length of the shortest text that is masked in logs, in characters.
_SHORTEST_MASKED = 5


class DefinitionField(BaseOperator):
    """The templated argument ``definition`` of a job or link.

    It is a mapping, or the path of a ``.json``, ``.yaml`` or ``.yml`` file beside the DAG file (or
    in the DAG's ``template_searchpath``), which is rendered and then read. Only the argument itself
    is taken for a path: a value inside the definition that ends in ``.json`` is a value.

    Files are read when the task runs, so Airflow does not store their content with the DAG. Secret
    inputs (such as ``linkConfig.password``) come from an Airflow connection by a template::

        {"name": "linkConfig.password", "value": "{{ conn.warehouse.password }}"}

    Once rendered, secrets are masked in logs and replaced in the field, because Airflow stores and
    shows its rendered form. Secrets that are written in the DAG file are refused.
    """

    template_ext: Sequence[str] = (".json", ".yaml", ".yml")
    template_fields_renderers: ClassVar[dict[str, str]] = {"definition": "json"}

    def __init__(self, *, definition: Mapping[str, Any] | str, **kwargs: Any) -> None:
        from airflow_provider_cdm.client.api import definitions

        super().__init__(**kwargs)
        self.definition = definition
        self._secrets: Mapping[str, str] = {}
        literal = [
            secret["name"]
            for secret in definitions.secret_inputs(definition)
            if "{{" not in str(secret["value"])
        ]
        if literal:
            raise errors.CdmConfigError(
                f"The definition holds a secret in plain text: {', '.join(literal)}. Keep it in an"
                " Airflow connection and refer to it: {{ conn.its_id.password }}."
            )

    def resolve_template_files(self) -> None:
        """Do not read files while the DAG is parsed: their content would be stored with it."""

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: Any = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Render one value of any templated field; only ``definition`` may be a path."""
        is_definition = content is self.definition
        if isinstance(content, str) and content.endswith(tuple(self.template_ext)):
            if not is_definition or "\n" in content:
                content += "{##}"  # an empty comment, so that Airflow sees no file extension
            else:
                rendered = self._render_file(content, context, jinja_env, seen_oids)
                return self._without_secrets(rendered)
        rendered = super().render_template(content, context, jinja_env, seen_oids)
        return self._without_secrets(rendered) if is_definition else rendered

    def _definition_with_secrets(self) -> Any:
        """Return the rendered definition with its secrets, to be sent and not to be shown."""
        from airflow_provider_cdm.client.api import definitions, parsing

        rendered = self.definition
        rendered = parsing.read(rendered) if isinstance(rendered, str) else copy.deepcopy(rendered)
        for secret in definitions.secret_inputs(rendered):
            if secret["value"] == definitions.MASK:
                secret["value"] = self._secrets.get(secret["name"], definitions.MASK)
            _mask(secret["value"])
        return rendered

    def _render_file(self, path: str, context: Context, jinja_env: Any, seen: Any) -> Any:
        from jinja2 import TemplateNotFound

        try:
            return super().render_template(path, context, jinja_env, seen)
        except TemplateNotFound as missing:
            raise errors.CdmConfigError(
                f"There is no file {missing.name!r}, neither beside the DAG file nor in the DAG's"
                " template_searchpath."
            ) from None

    def _without_secrets(self, rendered: Any) -> Any:
        """Return the rendered definition with its secrets masked, and keep them for later."""
        from airflow_provider_cdm.client.api import definitions, parsing

        if isinstance(rendered, str):
            rendered = parsing.read(rendered)
        rendered = copy.deepcopy(rendered)
        for secret in definitions.secret_inputs(rendered):
            # Airflow may render a task twice.
            if secret["value"] != definitions.MASK:
                _mask(secret["value"])
                self._secrets = {**self._secrets, secret["name"]: str(secret["value"])}
                secret["value"] = definitions.MASK
        return rendered


def _mask(value: Any) -> None:
    # Airflow 2 would replace a mere "1" in every line; Airflow 3 has the same limit itself.
    if len(str(value)) >= _SHORTEST_MASKED:
        mask_secret(str(value))


class DefinitionOperator(DefinitionField, CdmOperator):
    """Base of the operators that send a definition and report what CDM made of it."""

    def _flow(self, api: CdmApi, cluster_id: str, definition: Definition) -> Flow[ApplyResult]:
        """Return the flow that sends the definition."""
        raise NotImplementedError

    def _send(self, definition: Definition) -> dict[str, Any]:
        from airflow_provider_cdm.client.api import definitions

        session, cluster_id = self.hook.get_conn(), self.hook.resolve_cluster()
        result = session.run(self._flow(session.api, cluster_id, definition))
        noun = definition.kind.noun
        subject = f"{noun} {definition.name!r} in cluster {cluster_id}"
        if result.action == "unchanged":
            self.log.info("The %s is already as defined; nothing to do", subject)
        else:
            self.log.info("%s %s", result.action.capitalize(), subject)
        for difference in result.differences:
            # The values of a link may name systems that readers of this log need not know.
            shown = difference if definition.kind is definitions.JOB else difference.what
            self.log.info("Before the update: %s", shown)
        if result.unmanaged:
            self.log.info(
                "Not compared, because the definition does not name them: %s. They are CDM's"
                " defaults or come from an earlier definition; an empty value clears one.",
                ", ".join(result.unmanaged),
            )
        for warning in result.warnings:
            self.log.warning("CDM warns about the %s: %s", subject, warning)
        return {
            "cluster_id": cluster_id,
            f"{noun}_name": definition.name,
            "action": result.action,
            "differences": [difference.what for difference in result.differences],
        }
