"""``CdmRunEventTrigger`` as Airflow's triggerer runs it: one event for each run that ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_cdm._compat import HAS_ASSET_WATCHERS, BaseEventTrigger
from airflow_provider_cdm.client.api import resources
from airflow_provider_cdm.client.api.definitions import JOB as JOB_KIND
from airflow_provider_cdm.client.submission import Submission
from airflow_provider_cdm.exceptions import CdmConfigError
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from airflow_provider_cdm.triggers import CdmRunEventTrigger, CdmSubmissionTrigger
from airflow_provider_cdm.triggers import poller as poller_module
from tests.support.virtual_loop import VirtualEventLoop

JOB = "orders"
WATCHER_MODULE = "airflow_provider_cdm.triggers.job_watcher"

needs_watchers = pytest.mark.skipif(not HAS_ASSET_WATCHERS, reason="Airflow 3 has AssetWatcher")


class FakeStore:
    """The state store of one asset, as Airflow gives it to the trigger of a watcher."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.written: list[float] = []
        self.failing = False
        self.now: Callable[[], float] = lambda: 0.0

    async def aget(self, key: str) -> Any:
        if self.failing:
            raise RuntimeError("the API server answers 500")
        return self.values.get(key)

    async def aset(self, key: str, value: Any) -> None:
        if self.failing:
            raise RuntimeError("the API server answers 500")
        self.values[key] = value
        self.written.append(self.now())


class FakeAccessors:
    """The stores of all assets of a watcher."""

    def __init__(self, *stores: FakeStore) -> None:
        self._by_name = {f"asset {number}": store for number, store in enumerate(stores)}
        self._by_uri: dict[str, Any] = {}


class Watching:
    """Watchers in a triggerer, in virtual time.

    :param payloads: payloads of the events so far, by the number of the watcher.
    :param fired_at: when they were fired, epoch seconds.
    """

    def __init__(self, sim: CdmSimulator, clock: ManualClock) -> None:
        self.sim, self.clock = sim, clock
        self.payloads: list[list[dict[str, Any]]] = []
        self.fired_at: list[float] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.first_event = asyncio.Event()

    def watch(self, *stores: FakeStore, **arguments: Any) -> int:
        """Start a watcher; return its number."""
        trigger = CdmRunEventTrigger(**{"job_name": JOB, **arguments})
        if stores:
            trigger.asset_state_store = FakeAccessors(*stores)  # type: ignore[assignment]
        self.payloads.append([])
        self.tasks.append(asyncio.ensure_future(self._run(trigger, self.payloads[-1])))
        return len(self.tasks) - 1

    async def kill(self, number: int = -1) -> None:
        """End a watcher as a killed triggerer does: nothing is written any more."""
        self.tasks[number].cancel()
        await asyncio.wait({self.tasks[number]})

    async def _run(self, trigger: Any, payloads: list[dict[str, Any]]) -> None:
        async for event in trigger.run():
            payloads.append(event.payload)
            self.first_event.set()
            self.fired_at.append(self.clock.now())

    def numbers(self, watcher: int = 0) -> list[int]:
        """Return the numbers of the runs that a watcher has fired for."""
        return [payload["submission_id"] for payload in self.payloads[watcher]]


Play = Callable[[Callable[[Watching], Coroutine[Any, Any, None]]], Watching]


@pytest.fixture
def play(
    sim: CdmSimulator,
    clock: ManualClock,
    cdm_default: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Play:
    """Play a story of watchers in virtual time; at its end they are canceled."""
    options = {"clock": clock.now, "monotonic": clock.now, "rng": lambda: 0.5}
    monkeypatch.setattr(CdmHook, "session_options", {**options, "sleep": clock.advance})
    # As in Airflow 3.3; a test of what older versions do says so itself.
    monkeypatch.setattr(f"{WATCHER_MODULE}.HAS_ASSET_STATE_STORE", True)

    def play(story: Callable[[Watching], Coroutine[Any, Any, None]]) -> Watching:
        watching = Watching(sim, clock)

        async def tell() -> None:
            await story(watching)
            for task in watching.tasks:
                assert not task.done(), task
                task.cancel()
            await asyncio.wait(watching.tasks)

        with asyncio.Runner(loop_factory=lambda: VirtualEventLoop(clock)) as runner:
            runner.run(tell())
        return watching

    return play


def deferred_wait(watching: Watching, number: int) -> asyncio.Task[Any]:
    """Let a deferred task wait for a run."""
    trigger = CdmSubmissionTrigger(
        job_name=JOB, cluster_id=watching.sim.cluster_id, submission_id=number
    )

    async def wait() -> Any:
        return await anext(trigger.run())

    return asyncio.ensure_future(wait())


def calls(sim: CdmSimulator, *routes: str) -> int:
    """Count the calls of some routes."""
    return sum(request.route in routes for request in sim.requests)


@needs_watchers
def test_each_run_fires_once_with_its_result(sim: CdmSimulator, play: Play) -> None:
    """A run fires one event when it has ended, whoever started it, and old runs fire none."""
    sim.add_job(JOB, seconds=100)

    async def story(watching: Watching) -> None:
        sim.start(JOB)
        await asyncio.sleep(200)
        watching.watch()
        await asyncio.sleep(100)
        sim.start(JOB, auto=True)
        await asyncio.sleep(1000)
        sim.start(JOB)
        await asyncio.sleep(1000)

    watching = play(story)
    assert watching.numbers() == [2, 3]
    payload = watching.payloads[0][0]
    assert (payload["job_name"], payload["status"]) == (JOB, "SUCCEEDED")
    ended = sim.runs(JOB)[1]
    as_operators = Submission(sim.cluster_id, JOB, "SUCCEEDED", ended.submission_id).to_dict()
    assert set(payload) == set(as_operators)


@needs_watchers
def test_end_is_noticed_within_the_poll_interval(sim: CdmSimulator, play: Play) -> None:
    """An end is noticed within ``poll_interval``, with a call or two for each of them."""
    sim.add_job(JOB, seconds=400)

    async def story(watching: Watching) -> None:
        watching.watch(poll_interval=60)
        await asyncio.sleep(100)
        sim.start(JOB)
        await asyncio.sleep(3600)

    watching = play(story)
    (fired_at,) = watching.fired_at
    assert fired_at - (sim.runs(JOB)[0].created + 400) < 70
    assert calls(sim, "submissions") < 90


@needs_watchers
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, [1, 2, 3, 4]),
        ({"statuses": "SUCCEEDED"}, [1, 4]),
        ({"statuses": ["failed", "STOPPED"]}, [2, 3]),
        ({"by_scheduler": True}, [3]),
        ({"by_scheduler": False}, [1, 2, 4]),
        ({"started_by": "console"}, [2]),
        ({"not_started_by": ["console", "airflow"]}, [3, 4]),
        ({"statuses": "SUCCEEDED", "not_started_by": "airflow"}, [4]),
    ],
)
@pytest.mark.parametrize(
    "config",
    [{"behaviour": {"status_letters": letters}} for letters in ("capital", "small")],
    ids=["capital", "small"],
)
def test_filters(
    arguments: dict[str, Any], expected: list[int], sim: CdmSimulator, play: Play
) -> None:
    """Only runs that ended as asked for, and were started by whom is asked for, fire events."""
    sim.add_job(JOB, seconds=10, outcomes=["SUCCEEDED", "FAILED", "SUCCEEDED", "SUCCEEDED"])

    async def story(watching: Watching) -> None:
        watching.watch(**arguments)
        for starter in ({"user": "airflow"}, {"user": "console"}, {"auto": True}, {}):
            await asyncio.sleep(50)
            sim.start(JOB, **starter)
            await asyncio.sleep(5)
            if starter.get("auto"):
                sim.stop(JOB)
        await asyncio.sleep(100)

    assert play(story).numbers() == expected


@needs_watchers
def test_run_without_a_starter(
    sim: CdmSimulator, play: Play, log: pytest.LogCaptureFixture
) -> None:
    """Where CDM does not show who started a run, a filter by user fires nothing, and says so."""
    shown = {"submission-id": 5, "creation-date": 1, "status": "SUCCEEDED"}
    sim.add_job(JOB)

    async def story(watching: Watching) -> None:
        watching.watch(not_started_by="airflow")
        watching.watch()
        await asyncio.sleep(60)
        shown["creation-date"] = shown["last-update-date"] = int(watching.clock.now() * 1000)
        sim.fail("submissions", "body", times=None, body={"submissions": [shown]})
        await asyncio.sleep(60)

    watching = play(story)
    assert (watching.numbers(0), watching.numbers(1)) == ([], [5])
    assert "No event is fired for the end of run 5" in log.text


@needs_watchers
def test_killed_triggerer_misses_and_repeats_nothing(sim: CdmSimulator, play: Play) -> None:
    """A run that ends while no triggerer is alive fires once, afterwards; earlier ones do not."""
    sim.add_job(JOB, seconds=10)
    store = FakeStore()

    async def story(watching: Watching) -> None:
        watching.watch(store)
        await asyncio.sleep(60)
        sim.start(JOB)
        await asyncio.sleep(120)
        sim.start(JOB)
        await watching.kill()
        await asyncio.sleep(3600)
        watching.tasks.clear()
        watching.watch(store)
        await asyncio.sleep(600)

    watching = play(story)
    assert (watching.numbers(0), watching.numbers(1)) == ([1], [2])


@needs_watchers
def test_event_of_a_killed_triggerer_is_repeated(sim: CdmSimulator, play: Play) -> None:
    """An event that a killed triggerer may not have stored comes once more, with its number."""
    sim.add_job(JOB, seconds=10)
    store = FakeStore()

    async def story(watching: Watching) -> None:
        watching.watch(store)
        await asyncio.sleep(60)
        sim.start(JOB)
        await watching.first_event.wait()
        await asyncio.sleep(5)
        await watching.kill()
        watching.tasks.clear()
        watching.watch(store)
        await asyncio.sleep(600)

    watching = play(story)
    assert watching.payloads[0] == watching.payloads[1]
    assert watching.numbers(1) == [1]


@needs_watchers
def test_watcher_that_never_saw_cdm_goes_on(sim: CdmSimulator, play: Play) -> None:
    """Runs that end before the first look fire, also if a watcher dies before it; older do not."""
    sim.add_job(JOB, seconds=10)
    store = FakeStore()

    async def story(watching: Watching) -> None:
        sim.start(JOB)
        await asyncio.sleep(60)
        sim.fail("*", "status", times=None, status=503)
        watching.watch(store)
        await asyncio.sleep(60)
        sim.start(JOB)
        await asyncio.sleep(60)
        await watching.kill()
        watching.tasks.clear()
        watching.watch(store)
        await asyncio.sleep(60)
        sim.faults.clear()
        await asyncio.sleep(600)

    watching = play(story)
    assert (watching.numbers(0), watching.numbers(1)) == ([], [2])


@needs_watchers
@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
def test_wrong_clock(
    ahead: float, sim: CdmSimulator, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is old is judged by the server's clock, whatever that of the triggerer shows."""
    sim.add_job(JOB, seconds=10)

    async def story(watching: Watching) -> None:
        options = {**CdmHook.session_options, "clock": lambda: watching.clock.now() + ahead}
        monkeypatch.setattr(CdmHook, "session_options", options)
        sim.start(JOB)
        await asyncio.sleep(60)
        sim.fail("submissions", "status", times=3, status=503)
        watching.watch()
        await asyncio.sleep(3)
        sim.start(JOB)
        await asyncio.sleep(300)

    assert play(story).numbers() == [2]


@needs_watchers
def test_without_a_store_the_last_ends_are_repeated(sim: CdmSimulator, play: Play) -> None:
    """With ``look_back``, ends of that time before the beginning fire, and no earlier ones."""
    sim.add_job(JOB, seconds=10)

    async def story(watching: Watching) -> None:
        for _ in range(3):
            sim.start(JOB)
            await asyncio.sleep(400)
        watching.watch(look_back=600)
        watching.watch(look_back=timedelta(minutes=15))
        watching.watch(look_back=0)
        await asyncio.sleep(60)

    watching = play(story)
    assert [watching.numbers(number) for number in range(3)] == [[3], [2, 3], []]


def test_default_of_look_back_prefers_repeats(
    sim: CdmSimulator, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below Airflow 3.3, where no position is stored, ends of the last ten minutes are repeated."""
    if not HAS_ASSET_WATCHERS:
        pytest.skip("Airflow 3 has AssetWatcher")
    sim.add_job(JOB, seconds=10)
    monkeypatch.setattr(f"{WATCHER_MODULE}.HAS_ASSET_STATE_STORE", False)

    async def story(watching: Watching) -> None:
        for _ in range(3):
            sim.start(JOB)
            await asyncio.sleep(400)
        watching.watch()
        await asyncio.sleep(60)

    assert play(story).numbers() == [3]


@needs_watchers
def test_rebuilt_cluster(sim: CdmSimulator, play: Play, log: pytest.LogCaptureFixture) -> None:
    """Runs of a rebuilt cluster fire although their numbers begin again, and it is reported."""
    sim.add_job(JOB, seconds=10)
    store = FakeStore()

    async def story(watching: Watching) -> None:
        watching.watch(store)
        for _ in range(4):
            await asyncio.sleep(60)
            sim.start(JOB)
        await asyncio.sleep(300)
        sim.reset()
        sim.add_job(JOB, seconds=10)
        await asyncio.sleep(60)
        sim.start(JOB)
        await asyncio.sleep(120)
        sim.start(JOB)
        await asyncio.sleep(120)

    watching = play(story)
    assert watching.numbers() == [1, 2, 3, 4, 1, 2]
    dates = [payload["creation_date"] for payload in watching.payloads[0]]
    assert sorted(set(dates)) == dates
    assert "may have ended without an event" in log.text


@needs_watchers
def test_more_ends_than_the_history_shows(
    sim: CdmSimulator, play: Play, log: pytest.LogCaptureFixture
) -> None:
    """Ends that the history no longer shows are counted, in the log and in the next event."""
    sim.add_job(JOB, seconds=1)

    async def story(watching: Watching) -> None:
        watching.watch(poll_interval=600)
        watching.watch(poll_interval=600, started_by="somebody-else")
        await asyncio.sleep(100)
        for number in range(17):
            sim.start(JOB, user="nightly" if number < 16 else "somebody-else")
            await asyncio.sleep(2)
        await asyncio.sleep(1000)
        sim.start(JOB)
        await asyncio.sleep(1000)

    watching = play(story)
    assert watching.numbers(0) == [*range(8, 18), 18]
    assert [each.get("missed_runs") for each in watching.payloads[0]] == [7, *[None] * 10]
    assert [each.get("missed_runs") for each in watching.payloads[1]] == [7, None]
    assert "At least 7 run(s) of job 'orders' may have ended without an event" in log.text


@pytest.mark.long
@needs_watchers
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 503},
        {"kind": "status", "status": 429},
        {"kind": "body", "body": "<html>"},
        {"kind": "drop"},
        {"kind": "status", "status": 403},
    ],
    ids=["503", "429", "no JSON", "no answer", "forbidden"],
)
def test_outage(
    fault: dict[str, Any], sim: CdmSimulator, play: Play, log: pytest.LogCaptureFixture
) -> None:
    """However long CDM does not answer, the watcher goes on, with few calls and log lines."""
    sim.add_job(JOB, seconds=10)
    lines = 0

    async def story(watching: Watching) -> None:
        nonlocal lines
        watching.watch(FakeStore())
        await asyncio.sleep(60)
        sim.fail("*", times=None, **fault)
        before = len(sim.requests)
        await asyncio.sleep(3600)
        sim.start(JOB)
        await asyncio.sleep(3600)
        assert len(sim.requests) - before < 2 * 3600 / 10
        lines = sum(each.name.startswith("airflow_provider_cdm") for each in log.records)
        sim.faults.clear()
        await asyncio.sleep(400)

    assert play(story).numbers() == [1]
    assert lines < 40


@needs_watchers
def test_last_of_several_events_comes_later(sim: CdmSimulator, play: Play) -> None:
    """The last event of several comes ten seconds after them: Airflow gives a DAG run only what
    came before the scheduler had to do with the first, and leaves the rest for the next event.
    """
    sim.add_job(JOB, seconds=1)
    store = FakeStore()
    store.now = sim._backend.event_queue.now

    async def story(watching: Watching) -> None:
        watching.watch(store, poll_interval=120)
        await asyncio.sleep(60)
        for _ in range(4):
            sim.start(JOB)
            await asyncio.sleep(5)
        await asyncio.sleep(100)
        sim.start(JOB)
        await asyncio.sleep(1)
        await asyncio.sleep(300)

    watching = play(story)
    assert watching.numbers() == [1, 2, 3, 4, 5]
    first, *_, third, fourth, _ = watching.fired_at
    assert third - first < 1
    assert 10 <= fourth - third < 11
    # Each position is written ten seconds after its event.
    assert all(
        any(at + 9.9 <= written for at in watching.fired_at) or written < first
        for written in store.written
    )


@needs_watchers
def test_death_between_two_events(sim: CdmSimulator, play: Play) -> None:
    """A triggerer that dies before the last of several events repeats them, and loses none."""
    sim.add_job(JOB, seconds=1)
    store = FakeStore()

    async def story(watching: Watching) -> None:
        watching.watch(store, poll_interval=600)
        await asyncio.sleep(60)
        for _ in range(3):
            sim.start(JOB)
            await asyncio.sleep(5)
        await watching.first_event.wait()
        await asyncio.sleep(9)
        await watching.kill()
        watching.tasks.clear()
        watching.watch(store)
        await asyncio.sleep(100)

    watching = play(story)
    assert watching.numbers(0) == [1, 2]
    assert watching.numbers(1) == [1, 2, 3]


@pytest.mark.long
@needs_watchers
def test_job_that_comes_and_goes(sim: CdmSimulator, play: Play) -> None:
    """A job that does not exist is looked for at most every five minutes, and found again."""
    sim.add_job("other")

    async def story(watching: Watching) -> None:
        watching.watch()
        await asyncio.sleep(6 * 3600)
        assert len(sim.requests) < 100
        sim.add_job(JOB, seconds=10)
        sim.start(JOB)
        await asyncio.sleep(400)
        assert watching.numbers() == [1]
        hook = CdmHook()
        hook.get_conn().run(
            hook.get_conn().api.call(resources.delete(JOB_KIND, sim.cluster_id, JOB))
        )
        await asyncio.sleep(3600)
        sim.add_job(JOB, seconds=10)
        sim.start(JOB)
        await asyncio.sleep(400)

    assert play(story).numbers() == [1, 2]


@pytest.mark.long
@needs_watchers
def test_password_is_replaced(
    sim: CdmSimulator, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After hours of refused credentials, a new password in the connection is enough."""
    sim.add_job(JOB, seconds=10)

    async def story(watching: Watching) -> None:
        watching.watch()
        await asyncio.sleep(60)
        sim.rotate(password="new")
        await asyncio.sleep(4 * 3600)
        assert calls(sim, "token") < 60
        new = {**sim.connection, "password": "new"}
        monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", json.dumps(new))
        sim.start(JOB)
        await asyncio.sleep(1200)

    assert play(story).numbers() == [1]


@needs_watchers
@pytest.mark.filterwarnings("ignore:The executor did not finish")  # its limit is virtual time, too
def test_connection_is_made_later(
    sim: CdmSimulator, play: Play, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    """A watcher without its connection says so, and begins as soon as there is one."""
    sim.add_job(JOB, seconds=10)

    async def story(watching: Watching) -> None:
        watching.watch(cdm_conn_id="later")
        await asyncio.sleep(3600)
        assert log.text.count("There is no connection 'later'") == 1
        monkeypatch.setenv("AIRFLOW_CONN_LATER", sim.connection_json)
        await asyncio.sleep(400)
        sim.start(JOB)
        await asyncio.sleep(100)

    assert play(story).numbers() == [1]


@needs_watchers
def test_store_that_cannot_be_used(
    sim: CdmSimulator, play: Play, log: pytest.LogCaptureFixture
) -> None:
    """A position that cannot be read is no new beginning, and one that cannot be written no end."""
    sim.add_job(JOB, seconds=10)
    store = FakeStore()

    async def story(watching: Watching) -> None:
        watching.watch(store)
        await asyncio.sleep(60)
        await watching.kill()
        sim.start(JOB)
        await asyncio.sleep(60)
        store.failing = True
        watching.tasks.clear()
        watching.watch(store)
        await asyncio.sleep(1000)
        store.failing = False
        await asyncio.sleep(400)
        store.failing = True
        sim.start(JOB)
        await asyncio.sleep(60)
        store.failing = False
        await asyncio.sleep(60)
        await watching.kill()
        watching.tasks.clear()
        watching.watch(store)
        await asyncio.sleep(60)

    watching = play(story)
    assert [watching.numbers(number) for number in range(3)] == [[], [1, 2], [2]]
    assert "cannot be stored" in log.text


@needs_watchers
def test_stored_value_that_is_no_position(
    sim: CdmSimulator, play: Play, log: pytest.LogCaptureFixture
) -> None:
    """What somebody else wrote in place of a position is reported, and the watcher begins anew."""
    sim.add_job(JOB, seconds=10)
    store = FakeStore()

    async def story(watching: Watching) -> None:
        for value in ("text", {"version": 9}, {"version": 1}, {"version": 1, "known": [[1]]}, None):
            for key in store.values:
                store.values[key] = value
            watching.watch(store)
            await asyncio.sleep(60)
            await watching.kill()
            watching.tasks.pop()
        watching.watch(store)
        await asyncio.sleep(60)
        sim.start(JOB)
        await asyncio.sleep(60)

    assert play(story).numbers(-1) == [1]
    assert log.text.count("cannot be used, so the watcher begins anew") == 3


@needs_watchers
def test_several_assets(sim: CdmSimulator, play: Play) -> None:
    """A trigger of several assets keeps its position with each, and goes on from the last one."""
    sim.add_job(JOB, seconds=10)
    first, second, new = FakeStore(), FakeStore(), FakeStore()

    async def story(watching: Watching) -> None:
        for stores in ((first, second), (first,), (new, second, first)):
            watching.watch(*stores)
            await asyncio.sleep(60)
            sim.start(JOB)
            await asyncio.sleep(60)
            await watching.kill()
            watching.tasks.pop()
        watching.watch(new)
        await asyncio.sleep(60)

    watching = play(story)
    assert [watching.numbers(number) for number in range(4)] == [[1], [2], [3], []]


@needs_watchers
def test_watchers_of_one_asset_have_positions_of_their_own(sim: CdmSimulator, play: Play) -> None:
    """Two watchers of one asset, for the same job, do not move each other's position."""
    sim.add_job(JOB, seconds=10, outcomes=["FAILED", "SUCCEEDED"])
    store = FakeStore()

    async def story(watching: Watching) -> None:
        watching.watch(store, statuses="FAILED")
        watching.watch(store, statuses="SUCCEEDED")
        await asyncio.sleep(60)
        await watching.kill(0)
        del watching.tasks[0]
        sim.start(JOB)
        await asyncio.sleep(60)
        sim.start(JOB)
        await asyncio.sleep(60)
        watching.watch(store, statuses="FAILED")
        await asyncio.sleep(60)

    watching = play(story)
    assert [watching.numbers(number) for number in range(3)] == [[], [2], [1]]
    assert len(store.values) == 2


@needs_watchers
def test_watchers_of_one_job_share_calls(sim: CdmSimulator, play: Play) -> None:
    """Ten watchers of a job make hardly more calls than one."""
    sim.add_job(JOB, seconds=10)

    async def story(watching: Watching) -> None:
        for _ in range(10):
            watching.watch()
        await asyncio.sleep(1800)
        sim.start(JOB)
        await asyncio.sleep(1800)

    watching = play(story)
    assert [watching.numbers(number) for number in range(10)] == [[1]] * 10
    assert calls(sim, "submissions") < 150
    # The definition, as the job may move a whole database.
    assert calls(sim, "show_job") == 10


@needs_watchers
def test_watcher_uses_the_calls_of_a_wait(sim: CdmSimulator, play: Play) -> None:
    """While a deferred task waits for a run of the same job, the watcher makes no calls."""
    sim.add_job(JOB, seconds=3600)

    async def story(watching: Watching) -> None:
        watching.watch()
        await asyncio.sleep(60)
        wait = deferred_wait(watching, sim.start(JOB).submission_id)
        await asyncio.sleep(60)
        before = calls(sim, "submissions")
        await asyncio.sleep(3000)
        assert calls(sim, "submissions") == before
        await wait
        await asyncio.sleep(60)

    assert play(story).numbers() == [1]


@pytest.mark.long
@needs_watchers
@pytest.mark.parametrize("config", [{"quotas": "documented"}])
def test_watchers_keep_the_rate_limits_and_starve_no_wait(sim: CdmSimulator, play: Play) -> None:
    """Beside 150 watchers, the ends of 30 waits are noticed as without them, and no call fails."""
    late: dict[bool, float] = {}
    for watched in (False, True):
        sim.reset()
        names = [f"job_{number:03}" for number in range(180)]

        async def story(watching: Watching, names: list[str] = names, on: bool = watched) -> None:
            for name in names:
                sim.add_job(name, seconds=1000 + 10 * (int(name[-3:]) % 60))
            if on:
                for name in names[30:]:
                    watching.watch(job_name=name)
            ends: list[float] = []

            async def wait(name: str) -> None:
                run = sim.start(name)
                trigger = CdmSubmissionTrigger(
                    job_name=name, cluster_id=sim.cluster_id, submission_id=run.submission_id
                )
                await anext(trigger.run())
                ended = next(each for each in sim.runs(name))
                ends.append(watching.clock.now() - (ended.updated or 0))

            for name in names[30:]:
                sim.start(name)
            await asyncio.gather(*map(wait, names[:30]))
            late[on] = max(ends)
            await asyncio.sleep(600)
            if on:
                assert [watching.numbers(number)[0] for number in range(150)]
            else:
                watching.watch()

        play(story)
        assert not any(request.status == 429 for request in sim.requests)
    assert late[True] < max(60.0, 1.5 * late[False])


@needs_watchers
@pytest.mark.parametrize(
    ("statuses", "expected"), [(None, [1, 4]), ("SUCCEEDED", [1]), ("FAILED", [4])]
)
def test_whole_database(
    statuses: str | None, expected: list[int], sim: CdmSimulator, play: Play
) -> None:
    """A run with a failed table is no success for a watcher; the payload has the tables."""
    sim.add_job(JOB, seconds=10, type="BATCH_JOB", tables=[{"name": "a"}, {"name": "b"}])

    async def story(watching: Watching) -> None:
        watching.watch(statuses=statuses)
        await asyncio.sleep(60)
        sim.start(JOB)
        await asyncio.sleep(300)
        sim.add_job(JOB, tables=[{"name": "a"}, {"name": "b", "outcome": "FAILED"}])
        sim.start(JOB)
        await asyncio.sleep(300)

    watching = play(story)
    assert watching.numbers() == expected
    assert {payload["tables"]["total"] for payload in watching.payloads[0]} == {2}


@needs_watchers
def test_definition_that_cannot_be_read_for_a_while(sim: CdmSimulator, play: Play) -> None:
    """An end waits for the definition of the job; without any, the run's own status counts."""
    sim.add_job(JOB, seconds=10)

    async def story(watching: Watching) -> None:
        watching.watch(statuses="SUCCEEDED")
        await asyncio.sleep(60)
        sim.fail("show_job", "status", times=None, status=503)
        sim.start(JOB)
        await asyncio.sleep(1200)

    assert play(story).numbers() == [1]


@needs_watchers
def test_nothing_is_left_of_a_canceled_watcher(sim: CdmSimulator, play: Play) -> None:
    """A canceled watcher makes no calls any more, and its poller is closed."""
    sim.add_job(JOB)

    async def story(watching: Watching) -> None:
        watching.watch()
        await asyncio.sleep(60)
        await watching.kill()
        watching.tasks.clear()
        assert not poller_module._pollers[asyncio.get_running_loop()]
        before = len(sim.requests)
        await asyncio.sleep(600)
        assert len(sim.requests) == before
        watching.watch()

    play(story)


@needs_watchers
def test_arguments() -> None:
    """Equal watchers are one for Airflow, in whatever form their arguments are given."""
    first = CdmRunEventTrigger(
        job_name=JOB, statuses=["failed", "SUCCEEDED"], poll_interval=timedelta(minutes=1)
    )
    second = CdmRunEventTrigger(job_name=JOB, statuses={"SUCCEEDED", "FAILED"}, poll_interval="60")
    path, arguments = first.serialize()
    assert path == "airflow_provider_cdm.triggers.CdmRunEventTrigger"
    assert second.serialize() == (path, arguments)
    assert CdmRunEventTrigger(**arguments).serialize() == (path, arguments)
    assert json.loads(json.dumps(arguments)) == arguments
    assert BaseEventTrigger.hash(path, arguments) == BaseEventTrigger.hash(*second.serialize())


@needs_watchers
def test_interval_of_the_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``poll_interval``, the option of the deployment counts, and else 30 seconds."""
    assert CdmRunEventTrigger(job_name=JOB).poll_interval == 30.0
    monkeypatch.setenv("AIRFLOW__CDM__POLL_INTERVAL", "90")
    assert CdmRunEventTrigger(job_name=JOB).poll_interval == 90.0
    assert CdmRunEventTrigger(job_name=JOB, poll_interval=5).poll_interval == 5.0
    monkeypatch.setenv("AIRFLOW__CDM__POLL_INTERVAL", "often")
    with pytest.raises(CdmConfigError, match=r"\[cdm\] poll_interval"):
        CdmRunEventTrigger(job_name=JOB)


@needs_watchers
@pytest.mark.parametrize(
    "arguments",
    [
        {"job_name": ""},
        {"job_name": None},
        {"job_name": "{{ ds }}"},
        {"job_name": "x" * 241},
        {"cluster_id": ""},
        {"cluster_id": 5},
        {"cluster_id": "{{ var.value.cluster }}"},
        {"project_id": ""},
        {"cdm_conn_id": ""},
        {"cdm_conn_id": None},
        {"statuses": []},
        {"statuses": "RUNNING"},
        {"statuses": ["SUCCEEDED", "UNKNOWN"]},
        {"statuses": ["SUCCEEDED", 5]},
        {"statuses": {"SUCCEEDED": True}},
        {"started_by": []},
        {"started_by": ""},
        {"started_by": 5},
        {"not_started_by": [None]},
        {"by_scheduler": "yes"},
        {"by_scheduler": 1},
        {"look_back": -1},
        {"look_back": "{{ ds }}"},
        {"look_back": "soon"},
        {"poll_interval": 0},
        {"poll_interval": float("inf")},
        {"poll_interval": "{{ ds }}"},
        {"started_by": "airflow", "not_started_by": ["airflow"]},
    ],
)
def test_wrong_argument(arguments: dict[str, Any]) -> None:
    """What cannot be used is refused when the watcher is made, with the name of the argument."""
    with pytest.raises(CdmConfigError, match=next(iter(arguments))) as raised:
        CdmRunEventTrigger(**{"job_name": JOB, **arguments})
    # If one is stored, Airflow's triggerer skips it after this error only; any other would end it.
    assert isinstance(raised.value, TypeError)


def test_airflow_2_has_no_watchers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below Airflow 3 the trigger can be imported, and says why it cannot be used."""
    monkeypatch.setattr("airflow_provider_cdm.triggers.run_event.HAS_ASSET_WATCHERS", False)
    with pytest.raises(CdmConfigError, match="needs Airflow 3"):
        CdmRunEventTrigger(job_name=JOB)


@needs_watchers
def test_trigger_without_a_triggerer(sim: CdmSimulator, cdm_default: dict[str, Any]) -> None:
    """A trigger fires, too, where nothing but its generator is used."""
    sim.add_job(JOB, seconds=300)

    async def first() -> Any:
        events: Any = CdmRunEventTrigger(job_name=JOB).run()
        sim.start(JOB)
        event = await anext(events)
        await events.aclose()
        return event.payload

    assert asyncio.run(first())["submission_id"] == 1
