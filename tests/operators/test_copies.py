"""Tasks can be copied and pickled, also while they run: callbacks do it."""

from __future__ import annotations

import contextlib
import copy
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators import CdmApplyLinkOperator, CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmSubmissionSensor
from airflow_provider_cdm.simulator import CdmSimulator
from tests.operators.test_empty_places import NEEDED, make
from tests.support.task_harness import TaskRunner

COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda task: pickle.loads(pickle.dumps(task)),
}
every_copy = pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)


@every_copy
@pytest.mark.parametrize("in_dag", [False, True], ids=["alone", "in a DAG"])
@pytest.mark.parametrize("name", NEEDED)
def test_task_is_copied(name: str, in_dag: bool, duplicate: Callable[[Any], Any]) -> None:
    """A copy of an operator or sensor has the same arguments."""
    task = make(name)
    if in_dag:
        task.dag = DAG("d", schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC))
    task.log.debug("a log that is in use cannot be pickled")
    copied = duplicate(task)
    assert type(copied) is type(task)
    for field in task.template_fields:
        assert getattr(copied, field) == getattr(task, field)


@every_copy
@pytest.mark.parametrize("name", NEEDED)
def test_task_is_copied_after_it_has_run(
    name: str, duplicate: Callable[[Any], Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A callback gets a task that holds connections, and may copy it, whatever it ended with."""
    sim.add_job("a", outcome="FAILED", seconds=0)
    sim.start("a")
    made: list[Any] = []

    def remember() -> Any:
        made.append(make(name, **({"deferrable": False} if name in DEFERRABLE else {})))
        return made[-1]

    with contextlib.suppress(errors.CdmError):
        task_runner.run(remember)
    copied = duplicate(made[-1])
    assert copied.task_id == "t"
    copied.hook.get_conn().close()


DEFERRABLE = {"CdmRunJobOperator", "CdmStartJobOperator", "CdmSubmissionSensor", "CdmClusterSensor",
              "CdmRestartClusterOperator", "CdmStartClusterOperator",
              "CdmStopClusterOperator"}  # fmt: skip


def test_failure_callback_may_copy_the_task(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """The copy of a task whose run failed can be used again."""
    sim.add_job("orders", outcome="FAILED")
    tasks: list[CdmStartJobOperator] = []

    def start() -> CdmStartJobOperator:
        tasks.append(
            CdmStartJobOperator(
                task_id="t", job_name="orders", wait_for_completion=True, deferrable=False
            )
        )
        return tasks[-1]

    with pytest.raises(errors.CdmSubmissionFailed):
        task_runner.run(start)
    copied = copy.deepcopy(tasks[-1])
    assert copied._attempt is None
    assert tasks[-1]._attempt is not None
    sensor = CdmSubmissionSensor(task_id="s", job_name="orders", submission_id=1, deferrable=False)
    with pytest.raises(errors.CdmSubmissionFailed):
        task_runner.run(lambda: sensor)
    assert copy.deepcopy(sensor).job_name == "orders"


def test_pickled_task_holds_no_secret(sim: CdmSimulator, cdm_default: Any) -> None:
    """The secrets of a rendered definition stay in the process."""
    inputs = [{"name": "linkConfig.password", "value": "{{ secret }}"}]
    task = CdmApplyLinkOperator(task_id="t", definition={"name": "a", "inputs": inputs})
    context: Any = {"secret": "pa55word-in-clear"}
    task.render_template_fields(context)
    assert "pa55word-in-clear" in str(task._definition_with_secrets())
    assert b"pa55word-in-clear" not in pickle.dumps(task)
    assert "pa55word-in-clear" in str(copy.deepcopy(task)._definition_with_secrets())
