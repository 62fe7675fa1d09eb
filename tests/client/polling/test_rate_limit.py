"""The budget: never more than the limit within a minute, half the pace after 429, fair shares."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_cdm.client.api.call import Quota
from airflow_provider_cdm.client.polling import rate_limit as budget_module
from airflow_provider_cdm.client.polling.rate_limit import (
    REQUESTS_PER_MINUTE,
    SLOT_SECONDS,
    RateLimiter,
    RateLimits,
    Reservations,
    rate_limits_for,
)
from airflow_provider_cdm.client.settings import PasswordCredentials, Settings
from tests.support.virtual_cluster import BEGIN, most_in_a_minute

PLACE = Settings("https://cdm", "https://iam", PasswordCredentials("u", "p", "d"))


def limiter(limit: int = 100) -> RateLimiter:
    """A lane without chance."""
    return RateLimiter(limit, lambda: 0.5)


def take_all(one: RateLimiter, now: float, seconds: float) -> list[float]:
    """Use every slot of some seconds, each when it is."""
    times: list[float] = []
    end = now + seconds
    while (now := max(now, one.reserve(now))) < end:
        times.append(now)
    return times


@pytest.mark.parametrize("limit", [1, 2, 5, 10, 60, 100, 120, 1000])
def test_a_minute_holds_the_limit_and_nearly_all_of_it(limit: int) -> None:
    """No minute holds more calls than the limit, and none much less while everybody is busy."""
    times = take_all(limiter(limit), BEGIN, 600)
    assert most_in_a_minute(times) <= limit
    assert len(times) >= 0.98 * 10 * limit - 1


def test_calls_are_spread() -> None:
    """After a small burst, slots come one by one: what begins together does not stay so."""
    times = take_all(limiter(100), BEGIN, 600)
    assert times[:10] == pytest.approx([BEGIN] * 10)
    gaps = sorted(later - earlier for earlier, later in itertools.pairwise(times[10:]))
    # One pause makes up for the burst.
    *even, pause = gaps
    assert even[0] == pytest.approx(even[-1], rel=1e-3)
    assert pause == pytest.approx(10 * even[0], rel=0.1)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.floats(0, 90, allow_nan=False)),
        st.tuples(st.just("book"), st.floats(0, SLOT_SECONDS, allow_nan=False)),
        st.tuples(st.just("take"), st.floats(0, 5, allow_nan=False)),
        st.tuples(st.just("return"), st.just(0.0)),
        st.tuples(st.just("429"), st.sampled_from([-1.0, 0.0, 7.0, 1000.0])),
    ),
    max_size=400,
)


@given(limit=st.sampled_from([1, 3, 10, 100]), steps=steps)
def test_no_minute_holds_more_whatever_happens(limit: int, steps: list[tuple[str, float]]) -> None:
    """Slots may be used late, be given back, or be followed by a 429; the limit holds."""
    one, now = limiter(limit), BEGIN
    used: list[float] = []
    for step, number in steps:
        if step == "pass":
            now += number
        elif step == "book":
            slot = one.reserve(now)
            now = max(now, slot) + number
            if one.is_valid(slot, now):
                used.append(now)
        elif step == "take":
            slot, taken = one.try_reserve(now, number)
            assert taken == (slot <= now + number)
            if taken:
                used.append(slot)
        elif step == "return":
            slot = one.reserve(now)
            one.release(slot)
        else:
            one.throttled(now, None if number < 0 else number)
    assert most_in_a_minute(used) <= limit


def test_a_refusal_halves_the_pace_for_a_while() -> None:
    """After 429 nothing goes out for some seconds, then half as much, and in time all again."""
    one = limiter(100)
    full = one.pace(BEGIN)
    one.throttled(BEGIN)
    assert one.reserve(BEGIN) >= BEGIN + 2.5
    assert one.pace(BEGIN) == full / 2
    assert full / 2 < one.pace(BEGIN + 60) < full
    assert one.pace(BEGIN + 1200) == full
    # No burst either: what was refused would only be refused again.
    times = take_all(one, BEGIN + 10, 60)
    assert most_in_a_minute(times) <= full * 0.75


def test_what_was_on_its_way_is_the_same_refusal() -> None:
    """Ten calls that are refused within a second halve the pace once, not ten times."""
    one = limiter(100)
    full = one.pace(BEGIN)
    for number in range(10):
        one.throttled(BEGIN + number / 10)
    assert one.pace(BEGIN + 1) == pytest.approx(full / 2, rel=0.01)


def test_refusals_in_a_row_are_answered_by_longer_silence() -> None:
    """Each 429 after a silence leads to a longer one, up to a minute; an answer ends that."""
    one, now = limiter(100), BEGIN
    silences = []
    for _ in range(8):
        one.throttled(now)
        silences.append(one.next_slot(now) - now)
        now = one.next_slot(now)
    assert silences == sorted(silences)
    assert (silences[0], silences[-1]) == (5.0, 60.0)
    assert one.pace(now) >= 100 / 16
    one.succeeded()
    one.throttled(now)
    assert one.next_slot(now) - now == 5.0


@pytest.mark.parametrize(("told", "kept"), [(0.0, 1.0), (7.0, 7.5), (90.0, 90.5), (9e9, 120.5)])
def test_retry_after_is_honoured(told: float, kept: float) -> None:
    """What CDM asks for is done, and a little later, but not for hours."""
    one = limiter(100)
    one.throttled(BEGIN, told)
    assert one.next_slot(BEGIN) == BEGIN + kept


def test_a_held_slot_does_not_outlive_a_refusal() -> None:
    """Slots that were taken before a 429 are void while the lane is silent."""
    limits = RateLimits(100, lambda: 0.5)
    slots = Reservations(limits)
    assert slots.ready(Quota.STATUS, BEGIN)
    limits.limiters[Quota.STATUS].throttled(BEGIN + 0.1)
    assert not slots.ready(Quota.STATUS, BEGIN + 0.2)
    assert slots.ready(Quota.STATUS, slots.when(Quota.STATUS))


def test_watches_of_one_user_take_turns() -> None:
    """Slots go to those who ask in the order in which they ask."""
    limits = RateLimits(100, lambda: 0.5)
    greedy, modest = Reservations(limits), Reservations(limits)
    now, used = BEGIN, {greedy: 0, modest: 0}
    while now < BEGIN + 300:
        for slots in used:
            while slots.ready(Quota.STATUS, now):
                slots.use(Quota.STATUS)
                used[slots] += 1
        now += 0.1
    assert used[modest] > 0.45 * used[greedy]


def test_who_is_in_a_hurry_goes_first_and_starves_nobody() -> None:
    """Where twenty hold a slot each, one in a hurry gets the next one, of four turns three."""
    limits = RateLimits(100, lambda: 0.5)
    hasty, *others = watches = [Reservations(limits) for _ in range(21)]
    now, used = BEGIN, dict.fromkeys(watches, 0)
    waited, asked_at = [], now
    while now < BEGIN + 1200:
        for slots in reversed(watches):
            if slots.ready(Quota.STATUS, now, urgent=slots is hasty):
                slots.use(Quota.STATUS)
                used[slots] += 1
                if slots is hasty:
                    waited.append(now - asked_at)
                    asked_at = now
        now += 0.1
    assert sorted(waited)[len(waited) // 2] < 2
    assert 2 < used[hasty] / sum(used[one] for one in others) < 4
    assert min(used[one] for one in others) > 10


def test_a_clock_that_is_set_back_stops_nothing() -> None:
    """When the clock jumps back by an hour, the next slot comes as soon as before."""
    one = limiter(100)
    take_all(one, BEGIN, 60)
    one.throttled(BEGIN + 60)
    assert one.reserve(BEGIN - 3540) <= BEGIN - 3540 + 6


def test_many_threads_get_no_more() -> None:
    """Threads that take slots at the same time get different ones."""
    one = limiter(1000)
    found: list[float] = []

    def try_reserve() -> None:
        found.extend(one.reserve(BEGIN) for _ in range(100))

    threads = [threading.Thread(target=try_reserve) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most_in_a_minute(found) <= 1000


@pytest.fixture(autouse=True)
def budgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Budgets are kept per process; no test inherits another's."""
    monkeypatch.setattr(budget_module, "_rate_limits", {})


def test_one_budget_for_a_user() -> None:
    """All clusters, projects and regions of a user share a budget; another user has another."""
    mine = rate_limits_for(PLACE)
    assert mine.limit == REQUESTS_PER_MINUTE == 100
    assert rate_limits_for(replace(PLACE, cluster_id="x", project_id="y", region="z")) is mine
    other = replace(PLACE, credentials=PasswordCredentials("v", "p", "d"))
    assert rate_limits_for(other) is not mine


def test_the_lowest_limit_holds() -> None:
    """Where two connections of a user name limits, the lower one counts for both."""
    mine = rate_limits_for(replace(PLACE, requests_per_minute=50))
    assert rate_limits_for(PLACE) is mine
    assert mine.limit == 50
    rate_limits_for(replace(PLACE, requests_per_minute=20))
    assert most_in_a_minute(take_all(mine.limiters[Quota.STATUS], BEGIN, 300)) <= 20
