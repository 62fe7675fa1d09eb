"""Airflow's part in the life of a task, without its processes."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.exceptions import AirflowRescheduleException, TaskDeferred

from airflow_provider_cdm.client.auth.factory import forget_everything

#: Operators are called here without Airflow's task runner, and would complain.
ExecutorSafeguard.test_mode = True


@dataclass
class TaskInstance:
    """What a task sees of its task instance; keeps what it pushes."""

    task: Any = None
    dag_id: str = "a_dag"
    task_id: str = "a_task"
    run_id: str = field(default_factory=lambda: f"run_{uuid.uuid4()}")
    map_index: int = -1
    try_number: int = 1
    max_tries: int = 0
    xcoms: dict[str, Any] = field(default_factory=dict)

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep it."""
        self.xcoms[key] = value

    def get_first_reschedule_date(self, context: Any) -> None:
        """Let the time-out of a sensor begin now."""


class StateStore:
    """The task state store, in memory."""

    def __init__(self) -> None:
        self.content: dict[str, str] = {}

    def get(self, key: str) -> str | None:
        """Return what was set."""
        return self.content.get(key)

    def set(self, key: str, value: str) -> None:
        """Keep it."""
        self.content[key] = value

    def delete(self, key: str) -> None:
        """Forget it."""
        self.content.pop(key, None)


@dataclass
class Life:
    """The life of one task: each process has an operator of its own, and no token yet.

    :param advance: lets some seconds pass.
    :param count_tokens: how many tokens were asked for so far.
    :param processes: that a worker started.
    :param tokens_in_triggerer: that the triggerer asked for.
    """

    advance: Callable[[float], None]
    count_tokens: Callable[[], int]
    ti: TaskInstance = field(default_factory=TaskInstance)
    store: StateStore = field(default_factory=StateStore)
    processes: int = 0
    tokens_in_triggerer: int = 0

    def run(self, make: Callable[[], Any]) -> Any:
        """Run the task to its end, and return its result.

        :param make: makes the operator, as parsing the DAG does.
        """
        method, kwargs = "execute", dict[str, Any]()
        while True:
            operator = make()
            forget_everything()
            self.processes += 1
            context = context_of(self.ti, self.store, operator)
            try:
                if method == "execute":
                    return operator.execute(context)
                return operator.resume_execution(method, kwargs, context)
            except TaskDeferred as deferral:
                method = deferral.method_name
                kwargs = {**(deferral.kwargs or {}), "event": self._trigger(deferral.trigger)}
            except AirflowRescheduleException:
                self.advance(operator.poke_interval)

    def _trigger(self, trigger: Any) -> Any:
        path, arguments = json.loads(json.dumps(trigger.serialize()))
        module, name = path.rsplit(".", 1)
        revived = getattr(import_module(module), name)(**arguments)

        async def first() -> Any:
            return (await anext(revived.run())).payload

        forget_everything()
        before = self.count_tokens()
        payload = asyncio.run(first())
        self.tokens_in_triggerer += self.count_tokens() - before
        return payload


def context_of(ti: TaskInstance, store: StateStore, operator: Any) -> Any:
    """The context of a running task, as far as our operators look into it."""
    ti.task = operator
    return {"ti": ti, "task_instance": ti, "task": operator, "task_state_store": store}
