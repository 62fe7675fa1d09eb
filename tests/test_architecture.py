"""Rules about imports and calls that import-linter (``pyproject.toml``) cannot check."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import airflow_provider_cdm

PACKAGE = "airflow_provider_cdm"
ROOT = Path(airflow_provider_cdm.__file__).parent
MODULES = {
    ".".join((PACKAGE, *path.relative_to(ROOT).with_suffix("").parts)): path
    for path in sorted(ROOT.rglob("*.py"))
}


def attributes_used(tree: ast.AST, *names: str) -> list[str]:
    """Return those of the dotted names that the module uses."""
    attributes = (ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return [name for name in attributes if name in names]


@pytest.mark.parametrize(
    "module", [m for m in MODULES if ".simulator" not in m and not m.endswith("client.session")]
)
def test_only_the_session_sleeps(module: str) -> None:
    """Only the session sleeps, since a second place would be a second retry policy."""
    assert (
        attributes_used(ast.parse(MODULES[module].read_text()), "time.sleep", "asyncio.sleep") == []
    )


def test_only_compat_depends_on_the_airflow_version() -> None:
    """Only ``_compat`` handles ``ImportError`` or compares Airflow versions; the simulator is
    exempt.
    """
    forking_modules = [
        module
        for module, path in MODULES.items()
        if ".simulator" not in module
        and not module.endswith("._compat")
        and ("ImportError" in path.read_text() or "AIRFLOW_V_" in path.read_text())
    ]
    assert forking_modules == []
