"""What the documentation shows works as it is shown."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_cdm.client.errors import CdmSubmissionFailed
from airflow_provider_cdm.client.jobs.failure_report import ensure_succeeded
from airflow_provider_cdm.client.settings import Settings
from airflow_provider_cdm.client.submission import Submission
from airflow_provider_cdm.connection import settings_from
from airflow_provider_cdm.links import DEFAULT_CONSOLE_URL
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock

DOCS = Path(__file__).parents[1] / "docs"
CONNECTIONS = sorted((DOCS / "snippets" / "connections").glob("*.json"))


def settings(text: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What the provider makes of a connection in the environment."""
    from airflow_provider_cdm._compat import BaseHook

    monkeypatch.setenv("AIRFLOW_CONN_SHOWN", text.strip())
    return settings_from(BaseHook.get_connection("shown"))


@pytest.mark.parametrize("path", CONNECTIONS, ids=lambda path: path.stem)
def test_connections(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection that is shown is complete, and its URI means the same as its JSON."""
    by_json = settings(path.read_text(), monkeypatch)
    assert by_json == settings(path.with_suffix(".uri").read_text(), monkeypatch)
    assert by_json.region == json.loads(path.read_text())["extra"]["region"]


def test_test_module() -> None:
    """The test module that is shown for users' own tests passes."""
    module = DOCS / "snippets" / "test_with_simulator.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(module)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_notice() -> None:
    """The error that is shown is what the package makes of such a run."""
    run = Submission(
        cluster_id="4a5e1b9a-2f0e-4a11-9f0b-6f2f1a3c7d21",
        job_name="orders_daily",
        status="FAILED",
        submission_id=6,
        creation_date=1772499605000,
        last_update_date=1772500361000,
        error_summary="Data writing failed: ORA-01653",
        error_details="java.sql.BatchUpdateException: ORA-01653: unable to extend table DWH.ORDERS"
        "\n\tat oracle.jdbc.driver.OraclePreparedStatement.executeBatch",
        write_rows=48000,
        update_rows=0,
        delete_rows=0,
    )
    route = {
        f"{side}-{key}": value
        for side, link, schema in (("from", "shop", "SALES"), ("to", "warehouse", "DWH"))
        for key, value in {
            "link-name": link,
            "connector-name": "generic-jdbc-connector",
            "config-values": {
                "configs": [
                    {
                        "name": f"{side}JobConfig",
                        "inputs": [
                            {"name": f"{side}JobConfig.schemaName", "value": schema},
                            {"name": f"{side}JobConfig.tableName", "value": "ORDERS"},
                        ],
                    }
                ]
            },
        }.items()
    }
    address = DEFAULT_CONSOLE_URL.format(region="eu-west-101")
    with pytest.raises(CdmSubmissionFailed) as failure:
        ensure_succeeded(run, route, address)
    assert str(failure.value) == (DOCS / "snippets" / "failure_report.txt").read_text().rstrip()


def test_dag_of_the_page_on_failures(airflow_database: None) -> None:
    """Whoever copies out of the page on failures gets tasks that Airflow accepts."""
    shown = runpy.run_path(str(DOCS / "snippets" / "retries.py"))
    assert not shown["move_orders"].retry_policy.retry_failed_runs
    assert shown["move_customers"].max_rows_skipped == 0


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_links(page: str) -> None:
    """What pages outside of the documentation link to is there."""
    root = DOCS.parent
    for target in re.findall(r"\]\(([^)#]+)", (root / page).read_text()):
        assert target.startswith("https://") or (root / target).exists(), target


def test_hook_in_task(sim: CdmSimulator, cdm_default: dict[str, Any], clock: ManualClock) -> None:
    """What is shown of the hook in a task returns what it says."""
    sim.add_job("orders_daily", counters={"ROWS_WRITTEN": 5}, seconds=60)
    for _ in range(2):
        sim.start("orders_daily")
        clock.advance(100)
    shown = runpy.run_path(str(DOCS / "snippets" / "hook_in_task.py"))
    assert shown["last_run"].function("orders_daily")["status"] == "SUCCEEDED"
    assert shown["rows_of_a_week"].function("orders_daily") == 10


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_code_is_included(page: Path) -> None:
    """Pages hold no code of their own that nobody runs: it comes out of files that tests run."""
    written = re.findall(r"^```(\w+)\s*$", page.read_text(), re.MULTILINE)
    assert set(written) <= {"sh", "text"}


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_included_parts_exist(page: Path) -> None:
    """What a page includes is there, with the marks that it names."""
    for target, options in re.findall(
        r"^```\{literalinclude\} (\S+)\n((?::.*\n)*)", page.read_text(), re.MULTILINE
    ):
        text = (DOCS / target).read_text()
        for mark in re.findall(r'^:(?:start-after|end-before): "?(.*?)"?$', options, re.MULTILINE):
            assert mark in text
