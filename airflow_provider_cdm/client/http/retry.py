"""Which failed exchange is repeated, and after how long. There is no other place for that."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC
from email.utils import parsedate_to_datetime

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.http import error_mapping
from airflow_provider_cdm.client.sansio import (
    Flow,
    Request,
    Response,
    TransportError,
    ask,
    pause,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off with full jitter, or the server's own wish.

    An idempotent call is repeated after every failure that can pass. A start is repeated only when
    the failed one surely had no effect: the connection was refused, or the quota was used up.

    :param attempts: calls in all, the first one included.
    :param base: upper bound of the first pause, in seconds; it doubles with every attempt.
    :param cap: upper bound of any pause that we choose, in seconds.
    :param retry_after_cap: longest ``Retry-After`` that is honoured, in seconds.
    """

    attempts: int = 5
    base: float = 1.0
    cap: float = 20.0
    retry_after_cap: float = 120.0

    def pause(
        self, error: errors.CdmError, *, attempt: int, idempotent: bool, random: Callable[[], float]
    ) -> float | None:
        """Seconds to wait before the call is repeated, or ``None`` if it must not be.

        :param attempt: which attempt failed, counted from 1.
        :param random: returns a number in [0, 1).
        """
        if not error.retryable or attempt >= self.attempts:
            return None
        # A run that is in the way ends in its own time; waiting for it is the caller's decision.
        if isinstance(error, errors.CdmAlreadyRunning):
            return None
        if error.effect_unknown and not idempotent:
            return None
        if error.retry_after is not None:
            # A little later than told, and not all at the same instant.
            return min(error.retry_after, self.retry_after_cap) + random()
        # The exponent is bounded so that a generous number of attempts cannot overflow a float.
        return random() * min(self.cap, self.base * 2.0 ** min(attempt - 1, 60))


@dataclass(slots=True)
class ServerClock:
    """How far the servers' clock is ahead of ours, learnt from the ``Date`` of their answers.

    :param offset: seconds to add to our clock; 0 until an answer told better.
    """

    offset: float = 0.0

    def observe(self, response: Response, now: float) -> None:
        """Take note of an answer that arrived at ``now``, epoch seconds by our clock."""
        with suppress(KeyError, ValueError, OverflowError):
            sent_at = parsedate_to_datetime(response.headers["date"])
            # HTTP dates are in UTC, and one of their forms does not say so.
            sent_at = sent_at if sent_at.tzinfo else sent_at.replace(tzinfo=UTC)
            # The header is cut to whole seconds.
            self.offset = sent_at.timestamp() + 0.5 - now


@dataclass(frozen=True, slots=True)
class Exchanger:
    """Performs exchanges under a retry policy.

    :param policy: what to repeat.
    :param clock: epoch seconds.
    :param random: returns a number in [0, 1).
    :param server_clock: kept up to date by every answer.
    """

    policy: RetryPolicy
    clock: Callable[[], float]
    random: Callable[[], float]
    server_clock: ServerClock = field(default_factory=ServerClock)

    def exchange(
        self,
        request: Request,
        operation: str,
        *,
        idempotent: bool,
        wait_for_quota: bool = True,
        authorize: Callable[[Request], Request] = lambda request: request,
    ) -> Flow[Response]:
        """Get a successful answer.

        :param operation: what is tried, to complete the sentence "Could not ...".
        :param idempotent: whether the request may be repeated without a thought.
        :param wait_for_quota: whether to wait when a quota is used up.
        :param authorize: adds credentials, each time that the request goes out.
        :raises CdmError: what the last attempt came to.
        """
        attempt = 0
        while True:
            attempt += 1
            sent = authorize(request)
            try:
                response = yield from ask(sent)
            except TransportError as failure:
                error: errors.CdmError = error_mapping.from_transport(failure, operation, sent)
            else:
                response = replace(response, secrets=sent.secrets)
                self.server_clock.observe(response, self.clock())
                refusal = error_mapping.from_response(response, operation, self.clock())
                if refusal is None:
                    return response
                error = refusal
            delay = self.policy.pause(
                error, attempt=attempt, idempotent=idempotent, random=self.random
            )
            if delay is None or (isinstance(error, errors.CdmThrottled) and not wait_for_quota):
                raise error
            log.info("%s Trying again in %.1f s.", error, delay)
            yield from pause(delay)
