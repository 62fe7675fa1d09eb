"""Passwords and access keys that are replaced while tasks wait: no wait ends because of that."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_cdm._compat import aget_connection
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.auth import factory
from airflow_provider_cdm.client.jobs.refusals import REFUSED_SECONDS
from airflow_provider_cdm.connection import lookup
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmClusterSensor, CdmSubmissionSensor
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from airflow_provider_cdm.triggers import poller as poller_module
from airflow_provider_cdm.triggers.event import SubmissionEvent
from airflow_provider_cdm.triggers.submission import CdmSubmissionTrigger
from tests.support.credentials import ACCOUNT, CONNECTIONS, KEYS, PASSWORD

JOB = "orders"
NEW_PASSWORD = "n3w/pass+word"
NEW_KEYS = {"access_key": "AKEXAMPLE0000000002", "secret_key": "SKexample/000+0000000002"}
KINDS = ["password", "keys", "agency by password", "agency by keys"]


@pytest.fixture
def config() -> dict[str, Any]:
    """Return an account that accepts passwords, access keys and agencies."""
    return ACCOUNT


class Rotation:
    """Replaces the credentials of an account and of its connection, at given times.

    :param kind: kind of credentials, as in ``CONNECTIONS``.
    """

    def __init__(
        self, kind: str, sim: CdmSimulator, clock: ManualClock, patch: pytest.MonkeyPatch
    ) -> None:
        self.sim, self._clock, self._patch = sim, clock, patch
        self.connection = CONNECTIONS[kind](sim)
        self.cluster_id = self.connection["extra"]["cluster_id"]
        self.by_key = "access_key" in self.connection["extra"]
        self.connection["extra"]["project_id"] = next(
            project.id
            for project in sim.config.projects
            if (project.id == "f" * 32) == ("agency_name" in self.connection["extra"])
        )
        self._due: list[tuple[float, Callable[[], None]]] = []
        clock.subscribe(self._run_due)
        self.publish()

    def publish(self) -> None:
        """Let Airflow find the connection as it is now."""
        self._patch.setenv("AIRFLOW_CONN_CDM_DEFAULT", json.dumps(self.connection))

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something in some seconds."""
        self._due.append((self._clock.now() + seconds, action))

    def change_account(self) -> None:
        """Let the account accept the new credentials only."""
        if self.by_key:
            self.sim.rotate(access_keys=[NEW_KEYS])
        else:
            self.sim.rotate(password=NEW_PASSWORD)

    def change_connection(self) -> None:
        """Let the connection hold the new credentials."""
        if self.by_key:
            self.connection["extra"].update(NEW_KEYS)
        else:
            self.connection["password"] = NEW_PASSWORD
        self.publish()

    def refusals(self) -> list[float]:
        """Return when the server refused the password or access key.

        Calls that were in flight together with a key that has been deleted count as one.
        """
        times = [
            request.at
            for request in self.sim.requests
            if request.status == 401 and (self.by_key or request.route == "token")
        ]
        return sorted(set(times)) if self.by_key else times

    def _run_due(self) -> None:
        now = self._clock.now()
        due = [action for at, action in self._due if at <= now]
        self._due = [(at, action) for at, action in self._due if at > now]
        for action in due:
            action()


@pytest.fixture
def make_rotation(
    sim: CdmSimulator,
    clock: ManualClock,
    cdm_default: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str], Rotation]:
    """Return a function that prepares a rotation of one kind of credentials."""
    return lambda kind: Rotation(kind, sim, clock, monkeypatch)


MakeRotation = Callable[[str], Rotation]


@pytest.fixture
def look_ups(monkeypatch: pytest.MonkeyPatch, clock: ManualClock) -> list[float]:
    """Return when the connection was looked up on an event loop."""
    times: list[float] = []

    async def counting(conn_id: str) -> Any:
        times.append(clock.now())
        return await aget_connection(conn_id)

    monkeypatch.setattr(lookup, "aget_connection", counting)
    return times


def start_jobs(rotation: Rotation, count: int, seconds: float) -> list[CdmSubmissionTrigger]:
    """Start some jobs, and return a trigger for each."""
    triggers = []
    for number in range(count):
        name = f"{JOB}_{number:03}"
        rotation.sim.add_job(name, rotation.cluster_id, seconds=seconds)
        run = rotation.sim.start(name, rotation.cluster_id)
        triggers.append(
            CdmSubmissionTrigger(
                job_name=name,
                cluster_id=rotation.cluster_id,
                submission_id=run.submission_id,
                creation_date=int(run.created * 1000),
            )
        )
    return triggers


def run_triggers(triggers: list[CdmSubmissionTrigger]) -> list[Any]:
    """Run triggers in one event loop, and return the runs and the errors by which they ended."""

    async def payload(trigger: CdmSubmissionTrigger) -> Any:
        return (await anext(trigger.run())).payload

    async def gather() -> list[Any]:
        return await asyncio.gather(*map(payload, triggers))

    ends: list[Any] = []
    for found in asyncio.run(gather()):
        try:
            ends.append(SubmissionEvent.unwrap(found).status)
        except errors.CdmError as error:
            ends.append(error)
    return ends


@pytest.mark.long
@pytest.mark.parametrize("late", [-5.0, 60.0, 600.0], ids=["before", "soon after", "late"])
@pytest.mark.parametrize("kind", KINDS)
def test_deferred_waits_go_on(
    kind: str, late: float, make_rotation: MakeRotation, look_ups: list[float]
) -> None:
    """Waits in the triggerer go on with new credentials, whether the connection or the account
    changes first.
    """
    rotation = make_rotation(kind)
    triggers = start_jobs(rotation, 6, seconds=1500)
    rotation.at(100, rotation.change_account)
    rotation.at(100 + late, rotation.change_connection)
    assert run_triggers(triggers) == ["SUCCEEDED"] * 6
    assert len(rotation.refusals()) <= 4
    # One at first, then each half minute at most while credentials are refused.
    assert 2 <= len(look_ups) <= 2 + max(late, 0) / 30 + 1


@pytest.mark.long
def test_two_hundred_waits_share_a_look_up(
    make_rotation: MakeRotation, look_ups: list[float]
) -> None:
    """However many waits share a triggerer, the connection is looked up once, and none ends."""
    rotation = make_rotation("password")
    triggers = start_jobs(rotation, 200, seconds=600)
    rotation.at(100, rotation.change_connection)
    rotation.at(100, rotation.change_account)
    assert Counter(run_triggers(triggers)) == {"SUCCEEDED": 200}
    assert len(look_ups) == 2
    assert rotation.refusals() == []


@pytest.mark.parametrize("kind", ["password", "keys"])
def test_waits_fail_when_nothing_changes(
    kind: str, make_rotation: MakeRotation, clock: ManualClock
) -> None:
    """If the connection keeps what is refused, waits fail after a time, and nobody is locked."""
    rotation = make_rotation(kind)
    triggers = start_jobs(rotation, 20, seconds=100_000)
    begin = clock.now()
    rotation.at(100, rotation.change_account)
    ends = run_triggers(triggers)
    assert {type(end) for end in ends} == {errors.CdmAuthError}
    message = str(ends[0])
    for part in (
        "were refused for 12",
        "Connection 'cdm_default' was looked up again and holds the same",
        "The run was not stopped",
        "Correct the connection",
    ):
        assert part in message
    assert REFUSED_SECONDS <= clock.now() - begin - 100 < REFUSED_SECONDS + 120
    # The fifth refusal would lock the account, or the key.
    assert 2 <= len(rotation.refusals()) <= 4
    shown = json.dumps([str(end) for end in ends])
    assert not [secret for secret in (PASSWORD, KEYS["secret_key"]) if secret in shown]


@pytest.mark.long
def test_waits_outlast_a_locked_account(make_rotation: MakeRotation) -> None:
    """Where others have locked the account, the new password is tried again when that is over."""
    rotation = make_rotation("password")
    triggers = start_jobs(rotation, 5, seconds=3000)

    def lock() -> None:
        body = {"error": {"code": "IAM.0061", "message": "The account is locked"}}
        rotation.sim.fail("token", "status", status=401, body=body, times=None)

    rotation.at(100, lock)
    rotation.at(100, rotation.change_connection)
    rotation.at(100, rotation.change_account)
    rotation.at(990, rotation.sim.faults.clear)
    assert run_triggers(triggers) == ["SUCCEEDED"] * 5
    assert len(rotation.refusals()) <= 2


def test_failed_look_ups_end_no_wait(
    make_rotation: MakeRotation, monkeypatch: pytest.MonkeyPatch, clock: ManualClock
) -> None:
    """While a secrets backend is down, for however long, waits do not fail."""
    rotation = make_rotation("password")
    triggers = start_jobs(rotation, 3, seconds=3 * REFUSED_SECONDS)
    began = clock.now()

    async def failing(conn_id: str) -> Any:
        if began + 50 < clock.now() < began + 2 * REFUSED_SECONDS:
            raise RuntimeError("the vault is sealed")
        return await aget_connection(conn_id)

    monkeypatch.setattr(lookup, "aget_connection", failing)
    rotation.at(100, rotation.change_account)
    rotation.at(100, rotation.change_connection)
    assert run_triggers(triggers) == ["SUCCEEDED"] * 3


@pytest.mark.long
@pytest.mark.parametrize("times", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_glitch_of_the_gateway_ends_no_wait(
    kind: str, times: int, make_rotation: MakeRotation
) -> None:
    """However often in a row the gateway refuses good credentials, a wait goes on after that."""
    rotation = make_rotation(kind)
    triggers = start_jobs(rotation, 3, seconds=2000)

    def glitch() -> None:
        rotation.sim.fail("status", "status", status=401, job=f"{JOB}_001", times=times)

    rotation.at(60, glitch)
    assert run_triggers(triggers) == ["SUCCEEDED"] * 3


def test_missing_permission_ends_waits_at_once(
    make_rotation: MakeRotation, clock: ManualClock
) -> None:
    """A permission that is missing is no refusal of credentials."""
    rotation = make_rotation("password")
    triggers = start_jobs(rotation, 3, seconds=2000)
    begin = clock.now()
    rotation.sim.fail("status", "status", status=403, times=None)
    ends = run_triggers(triggers)
    assert [type(end) for end in ends] == [errors.CdmAuthError] * 3
    assert clock.now() - begin < 60


@pytest.mark.parametrize("kind", ["password", "keys"])
def test_later_waits_join_the_poller_with_new_credentials(
    kind: str, make_rotation: MakeRotation
) -> None:
    """A poller goes on with what a new wait finds in the connection, under the same quota."""
    rotation = make_rotation(kind)
    first, second = start_jobs(rotation, 2, seconds=900)
    pollers: list[Any] = []

    async def later() -> Any:
        while not pollers:
            await asyncio.sleep(0.01)
            pollers.extend(p for found in poller_module._pollers.values() for p in found.values())
        rotation.change_connection()
        event = anext(second.run())
        rotation.change_account()
        return (await event).payload

    async def now() -> Any:
        return (await anext(first.run())).payload

    async def both() -> tuple[Any, Any]:
        return await asyncio.gather(later(), now())

    ends = asyncio.run(both())
    assert {SubmissionEvent.unwrap(end).status for end in ends} == {"SUCCEEDED"}
    assert second._poller is first._poller


MODES: dict[str, Callable[..., Any]] = {
    "operator": lambda **options: CdmStartJobOperator(
        task_id="t", job_name=JOB, wait_for_completion=True, deferrable=False, **options
    ),
    "operator deferred": lambda **options: CdmStartJobOperator(
        task_id="t", job_name=JOB, wait_for_completion=True, deferrable=True, **options
    ),
    "sensor": lambda **options: CdmSubmissionSensor(
        task_id="t", job_name=JOB, started_after=0, deferrable=False, poke_interval=30, **options
    ),
    "sensor reschedule": lambda **options: CdmSubmissionSensor(
        task_id="t", job_name=JOB, started_after=0, mode="reschedule", poke_interval=30, **options
    ),
    "sensor deferred": lambda **options: CdmSubmissionSensor(
        task_id="t", job_name=JOB, started_after=0, deferrable=True, poke_interval=30, **options
    ),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["password", "keys"])
def test_tasks_go_on(kind: str, mode: str, make_rotation: MakeRotation, task_runner: Any) -> None:
    """Wherever a task waits, it goes on with new credentials, and few refused ones are sent."""
    rotation = make_rotation(kind)
    rotation.sim.add_job(JOB, seconds=2500)
    if mode.startswith("sensor"):
        rotation.sim.start(JOB)
    rotation.at(100, rotation.change_account)
    rotation.at(300, rotation.change_connection)
    result = task_runner.run(lambda: MODES[mode](cluster_id=rotation.sim.cluster_id))
    assert result["status"] == "SUCCEEDED"
    assert len(rotation.refusals()) <= 4


@pytest.mark.parametrize("mode", ["poke", "reschedule", "deferred"])
@pytest.mark.parametrize("kind", ["password", "keys"])
def test_cluster_sensor_goes_on(
    kind: str, mode: str, make_rotation: MakeRotation, task_runner: Any
) -> None:
    """A sensor for a cluster goes on with new credentials as well."""
    rotation = make_rotation(kind)
    rotation.at(100, rotation.change_account)
    rotation.at(300, rotation.change_connection)

    def stop() -> None:
        rotation.sim._cluster(None).status = "900"

    rotation.at(2000, stop)
    options: dict[str, Any] = (
        {"deferrable": True} if mode == "deferred" else {"deferrable": False, "mode": mode}
    )
    options |= {"cluster_id": rotation.sim.cluster_id, "poke_interval": 30}
    result = task_runner.run(lambda: CdmClusterSensor(task_id="t", state="stopped", **options))
    assert result["state"] == "stopped"
    assert len(rotation.refusals()) <= 4


@pytest.mark.parametrize("what", ["run", "cluster"])
@pytest.mark.parametrize("kind", ["password", "keys"])
def test_pokes_in_processes_of_their_own_lock_nobody(
    kind: str, what: str, make_rotation: MakeRotation, task_runner: Any
) -> None:
    """A rescheduled sensor does not send what was refused at each poke, and fails in the end."""
    rotation = make_rotation(kind)
    rotation.sim.add_job(JOB, seconds=100_000)
    rotation.sim.start(JOB)
    rotation.at(100, rotation.change_account)
    advance = task_runner.advance

    def next_process(seconds: float) -> None:
        factory.forget_everything()
        advance(seconds)

    task_runner.advance = next_process
    options: dict[str, Any] = {"task_id": "t", "mode": "reschedule", "poke_interval": 30}
    options |= {"cluster_id": rotation.sim.cluster_id}

    def make_sensor() -> Any:
        if what == "cluster":
            return CdmClusterSensor(state="stopped", **options)
        return CdmSubmissionSensor(job_name=JOB, started_after=0, **options)

    with pytest.raises(errors.CdmAuthError, match="refused"):
        task_runner.run(make_sensor)
    refusals = rotation.refusals()
    window = 900 if kind == "password" else 60
    assert max(sum(at <= other < at + window for other in refusals) for at in refusals) == 1
    assert 2 <= len(refusals) <= 4
