"""Nothing that a real Airflow writes at log level DEBUG contains a secret of any connection."""

from __future__ import annotations

import pytest

from tests.secrets.search import Find
from tests.secrets.secret_scan import LEAKS, SecretScan

GOOD = {
    "worker_good": "success",
    "triggerer_good": "success",
    "start_good": "success",
    "sensor_good": "success",
    "worker_bad": "failed",
    "triggerer_bad": "failed",
    "start_bad": "success",
    "sensor_bad": "failed",
    "look": "success",
}
WRONG = {
    "worker_good": "failed",
    "triggerer_good": "failed",
    "start_good": "failed",
    "sensor_good": "upstream_failed",
}


def describe(finds: list[Find]) -> str:
    """Return the first finds with their context, for the failure message."""
    return "\n\n".join(f"{find.secret} in {find.place}:\n{find.context}" for find in finds[:20])


def test_everything_happened(scan: SecretScan) -> None:
    """Tasks with right credentials end as their CDM jobs did, and tasks with wrong ones fail."""
    for case in scan.cases:
        states = scan.states[case.slug]
        expected = GOOD if case.good else WRONG
        assert {task: states[task] for task in expected} == expected, case.name
    assert scan.states[LEAKS] == {"leak": "success"}


def test_everything_was_kept(scan: SecretScan) -> None:
    """The artifacts include debug logs of each DAG, tables, output, triggers and tokens."""
    logs = [artifact for artifact in scan.artifacts if artifact.kind == "logs"]
    for case in scan.cases:
        assert any(f"dag_id={case.slug}/" in artifact.place for artifact in logs), case.name
    assert any(b"/v3/auth/tokens" in artifact.data for artifact in logs)
    assert {artifact.kind for artifact in scan.artifacts} == {"logs", "output", "database", "files"}
    triggers = [artifact.data for artifact in scan.artifacts if artifact.place == "table trigger"]
    assert any(b"poll_interval" in data for data in triggers)
    for method in ("password", "assume_role"):
        assert any(method in name for name in scan.tokens)


@pytest.mark.parametrize("kind", ["logs", "output", "database", "files"])
def test_no_secret_shows(scan: SecretScan, kind: str) -> None:
    """No artifact contains a password, key or token, or a piece of one."""
    assert not scan.finds[kind], describe(scan.finds[kind])


@pytest.mark.parametrize(
    ("secret", "place"),
    [
        ("printed", "dag_id=leaks"),
        ("written", "logs/mine.log"),
        ("to stderr", ""),
        ("returned", "table xcom"),
        ("in HTML", "dag_id=leaks"),
        ("in JSON", "dag_id=leaks"),
        ("in an address", "dag_id=leaks"),
    ],
)
def test_a_leak_is_found(scan: SecretScan, secret: str, place: str) -> None:
    """Secrets that a DAG leaks are found, in other encodings too, so the tests above can fail."""
    assert any(find.secret == secret and place in find.place for find in scan.planted)
