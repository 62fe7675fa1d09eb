"""Rows of the truth table of clears and retries: what a row is, and how it is played."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from tests.support.airflow_settings import AIRFLOW_3, SLOTS
from tests.system.scenario_runner import (
    LOGICAL_DATE,
    RUN,
    TASK,
    Scenario,
    ScenarioRun,
    SharedStack,
)

SENSOR, OTHER = "watch", "other"
#: A clear whose attempt has to queue until the run has ended.
CLEAR_WITH_CLOSED_POOL = "clear this task while its pool is full"
ENDED = ("success", "failed", "upstream_failed")


@dataclass(frozen=True, kw_only=True)
class Row(Scenario):
    """One row of the table: a scenario that is described by its columns.

    :param when: state in which the edit and the action happen, a key of ``_WAITS``.
    :param detail: what distinguishes the row from others with the same state, edit and action.
    :param act: what the user does then, keys of ``_ACTS``, one after the other.
    :param edit: settings of the DAG that are changed before; ``default_retries`` restarts Airflow
        with another ``[core] default_task_retries``.
    :param says: what must be true and why, one sentence.
    :param sensor: arguments of the sensor that waits for the run of the task; ``None`` for none.
    :param judged: number of the run that the sensor must have judged last.
    :param sensor_state: expected state of the sensor.
    :param other: whether the DAG has another task.
    :param held: whether a task that never runs keeps the DAG run from ending.
    :param latest: whether a clear asks for the latest version of the DAG, as the UI does when the
        box is ticked; Airflow 2 knows no other one.
    :param airflow_2: fields with other values on Airflow 2.11; ``None`` if it has no such row.
    :param airflow_3_4: fields with other values on Airflow 3.4, which keeps journals as 2.11 does.
    """

    actions: Callable[[Any], None] = field(default=lambda run: run.play())
    retries: int | None = 1  # type: ignore[assignment]  # None: Airflow's setting
    retry_delay: float = 60
    victim: str = "nobody"
    when: str
    detail: str = ""
    act: tuple[str, ...]
    edit: Mapping[str, Any] = field(default_factory=dict)
    says: str
    sensor: Mapping[str, Any] | None = None
    judged: int | None = None
    sensor_state: str = "success"
    other: bool = False
    held: bool = False
    latest: bool = True
    airflow_2: Mapping[str, Any] | None = field(default_factory=dict)
    airflow_3_4: Mapping[str, Any] = field(default_factory=dict)

    @property
    def needs_triggerer(self) -> bool:
        """Whether the row has a task that defers."""
        return super().needs_triggerer or bool((self.sensor or {}).get("deferrable"))

    @property
    def crashes(self) -> int:
        """Expected crashes of each instance of the task."""
        return len(self.crash) + len(self.edit.get("crash", ()))

    @property
    def has_own_pool(self) -> bool:
        """Whether a pool is closed for a moment when the task is cleared."""
        return super().has_own_pool or CLEAR_WITH_CLOSED_POOL in self.act

    @property
    def edited_retries(self) -> str:
        """Retries before and after the edit."""
        if "default_retries" in self.edit:
            return f"default 1 → {self.edit['default_retries']}"
        before, after = self.retries, self.edit.get("retries", self.retries)
        return "" if before == after else f"{before} → {after}"

    def plan(self) -> dict[str, Any]:
        """Return the settings for its DAG file."""
        names = ("sensor", "other", "held")
        return super().plan() | {name: getattr(self, name) for name in names}

    def on(self, series: str) -> Row | None:
        """Return the row as it must be on a series of Airflow, or ``None`` if it has none there."""
        major, minor = map(int, series.split(".")[:2])
        if major >= 3:
            return replace(self, **self.airflow_3_4) if minor >= 4 else self
        return None if self.airflow_2 is None else replace(self, **self.airflow_2)


class RowRun(ScenarioRun):
    """One play of a row."""

    scenario: Row

    def __init__(self, scenario: Row, shared: SharedStack) -> None:
        super().__init__(scenario, shared)
        self._plan = scenario.plan()

    def play(self) -> None:
        """Play all columns of the row."""
        row = self.scenario
        if row.mapped:
            self.set_days(*_DAYS[0])
        self.trigger()
        _WAITS[row.when](self)
        if row.stopped_by_hand:
            self.jobs.sim.stop(self.name)
            self.wait_for_run(1, "STOPPED")
        # Only the first run need be active for long. A trigger that ends before the process which
        # deferred lets Airflow 3 fail the task.
        seconds = 8 if self.scenario.operator.get("deferrable") else 4
        self.jobs.sim.add_job(self.name, seconds=seconds)
        attempt = self._attempt
        self.edit()
        if row.when == "up for retry" and self._attempt != attempt:
            raise RuntimeError("the retry began before the edit")
        # Airflow 3.4 counts the next attempt as soon as the task is up for retry.
        begun = 1 if row.when == "up for retry" else attempt
        for number, name in enumerate(row.act):
            if number:
                self.wait_for_attempt(begun + number)
            _ACTS[name](self)
        self.wait_for_runs()
        self.wait_for_attempt(row.attempts or 1)

    def edit(self) -> None:
        """Edit the DAG, or Airflow's setting, and wait until Airflow knows it."""
        edit = dict(self.scenario.edit)
        if (retries := edit.pop("default_retries", None)) is not None:
            self.shared.wait_until_alone(self.name)
            # Airflow 2 does not store a setting in the DAG.
            with self.stack.edited(self.name) if AIRFLOW_3 else nullcontext():
                self.stack.restart({"CORE__DEFAULT_TASK_RETRIES": str(retries)})
            self.stack.wait_for_dags(1)
        # The scheduler does not know other settings than retries; a worker reads the file.
        with self.stack.edited(self.name) if "retries" in edit else nullcontext():
            self._plan |= edit
            (self.folder / "plan.json").write_text(json.dumps(self._plan))

    # Waits

    def wait_for_attempt(self, number: int) -> None:
        """Wait until an attempt of the task has ended, and the DAG run unless it is held."""

        def ended() -> bool:
            tasks = self.stack.tasks(self.name, TASK).values()
            return bool(tasks) and all(
                task.state in ENDED and task.attempt >= number for task in tasks
            )

        self._wait(ended, f"attempt {number} has ended")
        if not self.scenario.held:
            self.wait_for_dag_run("success", "failed")

    def wait_for_waiting(self) -> None:
        """Wait until a worker, or the triggerer, waits for the run."""
        self.wait_for_run(1, "RUNNING")
        if self.scenario.operator.get("deferrable"):
            self.wait_for_task("deferred")
        self.wait_for_poll()

    def wait_for_rescheduled(self) -> None:
        """Wait until the sensor is rescheduled."""
        self.wait_for_task("up_for_reschedule", task=SENSOR)

    def wait_for_retry(self) -> None:
        """Wait until the task is up for retry."""
        self.wait_for_task("up_for_retry")

    def wait_for_sensor_failure(self) -> None:
        """Wait until the sensor has given up."""
        self.wait_for_task("failed", task=SENSOR)
        self.wait_for_dag_run("failed")

    # Acts

    def clear_this(self, **options: Any) -> None:
        """Clear the task with what is downstream of it, as the UI does."""
        tasks = [TASK, *([SENSOR] if self.scenario.sensor else [])]
        self._clear(*tasks, **options)

    def clear_with_closed_pool(self) -> None:
        """Clear the task, and let its next attempt begin only once its run has succeeded."""
        self.stack.set_pool(self.name, 0)
        self.clear_this()
        self.wait_for_run(1, "SUCCEEDED")
        self.stack.set_pool(self.name, SLOTS)

    def clear_sensor(self) -> None:
        """Clear the sensor alone."""
        self._clear(SENSOR)

    def clear_other(self) -> None:
        """Clear another task of the DAG run."""
        self._clear(OTHER)

    def clear_dag_run(self) -> None:
        """Clear the whole DAG run."""
        self.stack.clear_run(self.name, RUN, LOGICAL_DATE, **self._version)

    def clear_list(self) -> None:
        """Change the list of a mapped task, and clear both."""
        self.set_days(*_DAYS[1])
        self._clear("days", TASK)

    def make_anew(self) -> None:
        """Delete the DAG run, and start another one with the same id."""
        self.stack.delete_run(self.name, RUN)
        self.trigger()

    def _clear(self, *tasks: str, **options: Any) -> None:
        self.stack.clear(self.name, RUN, tasks, LOGICAL_DATE, **self._version, **options)

    @property
    def _version(self) -> dict[str, bool]:
        return {"run_on_latest_version": self.scenario.latest} if AIRFLOW_3 else {}

    # Outcome

    @property
    def _attempt(self) -> int:
        return max(task.attempt for task in self.stack.tasks(self.name, TASK).values())

    def check(self) -> None:
        """Compare the outcome with the expected one, also that of the sensor."""
        if self.scenario.sensor:
            try:
                self._check_sensor(self.scenario)
            except OSError as error:
                self.problems.append(str(error))
        super().check()

    def _check_sensor(self, row: Row) -> None:
        tasks = self.stack.tasks(self.name, SENSOR).values()
        self._expect("sensor", [task.state for task in tasks], [row.sensor_state])
        if row.sensor_state != "success":
            return
        numbers = [run.submission_id for run in self.jobs.sim.runs(self.name)]
        results = [
            self.stack.result_of(self.name, RUN, task)["submission_id"] for task in (TASK, SENSOR)
        ]
        judged = [number + 1 for number, each in enumerate(numbers) if each in results]
        self._expect("run of the sensor and of the task", judged, [row.judged])


#: Lists over which a mapped task is mapped before and after the edit.
_DAYS = (("2025-01-02", "2025-01-03"), ("2025-01-03", "2025-01-04"))
_WAITS: dict[str, Callable[[RowRun], None]] = {
    "after success": lambda run: run.wait_for_attempt(len(run.scenario.crash) + 1),
    "after failure": lambda run: run.wait_for_attempt(1),
    "while running": RowRun.wait_for_waiting,
    "while deferred": RowRun.wait_for_waiting,
    "up for retry": RowRun.wait_for_retry,
    "sensor up for reschedule": RowRun.wait_for_rescheduled,
    "after the sensor's failure": lambda run: run.wait_for_attempt(1),
    "after the sensor's time-out": RowRun.wait_for_sensor_failure,
}
_ACTS: dict[str, Callable[[RowRun], None]] = {
    "retry": lambda _: None,
    "clear this task": RowRun.clear_this,
    "clear it again": RowRun.clear_this,
    CLEAR_WITH_CLOSED_POOL: RowRun.clear_with_closed_pool,
    "clear this task alone": lambda run: run.clear_this(reset_dag_runs=False),
    "clear the sensor": RowRun.clear_sensor,
    "clear another task": RowRun.clear_other,
    "clear the DAG run": RowRun.clear_dag_run,
    "clear the list and this task": RowRun.clear_list,
    "delete the DAG run, make it anew": RowRun.make_anew,
}
