"""The watch in virtual time: whatever happens, every wait ends once, rightly, within the budget."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.polling.model import PolledJob
from airflow_provider_cdm.client.polling.queue import PollQueue, Priority
from airflow_provider_cdm.client.polling.rate_limit import RateLimits
from airflow_provider_cdm.client.sansio import Response, TransportError
from airflow_provider_cdm.client.submission import Submission
from tests.support.virtual_cluster import (
    Play,
    PlayedCluster,
    PlayedJob,
    PlayedRun,
    Waiter,
    most_in_a_minute,
)

HOUR = 3600.0
DOWN, PAGE, FULL = Response(503), Response(200, {}, b"<html>Sign in</html>"), Response(429)
LATER = Response(429, {"retry-after": "7"})
TROUBLES: dict[str, Response | TransportError] = {
    "503": DOWN,
    "reset": TransportError("reset", sent=True),
    "nonsense": PAGE,
    "429": FULL,
    "429 with Retry-After": LATER,
}
LISTED = ["well", "well", "without dates", "late", "wrong", "never"]


@dataclass
class Trouble:
    """Something goes wrong for a while."""

    what: str
    begin: float
    lasts: float
    kinds: frozenset[str]

    def __call__(self, kind: str, now: float) -> Response | TransportError | None:
        hit = self.begin <= now < self.begin + self.lasts and kind in self.kinds
        return TROUBLES[self.what] if hit else None


@dataclass
class Story:
    """One play, drawn at random."""

    limit: int
    quota: float
    others: float
    seed: int
    jobs: list[dict[str, Any]]
    crowd: int
    problems_since: list[Trouble] = field(default_factory=list)


seconds = st.floats(0, 3000, allow_nan=False).map(lambda s: round(s, 1))
problems_since = st.builds(
    Trouble,
    what=st.sampled_from(sorted(TROUBLES)),
    begin=seconds,
    lasts=st.sampled_from([5.0, 60.0, 400.0, 1500.0]),
    kinds=st.sampled_from(
        [frozenset({"status", "history", "list"}), frozenset({"status"}), frozenset({"list"})]
    ),
)
waits = st.fixed_dictionaries(
    {
        "at": seconds,
        "poll_interval": st.sampled_from([5.0, 30.0, 300.0]),
        "deadline": st.none() | seconds,
        "leaves": st.none() | seconds,
        "by": st.sampled_from(["number", "number and date", "since"]),
    }
)
jobs = st.fixed_dictionaries(
    {
        "lasts": st.floats(0, 3000, allow_nan=False),
        "status": st.sampled_from(["SUCCEEDED", "FAILED", "STOPPED"]),
        "earlier": st.integers(0, 2),
        "later": st.lists(st.tuples(seconds, seconds), max_size=12),
        "listed": st.sampled_from(LISTED),
        "type": st.sampled_from(["NORMAL_JOB", "NORMAL_JOB", "BATCH_JOB"]),
        "deleted": st.none() | seconds,
        "broken": st.none() | st.tuples(seconds, st.sampled_from([30.0, 500.0, 1e9])),
        "waits": st.lists(waits, min_size=1, max_size=3),
    }
)
stories = st.builds(
    Story,
    limit=st.sampled_from([6, 30, 100]),
    quota=st.sampled_from([40, 120, float("inf")]),
    others=st.sampled_from([0.0, 20.0, 70.0]),
    seed=st.integers(0, 1000),
    jobs=st.lists(jobs, min_size=1, max_size=8),
    crowd=st.sampled_from([0, 0, 15, 60]),
    problems_since=st.lists(problems_since, max_size=3),
)


def play(story: Story) -> tuple[Play, PlayedCluster]:
    """Let a story happen."""
    dice = random.Random(story.seed)

    def trouble(kind: str, now: float) -> Response | TransportError | None:
        found = (one(kind, now) for one in story.problems_since)
        return next((answer for answer in found if answer is not None), None)

    cluster = PlayedCluster(quota=story.quota, trouble=trouble)
    cluster.latency = lambda kind, now: 60.0 if trouble(kind, now) == TROUBLES["reset"] else 0.1
    stage = Play(cluster, RateLimits(story.limit, dice.random), random=dice.random)
    for number, drawn in enumerate(story.jobs):
        _add_job(stage, f"job_{number}", drawn)
    for number in range(story.crowd):
        run = PlayedRun(1, -100.0, 3000.0 * dice.random())
        cluster.add(PlayedJob(f"crowd_{number}", [run], listed=dice.choice(LISTED)))
        stage.wait_for(f"crowd_{number}", run, at=600 * dice.random())
    _others(stage, story.others)
    stage.run(until=6 * HOUR)
    return stage, cluster


def _add_job(stage: Play, name: str, drawn: dict[str, Any]) -> None:
    runs = [PlayedRun(n + 1, -900.0 + 100 * n, -890.0 + 100 * n) for n in range(drawn["earlier"])]
    ours = PlayedRun(len(runs) + 1, -30.0, drawn["lasts"], drawn["status"])
    runs.append(ours)
    free = ours.ended
    for pause, lasts in drawn["later"]:
        runs.append(PlayedRun(len(runs) + 1, free + pause, free + pause + lasts, "FAILED"))
        free += pause + lasts
    deleted = float("inf") if drawn["deleted"] is None else drawn["deleted"]
    job = PlayedJob(name, runs, drawn["type"], deleted, drawn["listed"])
    if drawn["broken"]:
        begin, length = drawn["broken"]
        job.broken = lambda now: DOWN if begin <= now < begin + length else None
    stage.cluster.add(job)
    for wish in drawn["waits"]:
        deadline = None if wish["deadline"] is None else wish["at"] + wish["deadline"]
        waiter = stage.wait_for(
            name,
            None if wish["by"] == "since" else ours,
            at=wish["at"],
            poll_interval=wish["poll_interval"],
            deadline=deadline,
            created_from=-60.0,
            know_date=wish["by"] == "number and date",
        )
        waiter.number, waiter.by = ours.number, wish["by"]
        if wish["leaves"] is not None:
            stage.leave(waiter, wish["at"] + wish["leaves"])


def _others(stage: Play, per_minute: float) -> None:
    """Somebody else draws on the same quotas, for an hour and a half."""
    if not per_minute:
        return

    def charge(at: float) -> Callable[[], None]:
        def act() -> None:
            stage.cluster.now = at
            for kind in ("status", "history", "list"):
                stage.cluster.charge(kind)

        return act

    for number in range(int(per_minute * 90)):
        at = number * 60 / per_minute
        stage.at(at, charge(at))


def check(waiter: Waiter, cluster: PlayedCluster) -> str:
    """A wait ended once, and as the history of its job says."""
    if waiter.left:
        assert waiter.ends == []
        return "left"
    assert len(waiter.ends) == 1, waiter
    ((when, outcome),) = waiter.ends
    job = cluster.jobs[waiter.job]
    (run,) = [run for run in job.runs if run.number == waiter.number]
    if isinstance(outcome, Submission):
        assert (outcome.submission_id, outcome.status) == (run.number, run.status)
        assert when >= run.ended
    elif isinstance(outcome, errors.CdmWaitTimeout):
        assert waiter.deadline is not None
        assert waiter.deadline <= when <= max(waiter.deadline, waiter.joined) + 10 + 130
    elif isinstance(outcome, errors.CdmOutcomeUnknown):
        newer = [one for one in job.runs if one.number > run.number and one.created <= when]
        assert job.deleted <= when or len(newer) >= 9
    elif isinstance(outcome, errors.CdmNotFound):
        assert job.deleted <= when
        assert waiter.by == "since"
    else:
        assert type(outcome) is errors.CdmUnavailable, outcome
        # For ten minutes it was asked for in vain, or nothing else was heard of either. A call
        # takes up to a minute.
        assert when - waiter.joined >= 600
        heard = [at for at in cluster.heard.get(waiter.job, []) if at <= when - 61]
        since = max([waiter.joined, *heard])
        own = [at for at in cluster.unheard.get(waiter.job, []) if since < at <= when - 540]
        if not own:
            assert not any(when - 540 < at <= when - 61 for at in cluster.heard_all)
            assert any(when - 700 <= at <= when - 540 for at in cluster.unheard_all)
    return type(outcome).__name__


@settings(max_examples=150)
@given(stories)
def test_every_wait_ends_once_and_rightly(story: Story) -> None:
    """Joins, leaves, failures, 429, deleted jobs, later runs, dead clusters: no wrong verdict."""
    stage, cluster = play(story)
    for waiter in stage.waiters:
        event(check(waiter, cluster))
    assert stage.watch.registry.jobs == {}
    assert stage.watch.in_flight == 0
    for kind, times in cluster.calls.items():
        assert most_in_a_minute(times) <= story.limit, kind


@pytest.mark.parametrize("count", [1, 8, 40, 100, 1000])
def test_ends_are_seen_in_time(count: int) -> None:
    """While all is well, the end of a run is seen within little more than the interval."""
    dice = random.Random(count)
    cluster = PlayedCluster(quota=120)
    stage = Play(cluster, RateLimits(100, dice.random), random=dice.random)
    for number in range(count):
        run = PlayedRun(1, -60.0, 100 + 3000 * dice.random())
        cluster.add(PlayedJob(f"job_{number}", [run]))
        stage.wait_for(f"job_{number}", run, at=60 * dice.random())
    stage.run(until=HOUR)
    late = [w.ends[0][0] - cluster.jobs[w.job].runs[0].ended for w in stage.waiters]
    assert max(late) < 40
    assert sum(cluster.throttled.values()) == 0


def test_ten_thousand_waits_for_an_hour() -> None:
    """Ten thousand runs, of which a thousand end: calls within the budget, and ends seen soon."""
    dice = random.Random(7)
    cluster = PlayedCluster(quota=120)
    stage = Play(cluster, RateLimits(100, dice.random), random=dice.random)
    for number in range(10_000):
        run = PlayedRun(number + 1, -600 * dice.random(), 10 * HOUR * dice.random())
        cluster.add(PlayedJob(f"job_{number}", [run]))
        stage.wait_for(f"job_{number}", run, at=60 * dice.random())
    stage.run(until=HOUR)
    assert cluster.throttled == {}
    assert all(most_in_a_minute(times) <= 100 for times in cluster.calls.values())
    assert all(isinstance(end, Submission) for each in stage.waiters for _, end in each.ends)
    ended = {each.job: each.ends[0][0] for each in stage.waiters if each.ends}
    over = {job.name: job.runs[0].ended for job in cluster.jobs.values()}
    assert set(ended) >= {name for name, at in over.items() if at < HOUR - 180}
    late = sorted(at - over[name] for name, at in ended.items())
    assert late[len(late) // 2] < 75
    # Those that were over before anybody waited are seen in the first round.
    assert late[-1] < 180
    # One by one it would be 1.2 million calls.
    assert sum(map(len, cluster.calls.values())) < 12_000


def test_two_triggerers_share_a_quota() -> None:
    """Each would use it up, CDM refuses the surplus, and both come to about half of it."""
    dice = random.Random(3)
    cluster = PlayedCluster(quota=120)
    stage = Play(
        cluster, RateLimits(100, dice.random), RateLimits(100, dice.random), random=dice.random
    )
    for number in range(400):
        run = PlayedRun(1, -60.0, 100 * HOUR)
        cluster.add(PlayedJob(f"job_{number}", [run], listed="never"))
        # The second one comes an hour later, when the first one has got used to the whole quota.
        stage.wait_for(f"job_{number}", run, watch=number % 2, at=HOUR * (number % 2))
    looks = [0, 0]
    for number, watch in enumerate(stage.watches):
        _count_looks(watch, looks, number)
    stage.run(until=2 * HOUR)
    looks[:] = [0, 0]
    begun = len(cluster.calls["status"]), cluster.throttled["status"]
    stage.run(until=5 * HOUR)
    made, throttled = (
        len(cluster.calls["status"]) - begun[0],
        cluster.throttled["status"] - begun[1],
    )
    assert made > 0.6 * 120 * 180
    assert throttled < made / 50
    assert 0.6 < looks[0] / looks[1] < 1.6


def _count_looks(watch: Any, looks: list[int], number: int) -> None:
    completed = watch.completed

    def count(sent: Any, now: float) -> None:
        looks[number] += sent.batch.succeeded
        completed(sent, now)

    watch.completed = count


def test_urgent_looks_go_first_and_starve_nobody() -> None:
    """While a hundred ends a minute wait to be confirmed, runs that no listing shows are seen."""
    dice = random.Random(5)
    cluster = PlayedCluster()
    stage = Play(cluster, RateLimits(60, dice.random), random=dice.random)
    for number in range(3000):
        run = PlayedRun(1, -60.0, 1.5 * HOUR * dice.random())
        cluster.add(PlayedJob(f"job_{number}", [run]))
        stage.wait_for(f"job_{number}", run)
    hidden = []
    for number in range(20):
        run = PlayedRun(1, -60.0, 3000.0)
        cluster.add(PlayedJob(f"hidden_{number}", [run], listed="never"))
        hidden.append(stage.wait_for(f"hidden_{number}", run))
    stage.run(until=1.2 * HOUR)
    assert all(each.ends for each in hidden)
    assert max(each.ends[0][0] for each in hidden) < 3000 + 600


def test_ends_are_confirmed_before_routine_looks_of_other_clusters() -> None:
    """Twenty watches of a user have looks enough to fill the quota; who ended is seen soon."""
    dice = random.Random(11)
    cluster = PlayedCluster(quota=120)
    limits = RateLimits(100, dice.random)
    stage = Play(cluster, *[limits] * 20, random=dice.random)
    stage.most_steps = 1_000_000
    ends = []
    for number in range(2000):
        watch = number % 20
        run = PlayedRun(1, -60.0, 600 + 2400 * dice.random() if number < 400 else 9 * HOUR)
        cluster.add(PlayedJob(f"{watch:02}_{number}", [run]))
        ends.append((stage.wait_for(f"{watch:02}_{number}", run, watch=watch), run.ended))
    stage.run(until=HOUR)
    late = [waiter.ends[0][0] - ended for waiter, ended in ends[:400]]
    assert max(late) < 60


@pytest.mark.parametrize("jobs", [6, 50])
def test_many_clusters_with_few_jobs_each(jobs: int) -> None:
    """Where looks have to queue, listings are read for few jobs too, and wait for no turn."""
    dice = random.Random(jobs)
    cluster = PlayedCluster(quota=120)
    limits = RateLimits(100, dice.random)
    stage = Play(cluster, *[limits] * 20, random=dice.random)
    stage.most_steps = 1_000_000
    ends = []
    for number in range(20 * jobs):
        watch = number % 20
        run = PlayedRun(1, -60.0, 100 + (HOUR if number % 5 else 1400) * dice.random())
        cluster.add(PlayedJob(f"{watch:02}_{number}", [run]))
        ends.append((stage.wait_for(f"{watch:02}_{number}", run, watch=watch), run.ended))
    stage.run(until=HOUR / 2)
    late = [waiter.ends[0][0] - ended for waiter, ended in ends if ended < HOUR / 2 - 60]
    assert max(late) < 45


def test_what_comes_up_as_due_longest_may_be_urgent() -> None:
    """A turn of what is due longest, given to a run that is probably over, is an urgent look."""
    queue = PollQueue[PolledJob]()
    for number in range(8):
        job = PolledJob(f"job_{number}")
        queue.put(job, Priority.ROUTINE, number)
        queue.put(job, Priority.CONFIRM, 20 - number)
    turns = [queue.pop(100) for _ in range(8)]
    assert [turn and turn[1] for turn in turns] == [Priority.CONFIRM] * 8


def test_an_outage_is_forgotten_when_nobody_waits() -> None:
    """Who comes long after an outage that ended all waits is looked at as ever: not at once."""
    cluster = PlayedCluster(trouble=lambda _, now: DOWN if now < 1000 else None)
    run = PlayedRun(1, -60.0, 6000.0)
    cluster.add(PlayedJob("job", [run]))
    stage = Play(cluster, RateLimits(100, lambda: 0.5))
    first, second = stage.wait_for("job", run), stage.wait_for("job", run, at=5000)
    stage.run(until=7000)
    assert isinstance(first.outcome, errors.CdmUnavailable)
    assert min(at for at in cluster.calls["status"] if at >= 5000) == pytest.approx(5005)
    assert isinstance(second.outcome, Submission)
