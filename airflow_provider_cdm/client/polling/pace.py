"""How long looks at jobs take, one by one or by list, from how long CDM's last answers took."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from airflow_provider_cdm.client.api.call import Quota
from airflow_provider_cdm.client.polling.in_flight import MAX_IN_FLIGHT, MAX_PAGES
from airflow_provider_cdm.client.polling.rate_limit import RateLimits

#: Weight of the last answer in the mean.
_WEIGHT = 0.3
#: Seconds for which a mean is relied on without further answers; then they are taken to be quick
#: again, so that what was avoided for being slow is tried again.
_VALID_SECONDS = 600.0
#: Longest time counted for one answer: the clock may have been set meanwhile.
_MAX_SECONDS = 120.0


@dataclass(slots=True)
class Pace:
    """How many looks, and how many pages of the job list, there can be in some time.

    Slots limit both, and threads do if answers are slow.

    :param limits: rate limits of the user.
    :param means: mean seconds for which the last polls of a kind held their threads, and when the
        last of them ended, epoch seconds.
    """

    limits: RateLimits
    means: dict[Quota, tuple[float, float]] = field(default_factory=dict)

    def record(self, quota: Quota, seconds: float, now: float) -> None:
        """Record how long a poll took that was answered."""
        seconds = min(max(0.0, seconds), _MAX_SECONDS)
        mean = self.seconds(quota, now) if quota in self.means else seconds
        self.means[quota] = mean + _WEIGHT * (seconds - mean), now

    def seconds(self, quota: Quota, now: float) -> float:
        """Return how many seconds one poll takes; 0 if that is not known."""
        mean, measured_at = self.means.get(quota, (0.0, -math.inf))
        return mean if now - measured_at < _VALID_SECONDS else 0.0

    def last_seconds(self, quota: Quota) -> float:
        """Return how many seconds a poll took when there last were any; 0 if that is not known."""
        return self.means.get(quota, (0.0, 0.0))[0]

    def looks_seconds(self, count: int, quota: Quota, now: float) -> float:
        """Return the seconds until each of some jobs has been looked at."""
        return count * max(self._spacing(quota, now), self.seconds(quota, now) / MAX_IN_FLIGHT)

    def looks_per_minute(self, now: float) -> float:
        """Return how many status calls a minute this poller may make, beside those of the user."""
        return 60 / self._spacing(Quota.STATUS, now)

    def listing_seconds(self, pages: int, latency: float, now: float) -> float:
        """Return the seconds until all pages have been read.

        :param latency: seconds that one page takes.
        """
        rounds = 1 + math.ceil((pages - 1) / MAX_PAGES)
        return max(pages * self._spacing(Quota.LISTING, now), rounds * latency)

    def _spacing(self, quota: Quota, now: float) -> float:
        """Return the seconds between two slots of one poller; pollers of a user take turns."""
        pollers = max(1, len(self.limits.reservations[quota]))
        return pollers * 60 / self.limits.limiters[quota].rate(now)

    def shift(self, seconds: float) -> None:
        """Move all times by some seconds, as the clock was set."""
        self.means = {quota: (mean, at + seconds) for quota, (mean, at) in self.means.items()}
