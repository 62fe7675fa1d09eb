"""Circuit breaker of a cluster: opens when several calls in a row fail, whatever they asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.http.retry import RetryPolicy
from airflow_provider_cdm.client.polling.model import PolledJob

#: Failures in a row after which only single calls probe whether CDM answers again.
_FAILURE_THRESHOLD = 3
_RETRIES = RetryPolicy(attempts=1_000_000)


@dataclass(slots=True)
class CircuitBreaker:
    """How long no call has been answered, and when the next probe may be sent.

    :param random: function that returns a number in [0, 1).
    :param failing_since: time of the first failure, epoch seconds; ``None`` while calls succeed.
    :param refused_since: time of the first refusal of credentials, epoch seconds; ``None`` while
        there is none.
    :param failures: number of failures in a row.
    :param probe_at: time of the next probe, epoch seconds.
    """

    random: Callable[[], float]
    failing_since: float | None = None
    refused_since: float | None = None
    failures: int = 0
    probe_at: float = 0.0

    @property
    def half_open(self) -> bool:
        """Whether polls are limited to one probe at a time, not before ``probe_at``."""
        return self.failures >= _FAILURE_THRESHOLD

    def record_failure(self, error: errors.CdmError, now: float) -> float:
        """Record a failure, and return how many seconds calls have been failing in this way."""
        self.failures += 1
        self.probe_at = now + retry_pause(error, self.failures, self.random)
        if not error.refuses_credentials:
            self.failing_since = now if self.failing_since is None else self.failing_since
            return now - self.failing_since
        # A refusal is an answer. Before the connection has been read, it may not hold the refused.
        self.failing_since = None
        if self.refused_since is None or error.connection_unread:
            self.refused_since = now
        return now - self.refused_since

    def shift(self, seconds: float) -> None:
        """Move all times by some seconds, as the clock was set."""
        self.probe_at += seconds
        if self.failing_since is not None:
            self.failing_since += seconds
        if self.refused_since is not None:
            self.refused_since += seconds

    def close(self) -> None:
        """Record an answer: polls are no longer limited to probes."""
        self.failing_since = self.refused_since = None
        self.failures, self.probe_at = 0, 0.0


def next_probe(jobs: Iterable[PolledJob], random: Callable[[], float]) -> PolledJob | None:
    """Choose the job to probe with: one whose last poll has not failed, otherwise the one polled
    longest ago.

    Jobs take turns, since the status calls of some jobs may fail while CDM is healthy; and each of
    these may take a minute. Those that have not been polled yet come in any order: jobs that were
    added together may all be broken.

    :param random: function that returns a number in [0, 1).
    """
    return min(
        (job for job in jobs if not job.in_flight),
        key=lambda job: (job.failures > 0, job.polled_at, random()),
        default=None,
    )


def retry_pause(error: errors.CdmError, attempt: int, random: Callable[[], float]) -> float:
    """Return the seconds until a failed poll is retried.

    :param error: what the poll failed with.
    :param attempt: number of failures in a row.
    :param random: function that returns a number in [0, 1).
    """
    if error.refuses_credentials:
        # Nothing is sent while the credentials are blocked; the connection is looked up then.
        return random() * min(_RETRIES.cap, 2.0 ** min(attempt, 10))
    pause = _RETRIES.delay(error, attempt=attempt, idempotent=True, random=random)
    return _RETRIES.cap if pause is None else pause
