"""Runs a task like Airflow, as the tests do, and counts its processes and token requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airflow.sdk.bases.operator import ExecutorSafeguard

from airflow_provider_cdm.client.auth.factory import forget_everything
from tests.support import task_harness
from tests.support.task_harness import FakeTaskInstance, FakeTaskStateStore

#: Operators are called without Airflow's task runner, which would be an error.
ExecutorSafeguard.test_mode = True


@dataclass(kw_only=True)
class TaskRunner(task_harness.TaskRunner):
    """Runs one task; each of its processes has an operator of its own, and no token yet.

    :param count_tokens: function that returns the number of token requests so far.
    :param processes: number of processes that a worker started.
    :param tokens_in_triggerer: number of token requests of the triggerer.
    """

    count_tokens: Callable[[], int]
    processes: int = 0
    tokens_in_triggerer: int = 0

    def run(self, make_operator: Callable[[], Any]) -> Any:
        """Run the task to its end, and return its result.

        :param make_operator: function that creates the operator, as parsing the DAG does.
        """

        def make_in_a_new_process() -> Any:
            forget_everything()
            self.processes += 1
            return make_operator()

        return super().run(make_in_a_new_process)

    def _run_trigger(self, trigger: Any) -> dict[str, Any]:
        forget_everything()
        before = self.count_tokens()
        event = super()._run_trigger(trigger)
        self.tokens_in_triggerer += self.count_tokens() - before
        return event


def context_of_a_new_task(operator: Any) -> Any:
    """Return the context of a task that runs for the first time, as far as our operators use it."""
    ti = FakeTaskInstance(task=operator)
    return {
        "ti": ti,
        "task_instance": ti,
        "task": operator,
        "task_state_store": FakeTaskStateStore(),
    }
