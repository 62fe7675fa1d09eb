"""``CdmStartJobOperator``, except how it judges runs (``tests/tasks/test_verdicts.py``)."""

from __future__ import annotations

import copy
import inspect
import logging
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.support.task_harness import TaskRunner

JOB = "orders"
MODES: dict[str, dict[str, Any]] = {
    "on the worker": {"wait_for_completion": True, "deferrable": False},
    "deferred": {"wait_for_completion": True, "deferrable": True},
}
START_ONLY: dict[str, Any] = {"wait_for_completion": False, "deferrable": False}


def make_operator(**arguments: Any) -> CdmStartJobOperator:
    """Make the operator under test."""
    return CdmStartJobOperator(**{"task_id": "t", "job_name": JOB, **arguments})


def sent_routes(sim: CdmSimulator) -> list[str]:
    """Return the routes of the calls that CDM received, without logins."""
    return [request.route for request in sim.requests if request.route != "token"]


@pytest.mark.parametrize("mode", [START_ONLY, *MODES.values()], ids=["start only", *MODES])
def test_result_identifies_the_run_and_holds_its_outcome(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Every mode returns the same small object, with the figures of the ended run when the task
    waits for it.
    """
    sim.add_job(JOB, counters={"ROWS_READ": 7, "ROWS_WRITTEN": 7}, seconds=60)
    result = task_runner.run(lambda: make_operator(**mode))
    assert (result["cluster_id"], result["job_name"]) == (sim.cluster_id, JOB)
    (run,) = sim.runs(JOB)
    assert result["submission_id"] == run.submission_id
    assert isinstance(result["creation_date"], int)
    if mode is START_ONLY:
        assert set(result) == {
            *("cluster_id", "job_name", "submission_id", "creation_date", "creation_time"),
            *("status", "job_type"),
        }
        return
    assert result["status"] == "SUCCEEDED"
    assert result["counters"]["ROWS_WRITTEN"] == 7
    assert result["duration_seconds"] == pytest.approx(60, abs=1)
    assert {"progress", "execute_date", "last_update_date"} < set(result)


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_failed_run_raises_an_error_with_the_reason(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """The error holds CDM's summary and details of the failure, and the run."""
    sim.add_job(JOB, outcome="FAILED", error_summary="no space", error_details="at Writer.java:1")
    with pytest.raises(errors.CdmSubmissionFailed, match="no space") as failure:
        task_runner.run(lambda: make_operator(**mode))
    assert "at Writer.java:1" in str(failure.value)
    assert failure.value.submission.status == "FAILED"
    assert pickle.loads(pickle.dumps(failure.value)).submission == failure.value.submission


@pytest.mark.parametrize("mode", [START_ONLY, *MODES.values()], ids=["start only", *MODES])
def test_failed_submit_fails_the_task_in_every_mode(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """CDM answers a failed submit with HTTP 200, which fails the task even if it does not wait."""
    sim.add_job(JOB, outcome="FAILURE_ON_SUBMIT", error_summary="link is broken")
    with pytest.raises(errors.CdmSubmissionFailed, match="link is broken"):
        task_runner.run(lambda: make_operator(**mode))


def test_retry_takes_the_outcome_of_an_ended_run_without_a_deferral(
    sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """A retry whose run has ended in the meantime takes its outcome without a deferral."""
    sim.add_job(JOB, seconds=60)
    task_runner.ti.max_tries = 1
    sim.fail("status", "status", status=403, times=None)
    with pytest.raises(errors.CdmAuthError):
        task_runner.run(lambda: make_operator(**MODES["deferred"]))
    sim.faults.clear()
    clock.advance(100)
    task_runner.retry()
    assert task_runner.run(lambda: make_operator(**MODES["deferred"]))["status"] == "SUCCEEDED"
    assert len(task_runner.deferrals) == 1
    assert len(sim.runs(JOB)) == 1


def test_no_status_call_before_the_deferral(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """Before the deferral the task reads history and job and starts it, but not its status."""
    sim.add_job(JOB, seconds=60)
    task_runner.run(lambda: make_operator(**MODES["deferred"]))
    assert sent_routes(sim)[:3] == ["show_job", "submissions", "start"]
    (start,) = [request.at for request in sim.requests if request.route == "start"]
    # The first poll of the triggerer comes once Airflow has recorded the deferral.
    assert all(request.at >= start + 5 for request in sim.requests if request.route == "status")


def test_trigger_arguments_are_json_with_an_absolute_deadline(
    sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """The trigger gets JSON scalars, no credentials, and a deadline in epoch seconds."""
    sim.add_job(JOB, seconds=60)
    started_at = clock.now()
    task_runner.run(lambda: make_operator(**MODES["deferred"], wait_timeout=600))
    (arguments,) = task_runner.deferrals
    assert arguments["submission_id"] == 1
    assert arguments["deadline"] == started_at + 600
    assert sim.password not in repr(arguments)
    assert all(isinstance(value, str | int | float | None) for value in arguments.values())


def test_unknown_outcome_of_a_deferred_wait_ends_the_task(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """What the trigger could not find out is not asked for again by the task."""
    sim.add_job(JOB, seconds=60)
    body = '{"errCode": "Cdm.0054", "externalMessage": "no such job"}'
    sim.fail("status", "status", times=1, skip=1, status=400, body=body)
    with pytest.raises(errors.CdmOutcomeUnknown, match="no longer exists"):
        task_runner.run(lambda: make_operator(**MODES["deferred"]))
    assert [request.route for request in sim.requests].count("status") == 2


@pytest.mark.parametrize("cancel_on_kill", [True, False])
def test_trigger_stops_the_run_only_if_that_is_asked_for(
    cancel_on_kill: bool, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """The trigger is told what ``cancel_on_kill`` says."""
    sim.add_job(JOB, seconds=60)
    task_runner.run(lambda: make_operator(**MODES["deferred"], cancel_on_kill=cancel_on_kill))
    (arguments,) = task_runner.deferrals
    assert arguments["cancel_on_kill"] is cancel_on_kill


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_wait_timeout_fails_the_task_and_leaves_the_run_active(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """After ``wait_timeout`` the task fails, and the run is not stopped."""
    sim.add_job(JOB, seconds=10_000)
    with pytest.raises(errors.CdmWaitTimeout, match="was not stopped") as timeout:
        task_runner.run(lambda: make_operator(**mode, wait_timeout=90, poll_interval=60))
    assert timeout.value.submission is not None
    assert timeout.value.submission.status == "RUNNING"
    assert sim.runs(JOB)[-1].status == "RUNNING"
    assert "stop" not in sent_routes(sim)


def test_if_running_fail_raises_and_starts_nothing(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """By default a job that is already running is an error, and nothing is started."""
    sim.add_job(JOB, seconds=60)
    sim.start(JOB)
    with pytest.raises(errors.CdmAlreadyRunning, match="if_running"):
        task_runner.run(make_operator)
    assert len(sim.runs(JOB)) == 1


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_if_running_wait_starts_after_the_other_run_has_ended(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """With ``wait`` the task starts a run of its own after the other run has ended, whatever its
    outcome.
    """
    sim.add_job(JOB, outcomes=["FAILED", "SUCCEEDED"], seconds=60)
    sim.start(JOB)
    result = task_runner.run(lambda: make_operator(**mode, if_running="wait", variables={"a": 1}))
    assert (result["submission_id"], result["status"]) == (2, "SUCCEEDED")
    assert sim.runs(JOB)[-1].variables == {"a": "1"}
    if task_runner.deferrals:
        # A kill stops no run of somebody else.
        assert [trigger["cancel_on_kill"] for trigger in task_runner.deferrals] == [False, True]


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_if_running_wait_ends_at_the_wait_timeout(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """The wait for another run counts against ``wait_timeout``, and nothing is started after it."""
    sim.add_job(JOB, seconds=10_000)
    sim.start(JOB)
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: make_operator(**mode, if_running="wait", wait_timeout=120))
    assert len(sim.runs(JOB)) == 1


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_if_running_attach_follows_the_active_run(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """With ``attach`` the task follows the active run as if it had started it."""
    sim.add_job(JOB, seconds=60)
    sim.start(JOB)
    result = task_runner.run(lambda: make_operator(**mode, if_running="attach"))
    assert (result["submission_id"], result["status"]) == (1, "SUCCEEDED")
    assert len(sim.runs(JOB)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"job_name": ""}, "job_name is empty"),
        ({"job_name": "   "}, "job_name is empty"),
        ({"job_name": None}, "job_name must be text"),
        ({"job_name": "x" * 241}, "241 characters"),
        ({"cluster_id": 7}, "cluster_id must be text"),
        ({"variables": {"a": None, "b": [1], 3: "c", "": "d", "${e}": "f"}}, "'a' is None"),
        ({"variables": {"a": None, "b": [1], 3: "c", "": "d", "${e}": "f"}}, "'b' is list"),
        ({"variables": {"a": None, "b": [1], 3: "c", "": "d", "${e}": "f"}}, "name 3 is int"),
        ({"variables": {"a": None, "b": [1], 3: "c", "": "d", "${e}": "f"}}, "name ''"),
        ({"variables": "dt=1"}, "must be a mapping"),
    ],
)
def test_invalid_arguments_are_refused_before_anything_is_sent(
    arguments: dict[str, Any], message: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Invalid arguments raise one clear error before any request to CDM or IAM."""
    with pytest.raises(errors.CdmConfigError) as raised:
        task_runner.run(lambda: make_operator(**arguments))
    assert message in str(raised.value)
    assert sim.requests == []


@pytest.mark.parametrize(
    "arguments", [{"if_running": "maybe"}, {"poll_interval": 0}, {"wait_timeout": -1}]
)
def test_invalid_settings_are_refused_when_the_dag_is_parsed(arguments: dict[str, Any]) -> None:
    """Arguments that are not templated are checked when the operator is made."""
    with pytest.raises(errors.CdmConfigError):
        make_operator(**arguments)


def test_unknown_job_or_cluster_raises_a_typed_error(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """An unknown job or cluster is a typed error, and that of a job says what to check."""
    with pytest.raises(errors.CdmNotFound, match="Check the spelling"):
        task_runner.run(make_operator)
    with pytest.raises(errors.CdmRefused):
        task_runner.run(lambda: make_operator(cluster_id="no-such-cluster"))


def test_variables_are_sent_as_text(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """CDM accepts only text as values of variables, so other values are converted."""
    sim.add_job(JOB)
    task_runner.run(lambda: make_operator(variables={"n": 1, "f": 1.5, "s": "x", "b": True}))
    assert sim.runs(JOB)[-1].variables == {"n": "1", "f": "1.5", "s": "x", "b": "True"}


def test_templated_fields_are_rendered() -> None:
    """The fields that name the job and its variables are templated."""
    assert set(CdmStartJobOperator.template_fields) == {
        *("job_name", "cluster_id", "variables", "project_id", "cdm_conn_id"),
        *("standby_cluster_ids", "min_rows_written", "max_rows_skipped", "partition_key"),
        *("poll_interval", "wait_timeout", "stalled_after"),
    }
    task = make_operator(job_name="orders_{{ ds_nodash }}", variables={"dt": "{{ ds }}"})
    task.render_template_fields({"ds": "2025-01-02", "ds_nodash": "20250102"})
    assert (task.job_name, task.variables) == ("orders_20250102", {"dt": "2025-01-02"})


@pytest.mark.parametrize(
    "event",
    [None, {}, [], "done", {"submission": None}, {"submission": {"status": "SUCCEEDED"}},
     {"submission": {"status": "RUNNING", "job_name": JOB, "cluster_id": "c"}},
     {"submission": {"status": "NEW", "job_name": JOB, "cluster_id": "c"}},
     {"error": {"type": "CdmNoSuchError"}}, {"error": "text"}],
)  # fmt: skip
def test_malformed_event_raises_an_error(event: Any) -> None:
    """Only an event with a run that SUCCEEDED ends the task successfully; any other raises an
    error.
    """
    with pytest.raises(errors.CdmError):
        make_operator().execute_complete({}, event)


def test_on_kill_stops_only_the_run_of_this_task(
    sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """A killed task stops its own run, but no later run of the job, and nothing with
    ``cancel_on_kill=False``.
    """
    sim.add_job(JOB, seconds=60)
    tasks = [make_operator() for _ in range(3)]
    tasks[2].cancel_on_kill = False

    def run(task: CdmStartJobOperator) -> None:
        task_runner.run(lambda: task)

    for task, expected in zip(tasks, ["STOPPED", "SUCCEEDED", "SUCCEEDED"], strict=True):
        run(task)
        if task is tasks[1]:
            clock.advance(100)
            sim.start(JOB)
        task.on_kill()
        clock.advance(100)
        assert sim.runs(JOB)[-1].status == expected


def test_on_kill_before_the_start_does_nothing(sim: CdmSimulator) -> None:
    """A task that is killed before it started a run sends nothing and raises nothing."""
    make_operator().on_kill()
    assert sim.requests == []


def test_operator_can_be_mapped() -> None:
    """The operator can be mapped, since it takes all arguments as keyword arguments."""
    mapped = CdmStartJobOperator.partial(task_id="t", wait_for_completion=True).expand(
        job_name=["a", "b"]
    )
    assert mapped.partial_kwargs["wait_for_completion"] is True


def test_operator_can_be_deep_copied_and_logs_no_password(
    sim: CdmSimulator, task_runner: TaskRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """Airflow can deep-copy the operator, and no log line of this package holds the password."""
    sim.add_job(JOB, seconds=60)
    copy.deepcopy(make_operator())
    with caplog.at_level(logging.DEBUG):
        task_runner.run(lambda: make_operator(**MODES["on the worker"]))
    assert caplog.records
    assert sim.password not in caplog.text


def test_signature_shows_the_arguments() -> None:
    """Editors and the documentation show the arguments with their types and defaults."""
    parameters = inspect.signature(CdmStartJobOperator).parameters
    assert list(parameters)[:2] == ["job_name", "standby_cluster_ids"]
    assert "self" not in parameters


WAITING: dict[str, tuple[dict[str, Any], bool]] = {
    "nothing": ({}, False),
    "deferrable": ({"deferrable": True}, True),
    "not deferrable": ({"deferrable": False}, False),
    "wait": ({"wait_for_completion": True}, True),
    "wait, deferrable": ({"wait_for_completion": True, "deferrable": True}, True),
    "wait, not deferrable": ({"wait_for_completion": True, "deferrable": False}, True),
    "no wait": ({"wait_for_completion": False}, False),
    "no wait, deferrable": ({"wait_for_completion": False, "deferrable": True}, False),
}


@pytest.mark.parametrize("default", ["True", "False"])
@pytest.mark.parametrize("given", WAITING)
def test_explicit_deferrable_implies_waiting(
    given: str,
    default: str,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``deferrable=True`` waits for the run; the default of the deployment does not."""
    arguments, waits = WAITING[given]
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", default)
    sim.add_job(JOB, outcome="FAILED", seconds=60)
    if not waits:
        assert task_runner.run(lambda: make_operator(**arguments))["status"] != "FAILED"
        return
    with pytest.raises(errors.CdmSubmissionFailed):
        task_runner.run(lambda: make_operator(**arguments))
    assert bool(task_runner.deferrals) == arguments.get("deferrable", default == "True")


def test_explicit_deferrable_of_default_args_and_mapped_tasks_implies_waiting() -> None:
    """It does not matter where the argument is written."""
    default_args = {"deferrable": True}
    with DAG("d", schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC),
             default_args=default_args):  # fmt: skip
        assert make_operator().wait_for_completion
        assert not make_operator(task_id="u", deferrable=False).wait_for_completion
        mapped = CdmStartJobOperator.partial(task_id="v", deferrable=True).expand(job_name=["a"])
    unmapped: Any = mapped.unmap({"job_name": "a"})
    assert unmapped.wait_for_completion


@pytest.fixture
def task_log(log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the log of the test, with that of the tasks, which Airflow 3 writes elsewhere."""
    monkeypatch.setattr(CdmStartJobOperator, "log", logging.getLogger("tests.task"), raising=False)
    return log


@pytest.mark.parametrize("deferrable", [None, True])
def test_log_of_a_task_that_does_not_wait_ends_with_what_to_add(
    deferrable: bool | None, sim: CdmSimulator, task_runner: TaskRunner, task_log: Any
) -> None:
    """A green task says that its run goes on unwatched, and how to wait for it."""
    sim.add_job(JOB, seconds=60)
    task_runner.run(lambda: make_operator(wait_for_completion=False, deferrable=deferrable))
    last = task_log.messages[-1]
    # Airflow's page shows no more of a line without scrolling.
    assert len(last) < 100
    assert "unwatched" in last
    assert "wait_for_completion=True" in last
    assert "CdmSubmissionSensor" in last
    warned = "deferrable=True does not make this task wait, because wait_for_completion=False"
    assert (warned in task_log.text) == bool(deferrable)


def test_log_of_a_task_that_waits_does_not_say_so(
    sim: CdmSimulator, task_runner: TaskRunner, task_log: Any
) -> None:
    """A task that waits does not speak of unwatched runs."""
    sim.add_job(JOB, seconds=60)
    task_runner.run(lambda: make_operator(deferrable=True))
    assert "unwatched" not in task_log.text
