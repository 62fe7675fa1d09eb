"""The DAG of a scenario, whose name is that of the copy of this file, and faults inside its tasks.

A fault kills the task's process, or its supervisor, at a chosen point of the attempt, once.
"""

from __future__ import annotations

import functools
import json
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # a part of every Airflow
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_cdm.client.http import transport
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.tasks.journal import Journal

#: Where the scenario's plan is, and where faults leave their traces.
FOLDER = Path(os.environ["CDM_SYSTEM_FOLDER"], Path(__file__).stem)

Strike = Callable[[], None]


def arm(points: list[str], victim: str) -> Callable[[Any], None]:
    """Return a ``pre_execute`` hook that prepares the faults and leaves the process ids.

    :param points: names of points, see below.
    :param victim: ``task``, ``supervisor`` or ``both``.
    """

    def prepare(context: Any) -> None:
        index = context["ti"].map_index
        pids = {"task": os.getpid(), "supervisor": os.getppid()}
        born = {name: (pid, psutil.Process(pid).create_time()) for name, pid in pids.items()}
        (FOLDER / f"{index}.{os.getpid()}.pids").write_text(json.dumps(born))
        for point in points:
            if point in _POINTS:
                _POINTS[point](strike(point, index, victim))

    return prepare


def afterwards(points: list[str], victim: str) -> Callable[[Any, Any], None]:
    """Return a ``post_execute`` hook for the last point."""

    def report(context: Any, result: Any) -> None:
        if "before the report" in points:
            strike("before the report", context["ti"].map_index, victim)()

    return report


def strike(point: str, index: int, victim: str) -> Strike:
    """Return what kills, the first time that it is called for a point."""

    def kill() -> None:
        try:
            (FOLDER / f"{index}.{point}.struck").touch(exist_ok=False)
        except FileExistsError:
            return
        if victim != "task":
            os.kill(os.getppid(), signal.SIGKILL)
        if victim != "supervisor":
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


def _around(
    owner: Any,
    name: str,
    when: Callable[..., bool],
    *,
    before: Strike | None = None,
    after: Strike | None = None,
) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        hit = when(*args)
        if hit and before:
            before()
        result = original(*args, **kwargs)
        if hit and after:
            after()
        return result

    setattr(owner, name, wrapped)


def _always(*_: Any) -> bool:
    return True


def _intent(_: Journal, record: Any) -> bool:
    return bool(record and record["sends"] and not record["run"])


def _known(_: Journal, record: Any) -> bool:
    return bool(record and record["run"])


def _start(answer: Any) -> bool:
    return bool(answer.request.method == "PUT" and answer.request.url.endswith("/start"))


_POINTS: dict[str, Callable[[Strike], None]] = {
    "before the journal": lambda kill: _around(Journal, "read", _always, before=kill),
    "after the baseline": lambda kill: _around(Journal, "save", _intent, before=kill),
    "after the intent": lambda kill: _around(Journal, "save", _intent, after=kill),
    # The server has answered, so the job runs; the answer is still in the socket.
    "after the start": lambda kill: _around(transport, "read", _start, before=kill),
    "after the answer": lambda kill: _around(Journal, "save", _known, before=kill),
    "after the record": lambda kill: _around(Journal, "save", _known, after=kill),
    "after the end": lambda kill: _around(Journal, "conclude", _always, before=kill),
    "after the conclusion": lambda kill: _around(Journal, "conclude", _always, after=kill),
}


def make(plan: dict[str, Any]) -> DAG:
    """Make the DAG of one scenario: one task, whose values may come from another's result."""
    faults = (plan["crash"], plan["victim"])
    arguments = {
        "task_id": "move",
        "job_name": plan["name"],
        "poll_interval": 1,
        "wait_for_completion": True,
        "deferrable": False,
        "retries": plan["retries"],
        "retry_delay": timedelta(seconds=plan["retry_delay"]),
        "pre_execute": arm(*faults),
        "post_execute": afterwards(*faults),
        **plan["operator"],
    }
    with DAG(plan["name"], schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC)) as dag:
        if not plan["mapped"]:
            CdmStartJobOperator(variables={"dt": "{{ ds }}"}, **arguments)
            return dag

        @task
        def days() -> list[dict[str, str]]:
            return [{"dt": day} for day in json.loads((FOLDER / "days.json").read_text())]

        CdmStartJobOperator.partial(**arguments).expand(variables=days())
    return dag


made = make(json.loads((FOLDER / "plan.json").read_text()))
