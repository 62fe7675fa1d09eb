"""Which templates Airflow's triggerer can render, found out when the DAG file is parsed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jinja2
from jinja2 import meta, nodes

from airflow_provider_cdm._compat import template_environment
from airflow_provider_cdm.rendering import is_template

__all__ = ["is_template", "problem_of"]

#: Variables that a template may use; each was seen to work in a triggerer.
_VARIABLES = frozenset(
    {
        "conn",
        "dag_run",
        "data_interval_end",
        "data_interval_start",
        "ds",
        "ds_nodash",
        "logical_date",
        "macros",
        "params",
        "partition_key",
        "run_id",
        "task_instance_key_str",
        "ts",
        "ts_nodash",
        "ts_nodash_with_tz",
        "var",
    }
)
_TASK_INSTANCE = frozenset({"dag_id", "map_index", "run_id", "task_id", "try_number"})
#: Variables of which only some attributes may be used.
_OBJECTS = {
    "dag": frozenset({"dag_id"}),
    "task": frozenset({"task_id"}),
    "task_instance": _TASK_INSTANCE,
    "ti": _TASK_INSTANCE,
}
_PULL = "xcom_pull"


def problem_of(text: str) -> str | None:
    """Return why a text cannot be rendered in the triggerer; ``None`` if it can."""
    if not is_template(text):
        return None
    environment = template_environment()
    try:
        environment.from_string(text)
        tree = environment.parse(text)
    except jinja2.TemplateSyntaxError as error:
        return f"cannot be rendered: {str(error).rstrip('.')}"
    return next(_problems(tree), None)


def _problems(tree: nodes.Template) -> Iterator[str]:
    for _ in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
        yield "reads another file, which the triggerer does not have"
    names = meta.find_undeclared_variables(tree)
    # Jinja's own variable leads to all others.
    names |= {node.name for node in tree.find_all(nodes.Name) if node.name == "self"}
    for name in sorted(names - _VARIABLES - _OBJECTS.keys()):
        yield (
            f"uses {name}, which the triggerer does not have (no macros of the DAG) or may not"
            " answer"
        )
    for name in sorted(names & _OBJECTS.keys()):
        yield from _object_problems(tree, name)


def _object_problems(tree: nodes.Template, name: str) -> Iterator[str]:
    """Yield what is wrong with the uses of an object."""
    attributes = [node for node in tree.find_all(nodes.Getattr) if _is_name(node.node, name)]
    # Nodes that look the same are equal.
    calls = {id(call.node): call for call in tree.find_all(nodes.Call)}
    uses = sum(1 for node in tree.find_all(nodes.Name) if _is_name(node, name))
    if uses > len(attributes):
        known = ", ".join(sorted(_OBJECTS[name]))
        yield f"uses {name} as a whole, of which the triggerer knows only {known}"
    for node in attributes:
        if node.attr == _PULL and _OBJECTS[name] is _TASK_INSTANCE and id(node) in calls:
            yield from _pull_problems(calls[id(node)])
        elif node.attr not in _OBJECTS[name]:
            yield f"uses {name}.{node.attr}, which the triggerer may not answer"


def _pull_problems(call: nodes.Call) -> Iterator[str]:
    options = {option.key: option.value for option in call.kwargs}
    index = options.get("map_indexes")
    if call.dyn_args or call.dyn_kwargs or index is None or _is_none(index):
        yield (
            "calls xcom_pull without map_indexes, which Airflow's triggerer never answers; pass"
            " map_indexes=-1 for a task that is not mapped"
        )
    if not call.args and "task_ids" not in options:
        yield "calls xcom_pull without task_ids"


def _is_name(node: Any, name: str) -> bool:
    return isinstance(node, nodes.Name) and node.name == name


def _is_none(node: nodes.Expr) -> bool:
    return isinstance(node, nodes.Const) and node.value is None
