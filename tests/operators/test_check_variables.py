"""What a task checks in the definition of its job before it starts the job."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators import CdmRunJobOperator, CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmSubmissionSensor
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.operators.run_job.task import config_block, definition
from tests.support.order_databases import DAY, ROWS, OrderDatabases
from tests.support.task_harness import TaskRunner

JOB = "orders"
MODES: dict[str, dict[str, Any]] = {
    "start only": {"wait_for_completion": False, "deferrable": False},
    "on the worker": {"wait_for_completion": True, "deferrable": False},
    "deferred": {"wait_for_completion": True, "deferrable": True},
}
each_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
MACRO = "day = '${dateformat(yyyy-MM-dd)}'"


@pytest.fixture
def databases(tmp_path: Path) -> OrderDatabases:
    """Create the databases."""
    return OrderDatabases(tmp_path)


@pytest.fixture
def behaviour() -> dict[str, Any]:
    """Return the switches of the simulator; tests parametrize them."""
    return {}


@pytest.fixture
def config(databases: OrderDatabases, behaviour: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a simulator with links to the databases."""
    return {
        "seconds": {"booting": 1, "running": 60},
        "behaviour": behaviour,
        "clusters": [{"name": "demo", "links": databases.links}],
    }


def add_job(sim: CdmSimulator, where: str = "day = '${dt}'", **settings: Any) -> None:
    """Add a job for the rows of a day, which moves none, so that any variables do."""
    links = {"from-link-name": "elsewhere", "to-link-name": "elsewhere"}
    sim.add_job(JOB, wire=definition(where) | links, **settings)


def start(**arguments: Any) -> CdmStartJobOperator:
    """Make the operator that starts it."""
    defaults = {"task_id": "t", "job_name": JOB, **MODES["on the worker"]}
    return CdmStartJobOperator(**{**defaults, **arguments})


def warnings(log: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings of the task."""
    records = [r for r in log.records if r.name == "tests.task"]
    lines = [r.getMessage() for r in records if r.levelno == logging.WARNING]
    return [line for line in lines if "cannot be called outside" not in line]


def routes(sim: CdmSimulator) -> Counter[str]:
    """Return how many calls of each route CDM received."""
    return Counter(request.route for request in sim.requests)


@each_mode
def test_missing_and_unused_variables_are_warned_of_once(
    mode: dict[str, Any],
    sim: CdmSimulator,
    task_runner: TaskRunner,
    task_log: pytest.LogCaptureFixture,
) -> None:
    """Each mode warns once, names variables and places, and starts the job all the same."""
    add_job(sim, "day = '${dt}' AND shop = '${shop}'", seconds=60)
    task_runner.run(lambda: start(variables={"dt": DAY, "date": DAY}, **mode))
    missing, unused = warnings(task_log)
    assert "${shop} (fromJobConfig.whereClause)" in missing
    assert "${dt}" not in missing
    assert "'date'" in unused
    assert DAY not in missing + unused
    assert len(sim.runs(JOB)) == 1
    first = [r.route for r in sim.requests if r.route in ("show_job", "start")]
    assert first[:2] == ["show_job", "start"]


@pytest.fixture
def starts_when_warned(sim: CdmSimulator) -> Iterator[list[int]]:
    """Return how many starts CDM had received at each warning of the task."""
    starts: list[int] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            starts.append(routes(sim)["start"])

    logger, handler = logging.getLogger("tests.task"), Handler(logging.WARNING)
    logger.addHandler(handler)
    yield starts
    logger.removeHandler(handler)


RETRY = config_block("retryJobConfig", retryJobType="RETRY_TRIPLE")


@each_mode
def test_retry_of_the_job_itself_is_warned_of(
    mode: dict[str, Any],
    sim: CdmSimulator,
    task_runner: TaskRunner,
    task_log: pytest.LogCaptureFixture,
    starts_when_warned: list[int],
) -> None:
    """A job that CDM would run again by itself, perhaps without the variables, is named before."""
    links = {"from-link-name": "elsewhere", "to-link-name": "elsewhere"}
    sim.add_job(JOB, wire=definition("day = '${dt}'", driver=RETRY) | links)
    task_runner.run(lambda: start(variables={"dt": DAY}, **mode))
    (warning,) = warnings(task_log)
    assert "retryJobConfig.retryJobType is 'RETRY_TRIPLE'" in warning
    assert set(starts_when_warned) == {0}
    assert len(sim.runs(JOB)) == 1


@pytest.mark.parametrize("mode", [MODES["on the worker"], MODES["deferred"]], ids=["worker", "def"])
def test_retry_of_an_own_job_is_warned_of(
    mode: dict[str, Any],
    sim: CdmSimulator,
    task_runner: TaskRunner,
    task_log: pytest.LogCaptureFixture,
    starts_when_warned: list[int],
) -> None:
    """So is that of a job which ``CdmRunJobOperator`` makes, unless it gets no variables."""

    def migrate(where: str, variables: dict[str, str] | None) -> CdmRunJobOperator:
        given, deferrable = definition(where, driver=RETRY), mode["deferrable"]
        return CdmRunJobOperator(
            task_id="t", definition=given, variables=variables, deferrable=deferrable
        )

    task_runner.run(lambda: migrate("day = '${dt}'", {"dt": DAY}))
    task_runner.clear()
    task_runner.run(lambda: migrate(f"day = '{DAY}'", None))
    (warning,) = warnings(task_log)
    assert "retryJobConfig.retryJobType is 'RETRY_TRIPLE'" in warning
    assert starts_when_warned[0] == 0
    assert routes(sim)["start"] == 2


def test_fail_starts_nothing_and_is_final(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """With ``fail``, a mismatch is an error before the start that no retry follows."""
    add_job(sim)
    with pytest.raises(errors.CdmConfigError, match=r"\$\{dt\}.*whereClause") as failure:
        task_runner.run(lambda: start(variables={"date": DAY}, check_variables="fail"))
    assert "'date'" in str(failure.value)
    assert failure.value.final
    assert sim.runs(JOB) == []
    add_job(sim)
    task_runner.retry()
    result = task_runner.run(lambda: start(variables={"dt": DAY}, check_variables="fail"))
    assert result["status"] == "SUCCEEDED"


def test_off_reads_nothing_before_the_start(
    sim: CdmSimulator, task_runner: TaskRunner, task_log: pytest.LogCaptureFixture
) -> None:
    """With ``off``, the job is not read, and there is no warning."""
    add_job(sim)
    mode = MODES["start only"]
    task_runner.run(lambda: start(variables={"date": DAY}, check_variables="off", **mode))
    assert (warnings(task_log), routes(sim)["show_job"]) == ([], 0)


def test_other_values_are_refused() -> None:
    """An unknown value of ``check_variables`` fails when the DAG is parsed."""
    with pytest.raises(errors.CdmConfigError, match="check_variables"):
        start(check_variables="warning")


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 429},
        {"kind": "status", "status": 403},
        {"kind": "status", "status": 500},
        {"kind": "body", "body": "{"},
        {"kind": "drop"},
    ],
    ids=lambda fault: str(fault.get("status", fault["kind"])),
)
def test_failed_look_up_delays_and_fails_nothing(
    fault: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """If the job cannot be read, it is started at once, whatever the mode of the check."""
    add_job(sim)
    sim.fail("show_job", fault["kind"], **{k: v for k, v in fault.items() if k != "kind"})
    before = clock.now()
    mode = MODES["start only"]
    task_runner.run(lambda: start(variables={"dt": DAY}, check_variables="fail", **mode))
    assert len(sim.runs(JOB)) == 1
    assert clock.now() - before < 1
    assert routes(sim)["show_job"] == 1


@pytest.mark.parametrize("outcome", ["SUCCEEDED", "FAILED"])
@pytest.mark.parametrize("seconds", [5, 600])
@pytest.mark.parametrize("mode", [MODES["on the worker"], MODES["deferred"]], ids=["worker", "def"])
def test_one_look_up_serves_the_whole_run(
    mode: dict[str, Any], seconds: int, outcome: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Neither the wait nor the report of a failure reads the job again, in any process."""
    add_job(sim, seconds=seconds, outcome=outcome)
    failed = pytest.raises(errors.CdmSubmissionFailed, match="from: link 'elsewhere'")
    with failed if outcome == "FAILED" else nullcontext():
        task_runner.run(lambda: start(variables={"dt": DAY}, **mode))
    assert routes(sim)["show_job"] == 1


def test_a_large_definition_is_read_again(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """It does not go along with a deferred task; the report of a failure still has its links."""
    where = f"day = '${{dt}}' OR name = '{'x' * 20_000}'"
    add_job(sim, where, seconds=600, outcome="FAILED")
    with pytest.raises(errors.CdmSubmissionFailed, match="from: link 'elsewhere'"):
        task_runner.run(lambda: start(variables={"dt": DAY}, **MODES["deferred"]))
    assert routes(sim)["show_job"] == 2


@pytest.mark.parametrize("deferrable", [False, True])
def test_sensor_does_not_read_the_job_again(
    deferrable: bool, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A start and a sensor read the job once between them."""
    add_job(sim, seconds=600)
    started = task_runner.run(lambda: start(variables={"dt": DAY}, **MODES["start only"]))
    wait = task_runner.another_task()
    wait.run(lambda: CdmSubmissionSensor(task_id="w", submission=started, deferrable=deferrable))
    assert routes(sim)["show_job"] == 1


def test_attempt_that_takes_over_a_run_does_not_check(
    sim: CdmSimulator, task_runner: TaskRunner, task_log: pytest.LogCaptureFixture
) -> None:
    """A retry that finds the run of the first attempt warns of nothing, and fails for nothing."""
    add_job(sim, seconds=600)
    task_runner.ti.max_tries = 1
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: start(variables={"date": DAY}, wait_timeout=60))
    assert len(warnings(task_log)) >= 2
    task_log.clear()
    task_runner.retry()
    task_runner.run(lambda: start(variables={"date": DAY}, check_variables="fail"))
    assert not any("date" in line or "${dt}" in line for line in warnings(task_log))
    assert len(sim.runs(JOB)) == 1


@pytest.mark.parametrize("mode", [MODES["on the worker"], MODES["deferred"]], ids=["worker", "def"])
def test_wait_for_another_run_checks_once(
    mode: dict[str, Any],
    sim: CdmSimulator,
    task_runner: TaskRunner,
    task_log: pytest.LogCaptureFixture,
) -> None:
    """A task that waits for its turn checks the job when it is really about to start it."""
    add_job(sim, seconds=60)
    sim.start(JOB, variables={"dt": DAY})
    task_runner.run(lambda: start(variables={"date": DAY}, if_running="wait", **mode))
    assert sum("${dt}" in line for line in warnings(task_log)) == 2
    assert len(sim.runs(JOB)) == 2


@pytest.mark.parametrize("behaviour", [{"encode_values": True}])
def test_percent_encoded_values_are_read(
    sim: CdmSimulator, task_runner: TaskRunner, task_log: pytest.LogCaptureFixture
) -> None:
    """A version of CDM that shows values percent-encoded gets the same check."""
    add_job(sim)
    task_runner.run(lambda: start(variables={"dt": DAY}, check_variables="fail"))
    assert warnings(task_log) == []


def test_disabled_job_is_not_started(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A job that CDM shows as disabled gets no start, and the error says what to do."""
    add_job(sim, enabled=False)
    with pytest.raises(errors.CdmRefused, match=r"disabled.*Enable it") as failure:
        task_runner.run(lambda: start(variables={"dt": DAY}))
    assert failure.value.code == "Cdm.0059"
    assert routes(sim)["start"] == 0


def test_failed_look_up_is_not_repeated(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A task that then waits for another run starts the job without a second try."""
    add_job(sim, seconds=60)
    sim.start(JOB, variables={"dt": DAY})
    sim.fail("show_job", "status", status=403, times=None)
    mode = MODES["start only"]
    task_runner.run(lambda: start(variables={"dt": DAY}, if_running="wait", **mode))
    assert (routes(sim)["show_job"], len(sim.runs(JOB))) == (1, 2)


@pytest.mark.parametrize(
    ("enabled", "starts"),
    [
        (False, False),
        ("false", False),
        ("FALSE", False),
        (True, True),
        ("true", True),
        ("", True),
        ("falsely", True),
        (None, True),
    ],
)
def test_forms_of_disabled(
    enabled: Any, starts: bool, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Only a job that is certainly disabled is not started."""
    add_job(sim)
    sim.fail("show_job", "body", body={"jobs": [{"name": JOB, "enabled": enabled}]})
    with nullcontext() if starts else pytest.raises(errors.CdmRefused, match="is disabled"):
        task_runner.run(lambda: start(variables={"dt": DAY}))
    assert len(sim.runs(JOB)) == starts


@pytest.mark.parametrize("mode", [MODES["on the worker"], MODES["deferred"]], ids=["worker", "def"])
def test_definition_that_is_nested_without_end(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """It counts as unreadable: whatever walked through it would run out of stack."""
    nested: Any = "x"
    for _ in range(1_000):
        nested = {"a": [nested]}
    body = {"jobs": [{"name": JOB, "from-config-values": {"configs": []}, "other": nested}]}
    add_job(sim, outcome="FAILED")
    sim.fail("show_job", "body", body=body, times=None)
    with pytest.raises(errors.CdmSubmissionFailed):
        task_runner.run(lambda: start(variables={"dt": DAY}, **mode))
    assert [run.status for run in sim.runs(JOB)] == ["FAILED"]


@pytest.mark.parametrize(
    ("count", "more"), [(19, ""), (20, ""), (21, " and 1 more"), (25, " and 5 more")]
)
def test_many_unused_variables_are_not_all_named(
    count: int,
    more: str,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    task_log: pytest.LogCaptureFixture,
) -> None:
    """A message names twenty variables, cuts long names, and says how many there are besides."""
    add_job(sim)
    names = [f"v{number:02}_{'x' * 90}" for number in range(count)]
    task_runner.run(lambda: start(variables={"dt": DAY, **dict.fromkeys(names, "1")}))
    (unused,) = warnings(task_log)
    shown = [name for name in names if name[:60] in unused]
    assert shown == names[:20]
    assert f"x{more}, which job" in unused.replace("'", "")
    assert names[0] not in unused


def test_own_job_is_checked_without_a_call(
    sim: CdmSimulator, task_runner: TaskRunner, task_log: pytest.LogCaptureFixture
) -> None:
    """``CdmRunJobOperator`` checks its own definition, before it creates the job."""

    def migrate(**arguments: Any) -> CdmRunJobOperator:
        defaults = {"task_id": "t", "definition": definition(), "variables": {"date": DAY}}
        return CdmRunJobOperator(**{**defaults, "deferrable": True, **arguments})

    with pytest.raises(errors.CdmConfigError, match=r"\$\{dt\}"):
        task_runner.run(lambda: migrate(check_variables="fail"))
    assert routes(sim)["create_job"] == 0
    task_runner.run(lambda: migrate(variables={"dt": DAY, "date": DAY}))
    other = {"dt": DAY, "other": DAY}
    task_runner.another_task().run(lambda: migrate(variables=other, check_variables="off"))
    assert "'other'" not in task_log.text
    assert len([line for line in warnings(task_log) if "'date'" in line]) == 1
    assert routes(sim)["show_job"] == 0


@pytest.mark.parametrize("behaviour", [{}, {"encode_values": True}], ids=["plain", "encoded"])
@pytest.mark.parametrize("mode", [MODES["on the worker"], MODES["deferred"]], ids=["worker", "def"])
def test_failure_says_which_day_failed(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """The error shows the variables and the condition with them filled in, but no secret."""
    where = "day = '${dt}' AND key = '${api_token}' AND x = '${dateformat(yyyy)}'"
    add_job(sim, where, outcome="FAILED", seconds=600)
    variables = {"dt": DAY, "api_token": "s3cr3t-value"}
    with pytest.raises(errors.CdmSubmissionFailed) as failure:
        task_runner.run(lambda: start(variables=variables, **mode))
    report = str(failure.value)
    assert f"  variables: dt='{DAY}'" in report
    filled = f"day = '{DAY}' AND key = '***' AND x = '${{dateformat(yyyy)}}'"
    assert f"  where: {filled} (in the job: {where})" in report
    assert "s3cr3t-value" not in report
    assert routes(sim)["show_job"] == 1


# Date macros


def dated(runner: TaskRunner, day: datetime | None, **more: Any) -> TaskRunner:
    """Let the runner's DAG run have a logical date, and a data interval of a day."""
    end = None if day is None else day + timedelta(days=1)
    runner.context = {"logical_date": day, "data_interval_end": end, **more}
    return runner


def on_day(clock: ManualClock, day: datetime) -> None:
    """Set the clock of CDM and Airflow."""
    clock.advance(day.timestamp() - clock.now())


START = datetime(2025, 1, 4, 0, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("logical", "warned"),
    [
        (datetime(2025, 1, 3, tzinfo=UTC), False),  # planned for the end of its data interval
        (datetime(2025, 1, 4, tzinfo=UTC), False),  # started by hand
        (datetime(2025, 1, 2, tzinfo=UTC), True),
        (datetime(2025, 1, 6, tzinfo=UTC), True),
        (None, False),
    ],
)
def test_macro_of_another_day_is_warned_of(
    logical: datetime | None,
    warned: bool,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    task_log: pytest.LogCaptureFixture,
    clock: ManualClock,
) -> None:
    """A date macro in a run for another day than today is warned of, with what to do instead."""
    on_day(clock, START)
    add_job(sim, MACRO)
    dated(task_runner, logical).run(start)
    lines = warnings(task_log)
    assert len(lines) == warned
    for line in lines:
        assert "${dateformat(yyyy-MM-dd)} (fromJobConfig.whereClause)" in line
        assert "2025-01-04" in line
        assert str(logical)[:10] in line
        assert '{"dt": "{{ ds }}"}' in line


def test_days_are_those_of_the_dag(
    sim: CdmSimulator,
    task_runner: TaskRunner,
    task_log: pytest.LogCaptureFixture,
    clock: ManualClock,
) -> None:
    """Whether a run is late is decided in the time zone of its DAG."""
    from pendulum import timezone

    on_day(clock, datetime(2025, 1, 4, 1, tzinfo=UTC))
    add_job(sim, MACRO)
    dag = SimpleNamespace(timezone=timezone("Asia/Shanghai"))
    began = datetime(2025, 1, 2, 22, tzinfo=UTC)  # 06:00 on the third, there
    dated(task_runner, began, dag=dag).run(start)
    assert warnings(task_log) == []


def rendered(runner: TaskRunner, **arguments: Any) -> CdmRunJobOperator:
    """Make the operator with a job of the macro, its templates rendered."""
    with DAG("d", schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC)):
        operator = CdmRunJobOperator(task_id="t", definition=definition(MACRO), **arguments)
    operator.render_template_fields(cast("Any", dict(runner.context)))
    return operator


@pytest.mark.parametrize("native", [False, True])
def test_macros_at_moves_each_day_once(
    native: bool,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    task_log: pytest.LogCaptureFixture,
    databases: OrderDatabases,
) -> None:
    """A backfill of a job with date macros moves the rows of its own days, each once."""
    for number in (1, 2, 3):
        runner = dated(task_runner.another_task(), datetime(2025, 1, number, tzinfo=UTC))
        at = datetime(2025, 1, number, tzinfo=UTC) if native else "{{ logical_date }}"
        runner.run(partial(rendered, runner, macros_at=at, deferrable=True))
    assert [databases.count_rows(f"2025-01-0{n}") for n in (1, 2, 3, 4)] == [ROWS, ROWS, ROWS, 0]
    assert warnings(task_log) == []


@pytest.mark.parametrize("at", ["2025-01-02", "20250102", "2025-01-02T03:04:05", date(2025, 1, 2)])
def test_forms_of_macros_at(
    at: Any, sim: CdmSimulator, task_runner: TaskRunner, databases: OrderDatabases
) -> None:
    """Dates and times in the forms of Airflow's templates are taken."""
    task_runner.run(partial(rendered, task_runner, macros_at=at, deferrable=False))
    assert databases.count_rows("2025-01-02") == ROWS


def test_macros_at_counts_in_the_time_zone_of_the_dag(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A time in UTC is a day of the DAG's time zone; any other zone is kept."""
    from pendulum import timezone

    texts = "${dateformat(yyyy-MM-dd HH)} ${timestamp(dateformat(yyyyMMdd,-1,DAY))} ${dt}"
    job = definition(None) | {"from-config-values": config_block("fromJobConfig", tableName=texts)}
    dag = SimpleNamespace(timezone=timezone("Asia/Shanghai"))
    for at in ("2025-01-01 16:00:00+00:00", datetime(2025, 1, 2, 1, tzinfo=timezone("Asia/Tokyo"))):
        runner = dated(task_runner.another_task(), None, dag=dag)
        with pytest.raises(errors.CdmSubmissionFailed):
            runner.run(
                partial(CdmRunJobOperator, task_id="t", definition=job, macros_at=cast("Any", at))
            )
    sent = [
        request.json()["jobs"][0]["from-config-values"]["configs"][0]["inputs"][0]["value"]
        for request in sim.requests
        if request.route == "create_job"
    ]
    assert sent == ["2025-01-02 00 1735660800000 ${dt}", "2025-01-02 01 1735657200000 ${dt}"]


@pytest.mark.parametrize(
    ("where", "at", "reason"),
    [
        ("day = '${dateformat(qq)}'", "2025-01-02", "letter 'q'.*Nothing was created"),
        (MACRO, "soon", "macros_at is 'soon'"),
        (MACRO, "None", "rendered to nothing"),
    ],
)
def test_macro_that_cannot_be_filled_creates_nothing(
    where: str, at: str, reason: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """An invalid macro or time is an error of the argument, before anything is created."""
    with pytest.raises(errors.CdmConfigError, match=reason):
        task_runner.run(
            lambda: CdmRunJobOperator(task_id="t", definition=definition(where), macros_at=at)
        )
    assert sim.requests == []
