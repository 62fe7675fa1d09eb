"""Flows that keep to a budget: every call takes a slot first, and none waits out a 429."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.call import Call, Quota
from airflow_provider_cdm.client.api.client import CdmFlows
from airflow_provider_cdm.client.auth.base import Grant
from airflow_provider_cdm.client.http.retry import RetryPolicy
from airflow_provider_cdm.client.polling.rate_limit import Budget
from airflow_provider_cdm.client.sansio import Flow, Response, pause

T = TypeVar("T")

#: Seconds that a flow waits for a slot on its way; a thread waits with it.
_PATIENCE = 5.0
#: Errors that say nothing about what was asked for, only that it could not be asked.
TROUBLES = (errors.CdmUnavailable, errors.CdmThrottled, errors.CdmBadResponse)


class Postponed(Exception):  # noqa: N818 - not an error: nothing happened, nothing was learnt
    """The budget does not allow a call now, or CDM refused it with 429.

    :param until: when it may be allowed, epoch seconds.
    """

    def __init__(self, until: float) -> None:
        super().__init__(until)
        self.until = until


@dataclass(slots=True)
class Errand:
    """What one thread does in one go, and what came of it.

    :param paid: the slot that was taken for its first call, until that is made.
    :param answers: what was answered already, by path and query; so waits on one job share calls.
    :param answered: whether CDM gave any usable answer.
    :param trouble: what the last call failed with, if that says nothing about what was asked.
    """

    paid: tuple[Quota, float] | None = None
    answers: dict[object, Any] = field(default_factory=dict)
    answered: bool = False
    trouble: errors.CdmError | None = None


@dataclass(frozen=True, slots=True)
class MeteredFlows(CdmFlows):
    """The flows of one user, within the user's budget; ``patience`` is how many seconds a call
    waits for its slot.

    Failed calls are not repeated here: the watch does that, which knows what else is to be asked.
    """

    budget: Budget
    errand: Errand
    patience: float = _PATIENCE

    @classmethod
    def of(cls, flows: CdmFlows, budget: Budget, errand: Errand) -> MeteredFlows:
        """The same flows on a budget, for one errand."""
        once = replace(flows.exchanger, policy=RetryPolicy(attempts=1))
        return cls(flows.settings, flows.access, once, budget, errand)

    def beside(self) -> MeteredFlows:
        """The same for calls that nobody depends on: they take what slots are free, and what comes
        of them says nothing about the errand, though answers are shared.
        """
        return replace(self, errand=Errand(answers=self.errand.answers), patience=0.0)

    def call(self, call: Call[T]) -> Flow[T]:
        """Perform one operation, unless it is answered already.

        :raises Postponed: when the budget does not allow it soon, or CDM says 429.
        :raises CdmError: what the attempt came to.
        """
        errand = self.errand
        key = (call.path, *(call.query or {}).items())
        if key not in errand.answers:
            try:
                # Made for threads: one asks for a token, the others of this user wait here for it.
                with self.budget.granting:
                    yield from self.access.grant()
                errand.answers[key] = yield from super(MeteredFlows, self).call(call)
                errand.answered, errand.trouble = True, None
            except errors.CdmError as error:
                errand.answers[key] = error
                if isinstance(error, TROUBLES):
                    errand.trouble = error
                else:
                    errand.answered = True
        answer = errand.answers[key]
        if isinstance(answer, errors.CdmError):
            raise answer
        return answer  # type: ignore[no-any-return]  # what call.parse made

    def _send(self, call: Call[T], grant: Grant) -> Flow[Response]:
        """Take a slot for each request that goes out; a grant that is refused leads to two."""
        lane = None if call.quota is None else self.budget.lanes[call.quota]
        if self.errand.paid is not None and self.errand.paid[0] is call.quota:
            self.errand.paid = None
        elif lane is not None:
            now = self.exchanger.clock()
            slot, taken = lane.take(now, self.patience)
            if not taken:
                raise Postponed(slot)
            yield from pause(slot - now)
        try:
            response = yield from super(MeteredFlows, self)._send(call, grant)
        except errors.CdmThrottled as error:
            self.errand.trouble = error
            if lane is None:
                raise
            now = self.exchanger.clock()
            lane.refused(now, error.retry_after)
            raise Postponed(lane.next_slot(now)) from error
        if lane is not None:
            lane.answered()
        return response
