"""How many calls may be made: CDM's quotas per IAM user and minute, and what 429 teaches.

Each kind of call has a quota of its own. A :class:`RateLimiter` hands out instants at which one call may
be made, so that calls are spread instead of sent in heaps, and never are more than the limit within
a minute. Workers and other triggerers draw on the same quotas unseen; when CDM says 429 the lane
halves its pace and gets back slowly, by which all users of one quota come to equal shares.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakSet

from airflow_provider_cdm.client.api.call import Quota
from airflow_provider_cdm.client.settings import Settings

#: Calls of one kind per minute, where the connection says nothing. CDM documents 120; the rest is
#: for what does not wait here: starts, sensors that poke, and people in the console.
REQUESTS_PER_MINUTE = 100
#: A slot that was not used for this long, in seconds, is lost; or two calls could meet.
SLOT_SECONDS = 1.0
#: Seconds between a slot and the one that comes a limit later: slots may be used late.
_MINUTE = 60 + SLOT_SECONDS
#: Seconds of silence after the first 429 that does not say for how long; it doubles.
_SILENCE, _LONGEST_SILENCE = 5.0, 60.0
#: Longest ``Retry-After`` that is honoured, in seconds.
_RETRY_AFTER_CAP = 120.0
#: Minutes in which a lane gets back from nothing to its limit.
_RECOVERY = 5.0
#: The slowest pace, as a part of the limit.
_SLOWEST = 1 / 16
#: How often a watch lets others go first before its own turn comes.
_PATIENCE = 3


class RateLimiter:
    """Instants for calls of one kind; usable from many threads at once.

    Within any minute it hands out at most ``limit`` of them; up to a tenth of that at once.

    :param limit: calls per minute.
    :param random: returns a number in [0, 1).
    """

    def __init__(self, limit: int, random: Callable[[], float] = random.random) -> None:
        self._lock = threading.Lock()
        self._random = random
        self._pace, self._pace_at = 0.0, 0.0
        #: When the next call would be due if all calls kept the pace; the burst may come earlier.
        self._even = 0.0
        self._silent_until = 0.0
        #: The latest slots, as many as the limit.
        self._taken: deque[float] = deque()
        self._returned: list[float] = []
        self._refusals = 0
        self._seen = 0.0
        self.cap(limit)
        self._pace = self._full

    def cap(self, limit: int) -> None:
        """Set the limit, in calls per minute."""
        self.limit = max(1, limit)
        self._burst = max(1, self.limit // 10)
        self._taken = deque(self._taken, maxlen=self.limit)
        self._full = self.limit * 60 / _MINUTE

    def pace(self, now: float) -> float:
        """Calls per minute that it allows at present."""
        recovered = self._pace + max(0.0, now - self._pace_at) / 60 * self.limit / _RECOVERY
        return min(self._full, recovered)

    def reserve(self, now: float) -> float:
        """Take the next slot, and return when it is, in epoch seconds."""
        with self._lock:
            self._follow_clock(now)
            while self._returned:
                slot = self._returned.pop()
                if self.is_valid(slot, now):
                    return slot
            return self._advance(self._next(now), now)

    def try_reserve(self, now: float, patience: float) -> tuple[float, bool]:
        """Return when the next slot is, and whether it was taken: it is, within some seconds."""
        with self._lock:
            slot = self._next(now)
            taken = slot <= now + patience
            if taken:
                self._advance(slot, now)
            return slot, taken

    def next_slot(self, now: float) -> float:
        """When the next slot is, epoch seconds; it is not taken."""
        with self._lock:
            return self._next(now)

    def is_valid(self, slot: float, now: float) -> bool:
        """Whether a slot that was taken before may still be used, now or later."""
        return now <= slot + SLOT_SECONDS and slot >= self._silent_until

    def release(self, slot: float) -> None:
        """Return a slot that was taken and led to no call; another one may take its place."""
        with self._lock:
            self._returned.append(slot)

    def throttled(self, now: float, retry_after: float | None = None) -> None:
        """Take note of a 429: be silent for a while, then go on at half the pace.

        :param retry_after: seconds that CDM asked us to wait.
        """
        with self._lock:
            self._follow_clock(now)
            # What was on its way when the first one came is the same refusal.
            if now >= self._silent_until:
                self._refusals += 1
                self._pace = max(self.pace(now) / 2, self.limit * _SLOWEST, 1.0)
                self._pace_at = now
            if retry_after is None:
                silence = min(_LONGEST_SILENCE, _SILENCE * 2.0 ** min(self._refusals - 1, 10))
                silence *= 0.5 + self._random()
            else:
                silence = min(retry_after, _RETRY_AFTER_CAP) + self._random()
            self._silent_until = max(self._silent_until, now + max(silence, 1.0))
            # No burst afterwards.
            self._even = max(self._even, self._silent_until + self._tolerance(now))

    def succeeded(self) -> None:
        """Take note of a call that was not refused."""
        self._refusals = 0

    def _next(self, now: float) -> float:
        self._follow_clock(now)
        even = self._even - self._tolerance(now)
        return max(now, even, self._silent_until, self._room())

    def _room(self) -> float:
        """When a minute has room for one more slot."""
        return self._taken[0] + _MINUTE if len(self._taken) == self.limit else 0.0

    def _advance(self, slot: float, now: float) -> float:
        if slot <= self._room():
            # The minute was full; what a burst has saved is not to be another burst.
            self._even = max(self._even, slot + self._tolerance(now))
        self._even = max(slot, self._even) + self._gap(now)
        self._taken.append(slot)
        return slot

    def _gap(self, now: float) -> float:
        return 60 / self.pace(now)

    def _tolerance(self, now: float) -> float:
        return (self._burst - 1) * self._gap(now)

    def _follow_clock(self, now: float) -> None:
        """When the clock was set back, what was to come comes as much earlier."""
        if (back := self._seen - now) > SLOT_SECONDS:
            self._even -= back
            self._taken = deque((slot - back for slot in self._taken), self.limit)
            self._silent_until -= back
            self._pace_at -= back
            self._returned.clear()
        self._seen = now


class RateLimits:
    """The lanes of one IAM user in this process.

    :param limit: calls of one kind per minute.
    :param random: returns a number in [0, 1).
    """

    def __init__(self, limit: int, random: Callable[[], float] = random.random) -> None:
        self.limit = limit
        #: Held by the thread that asks for the user's authorisation.
        self.auth_lock = threading.Lock()
        #: Slots that watches hold; a watch that is gone holds none.
        self.held: dict[Quota, WeakSet[Reservation]] = {quota: WeakSet() for quota in Quota}
        self.holding = threading.Lock()
        self.limiters = {quota: RateLimiter(limit, random) for quota in Quota}

    def cap(self, limit: int) -> None:
        """Take the lower one of this and the present limit."""
        if limit < self.limit:
            self.limit = limit
            for limiter in self.limiters.values():
                limiter.cap(limit)


@dataclass(slots=True, eq=False, weakref_slot=True)
class Reservation:
    """A slot that a watch holds for its next call of a kind.

    :param at: the slot, epoch seconds.
    :param urgent: whether a run that is probably over waits for it.
    :param overtaken: how often an earlier one was given up for somebody in a hurry.
    """

    at: float
    urgent: bool = False
    overtaken: int = 0


class Reservations:
    """The slots that one watch holds, one of each kind at most.

    Watches of one user get theirs in the order in which they ask, so that none starves another.
    Who is in a hurry changes slots with one who is not, which each has to bear a few times only.

    :param limits: of the user.
    """

    def __init__(self, limits: RateLimits) -> None:
        self._limits = limits
        self._held: dict[Quota, Reservation] = {}

    def ready(self, quota: Quota, now: float, *, urgent: bool = False) -> bool:
        """Whether a call may be made now; if not, a slot is held for the next time."""
        limiter = self._limits.limiters[quota]
        with self._limits.holding:
            held = self._held.get(quota)
            if held is None or not limiter.is_valid(held.at, now):
                held = self._held[quota] = Reservation(limiter.reserve(now))
                self._limits.held[quota].add(held)
            held.urgent = urgent
            if urgent and held.at > now:
                self._overtake(quota, held, now)
            return held.at <= now

    def _overtake(self, quota: Quota, mine: Reservation, now: float) -> None:
        """Change slots with the first one who is in no hurry."""
        is_valid, first = self._limits.limiters[quota].is_valid, mine
        for other in self._limits.held[quota]:
            patient = not other.urgent and other.overtaken < _PATIENCE
            if patient and other.at < first.at and is_valid(other.at, now):
                first = other
        if first is not mine:
            mine.at, first.at = first.at, mine.at
            first.overtaken += 1

    def when(self, quota: Quota) -> float:
        """When the held slot is, epoch seconds; long ago if none is held."""
        held = self._held.get(quota)
        return held.at if held else 0.0

    def unschedule(self) -> None:
        """Hold none any more."""
        with self._limits.holding:
            for quota in list(self._held):
                self._drop(quota)

    def use(self, quota: Quota) -> float:
        """Let a call be made in the held slot; returns the slot."""
        with self._limits.holding:
            return self._drop(quota)

    def _drop(self, quota: Quota) -> float:
        held = self._held.pop(quota)
        self._limits.held[quota].discard(held)
        return held.at


_rate_limits: dict[object, RateLimits] = {}


def rate_limits_for(settings: Settings, random: Callable[[], float] = random.random) -> RateLimits:
    """Return the budget of the settings' user: one in this process, whatever the cluster.

    Where connections of one user name different limits, the lowest one holds.
    """
    limit = settings.requests_per_minute or REQUESTS_PER_MINUTE
    # setdefault is one atomic step, so two threads cannot end up with two budgets.
    limits = _rate_limits.setdefault(
        (settings.iam_endpoint, settings.credentials), RateLimits(limit, random)
    )
    limits.cap(limit)
    return limits
