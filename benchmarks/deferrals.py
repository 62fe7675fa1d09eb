"""Defers the instances of a mapped task without running them; started by :mod:`.triggerer`.

Writes what a deferral writes: a row for the trigger, and the new state of the task instance.
Reads the triggers from standard input. A thousand real deferrals would take half an hour on two
cores.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from sqlalchemy import select


def defer(triggers: list[tuple[str, dict[str, Any]]]) -> None:
    """Defer each task instance to a trigger.

    :param triggers: class path and arguments of the triggers, by map index.
    """
    with create_session() as session:
        for run in session.scalars(select(DagRun)):
            run.state = DagRunState.RUNNING
        instances = {ti.map_index: ti for ti in session.scalars(select(TaskInstance))}
        for index, (classpath, arguments) in enumerate(triggers):
            row = Trigger(classpath=classpath, kwargs=arguments)
            session.add(row)
            session.flush()
            instance = instances[index]
            instance.state = TaskInstanceState.DEFERRED
            instance.trigger_id = row.id
            instance.next_method, instance.next_kwargs = "execute_complete", {}
            instance.start_date, instance.try_number = datetime.now(UTC), 1


if __name__ == "__main__":
    defer(json.load(sys.stdin))
