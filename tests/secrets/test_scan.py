"""On a real Airflow that logs all it can, no secret shows anywhere, whatever the credentials."""

from __future__ import annotations

import pytest

from tests.secrets.secret_scan import LEAKS, Scan
from tests.secrets.search import Find

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


def told(finds: list[Find]) -> str:
    """What was found, for people."""
    return "\n\n".join(f"{find.secret} in {find.place}:\n{find.around}" for find in finds[:20])


def test_everything_happened(scan: Scan) -> None:
    """Tasks with good credentials ended as their jobs did, and those with wrong ones failed."""
    for case in scan.cases:
        states = scan.states[case.slug]
        expected = GOOD if case.good else WRONG
        assert {task: states[task] for task in expected} == expected, case.name
    assert scan.states[LEAKS] == {"secretly": "success"}


def test_everything_was_kept(scan: Scan) -> None:
    """There are logs of each DAG with what only DEBUG shows, tables, output, and tokens."""
    logs = [trace for trace in scan.traces if trace.kind == "logs"]
    for case in scan.cases:
        assert any(f"dag_id={case.slug}/" in trace.place for trace in logs), case.name
    assert any(b"/v3/auth/tokens" in trace.data for trace in logs)
    assert {trace.kind for trace in scan.traces} == {"logs", "output", "database", "files"}
    triggers = [trace.data for trace in scan.traces if trace.place == "table trigger"]
    assert any(b"poll_interval" in data for data in triggers)
    for method in ("password", "assume_role"):
        assert any(method in name for name in scan.tokens)


@pytest.mark.parametrize("kind", ["logs", "output", "database", "files"])
def test_no_secret_shows(scan: Scan, kind: str) -> None:
    """No password, key or token, nor a piece of one, is in what Airflow left behind."""
    assert not scan.finds[kind], told(scan.finds[kind])


@pytest.mark.parametrize(
    ("secret", "place"),
    [
        ("printed", "dag_id=leaks"),
        ("written", "logs/mine.log"),
        ("to stderr", ""),
        ("returned", "table xcom"),
    ],
)
def test_a_leak_is_found(scan: Scan, secret: str, place: str) -> None:
    """What a DAG gives away is found, spelt in other ways too, so the tests above can fail."""
    assert any(find.secret == secret and place in find.place for find in scan.planted)
