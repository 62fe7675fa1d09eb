"""What the floors checked by import-linter (``pyproject.toml``) do not show."""

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


def calls(tree: ast.AST, *wanted: str) -> list[str]:
    """Which of these dotted names a module mentions."""
    found = (ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return [name for name in found if name in wanted]


@pytest.mark.parametrize(
    "module", [m for m in MODULES if ".simulator" not in m and not m.endswith("client.session")]
)
def test_only_the_session_sleeps(module: str) -> None:
    """Pauses belong to the drivers; a second sleep would be a second retry policy."""
    assert calls(ast.parse(MODULES[module].read_text()), "time.sleep", "asyncio.sleep") == []


def test_only_compat_forks_on_the_airflow_version() -> None:
    """No other module of the Airflow face tries an import or asks for a version."""
    forks = [
        module
        for module, path in MODULES.items()
        if ".simulator" not in module
        and not module.endswith("._compat")
        and ("ImportError" in path.read_text() or "AIRFLOW_V_" in path.read_text())
    ]
    assert forks == []
