"""``CdmRunEventTrigger`` as Airflow's triggerer runs it: one event for each run that ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_cdm._compat import HAS_ASSET_WATCHERS
from airflow_provider_cdm.client.api import resources
from airflow_provider_cdm.client.api.definitions import JOB as JOB_KIND
from airflow_provider_cdm.client.submission import Submission
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from airflow_provider_cdm.triggers import CdmRunEventTrigger, CdmSubmissionTrigger
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
        while not watching.payloads[0]:
            await asyncio.sleep(1)
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
        fault = sim.fail("*", "status", times=None, status=503)
        watching.watch(store)
        await asyncio.sleep(60)
        sim.start(JOB)
        await asyncio.sleep(60)
        await watching.kill()
        watching.tasks.clear()
        watching.watch(store)
        await asyncio.sleep(60)
        sim.faults.remove(fault)
        await asyncio.sleep(600)

    watching = play(story)
    assert (watching.numbers(0), watching.numbers(1)) == ([], [2])


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
        away = sim.fail("*", times=None, **fault)
        before = len(sim.requests)
        await asyncio.sleep(3600)
        sim.start(JOB)
        await asyncio.sleep(3600)
        assert len(sim.requests) - before < 2 * 3600 / 10
        lines = len(log.records)
        sim.faults.remove(away)
        await asyncio.sleep(400)

    assert play(story).numbers() == [1]
    assert lines < 120


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
