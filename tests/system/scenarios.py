"""All scenarios: the actions from outside, and the expected outcomes."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from demo.processes import wait_until
from tests.support.airflow_settings import SERIES, TRIGGERER_TIMEOUT
from tests.support.migration_jobs import DAY, DAYS
from tests.system.scenario_runner import RUN, TASK, Scenario, ScenarioRun

DEFERRED = {"deferrable": True}
#: Copies of each day in the target after a run of ours and one of somebody else.
OWN_AND_FOREIGN = {DAY: 1, DAYS[4]: 1}
#: What the logs say about an active run.
STOPPED, LEFT_RUNNING = "asked CDM to stop it", "is left running"
#: What is logged of a wait that another triggerer has taken over; from 3.4 on, Airflow says it.
HANDED_OVER = "still or again, so nothing is stopped"
if SERIES >= (3, 4):
    HANDED_OVER = "Trigger reassigned to another triggerer"


def no_action(run: ScenarioRun) -> None:
    """Run the DAG to its end without any action from outside."""
    run.trigger()
    run.wait_for_end()


def while_running(act: Callable[[ScenarioRun], None]) -> Callable[[ScenarioRun], None]:
    """Return actions that do something while a worker, or the triggerer, waits for the run."""

    def actions(run: ScenarioRun) -> None:
        run.trigger()
        run.wait_for_run(1, "RUNNING")
        if run.scenario.operator.get("deferrable"):
            run.wait_for_task("deferred")
        run.wait_for_poll()
        # The first run is long, so that the action comes in time also on a slow machine.
        run.jobs.sim.add_job(run.name, seconds=8)
        act(run)
        run.wait_for_runs()
        run.wait_for_end()

    return actions


def kill_process(
    victim: str, number: signal.Signals = signal.SIGKILL
) -> Callable[[ScenarioRun], None]:
    """Return actions that kill a process while the task waits."""
    return while_running(lambda run: run.kill(victim, number))


def mark(state: str) -> Callable[[ScenarioRun], None]:
    """Return actions that mark the task while it waits."""
    return while_running(lambda run: run.mark(state))


def mark_run_failed(run: ScenarioRun) -> None:
    """Mark the DAG run as failed."""
    run.stack.mark_run(run.name, RUN, "failed")


def clear_afterwards(run: ScenarioRun) -> None:
    """Clear the task after it and its DAG run have ended.

    Otherwise the scheduler could set the state of the DAG run at the same time.
    """
    run.trigger()
    run.wait_for_dag_run("success", "failed")
    run.clear()
    run.wait_for_run(2, "SUCCEEDED")
    run.wait_for_end()


def foreign_run(run: ScenarioRun) -> None:
    """Mark the task failed when its run has ended unnoticed and somebody else's run is active."""
    run.trigger()
    run.wait_for_run(1, "SUCCEEDED")
    if run.scenario.operator.get("deferrable"):
        run.wait_for_task("deferred")
        wait_until(lambda: triggerer_of(run) is not None, 60, "a triggerer has the trigger")
        # The trigger starts a moment after it was assigned, and polls first after five seconds: the
        # mark must come before.
        time.sleep(0.5)
    run.jobs.sim.add_job(run.name, seconds=15)
    run.jobs.sim.start(run.name, variables={"dt": DAYS[4]})
    run.mark("failed")
    run.wait_for_run(2, "SUCCEEDED")
    run.wait_for_end()


def rotate_password(run: ScenarioRun) -> None:
    """Change the password of the user, and soon after that the connection."""
    password = f"new {run.name}"
    run.jobs.sim.rotate(user=run.name, password=password)
    run.wait_for_refusal()
    connection = run.jobs.sim.connection | {"login": run.name, "password": password}
    run.stack.change_connection(run.name, connection)


def change_list(run: ScenarioRun) -> None:
    """Change the list of a mapped task between the crash of both instances and their retry."""
    run.set_days(DAYS[1], DAYS[2])
    run.trigger()
    run.wait_for_crashes(2)
    run.set_days(DAYS[3], DAYS[4])
    run.clear("days")
    run.wait_for_end()


def triggerer_of(run: ScenarioRun) -> int | None:
    """Return the id of the triggerer that has the trigger."""
    return run.stack.tasks(run.name, TASK)[-1].triggerer


def at_triggerer(act: Callable[[ScenarioRun], None]) -> Callable[[ScenarioRun], None]:
    """Return actions that end the triggerer that has the trigger, so that another takes over."""

    def actions(run: ScenarioRun) -> None:
        with run.shared.exclusive_triggerer(run.name):
            run.trigger()
            run.wait_for_run(1, "RUNNING")
            run.wait_for_task("deferred")
            run.wait_for_poll()
            before = triggerer_of(run)
            act(run)
            wait_until(
                lambda: triggerer_of(run) not in (None, before), 60, "another has the trigger"
            )
            run.wait_for_poll()
        run.wait_for_end()

    return actions


def kill_triggerer(run: ScenarioRun) -> None:
    """Kill the triggerer and start another one."""
    run.stack.kill(run.shared.triggerer)
    run.shared.triggerer += "+"
    run.stack.start_triggerer(run.shared.triggerer)


def terminate_triggerer(run: ScenarioRun) -> None:
    """End the triggerer with SIGTERM, as for an orderly restart, and start another one."""
    run.stack.terminate(run.shared.triggerer)
    run.shared.triggerer += "+"
    run.stack.start_triggerer(run.shared.triggerer)


def freeze_triggerer(run: ScenarioRun) -> None:
    """Start a second triggerer and freeze the first one until the second has the trigger."""
    old = run.shared.triggerer
    before = triggerer_of(run)
    run.shared.triggerer += "+"
    run.stack.start_triggerer(run.shared.triggerer)
    query = "SELECT max(id) FROM job WHERE job_type = 'TriggererJob' AND state = 'running'"
    wait_until(lambda: run.stack.query(query)[0][0] != before, 60, "there are two triggerers")
    thaw = run.stack.freeze(old)
    try:
        timeout = 3 * TRIGGERER_TIMEOUT + 30
        wait_until(lambda: triggerer_of(run) not in (None, before), timeout, "it is taken over")
    finally:
        thaw()
    run.wait_for_poll()


def outage(run: ScenarioRun) -> None:
    """Let status calls for the run fail for a while."""
    run.jobs.sim.fail("status", "status", status=503, times=6, job=run.name)
    no_action(run)


def crashed(name: str, *points: str, **fields: Any) -> Scenario:
    """Return a scenario without actions from outside, whose attempts crash at certain points."""
    return Scenario(name=name, actions=no_action, crash=points, **fields)


_SLOW = [
    # A task waits for a start that may have been sent, up to 75 s after it was.
    crashed("killed-after-intent", "after the intent"),
    crashed("machine-lost-after-intent", "after the intent", victim="both"),
    crashed("killed-twice", "after the intent", "after the record", seconds=8),
    # The process of the task lives on until it sends the killed supervisor a request.
    crashed("supervisor-killed-after-intent", "after the intent", victim="supervisor", seconds=70),
    Scenario(
        name="supervisor-killed-waiting",
        actions=kill_process("supervisor"),
        attempts=2,
        seconds=70,
    ),
    crashed("machine-lost-after-start", "after the start", victim="both", seconds=8),
]
_KILLED = [
    crashed("killed-before-journal", "before the journal"),
    crashed("killed-after-baseline", "after the baseline"),
    crashed("killed-after-start", "after the start"),
    crashed("killed-after-answer", "after the answer"),
    crashed("killed-after-record", "after the record"),
    Scenario(name="killed-waiting", actions=kill_process("task"), attempts=2, seconds=30),
    crashed("killed-after-end", "after the end"),
    crashed("killed-after-conclusion", "after the conclusion"),
    crashed("killed-before-report", "before the report"),
    crashed("killed-start-only", "after the record", operator={"wait_for_completion": False}),
    crashed("killed-before-deferral", "after the record", operator=DEFERRED, seconds=12),
    crashed("killed-after-deferral", "after the end", operator=DEFERRED),
    Scenario(
        name="terminated-waiting",
        actions=kill_process("task", signal.SIGTERM),
        runs=("STOPPED", "SUCCEEDED"),
        attempts=2,
        seconds=120,
        logged=STOPPED,
    ),
    Scenario(
        name="mapped-list-changed",
        actions=change_list,
        mapped=True,
        operator={"if_running": "wait"},
        retries=1,
        retry_delay=25,
        crash=("after the record",),
        runs=("SUCCEEDED",) * 2,
        copies=dict.fromkeys(DAYS[1:3], 1),
        state="failed",
        logged="which an earlier attempt started, ended SUCCEEDED",
    ),
]
_FAILED = Scenario(
    name="", actions=mark("failed"), seconds=120, runs=("STOPPED",), state="failed", logged=STOPPED
)
_LEFT_RUNNING = replace(_FAILED, seconds=40, runs=("SUCCEEDED",), logged=LEFT_RUNNING)
_FOREIGN = replace(
    _FAILED,
    actions=foreign_run,
    seconds=2,
    runs=("SUCCEEDED", "SUCCEEDED"),
    foreign=1,
    copies=OWN_AND_FOREIGN,
    logged="nothing to stop",
)
_MARKED = [
    replace(_FAILED, name="running-marked-failed"),
    replace(_LEFT_RUNNING, name="running-marked-failed-left", operator={"cancel_on_kill": False}),
    replace(
        _FOREIGN,
        name="running-marked-failed-foreign",
        # It ends between two looks at a new run, which come after 16 to 20 and 32 to 40 seconds.
        seconds=25,
        operator={"poll_interval": 120},
    ),
    replace(_FAILED, name="running-marked-success", actions=mark("success"), state="success"),
    replace(_FAILED, name="deferred-marked-failed", operator=DEFERRED),
    replace(
        _LEFT_RUNNING,
        name="deferred-marked-failed-left",
        operator=DEFERRED | {"cancel_on_kill": False},
    ),
    replace(
        _FOREIGN,
        name="deferred-marked-failed-foreign",
        # Airflow needs some seconds to cancel the trigger, which must come before its first poll.
        seconds=0.5,
        operator=DEFERRED | {"poll_interval": 120},
    ),
    replace(
        _FAILED,
        name="deferred-marked-success",
        operator=DEFERRED,
        actions=mark("success"),
        state="success",
    ),
    replace(
        _FAILED,
        name="deferred-run-marked-failed",
        operator=DEFERRED,
        actions=while_running(mark_run_failed),
    ),
]
_CLEARED = [
    Scenario(
        name="cleared-finished",
        actions=clear_afterwards,
        runs=("SUCCEEDED", "SUCCEEDED"),
        attempts=2,
    ),
    Scenario(
        name="cleared-failed",
        actions=clear_afterwards,
        retries=0,
        outcomes=("FAILED", "SUCCEEDED"),
        runs=("FAILED", "SUCCEEDED"),
        attempts=2,
    ),
    Scenario(
        name="cleared-running",
        actions=while_running(ScenarioRun.clear),
        seconds=120,
        runs=("STOPPED", "SUCCEEDED"),
        attempts=2,
        logged=STOPPED,
    ),
    Scenario(
        name="cleared-running-left",
        actions=while_running(ScenarioRun.clear),
        operator={"cancel_on_kill": False},
        seconds=40,
        attempts=2,
        logged=LEFT_RUNNING,
    ),
    Scenario(
        name="cleared-deferred",
        actions=while_running(ScenarioRun.clear),
        operator=DEFERRED,
        seconds=40,
        runs=("STOPPED", "SUCCEEDED"),
        # The next attempt may already wait for the run when the triggerer notices the clear.
        alternative_runs=("SUCCEEDED",),
        attempts=2,
        logged=STOPPED,
    ),
]
_GIVING_UP = Scenario(
    name="giving-up-stop",
    actions=no_action,
    operator={"wait_timeout": 5, "on_giving_up": "stop"},
    retries=1,
    seconds=60,
    runs=("STOPPED",),
    state="failed",
    attempts=2,
    logged=STOPPED,
)
_WAITING = [
    _GIVING_UP,
    replace(
        _GIVING_UP, name="giving-up-stop-deferred", operator={**DEFERRED, **_GIVING_UP.operator}
    ),
    Scenario(
        name="giving-up-leave",
        actions=no_action,
        operator={"wait_timeout": 5},
        retries=1,
        seconds=40,
        state="failed",
        attempts=2,
        logged="No attempt follows, and run ",
    ),
    Scenario(name="outage-worker", actions=outage),
    Scenario(name="outage-deferred", actions=outage, operator=DEFERRED, seconds=12),
]
#: Each with a user and a connection of its own, which have its name.
ROTATIONS = [
    Scenario(
        name="rotated-worker",
        actions=while_running(rotate_password),
        operator={"cdm_conn_id": "rotated-worker"},
        seconds=40,
        logged="has changed; its new content is used",
    ),
    Scenario(
        name="rotated-deferred",
        actions=while_running(rotate_password),
        operator={**DEFERRED, "cdm_conn_id": "rotated-deferred"},
        seconds=40,
    ),
]
_RESTART = Scenario(
    name="", actions=no_action, operator=DEFERRED, seconds=50, restarts_triggerer=True
)
_TRIGGERER = [
    replace(_RESTART, name="triggerer-killed", actions=at_triggerer(kill_triggerer)),
    replace(_RESTART, name="triggerer-terminated", actions=at_triggerer(terminate_triggerer)),
    replace(
        _RESTART,
        name="triggerer-frozen",
        actions=at_triggerer(freeze_triggerer),
        seconds=50,
        logged=HANDED_OVER,
    ),
]

#: In the order in which they start: the slowest ones first.
SCENARIOS = [*_SLOW, *ROTATIONS, *_KILLED, *_MARKED, *_CLEARED, *_WAITING, *_TRIGGERER]
