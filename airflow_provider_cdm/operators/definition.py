"""The argument ``definition`` of a job or link, and the base of the operators that send it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from airflow_provider_cdm._compat import is_from_mapped, is_reference, mask_secret
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators.base import CdmOperator
from airflow_provider_cdm.tasks.base import CdmTask, is_known_later

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import Context, XComArg
    from airflow_provider_cdm.client.api.client import CdmApi
    from airflow_provider_cdm.client.api.definitions import Definition
    from airflow_provider_cdm.client.jobs.apply import ApplyResult
    from airflow_provider_cdm.client.sansio import Flow

#: Length of the shortest text that is masked in logs, in characters.
_SHORTEST_MASKED = 5
#: A definition as users give it.
GivenDefinition: TypeAlias = (
    "Mapping[str, Any] | str | os.PathLike[str] | XComArg | Callable[..., Any]"
)
#: Extensions of files that hold a definition.
_EXTENSIONS = (".json", ".yaml", ".yml")


class DefinitionField(CdmTask):
    """The templated argument ``definition`` of a job or link.

    It is a mapping, or the path of a ``.json``, ``.yaml`` or ``.yml`` file, as text or ``Path``:
    absolute, or beside the DAG file (or in the DAG's ``template_searchpath``). The file is rendered
    and then read. Only the argument itself is taken for a path: a value inside the definition that
    ends in ``.json`` is a value.

    Files are read when the task runs, so Airflow does not store their content with the DAG. Secret
    inputs (such as ``linkConfig.password``) come from an Airflow connection by a template::

        {"name": "linkConfig.password", "value": "{{ conn.warehouse.password }}"}

    Once rendered, secrets are masked in logs and replaced in the field, because Airflow stores and
    shows its rendered form. Secrets that are written in the DAG file are refused.
    """

    template_fields_renderers: ClassVar[dict[str, str]] = {"definition": "json"}
    object_fields = frozenset({"definition"})

    def __init__(self, *, definition: GivenDefinition, **kwargs: Any) -> None:
        from airflow_provider_cdm.client.api import trees

        super().__init__(**kwargs)
        given: Any = os.fspath(definition) if isinstance(definition, os.PathLike) else definition
        self._maker: _CallableDefinition | None = None
        if callable(given):
            given = self._maker = _CallableDefinition(given)
        # Airflow renders a value of another task only if it is another object.
        elif isinstance(given, Mapping | list) and not is_from_mapped(self):
            given = trees.as_tree(given)
        self.definition = given
        self._secrets: Mapping[str, str] = {}
        # What a mapped task gets here are values, perhaps of other tasks; partial() and expand()
        # have seen what is written in the DAG file.
        if not is_from_mapped(self):
            _refuse_literal_secrets(given)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_secrets": {}}

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Map the task, as Airflow does, once no argument holds a secret in plain text.

        :raises CdmConfigError: when one does.
        """
        _refuse_literal_secrets(kwargs.get("definition"))
        return _CheckedPartial(super().partial(**kwargs))

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: Any = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Render an argument, or a part of one; the secrets of ``definition`` are masked."""
        is_definition = content is self.definition
        rendered = super().render_template(content, context, jinja_env, seen_oids)
        return self._without_secrets(rendered) if is_definition else rendered

    def _render_argument(
        self, content: Any, context: Context, environment: Any, seen_oids: set[int] | None
    ) -> Any:
        rendered = super()._render_argument(content, context, environment, seen_oids)
        if content is not self.definition:
            return rendered
        if _is_path(rendered):
            from airflow_provider_cdm import rendering
            from airflow_provider_cdm.operators import definition_files

            file = definition_files.template(os.fspath(rendered), environment)
            rendered = rendering.render(file, context)
        tree = _as_tree(rendered)
        _ensure_something(content, tree)
        return tree

    def _definition_with_secrets(self) -> Any:
        """Return the rendered definition with its secrets, to be sent and not to be shown."""
        from airflow_provider_cdm.client.api import definitions

        rendered = _as_tree(self.definition)
        secrets = self._secrets or (self._maker.secrets if self._maker else {})
        for secret in definitions.secret_inputs(rendered):
            if secret["value"] == definitions.MASK:
                secret["value"] = secrets.get(secret["name"], definitions.MASK)
            _mask(secret["value"])
        return rendered

    def _without_secrets(self, rendered: Any) -> Any:
        """Return the rendered definition with its secrets masked, and keep them for later."""
        from airflow_provider_cdm.client.api import definitions

        rendered = _as_tree(rendered)
        for secret in definitions.secret_inputs(rendered):
            # Airflow may render a task twice.
            if secret["value"] != definitions.MASK:
                _mask(secret["value"])
                self._secrets = {**self._secrets, secret["name"]: str(secret["value"])}
                secret["value"] = definitions.MASK
        return rendered


class _CallableDefinition:
    """A function that makes the definition when the task runs; Airflow calls it to render it.

    :param function: takes the arguments ``context`` and ``jinja_env``.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        #: Secrets of the definition that was made last. In Airflow 3.0 the task in the context is
        #: not the one that is executed, but its original.
        self.secrets: Mapping[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "secrets": {}}

    def __call__(self, *, context: Context, jinja_env: Any) -> Any:
        """Return the definition with its secrets masked; they are kept here and by the task."""
        made = self._function(context=context, jinja_env=jinja_env)
        task: Any = context["task"]
        rendered = task._without_secrets(made)  # noqa: SLF001 - of the same field
        self.secrets = task._secrets  # noqa: SLF001 - as above
        return rendered


class _CheckedPartial:
    """What ``partial()`` returns; refuses secrets in plain text in what is mapped.

    :param partial: Airflow's own.
    """

    def __init__(self, partial: Any) -> None:
        self._partial = partial

    def expand(self, **mapped: Any) -> Any:
        """Map over lists."""
        _refuse_literal_secrets(mapped.get("definition"))
        return self._partial.expand(**mapped)

    def expand_kwargs(self, kwargs: Any, **options: Any) -> Any:
        """Map over a list of arguments."""
        for each in kwargs if isinstance(kwargs, list | tuple) else ():
            if isinstance(each, Mapping):
                _refuse_literal_secrets(each.get("definition"))
        return self._partial.expand_kwargs(kwargs, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._partial, name)


def _refuse_literal_secrets(given: Any) -> None:
    """Refuse a definition with a secret that is written in the DAG file.

    :param given: the argument ``definition``, or a list of those.
    :raises CdmConfigError: when a secret is not a template.
    """
    from airflow_provider_cdm.client.api import definitions

    read = _read_if_text(given)
    literal = [
        secret["name"]
        for secret in definitions.secret_inputs(read)
        if not is_known_later(secret["value"])
    ]
    literal += [name for name in definitions.secrets_inside(read) if name not in literal]
    if literal:
        raise errors.CdmConfigError(
            f"The definition holds a secret in plain text: {', '.join(literal)}. Keep it in an"
            " Airflow connection and refer to it: {{ conn.its_id.password }}."
        )


def _read_if_text(given: Any) -> Any:
    """Return what is written in the DAG file, read if it is JSON or YAML."""
    from airflow_provider_cdm.client.api import parsing

    if isinstance(given, list | tuple):
        return [_read_if_text(each) for each in given]
    if not isinstance(given, str) or _is_path(given):
        return getattr(given, "value", None) if is_reference(given) else given
    with suppress(errors.CdmConfigError):  # template statements may be around it
        return parsing.read(given)
    return None


def _ensure_something(given: Any, rendered: Any) -> None:
    """Refuse a part that comes from another task, and is nothing; CDM shows such parts as well.

    :param given: the definition, or a part of it, before it was rendered.
    :raises CdmConfigError: when there is such a part.
    """
    if isinstance(given, Mapping) and isinstance(rendered, Mapping):
        for key, part in given.items():
            if is_reference(part) and rendered.get(key) is None:
                where = given.get("name", key)
                raise errors.CdmConfigError(f"{where!r} of the definition is null: {part} is None.")
            _ensure_something(part, rendered.get(key))
    elif isinstance(given, list) and isinstance(rendered, list):
        for part, result in zip(given, rendered, strict=False):
            _ensure_something(part, result)


def _is_path(value: Any) -> bool:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    return isinstance(value, str) and value.endswith(_EXTENSIONS) and "\n" not in value


def _as_tree(value: Any) -> Any:
    """Return a copy of a definition, read if it is text.

    :raises CdmConfigError: when it cannot be read, contains itself or is too large.
    """
    from airflow_provider_cdm.client.api import parsing, trees

    return trees.as_tree(parsing.read(value) if isinstance(value, str) else value)


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
