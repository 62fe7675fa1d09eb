"""The command line: results on the standard output, and errors as one message with a status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from airflow.models import Connection
from airflow.utils.session import create_session

from airflow_provider_cdm import get_provider_info
from airflow_provider_cdm.cli import get_airflow_commands, main
from airflow_provider_cdm.cli.definition import COMMANDS
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock

JOB = "orders"
Run = Callable[..., str]


@pytest.fixture
def run(
    sim: CdmSimulator,
    cdm_default: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    """Return a function that runs a command and returns what it wrote to the standard output."""
    # The commands set it for their own process.
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")

    def run(*arguments: str) -> str:
        capsys.readouterr()
        main(arguments)
        return capsys.readouterr().out

    return run


def failure(run: Run, *arguments: str) -> str:
    """Return the message with which a command ends, with status 1."""
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert isinstance(caught.value.code, str)
    return caught.value.code


def test_jobs_of_all_types(run: Run, sim: CdmSimulator) -> None:
    """All jobs of the cluster are listed, of each type, with the status of their latest run."""
    sim.add_job(JOB)
    sim.add_job("shop", type="BATCH_JOB", tables=[{"name": "customers"}])
    sim.start(JOB)
    rows = json.loads(run("jobs", "--output", "json"))
    assert {(row["job"], row["type"]) for row in rows} >= {
        (JOB, "NORMAL_JOB"),
        ("shop", "BATCH_JOB"),
    }
    assert [row["job"] for row in json.loads(run("jobs", "-o", "json", "--filter", "ord"))] == [JOB]
    head, *lines = run("jobs").splitlines()
    assert head.split() == ["JOB", "TYPE", "LAST", "STATUS", "LAST", "RUN"]
    assert any(line.startswith(f"{JOB} ") for line in lines)


def test_start_status_and_runs(run: Run, sim: CdmSimulator, clock: ManualClock) -> None:
    """A start says which run it is; status and runs show it with times, rows and user."""
    sim.add_job(JOB, counters={"ROWS_WRITTEN": 7}, seconds=60)
    (started,) = json.loads(run("start", JOB, "-v", "dt=2026-05-01", "-v", "x=a=b", "-o", "json"))
    (seen,) = sim.runs(JOB)
    assert started["run"] == seen.submission_id
    assert seen.variables == {"dt": "2026-05-01", "x": "a=b"}
    clock.advance(61)
    (row,) = json.loads(run("status", JOB, "-o", "json"))
    assert (row["status"], row["rows_written"], row["user"]) == ("SUCCEEDED", 7, sim.user)
    assert row["ended"].endswith("+00:00")
    assert json.loads(run("runs", JOB, "-o", "json")) == [row]


def test_waiting_for_a_failed_run(run: Run, sim: CdmSimulator) -> None:
    """A run that is waited for and fails ends the command with the report of the failure."""
    sim.add_job(JOB, outcome="FAILED", error_summary="no space", seconds=60)
    message = failure(run, "start", JOB, "--wait")
    assert message.startswith("CdmSubmissionFailed: no space\n")
    assert "run: run 1 of job" in message


def test_stop(run: Run, sim: CdmSimulator, clock: ManualClock) -> None:
    """A stop says which run it stopped; without an active run it says so."""
    sim.add_job(JOB, seconds=3600)
    started = sim.start(JOB)
    (row,) = json.loads(run("stop", JOB, "-o", "json"))
    assert (row["run"], row["status"]) == (started.submission_id, "stopping")
    clock.advance(60)
    assert failure(run, "stop", JOB) == f"Job {JOB!r} has no active run."


def test_check(run: Run, sim: CdmSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of a connection is that of the Test button."""
    assert run("check").startswith("The connection works: ")
    wrong = json.loads(sim.connection_json) | {"password": "not-the-password"}
    monkeypatch.setenv("AIRFLOW_CONN_WRONG", json.dumps(wrong))
    assert failure(run, "check", "--conn-id", "wrong").startswith("Failed at: credentials")


def test_check_for_programs(
    run: Run, sim: CdmSimulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program reads from JSON whether the connection works; the status says it as well."""
    result = json.loads(run("check", "--output", "json"))
    assert result["works"] is True
    assert result["message"].startswith("The connection works: ")
    wrong = json.loads(sim.connection_json) | {"password": "not-the-password"}
    monkeypatch.setenv("AIRFLOW_CONN_WRONG", json.dumps(wrong))
    failure(run, "check", "--conn-id", "wrong", "--output", "json")
    result = json.loads(capsys.readouterr().out)
    assert result["works"] is False
    assert result["message"].startswith("Failed at: credentials")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("status", "nope"),
            "CdmNotFound: Job[nope] doesn't exist. Could not read the status of job 'nope'",
        ),
        (("status", JOB, "--conn-id", "nope"), "CdmConfigError: There is no connection 'nope'"),
    ],
)
def test_failures(
    arguments: tuple[str, ...],
    message: str,
    run: Run,
    sim: CdmSimulator,
    airflow_database: None,
) -> None:
    """A failure is one message that begins with the kind of the error, and starts nothing."""
    sim.add_job(JOB)
    assert failure(run, *arguments).startswith(message)
    assert sim.runs(JOB) == []


@pytest.mark.parametrize("arguments", [(), ("jump",), ("status",), ("status", JOB, "--nope")])
def test_wrong_arguments(arguments: tuple[str, ...], run: Run) -> None:
    """Arguments that the command does not have are refused with status 2."""
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize("text", ["dt", "=1"])
def test_variable_without_a_name_or_a_value(
    text: str, run: Run, sim: CdmSimulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong variable is a wrong argument, so the status is 2, and nothing is started."""
    sim.add_job(JOB)
    with pytest.raises(SystemExit) as caught:
        run("start", JOB, "--var", text)
    assert caught.value.code == 2
    assert f"--var: must have the form NAME=VALUE, and not {text!r}" in capsys.readouterr().err
    assert sim.runs(JOB) == []


@pytest.mark.long
def test_output_holds_nothing_but_the_result(sim: CdmSimulator, cdm_default: Any) -> None:
    """What Airflow logs about a connection, here a value that is too short to mask, goes elsewhere.

    It needs a process of its own, since Airflow chooses the stream of its log at the import.
    """
    sim.add_job(JOB)
    connection = json.loads(sim.connection_json)
    connection["extra"]["domain_name"] = "acme"
    done = subprocess.run(
        [sys.executable, "-m", "airflow_provider_cdm", "jobs", "--output", "json"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "AIRFLOW_CONN_CDM_DEFAULT": json.dumps(connection)},
    )
    assert [row["job"] for row in json.loads(done.stdout)] == [JOB]


@pytest.mark.long
def test_stored_connection_without_warnings(sim: CdmSimulator, airflow_database: None) -> None:
    """Airflow warns of the underscore in the type of a stored connection, which users cannot
    change; a command does not print that.
    """
    stored = {"conn_id": "stored", **json.loads(sim.connection_json)}
    with create_session() as session:
        session.add(Connection(**{**stored, "extra": json.dumps(stored["extra"])}))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "airflow_provider_cdm", "check", "--conn-id", "stored"],
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        with create_session() as session:
            session.query(Connection).filter_by(conn_id="stored").delete()
    assert done.stdout.startswith("The connection works: ")
    assert "RFC3986" not in done.stderr


def test_help_of_the_simulator(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """The simulator gets its arguments as they are, also the one for help."""
    with pytest.raises(SystemExit) as caught:
        run("simulator", "--help")
    assert caught.value.code == 0
    assert "--port" in capsys.readouterr().out


def test_airflow_gets_the_same_commands() -> None:
    """Airflow's group has each command with the same arguments."""
    (group,) = get_airflow_commands()
    assert group.name == "cdm"
    assert [command.name for command in group.subcommands] == [each.name for each in COMMANDS]
    assert get_provider_info()["cli"] == [
        "airflow_provider_cdm.cli.definition.get_airflow_commands"
    ]


@pytest.mark.long
def test_declaring_the_commands_imports_nothing() -> None:
    """Every airflow command asks for the commands, so that must not import what performs them."""
    program = (
        "import sys; import airflow.cli.cli_config; before = set(sys.modules);"
        "from airflow_provider_cdm.cli.definition import get_airflow_commands;"
        "import airflow_provider_cdm._compat; compat = set(sys.modules);"
        "get_airflow_commands(); print(*sorted(n for n in set(sys.modules) - before"
        " if n.startswith('airflow_provider_cdm')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ
    )
    # On Python 3.14, Airflow prints warnings before.
    imported = done.stdout.splitlines()[-1].split()
    # Airflow 3 has imported the package itself before, and Airflow 2 has not.
    assert {*imported, "airflow_provider_cdm"} == {
        "airflow_provider_cdm",
        "airflow_provider_cdm._compat",
        "airflow_provider_cdm.cli",
        "airflow_provider_cdm.cli.definition",
    }
