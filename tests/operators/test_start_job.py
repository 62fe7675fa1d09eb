"""CdmStartJobOperator beyond the verdict table."""

from __future__ import annotations

import copy
import logging
import pickle
from typing import Any

import pytest

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


def operator(**arguments: Any) -> CdmStartJobOperator:
    """Make the operator under test."""
    return CdmStartJobOperator(**{"task_id": "t", "job_name": JOB, **arguments})


def routes(sim: CdmSimulator) -> list[str]:
    """What was asked of CDM, without the token."""
    return [request.route for request in sim.requests if request.route != "token"]


@pytest.mark.parametrize("mode", [START_ONLY, *MODES.values()], ids=["start only", *MODES])
def test_result(mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """Every mode returns the same small object, with the numbers of the end once there is one."""
    sim.add_job(JOB, counters={"ROWS_READ": 7, "ROWS_WRITTEN": 7}, seconds=60)
    result = task_runner.run(lambda: operator(**mode))
    assert (result["cluster_id"], result["job_name"]) == (sim.cluster_id, JOB)
    (run,) = sim.runs(JOB)
    assert result["submission_id"] == run.submission_id
    assert isinstance(result["creation_date"], int)
    if mode is START_ONLY:
        assert set(result) == {
            *("cluster_id", "job_name", "submission_id", "creation_date", "status"),
        }
        return
    assert result["status"] == "SUCCEEDED"
    assert result["counters"]["ROWS_WRITTEN"] == 7
    assert result["duration_seconds"] == pytest.approx(60, abs=1)
    assert {"progress", "execute_date", "last_update_date"} < set(result)


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_failure_shows_why(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """The error holds CDM's summary and details, and the run."""
    sim.add_job(JOB, outcome="FAILED", error_summary="no space", error_details="at Writer.java:1")
    with pytest.raises(errors.CdmSubmissionFailed, match="no space") as failure:
        task_runner.run(lambda: operator(**mode))
    assert "at Writer.java:1" in str(failure.value)
    assert failure.value.submission.status == "FAILED"
    assert pickle.loads(pickle.dumps(failure.value)).submission == failure.value.submission


@pytest.mark.parametrize("mode", [START_ONLY, *MODES.values()], ids=["start only", *MODES])
def test_a_start_that_fails_at_once(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """CDM answers a failed submit with HTTP 200; it fails the task even if nobody waits."""
    sim.add_job(JOB, outcome="FAILURE_ON_SUBMIT", error_summary="link is broken")
    with pytest.raises(errors.CdmSubmissionFailed, match="link is broken"):
        task_runner.run(lambda: operator(**mode))


def test_a_run_that_is_over_is_not_waited_for(
    sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """The next attempt takes an end that nobody was told of without a trip to the triggerer."""
    sim.add_job(JOB, seconds=60)
    task_runner.ti.max_tries = 1
    sim.fail("status", "status", status=401, times=None)
    with pytest.raises(errors.CdmAuthError):
        task_runner.run(lambda: operator(**MODES["deferred"]))
    sim.faults.clear()
    clock.advance(100)
    task_runner.retry()
    assert task_runner.run(lambda: operator(**MODES["deferred"]))["status"] == "SUCCEEDED"
    assert len(task_runner.deferrals) == 1
    assert len(sim.runs(JOB)) == 1


def test_a_deferral_costs_no_look(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """Before the deferral, a start looks for runs before it, starts, and asks nothing more."""
    sim.add_job(JOB, seconds=60)
    task_runner.run(lambda: operator(**MODES["deferred"]))
    assert routes(sim)[:2] == ["submissions", "start"]
    (start,) = [request.at for request in sim.requests if request.route == "start"]
    # The triggerer's first look comes when the deferral is settled.
    assert all(request.at >= start + 5 for request in sim.requests if request.route == "status")


def test_deferral_is_plain_and_keeps_its_deadline(
    sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """The trigger gets JSON scalars, no credentials, and an instant as deadline."""
    sim.add_job(JOB, seconds=60)
    began = clock.now()
    task_runner.run(lambda: operator(**MODES["deferred"], wait_timeout=600))
    (arguments,) = task_runner.deferrals
    assert arguments["submission_id"] == 1
    assert arguments["deadline"] == began + 600
    assert sim.password not in repr(arguments)
    assert all(isinstance(value, str | int | float | None) for value in arguments.values())


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_wait_timeout(mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """When the time to wait is over the task fails, and the run goes on."""
    sim.add_job(JOB, seconds=10_000)
    with pytest.raises(errors.CdmWaitTimeout, match="left alone") as timeout:
        task_runner.run(lambda: operator(**mode, wait_timeout=90, poll_interval=60))
    assert timeout.value.submission is not None
    assert timeout.value.submission.status == "RUNNING"
    assert sim.runs(JOB)[-1].status == "RUNNING"
    assert "stop" not in routes(sim)


def test_if_running_fail(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A job that runs already is a clear error, and nothing is started."""
    sim.add_job(JOB, seconds=60)
    sim.start(JOB)
    with pytest.raises(errors.CdmAlreadyRunning, match="if_running"):
        task_runner.run(operator)
    assert len(sim.runs(JOB)) == 1


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_if_running_wait(mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """With ``wait`` the task starts a run of its own once the other one is over, well or badly."""
    sim.add_job(JOB, outcomes=["FAILED", "SUCCEEDED"], seconds=60)
    sim.start(JOB)
    result = task_runner.run(lambda: operator(**mode, if_running="wait", variables={"a": 1}))
    assert (result["submission_id"], result["status"]) == (2, "SUCCEEDED")
    assert sim.runs(JOB)[-1].variables == {"a": "1"}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_if_running_wait_respects_the_deadline(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Waiting for somebody else's run counts against ``wait_timeout``; nothing is started then."""
    sim.add_job(JOB, seconds=10_000)
    sim.start(JOB)
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: operator(**mode, if_running="wait", wait_timeout=120))
    assert len(sim.runs(JOB)) == 1


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_if_running_attach(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """With ``attach`` the task takes the active run for its own."""
    sim.add_job(JOB, seconds=60)
    sim.start(JOB)
    result = task_runner.run(lambda: operator(**mode, if_running="attach"))
    assert (result["submission_id"], result["status"]) == (1, "SUCCEEDED")
    assert len(sim.runs(JOB)) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
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
def test_bad_input_is_refused_before_anything_is_sent(
    arguments: dict[str, Any], words: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Wrong arguments are one clear error; CDM and IAM hear nothing."""
    with pytest.raises(errors.CdmConfigError) as refusal:
        task_runner.run(lambda: operator(**arguments))
    assert words in str(refusal.value)
    assert sim.requests == []


@pytest.mark.parametrize(
    "arguments", [{"if_running": "maybe"}, {"poll_interval": 0}, {"wait_timeout": -1}]
)
def test_bad_settings_are_refused_when_the_dag_is_parsed(arguments: dict[str, Any]) -> None:
    """What is not templated is checked when the operator is made."""
    with pytest.raises(errors.CdmConfigError):
        operator(**arguments)


def test_unknown_job_and_cluster(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A wrong name is a typed error that says what to check."""
    with pytest.raises(errors.CdmNotFound, match="Check the spelling"):
        task_runner.run(operator)
    with pytest.raises(errors.CdmRefused):
        task_runner.run(lambda: operator(cluster_id="no-such-cluster"))


def test_variables_become_text(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """CDM takes text only, so numbers and dates are sent as text."""
    sim.add_job(JOB)
    task_runner.run(lambda: operator(variables={"n": 1, "f": 1.5, "s": "x", "b": True}))
    assert sim.runs(JOB)[-1].variables == {"n": "1", "f": "1.5", "s": "x", "b": "True"}


def test_templates() -> None:
    """Everything that names the work is templated; variables are shown as JSON."""
    assert set(CdmStartJobOperator.template_fields) == {
        *("job_name", "cluster_id", "variables", "project_id", "cdm_conn_id"),
        *("min_rows_written", "max_rows_skipped"),
    }
    task = operator(job_name="orders_{{ ds_nodash }}", variables={"dt": "{{ ds }}"})
    task.render_template_fields({"ds": "2025-01-02", "ds_nodash": "20250102"})
    assert (task.job_name, task.variables) == ("orders_20250102", {"dt": "2025-01-02"})


@pytest.mark.parametrize(
    "event",
    [None, {}, [], "done", {"submission": None}, {"submission": {"status": "SUCCEEDED"}},
     {"submission": {"status": "RUNNING", "job_name": JOB, "cluster_id": "c"}},
     {"submission": {"status": "NEW", "job_name": JOB, "cluster_id": "c"}},
     {"error": {"type": "CdmNoSuchError"}}, {"error": "text"}],
)  # fmt: skip
def test_a_malformed_event_is_no_success(event: Any) -> None:
    """Whatever comes back from the triggerer, only a run that SUCCEEDED ends the task well."""
    with pytest.raises(errors.CdmError):
        operator().execute_complete({}, event)


def test_kill_stops_only_the_own_run(
    sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """A killed task stops its run, and nobody else's that came later."""
    sim.add_job(JOB, seconds=60)
    tasks = [operator() for _ in range(3)]
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


def test_kill_before_the_start_does_nothing(sim: CdmSimulator) -> None:
    """A task that is killed before it started anything stops nothing and raises nothing."""
    operator().on_kill()
    assert sim.requests == []


def test_mapped_arguments_reach_the_operator() -> None:
    """The operator can be mapped: it takes all it needs as keyword arguments."""
    mapped = CdmStartJobOperator.partial(task_id="t", wait_for_completion=True).expand(
        job_name=["a", "b"]
    )
    assert mapped.partial_kwargs["wait_for_completion"] is True


def test_operator_can_be_copied_and_logs_no_secret(
    sim: CdmSimulator, task_runner: TaskRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """Airflow deep-copies operators; and nothing that this package logs holds the password."""
    sim.add_job(JOB, seconds=60)
    copy.deepcopy(operator())
    with caplog.at_level(logging.DEBUG):
        task_runner.run(lambda: operator(**MODES["on the worker"]))
    assert caplog.records
    assert sim.password not in caplog.text
