"""Rate limits: at most the limit within a minute, half the rate after a 429, fair shares."""

from __future__ import annotations

import collections
import itertools
import random
import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_cdm.client.api.call import Quota
from airflow_provider_cdm.client.polling import rate_limit
from airflow_provider_cdm.client.polling.rate_limit import (
    REQUESTS_PER_MINUTE,
    SLOT_SECONDS,
    RateLimiter,
    RateLimits,
    follow_user,
    rate_limits_for,
)
from airflow_provider_cdm.client.polling.reservations import Reservations
from airflow_provider_cdm.client.settings import KeyCredentials, PasswordCredentials, Settings
from tests.support.virtual_cluster import BEGIN, most_in_a_minute

SETTINGS = Settings("https://cdm", "https://iam", PasswordCredentials("u", "p", "d"))


def make_limiter(limit: int = 100) -> RateLimiter:
    """Return a limiter without randomness."""
    return RateLimiter(limit, lambda: 0.5)


def use_all(limiter: RateLimiter, now: float, seconds: float) -> list[float]:
    """Use every slot of some seconds when its time comes; return the times."""
    times: list[float] = []
    end = now + seconds
    while (now := max(now, limiter.reserve(now))) < end:
        times.append(now)
    return times


@pytest.mark.parametrize("limit", [1, 2, 5, 10, 60, 100, 120, 1000])
def test_no_minute_holds_more_calls_than_the_limit(limit: int) -> None:
    """Any minute holds at most the limit, and nearly that many if every slot is used."""
    times = use_all(make_limiter(limit), BEGIN, 600)
    assert most_in_a_minute(times) <= limit
    assert len(times) >= 0.98 * 10 * limit - 1


def test_calls_are_spread() -> None:
    """After a small burst, slots are evenly spaced, so calls do not stay bunched together."""
    times = use_all(make_limiter(100), BEGIN, 600)
    assert times[:10] == pytest.approx([BEGIN] * 10)
    gaps = sorted(later - earlier for earlier, later in itertools.pairwise(times[10:]))
    # One longer gap makes up for the burst.
    *regular, longest = gaps
    assert regular[0] == pytest.approx(regular[-1], rel=1e-3)
    assert longest == pytest.approx(10 * regular[0], rel=0.1)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.floats(0, 90, allow_nan=False)),
        st.tuples(st.just("reserve"), st.floats(0, SLOT_SECONDS, allow_nan=False)),
        st.tuples(st.just("try_reserve"), st.floats(0, 5, allow_nan=False)),
        st.tuples(st.just("release"), st.just(0.0)),
        st.tuples(st.just("429"), st.sampled_from([-1.0, 0.0, 7.0, 1000.0])),
    ),
    max_size=400,
)


@given(limit=st.sampled_from([1, 3, 10, 100]), steps=steps)
def test_the_limit_holds_in_any_sequence(limit: int, steps: list[tuple[str, float]]) -> None:
    """The limit holds although slots are used late, released, or followed by a 429."""
    limiter, now = make_limiter(limit), BEGIN
    used: list[float] = []
    for step, number in steps:
        if step == "pass":
            now += number
        elif step == "reserve":
            slot = limiter.reserve(now)
            now = max(now, slot) + number
            if limiter.is_usable(slot, now):
                used.append(now)
        elif step == "try_reserve":
            slot, reserved = limiter.try_reserve(now, number)
            assert reserved == (slot <= now + number)
            if reserved:
                used.append(slot)
        elif step == "release":
            slot = limiter.reserve(now)
            limiter.release(slot)
        else:
            limiter.throttled(now, None if number < 0 else number)
    assert most_in_a_minute(used) <= limit


def test_slots_that_were_given_back_expire() -> None:
    """A slot that nobody used in its time adds to no later minute."""
    limiter = make_limiter(6)
    for slot in [limiter.reserve(BEGIN) for _ in range(6)]:
        limiter.release(slot)
    assert most_in_a_minute(use_all(limiter, BEGIN + 200, 120)) <= 6


def test_a_429_halves_the_rate_for_some_time() -> None:
    """After a 429 there are no slots for some seconds, then half as many, and later all again."""
    limiter = make_limiter(100)
    full = limiter.rate(BEGIN)
    limiter.throttled(BEGIN)
    assert limiter.reserve(BEGIN) >= BEGIN + 2.5
    assert limiter.rate(BEGIN) == full / 2
    assert full / 2 < limiter.rate(BEGIN + 60) < full
    assert limiter.rate(BEGIN + 1200) == full
    # No burst either, since it would be throttled again.
    times = use_all(limiter, BEGIN + 10, 60)
    assert most_in_a_minute(times) <= full * 0.75


def test_calls_in_flight_count_as_one_429() -> None:
    """Ten calls that are throttled within a second halve the rate once, not ten times."""
    limiter = make_limiter(100)
    full = limiter.rate(BEGIN)
    for number in range(10):
        limiter.throttled(BEGIN + number / 10)
    assert limiter.rate(BEGIN + 1) == pytest.approx(full / 2, rel=0.01)


def test_the_back_off_grows_with_each_429_in_a_row() -> None:
    """Each 429 after a back-off doubles it, up to a minute; a successful call resets it."""
    limiter, now = make_limiter(100), BEGIN
    backoffs = []
    for _ in range(8):
        limiter.throttled(now)
        backoffs.append(limiter.next_slot(now) - now)
        now = limiter.next_slot(now)
    assert backoffs == sorted(backoffs)
    assert (backoffs[0], backoffs[-1]) == (5.0, 60.0)
    assert limiter.rate(now) >= 100 / 16
    limiter.succeeded()
    limiter.throttled(now)
    assert limiter.next_slot(now) - now == 5.0


def test_slots_keep_coming_at_the_lowest_rate() -> None:
    """After many 429s slots are as far apart as the rate says, also while it recovers."""
    limiter, now = make_limiter(100), BEGIN
    for _ in range(8):
        limiter.throttled(now)
        now = limiter.next_slot(now)
    rate = limiter.rate(now)
    times = use_all(limiter, now, 120)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert max(gaps) <= 60 / rate
    assert gaps[-1] < gaps[0] / 2


def play_hour(number: int, seed: int) -> tuple[float, float]:
    """Let limiters that know nothing of each other use CDM's quota of 120 calls for an hour.

    :param number: how many there are.
    :returns: the answered calls of a minute, and how much those of one limiter differ from the
        mean at most, in percent of it.
    """
    rng = random.Random(seed)
    limiters = [RateLimiter(100, rng.random) for _ in range(number)]
    slots = [(limiter.reserve(BEGIN + rng.random() * 60), limiter) for limiter in limiters]
    minute: collections.deque[float] = collections.deque()
    answered: collections.Counter[RateLimiter] = collections.Counter()
    while (now := min(slot for slot, _ in slots)) < BEGIN + 2 * 3600:
        index, limiter = next((i, each) for i, (slot, each) in enumerate(slots) if slot == now)
        while minute and minute[0] <= now - 60:
            minute.popleft()
        if len(minute) >= 120:
            limiter.throttled(now)
        else:
            minute.append(now)
            limiter.succeeded()
            answered[limiter] += now >= BEGIN + 3600
        slots[index] = limiter.reserve(now + 0.05), limiter
    mean = answered.total() / number
    differs = max(abs(answered[limiter] / mean - 1) for limiter in limiters)
    return answered.total() / 60, 100 * differs


@pytest.mark.long
@pytest.mark.parametrize(("number", "percent"), [(2, 5), (5, 10), (10, 12)])
def test_processes_that_share_a_quota_get_equal_shares(number: int, percent: float) -> None:
    """Each of several triggerers and workers gets about the same, and together nearly all."""
    hours = [play_hour(number, seed) for seed in range(6)]
    assert sum(rate for rate, _ in hours) / 6 >= 108
    assert sum(differs for _, differs in hours) / 6 <= percent


@pytest.mark.parametrize(
    ("retry_after", "backoff"), [(0.0, 1.0), (7.0, 7.5), (90.0, 90.5), (9e9, 120.5)]
)
def test_retry_after_is_honored(retry_after: float, backoff: float) -> None:
    """There is no slot until CDM's ``Retry-After`` has passed, but not for hours."""
    limiter = make_limiter(100)
    limiter.throttled(BEGIN, retry_after)
    assert limiter.next_slot(BEGIN) == BEGIN + backoff


def test_a_429_voids_reserved_slots() -> None:
    """A slot that was reserved before a 429 cannot be used during the back-off."""
    limits = RateLimits(100, lambda: 0.5)
    reservations = Reservations(limits)
    assert reservations.ready(Quota.STATUS, BEGIN)
    limits.limiters[Quota.STATUS].throttled(BEGIN + 0.1)
    assert not reservations.ready(Quota.STATUS, BEGIN + 0.2)
    assert reservations.ready(Quota.STATUS, reservations.slot(Quota.STATUS))


def test_pollers_of_one_user_take_turns() -> None:
    """Pollers get slots in the order in which they ask for them."""
    limits = RateLimits(100, lambda: 0.5)
    first, second = Reservations(limits), Reservations(limits)
    now, used = BEGIN, {first: 0, second: 0}
    while now < BEGIN + 300:
        for reservations in used:
            while reservations.ready(Quota.STATUS, now):
                reservations.use(Quota.STATUS)
                used[reservations] += 1
        now += 0.1
    assert used[second] > 0.45 * used[first]


@pytest.mark.long
def test_urgent_calls_go_first_and_starve_none() -> None:
    """Of twenty-one pollers with a slot each, the urgent one gets three of four turns."""
    limits = RateLimits(100, lambda: 0.5)
    urgent, *others = pollers = [Reservations(limits) for _ in range(21)]
    now, used = BEGIN, dict.fromkeys(pollers, 0)
    waited, asked_at = [], now
    while now < BEGIN + 1200:
        for reservations in reversed(pollers):
            if reservations.ready(Quota.STATUS, now, urgent=reservations is urgent):
                reservations.use(Quota.STATUS)
                used[reservations] += 1
                if reservations is urgent:
                    waited.append(now - asked_at)
                    asked_at = now
        now += 0.1
    assert sorted(waited)[len(waited) // 2] < 2
    assert 2 < used[urgent] / sum(used[other] for other in others) < 4
    assert min(used[other] for other in others) > 10


def test_a_clock_that_is_set_back_delays_nothing() -> None:
    """When the clock is set back by an hour, the next slot comes as soon as before."""
    limiter = make_limiter(100)
    use_all(limiter, BEGIN, 60)
    limiter.throttled(BEGIN + 60)
    assert limiter.reserve(BEGIN - 3540) <= BEGIN - 3540 + 6


@pytest.mark.parametrize("seconds", [2.0, 5.0, 25.0])
def test_a_thread_that_read_the_clock_earlier_gets_no_earlier_slot(seconds: float) -> None:
    """On a busy machine threads reserve slots in another order than that of their clock; this is
    no clock that was set back, and no minute holds more calls than the limit.
    """
    limiter, times, now = make_limiter(20), list[float](), BEGIN
    for _ in range(100):
        times.append(limiter.reserve(now))
        times.append(limiter.reserve(now - seconds))
        now = max(now, times[-1])
    assert most_in_a_minute(times) <= 20


def test_threads_get_different_slots() -> None:
    """Threads that reserve slots at the same time get different ones."""
    limiter = make_limiter(1000)
    reserved: list[float] = []

    def reserve() -> None:
        reserved.extend(limiter.reserve(BEGIN) for _ in range(100))

    threads = [threading.Thread(target=reserve) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most_in_a_minute(reserved) <= 1000


class User:
    """Stands for what uses rate limits."""


@pytest.fixture(autouse=True)
def no_rate_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start each test without rate limits, which are kept per process."""
    monkeypatch.setattr(rate_limit, "_rate_limits", {})


def test_a_user_has_one_set_of_rate_limits() -> None:
    """All clusters, projects and regions of a user share rate limits; other users have others."""
    user = User()
    limits = rate_limits_for(SETTINGS, user)
    assert limits.limit == REQUESTS_PER_MINUTE == 100
    elsewhere = replace(SETTINGS, cluster_id="x", project_id="y", region="z")
    assert rate_limits_for(elsewhere, user) is limits
    changed = replace(SETTINGS, credentials=PasswordCredentials("u", "another password", "d"))
    assert rate_limits_for(changed, user) is limits
    other = replace(SETTINGS, credentials=PasswordCredentials("v", "p", "d"))
    assert rate_limits_for(other, user) is not limits
    assert "another password" not in repr(rate_limit._rate_limits)


def test_the_lowest_limit_applies() -> None:
    """If two connections of a user set limits, the lower one applies to both while it is used."""
    first, second, third = User(), User(), User()
    limits = rate_limits_for(replace(SETTINGS, requests_per_minute=50), first)
    assert rate_limits_for(SETTINGS, second) is limits
    assert limits.limit == 50
    rate_limits_for(replace(SETTINGS, requests_per_minute=20), third)
    assert most_in_a_minute(use_all(limits.limiters[Quota.STATUS], BEGIN, 300)) <= 20
    del first, third
    rate_limits_for(SETTINGS, second)
    assert limits.limit == 100
    # It recovers within minutes, and is not exceeded.
    used = use_all(limits.limiters[Quota.STATUS], BEGIN + 600, 300)
    assert 90 < most_in_a_minute(used) <= 100


@pytest.mark.parametrize("known", [False, True], ids=["new to the process", "in use already"])
def test_a_new_access_key_draws_on_the_quota_of_the_old_one(known: bool) -> None:
    """After a rotation, what was called with the old key counts for the new one, too."""
    old = replace(SETTINGS, credentials=KeyCredentials("old", "s"), requests_per_minute=60)
    new = replace(SETTINGS, credentials=KeyCredentials("new", "s"), requests_per_minute=60)
    users = User(), User()
    limits = rate_limits_for(old, users[0], lambda: 0.5)
    others = rate_limits_for(new, users[1], lambda: 0.5) if known else None
    used = use_all(limits.limiters[Quota.STATUS], BEGIN, 30)
    follow_user(limits, new, users[0])
    follow_user(limits, new, users[0])
    shared = others or rate_limits_for(new, users[1], lambda: 0.5)
    assert shared.limiters is limits.limiters
    assert shared.reservations_lock is limits.reservations_lock
    if not known:
        used += use_all(limits.limiters[Quota.STATUS], used[-1], 300)
        assert most_in_a_minute(used) <= 60
    follow_user(limits, replace(new, requests_per_minute=30), users[0])
    limits_of = {quota: shared.limiters[quota].limit for quota in Quota}
    # CDM allows ten times as many stops.
    assert limits_of.pop(Quota.STOP) == 300
    assert set(limits_of.values()) == {30}
