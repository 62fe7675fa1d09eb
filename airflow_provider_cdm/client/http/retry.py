"""The retry policy: which failed exchanges are repeated, and after how long.

No other module repeats calls. ``RetryPolicy`` holds the rules, and ``Exchanger`` applies them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.http import error_mapping
from airflow_provider_cdm.client.http.dates import parse_http_date
from airflow_provider_cdm.client.sansio import (
    Flow,
    Request,
    Response,
    TransportError,
    pause,
    send_request,
)

log = logging.getLogger(__name__)

#: Instants between which a server's clock may be, epoch seconds: the years from 2001 to 2200. With
#: others, sums would leave the calendar.
_EARLIEST, _LATEST = 978_307_200.0, 7_289_654_400.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off with full jitter, unless the server names a delay (``Retry-After``).

    An idempotent call is repeated after every temporary failure. A start is repeated only when the
    failed attempt certainly had no effect: the connection was refused, or the call was throttled.

    :param attempts: number of attempts, including the first one.
    :param base: upper bound of the first delay, in seconds; it doubles with every attempt.
    :param cap: upper bound of every delay that the server does not name, in seconds.
    :param retry_after_cap: upper bound of a delay that the server names, in seconds: the longest
        window of a limit that was seen at the gateway.
    :param throttled_attempts: number of attempts of a call that is throttled for a time that the
        server names, if that is longer than ``cap``; on some services, each refused call counts as
        well.
    """

    attempts: int = 5
    base: float = 1.0
    cap: float = 20.0
    retry_after_cap: float = 300.0
    throttled_attempts: int = 3

    def delay(
        self, error: errors.CdmError, *, attempt: int, idempotent: bool, random: Callable[[], float]
    ) -> float | None:
        """Return the seconds to wait before the call is repeated; ``None`` if it must not be.

        :param error: how the last attempt failed.
        :param attempt: number of the failed attempt, counted from 1.
        :param idempotent: whether the call may be repeated even if it had its effect.
        :param random: function that returns a number in [0, 1).
        """
        if not error.retryable or attempt >= self.attempts:
            return None
        # Whether to wait for the end of another run is the caller's decision.
        if isinstance(error, errors.CdmAlreadyRunning):
            return None
        if error.effect_unknown and not idempotent:
            return None
        if error.retry_after is not None:
            throttled = isinstance(error, errors.CdmThrottled) and error.retry_after > self.cap
            if throttled and attempt >= self.throttled_attempts:
                return None
            # Up to a second later than requested, so that callers do not return all at once.
            return min(error.retry_after, self.retry_after_cap) + random()
        # The exponent is bounded, so that a large number of attempts cannot overflow a float.
        return random() * min(self.cap, self.base * 2.0 ** min(attempt - 1, 60))


@dataclass(slots=True)
class ServerClock:
    """Difference between the servers' clock and ours, from the ``Date`` header of responses.

    :param offset: seconds to add to our clock; 0 until a response with a date has arrived.
    :param known: whether one has arrived.
    """

    offset: float = 0.0
    known: bool = False

    def observe(self, response: Response, now: float) -> None:
        """Update the offset from a response.

        :param now: when the response arrived, epoch seconds by our clock.
        """
        sent_at = parse_http_date(response.headers.get("date", ""))
        if sent_at is not None and _EARLIEST < sent_at < _LATEST:
            # The header is truncated to whole seconds.
            self.offset, self.known = sent_at + 0.5 - now, True


@dataclass(frozen=True, slots=True)
class Exchanger:
    """Performs exchanges under a retry policy.

    :param policy: which failures are repeated.
    :param clock: function that returns epoch seconds.
    :param random: function that returns a number in [0, 1).
    :param server_clock: clock difference, updated by every response.
    :param monotonic: function that returns seconds by a clock that nobody can set; by default
        ``clock``.
    """

    policy: RetryPolicy
    clock: Callable[[], float]
    random: Callable[[], float]
    server_clock: ServerClock = field(default_factory=ServerClock)
    monotonic: Callable[[], float] | None = None

    def server_time(self) -> float:
        """Return the present time by the server's clock, epoch seconds; by ours if it told none."""
        return self.clock() + self.server_clock.offset

    def uptime(self) -> float:
        """Return seconds for measuring durations in this process; they begin anywhere."""
        return (self.monotonic or self.clock)()

    def once(self) -> Exchanger:
        """Return the same for calls that are not repeated."""
        return replace(self, policy=RetryPolicy(attempts=1))

    def exchange(
        self,
        request: Request,
        operation: str,
        *,
        idempotent: bool,
        wait_for_quota: bool = True,
        authorize: Callable[[Request], Request] = lambda request: request,
    ) -> Flow[Response]:
        """Send a request, repeat it under the policy, and return the successful response.

        :param request: request without credentials.
        :param operation: what is tried, to complete the sentence "Could not ...".
        :param idempotent: whether the request may be repeated even if it had its effect.
        :param wait_for_quota: whether to wait and repeat a call that was throttled.
        :param authorize: function that adds credentials; called before every attempt.
        :raises CdmError: the failure of the last attempt.
        """
        attempt = 0
        while True:
            attempt += 1
            sent = authorize(request)
            try:
                response = yield from send_request(sent)
            except TransportError as failure:
                error: errors.CdmError = error_mapping.from_transport(failure, operation, sent)
            else:
                response = replace(response, secrets=(*sent.secrets, *response.secrets))
                self.server_clock.observe(response, self.clock())
                refusal = error_mapping.from_response(response, operation, self.clock())
                if refusal is None:
                    return response
                error = refusal
            delay = self.policy.delay(
                error, attempt=attempt, idempotent=idempotent, random=self.random
            )
            if delay is None or (isinstance(error, errors.CdmThrottled) and not wait_for_quota):
                raise error
            again_at = datetime.fromtimestamp(self.clock() + delay, UTC)
            log.info("%s Trying again in %.1f s, at %s UTC.", error, delay, f"{again_at:%H:%M:%S}")
            yield from pause(delay)
