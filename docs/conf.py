"""Sphinx configuration of the documentation."""

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
autodoc_class_signature = "separated"
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
html_static_path: list[str] = []
