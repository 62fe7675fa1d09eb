"""The DAG of one scenario, with faults inside its task.

Each scenario has a copy of this file, under its own name. A fault kills the process of the task, or
its supervisor, at a chosen point of an attempt, once.
"""

from __future__ import annotations

import functools
import json
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # a part of every Airflow
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_cdm.client.http import transport
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmSubmissionSensor
from airflow_provider_cdm.tasks.journal import Journal

#: Folder with the plan of the scenario, to which faults write process ids and crashes.
FOLDER = Path(os.environ["CDM_SYSTEM_FOLDER"], Path(__file__).stem)

Kill = Callable[[], None]


def before_execution(points: list[str], victim: str) -> Callable[[Any], None]:
    """Return a ``pre_execute`` hook that installs the faults and writes the process ids.

    :param points: names of points, keys of ``_POINTS``.
    :param victim: process to kill: ``task``, ``supervisor`` or ``both``; with ``nobody``, an error
        is raised instead.
    """

    def install(context: Any) -> None:
        index = context["ti"].map_index
        pids = {"task": os.getpid(), "supervisor": os.getppid()}
        processes = {name: (pid, psutil.Process(pid).create_time()) for name, pid in pids.items()}
        (FOLDER / f"{index}.{os.getpid()}.pids").write_text(json.dumps(processes))
        for point in points:
            if point in _POINTS:
                _POINTS[point](kill_once(point, index, victim))

    return install


def after_execution(points: list[str], victim: str) -> Callable[[Any, Any], None]:
    """Return a ``post_execute`` hook for the last point."""

    def kill_before_report(context: Any, result: Any) -> None:
        if "before the report" in points:
            kill_once("before the report", context["ti"].map_index, victim)()

    return kill_before_report


def kill_once(point: str, index: int, victim: str) -> Kill:
    """Return a function that kills the victim at the first call for a point, in any process."""

    def kill() -> None:
        try:
            (FOLDER / f"{index}.{point}.struck").touch(exist_ok=False)
        except FileExistsError:
            return
        if victim == "nobody":
            raise RuntimeError(f"failed {point}")
        if victim != "task":
            os.kill(os.getppid(), signal.SIGKILL)
        if victim != "supervisor":
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


def _wrap(
    owner: Any,
    name: str,
    applies: Callable[..., bool],
    *,
    before: Kill | None = None,
    after: Kill | None = None,
) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        matched = applies(*args)
        if matched and before:
            before()
        result = original(*args, **kwargs)
        if matched and after:
            after()
        return result

    setattr(owner, name, wrapped)


def _always(*_: Any) -> bool:
    return True


def _is_intent(_: Journal, record: Any) -> bool:
    return bool(record and record["sends"] and not record["run"])


def _is_known(_: Journal, record: Any) -> bool:
    return bool(record and record["run"])


def _is_start(response: Any) -> bool:
    return bool(response.request.method == "PUT" and response.request.url.endswith("/start"))


_POINTS: dict[str, Callable[[Kill], None]] = {
    "before the journal": lambda kill: _wrap(Journal, "read", _always, before=kill),
    "after the baseline": lambda kill: _wrap(Journal, "save", _is_intent, before=kill),
    "after the intent": lambda kill: _wrap(Journal, "save", _is_intent, after=kill),
    # The server has answered, so the job runs; the response has not been read yet.
    "after the start": lambda kill: _wrap(transport, "_read_body", _is_start, before=kill),
    "after the answer": lambda kill: _wrap(Journal, "save", _is_known, before=kill),
    "after the record": lambda kill: _wrap(Journal, "save", _is_known, after=kill),
    "after the end": lambda kill: _wrap(Journal, "conclude", _always, before=kill),
    "after the conclusion": lambda kill: _wrap(Journal, "conclude", _always, after=kill),
}


def make_dag(plan: dict[str, Any]) -> DAG:
    """Return the DAG of one scenario: one task, which may be mapped over a list of days.

    Rows of the truth table may add a sensor that waits for its run, another task, and a task that
    never runs, so that the DAG run does not end.
    """
    with DAG(plan["name"], schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC)) as dag:
        if plan["mapped"]:
            make_mapped_task(plan)
            return dag
        move = CdmStartJobOperator(variables={"dt": "{{ ds }}"}, **make_arguments(plan))
        if plan.get("sensor"):
            arguments = {"retries": 0, "poke_interval": 3} | plan["sensor"]
            CdmSubmissionSensor(task_id="watch", submission=move.output, **arguments)
        if plan.get("other"):
            make_other_task()
        if plan.get("held"):
            make_held_task()
    return dag


def make_arguments(plan: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the task but for its variables."""
    faults = (plan["crash"], plan["victim"])
    # Without them, Airflow's setting counts.
    retries = {} if plan["retries"] is None else {"retries": plan["retries"]}
    return {
        "task_id": "move",
        "pool": plan["pool"],
        "job_name": plan["name"],
        "poll_interval": 1,
        "wait_for_completion": True,
        "deferrable": False,
        "retry_delay": timedelta(seconds=plan["retry_delay"]),
        "pre_execute": before_execution(*faults),
        "post_execute": after_execution(*faults),
        **retries,
        **plan["operator"],
    }


def make_mapped_task(plan: dict[str, Any]) -> None:
    """Make the task, mapped over the list of days that is current when it runs."""

    @task
    def days() -> list[dict[str, str]]:
        return [{"dt": day} for day in json.loads((FOLDER / "days.json").read_text())]

    CdmStartJobOperator.partial(**make_arguments(plan)).expand(variables=days())


def make_other_task() -> None:
    """Make a task that the scheduler ends without a process."""
    try:
        module = import_module("airflow.providers.standard.operators.empty")
    except ImportError:
        module = import_module("airflow.operators.empty")
    module.EmptyOperator(task_id="other")


def make_held_task() -> None:
    """Make a task that waits for a pool without slots, so that the DAG run does not end."""

    @task(retries=0, pool="closed")
    def held() -> None:
        pass

    held()


scenario_dag = make_dag(json.loads((FOLDER / "plan.json").read_text()))
