"""Runs a task like Airflow, through all deferrals and reschedules, without Airflow's processes."""

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

#: Operators are called without Airflow's task runner, which would be an error.
ExecutorSafeguard.test_mode = True


@dataclass
class TaskInstance:
    """The task instance as a task sees it; keeps the XComs that are pushed."""

    task: Any = None
    dag_id: str = "a_dag"
    task_id: str = "a_task"
    run_id: str = field(default_factory=lambda: f"run_{uuid.uuid4()}")
    map_index: int = -1
    try_number: int = 1
    max_tries: int = 0
    xcoms: dict[str, Any] = field(default_factory=dict)

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep an XCom."""
        self.xcoms[key] = value

    def get_first_reschedule_date(self, context: Any) -> None:
        """Return nothing, so that the timeout of a sensor starts now."""


class StateStore:
    """The task state store, in memory."""

    def __init__(self) -> None:
        self.content: dict[str, str] = {}

    def get(self, key: str) -> str | None:
        """Return the value of a key; ``None`` if it was not set."""
        return self.content.get(key)

    def set(self, key: str, value: str) -> None:
        """Set the value of a key."""
        self.content[key] = value

    def delete(self, key: str) -> None:
        """Delete a key."""
        self.content.pop(key, None)


@dataclass
class TaskRunner:
    """Runs one task; each of its processes has an operator of its own, and no token yet.

    :param advance: function that lets some seconds pass.
    :param count_tokens: function that returns the number of token requests so far.
    :param processes: number of processes that a worker started.
    :param tokens_in_triggerer: number of token requests of the triggerer.
    """

    advance: Callable[[float], None]
    count_tokens: Callable[[], int]
    ti: TaskInstance = field(default_factory=TaskInstance)
    store: StateStore = field(default_factory=StateStore)
    processes: int = 0
    tokens_in_triggerer: int = 0

    def run(self, make: Callable[[], Any]) -> Any:
        """Run the task to its end, and return its result.

        :param make: function that creates the operator, as parsing the DAG does.
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
        restored = getattr(import_module(module), name)(**arguments)

        async def first_payload() -> Any:
            return (await anext(restored.run())).payload

        forget_everything()
        before = self.count_tokens()
        payload = asyncio.run(first_payload())
        self.tokens_in_triggerer += self.count_tokens() - before
        return payload


def context_of(ti: TaskInstance, store: StateStore, operator: Any) -> Any:
    """Return the context of a running task, as far as our operators use it."""
    ti.task = operator
    return {"ti": ti, "task_instance": ti, "task": operator, "task_state_store": store}
