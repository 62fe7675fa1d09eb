"""One scenario while it is played, and how it is judged."""

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

from tests.support.migration_jobs import DAY, Shop
from tests.support.airflow_stack import Stack, signal_process, wait_until

#: Seconds that a scenario may take from one step to the next.
PATIENCE = 160
TASK, RUN, LOGICAL_DATE = "move", "once", f"{DAY}T00:00:00Z"


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A fault, or what a user does, and what has to come of it.

    :param story: what happens from outside, see :mod:`scenarios`.
    :param operator: arguments of the operator.
    :param seconds: how long a run takes.
    :param outcomes: how the runs end, if not well.
    :param crash: points at which the task's process is killed from inside, one in each attempt.
    :param victim: what is killed there: ``task``, ``supervisor`` or ``both``.
    :param runs: how the runs at the simulator end, in order.
    :param or_runs: the same, where two outcomes are right and it is a race which one comes.
    :param foreign: how many of them are somebody else's.
    :param copies: how often the target has the rows of each day; default by the runs.
    :param state: how the task ends.
    :param attempts: of the task, if not one more than there are crashes.
    :param says: what the logs of the task, or of its trigger, must contain.
    :param on_airflow_2: what is different there.
    """

    name: str
    story: Callable[[Play], None]
    operator: Mapping[str, Any] = field(default_factory=dict)
    retries: int = 2
    retry_delay: float = 1
    seconds: float = 4
    mapped: bool = False
    outcomes: tuple[str, ...] = ()
    crash: tuple[str, ...] = ()
    victim: str = "task"
    runs: tuple[str, ...] = ("SUCCEEDED",)
    or_runs: tuple[str, ...] = ()
    foreign: int = 0
    copies: Mapping[str, int] | None = None
    state: str = "success"
    attempts: int | None = None
    says: str = ""
    on_airflow_2: Mapping[str, Any] = field(default_factory=dict)
    restarts_triggerer: bool = False

    @property
    def uses_triggerer(self) -> bool:
        """Whether a restart of the triggerer would be one fault more than it has."""
        return bool(self.operator.get("deferrable")) and not self.restarts_triggerer

    def plan(self) -> dict[str, Any]:
        """What its DAG has to know."""
        names = ("name", "retries", "retry_delay", "mapped", "crash", "victim", "operator")
        return {name: getattr(self, name) for name in names}


class Stage:
    """What the plays share: the stack, the shop, and turns at the triggerer."""

    def __init__(self, stack: Stack, shop: Shop, folder: Path, scenarios: list[Scenario]) -> None:
        self.stack, self.shop, self.folder = stack, shop, folder
        self.triggerer = "triggerer"
        self._using = {each.name for each in scenarios if each.uses_triggerer}
        self._queue = [each.name for each in scenarios if each.restarts_triggerer]
        self._changed = threading.Condition()

    def leaves(self, name: str) -> None:
        """A play is over."""
        with self._changed:
            self._using.discard(name)
            if name in self._queue:
                self._queue.remove(name)
            self._changed.notify_all()

    @contextmanager
    def turn_at_triggerer(self, name: str) -> Iterator[None]:
        """Wait until no other play minds what happens to the triggerer."""
        with self._changed:
            self._changed.wait_for(lambda: not self._using and self._queue[0] == name, 2 * PATIENCE)
        try:
            yield
        finally:
            self.leaves(name)


class Play:
    """A scenario on stage; its story calls these methods."""

    def __init__(self, scenario: Scenario, stage: Stage) -> None:
        self.scenario, self.stage = scenario, stage
        self.name, self.stack, self.shop = scenario.name, stage.stack, stage.shop
        self.folder = stage.folder / self.name
        self.seconds = 0.0
        self.problems: list[str] = []
        self.found: tuple[str, ...] = ()
        self.rows_ok = False
        self.report = ""

    def perform(self) -> None:
        """Play the story to its end."""
        began = time.monotonic()
        try:
            self.scenario.story(self)
        except Exception as error:
            self.problems.append(f"{type(error).__name__}: {error}")
            if not isinstance(error, TimeoutError):
                self.problems.append(traceback.format_exc())
        finally:
            self.seconds = time.monotonic() - began
            self.stage.leaves(self.name)

    # Steps of a story

    def begin(self) -> None:
        """Start the DAG run."""
        self.stack.trigger(self.name, RUN, LOGICAL_DATE)

    def run(self, number: int = 1, *statuses: str) -> None:
        """Wait until there is a run of that number, in one of these statuses."""

        def there() -> bool:
            runs = self.runs
            return len(runs) >= number and (not statuses or runs[number - 1] in statuses)

        self._wait(there, f"run {number} is {' or '.join(statuses) or 'there'}")

    def over(self) -> None:
        """Wait until all runs that there should be are over."""
        wanted = (self.scenario.runs, self.scenario.or_runs)
        self._wait(lambda: tuple(self.runs) in wanted, "the runs are those expected")

    def polled(self) -> None:
        """Wait until somebody looks at the run."""
        before = self.shop.requests(self.name, "status")
        self._wait(lambda: self.shop.requests(self.name, "status") > before, "the run is polled")

    def task(self, *states: str, task: str = TASK) -> None:
        """Wait until all instances of the task are in one of these states."""

        def there() -> bool:
            found = self.stack.tasks(self.name, task).values()
            return bool(found) and all(each.state in states for each in found)

        self._wait(there, f"task {task} is {' or '.join(states)}")

    def dag_run(self, *states: str) -> None:
        """Wait until the DAG run is in one of these states."""
        self._wait(
            lambda: self.stack.dag_run(self.name, RUN) in states,
            f"the DAG run is {' or '.join(states)}",
        )

    def struck(self, count: int) -> None:
        """Wait until so many crashes have happened."""
        self._wait(lambda: len(self.crashes) >= count, f"{count} crashes have happened")

    def finish(self) -> None:
        """Wait until the task has ended as it should."""
        self.task(self.scenario.state)

    def mark(self, state: str) -> None:
        """Mark the task as failed or successful."""
        self.stack.mark(self.name, RUN, TASK, state)

    def clear(self, task: str = TASK) -> None:
        """Clear the task."""
        self.stack.clear(self.name, RUN, task, LOGICAL_DATE)

    def kill(self, victim: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the latest process of the task, or to its supervisor."""
        latest = max(self.folder.glob("*.pids"), key=lambda path: path.stat().st_mtime)
        pid, born = json.loads(latest.read_text())[victim]
        if not signal_process(pid, born, number):
            raise RuntimeError(f"the {victim} has ended already")

    def end_orphans(self) -> None:
        """End what lives on although its supervisor was killed."""
        for path in self.folder.glob("*.pids"):
            pid, born = json.loads(path.read_text())["task"]
            signal_process(pid, born, signal.SIGKILL)

    def days(self, *days: str) -> None:
        """What the list for a mapped task holds from now on."""
        (self.folder / "days.json").write_text(json.dumps(days))

    # Judgement

    @property
    def runs(self) -> list[str]:
        """Statuses of the runs, in order."""
        return [run.status for run in self.shop.sim.runs(self.name)]

    @property
    def crashes(self) -> list[str]:
        """The crashes that have happened."""
        return [path.name for path in self.folder.glob("*.struck")]

    def verdict_of(self) -> None:
        """Compare what came of it with what should have."""
        scenario, self.found = self.scenario, tuple(self.runs)
        if self.found == scenario.or_runs:
            scenario = replace(scenario, runs=self.found, says="")
        self._expect("runs", self.found, scenario.runs)
        ours = len(scenario.runs) - scenario.foreign
        self._expect("starts sent", self.shop.requests(self.name, "start"), ours)
        stopped = scenario.runs.count("STOPPED")
        self._expect("stops sent", self.shop.requests(self.name, "stop"), stopped)
        self._judge_rows(dict(scenario.copies or {DAY: scenario.runs.count("SUCCEEDED")}))
        tasks = self.stack.tasks(self.name, TASK).values()
        self._expect("task states", {task.state for task in tasks}, {scenario.state})
        instances = len(tasks)
        attempts = scenario.attempts or len(scenario.crash) + 1
        self._expect("attempts", [task.attempt for task in tasks], [attempts] * instances)
        self._expect("crashes", len(self.crashes), len(scenario.crash) * instances)
        if scenario.says and not any(scenario.says in log for _, log in self.stack.logs(self.name)):
            self.problems.append(f"no log says {scenario.says!r}")
        if self.problems:
            self.report = self._report()

    def _judge_rows(self, copies: dict[str, int]) -> None:
        wrong = self.shop.wrong_rows(self.name, copies)
        self.rows_ok = not wrong
        if wrong:
            self.problems.append(wrong)

    def _report(self) -> str:
        parts = [f"{self.name}:", *(f"  {problem}" for problem in self.problems)]
        for path, text in self.stack.logs(self.name):
            parts += [f"--- {path}", *text.splitlines()[-80:]]
        return "\n".join(parts)

    def _expect(self, what: str, found: object, wanted: object) -> None:
        if found != wanted:
            self.problems.append(f"{what}: {found}, not {wanted}")

    def _wait(self, ready: Callable[[], bool], what: str) -> None:
        wait_until(ready, PATIENCE, what)
