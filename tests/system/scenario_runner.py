"""Runs one scenario on a real Airflow, and checks its outcome."""

from __future__ import annotations

import json
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from demo.processes import wait_until
from tests.support.airflow_stack import AirflowStack, signal_process
from tests.support.migration_jobs import DAY, MigrationJobs

#: Time limit in seconds for each step of a scenario.
TIMEOUT = 160
TASK, RUN, LOGICAL_DATE = "move", "once", f"{DAY}T00:00:00Z"


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A fault or an action of a user, and the expected outcome.

    :param actions: what happens from outside, see :mod:`tests.system.scenarios`.
    :param operator: arguments of the operator.
    :param retries: retries of the task.
    :param retry_delay: delay of a retry in seconds.
    :param seconds: duration of a CDM run.
    :param mapped: whether the task is mapped over a list of days.
    :param outcomes: final statuses of the CDM runs, if not ``SUCCEEDED``.
    :param crash: points at which the process of the task is killed, one in each attempt.
    :param victim: process that is killed there: ``task``, ``supervisor`` or ``both``; with
        ``nobody``, an error is raised instead.
    :param runs: expected final statuses of the CDM runs, in order.
    :param alternative_runs: the same, where a race decides between two correct outcomes.
    :param alternative_attempts: attempts of the task then, if they differ.
    :param foreign: number of these runs that somebody else has started.
    :param copies: how often the target must have the rows of each day; by default once for each
        successful run.
    :param state: expected state of the task.
    :param attempts: expected attempts of the task, if not one more than there are crashes.
    :param logged: text that the logs of the task, or of its trigger, must contain.
    :param stopped_by_hand: whether a person, not the task, stops a run.
    :param restarts_triggerer: whether the scenario ends the triggerer.
    """

    name: str
    actions: Callable[[ScenarioRun], None]
    operator: Mapping[str, Any] = field(default_factory=dict)
    retries: int = 2
    retry_delay: float = 1
    seconds: float = 4
    mapped: bool = False
    outcomes: tuple[str, ...] = ()
    crash: tuple[str, ...] = ()
    victim: str = "task"
    runs: tuple[str, ...] = ("SUCCEEDED",)
    alternative_runs: tuple[str, ...] = ()
    alternative_attempts: int | None = None
    foreign: int = 0
    copies: Mapping[str, int] | None = None
    state: str = "success"
    attempts: int | None = None
    logged: str = ""
    stopped_by_hand: bool = False
    restarts_triggerer: bool = False

    @property
    def needs_triggerer(self) -> bool:
        """Whether a restart of the triggerer would be an additional fault for this scenario."""
        return bool(self.operator.get("deferrable")) and not self.restarts_triggerer

    @property
    def crashes(self) -> int:
        """Expected crashes of each instance of the task."""
        return len(self.crash)

    @property
    def has_own_pool(self) -> bool:
        """Whether a pool is closed for a moment when the task is cleared."""
        return bool(self.operator.get("deferrable"))

    def plan(self) -> dict[str, Any]:
        """Return the settings for its DAG file."""
        names = ("name", "retries", "retry_delay", "mapped", "crash", "victim", "operator")
        pool = self.name if self.has_own_pool else "default_pool"
        return {name: getattr(self, name) for name in names} | {"pool": pool}


class SharedStack:
    """What the scenarios share: Airflow, the jobs, and access to the triggerer, one at a time.

    :param folder: folder with a subfolder for each scenario.
    :param scenarios: all scenarios that run.
    """

    def __init__(
        self, stack: AirflowStack, jobs: MigrationJobs, folder: Path, scenarios: list[Scenario]
    ) -> None:
        self.stack, self.jobs, self.folder = stack, jobs, folder
        #: Name of the component that runs triggers now.
        self.triggerer = "triggerer"
        self._users = {scenario.name for scenario in scenarios if scenario.needs_triggerer}
        self._queue = [scenario.name for scenario in scenarios if scenario.restarts_triggerer]
        self._unfinished = {scenario.name for scenario in scenarios}
        self._changed = threading.Condition()  # its lock is reentrant

    def finished(self, name: str) -> None:
        """Record that a scenario has ended."""
        with self._changed:
            self._unfinished.discard(name)
            self._no_longer_triggers(name)

    def wait_until_alone(self, name: str) -> None:
        """Wait until all other scenarios have ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._unfinished == {name}, 3 * TIMEOUT)

    def _no_longer_triggers(self, name: str) -> None:
        with self._changed:
            self._users.discard(name)
            if name in self._queue:
                self._queue.remove(name)
            self._changed.notify_all()

    @contextmanager
    def exclusive_triggerer(self, name: str) -> Iterator[None]:
        """Wait until a scenario may end the triggerer: no other one needs it."""
        with self._changed:
            self._changed.wait_for(lambda: not self._users and self._queue[0] == name, 2 * TIMEOUT)
        try:
            yield
        finally:
            self._no_longer_triggers(name)


class ScenarioRun:
    """One run of a scenario; the actions of the scenario call these methods."""

    def __init__(self, scenario: Scenario, shared: SharedStack) -> None:
        self.scenario, self.shared = scenario, shared
        self.name, self.stack, self.jobs = scenario.name, shared.stack, shared.jobs
        self.folder = shared.folder / self.name
        #: Duration in seconds.
        self.seconds = 0.0
        #: What differs from the expected outcome.
        self.problems: list[str] = []
        #: Final statuses of the CDM runs.
        self.statuses: tuple[str, ...] = ()
        self.rows_ok = False
        #: Problems and logs, if there are problems.
        self.report = ""

    def run(self) -> None:
        """Run all actions of the scenario."""
        started_at = time.monotonic()
        try:
            self.scenario.actions(self)
        except Exception as error:
            self.problems.append(f"{type(error).__name__}: {error}")
            if not isinstance(error, TimeoutError):
                self.problems.append(traceback.format_exc())
        finally:
            self.seconds = time.monotonic() - started_at
            self.shared.finished(self.name)

    # Actions and waits

    def trigger(self) -> None:
        """Start the DAG run."""
        self.stack.trigger(self.name, RUN, LOGICAL_DATE)

    def wait_for_run(self, number: int = 1, *statuses: str) -> None:
        """Wait until the CDM run of that number exists, and has one of the statuses, if any."""

        def exists() -> bool:
            runs = self.run_statuses
            return len(runs) >= number and (not statuses or runs[number - 1] in statuses)

        self._wait(exists, f"run {number} is {' or '.join(statuses) or 'there'}")

    def wait_for_runs(self) -> None:
        """Wait until all expected CDM runs have ended."""
        expected = (self.scenario.runs, self.scenario.alternative_runs)
        self._wait(lambda: tuple(self.run_statuses) in expected, "the runs are those expected")

    def wait_for_poll(self) -> None:
        """Wait until the CDM run is polled: by its status, or in the triggerer with others by list.

        A trigger starts a moment after it was assigned, and lists do not tell whom they are for.
        """
        deferred = bool(self.scenario.operator.get("deferrable"))
        if deferred:
            tasks = self.stack.tasks
            self._wait(
                lambda: tasks(self.name, TASK)[-1].triggerer is not None, "a triggerer has it"
            )
        before, lists = self.jobs.count_requests(self.name, "status"), self._lists()
        self._wait(
            lambda: (
                self.jobs.count_requests(self.name, "status") > before
                or (deferred and self._lists() >= lists + 5)
            ),
            "the run is polled",
        )

    def _lists(self) -> int:
        return sum(request.route == "list_jobs" for request in self.jobs.sim.requests)

    def wait_for_refusal(self) -> None:
        """Wait until a call about the CDM run is refused, as its token is no longer valid."""
        before = len(self._refused_calls())
        self._wait(lambda: len(self._refused_calls()) > before, "a call is refused")

    def _refused_calls(self) -> list[Any]:
        path = f"/cdm/job/{self.name}/status"
        requests = self.jobs.sim.requests
        return [each for each in requests if each.status == 401 and each.path.endswith(path)]

    def wait_for_task(self, *states: str, task: str = TASK) -> None:
        """Wait until all instances of the task are in one of these states."""

        def reached() -> bool:
            instances = self.stack.tasks(self.name, task).values()
            return bool(instances) and all(instance.state in states for instance in instances)

        self._wait(reached, f"task {task} is {' or '.join(states)}")

    def wait_for_dag_run(self, *states: str) -> None:
        """Wait until the DAG run is in one of these states."""
        self._wait(
            lambda: self.stack.dag_run(self.name, RUN) in states,
            f"the DAG run is {' or '.join(states)}",
        )

    def wait_for_crashes(self, count: int) -> None:
        """Wait until that many crashes have happened."""
        self._wait(lambda: len(self.crashes) >= count, f"{count} crashes have happened")

    def wait_for_end(self) -> None:
        """Wait until the task has ended in the expected state."""
        self.wait_for_task(self.scenario.state)

    def mark(self, state: str) -> None:
        """Mark the task as failed or successful."""
        self.stack.mark(self.name, RUN, TASK, state)

    def clear(self, task: str = TASK) -> None:
        """Clear the task."""
        self.stack.clear(self.name, RUN, [task], LOGICAL_DATE)

    def kill(self, victim: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the latest process of the task, or to its supervisor."""
        latest = max(self.folder.glob("*.pids"), key=lambda path: path.stat().st_mtime)
        pid, created_at = json.loads(latest.read_text())[victim]
        if not signal_process(pid, created_at, number):
            raise RuntimeError(f"the {victim} has already ended")

    def kill_orphans(self) -> None:
        """Kill task processes whose supervisor was killed."""
        for path in self.folder.glob("*.pids"):
            pid, created_at = json.loads(path.read_text())["task"]
            signal_process(pid, created_at, signal.SIGKILL)

    def set_days(self, *days: str) -> None:
        """Set the list over which the task is mapped."""
        (self.folder / "days.json").write_text(json.dumps(days))

    # Outcome

    @property
    def run_statuses(self) -> list[str]:
        """Statuses of the CDM runs, in order."""
        return [run.status for run in self.jobs.sim.runs(self.name)]

    @property
    def crashes(self) -> list[str]:
        """Crashes that have happened."""
        return [path.name for path in self.folder.glob("*.struck")]

    def check(self) -> None:
        """Compare the outcome with the expected one."""
        scenario, self.statuses = self.scenario, tuple(self.run_statuses)
        if self.statuses == scenario.alternative_runs:
            attempts = scenario.alternative_attempts or scenario.attempts
            scenario = replace(scenario, runs=self.statuses, logged="", attempts=attempts)
        self._expect("runs", self.statuses, scenario.runs)
        own_runs = len(scenario.runs) - scenario.foreign
        self._expect("starts sent", self.jobs.count_requests(self.name, "start"), own_runs)
        stopped = scenario.runs.count("STOPPED") - scenario.stopped_by_hand
        self._expect("stops sent", self.jobs.count_requests(self.name, "stop"), stopped)
        self._check_rows(dict(scenario.copies or {DAY: scenario.runs.count("SUCCEEDED")}))
        tasks = self.stack.tasks(self.name, TASK).values()
        self._expect("task states", {task.state for task in tasks}, {scenario.state})
        instances = len(tasks)
        attempts = scenario.attempts or len(scenario.crash) + 1
        self._expect("attempts", [task.attempt for task in tasks], [attempts] * instances)
        self._expect("crashes", len(self.crashes), scenario.crashes * instances)
        if scenario.logged and not any(
            scenario.logged in log for _, log in self.stack.logs(self.name)
        ):
            self.problems.append(f"no log contains {scenario.logged!r}")
        if self.problems:
            self.report = self._make_report()

    def _check_rows(self, copies: dict[str, int]) -> None:
        wrong = self.jobs.wrong_rows(self.name, copies)
        self.rows_ok = not wrong
        if wrong:
            self.problems.append(wrong)

    def _make_report(self) -> str:
        parts = [f"{self.name}:", *(f"  {problem}" for problem in self.problems)]
        for path, text in self.stack.logs(self.name):
            parts += [f"--- {path}", *text.splitlines()[-80:]]
        return "\n".join(parts)

    def _expect(self, what: str, actual: object, expected: object) -> None:
        if actual != expected:
            self.problems.append(f"{what}: {actual}, not {expected}")

    def _wait(self, condition: Callable[[], bool], description: str) -> None:
        wait_until(condition, TIMEOUT, description)
