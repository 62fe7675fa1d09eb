"""For how long a cluster could not be asked, whatever was asked of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.http.retry import RetryPolicy
from airflow_provider_cdm.client.polling.model import PolledJob

#: Failures in a row after which only one call at a time probes whether CDM is back.
_SIGNS = 3
_RETRIES = RetryPolicy(attempts=1_000_000)


@dataclass(slots=True)
class CircuitBreaker:
    """For how long nothing has been answered.

    :param random: returns a number in [0, 1).
    :param since: when the first failure came, epoch seconds; ``None`` while all is well.
    :param failures: how many came since.
    :param probe_at: when to ask again, epoch seconds.
    """

    random: Callable[[], float]
    since: float | None = None
    failures: int = 0
    probe_at: float = 0.0

    @property
    def half_open(self) -> bool:
        """Whether to ask one thing at a time only."""
        return self.failures >= _SIGNS

    def failed(self, error: errors.CdmError, now: float) -> float:
        """Take note of a failure; returns for how long it has lasted, in seconds."""
        self.since = now if self.since is None else self.since
        self.failures += 1
        self.probe_at = now + retry_pause(error, self.failures, self.random)
        return now - self.since

    def over(self) -> None:
        """Take note of an answer."""
        self.since, self.failures, self.probe_at = None, 0, 0.0


def next_probe(jobs: Iterable[PolledJob]) -> PolledJob | None:
    """Choose what to ask in an outage: each job in turn, since one may be broken by itself."""
    return min(
        (job for job in jobs if not job.in_flight), key=lambda job: job.tried_at, default=None
    )


def retry_pause(error: errors.CdmError, attempt: int, random: Callable[[], float]) -> float:
    """Seconds until something that failed is asked again.

    :param attempt: how often it failed in a row.
    :param random: returns a number in [0, 1).
    """
    pause = _RETRIES.delay(error, attempt=attempt, idempotent=True, random=random)
    return _RETRIES.cap if pause is None else pause
