"""Flows that keep to a budget: every call takes a slot first, and none waits out a 429."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.call import Call, Quota
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.auth.base import Authorization
from airflow_provider_cdm.client.http.retry import RetryPolicy
from airflow_provider_cdm.client.polling.rate_limit import RateLimits
from airflow_provider_cdm.client.sansio import Flow, Response, pause

T = TypeVar("T")

#: Seconds that a flow waits for a slot on its way; a thread waits with it.
_PATIENCE = 5.0
#: Errors that say nothing about what was asked for, only that it could not be asked.
TROUBLES = (errors.CdmUnavailable, errors.CdmThrottled, errors.CdmBadResponse)


class RateLimited(Exception):  # noqa: N818 - not an error: nothing happened, nothing was learnt
    """The budget does not allow a call now, or CDM refused it with 429.

    :param until: when it may be allowed, epoch seconds.
    """

    def __init__(self, until: float) -> None:
        super().__init__(until)
        self.until = until


@dataclass(slots=True)
class CallBatch:
    """What one thread does in one go, and what came of it.

    :param reserved: the slot that was taken for its first call, until that is made.
    :param answers: what was answered already, by path and query; so waits on one job share calls.
    :param succeeded: whether CDM gave any usable answer.
    :param trouble: what the last call failed with, if that says nothing about what was asked.
    """

    reserved: tuple[Quota, float] | None = None
    answers: dict[object, Any] = field(default_factory=dict)
    succeeded: bool = False
    trouble: errors.CdmError | None = None


@dataclass(frozen=True, slots=True)
class RateLimitedApi(CdmApi):
    """The flows of one user, within the user's budget; ``patience`` is how many seconds a call
    waits for its slot.

    Failed calls are not repeated here: the watch does that, which knows what else is to be asked.
    """

    limits: RateLimits
    batch: CallBatch
    patience: float = _PATIENCE

    @classmethod
    def of(cls, api: CdmApi, limits: RateLimits, batch: CallBatch) -> RateLimitedApi:
        """The same flows on a budget, for one errand."""
        once = replace(api.exchanger, policy=RetryPolicy(attempts=1))
        return cls(api.settings, api.auth, once, limits, batch)

    def side_task(self) -> RateLimitedApi:
        """The same for calls that nobody depends on: they take what slots are free, and what comes
        of them says nothing about the errand, though answers are shared.
        """
        return replace(self, batch=CallBatch(answers=self.batch.answers), patience=0.0)

    def call(self, call: Call[T]) -> Flow[T]:
        """Perform one operation, unless it is answered already.

        :raises Postponed: when the budget does not allow it soon, or CDM says 429.
        :raises CdmError: what the attempt came to.
        """
        batch = self.batch
        key = (call.path, *(call.query or {}).items())
        if key not in batch.answers:
            try:
                # Made for threads: one asks for a token, the others of this user wait here for it.
                with self.limits.auth_lock:
                    yield from self.auth.authorize()
                batch.answers[key] = yield from super(RateLimitedApi, self).call(call)
                batch.succeeded, batch.trouble = True, None
            except errors.CdmError as error:
                batch.answers[key] = error
                if isinstance(error, TROUBLES):
                    batch.trouble = error
                else:
                    batch.succeeded = True
        answer = batch.answers[key]
        if isinstance(answer, errors.CdmError):
            raise answer
        return answer  # type: ignore[no-any-return]  # what call.parse made

    def _send(self, call: Call[T], authorization: Authorization) -> Flow[Response]:
        """Take a slot for each request that goes out; a grant that is refused leads to two."""
        limiter = None if call.quota is None else self.limits.limiters[call.quota]
        if self.batch.reserved is not None and self.batch.reserved[0] is call.quota:
            self.batch.reserved = None
        elif limiter is not None:
            now = self.exchanger.clock()
            slot, taken = limiter.try_reserve(now, self.patience)
            if not taken:
                raise RateLimited(slot)
            yield from pause(slot - now)
        try:
            response = yield from super(RateLimitedApi, self)._send(call, authorization)
        except errors.CdmThrottled as error:
            self.batch.trouble = error
            if limiter is None:
                raise
            now = self.exchanger.clock()
            limiter.throttled(now, error.retry_after)
            raise RateLimited(limiter.next_slot(now)) from error
        if limiter is not None:
            limiter.succeeded()
        return response
