"""API client within the rate limits: each call reserves a slot first, and none waits out a 429."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.call import Call, Quota
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.auth.base import Authorization
from airflow_provider_cdm.client.polling.rate_limit import RateLimits
from airflow_provider_cdm.client.sansio import Flow, Response, pause

T = TypeVar("T")

#: Seconds that a call waits for its slot at most; a thread waits with it.
_MAX_WAIT = 5.0
#: Errors that say nothing about what was asked for, only that CDM gave no usable answer.
OUTAGE_ERRORS = (errors.CdmUnavailable, errors.CdmThrottled, errors.CdmBadResponse)


class RateLimited(Exception):  # noqa: N818 - not an error: the call is only postponed
    """The rate limit does not allow a call now, or CDM answered 429.

    :param quota: quota on which the call draws.
    :param until: when the call may be allowed, epoch seconds.
    """

    def __init__(self, quota: Quota, until: float) -> None:
        super().__init__(quota, until)
        self.quota, self.until = quota, until


@dataclass(slots=True)
class CallBatch:
    """The calls of one poll, which one thread makes, and their results.

    :param reserved: slot reserved for the first call, until that is made.
    :param answers: answers so far by path and query, so that waits for the same job share calls.
    :param postponed: kinds of calls that the rate limit does not allow now, so that no further
        wait of the batch tries them, or pauses for their slots.
    :param answered: whether CDM gave any usable answer.
    :param failure: error of the last call, if it says nothing about what was asked for.
    """

    reserved: tuple[Quota, float] | None = None
    answers: dict[object, Any] = field(default_factory=dict)
    postponed: dict[Quota, RateLimited] = field(default_factory=dict)
    answered: bool = False
    failure: errors.CdmError | None = None


@dataclass(frozen=True, slots=True)
class RateLimitedApi(CdmApi):
    """The API of one user, within the rate limits of that user.

    Failed calls are not retried here but by the poll planner, which knows what else is due.

    :param limits: rate limits of the user.
    :param batch: where answers and failures are collected.
    :param max_wait: seconds that a call waits for its slot at most.
    """

    limits: RateLimits
    batch: CallBatch
    max_wait: float = _MAX_WAIT

    @classmethod
    def wrap(cls, api: CdmApi, limits: RateLimits, batch: CallBatch) -> RateLimitedApi:
        """Return the same API within rate limits, for one batch of calls."""
        return cls(api.settings, api.auth, api.exchanger.once(), limits, batch)

    def for_side_task(self) -> RateLimitedApi:
        """Return the same API for optional calls.

        They share the answers of the batch and use free slots only, and their failures do not count
        as failures of the batch.
        """
        return replace(self, batch=CallBatch(answers=self.batch.answers), max_wait=0.0)

    def call(self, call: Call[T]) -> Flow[T]:
        """Make one call, unless the batch has its answer already.

        :raises RateLimited: when no slot is free soon enough, or CDM answers 429.
        :raises CdmError: when the call fails.
        """
        batch = self.batch
        key = _key(call)
        if key not in batch.answers:
            try:
                batch.answers[key] = yield from super(RateLimitedApi, self).call(call)
                batch.answered, batch.failure = True, None
            except errors.CdmError as error:
                batch.answers[key] = error
                if isinstance(error, OUTAGE_ERRORS) or error.refuses_credentials:
                    batch.failure = error
                else:
                    batch.answered = True
        answer = batch.answers[key]
        if isinstance(answer, errors.CdmError):
            raise answer
        return answer  # type: ignore[no-any-return]  # what call.parse returned

    def known_answer(self, call: Call[T]) -> T | None:
        """Return the answer to an operation that the batch has, unless it is an error."""
        answer = self.batch.answers.get(_key(call))
        return None if isinstance(answer, errors.CdmError) else answer

    def _authorize(self) -> Flow[Authorization]:
        if self.auth.is_ready():
            return (yield from self.auth.authorize())
        # Meant for threads: while one requests a token, others of the connection wait here.
        connection = f"{self.settings.conn_id} {self.settings.route_key}"
        with self.limits.auth_lock(connection):
            return (yield from self.auth.authorize())

    def _send(self, call: Call[T], authorization: Authorization) -> Flow[Response]:
        """Reserve a slot for each request; a rejected authorization leads to a second request."""
        if call.quota is None:
            return (yield from super(RateLimitedApi, self)._send(call, authorization))
        limiter = self.limits.limiters[call.quota]
        yield from self._take_slot(call.quota)
        try:
            response = yield from super(RateLimitedApi, self)._send(call, authorization)
        except errors.CdmThrottled as error:
            self.batch.failure = error
            now = self.exchanger.clock()
            limiter.throttled(now, error.retry_after)
            raise self._postpone(call.quota, limiter.next_slot(now)) from error
        limiter.succeeded()
        return response

    def _take_slot(self, quota: Quota) -> Flow[None]:
        """Use the reserved slot if it is of this kind; otherwise wait for the next one.

        A slot that expired while the call waited for a token is not used: it would add to those of
        the present minute.
        """
        if self.batch.reserved is not None and self.batch.reserved[0] is quota:
            (_, reserved_slot), self.batch.reserved = self.batch.reserved, None
            if self.limits.limiters[quota].is_usable(reserved_slot, self.exchanger.clock()):
                return
        if quota in self.batch.postponed:
            raise self.batch.postponed[quota]
        limiter, clock = self.limits.limiters[quota], self.exchanger.clock
        slot, reserved = limiter.try_reserve(clock(), self.max_wait)
        if reserved:
            yield from pause(slot - clock())
            # The machine may have been busy, and others may have got a 429.
            if limiter.is_usable(slot, clock()):
                return
            slot = limiter.next_slot(clock())
        raise self._postpone(quota, slot)

    def _postpone(self, quota: Quota, until: float) -> RateLimited:
        return self.batch.postponed.setdefault(quota, RateLimited(quota, until))


def _key(call: Call[Any]) -> object:
    return (call.path, *(call.query or {}).items())


@dataclass(frozen=True, slots=True)
class PacedApi(CdmApi):
    """The API of one user for calls beside the polls: each waits for a slot of its kind.

    :param limits: rate limits of the user.
    """

    limits: RateLimits

    @classmethod
    def wrap(cls, api: CdmApi, limits: RateLimits) -> PacedApi:
        """Return the same API within rate limits."""
        return cls(api.settings, api.auth, api.exchanger, limits)

    def _send(self, call: Call[T], authorization: Authorization) -> Flow[Response]:
        if call.quota is None:
            return (yield from super(PacedApi, self)._send(call, authorization))
        limiter, clock = self.limits.limiters[call.quota], self.exchanger.clock
        usable = False
        while not usable:
            slot = limiter.reserve(clock())
            yield from pause(slot - clock())
            # The event loop may have been busy, and others may have got a 429.
            usable = limiter.is_usable(slot, clock())
        try:
            return (yield from super(PacedApi, self)._send(call, authorization))
        except errors.CdmThrottled as error:
            limiter.throttled(self.exchanger.clock(), error.retry_after)
            raise
