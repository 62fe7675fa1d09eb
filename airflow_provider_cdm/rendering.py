"""Rendering the templated arguments of tasks: text stays text, and nothing is never sent as text.

Airflow reads rendered text as Python if a DAG has ``render_template_as_native_obj``, and renders
``None`` as the text ``None``. CDM takes text only, so neither may happen to what is sent to it.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import jinja2
from jinja2.nativetypes import NativeEnvironment
from jinja2.sandbox import SandboxedEnvironment

if TYPE_CHECKING:
    from collections.abc import Callable

#: What is wrong with a template itself, or with a name in it; no retry changes that.
TEMPLATE_ERRORS = (jinja2.UndefinedError, jinja2.TemplateSyntaxError)
#: Follows ``None`` in a text where an expression came to nothing; no text of users has it.
_MARK = "\U0010fffd"
_NOTHING = f"None{_MARK}"


class Nothing(NamedTuple):
    """A part of an argument whose template came to nothing.

    :param where: argument, and the part of it.
    :param template: the template, or the path of the file with it.
    """

    where: str
    template: str


def describe_nothing(found: Mapping[str, str]) -> str:
    """Return the message of the error about what came to nothing.

    :param found: template by argument, and part of it.
    """
    listed = "; ".join(f"{where} (template: {text[:200]})" for where, text in found.items())
    return (
        f"Rendered to nothing (None): {listed}. Correct the template, give it a default, as in"
        " {{ dag_run.conf.get('day', ds) }}, or leave the argument out."
    )


def is_template(text: str) -> bool:
    """Return whether rendering may change a text."""
    return any(mark in text for mark in ("{{", "{%", "{#"))


def is_text_environment(environment: Any) -> bool:
    """Return whether :func:`text_environment` has made an environment."""
    return getattr(getattr(environment, "finalize", None), "marks_nothing", False)


def text_environment(environment: Any, dag: Any = None) -> jinja2.Environment:
    """Return an environment that renders to text, and marks what is nothing.

    :param environment: environment as Airflow made it.
    :param dag: DAG of the task, if it has one.
    """
    if isinstance(environment, NativeEnvironment):
        environment = dag.get_template_env(force_sandboxed=True) if dag else _sandbox(environment)
    finalize = environment.finalize

    def mark(*arguments: Any) -> Any:
        value = arguments[-1] if finalize is None else finalize(*arguments)
        undefined = isinstance(value, jinja2.Undefined)
        if value is None or (undefined and not isinstance(value, jinja2.StrictUndefined)):
            return _NOTHING
        return value

    marking: Any = mark if finalize is None else functools.wraps(finalize)(mark)
    marking.marks_nothing = True
    return environment.overlay(finalize=marking)  # type: ignore[no-any-return]


def _sandbox(environment: jinja2.Environment) -> jinja2.Environment:
    text = SandboxedEnvironment(loader=environment.loader, undefined=environment.undefined)
    text.filters.update(environment.filters)
    text.globals.update(environment.globals)
    return text


def render(template: jinja2.Template, context: Any) -> str:
    """Return what a template of a text environment renders to."""
    return "".join(_nodes(template, context))


def native_object(source: str, context: Any, environment: Any) -> Any:
    """Return the mapping or list that a template consists of, or ``None`` if it is anything else.

    Text that reads like one is text, and so is all without ``render_template_as_native_obj``.

    :param environment: environment as Airflow made it.
    """
    if not isinstance(environment, NativeEnvironment):
        return None
    nodes = _nodes(environment.from_string(source), context)
    node = nodes[0] if len(nodes) == 1 else None
    is_object = isinstance(node, Mapping | Sequence) and not isinstance(node, str | bytes)
    return node if is_object else None


def _nodes(template: jinja2.Template, context: Any) -> list[Any]:
    environment = template.environment
    # As Airflow does: a plain dict would look up every variable, deprecated ones as well.
    variables = copy.copy(context)
    variables.update((k, v) for k, v in template.globals.items() if k not in variables)
    scope = environment.context_class(environment, variables, template.name, template.blocks)
    try:
        return list(template.root_render_func(scope))
    except Exception:
        environment.handle_exception()


def take_nothing(name: str, source: Any, rendered: Any) -> tuple[Any, list[Nothing]]:
    """Return a rendered argument without marks, and what in it came to nothing.

    :param name: name of the argument.
    :param source: the argument before it was rendered.
    """
    found: list[Nothing] = []

    def clean(text: str, where: str, template: Any) -> str:
        if _MARK not in text:
            return text
        if not isinstance(template, str):  # in a file
            template = source if isinstance(source, str) else "another task's"
        found.append(Nothing(where, template))
        return text.replace(_MARK, "")

    return _map_texts(rendered, source, name, clean), found


def _map_texts(value: Any, source: Any, where: str, change: Callable[[str, str, Any], str]) -> Any:
    """Return a value with each text in it changed.

    :param source: the same part of the argument before it was rendered, if there is one.
    """
    if isinstance(value, str):
        return change(value, where, source)
    if type(value) not in (dict, list, tuple):
        return value
    parts = {
        key: _map_texts(item, _part(source, key), inner, change)
        for key, item, inner in _parts(value, where)
    }
    if all(parts[key] is item for key, item, _ in _parts(value, where)):
        return value  # values of other tasks are kept as they are
    return parts if isinstance(value, dict) else type(value)(parts.values())


def _parts(value: Any, where: str) -> Iterator[tuple[Any, Any, str]]:
    """Yield key, content and place of each part; an input of a definition is named by its name."""
    if isinstance(value, dict):
        name = value.get("name")
        for key, item in value.items():
            is_input = key == "value" and isinstance(name, str)
            argument = where.partition("[")[0]
            yield key, item, f"{argument}: {name!r}" if is_input else f"{where}[{key!r}]"
    else:
        for index, item in enumerate(value):
            yield index, item, f"{where}[{index}]"


def _part(source: Any, key: Any) -> Any:
    if not isinstance(source, dict | list | tuple):
        return None
    with suppress(LookupError, TypeError):
        return source[key]
    return None
