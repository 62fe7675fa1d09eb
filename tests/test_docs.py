"""Tests of the documentation: examples, snippets and links work as shown."""

from __future__ import annotations

import json
import logging
import re
import runpy
import shutil
import subprocess
import sys
import types
from importlib.resources import files
from pathlib import Path
from typing import Any

import pendulum
import pytest
from airflow.providers.common.compat.sdk import BaseNotifier

from airflow_provider_cdm import operators, sensors
from airflow_provider_cdm._compat import HAS_ASSET_WATCHERS, STARTS_FROM_TRIGGER
from airflow_provider_cdm.client.jobs.failure_report import ensure_succeeded
from airflow_provider_cdm.client.settings import Settings
from airflow_provider_cdm.client.submission import Submission
from airflow_provider_cdm.connection.reader import settings_from
from airflow_provider_cdm.exceptions import CdmSubmissionFailed
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.links import DEFAULT_CONSOLE_URL
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from airflow_provider_cdm.tasks.base import CdmTask
from tests.support.airflow_home import empty_dags_folder
from tests.support.task_harness import TaskRunner
from tests.system import truth_table

DOCS = Path(__file__).parents[1] / "docs"
CONNECTIONS = sorted((DOCS / "snippets" / "connections").glob("*.json"))


def settings(text: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return the settings that the provider reads from a connection in the environment."""
    from airflow_provider_cdm._compat import BaseHook

    monkeypatch.setenv("AIRFLOW_CONN_SHOWN", text.strip())
    return settings_from(BaseHook.get_connection("shown"))


@pytest.mark.parametrize("path", CONNECTIONS, ids=lambda path: path.stem)
def test_connections(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection that is shown is complete, and its URI is equivalent to its JSON."""
    by_json = settings(path.read_text(), monkeypatch)
    assert by_json == settings(path.with_suffix(".uri").read_text(), monkeypatch)
    assert by_json.region == json.loads(path.read_text())["extra"]["region"]


def test_each_operator_and_sensor_has_a_page() -> None:
    """Each class that users put into a DAG is described on a page that the index lists."""
    folder = DOCS / "operators"
    listed = re.findall(r"^\w+$", (folder / "index.md").read_text(), re.MULTILINE)
    pages = "".join((folder / f"{name}.md").read_text() for name in listed)
    described = set(re.findall(r"autoclass:: airflow_provider_cdm\.\w+\.(\w+)", pages))
    assert described == {*operators.__all__, *sensors.__all__}


def run_test_module(name: str) -> None:
    """Run a test module that is shown, as users would."""
    module = DOCS / "snippets" / f"{name}.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(module)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.long
@pytest.mark.parametrize("name", ["test_with_simulator", "test_with_faults"])
def test_test_module(name: str) -> None:
    """The test modules that are shown as templates for users' tests pass."""
    run_test_module(name)


@pytest.mark.long
@pytest.mark.skipif(not HAS_ASSET_WATCHERS, reason="the argument is named as in Airflow 3")
def test_test_module_of_a_dag(airflow_database: None) -> None:
    """The test of a whole DAG that is shown passes with the DAG in the DAGs folder."""
    name = "example_cdm_daily_migration.py"
    shutil.copy(DOCS.parent / "example_dags" / name, empty_dags_folder())
    run_test_module("test_with_a_dag")


def test_failure_report() -> None:
    """The error message that is shown is the one that the package generates for such a run."""
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
    where = "order_date = '${dt}'"
    definition = {
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
                            *(
                                [{"name": "fromJobConfig.whereClause", "value": where}]
                                * (side == "from")
                            ),
                        ],
                    }
                ]
            },
        }.items()
    }
    console_url = DEFAULT_CONSOLE_URL.format(region="eu-west-101")
    with pytest.raises(CdmSubmissionFailed) as failure:
        ensure_succeeded(run, definition, console_url, {"dt": "2026-03-02"})
    assert str(failure.value) == (DOCS / "snippets" / "failure_report.txt").read_text().rstrip()


def test_truth_table() -> None:
    """The table that is shown is the one that is played; tests.system.truth_table writes it."""
    assert truth_table.PAGE.read_text() == truth_table.page()


def test_retries_snippet(airflow_database: None) -> None:
    """Airflow accepts the tasks that are shown on the page about failed migrations."""
    snippet = runpy.run_path(str(DOCS / "snippets" / "retries.py"))
    assert not snippet["move_orders"].retry_policy.retry_failed_runs
    assert snippet["move_customers"].max_rows_skipped == 0


def test_other_operators_snippet(airflow_database: None) -> None:
    """Airflow accepts the tasks on the pages of operators that no example DAG has."""
    snippet = runpy.run_path(str(DOCS / "snippets" / "other_operators.py"))
    assert snippet["delete_job"].downstream_task_ids == {"delete_link"}


def test_dates_snippet(airflow_database: None) -> None:
    """The day of a DAG run is that of its DAG's time zone, and a run by hand names its day."""
    snippet = runpy.run_path(str(DOCS / "snippets" / "dates.py"))
    zone, by_hand = (snippet[name].get_task("move_orders") for name in ("dag", "by_hand"))
    midnight = pendulum.datetime(2026, 3, 2, tz="Asia/Shanghai").in_timezone("UTC")
    zone.render_template_fields({"dag": snippet["dag"], "data_interval_start": midnight})
    by_hand.render_template_fields({"dag_run": types.SimpleNamespace(conf={"dt": "2026-03-02"})})
    assert zone.variables == by_hand.variables == {"dt": "2026-03-02"}


@pytest.mark.skipif(not STARTS_FROM_TRIGGER, reason="needs Airflow 3.3")
def test_sensors_without_worker_snippet() -> None:
    """The sensors that are shown begin in the triggerer."""
    snippet = runpy.run_path(str(DOCS / "snippets" / "wait_without_worker.py"))
    assert all(snippet[name].start_trigger_args for name in ("nightly", "orders"))
    assert snippet["orders"].upstream_task_ids == {"start_orders"}


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_links(page: str) -> None:
    """The targets of links in the pages outside of ``docs/`` exist."""
    root = DOCS.parent
    for target in re.findall(r"\]\(([^)#]+)", (root / page).read_text()):
        assert target.startswith("https://") or (root / target).exists(), target


def test_hook_in_task(sim: CdmSimulator, cdm_default: dict[str, Any], clock: ManualClock) -> None:
    """The tasks that are shown as examples of the hook return the right values."""
    sim.add_job("orders_daily", counters={"ROWS_WRITTEN": 5}, seconds=60)
    for _ in range(2):
        sim.start("orders_daily")
        clock.advance(100)
    snippet = runpy.run_path(str(DOCS / "snippets" / "hook_in_task.py"))
    assert snippet["last_run"].function("orders_daily")["status"] == "SUCCEEDED"
    assert snippet["rows_of_a_week"].function("orders_daily") == 10


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_code_is_included(page: Path) -> None:
    """Pages contain no Python, JSON or YAML; they include it from files that tests use."""
    languages = re.findall(r"^```(\w+)\s*$", page.read_text(), re.MULTILINE)
    assert set(languages) <= {"sh", "text"}


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_included_parts_exist(page: Path) -> None:
    """The files that a page includes exist and contain the markers that it names."""
    for target, options in re.findall(
        r"^```\{literalinclude\} (\S+)\n((?::.*\n)*)", page.read_text(), re.MULTILINE
    ):
        # Of the package, the installed files are read: a wheel is tested beside docs and tests.
        _, in_package, rest = target.partition("../airflow_provider_cdm/")
        file = files("airflow_provider_cdm") / rest if in_package else DOCS / target
        text = file.read_text()
        for marker in re.findall(
            r'^:(?:start-after|end-before): "?(.*?)"?$', options, re.MULTILINE
        ):
            assert marker in text


def test_log_of_a_task(
    sim: CdmSimulator,
    task_runner: TaskRunner,
    log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The log that is shown is what a task writes."""
    monkeypatch.setattr(CdmTask, "log", logging.getLogger("airflow_provider_cdm.x"), raising=False)
    connection = json.loads(sim.connection_json)
    connection["extra"]["console_url"] = DEFAULT_CONSOLE_URL
    monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", json.dumps(connection))
    counters = {"ROWS_READ": 97_370, "ROWS_WRITTEN": 97_370}
    sim.add_job("orders_daily", seconds=90, counters=counters)
    sim.start("orders_daily")
    monkeypatch.setattr(CdmHook, "session_options", {**CdmHook.session_options, "rng": lambda: 0.5})
    task_runner.run(
        lambda: CdmStartJobOperator(
            task_id="move_orders",
            job_name="orders_daily",
            variables={"dt": "2026-03-02"},
            wait_for_completion=True,
            deferrable=False,
            if_running="wait",
            poll_interval=30,
        )
    )
    lines = [
        record.getMessage().replace(sim.cluster_id, "4a5e1b9a-2f0e-4a11-9f0b-6f2f1a3c7d21")
        for record in log.records
        if record.name.startswith("airflow_provider_cdm.")
        and "cannot be called outside" not in record.getMessage()
    ]
    assert "\n".join([*lines, ""]) == (DOCS / "snippets" / "task_log.txt").read_text()


def test_standby_snippet(task_runner: TaskRunner, clock: ManualClock) -> None:
    """While the first cluster is stopped, the task runs its job in the other one."""
    ids = [
        str(number) * 8 + f"-{str(number) * 4}" * 3 + f"-{str(number) * 12}" for number in (1, 2)
    ]
    clusters = [
        {"name": id_[0], "id": id_, "status": status, "jobs": [{"name": "orders"}]}
        for id_, status in zip(ids, ("900", "200"), strict=True)
    ]
    task = runpy.run_path(str(DOCS / "snippets" / "standby.py"))["move_orders"]
    with (
        CdmSimulator({"clusters": clusters}, clock=clock) as sim,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("AIRFLOW_CONN_CDM_DEFAULT", sim.connection_json)
        assert task_runner.run(lambda: task)["cluster_id"] == ids[1]


def test_stalled_snippet(airflow_database: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow accepts the task with callbacks, whose notifiers are those of the providers."""

    class SlackWebhookNotifier(BaseNotifier):  # its provider is not installed
        def __init__(self, *, text: str, slack_webhook_conn_id: str = "slack_default") -> None:
            super().__init__()

        def notify(self, context: Any) -> None:
            """Do nothing."""

    path = "airflow.providers.slack.notifications.slack_webhook"
    for end in range(3, 6):
        name = ".".join(path.split(".")[:end])
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules[path].SlackWebhookNotifier = SlackWebhookNotifier  # type: ignore[attr-defined]
    task = runpy.run_path(str(DOCS / "snippets" / "stalled.py"))["move_orders"]
    assert len(task.on_stalled) == 2
    assert all(map(callable, task.on_stalled))
