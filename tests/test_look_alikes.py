"""Jobs that are called like sub-jobs of a whole-database job, and what they do to its outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmSubmissionSensor
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock

JOB = "shop"
START: dict[str, Any] = {"wait_for_completion": True, "poll_interval": 30}
SENSOR: dict[str, Any] = {"poke_interval": 30}
PATHS: dict[str, Callable[[Any], Any]] = {
    "worker": lambda _: CdmStartJobOperator(
        task_id="t", job_name=JOB, deferrable=False, min_rows_written=1, **START
    ),
    "deferred": lambda _: CdmStartJobOperator(
        task_id="t", job_name=JOB, deferrable=True, min_rows_written=1, **START
    ),
    "sensor": lambda run: CdmSubmissionSensor(
        task_id="t", submission=run, deferrable=False, **SENSOR
    ),
}
each_path = pytest.mark.parametrize("path", PATHS)
ROWS = {"ROWS_READ": 7, "ROWS_WRITTEN": 7}


@pytest.fixture
def behaviour() -> dict[str, Any]:
    """Return switches of the simulator; tests override this fixture."""
    return {}


@pytest.fixture
def config(behaviour: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a simulator without jobs, whose links are not checked."""
    return {"clusters": [{"name": "demo"}], "behaviour": {"check_links": False, **behaviour}}


def wire(link: str = "source", **inputs: str) -> dict[str, Any]:
    """Return the object of a job without databases."""
    listed = [{"name": f"fromJobConfig.{key}", "value": value} for key, value in inputs.items()]
    return {
        "from-connector-name": "hive-connector",
        "from-link-name": link,
        "from-config-values": {"configs": [{"name": "fromJobConfig", "inputs": listed}]},
        "to-connector-name": "hive-connector",
        "to-link-name": "target",
        "to-config-values": {"configs": []},
    }


def add_whole(
    sim: CdmSimulator, well: str, failing: str = "", name: str = JOB, **inputs: str
) -> None:
    """Add a whole-database job with some tables that succeed, and others that fail."""
    tables: list[dict[str, Any]] = [{"name": each, "counters": ROWS} for each in well.split()]
    tables += [{"name": each, "outcome": "FAILED"} for each in failing.split()]
    seconds = {"booting": 5, "running": 60}
    sim.add_job(name, type="BATCH_JOB", tables=tables, seconds=seconds, wire=wire(**inputs))


def run_failing(sim: CdmSimulator, name: str, **settings: Any) -> None:
    """Start a job that fails."""
    if name not in sim.jobs():
        sim.add_job(name, **settings)
    sim.add_job(name, outcome="FAILED", seconds=10)
    sim.start(name)


def wait(sim: CdmSimulator, task_runner: Any, path: str, meanwhile: Callable[[], None]) -> Any:
    """Wait for a run, during which something happens; return the result or the error."""
    clock: Any = sim.clock
    happened: list[bool] = []
    run = None
    original = clock.advance

    def advance(seconds: float) -> None:
        original(seconds)
        runs = sim.runs(JOB)
        # By then the run has made its sub-jobs.
        if not happened and runs and clock.now() >= runs[-1].created + 15:
            happened.append(True)
            meanwhile()

    clock.advance = task_runner.advance = advance
    if path == "sensor":
        number = sim.start(JOB).submission_id
        run = {"cluster_id": sim.cluster_id, "job_name": JOB, "submission_id": number}
        advance(20)
    try:
        return task_runner.run(lambda: PATHS[path](run))
    except errors.CdmError as error:
        return error
    finally:
        assert happened


def tables_in(result: Any) -> list[str]:
    """Return the tables of a successful result."""
    assert not isinstance(result, Exception), result
    return [table["table"] for table in result["tables"]["list"]]


@each_path
def test_a_separate_job_that_was_there_before(
    path: str, sim: CdmSimulator, clock: ManualClock, task_runner: Any, log: Any
) -> None:
    """A job older than the run is none of its sub-jobs, however alike, and its failure is named."""
    sim.add_job("shop_orders", wire=wire(tableName="orders"))
    clock.advance(10)
    add_whole(sim, "parts")
    result = wait(sim, task_runner, path, lambda: run_failing(sim, "shop_orders"))
    assert tables_in(result) == ["parts"]
    assert "were there before the run" in log.text
    assert "shop_orders" in log.text


@each_path
@pytest.mark.parametrize("schema", ["public", ""])
def test_another_whole_database_job(
    path: str, schema: str, sim: CdmSimulator, task_runner: Any, log: Any
) -> None:
    """A whole-database job for schema ``hr``, made during the run, is no table ``hr``."""
    add_whole(sim, "orders", schemaName=schema)

    def meanwhile() -> None:
        hr = wire(schemaName="hr", tableName="*")
        run_failing(sim, "shop_hr", type="BATCH_JOB", wire=hr)

    assert tables_in(wait(sim, task_runner, path, meanwhile)) == ["orders"]
    assert "'shop_hr' (its " in log.text


def test_a_job_of_another_schema(sim: CdmSimulator, task_runner: Any, log: Any) -> None:
    """A job for another schema than that of the whole-database job is none of its sub-jobs."""
    add_whole(sim, "orders", schemaName="public")
    settings = {"wire": wire(schemaName="hr")}
    result = wait(sim, task_runner, "worker", lambda: run_failing(sim, "shop_hr", **settings))
    assert tables_in(result) == ["orders"]
    assert "'shop_hr' (its schema is 'hr')" in log.text


@pytest.mark.parametrize("behaviour", [{"sub_jobs_listed_as": "BATCH_JOB"}])
@each_path
@pytest.mark.parametrize("table", ["orders", ""])
def test_a_look_alike_hides_no_listing(
    path: str, table: str, sim: CdmSimulator, clock: ManualClock, task_runner: Any
) -> None:
    """A failed table is found even if another listing shows a job that is called like a sub-job."""
    sim.add_job("shop_orders_2", wire=wire(tableName=table))
    clock.advance(10)
    add_whole(sim, "orders", "parts")
    error = wait(sim, task_runner, path, lambda: None)
    assert isinstance(error, errors.CdmSubmissionFailed), error
    assert "of 2 tables 1 failed (parts)" in str(error)


@pytest.mark.parametrize("behaviour", [{"sub_jobs_listed_as": "BATCH_JOB"}])
def test_a_look_alike_during_the_run_hides_no_listing(sim: CdmSimulator, task_runner: Any) -> None:
    """The same for a job that was made during the run, and succeeded."""
    add_whole(sim, "orders", "parts")

    def meanwhile() -> None:
        sim.add_job("shop_stock", wire=wire())
        sim.start("shop_stock")

    error = wait(sim, task_runner, "sensor", meanwhile)
    assert isinstance(error, errors.CdmSubmissionFailed), error
    assert "of 3 tables 1 failed (parts)" in str(error)


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("shop_daily", {"tableName": "orders"}, "its table is 'orders'"),
        ("shop_extra", {"tableName": "extra"}, "does not move table 'extra'"),
        ("shop_extra", {"tableName": "extra", "link": "other"}, "its from-link-name is 'other'"),
        ("shop_all", {"tableName": "orders&parts"}, "its tables are 'orders&parts'"),
    ],
)
def test_a_separate_job_that_was_made_during_the_run(
    name: str, settings: Any, reason: str, sim: CdmSimulator, task_runner: Any, log: Any
) -> None:
    """What contradicts the definition of the whole-database job is none of its sub-jobs."""
    add_whole(sim, "orders parts", tableName="orders&parts")
    look_alike = wire(**settings)
    result = wait(sim, task_runner, "worker", lambda: run_failing(sim, name, wire=look_alike))
    assert tables_in(result) == ["orders", "parts"]
    assert reason in log.text


@each_path
@pytest.mark.parametrize(
    ("name", "settings", "doubt"),
    [
        ("shop_check", {}, "its table is not shown"),
        ("shop_old", {"tableName": "stock"}, "another name than a sub-job for its table 'stock'"),
    ],
)
def test_doubt_counts_and_is_told(
    path: str, name: str, settings: Any, doubt: str, sim: CdmSimulator, task_runner: Any
) -> None:
    """What may be a sub-job, also one with a new name, counts; the error says what it is."""
    add_whole(sim, "orders parts")
    look_alike = wire(**settings)
    error = wait(sim, task_runner, path, lambda: run_failing(sim, name, wire=look_alike))
    assert isinstance(error, errors.CdmSubmissionFailed), error
    table = name.removeprefix("shop_")
    assert f"of 3 tables 1 failed ({table})" in str(error)
    assert f"job '{name}' as table {table} (" in str(error)
    assert doubt in str(error)
    assert doubt in (error.submission.tables or {})["list"][0]["doubt"]


@pytest.mark.parametrize("behaviour", [{"job_keys": "few-in-lists"}])
def test_another_look(sim: CdmSimulator, clock: ManualClock, task_runner: Any, log: Any) -> None:
    """Where lists show too little, the jobs are read one by one before their failure counts."""
    sim.add_job("shop_orders", wire=wire(tableName="orders"))
    clock.advance(10)
    add_whole(sim, "parts")
    result = wait(sim, task_runner, "worker", lambda: run_failing(sim, "shop_orders"))
    assert tables_in(result) == ["parts"]
    assert "were there before the run" in log.text


@pytest.mark.parametrize("behaviour", [{"job_keys": "few"}])
@each_path
def test_jobs_of_which_little_is_shown(path: str, sim: CdmSimulator, task_runner: Any) -> None:
    """Where CDM shows too little of all jobs, a failed table is found all the same."""
    add_whole(sim, "orders", "parts")
    error = wait(sim, task_runner, path, lambda: None)
    assert isinstance(error, errors.CdmSubmissionFailed), error
    assert "of 2 tables 1 failed (parts)" in str(error)
    assert "its creation date is not shown and its links are not shown" in str(error)


@pytest.mark.parametrize("failing", [JOB, "shop_hr"])
def test_a_name_that_begins_with_the_other(
    failing: str, sim: CdmSimulator, task_runner: Any
) -> None:
    """Of two whole-database jobs at the same time, each has its own tables only."""
    add_whole(sim, "orders", "hr_orders" if failing == JOB else "")
    staff = {"well": "staff"} if failing == JOB else {"well": "", "failing": "staff"}
    add_whole(sim, **staff, name="shop_hr")
    result = wait(sim, task_runner, "worker", lambda: (sim.start("shop_hr"), None)[1])
    if failing == JOB:
        assert "of 2 tables 1 failed (hr_orders)" in str(result)
    else:
        assert tables_in(result) == ["orders"]


def test_the_job_was_changed_after_its_run(
    sim: CdmSimulator, clock: ManualClock, task_runner: Any
) -> None:
    """A definition that is newer than the run rules no sub-job out."""
    add_whole(sim, "orders", "parts")
    number = sim.start(JOB).submission_id
    clock.advance(1000)
    sim.add_job(JOB, wire=wire("other", schemaName="hr", tableName="staff"))
    run = {"cluster_id": sim.cluster_id, "job_name": JOB, "submission_id": number}
    with pytest.raises(errors.CdmSubmissionFailed, match="of 2 tables 1 failed") as caught:
        task_runner.run(lambda: PATHS["sensor"](run))
    assert "the links of 'shop' during the run are not known" in str(caught.value)


@pytest.mark.parametrize("behaviour", [{"whole_counters": "absent"}])
def test_rows_of_doubtful_jobs_reach_no_threshold(sim: CdmSimulator, task_runner: Any) -> None:
    """Rows of a job that may be somebody else's do not count for a threshold of ours."""
    add_whole(sim, "orders")

    def meanwhile() -> None:
        sim.add_job("shop_check", wire=wire(), counters=ROWS, seconds=10)
        sim.start("shop_check")

    result = wait(sim, task_runner, "worker", meanwhile)
    assert result["counters"]["ROWS_WRITTEN"] == 7
    assert [table.get("doubt") for table in result["tables"]["list"]] == [
        "its table is not shown",
        None,
    ]
