"""Runs an operator as Airflow runs a task: attempts, deferrals, reschedules, retries and clears."""

from __future__ import annotations

import asyncio
import importlib
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from airflow_provider_cdm._compat import ALL_CLEARS_ARE_COUNTED
from airflow_provider_cdm.hooks import CdmHook
from tests.support.airflow_settings import SERIES


class FakeTaskStateStore:
    """The task state store of Airflow 3.3, with the methods that a task calls."""

    def __init__(self) -> None:
        self.content: dict[str, str] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.content[key]) if key in self.content else default

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        self.content[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        self.content.pop(key, None)


class FakeSupervisor:
    """The supervisor of a task in Airflow 3.0 to 3.2, which reads and writes Variables for it.

    :param variables: the Variables, as text.
    :param read_error: error to raise when a Variable is read, if any.
    """

    def __init__(self) -> None:
        self.variables: dict[str, str] = {}
        self.read_error: Exception | None = None

    def send(self, message: Any) -> Any:
        comms = importlib.import_module("airflow.sdk.execution_time.comms")
        if isinstance(message, comms.PutVariable):
            self.variables[message.key] = message.value
        elif isinstance(message, comms.DeleteVariable):
            self.variables.pop(message.key, None)
        elif isinstance(message, comms.GetVariable):
            if self.read_error is not None:
                raise self.read_error
            if message.key in self.variables:
                value = self.variables[message.key]
                return comms.VariableResult(key=message.key, value=value)
            error_types = importlib.import_module("airflow.sdk.exceptions").ErrorType
            return comms.ErrorResponse(error=error_types.VARIABLE_NOT_FOUND)
        elif isinstance(message, comms.GetConnection):
            error_types = importlib.import_module("airflow.sdk.exceptions").ErrorType
            return comms.ErrorResponse(error=error_types.CONNECTION_NOT_FOUND)
        return None


@dataclass
class FakeTaskInstance:
    """The attributes and methods of a task instance that a task uses."""

    task: Any = None
    dag_id: str = "a_dag"
    task_id: str = "a_task"
    run_id: str = field(default_factory=lambda: f"run_{uuid.uuid4()}")
    map_index: int = -1
    try_number: int = 1
    max_tries: int = 0
    start_date: datetime | None = None
    xcoms: dict[str, Any] = field(default_factory=dict)

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = json.loads(json.dumps(value))

    def get_first_reschedule_date(self, context: Any) -> None:
        return None


@dataclass
class TaskRunner:
    """Runs the attempts of one task instance as Airflow does.

    Each process of Airflow gets an operator of its own here, and everything that crosses a process
    boundary in Airflow is converted to JSON and back. The trigger runs on an event loop of its own.

    :param advance: advances the clock of the test by a number of seconds.
    :param deferrals: arguments of every trigger that the task deferred to.
    :param trigger_paths: import paths of these triggers.
    :param events: payloads of the events of these triggers.
    :param retries: the task's retries, as the DAG now says; by default as ``max_tries`` says.
    :param context: what else the context of the task holds.
    :param triggerer_delay: seconds that pass until a triggerer begins a task, or takes it over.
    :param reschedules: number of times that the task gave its worker slot back.
    """

    advance: Callable[[float], None]
    ti: FakeTaskInstance = field(default_factory=FakeTaskInstance)
    store: FakeTaskStateStore = field(default_factory=FakeTaskStateStore)
    deferrals: list[dict[str, Any]] = field(default_factory=list)
    trigger_paths: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    reschedules: int = 0
    triggerer_delay: float = 0.0
    retries: int | None = None
    clear_number: int = 0
    context: dict[str, Any] = field(default_factory=dict)
    dag_run_began: datetime = datetime(2025, 1, 2, tzinfo=UTC)

    def run(self, make_operator: Callable[[], Any]) -> Any:
        """Run one attempt to its end and return its result.

        :param make_operator: makes the operator, as parsing the DAG does in each process.
        """
        task_deferred, task_rescheduled = _airflow_signals()
        method = "execute"
        kwargs: dict[str, Any] = {}
        operator = make_operator()
        if getattr(operator, "start_from_trigger", False):
            method, event = self._start_in_trigger(operator)
            kwargs = {"event": event}
            operator = make_operator()
        while True:
            context = self._context_of(operator)
            try:
                if method == "execute":
                    return operator.execute(context)
                if operator.start_from_trigger:
                    operator.render_template_fields(context)
                return operator.resume_execution(method, kwargs, context)
            except task_deferred as deferral:
                event = self._run_trigger(deferral.trigger)
                method, kwargs = deferral.method_name, {**(deferral.kwargs or {}), "event": event}
                kwargs = json.loads(json.dumps(kwargs))
            except task_rescheduled:
                self.reschedules += 1
                self.advance(operator.poke_interval)
            operator = make_operator()

    def _context_of(self, operator: Any) -> dict[str, Any]:
        operator.retries = self.ti.max_tries if self.retries is None else self.retries
        context = {
            "ti": self.ti,
            "task_instance": self.ti,
            "task": operator,
            "dag": getattr(operator, "_dag", None),
            "dag_run": SimpleNamespace(
                clear_number=self.clear_number, start_date=self.dag_run_began
            ),
            **self.context,
        }
        if has_task_state_store():
            context["task_state_store"] = self.store
        self.ti.task = operator
        return context

    def retry(self) -> None:
        """Make the next call of :meth:`run` a retry."""
        self.ti.try_number += 1

    def clear(self, retries: int = 0, *, running: bool = False) -> None:
        """Make the next call of :meth:`run` the first attempt after a clear of the task.

        :param retries: the task's retries at the time of the clear.
        :param running: whether the DAG run has not ended yet, because other tasks run.
        """
        self.retries = retries
        self.ti.max_tries = self.ti.try_number + retries
        self.ti.try_number += 1
        if running:
            self.clear_another_task()
        else:
            self.clear_number += 1
            self.dag_run_began += timedelta(hours=1)

    def clear_another_task(self) -> None:
        """Clear another task of the DAG run while it runs."""
        self.clear_number += ALL_CLEARS_ARE_COUNTED

    def make_dag_run_anew(self, retries: int = 0) -> None:
        """Make the next call of :meth:`run` the first attempt in a new DAG run with the same id."""
        self.ti.try_number, self.ti.max_tries, self.clear_number = 1, retries, 0
        self.retries = None
        self.dag_run_began += timedelta(hours=1)
        self.store.content.clear()

    def another_task(self) -> TaskRunner:
        """Return a runner for another task instance, on the same clock."""
        return TaskRunner(advance=self.advance)

    def _start_in_trigger(self, operator: Any) -> tuple[str, dict[str, Any]]:
        """Begin a task as the scheduler does, from what is stored of its DAG."""
        serialized = importlib.import_module("airflow.serialization.serialized_objects")
        stored = json.dumps(serialized._encode_start_trigger_args(operator.start_trigger_args))
        start = serialized._decode_start_trigger_args(json.loads(stored))
        row = importlib.import_module("airflow.models.trigger").Trigger(
            classpath=start.trigger_cls, kwargs=start.trigger_kwargs
        )
        decode = importlib.import_module("airflow.serialization.decoders")
        stored_arguments = row._decrypt_kwargs(row.encrypted_kwargs)
        arguments = {
            name: decode.smart_decode_trigger_kwargs(value)
            for name, value in stored_arguments.items()
        }
        began = datetime.fromtimestamp(CdmHook.session_options["clock"](), UTC)
        self.ti.start_date = began
        self.advance(self.triggerer_delay)
        limits = [limit for limit in (start.timeout, operator.execution_timeout) if limit]
        trigger = _import(start.trigger_cls)(**arguments)
        trigger.timeout_after = began + min(limits)
        self.ti.task = operator
        return start.next_method, self._run(trigger, start.trigger_cls, arguments)

    def _run_trigger(self, trigger: Any) -> dict[str, Any]:
        path, arguments = json.loads(json.dumps(trigger.serialize()))
        return self._run(_import(path)(**arguments), path, arguments)

    def _run(self, trigger: Any, path: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self.deferrals.append(arguments)
        self.trigger_paths.append(path)
        if self.ti.task.start_from_trigger:
            # Airflow renders the arguments of all triggers of such a task.
            trigger.template_fields = [name for name in arguments if hasattr(trigger, name)]
            trigger.render_template_fields(self._context_of(self.ti.task))

        async def collect_events() -> list[Any]:
            return [event async for event in trigger.run()]

        (event,) = asyncio.run(collect_events())
        self.events.append(json.loads(json.dumps(event.payload)))
        return self.events[-1]


def _import(path: str) -> Any:
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


def _airflow_signals() -> list[Any]:
    """Return the exceptions by which a task asks Airflow for a deferral and for a reschedule."""
    try:
        module = importlib.import_module("airflow.sdk.exceptions")
        return [module.TaskDeferred, module.AirflowRescheduleException]
    except (ImportError, AttributeError):
        module = importlib.import_module("airflow.exceptions")
        return [module.TaskDeferred, module.AirflowRescheduleException]


def has_task_state_store() -> bool:
    """Return whether this Airflow has a task state store that a clear keeps (3.3)."""
    return SERIES == (3, 3)
