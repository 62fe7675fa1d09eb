"""The slots that pollers of one IAM user have reserved for their next calls, and their order."""

from __future__ import annotations

import math

from airflow_provider_cdm.client.api.call import Quota
from airflow_provider_cdm.client.polling.rate_limit import RateLimits, Reservation

#: How often urgent calls may take the slot of another poller before its own turn comes.
_MAX_OVERTAKEN = 3
#: Seconds by which a call must have been due for longer than another one to go first.
_OLDER = 1.0


class Reservations:
    """The slots that one poller has reserved: at most one for each kind of call.

    Pollers of one user get slots in the order in which they ask, so none starves another. An urgent
    call may swap its slot with an earlier one that is not urgent; each reservation can lose its
    slot that way only a few times. And every second slot may go to the call that has been due for
    longest: otherwise a poller with many waits would get no more slots than one with a single wait.

    :param limits: rate limits of the user.
    """

    def __init__(self, limits: RateLimits) -> None:
        self._limits = limits
        self._reserved: dict[Quota, Reservation] = {}

    def ready(
        self, quota: Quota, now: float, *, urgent: bool = False, due_at: float = math.inf
    ) -> bool:
        """Return whether a call may be made now; if not, a slot is reserved for later.

        :param urgent: whether the call is to confirm a run that has probably ended.
        :param due_at: since when the call has been due, epoch seconds.
        """
        limiter = self._limits.limiters[quota]
        with self._limits.reservations_lock:
            reservation = self._reserved.get(quota)
            if reservation is None or not limiter.is_usable(reservation.slot, now):
                reservation = self._reserved[quota] = Reservation(limiter.reserve(now))
                self._limits.reservations[quota].add(reservation)
            reservation.urgent, reservation.due_at = urgent, due_at
            if reservation.slot > now:
                is_usable = limiter.is_usable
                others = [
                    other
                    for other in self._limits.reservations[quota]
                    if other.slot < reservation.slot and is_usable(other.slot, now)
                ]
                others.sort(key=lambda other: other.slot)
                if urgent:
                    _swap(reservation, others)
                elif not reservation.went_first:
                    _go_first(reservation, others, self._limits.went_first[quota])
            return reservation.slot <= now

    def slot(self, quota: Quota) -> float:
        """Return the time of the reserved slot, epoch seconds; 0 if none is reserved."""
        reservation = self._reserved.get(quota)
        return reservation.slot if reservation else 0.0

    def use(self, quota: Quota) -> float:
        """Take the reserved slot for a call that is made now, and return its time."""
        with self._limits.reservations_lock:
            return self._remove(quota)

    def give_back(self) -> None:
        """Give all reserved slots to others, since this poller makes no more calls."""
        with self._limits.reservations_lock:
            for quota in list(self._reserved):
                self._limits.limiters[quota].release(self._remove(quota))

    def clear(self) -> None:
        """Drop all reservations."""
        with self._limits.reservations_lock:
            for quota in list(self._reserved):
                self._remove(quota)

    def _remove(self, quota: Quota) -> float:
        reservation = self._reserved.pop(quota)
        self._limits.went_first[quota] = reservation.went_first
        self._limits.reservations[quota].discard(reservation)
        return reservation.slot


def _swap(urgent: Reservation, earlier: list[Reservation]) -> None:
    """Swap slots with the earliest reservation that is not urgent."""
    for other in earlier:
        if not other.urgent and other.overtaken < _MAX_OVERTAKEN:
            urgent.slot, other.slot = other.slot, urgent.slot
            other.overtaken += 1
            return


def _go_first(older: Reservation, earlier: list[Reservation], after_first: bool) -> None:
    """Go before calls that have not been due for as long; each of them gets the slot of the next.

    :param earlier: reservations with earlier slots, in the order of these.
    :param after_first: whether the call before them went first itself; of two calls, one may.
    """
    for index, other in enumerate(earlier):
        if other.went_first:
            after_first = True
        elif after_first:
            after_first = False
        elif not other.urgent and older.due_at + _OLDER < other.due_at:
            later = [r for r in earlier[index:] if not (r.urgent or r.went_first)]
            slots = [r.slot for r in (*later, older)]
            for reservation, slot in zip((older, *later), slots, strict=True):
                reservation.slot = slot
            older.went_first = True
            return
