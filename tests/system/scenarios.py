"""All scenarios: what happens, and what must come of it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import replace

from tests.system.play import RUN, TASK, Play, Scenario
from tests.system.shop import DAY, DAYS
from tests.system.stack import AIRFLOW_3, TRIGGERER_TIMEOUT, wait_until

DEFERRED = {"deferrable": True}
OURS, OTHERS = {DAY: 1}, {DAY: 1, DAYS[4]: 1}
STOPPED, LEFT = "CDM was asked to stop it", "is left running"


def undisturbed(play: Play) -> None:
    """Nothing happens from outside."""
    play.begin()
    play.finish()


def while_running(act: Callable[[Play], None]) -> Callable[[Play], None]:
    """Something happens while a worker, or the triggerer, waits for the run."""

    def story(play: Play) -> None:
        play.begin()
        play.run(1, "RUNNING")
        if play.scenario.operator.get("deferrable"):
            play.task("deferred")
        play.polled()
        act(play)
        play.over()
        play.finish()

    return story


def kill_process(victim: str, number: signal.Signals = signal.SIGKILL) -> Callable[[Play], None]:
    """Kill a process while the task waits."""
    return while_running(lambda play: play.kill(victim, number))


def mark(state: str) -> Callable[[Play], None]:
    """Mark the task while it waits."""
    return while_running(lambda play: play.mark(state))


def mark_run_failed(play: Play) -> None:
    """Mark the DAG run failed."""
    play.stack.mark_run(play.name, RUN, "failed")


def clear_afterwards(play: Play) -> None:
    """Clear the task when it has ended, and its DAG run too: else that would be judged by now."""
    play.begin()
    play.dag_run("success", "failed")
    play.clear()
    play.run(2, "SUCCEEDED")
    play.finish()


def somebody_else(play: Play) -> None:
    """Our run is over, unnoticed so far, somebody else's is active, and the task is ended."""
    play.begin()
    play.run(1, "SUCCEEDED")
    if play.scenario.operator.get("deferrable"):
        play.task("deferred")
        wait_until(lambda: triggerer_of(play) is not None, 60, "a triggerer has it")
        # It is handed over, and begins a moment later; its first look comes after five seconds.
        time.sleep(2)
    play.shop.sim.add_job(play.name, seconds=15)
    play.shop.sim.start(play.name, variables={"dt": DAYS[4]})
    play.mark("failed")
    play.run(2, "SUCCEEDED")
    play.finish()


def list_changes(play: Play) -> None:
    """Both mapped tasks die when their runs are known; before the retry the list changes."""
    play.days(DAYS[1], DAYS[2])
    play.begin()
    play.struck(2)
    play.days(DAYS[3], DAYS[4])
    play.clear("days")
    play.run(4, "SUCCEEDED")
    play.finish()


def triggerer_of(play: Play) -> int | None:
    """Who has the trigger."""
    return play.stack.tasks(play.name, TASK)[-1].triggerer


def at_triggerer(act: Callable[[Play], None]) -> Callable[[Play], None]:
    """Something happens to the triggerer that has the trigger, and another one goes on."""

    def story(play: Play) -> None:
        with play.stage.turn_at_triggerer(play.name):
            play.begin()
            play.run(1, "RUNNING")
            play.task("deferred")
            play.polled()
            before = triggerer_of(play)
            act(play)
            wait_until(lambda: triggerer_of(play) not in (None, before), 60, "another has it")
            play.polled()
        play.finish()

    return story


def kill_triggerer(play: Play) -> None:
    """Kill it and start another one."""
    play.stack.kill(play.stage.triggerer)
    play.stage.triggerer += "+"
    play.stack.start_triggerer(play.stage.triggerer)


def terminate_triggerer(play: Play) -> None:
    """The same with the signal of an orderly restart."""
    play.stack.terminate(play.stage.triggerer)
    play.stage.triggerer += "+"
    play.stack.start_triggerer(play.stage.triggerer)


def freeze_triggerer(play: Play) -> None:
    """Two triggerers; the one that has the trigger is out of touch, and comes back afterwards."""
    old = play.stage.triggerer
    before = triggerer_of(play)
    play.stage.triggerer += "+"
    play.stack.start_triggerer(play.stage.triggerer)
    query = "SELECT max(id) FROM job WHERE job_type = 'TriggererJob' AND state = 'running'"
    wait_until(lambda: play.stack.query(query)[0][0] != before, 60, "there are two triggerers")
    thaw = play.stack.freeze(old)
    try:
        patience = 3 * TRIGGERER_TIMEOUT + 30
        wait_until(lambda: triggerer_of(play) not in (None, before), patience, "it is taken over")
    finally:
        thaw()
    play.polled()


def outage(play: Play) -> None:
    """CDM answers no question about the run for a while."""
    play.shop.sim.fail("status", "status", status=503, times=6, job=play.name)
    undisturbed(play)


_SLOW = [
    # A start that may have been sent is waited for: 75 s from when it was.
    Scenario(name="killed-after-intent", story=undisturbed, crash=("after the intent",)),
    Scenario(
        name="machine-lost-after-intent",
        story=undisturbed,
        crash=("after the intent",),
        victim="both",
    ),
    Scenario(
        name="killed-twice",
        story=undisturbed,
        crash=("after the intent", "after the record"),
        seconds=8,
    ),
    # The supervisor dies; the task's process lives on until it wants something of it.
    Scenario(
        name="supervisor-killed-after-intent",
        story=undisturbed,
        crash=("after the intent",),
        victim="supervisor",
        seconds=40,
    ),
    Scenario(
        name="supervisor-killed-waiting",
        story=kill_process("supervisor"),
        attempts=2,
        seconds=40,
    ),
    Scenario(
        name="machine-lost-after-start",
        story=undisturbed,
        crash=("after the start",),
        victim="both",
        seconds=8,
    ),
]
_KILLED = [
    Scenario(name="killed-before-journal", story=undisturbed, crash=("before the journal",)),
    Scenario(name="killed-after-baseline", story=undisturbed, crash=("after the baseline",)),
    Scenario(name="killed-after-start", story=undisturbed, crash=("after the start",)),
    Scenario(name="killed-after-answer", story=undisturbed, crash=("after the answer",)),
    Scenario(name="killed-after-record", story=undisturbed, crash=("after the record",)),
    Scenario(name="killed-waiting", story=kill_process("task"), attempts=2, seconds=12),
    Scenario(name="killed-after-end", story=undisturbed, crash=("after the end",)),
    # The one gap below Airflow 3.3, which the design page names.
    Scenario(
        name="killed-after-conclusion",
        story=undisturbed,
        crash=("after the conclusion",),
        on_airflow_2={"runs": ("SUCCEEDED", "SUCCEEDED")},
    ),
    Scenario(
        name="killed-before-report",
        story=undisturbed,
        crash=("before the report",),
        on_airflow_2={"runs": ("SUCCEEDED", "SUCCEEDED")},
    ),
    Scenario(
        name="killed-start-only",
        story=undisturbed,
        crash=("after the record",),
        operator={"wait_for_completion": False},
    ),
    Scenario(
        name="killed-before-deferral",
        story=undisturbed,
        operator=DEFERRED,
        crash=("after the record",),
        seconds=12,
    ),
    Scenario(
        name="killed-after-deferral",
        story=undisturbed,
        operator=DEFERRED,
        crash=("after the end",),
    ),
    Scenario(
        name="terminated-waiting",
        story=kill_process("task", signal.SIGTERM),
        runs=("STOPPED", "SUCCEEDED"),
        attempts=2,
        seconds=12,
        says=STOPPED,
    ),
    Scenario(
        name="mapped-list-changed",
        story=list_changes,
        mapped=True,
        operator={"if_running": "wait"},
        retry_delay=25,
        crash=("after the record",),
        runs=("SUCCEEDED",) * 4,
        copies=dict.fromkeys(DAYS[1:5], 1),
        says="describes a start with other arguments",
    ),
]
_FAILED = Scenario(
    name="", story=mark("failed"), seconds=20, runs=("STOPPED",), state="failed", says=STOPPED
)
_LEFT = replace(_FAILED, runs=("SUCCEEDED",), says=LEFT)
_FOREIGN = replace(
    _FAILED,
    story=somebody_else,
    seconds=2,
    runs=("SUCCEEDED", "SUCCEEDED"),
    foreign=1,
    copies=OTHERS,
    says="nothing to stop",
)
_ENDED_BY_USER = [
    replace(_FAILED, name="running-marked-failed"),
    replace(_LEFT, name="running-marked-failed-left", operator={"cancel_on_kill": False}),
    replace(_FOREIGN, name="running-marked-failed-foreign", operator={"poll_interval": 120}),
    replace(_FAILED, name="running-marked-success", story=mark("success"), state="success"),
    replace(_FAILED, name="deferred-marked-failed", operator=DEFERRED),
    replace(
        _LEFT, name="deferred-marked-failed-left", operator=DEFERRED | {"cancel_on_kill": False}
    ),
    replace(
        _FOREIGN,
        name="deferred-marked-failed-foreign",
        operator=DEFERRED | {"poll_interval": 120},
    ),
    replace(
        _FAILED,
        name="deferred-marked-success",
        operator=DEFERRED,
        story=mark("success"),
        state="success",
    ),
    replace(
        _FAILED,
        name="deferred-run-marked-failed",
        operator=DEFERRED,
        story=while_running(mark_run_failed),
    ),
]
_CLEARED = [
    Scenario(
        name="cleared-finished",
        story=clear_afterwards,
        runs=("SUCCEEDED", "SUCCEEDED"),
        attempts=2,
    ),
    Scenario(
        name="cleared-failed",
        story=clear_afterwards,
        retries=0,
        outcomes=("FAILED", "SUCCEEDED"),
        runs=("FAILED", "SUCCEEDED"),
        attempts=2,
    ),
    Scenario(
        name="cleared-running",
        story=while_running(Play.clear),
        seconds=25,
        runs=("STOPPED", "SUCCEEDED"),
        attempts=2,
        says=STOPPED,
    ),
    Scenario(
        name="cleared-running-left",
        story=while_running(Play.clear),
        operator={"cancel_on_kill": False},
        seconds=25,
        attempts=2,
        says=LEFT,
    ),
    Scenario(
        name="cleared-deferred",
        story=while_running(Play.clear),
        operator=DEFERRED,
        seconds=25,
        runs=("STOPPED", "SUCCEEDED"),
        # The next attempt may wait for the run already when the triggerer hears of the clear.
        or_runs=("SUCCEEDED",),
        attempts=2,
        says=STOPPED,
    ),
]
_WAITING = [
    Scenario(
        name="giving-up-stop",
        story=undisturbed,
        operator={"wait_timeout": 5, "on_giving_up": "stop"},
        retries=1,
        seconds=60,
        runs=("STOPPED",),
        state="failed",
        attempts=2,
        says=STOPPED,
    ),
    Scenario(
        name="giving-up-stop-deferred",
        story=undisturbed,
        operator=DEFERRED | {"wait_timeout": 5, "on_giving_up": "stop"},
        retries=1,
        seconds=60,
        runs=("STOPPED",),
        state="failed",
        attempts=2,
        says=STOPPED,
    ),
    Scenario(
        name="giving-up-leave",
        story=undisturbed,
        operator={"wait_timeout": 5},
        retries=1,
        seconds=40,
        state="failed",
        attempts=2,
        says="No attempt follows after CdmWaitTimeout",
    ),
    Scenario(name="outage-worker", story=outage),
    Scenario(name="outage-deferred", story=outage, operator=DEFERRED, seconds=12),
]
_RESTART = Scenario(
    name="", story=undisturbed, operator=DEFERRED, seconds=35, restarts_triggerer=True
)
_TRIGGERER = [
    replace(_RESTART, name="triggerer-killed", story=at_triggerer(kill_triggerer)),
    replace(_RESTART, name="triggerer-terminated", story=at_triggerer(terminate_triggerer)),
    replace(
        _RESTART,
        name="triggerer-frozen",
        story=at_triggerer(freeze_triggerer),
        seconds=50,
        says="the task still waits: nothing is stopped",
    ),
]

#: In the order in which they begin: those that wait longest come first.
SCENARIOS = [
    scenario if AIRFLOW_3 else replace(scenario, **scenario.on_airflow_2)
    for scenario in (*_SLOW, *_KILLED, *_ENDED_BY_USER, *_CLEARED, *_WAITING, *_TRIGGERER)
]
