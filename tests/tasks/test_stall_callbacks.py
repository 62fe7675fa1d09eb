"""``on_stalled``: a person learns of a run that makes no progress, wherever the task waits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseNotifier

from airflow_provider_cdm._compat import STARTS_FROM_TRIGGER
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmSubmissionSensor
from airflow_provider_cdm.simulator import CdmSimulator
from tests.support.task_harness import TaskRunner

JOB = "orders"
#: A run that stalls, changes, stalls again, and succeeds.
TWO_STALLS = [*["RUNNING"] * 60, "BOOTING", *["RUNNING"] * 60, "SUCCEEDED"]
MODES: dict[str, Callable[..., Any]] = {
    "worker": lambda **options: operator(deferrable=False, **options),
    "deferred": lambda **options: operator(deferrable=True, **options),
    "poke": lambda **options: sensor(mode="poke", **options),
    "reschedule": lambda **options: sensor(mode="reschedule", **options),
    "deferred sensor": lambda **options: sensor(deferrable=True, **options),
}
if STARTS_FROM_TRIGGER:
    MODES["started in the triggerer"] = lambda **options: sensor(start_from_trigger=True, **options)
each_mode = pytest.mark.parametrize("mode", MODES)


def operator(**arguments: Any) -> CdmStartJobOperator:
    """Make an operator that waits."""
    options = {"wait_for_completion": True, "poll_interval": 30, "stalled_after": 600, **arguments}
    return CdmStartJobOperator(task_id="t", job_name=JOB, **options)


def sensor(**arguments: Any) -> CdmSubmissionSensor:
    """Make a sensor for the first run since a time."""
    options = {"started_after": 0, "poke_interval": 30, "stalled_after": 600, **arguments}
    return CdmSubmissionSensor(task_id="t", job_name=JOB, timeout=86_400, **options)


def add_job(sim: CdmSimulator, mode: str, statuses: list[str]) -> None:
    """Add the job, and start its run if the task does not."""
    sim.add_job(JOB, statuses=statuses)
    if mode not in ("worker", "deferred"):
        sim.start(JOB)


@each_mode
def test_called_once_for_each_stall(mode: str, sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """The callback gets the context with the run and the reason, once for each stall, and the wait
    goes on.
    """
    told: list[dict[str, Any]] = []
    add_job(sim, mode, TWO_STALLS)
    make_task = lambda: MODES[mode](on_stalled=lambda context: told.append({**context}))  # noqa: E731
    assert task_runner.run(make_task)["status"] == "SUCCEEDED"
    assert len(told) == 2
    for context in told:
        assert isinstance(context["exception"], errors.CdmStalled)
        assert (
            "run 1 of job 'orders' is RUNNING, but nothing has changed for 6" in context["reason"]
        )
        assert sim.cluster_id in context["reason"]
        assert context["ti"] is task_runner.ti
    assert "deferred" not in mode or len(task_runner.deferrals) == 3
    assert len(sim.runs(JOB)) == 1


@pytest.mark.long
@pytest.mark.parametrize("mode", ["deferred", "deferred sensor"])
def test_deadline_outlasts_a_report(mode: str, sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A deferral after a report has the deadline, the run, and the owner of the first one."""
    add_job(sim, mode, TWO_STALLS)
    limit = {"wait_timeout": 9000} if mode == "deferred" else {}
    task_runner.run(lambda: MODES[mode](on_stalled=lambda _: None, **limit))
    first, second, third = task_runner.deferrals
    assert first["deadline"] == second["deadline"] == third["deadline"]
    assert second["submission_id"] == third["submission_id"] == 1
    assert first["cancel_on_kill"] == second["cancel_on_kill"] == (mode == "deferred")


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("if_running", ["wait", "attach"])
def test_another_run_that_stalls(
    deferrable: bool, if_running: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A run of somebody else that keeps the task waiting is reported as well, and stays foreign."""
    told: list[str] = []
    sim.add_job(JOB, statuses=[*["RUNNING"] * 60, "SUCCEEDED"])
    sim.start(JOB)
    task_runner.run(
        lambda: operator(
            deferrable=deferrable,
            if_running=if_running,
            on_stalled=lambda context: told.append(context["reason"]),
        )
    )
    assert "run 1 of job" in told[0]
    assert all(
        not deferral["cancel_on_kill"]
        for deferral in task_runner.deferrals
        if deferral["submission_id"] == 1
    )


@each_mode
def test_called_before_the_wait_ends(mode: str, sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """With ``fail_when_stalled`` the callback is called as well, once."""
    told: list[Any] = []
    add_job(sim, mode, TWO_STALLS)
    with pytest.raises(errors.CdmStalled):
        task_runner.run(lambda: MODES[mode](on_stalled=[told.append], fail_when_stalled=True))
    assert len(told) == 1


@pytest.mark.long
@each_mode
def test_a_callback_that_fails(mode: str, sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """What a callback raises is logged, the others are called, and the wait goes on."""
    told: list[Any] = []
    add_job(sim, mode, TWO_STALLS)
    callbacks = [lambda _: 1 / 0, told.append]
    assert task_runner.run(lambda: MODES[mode](on_stalled=callbacks))["status"] == "SUCCEEDED"
    assert len(told) == 2


class Mail(BaseNotifier):
    """A notifier, as those for mail and Slack are: it renders its fields and sends them."""

    template_fields = ("text",)
    sent: list[str] = []  # noqa: RUF012 - reset by the test

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def notify(self, context: Any) -> None:
        """Send the text."""
        self.sent.append(self.text)


@pytest.mark.parametrize("mode", ["worker", "deferred"])
def test_a_notifier(
    mode: str, sim: CdmSimulator, task_runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow's notifiers work, with the reason and the run in their templates."""
    monkeypatch.setattr(Mail, "sent", [])
    add_job(sim, mode, TWO_STALLS)
    text = "{{ exception.submission.job_name }}: {{ reason }}"
    task_runner.run(lambda: MODES[mode](on_stalled=Mail(text)))
    assert len(Mail.sent) == 2
    assert Mail.sent[0].startswith(f"{JOB}: run 1 of job {JOB!r} is RUNNING")


def test_without_a_callback_nothing_is_resumed(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A deferred task without a callback stays in the triggerer."""
    add_job(sim, "deferred", TWO_STALLS)
    task_runner.run(MODES["deferred"])
    assert len(task_runner.deferrals) == 1


def test_wrong_callback() -> None:
    """What cannot be called is refused when the DAG is parsed."""
    with pytest.raises(errors.CdmConfigError, match="on_stalled must be a function or a notifier"):
        operator(on_stalled="me@example.com")


def test_copies() -> None:
    """A task with a notifier can be copied, and mapped."""
    copied: Any = copy.deepcopy(operator(on_stalled=Mail("x"))).on_stalled
    assert copied.text == "x"
    partial = CdmStartJobOperator.partial(task_id="t", on_stalled=Mail("x"))
    assert partial.kwargs["on_stalled"].text == "x"
