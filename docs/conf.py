"""Sphinx configuration; ``nox -s docs`` builds the documentation."""

from __future__ import annotations

import inspect
from typing import Any

from airflow_provider_cdm import __version__

project = "airflow-provider-cdm"
author = "the airflow-provider-cdm authors"
copyright = f"2026, {author}"  # noqa: A001 - Sphinx wants this name
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
suppress_warnings = ["myst.header"]  # guarantees.md includes a part of design.md
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "snippets"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
autodoc_inherit_docstrings = False
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!airflow_provider_cdm\.).*"),
    # Internal types that appear in signatures and are not documented.
    (r"py:.*", r"airflow_provider_cdm\.client\..*"),
    (r"py:.*", r"airflow_provider_cdm\.simulator\..*"),
]

html_theme = "furo"
html_title = f"{project} {release}"
html_logo = "images/logo.svg"
html_static_path: list[str] = []


def arguments_of(operator: type) -> list[inspect.Parameter]:
    """Return all arguments of an operator that this package defines, also the inherited ones."""
    found: dict[str, inspect.Parameter] = {}
    for owner in operator.__mro__:
        if owner.__module__.startswith("airflow_provider_cdm.") and "__init__" in vars(owner):
            for name, parameter in inspect.signature(owner.__init__).parameters.items():
                if parameter.kind is parameter.KEYWORD_ONLY:
                    found.setdefault(name, parameter)
    return [*found.values()]


def show_inherited_arguments(*event: Any) -> tuple[str, None] | None:
    """Replace ``**kwargs`` in the signature of an operator or sensor by what it stands for."""
    _, what, name, described, _, signature, _ = event
    if what != "class" or not name.endswith(("Operator", "Sensor")) or "**kwargs" not in signature:
        return None
    shown = [
        f"{each.name}: {each.annotation}"
        + ("" if each.default is each.empty else f" = {each.default!r}")
        for each in arguments_of(described)
    ]
    return f"(*, {', '.join(shown)}, **kwargs)", None


def setup(app: Any) -> None:
    """Install what autodoc cannot do itself."""
    app.connect("autodoc-process-signature", show_inherited_arguments)
