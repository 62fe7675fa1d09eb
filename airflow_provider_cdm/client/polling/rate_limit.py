"""Rate limits: how many calls may be made within CDM's quotas per IAM user and minute.

Each kind of call has a quota of its own. A :class:`RateLimiter` hands out slots: instants at which
one call may be made. Slots are spread evenly instead of coming in bursts, and are never more than
the limit within a minute. Workers and other triggerers draw on the same quotas, which a limiter
cannot see. When CDM answers 429, it halves its rate and recovers slowly, so that all users of one
quota end up with equal shares.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary, WeakSet

from airflow_provider_cdm.client.api.call import Quota
from airflow_provider_cdm.client.locks import ProcessLock
from airflow_provider_cdm.client.settings import Settings

#: Calls of one kind per minute, unless the connection sets another limit. CDM documents 120; the
#: remaining 20 are for calls not counted here: starts, sensors that poke, people in the console.
REQUESTS_PER_MINUTE = 100
#: Seconds after which an unused slot expires; used any later, it could collide with the next one.
SLOT_SECONDS = 1.0
#: Seconds from a slot to the one ``limit`` slots later: a minute, plus the time a slot may be late.
_WINDOW = 60 + SLOT_SECONDS
#: Seconds by which a clock must have been set back to be noticed. Less is a thread that read it
#: earlier than another one; and if it was set back by less, the next slot is later by so much.
_SET_BACK = 30.0
#: Seconds without calls after the first 429 without ``Retry-After``; doubles with each further one.
_BACKOFF, _MAX_BACKOFF = 5.0, 60.0
#: Longest ``Retry-After`` that is honored, in seconds.
_RETRY_AFTER_CAP = 120.0
#: Minutes in which a limiter would recover from zero to its limit.
_RECOVERY_MINUTES = 5.0
#: Lowest rate, as a fraction of the limit.
_MIN_FRACTION = 1 / 16
#: How many times the limit CDM allows for stops, and which share of them may be used at once: stops
#: are rare, and each is urgent.
_STOP_FACTOR, _STOP_BURST = 10, 1.0


class RateLimiter:
    """Slots for calls of one kind, for use by several threads.

    Hands out at most ``limit`` slots within any minute, and a share of that at once. It is the
    generic cell rate algorithm (GCRA) with a sliding window on top.

    :param limit: calls per minute.
    :param random: function that returns a number in [0, 1).
    :param burst: share of the limit that may be used at once.
    """

    def __init__(
        self, limit: int, random: Callable[[], float] = random.random, burst: float = 0.1
    ) -> None:
        self._lock = ProcessLock()
        self._random = random
        self._burst_share = burst
        self._rate, self._rate_at = 0.0, 0.0
        #: When the next slot would be if all were evenly spaced; in a burst it comes earlier, by
        #: as many seconds as the tolerance at most.
        self._theoretical_arrival = self._tolerance = 0.0
        self._blocked_until = 0.0
        #: The latest slots, as many as the limit.
        self._window: deque[float] = deque()
        self._released: list[float] = []
        #: Back-offs in a row.
        self._backoffs = 0
        self._last_now = 0.0
        self.cap(limit)
        self._rate = self._max_rate

    def cap(self, limit: int) -> None:
        """Set the limit, in calls per minute."""
        self.limit = max(1, limit)
        self._window = deque(self._window, maxlen=self.limit)
        self._max_rate = self.limit * 60 / _WINDOW
        burst = max(1, int(self.limit * self._burst_share))
        # At the full rate. If it grew while the rate is low, and shrank as the rate recovers, the
        # next slot would move away.
        self._tolerance = (burst - 1) * 60 / self._max_rate

    def rate(self, now: float) -> float:
        """Return the calls per minute that are allowed at present."""
        minutes = max(0.0, now - self._rate_at) / 60
        return min(self._max_rate, self._rate + minutes * self.limit / _RECOVERY_MINUTES)

    def reserve(self, now: float) -> float:
        """Reserve the next slot, and return its time in epoch seconds."""
        with self._lock:
            self._adjust_to_clock(now)
            while self._released:
                slot = self._released.pop()
                if self.is_usable(slot, now):
                    return slot
            return self._take(self._next_slot(now), now)

    def try_reserve(self, now: float, max_wait: float) -> tuple[float, bool]:
        """Reserve the next slot if it comes soon enough.

        :param max_wait: seconds until the slot at most.
        :returns: the time of the next slot in epoch seconds, and whether it was reserved.
        """
        with self._lock:
            slot = self._next_slot(now)
            reserved = slot <= now + max_wait
            if reserved:
                self._take(slot, now)
            return slot, reserved

    def next_slot(self, now: float) -> float:
        """Return the time of the next slot, epoch seconds, without reserving it."""
        with self._lock:
            return self._next_slot(now)

    def is_usable(self, slot: float, now: float) -> bool:
        """Return whether a reserved slot can be used, now or when its time comes."""
        return now <= slot + SLOT_SECONDS and slot >= self._blocked_until

    def release(self, slot: float) -> None:
        """Give back a reserved slot in which no call was made, so that another call can use it."""
        with self._lock:
            self._released.append(slot)

    def throttled(self, now: float, retry_after: float | None = None) -> None:
        """Record a 429: hand out no slots for some time, then continue at half the rate.

        :param retry_after: seconds that CDM asked to wait; ``None`` if it did not.
        """
        with self._lock:
            self._adjust_to_clock(now)
            # Calls that were in flight when the first 429 arrived belong to the same back-off.
            if now >= self._blocked_until:
                self._backoffs += 1
                self._rate = max(self.rate(now) / 2, self.limit * _MIN_FRACTION, 1.0)
                self._rate_at = now
            if retry_after is None:
                backoff = min(_MAX_BACKOFF, _BACKOFF * 2.0 ** min(self._backoffs - 1, 10))
                backoff *= 0.5 + self._random()
            else:
                backoff = min(retry_after, _RETRY_AFTER_CAP) + self._random()
            self._blocked_until = max(self._blocked_until, now + max(backoff, 1.0))
            # No burst afterwards.
            self._theoretical_arrival = max(
                self._theoretical_arrival, self._blocked_until + self._tolerance
            )

    def succeeded(self) -> None:
        """Record a call that was not throttled."""
        self._backoffs = 0

    def _next_slot(self, now: float) -> float:
        self._adjust_to_clock(now)
        earliest = self._theoretical_arrival - self._tolerance
        return max(now, earliest, self._blocked_until, self._window_free_at())

    def _window_free_at(self) -> float:
        """Return when the sliding window has room for one more slot."""
        return self._window[0] + _WINDOW if len(self._window) == self.limit else 0.0

    def _take(self, slot: float, now: float) -> float:
        if slot <= self._window_free_at():
            # The window was full; what a burst saved up must not become another burst.
            self._theoretical_arrival = max(self._theoretical_arrival, slot + self._tolerance)
        self._theoretical_arrival = max(slot, self._theoretical_arrival) + self._spacing(now)
        self._window.append(slot)
        return slot

    def _spacing(self, now: float) -> float:
        """Return the seconds between two evenly spaced slots."""
        return 60 / self.rate(now)

    def _adjust_to_clock(self, now: float) -> None:
        """Move all times back if the clock was set back."""
        if (back := self._last_now - now) > _SET_BACK:
            self._theoretical_arrival -= back
            self._window = deque((slot - back for slot in self._window), self.limit)
            self._blocked_until -= back
            self._rate_at -= back
            self._released.clear()
            self._last_now = now
        self._last_now = max(self._last_now, now)


@dataclass(slots=True, eq=False, weakref_slot=True)
class Reservation:
    """A slot that a poller has reserved for its next call of a kind.

    :param slot: time of the slot, epoch seconds.
    :param urgent: whether the call is to confirm a run that has probably ended.
    :param due_at: since when the call has been due, epoch seconds.
    :param overtaken: how often an earlier slot was given up for an urgent call.
    :param went_first: whether it went before others because it has been due for longer.
    """

    slot: float
    urgent: bool = False
    due_at: float = math.inf
    overtaken: int = 0
    went_first: bool = False


class RateLimits:
    """The rate limiters of one IAM user in this process.

    :param limit: calls of one kind per minute.
    :param random: function that returns a number in [0, 1).
    """

    def __init__(self, limit: int, random: Callable[[], float] = random.random) -> None:
        self.limit = limit
        #: Limits of the connections in use, by who uses them.
        self._requested: WeakKeyDictionary[object, int] = WeakKeyDictionary()
        self._auth_locks: dict[str, ProcessLock] = {}
        #: Reservations of all pollers of the user; those of a discarded poller vanish with it.
        self.reservations: dict[Quota, WeakSet[Reservation]] = {quota: WeakSet() for quota in Quota}
        self.reservations_lock = ProcessLock()
        #: Whether the last call of a kind went first because it had been due for longer.
        self.went_first = dict.fromkeys(Quota, False)
        self.limiters = {quota: RateLimiter(limit, random) for quota in Quota}
        self.limiters[Quota.STOP] = RateLimiter(_STOP_FACTOR * limit, random, _STOP_BURST)

    def auth_lock(self, connection: str) -> ProcessLock:
        """Return the lock of the thread that requests authorization for the user.

        :param connection: key of the connection and of its way to the servers; one that does not
            answer blocks no other.
        """
        return self._auth_locks.setdefault(connection, ProcessLock())

    def merge_into(self, others: RateLimits) -> None:
        """Become one with the limits of another user: a connection names it in place of this one.

        That may be the same IAM user with another access key, so both count together.
        """
        with self.reservations_lock, others.reservations_lock:
            others._requested.update(self._requested)
            self._requested = others._requested
            self.limiters, self.reservations = others.limiters, others.reservations
            self.reservations_lock = others.reservations_lock

    def join(self, user: object, limit: int) -> None:
        """Take the limit of a connection into account for as long as its user exists.

        If connections in use set different limits, the lowest one applies.
        """
        with self.reservations_lock:
            self._requested[user] = limit
            self.limit = lowest = min(self._requested.values())
            for quota, limiter in self.limiters.items():
                limit = lowest * (_STOP_FACTOR if quota is Quota.STOP else 1)
                if limiter.limit != limit:
                    limiter.cap(limit)


_rate_limits: dict[object, RateLimits] = {}


def rate_limits_for(
    settings: Settings, user: object, random: Callable[[], float] = random.random
) -> RateLimits:
    """Return the rate limits of an IAM user: one object in this process, whatever the cluster.

    :param settings: settings of a connection.
    :param user: object that uses the limits; see :meth:`RateLimits.join`.
    :param random: function that returns a number in [0, 1).
    """
    limit = settings.requests_per_minute or REQUESTS_PER_MINUTE
    # setdefault is atomic, so two threads cannot end up with two objects. No secret is kept.
    limits = _rate_limits.setdefault(_owner(settings), RateLimits(limit, random))
    limits.join(user, limit)
    return limits


def follow_user(limits: RateLimits, settings: Settings, user: object) -> None:
    """Let limits count for what a connection holds now: perhaps another key, or another limit.

    :param limits: what :func:`rate_limits_for` returned for the connection before.
    :param settings: present settings of the connection.
    :param user: object that uses the limits.
    """
    others = _rate_limits.setdefault(_owner(settings), limits)
    if others.limiters is not limits.limiters:
        limits.merge_into(others)
    limits.join(user, settings.requests_per_minute or REQUESTS_PER_MINUTE)


def _owner(settings: Settings) -> object:
    return settings.iam_endpoint, settings.credentials.owner
