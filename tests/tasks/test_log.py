"""What a person reads at night: the log of a task, and the error that it ends with."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_cdm import _compat
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.operators import CdmStartJobOperator, CdmStopJobOperator
from airflow_provider_cdm.retry_policy import CdmRetryPolicy
from airflow_provider_cdm.sensors import CdmSubmissionSensor
from airflow_provider_cdm.simulator import CdmSimulator
from airflow_provider_cdm.tasks.base import CdmTask
from tests.support.task_harness import TaskRunner

JOB = "orders"
WAITERS: dict[str, Callable[..., Any]] = {
    "worker": lambda **arguments: operator(deferrable=False, **arguments),
    "deferred": lambda **arguments: operator(deferrable=True, **arguments),
    "poke": lambda **arguments: sensor(mode="poke", **arguments),
    "reschedule": lambda **arguments: sensor(mode="reschedule", **arguments),
    "deferred sensor": lambda **arguments: sensor(deferrable=True, **arguments),
}
each_waiter = pytest.mark.parametrize("waiter", WAITERS)


def operator(**arguments: Any) -> CdmStartJobOperator:
    """Make an operator that starts the job and waits."""
    return CdmStartJobOperator(
        task_id="t", job_name=JOB, wait_for_completion=True, poll_interval=5, **arguments
    )


def sensor(**arguments: Any) -> CdmSubmissionSensor:
    """Make a sensor for the first run of the job."""
    return CdmSubmissionSensor(
        task_id="t", job_name=JOB, submission_id=1, poke_interval=5, **arguments
    )


def add_run(sim: CdmSimulator, waiter: str, **job: Any) -> None:
    """Add the job, and start its first run if the task does not."""
    sim.add_job(JOB, seconds=60, **job)
    if "worker" not in waiter and waiter != "deferred":
        sim.start(JOB)


@pytest.fixture
def task_log(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    """Return the log of the task, which not every Airflow writes with the standard library."""
    logger = logging.getLogger("airflow_provider_cdm.task")
    monkeypatch.setattr(CdmTask, "log", logger, raising=False)
    return log


def lines(log: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines of the task's log, without those of Airflow."""
    return [
        record.getMessage()
        for record in log.records
        if record.name.startswith("airflow_provider_cdm.")
        and not record.name.startswith("airflow_provider_cdm.simulator")
        and record.getMessage() != "Success criteria met. Exiting."  # Airflow's
    ]


@each_waiter
def test_log_of_a_run(
    waiter: str, sim: CdmSimulator, task_runner: TaskRunner, task_log: pytest.LogCaptureFixture
) -> None:
    """The cluster is named once, progress fits in 100 columns, and the last line, once, says how
    the run ended.
    """
    counters = {"ROWS_READ": 9737, "ROWS_WRITTEN": 9737}
    add_run(sim, waiter, counters=counters)
    task_runner.run(WAITERS[waiter])
    shown = lines(task_log)
    (place,) = (line for line in shown if sim.cluster_id in line and "http" not in line)
    assert f"job {JOB!r} in cluster {sim.cluster_id}, connection 'cdm_default'" in place.replace(
        "Job", "job"
    )
    progress = [line for line in shown if line.startswith("Run 1: RUNNING")]
    assert progress
    assert all(len(line) < 100 for line in progress)
    assert shown[-1].startswith("Run 1: SUCCEEDED, 9,737 rows read, 9,737 rows written, took ")
    assert len([line for line in shown if "SUCCEEDED" in line]) == 1


@each_waiter
def test_error_of_a_failed_run(waiter: str, sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """The error begins with the reason, and ends with status, rows and duration; it brings one
    frame of this package, and no cause that repeats it.
    """
    add_run(sim, waiter, outcome="FAILED", error_summary="Disk full", error_details="at Writer")
    with pytest.raises(errors.CdmSubmissionFailed) as failure:
        task_runner.run(WAITERS[waiter])
    printed = "".join(traceback.format_exception(failure.value))
    assert printed.count('/airflow_provider_cdm/"') == 0
    assert printed.count("/airflow_provider_cdm/") == 1
    assert printed.count("Disk full") == 1
    first, *_, last = str(failure.value).splitlines()
    assert first == "Disk full"
    assert last == "Run 1: FAILED, 0 rows written, took 60 s"


@pytest.mark.skipif(not _compat.FRAMES_COME_FIRST, reason="the page shows the text first")
def test_reason_is_logged_before_the_frames(
    sim: CdmSimulator, task_runner: TaskRunner, task_log: pytest.LogCaptureFixture
) -> None:
    """Where Airflow prints frames before the text of an error, the reason is a line before them."""
    sim.add_job(JOB, outcome="FAILED", error_summary="Disk full")
    with pytest.raises(errors.CdmSubmissionFailed):
        task_runner.run(WAITERS["worker"])
    assert lines(task_log)[-1] == "Disk full"


@each_waiter
def test_no_warning_about_the_type_of_the_connection(
    waiter: str, sim: CdmSimulator, task_runner: TaskRunner, log: pytest.LogCaptureFixture
) -> None:
    """No look-up of the connection warns of the underscore in its type, which users cannot change;
    Airflow 2 does so of other types.
    """
    add_run(sim, waiter)
    task_runner.run(WAITERS[waiter])
    assert "RFC3986" not in log.text


def test_a_start_that_fails_is_not_said_to_have_happened(
    sim: CdmSimulator, task_runner: TaskRunner, task_log: pytest.LogCaptureFixture
) -> None:
    """Where the job cannot be read, no line says that it is started: the start fails as well."""
    with pytest.raises(errors.CdmNotFound):
        task_runner.run(WAITERS["worker"])
    assert not [line for line in lines(task_log) if "is started" in line]
    assert f"Job {JOB!r} is not checked before its start: CDM does not show it" in lines(task_log)


def test_wrong_password_is_told_once(
    sim: CdmSimulator,
    task_runner: TaskRunner,
    task_log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The check before the start says that credentials were refused; the error says the rest."""
    sim.add_job(JOB)
    wrong = json.loads(sim.connection_json) | {"password": "not-the-password"}
    monkeypatch.setenv("AIRFLOW_CONN_WRONG", json.dumps(wrong))
    with pytest.raises(errors.CdmAuthError, match="username or password is wrong"):
        task_runner.run(lambda: WAITERS["worker"](cdm_conn_id="wrong"))
    assert f"Job {JOB!r} is not checked before its start: the credentials were refused" in lines(
        task_log
    )
    # Airflow 2 gets the reason of the error before its frames.
    told = [each for each in task_log.records if "password" in each.getMessage()]
    assert not [each for each in told if each.levelno < logging.ERROR]


def test_frames_are_in_the_debug_log(
    sim: CdmSimulator, task_runner: TaskRunner, task_log: pytest.LogCaptureFixture
) -> None:
    """Who looks for a fault of this package finds the frames at level DEBUG."""
    task_log.set_level(logging.DEBUG)
    sim.add_job(JOB, outcome="FAILED")
    with pytest.raises(errors.CdmSubmissionFailed):
        task_runner.run(WAITERS["worker"])
    assert any(record.exc_info and record.levelname == "DEBUG" for record in task_log.records)


@pytest.mark.parametrize("waiter", ["worker", "deferred"])
def test_report_has_the_variables_and_no_secrets(
    waiter: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """The report says what the run was started with; secrets that Airflow knows, or that have the
    name of one, are masked.
    """
    _compat.mask_secret("known-to-airflow")
    sim.add_job(JOB, outcome="FAILED", error_summary="Disk full")
    values = {"dt": "2026-03-02", "url": "sftp://known-to-airflow@x", "shop_secret_key": "hush"}
    with pytest.raises(errors.CdmSubmissionFailed) as failure:
        task_runner.run(lambda: WAITERS[waiter](variables=values))
    assert "variables: dt='2026-03-02', url='sftp://***@x', shop_secret_key=***" in str(
        failure.value
    )
    assert "hush" not in repr(failure.value)


@pytest.mark.parametrize("waiter", ["worker", "deferred"])
def test_report_of_another_run_has_no_variables(
    waiter: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A run that the task attached to was started with variables that nobody knows; the last line
    of the error says that it is not the task's.
    """
    sim.add_job(JOB, seconds=60, outcome="FAILED")
    sim.start(JOB)
    with pytest.raises(errors.CdmSubmissionFailed) as failure:
        task_runner.run(lambda: WAITERS[waiter](variables={"dt": "x"}, if_running="attach"))
    assert "variables" not in str(failure.value)
    last = str(failure.value).splitlines()[-1]
    assert last.startswith("Run 1 (not of this task): FAILED")


@pytest.mark.parametrize("waiter", ["worker", "deferred"])
def test_missed_threshold_of_another_run(
    waiter: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """The last line of a missed threshold says, too, that the run is not the task's."""
    sim.add_job(JOB, seconds=60, counters={"ROWS_WRITTEN": 7})
    sim.start(JOB)
    limits = {"if_running": "attach", "min_rows_written": 8}
    with pytest.raises(errors.CdmThresholdMissed) as failure:
        task_runner.run(lambda: WAITERS[waiter](**limits))
    last = str(failure.value).splitlines()[-1]
    assert last.startswith("Run 1 (not of this task): SUCCEEDED, ")


@pytest.mark.parametrize("if_running", ["wait", "attach"])
@pytest.mark.parametrize("waiter", ["worker", "deferred"])
def test_progress_of_another_run_is_marked(
    waiter: str,
    if_running: str,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    task_log: pytest.LogCaptureFixture,
) -> None:
    """The log says from the first to the last line whose run it shows, and that a busy job is no
    failure.
    """
    sim.add_job(JOB, seconds=60)
    sim.start(JOB)
    task_runner.run(lambda: WAITERS[waiter](if_running=if_running))
    shown = lines(task_log)
    assert any(line.startswith("Run 1 (not of this task): RUNNING") for line in shown)
    assert any(line.startswith("Run 1 (not of this task): SUCCEEDED") for line in shown)
    assert not any(line.startswith("Run 1:") for line in shown)
    assert not any("ould not" in line for line in shown)
    if if_running == "wait":
        assert "Busy with run 1; starts when it is over" in shown
        assert any(line.startswith("Run 2: RUNNING") for line in shown)


def test_busy_job(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """An error about another run says first that the job is busy, and with what."""
    sim.add_job(JOB, seconds=60)
    sim.start(JOB)
    with pytest.raises(errors.CdmAlreadyRunning) as failure:
        task_runner.run(WAITERS["worker"])
    assert str(failure.value).startswith(f"Job {JOB!r} is busy with run 1 (")


@pytest.mark.parametrize("waiter", WAITERS)
def test_wrong_credentials_name_the_connection(
    waiter: str, sim: CdmSimulator, task_runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error about credentials says in which connection they are."""
    add_run(sim, waiter)
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", sim.connection_json.replace(sim.password, "wrong"))
    with pytest.raises(errors.CdmAuthError, match=r"onnection (is )?'warehouse'"):
        task_runner.run(lambda: WAITERS[waiter](cdm_conn_id="warehouse"))
    with pytest.raises(errors.CdmAuthError, match=r"onnection (is )?'warehouse'"):
        CdmHook("warehouse").list_submissions(JOB, sim.cluster_id)


@pytest.mark.parametrize("waiter", [*WAITERS, "stop"])
def test_a_missing_connection_is_not_retried(
    waiter: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """No retry can make a connection, and the error says how to."""
    add_run(sim, waiter)

    def make_task() -> Any:
        if waiter == "stop":
            return CdmStopJobOperator(task_id="t", job_name=JOB, cdm_conn_id="nowhere")
        return WAITERS[waiter](cdm_conn_id="nowhere")

    with pytest.raises(errors.CdmConfigError, match="There is no connection 'nowhere'") as failure:
        task_runner.run(make_task)
    assert CdmRetryPolicy().is_final(failure.value)
    assert "Admin > Connections" in str(failure.value)
    if not _compat.HAS_RETRY_POLICY:
        assert isinstance(failure.value, _compat.AirflowFailException)


def test_a_failed_lookup_of_a_connection_is_retried(
    sim: CdmSimulator, task_runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow calls a connection missing whenever a secrets backend fails; a retry may find it."""

    class Vault:
        def get_connection(self, conn_id: str) -> None:
            raise ConnectionError("the vault is sealed")

    monkeypatch.setattr(_compat, "_secrets_backends", lambda: [Vault()])
    with pytest.raises(errors.CdmUnavailable, match="the vault is sealed") as failure:
        task_runner.run(lambda: WAITERS["worker"](cdm_conn_id="nowhere"))
    assert not CdmRetryPolicy().is_final(failure.value)


@pytest.mark.parametrize("waiter", ["worker", "deferred"])
def test_a_run_that_is_left_behind_is_in_the_error(
    waiter: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Callbacks and mails get the error alone, so it says which run goes on and how to stop it."""
    sim.add_job(JOB, seconds=6000)
    with pytest.raises(errors.CdmWaitTimeout) as failure:
        task_runner.run(lambda: WAITERS[waiter](wait_timeout=60))
    stop = f"CdmHook('cdm_default').stop_job({JOB!r}, {sim.cluster_id!r})"
    assert f"run 1 of job {JOB!r} may still be active. To stop it, use {stop}" in str(failure.value)
