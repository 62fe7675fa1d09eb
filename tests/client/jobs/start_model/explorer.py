"""Plays random schedules of attempts, retries, clears and faults, and collects violations."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar
from unittest import mock

from airflow_provider_cdm.client.jobs.start_record import Generation
from airflow_provider_cdm.tasks import journal, kills
from tests.client.jobs.start_model.airflow import HARMLESS_POISON, POISONS, Crash, Store
from tests.client.jobs.start_model.cdm import JOB, Cdm, Job, Owner, Run
from tests.client.jobs.start_model.tasks import IDS, Driver, Task, drive

T = TypeVar("T")
#: Under which the context of a task has its store.
_STORE = "task_state_store"


@dataclass
class Explorer:
    """Plays schedules; ``seen`` counts what occurred in them.

    :param standby: whether tasks name a stand-by cluster, and clusters stop at times.
    """

    standby: bool = False
    seen: Counter[str] = field(default_factory=Counter)

    def play(self, seed: int, driver: Driver = drive) -> list[str]:
        """Play one schedule; return its violations, each with the trace."""
        cdm = Cdm(seed, self.seen, self.standby)
        rng = cdm.rng
        managed = rng.random() < 0.5
        variables = Store(cdm)
        with _on_one_thread(variables):
            tasks = [
                self._task(cdm, number, managed, variables, driver)
                for number in range(rng.choice([1, 1, 2]))
            ]
            for generation in range(rng.choice([1, 2, 2])):
                going_on = [self._attempts(task, generation) for task in tasks]
                while going_on:
                    attempts = rng.choice(going_on)
                    if next(attempts, None) is None:
                        going_on.remove(attempts)
        cdm.calm = True
        cdm.pass_time(1000)
        problems = cdm.problems + _doubles(cdm)
        lines = [f"{at:14.2f} {what} {detail}" for at, what, detail in cdm.trace if problems]
        return [f"seed {seed}: {problem}\n" + "\n".join(lines) for problem in problems]

    def _task(self, cdm: Cdm, number: int, managed: bool, variables: Store, driver: Driver) -> Task:
        rng = cdm.rng
        owned = not self.standby and rng.random() < 0.25
        down = rng.choice([0.0, 0.0, 0.1])
        store = Store(cdm) if managed else variables
        store.down = max(store.down, down)
        return Task(
            cdm,
            number,
            store,
            driver,
            managed=managed,
            owned=owned,
            # Two operators with a job of their own would share it.
            operators=1 if owned or rng.random() < 0.8 else 2,
            start_only=not owned and rng.random() < 0.2,
            if_running=rng.choice(["fail", "wait", "attach"]),
            on_giving_up=rng.choice(["leave", "stop"]),
            wait_timeout=rng.choice([None, None, 300.0]),
            interrupts=rng.choice([0.0, 0.01, 0.05]),
            retries=rng.choice([0, 2, 4]),
            changing=rng.random() < 0.2,
            standby=self.standby,
            clocks=rng.choice([(), (-3600.0, -170.0, 170.0, 3600.0)]),
            cancel_on_kill=rng.random() < 0.7,
        )

    def _attempts(self, task: Task, generation: int) -> Iterator[bool]:
        """Perform all attempts between two clears; yield after each."""
        cdm = task.cdm
        airflow = self._clear(task) if generation else Generation(1, task.retries, 0, task.retries)
        task.generation, task.began_at = generation, cdm.now
        for number in range(task.retries + 1):
            task.airflow = replace(airflow, try_number=airflow.try_number + number)
            try:
                if task.attempt():
                    if cdm.rng.random() > 0.2:
                        return
                    cdm.note("failure after the success")
            except Crash:
                pass
            if number < task.retries:
                cdm.note("retry")
            self._between(task)
            if cdm.rng.random() < 0.1:
                cdm.note("clear of another task")
                airflow = replace(airflow, clear_number=(airflow.clear_number or 0) + 1)
            yield True

    def _between(self, task: Task) -> None:
        """Let something happen between two attempts."""
        cdm = task.cdm
        cdm.pass_time(cdm.rng.choice([0.5, 10, 100]))
        if cdm.rng.random() < 0.08:
            self._poison(task)
        # A cluster that is rebuilt between a look at the job and its start hides whose job it is.
        if task.owned and not cdm.rebuild_rate and cdm.rng.random() < 0.1:
            self._leave_stand_in(task)

    def _poison(self, task: Task) -> None:
        cdm = task.cdm
        content = task.store.content
        keys = task.store.records("" if task.managed else ":".join(IDS[task.number]))
        if not keys or task.operators > 1 or task.poisoned:
            return
        name = cdm.rng.choice([*sorted(POISONS), *[HARMLESS_POISON] * 3])
        content[keys[0]] = json.dumps(POISONS[name](json.loads(content[keys[0]])))
        cdm.note(f"poison: {name}")
        task.ever_poisoned = True
        if name == HARMLESS_POISON:
            cdm.doubt(task.owner)
        else:
            task.poisoned = True

    def _leave_stand_in(self, task: Task) -> None:
        """Let somebody else define the task's own job otherwise."""
        cdm = task.cdm
        for name, job in cdm.jobs.items():
            if name != JOB and not job.active(cdm.now):
                cdm.note("stand-in job")
                cdm.jobs[name] = Job({**(job.definition or {}), "stand-in": True}, job.runs)

    def _clear(self, task: Task) -> Generation:
        """Return what Airflow says about the first attempt after a clear of the task."""
        cdm, airflow = task.cdm, task.airflow
        task.cleared_at = cdm.now
        if cdm.rng.random() < 0.2:
            cdm.note("DAG run created again")
            task.dag_run_began, task.dag_run_goes_on = cdm.now, False
            if task.managed:
                task.store.content.clear()
                task.poisoned = False
            return Generation(1, task.retries, 0, task.retries)
        cdm.note("clear")
        task.dag_run_goes_on = cdm.rng.random() >= 0.7
        if not task.dag_run_goes_on:
            # The DAG run had ended, so it begins again.
            task.dag_run_began = cdm.now
        if cdm.rng.random() < 0.3:
            cdm.note("edited retries")
            task.retries = cdm.rng.choice([0, 1, 2, 3, 4])
        return Generation(
            airflow.try_number + 1,
            airflow.try_number + task.retries,
            (airflow.clear_number or 0) + 1,
            task.retries,
        )


@contextmanager
def _on_one_thread(variables: Store) -> Iterator[None]:
    """Let journals be kept in these Variables, and a kill do its work on the present thread.

    A task with a store of its own uses it, also where Airflow 3.4, which discards it, is installed.
    """

    def at_once(work: Callable[[], T], seconds: float) -> T:
        return work()

    with (
        mock.patch.object(journal, "VariableStore", return_value=variables),
        mock.patch.object(journal, "task_state_store", lambda context: context.get(_STORE)),
        mock.patch.object(kills, "run_bounded", at_once),
    ):
        yield


def _doubles(cdm: Cdm) -> list[str]:
    """Return the runs that an owner started after one of its runs succeeded."""
    by_owner: dict[Owner, list[Run]] = {}
    for run in cdm.all_runs:
        if run.owner:
            by_owner.setdefault(run.owner, []).append(run)
    return [
        f"doubled: {runs}"
        for owner, runs in by_owner.items()
        if owner not in cdm.mistaken
        and any(earlier.outcome == "SUCCEEDED" and not earlier.hidden for earlier in runs[:-1])
    ]
