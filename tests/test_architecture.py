"""Who may import whom. The arrows are those of the design; a wrong import fails here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import airflow_provider_cdm

PACKAGE = "airflow_provider_cdm"
ROOT = Path(airflow_provider_cdm.__file__).parent
MODULES = {
    ".".join((PACKAGE, *path.relative_to(ROOT).with_suffix("").parts)): path
    for path in sorted(ROOT.rglob("*.py"))
}
#: The client from the bottom up: a module may import only what stands before it.
CLIENT_ORDER = [
    "wire",
    "messages",
    "hiding",
    "errors",
    "checks",
    "definitions",
    "drafts",
    "failures",
    "models",
    "clusters",
    "listing",
    "records",
    "settings",
    "budget",
    "signing",
    "endpoints",
    "management",
    "retry",
    "refusals",
    "token_cache",
    "grants",
    "tokens",
    "keys",
    "auth",
    "flows",
    "checkup",
    "following",
    "applying",
    "tables",
    "subjobs",
    "collecting",
    "datasets",
    "notices",
    "thresholds",
    "switching",
    "starting",
    "progress",
    "metering",
    "schedule",
    "waits",
    "outage",
    "roster",
    "rounds",
    "watching",
    "transport",
    "session",
]
#: The Airflow face from the bottom up, by the same rule.
FACE_ORDER = [
    "_compat",
    "connection",
    "journal",
    "links",
    "hooks",
    "cluster_trigger",
    "watcher",
    "triggers",
    "run_job_trigger",
    "retries",
    "assets",
    "lineage",
    "outcome",
    "operators.base",
    "operators.jobs",
    "operators.links",
    "operators.clusters",
    "operators.start",
    "operators.run_job",
    "sensors.cluster",
    "sensors.submission",
]


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names that are imported at run time, with their line; type-only imports do not count."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        yield from imports(node)


def wrong_imports(module: str, source: str) -> list[str]:
    """Say which imports of a module run against the arrows."""
    return [
        f"{module}:{line} imports {name}: {reason}"
        for name, line in imports(ast.parse(source))
        if (reason := _objection(module, name))
    ]


def _objection(module: str, name: str) -> str | None:
    top = name.split(".")[0]
    part = module.removeprefix(f"{PACKAGE}.")
    if top == "airflow" and part != "_compat":
        return "only _compat knows Airflow"
    if top in ("requests", "urllib3") and part != "client.transport":
        return "only client.transport speaks HTTP"
    if top != PACKAGE:
        return None
    target = name.removeprefix(f"{PACKAGE}.")
    if part.startswith("simulator") != target.startswith("simulator") and target != "__version__":
        return "simulator and the rest share no code"
    if part.startswith("client."):
        return _against_order(part.removeprefix("client."), target, "client.", CLIENT_ORDER)
    if part.startswith("simulator") or target.startswith("client"):
        return None
    return _against_order(part, target, "", FACE_ORDER)


def _against_order(own: str, target: str, prefix: str, order: list[str]) -> str | None:
    if target == "__version__":
        return None
    if not target.startswith(prefix):
        return "the client knows nothing of Airflow"
    name = target.removeprefix(prefix)
    name = next((each for each in order if f"{name}.".startswith(f"{each}.")), name)
    if own not in order or name not in order:
        return f"{own} or {name} has no place in the order yet"
    return None if order.index(name) < order.index(own) else f"{name} stands above {own}"


@pytest.mark.parametrize("module", [m for m in MODULES if not m.endswith("__init__")])
def test_imports_follow_the_arrows(module: str) -> None:
    """No module imports what stands above it, or what another module has for itself."""
    assert wrong_imports(module, MODULES[module].read_text()) == []


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("client.models", "import airflow"),
        ("client.flows", "from airflow_provider_cdm.hooks import CdmHook"),
        ("client.models", "from airflow_provider_cdm.client import session"),
        ("client.retry", "import requests"),
        ("hooks", "from airflow.hooks.base import BaseHook"),
        ("hooks", "def late():\n    import requests"),
        ("triggers", "from airflow_provider_cdm.operators import CdmStartJobOperator"),
        ("operators", "from airflow_provider_cdm.simulator import CdmSimulator"),
        ("simulator.server", "from airflow_provider_cdm.client import models"),
        ("client.newcomer", "from airflow_provider_cdm.client import models"),
    ],
)
def test_a_wrong_import_is_found(module: str, statement: str) -> None:
    """The check above is able to fail."""
    assert wrong_imports(f"{PACKAGE}.{module}", statement)


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
