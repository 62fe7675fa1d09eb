"""Whole-database jobs: a run with a failed table never succeeds, and each table is reported."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.jobs import progress
from airflow_provider_cdm.operators import CdmRunJobOperator, CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmSubmissionSensor
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.support.virtual_time import VirtualTime

JOB = "shop"
WORKER: dict[str, Any] = {"wait_for_completion": True, "deferrable": False, "poll_interval": 30}
SENSOR: dict[str, Any] = {"task_id": "t", "poke_interval": 30, "deferrable": False}
PATHS: dict[str, Callable[[Any], Any]] = {
    "operator on the worker": lambda _: CdmStartJobOperator(task_id="t", job_name=JOB, **WORKER),
    "operator deferred": lambda _: CdmStartJobOperator(
        task_id="t", job_name=JOB, **{**WORKER, "deferrable": True}
    ),
    "sensor poke": lambda run: CdmSubmissionSensor(submission=run, **SENSOR),
    "sensor reschedule": lambda run: CdmSubmissionSensor(
        submission=run, mode="reschedule", **SENSOR
    ),
    "sensor deferred": lambda run: CdmSubmissionSensor(
        submission=run, **{**SENSOR, "deferrable": True}
    ),
}
each_path = pytest.mark.parametrize("path", PATHS)
ORDINARY = {
    *("cluster_id", "job_name", "submission_id", "creation_date", "status", "progress"),
    *("counters", "execute_date", "last_update_date", "duration_seconds"),
    *("creation_time", "execute_time", "last_update_time"),
}


@pytest.fixture
def behaviour() -> dict[str, Any]:
    """Return switches of the simulator; tests override this fixture."""
    return {}


@pytest.fixture
def config(behaviour: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Return the configuration of a simulator with links to two databases, and without jobs."""
    links = [{"name": n, "url": f"sqlite:///{tmp_path}/{n}.db"} for n in ("source", "target")]
    return {"clusters": [{"name": "demo", "links": links}], "behaviour": behaviour}


def failing(*names: str, summary: str = "CHECK constraint failed") -> list[dict[str, Any]]:
    return [{"name": name, "outcome": "FAILED", "error_summary": summary} for name in names]


def succeeding(*names: str, rows: int = 7) -> list[dict[str, Any]]:
    counters = {"ROWS_READ": rows, "ROWS_WRITTEN": rows}
    return [{"name": name, "counters": counters} for name in names]


def add_job(sim: CdmSimulator, *tables: Any, **settings: Any) -> None:
    seconds = {"booting": 5, "running": 60}
    sim.add_job(JOB, **{"type": "BATCH_JOB", "tables": tables, "seconds": seconds, **settings})


def wait(sim: CdmSimulator, task_runner: Any, path: str, **arguments: Any) -> Any:
    """Wait for a run in one of the ways; return the result or the error."""

    def make_task() -> Any:
        task = PATHS[path](run)
        for name, value in arguments.items():
            setattr(task, name, value)
        return task

    run = None
    if path.startswith("sensor"):
        number = sim.start(JOB).submission_id
        run = {"cluster_id": sim.cluster_id, "job_name": JOB, "submission_id": number}
    try:
        return task_runner.run(make_task)
    except errors.CdmError as error:
        return error


def definition_calls(sim: CdmSimulator) -> int:
    """Return the number of calls that read the definition of the job."""
    return sum(request.route == "show_job" for request in sim.requests)


def listings(sim: CdmSimulator) -> list[float]:
    """Return the times at which the sub-jobs were listed."""
    return [r.at for r in sim.requests if r.query.get("filter") == f"{JOB}_"]


@each_path
def test_all_tables_well(path: str, sim: CdmSimulator, task_runner: Any, log: Any) -> None:
    """The result contains each table, and the log their progress."""
    add_job(sim, *succeeding("orders", "parts", "stock", "customers"))
    result = wait(sim, task_runner, path)
    assert set(result) == {*ORDINARY, "tables"}
    tables = result["tables"]
    assert {key: tables[key] for key in ("total", "succeeded", "failed", "left_out")} == {
        "total": 4,
        "succeeded": 4,
        "failed": 0,
        "left_out": 0,
    }
    assert [table["table"] for table in tables["list"]] == ["customers", "orders", "parts", "stock"]
    assert {table["counters"]["ROWS_WRITTEN"] for table in tables["list"]} == {7}
    assert result["counters"]["ROWS_WRITTEN"] == 28
    assert "0 of 4 tables done, 3 running (orders, parts, stock)" in log.text
    assert "4 of 4 tables done" in log.text
    assert definition_calls(sim) == 1


@pytest.mark.long
@each_path
def test_a_run_whose_tables_move_does_not_stall(
    path: str, sim: CdmSimulator, task_runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables that end one after the other are progress, though CDM shows none of the run itself."""
    # The simulator always shows some.
    monkeypatch.setattr(progress, "_state", lambda seen: (seen.status,))
    tables = [f"t{index}" for index in range(24)]
    add_job(sim, *succeeding(*tables), seconds={"booting": 5, "running": 600})
    run = wait(sim, task_runner, path, stalled_after=900, fail_when_stalled=True)
    assert run["tables"]["succeeded"] == 24
    assert run["duration_seconds"] > 900


def test_the_result_of_the_documentation(sim: CdmSimulator, task_runner: Any) -> None:
    """The result shown in the documentation is what a task returns."""
    add_job(sim, *succeeding("orders", "customers"))
    shown = json.loads((Path(__file__).parents[1] / "docs/snippets/tables.json").read_text())
    assert wait(sim, task_runner, "operator on the worker")["tables"] == shown


@each_path
def test_a_table_failed(path: str, sim: CdmSimulator, task_runner: Any) -> None:
    """If a table failed, the run failed, even if CDM shows SUCCEEDED; the error names the table."""
    add_job(sim, *succeeding("orders"), *failing("parts", "stock"))
    error = wait(sim, task_runner, path)
    assert sim.runs(JOB)[-1].status == "SUCCEEDED"
    assert type(error) is errors.CdmSubmissionFailed
    assert "of 3 tables 2 failed (parts, stock)" in str(error)
    assert "table parts: FAILED, CHECK constraint failed" in str(error)
    assert (error.submission.tables or {})["list"][0]["reason"] == "CHECK constraint failed"


@each_path
@pytest.mark.parametrize("behaviour", [{"show_needs_job_type": True}])
def test_a_table_failed_of_a_job_that_is_shown_under_its_type(
    path: str, sim: CdmSimulator, task_runner: Any
) -> None:
    """A failed table fails the task also where CDM shows such a job only with its type."""
    add_job(sim, *succeeding("orders"), *failing("parts"))
    error = wait(sim, task_runner, path)
    assert type(error) is errors.CdmSubmissionFailed
    assert "table parts: FAILED, CHECK constraint failed" in str(error)


@each_path
@pytest.mark.parametrize("behaviour", [{"status_letters": "small"}])
def test_small_letters_in_lists(path: str, sim: CdmSimulator, task_runner: Any) -> None:
    """Tables are judged and shown alike if each status is spelled in small letters."""
    add_job(sim, *succeeding("orders", "stock"))
    shown = wait(sim, task_runner, path)["tables"]
    assert (shown["succeeded"], shown["total"]) == (2, 2)
    assert {table["status"] for table in shown["list"]} == {"SUCCEEDED"}
    add_job(sim, *succeeding("orders"), *failing("parts"))
    error = wait(sim, task_runner, path)
    assert type(error) is errors.CdmSubmissionFailed
    assert "table parts: FAILED, CHECK constraint failed" in str(error)


@each_path
@pytest.mark.parametrize("behaviour", [{"partial_status": "FAILED"}])
def test_cdm_shows_failed(path: str, sim: CdmSimulator, task_runner: Any) -> None:
    """If CDM shows such a run as FAILED, the error names the tables as well."""
    add_job(sim, *succeeding("orders"), *failing("parts"))
    error = wait(sim, task_runner, path)
    assert type(error) is errors.CdmSubmissionFailed
    assert "1 of 2 sub-jobs failed" in str(error)
    assert "table parts: FAILED, CHECK constraint failed" in str(error)


@each_path
def test_an_ordinary_job(path: str, sim: CdmSimulator, task_runner: Any) -> None:
    """For jobs of other types there is one call, which reads the type."""
    sim.add_job(JOB, seconds=60)
    assert set(wait(sim, task_runner, path)) == ORDINARY
    assert definition_calls(sim) <= 1
    assert listings(sim) == []


@pytest.mark.parametrize("path", ["operator on the worker", "operator deferred"])
def test_a_retry_starts_anew(path: str, sim: CdmSimulator, task_runner: Any) -> None:
    """After a table has failed, a retry of the operator runs the job again."""
    task_runner.ti.max_tries = 1
    add_job(sim, *succeeding("orders"), *failing("parts"))
    assert isinstance(wait(sim, task_runner, path), errors.CdmSubmissionFailed)
    add_job(sim, *succeeding("orders", "parts"))
    task_runner.ti.try_number += 1
    result = wait(sim, task_runner, path)
    assert (result["tables"]["succeeded"], len(sim.runs(JOB))) == (2, 2)


@each_path
@pytest.mark.parametrize("behaviour", [{}, {"sub_job_history": "dropped"}], ids=["kept", "dropped"])
def test_leftovers_of_an_earlier_run(
    path: str, sim: CdmSimulator, clock: ManualClock, task_runner: Any, log: Any
) -> None:
    """The failure of a table that is no longer moved belongs to an earlier run."""
    add_job(sim, *succeeding("orders"), *failing("parts"))
    sim.start(JOB)
    clock.advance(1000)
    assert sim.runs(f"{JOB}_parts")[-1].status == "FAILED"
    add_job(sim, *succeeding("orders"))
    result = wait(sim, task_runner, path)
    assert [table["table"] for table in result["tables"]["list"]] == ["orders"]
    assert "1 sub-jobs are from earlier runs: parts" in log.text


@each_path
def test_a_success_of_an_earlier_run_hides_nothing(
    path: str, sim: CdmSimulator, clock: ManualClock, task_runner: Any
) -> None:
    """A table that succeeded in the previous run and fails in ours has failed."""
    add_job(sim, *succeeding("orders", "parts"))
    sim.start(JOB)
    clock.advance(1000)
    add_job(sim, *succeeding("orders"), *failing("parts"))
    error = wait(sim, task_runner, path)
    assert isinstance(error, errors.CdmSubmissionFailed)
    assert "1 failed (parts)" in str(error)


@pytest.mark.long
@each_path
def test_many_tables(path: str, sim: CdmSimulator, task_runner: Any) -> None:
    """Of 250 tables the result lists as many as an XCom should contain, failed ones first."""
    names = [f"t{n:03}" for n in range(250)]
    add_job(sim, *succeeding(*names), tables_at_once=100, seconds={"booting": 5, "running": 120})
    result = wait(sim, task_runner, path)
    tables = result["tables"]
    assert (tables["total"], len(tables["list"]), tables["left_out"]) == (250, 50, 200)
    assert result["counters"]["ROWS_WRITTEN"] == 250 * 7
    assert len(json.dumps(result)) < 10_000
    listed = listings(sim)
    # The wait takes 365 seconds; each poll reads three pages, and so does the end.
    assert len(listed) <= 3 * (365 / 60 + 1) + 3 + 1


def test_many_failed_tables(sim: CdmSimulator, task_runner: Any) -> None:
    """Of 250 failed tables, the error names some and counts the others."""
    names = [f"t{n:03}" for n in range(250)]
    add_job(sim, *failing(*names, summary="x" * 5000), *succeeding("orders"), tables_at_once=300)
    error = wait(sim, task_runner, "operator on the worker")
    assert "of 251 tables 250 failed (t000, t001," in str(error)
    assert "and 240 more" in str(error)
    assert len(str(error)) < 5_000
    assert len(json.dumps(error.submission.to_payload())) < 30_000
    assert sum(r.route == "status" and f"{JOB}_t" in r.path for r in sim.requests) == 50


@each_path
def test_a_stop(path: str, sim: CdmSimulator, clock: ManualClock, task_runner: Any) -> None:
    """If somebody stops the run, the error says which tables did not end."""
    add_job(sim, *succeeding("orders", "parts", "stock"), tables_at_once=1)
    original = clock.advance

    def advance(seconds: float) -> None:
        original(seconds)
        for run in sim.runs(JOB):
            if run.active and not run.stopping and clock.now() > run.created + 90:
                sim.stop(JOB)

    clock.advance = task_runner.advance = advance  # type: ignore[method-assign]
    error = wait(sim, task_runner, path)
    assert isinstance(error, errors.CdmSubmissionFailed)
    assert error.submission.status == "STOPPED"
    tables = error.submission.tables or {}
    assert (tables["total"], tables["succeeded"]) == (3, 1)
    assert "of 3 tables 1 failed (parts) and 1 did not end (stock)" in str(error)


@each_path
def test_throttled_for_a_while(path: str, sim: CdmSimulator, task_runner: Any) -> None:
    """If the quota is used up, the wait takes longer, and no table is overlooked."""
    add_job(sim, *succeeding("orders"), *failing("parts"))
    sim.fail("list_jobs", "status", times=12, status=429)
    error = wait(sim, task_runner, path)
    assert isinstance(error, errors.CdmSubmissionFailed)
    assert "1 failed (parts)" in str(error)


@each_path
def test_always_throttled(path: str, sim: CdmSimulator, task_runner: Any, log: Any) -> None:
    """If the type of the job cannot be read, there is a warning, and the run's status counts."""
    add_job(sim, *succeeding("orders"))
    sim.fail("show_job", "status", times=None, status=429)
    assert set(wait(sim, task_runner, path)) == ORDINARY
    assert "it is not known whether job 'shop' moves a whole database" in log.text


def test_the_tables_cannot_be_listed(sim: CdmSimulator, task_runner: Any) -> None:
    """If the tables of a run cannot be listed, the task fails; a retry lists them again, and starts
    nothing.
    """
    task_runner.ti.max_tries = 1
    add_job(sim, *succeeding("orders"))
    sim.fail("list_jobs", "status", times=None, status=503)
    error = wait(sim, task_runner, "operator on the worker")
    assert type(error) is errors.CdmUnavailable
    assert "some may have failed" in str(error)
    sim.faults.clear()
    task_runner.ti.try_number += 1
    result = wait(sim, task_runner, "operator on the worker")
    assert (result["tables"]["succeeded"], len(sim.runs(JOB))) == (1, 1)


@pytest.mark.parametrize("jump", [7200.0, -7200.0], ids=["forward", "back"])
def test_the_tables_cannot_be_listed_for_a_while_and_the_clock_is_set(
    jump: float,
    sim: CdmSimulator,
    clock: ManualClock,
    task_runner: Any,
    virtual_time: VirtualTime,
) -> None:
    """A clock that is set while the tables cannot be listed neither ends nor prolongs the tries."""
    add_job(sim, *succeeding("orders"), seconds={"booting": 1, "running": 5})

    def watch() -> None:
        if listings(sim):
            virtual_time.jumped = jump

    clock.subscribe(watch)
    sim.fail("list_jobs", "status", times=12, status=503)
    result = wait(sim, task_runner, "operator on the worker")
    assert result["tables"]["succeeded"] == 1


def test_a_later_run_has_replaced_the_sub_jobs(
    sim: CdmSimulator, clock: ManualClock, task_runner: Any
) -> None:
    """Sub-jobs of a later run say nothing about ours, so its outcome is unknown."""
    add_job(sim, *succeeding("orders"))
    number = sim.start(JOB).submission_id
    clock.advance(1000)
    sim.start(JOB)
    run = {"cluster_id": sim.cluster_id, "job_name": JOB, "submission_id": number}
    with pytest.raises(
        errors.CdmOutcomeUnknown, match=r"tables of run 1 .* has replaced its sub-jobs"
    ):
        task_runner.run(lambda: PATHS["sensor poke"](run))


def test_a_gateway_without_the_api_hides_no_later_run(
    sim: CdmSimulator, clock: ManualClock, task_runner: Any
) -> None:
    """Only CDM knows that a job is gone: a 404 of the gateway does not make sub-jobs ours."""
    add_job(sim, *succeeding("orders"))
    number = sim.start(JOB).submission_id
    clock.advance(1000)
    sim.start(JOB)
    clock.advance(1000)
    body = {"error_code": "APIGW.0101", "error_msg": "The API does not exist"}
    sim.fail("status", "status", status=404, body=body, job=JOB, skip=1, times=None)
    run = {"cluster_id": sim.cluster_id, "job_name": JOB, "submission_id": number}
    with pytest.raises(errors.CdmUnavailable, match="some may have failed"):
        task_runner.run(lambda: PATHS["sensor poke"](run))


def repeat_sub_job(sim: CdmSimulator, table: str, outcome: Any, rows: int = 99) -> None:
    """Start a sub-job again by hand, with another outcome."""
    job = sim._backend.clusters[sim.cluster_id].jobs[f"{JOB}_{table}"]
    counters = {"ROWS_READ": rows, "ROWS_WRITTEN": rows}
    job.config = replace(job.config, outcome=outcome, counters=counters)
    sim.start(f"{JOB}_{table}")


def wait_afterwards(sim: CdmSimulator, task_runner: Any, number: int) -> Any:
    """Wait for a run that has ended; return the result or the error."""
    run = {"cluster_id": sim.cluster_id, "job_name": JOB, "submission_id": number}
    try:
        return task_runner.run(lambda: PATHS["sensor poke"](run))
    except errors.CdmError as error:
        return error


@pytest.mark.parametrize("passed", [5, 1000], ids=["still active", "ended"])
@pytest.mark.parametrize("outcome", ["SUCCEEDED", "FAILED"])
def test_a_sub_job_that_somebody_repeats_hides_no_failed_table(
    outcome: str, passed: float, sim: CdmSimulator, clock: ManualClock, task_runner: Any
) -> None:
    """What a sub-job did after the run counts for nothing: its run in our run does."""
    add_job(sim, *succeeding("orders"), *failing("parts"))
    number = sim.start(JOB).submission_id
    clock.advance(1000)
    repeat_sub_job(sim, "parts", outcome)
    clock.advance(passed)
    error = wait_afterwards(sim, task_runner, number)
    assert isinstance(error, errors.CdmSubmissionFailed)
    assert "of 2 tables 1 failed (parts)" in str(error)
    assert "table parts: FAILED, CHECK constraint failed" in str(error)


@pytest.mark.parametrize("passed", [5, 1000], ids=["still active", "ended"])
def test_a_sub_job_that_somebody_repeats_fails_no_good_run(
    passed: float, sim: CdmSimulator, clock: ManualClock, task_runner: Any
) -> None:
    """A sub-job that fails, or runs, when somebody repeats it does not spoil our run."""
    add_job(sim, *succeeding("orders", "parts"))
    number = sim.start(JOB).submission_id
    clock.advance(1000)
    repeat_sub_job(sim, "parts", "FAILED")
    clock.advance(passed)
    result = wait_afterwards(sim, task_runner, number)
    assert (result["tables"]["succeeded"], result["tables"]["total"]) == (2, 2)
    assert {t["counters"]["ROWS_WRITTEN"] for t in result["tables"]["list"]} == {7}


def test_a_sub_job_whose_own_run_is_no_longer_shown_is_no_success(
    sim: CdmSimulator, clock: ManualClock, task_runner: Any
) -> None:
    """If the history of a sub-job no longer shows its run in our run, the task fails."""
    add_job(sim, *succeeding("orders", "parts"))
    number = sim.start(JOB).submission_id
    clock.advance(1000)
    repeat_sub_job(sim, "parts", "SUCCEEDED")
    clock.advance(1000)
    sim.fail("submissions", "body", body={"submissions": [], "total": 0}, times=None)
    error = wait_afterwards(sim, task_runner, number)
    assert isinstance(error, errors.CdmSubmissionFailed)
    assert "table parts: UNKNOWN, its sub-job was started again after the run" in str(error)


def definition(tables: str) -> dict[str, Any]:
    """Return the definition of a whole-database job between systems without a database here."""
    body: dict[str, Any] = {"name": JOB, "job_type": "BATCH_JOB"}
    for side in ("from", "to"):
        body[f"{side}-link-name"] = f"{side}_hive"
        body[f"{side}-connector-name"] = "hive-connector"
        body[f"{side}-config-values"] = block(f"{side}JobConfig", tableName=tables)
    return body


@each_path
def test_a_table_without_a_sub_job(
    path: str, sim: CdmSimulator, task_runner: Any, log: Any
) -> None:
    """A table that the definition lists and that has no sub-job is in the log and in the result."""
    wire = definition("orders&parts&s*&public.stock")
    add_job(sim, *succeeding("orders", "stock", "spare"), wire=wire)
    result = wait(sim, task_runner, path)
    assert result["tables"]["missing"] == ["parts"]
    assert "lists 1 tables for which CDM shows no sub-job of this run" in log.text


@pytest.mark.parametrize("table", ["orders&parts", "*", "ord*&parts", "somehow(else)"])
def test_no_table_is_missing(table: str, sim: CdmSimulator, task_runner: Any, log: Any) -> None:
    """Tables that have a sub-job, patterns, and lists that are not understood are not missing."""
    add_job(sim, *succeeding("orders", "parts"), wire=definition(table))
    result = wait(sim, task_runner, "operator on the worker")
    assert "missing" not in result["tables"]
    assert "no sub-job" not in log.text


@pytest.mark.parametrize("behaviour", [{"sub_jobs_listed_as": "nowhere"}])
def test_sub_jobs_that_are_not_listed(sim: CdmSimulator, task_runner: Any, log: Any) -> None:
    """If CDM lists no sub-jobs, the status of the run counts, with a warning."""
    add_job(sim, *succeeding("orders"))
    result = wait(sim, task_runner, "operator on the worker")
    assert result["tables"]["total"] == 0
    assert "CDM shows none of its tables" in log.text


@pytest.mark.parametrize("behaviour", [{"sub_jobs_listed_as": "BATCH_JOB"}])
@each_path
def test_sub_jobs_in_the_other_listing(path: str, sim: CdmSimulator, task_runner: Any) -> None:
    """Sub-jobs are also found in the listing of whole-database jobs."""
    add_job(sim, *succeeding("orders"), *failing("parts"))
    assert "1 failed (parts)" in str(wait(sim, task_runner, path))


def test_a_job_with_the_same_prefix(
    sim: CdmSimulator, clock: ManualClock, task_runner: Any
) -> None:
    """A job whose name only begins like a sub-job's is not counted."""
    for name, type_ in ((f"{JOB}_daily", "NORMAL_JOB"), (f"{JOB}_eu", "BATCH_JOB")):
        source = {"link": "source", "table": "orders"}
        target = {"link": "target", "table": "orders"}
        sim.add_job(name, type=type_, from_=source, to=target, outcome="FAILED")
    add_job(sim, *succeeding("orders"))
    clock.advance(10)
    number = sim.start(JOB).submission_id
    for other in ("daily", "eu"):
        sim.start(f"{JOB}_{other}")
    run = {"cluster_id": sim.cluster_id, "job_name": JOB, "submission_id": number}
    result = task_runner.run(lambda: PATHS["sensor poke"](run))
    assert [table["table"] for table in result["tables"]["list"]] == ["orders"]


@pytest.mark.parametrize("behaviour", [{"whole_counters": "absent"}])
def test_thresholds_count_all_tables(sim: CdmSimulator, task_runner: Any) -> None:
    """If CDM gives no counters for the run, thresholds are compared with the sum of the tables."""
    add_job(sim, *succeeding("orders", "parts"))

    def run_with_threshold(least: int) -> Any:
        task_runner.ti.run_id = f"at_least_{least}"
        return task_runner.run(
            lambda: CdmStartJobOperator(task_id="t", job_name=JOB, **WORKER, min_rows_written=least)
        )

    assert run_with_threshold(14)["counters"]["ROWS_WRITTEN"] == 14
    task_runner.store.content.clear()
    with pytest.raises(errors.CdmThresholdMissed, match="14 rows written"):
        run_with_threshold(15)


def block(name: str, **inputs: str) -> dict[str, Any]:
    listed = [{"name": f"{name}.{key}", "value": value} for key, value in inputs.items()]
    return {"configs": [{"name": name, "inputs": listed}]}


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("one_fails", [False, True])
def test_a_job_of_its_own(
    deferrable: bool, one_fails: bool, sim: CdmSimulator, task_runner: Any, tmp_path: Path
) -> None:
    """A job that the task creates moves real tables, and is deleted after they were checked.

    Its type is known from the task's definition, so no call reads it.
    """
    for name, check in (("source", ""), ("target", "CHECK (id < 9)")):
        with sqlite3.connect(tmp_path / f"{name}.db") as database:
            for table in ("orders", "parts"):
                database.execute(f"CREATE TABLE {table} (id INTEGER {check})")
                if name == "source":
                    values = [(n,) for n in range(10 if one_fails and table == "parts" else 5)]
                    database.executemany(f"INSERT INTO {table} VALUES (?)", values)
    definition = {
        "job_type": "BATCH_JOB",
        "name": "everything",
        "from-connector-name": "generic-jdbc-connector",
        "from-link-name": "source",
        "from-config-values": block("fromJobConfig", schemaName=""),
        "to-connector-name": "generic-jdbc-connector",
        "to-link-name": "target",
        "to-config-values": block("toJobConfig", schemaName=""),
    }

    def make() -> CdmRunJobOperator:
        return CdmRunJobOperator(task_id="t", definition=definition, deferrable=deferrable)

    if one_fails:
        with pytest.raises(errors.CdmSubmissionFailed, match=r"table parts: FAILED, .*CHECK"):
            task_runner.run(make)
    else:
        result = task_runner.run(make)
        assert result["counters"]["ROWS_WRITTEN"] == 10
        assert [table["table"] for table in result["tables"]["list"]] == ["orders", "parts"]
    with sqlite3.connect(tmp_path / "target.db") as database:
        counts = [
            database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("orders", "parts")
        ]
    assert counts == [5, 0 if one_fails else 5]
    assert sim.jobs() == []
    assert [r for r in sim.requests if r.route == "show_job"] == []
