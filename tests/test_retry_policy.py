"""Which failures are tried again: decided by the error, run by Airflow itself."""

from __future__ import annotations

import itertools
import os
import pickle
import runpy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import airflow
import pytest

from airflow_provider_cdm._compat import HAS_RETRY_POLICY, AirflowFailException
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.submission import Submission
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.retry_policy import CdmRetryPolicy
from airflow_provider_cdm.simulator import CdmSimulator
from tests.support.task_harness import TaskRunner

JOB = "orders"
RUN = Submission("c", JOB, "FAILED", 7)
DAYS = (datetime(2026, 5, 1, tzinfo=UTC) + timedelta(days=n) for n in itertools.count())

#: Errors, and whether a retry can mend them.
FINAL: list[tuple[errors.CdmError, bool]] = [
    (errors.CdmConfigError("no job_name"), True),
    (errors.CdmAuthError("wrong password"), True),
    (errors.CdmNotFound("no such job"), True),
    (errors.CdmAlreadyExists("another job"), True),
    (errors.CdmClusterUnusable("frozen"), True),
    (errors.CdmRefused("bad request"), True),
    (errors.CdmThresholdMissed("too few", RUN), True),
    (errors.CdmAlreadyRunning("active"), False),
    (errors.CdmInUse("runs"), False),
    (errors.CdmNotRunning("idle"), False),
    (errors.CdmThrottled("429"), False),
    (errors.CdmUnavailable("503"), False),
    (errors.CdmBadResponse("<html>"), False),
    (errors.CdmJournalError("no store"), False),
    (errors.CdmStartUncertain("who knows"), False),
    (errors.CdmWaitTimeout("too long"), False),
    (errors.CdmStalled("still"), False),
    (errors.CdmSubmissionFailed("failed", RUN), False),
    (errors.CdmOutcomeUnknown("gone", RUN), False),
    (errors.CdmError("something"), False),
]


#: A DAG with one task that may be retried twice.
DAG_FILE = """
from datetime import timedelta

from airflow import DAG
from airflow_provider_cdm.operators import *
from airflow_provider_cdm.retry_policy import CdmRetryPolicy
from airflow_provider_cdm.sensors import *
from tests.support.task_harness import TaskRunner

with DAG("{dag_id}", schedule=None) as dag:
    common = dict(
        task_id="t",
        retries=2,
        retry_delay=timedelta(0),
    )
    {task}
"""


@pytest.fixture
def attempts(
    sim: CdmSimulator, cdm_default: dict[str, Any], airflow_database: None
) -> Callable[[str], int]:
    """Let Airflow run a task to its end; returns how often it ran.

    The task is given as it stands in a DAG file, since Airflow 3 runs no DAG without a file.
    """

    def run(task: str) -> int:
        at = next(DAYS)
        path = Path(os.environ["AIRFLOW_HOME"]) / "dags" / f"retries_{at:%m%d}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(DAG_FILE.format(dag_id=path.stem, task=task))
        module = runpy.run_path(str(path))
        when = "execution_date" if airflow.__version__.startswith("2.") else "logical_date"
        done = module["dag"].test(**{when: at})
        return sum(each.try_number for each in done.get_task_instances())

    return run


def test_every_class_of_error_is_decided() -> None:
    """No class of errors is left out of the table."""
    assert {type(error) for error, _ in FINAL} == {
        cls for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, errors.CdmError)
    }  # fmt: skip


@pytest.mark.parametrize(("error", "final"), FINAL, ids=lambda x: type(x).__name__)
def test_decisions(error: errors.CdmError, final: bool) -> None:
    """What a person has to mend is final; the rest is tried again as the task says."""
    assert CdmRetryPolicy().is_final(error) == final
    if HAS_RETRY_POLICY:
        decision = CdmRetryPolicy().evaluate(error, 1, 3)
        assert decision.action.value == ("fail" if final else "default")
        assert (type(error).__name__ in (decision.reason or "")) == final


def test_failed_runs_as_configured() -> None:
    """Whether a failed run is repeated is the user's to say; one that nobody saw end is not one."""
    policy = CdmRetryPolicy(retry_failed_runs=False)
    assert policy.is_final(errors.CdmSubmissionFailed("failed", RUN))
    assert not policy.is_final(errors.CdmOutcomeUnknown("gone", RUN))
    assert not policy.is_final(errors.CdmUnavailable("503"))
    assert not policy.is_final(ValueError("of a callback"))
    assert CdmRetryPolicy.deserialize(policy.serialize()).retry_failed_runs is False


@pytest.mark.skipif(not HAS_RETRY_POLICY, reason="below 3.3 Airflow decides when to try again")
def test_the_servers_delay() -> None:
    """A retry comes when the server said, if it did, also for an error out of the triggerer."""
    throttled = errors.from_payload(errors.to_payload(errors.CdmThrottled("429", retry_after=75)))
    decision = CdmRetryPolicy().evaluate(throttled, 1, 3)
    assert (decision.action.value, decision.retry_delay) == ("retry", timedelta(seconds=75))


DEFINITION = {
    "name": JOB,
    "from-connector-name": "generic-jdbc-connector",
    "from-link-name": "absent",
    "from-config-values": {"configs": []},
    "to-connector-name": "generic-jdbc-connector",
    "to-link-name": "absent",
    "to-config-values": {"configs": []},
}
#: Tasks that cannot succeed before a person has mended something.
HOPELESS = {
    "start": "CdmStartJobOperator(job_name='absent', deferrable=False, **common)",
    "run": f"CdmRunJobOperator(definition={DEFINITION}, deferrable=False, **common)",
    "apply": f"CdmApplyJobOperator(definition={DEFINITION}, **common)",
    "link": "CdmDeleteLinkOperator(link_name=' ', **common)",
    "cluster": "CdmStartClusterOperator(cluster_id='absent', **common)",
    "sensor": "CdmSubmissionSensor(job_name='absent', started_after=0, **common)",
    "deferred sensor": (
        "CdmSubmissionSensor(job_name=' ', submission_id=1, deferrable=True, **common)"
    ),
    "cluster sensor": "CdmClusterSensor(state='nonsense', **common)",
}


@pytest.mark.parametrize("task", HOPELESS)
def test_what_no_retry_mends_fails_at_once(task: str, attempts: Callable[[str], int]) -> None:
    """Every operator and sensor fails with its first attempt, though two more are left."""
    assert attempts(HOPELESS[task]) == 1


WAITING = "CdmStartJobOperator(job_name='orders', wait_for_completion=True, **common"


def test_other_failures_are_tried_again(sim: CdmSimulator, attempts: Callable[[str], int]) -> None:
    """A failed run is started again as often as the task says."""
    sim.add_job(JOB, outcome="FAILED")
    assert attempts(WAITING + ")") == 3
    assert len(sim.runs(JOB)) == 3


def test_failed_runs_that_shall_not_be_repeated(
    sim: CdmSimulator, attempts: Callable[[str], int]
) -> None:
    """With a policy of one's own a failed run is not repeated, on every version of Airflow."""
    sim.add_job(JOB, outcome="FAILED")
    policy = "retry_policy=CdmRetryPolicy(retry_failed_runs=False)"
    assert attempts(f"{WAITING}, {policy})") == 1
    assert len(sim.runs(JOB)) == 1


def test_a_mapped_task_has_a_policy(sim: CdmSimulator, attempts: Callable[[str], int]) -> None:
    """So has each instance of a mapped task, by default or by partial()."""
    partial = (
        "CdmStartJobOperator.partial(deferrable=False, **common{}).expand(job_name=['a', 'b'])"
    )
    assert attempts(partial.format(", retry_policy=CdmRetryPolicy()")) == 2
    assert attempts(partial.format("")) == 2


@pytest.mark.skipif(HAS_RETRY_POLICY, reason="Airflow asks the policy itself")
def test_the_error_keeps_its_class(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """Where Airflow knows no policies the error is of two classes, and crosses processes as one."""
    with pytest.raises(errors.CdmNotFound, match="Could not") as failure:
        task_runner.run(lambda: CdmStartJobOperator(task_id="t", job_name="absent"))
    assert isinstance(failure.value, AirflowFailException)
    travelled = pickle.loads(pickle.dumps(failure.value))
    assert type(travelled) is errors.CdmNotFound
    assert vars(travelled) == vars(failure.value)
