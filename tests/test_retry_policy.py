"""Which failures are retried: the decision of the policy, and what Airflow makes of it."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat import sdk

from airflow_provider_cdm._compat import HAS_RETRY_POLICY, AirflowFailException
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.submission import Submission
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.retry_policy import CdmRetryPolicy
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.support.dag_runs import run_dag
from tests.support.task_harness import TaskRunner

JOB = "orders"
RUN = Submission("c", JOB, "FAILED", 7)

#: Errors, and whether they are final, so that a retry is useless.
DECISIONS: list[tuple[errors.CdmError, bool]] = [
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
    (errors.CdmKilled(), False),
    (errors.CdmSubmissionFailed("failed", RUN), False),
    (errors.CdmOutcomeUnknown("gone", RUN), False),
    (errors.CdmError("something"), False),
]


#: A DAG with one task that may be retried twice.
DAG_FILE = """
from datetime import timedelta

from airflow import DAG
from airflow.providers.common.compat import sdk
from airflow_provider_cdm.exceptions import *
from airflow_provider_cdm.operators import *
from airflow_provider_cdm.retry_policy import CdmRetryPolicy
from airflow_provider_cdm.sensors import *
from tests.support.task_harness import TaskRunner

def fail_at_first(context, result=None):
    if context["ti"].try_number == 1 and not context.get("task_reschedule_count"):
        raise ValueError("after the run")

def rule(error, **arguments):
    return sdk.ExceptionRetryPolicy([sdk.RetryRule(error, retry_delay=timedelta(0), **arguments)])

def reschedule(error):
    return rule(error, action=sdk.RetryAction.RESCHEDULE, max_reschedules=1)

with DAG("{dag_id}", schedule=None) as dag:
    common = dict(
        task_id="t",
        retries=2,
        retry_delay=timedelta(0),
    )
    {task}
"""


@pytest.fixture
def count_attempts(
    sim: CdmSimulator, cdm_default: dict[str, Any], airflow_database: None
) -> Callable[[str], int]:
    """Return a function that lets Airflow run a task, given as source code, to its end, and returns
    the number of attempts.
    """

    def run(task: str) -> int:
        dag_run = run_dag(DAG_FILE.replace("{task}", task))
        return sum(ti.try_number for ti in dag_run.get_task_instances())

    return run


def test_table_covers_every_error_class() -> None:
    """The table names every class of errors."""
    assert {type(error) for error, _ in DECISIONS} == {
        cls for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, errors.CdmError)
    }  # fmt: skip


@pytest.mark.parametrize(("error", "final"), DECISIONS, ids=lambda x: type(x).__name__)
def test_policy_decides_by_the_error(error: errors.CdmError, final: bool) -> None:
    """Errors that only a person can correct are final; all others are retried as the task is
    configured.
    """
    assert CdmRetryPolicy().is_final(error) == final
    if HAS_RETRY_POLICY:
        decision = CdmRetryPolicy().evaluate(error, 1, 3)
        assert decision.action.value == ("fail" if final else "default")
        assert (type(error).__name__ in (decision.reason or "")) == final


def test_retry_failed_runs_applies_to_failed_runs_only() -> None:
    """``retry_failed_runs=False`` makes failed runs final, but no run of unknown outcome and no
    other error.
    """
    policy = CdmRetryPolicy(retry_failed_runs=False)
    assert policy.is_final(errors.CdmSubmissionFailed("failed", RUN))
    assert not policy.is_final(errors.CdmOutcomeUnknown("gone", RUN))
    assert not policy.is_final(errors.CdmUnavailable("503"))
    assert not policy.is_final(ValueError("of a callback"))
    assert CdmRetryPolicy.deserialize(policy.serialize()).retry_failed_runs is False


@pytest.mark.skipif(not HAS_RETRY_POLICY, reason="below 3.3 Airflow decides when to try again")
def test_retry_waits_as_long_as_the_server_asked() -> None:
    """A retry comes after the delay that the server asked for, also for an error from the
    triggerer.
    """
    throttled = errors.from_payload(errors.to_payload(errors.CdmThrottled("429", retry_after=75)))
    decision = CdmRetryPolicy().evaluate(throttled, 1, 3)
    assert (decision.action.value, decision.retry_delay) == ("retry", timedelta(seconds=75))


@pytest.mark.skipif(not HAS_RETRY_POLICY, reason="below 3.3 Airflow decides when to try again")
@pytest.mark.parametrize("seconds", [1e6, 2.5e11, 1e300, math.inf])
def test_retry_waits_for_an_hour_at_most(seconds: float) -> None:
    """A longer delay would leave the calendar, which ends each loop of a scheduler."""
    throttled = errors.from_payload(
        errors.to_payload(errors.CdmThrottled("429", retry_after=seconds))
    )
    decision = CdmRetryPolicy().evaluate(throttled, 1, 3)
    assert decision.retry_delay == timedelta(hours=1)


DEFINITION = {
    "name": JOB,
    "from-connector-name": "generic-jdbc-connector",
    "from-link-name": "absent",
    "from-config-values": {"configs": []},
    "to-connector-name": "generic-jdbc-connector",
    "to-link-name": "absent",
    "to-config-values": {"configs": []},
}
#: Tasks that cannot succeed until a person has corrected something.
FAILING_TASKS = {
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


@pytest.mark.parametrize("task", FAILING_TASKS)
def test_final_error_fails_the_task_at_its_first_attempt(
    task: str, count_attempts: Callable[[str], int]
) -> None:
    """Every operator and sensor fails at its first attempt with a final error, although two retries
    remain.
    """
    assert count_attempts(FAILING_TASKS[task]) == 1


WAITING_TASK = "CdmStartJobOperator(job_name='orders', wait_for_completion=True, **common"


def test_failed_run_is_retried_as_configured(
    sim: CdmSimulator, count_attempts: Callable[[str], int]
) -> None:
    """A failed run is retried as often as the task is configured."""
    sim.add_job(JOB, outcome="FAILED")
    assert count_attempts(WAITING_TASK + ")") == 3
    assert len(sim.runs(JOB)) == 3


def test_failed_run_is_not_retried_with_retry_failed_runs_false(
    sim: CdmSimulator, count_attempts: Callable[[str], int]
) -> None:
    """With such a policy a failed run is not retried, on every version of Airflow."""
    sim.add_job(JOB, outcome="FAILED")
    policy = "retry_policy=CdmRetryPolicy(retry_failed_runs=False)"
    assert count_attempts(f"{WAITING_TASK}, {policy})") == 1
    assert len(sim.runs(JOB)) == 1


def test_mapped_task_has_a_retry_policy(
    sim: CdmSimulator, count_attempts: Callable[[str], int]
) -> None:
    """Each instance of a mapped task has the policy, by default or by ``partial()``."""
    mapped_task = (
        "CdmStartJobOperator.partial(deferrable=False, **common{}).expand(job_name=['a', 'b'])"
    )
    assert count_attempts(mapped_task.format(", retry_policy=CdmRetryPolicy()")) == 2
    assert count_attempts(mapped_task.format("")) == 2


CHAIN = """CdmStartJobOperator(
        job_name={job!r},
        wait_for_completion=True,
        post_execute=fail_at_first,
        {more}
        retry_policy=sdk.ChainRetryPolicy([CdmRetryPolicy(), {rule}]),
        **common,
    )"""
needs_chains = pytest.mark.skipif(
    "ChainRetryPolicy" not in sdk.__all__, reason="this Airflow cannot combine retry policies"
)
needs_reschedules = pytest.mark.skipif(
    not HAS_RETRY_POLICY or not hasattr(sdk.RetryAction, "RESCHEDULE"),
    reason="only Airflow 3.4 reschedules failed tasks",
)


@needs_chains
@pytest.mark.parametrize(
    ("job", "attempts"), [("absent", 1), (JOB, 3)], ids=["final error", "failed run"]
)
def test_chained_policies_decide_in_their_order(
    job: str, attempts: int, sim: CdmSimulator, count_attempts: Callable[[str], int]
) -> None:
    """In a chain the policy of this package fails what no retry can fix, before a rule that would
    retry everything; that rule decides about failed runs.
    """
    sim.add_job(JOB, outcome="FAILED")
    assert count_attempts(CHAIN.format(job=job, rule="rule(Exception)", more="")) == attempts
    assert len(sim.runs(JOB)) == (attempts if job == JOB else 0)


@needs_chains
def test_rule_in_a_chain_fails_the_task(
    sim: CdmSimulator, count_attempts: Callable[[str], int]
) -> None:
    """A rule after the policy of this package may end the task, although retries are left."""
    sim.add_job(JOB, outcome="FAILED")
    rule = "rule(CdmSubmissionFailed, action=sdk.RetryAction.FAIL)"
    assert count_attempts(CHAIN.format(job=JOB, rule=rule, more="")) == 1


@needs_reschedules
def test_rescheduled_try_takes_over_the_run(
    sim: CdmSimulator, count_attempts: Callable[[str], int]
) -> None:
    """A policy lets a task that failed after its run begin again, with the same try number: it
    takes over the run, as a retry does.
    """
    sim.add_job(JOB)
    assert count_attempts(CHAIN.format(job=JOB, rule="reschedule(ValueError)", more="")) == 1
    assert len(sim.runs(JOB)) == 1


@needs_reschedules
def test_rescheduled_try_has_not_given_up(
    sim: CdmSimulator, clock: ManualClock, count_attempts: Callable[[str], int]
) -> None:
    """``on_giving_up="stop"`` stops the run only when the policy allows no further reschedule."""
    sim.add_job(JOB, seconds=1000)
    more = "on_giving_up='stop', wait_timeout=30, retries=0,"
    task = CHAIN.format(job=JOB, rule="reschedule(CdmWaitTimeout)", more=more)
    assert count_attempts(task.replace("**common", "task_id='t'")) == 1
    (run,) = sim.runs(JOB)
    routes = [request.route for request in sim.requests]
    assert (run.stopping, routes.count("start"), routes.count("stop")) == (True, 1, 1)
    # Both waits were over by then.
    assert clock.now() - run.created >= 60


@pytest.mark.skipif(HAS_RETRY_POLICY, reason="Airflow asks the policy itself")
def test_final_error_has_two_classes_below_airflow_3_3(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Without retry policies a final error is also an ``AirflowFailException``, and is pickled
    without that class.
    """
    with pytest.raises(errors.CdmNotFound, match="Could not") as failure:
        task_runner.run(lambda: CdmStartJobOperator(task_id="t", job_name="absent"))
    assert isinstance(failure.value, AirflowFailException)
    unpickled = pickle.loads(pickle.dumps(failure.value))
    assert type(unpickled) is errors.CdmNotFound
    assert vars(unpickled) == vars(failure.value)
