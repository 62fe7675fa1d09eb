"""How many polls are in flight, and how many of each kind may be."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from airflow_provider_cdm.client.api.call import Quota
from airflow_provider_cdm.client.polling.model import PolledJob
from airflow_provider_cdm.client.polling.polls import Poll, StatusPoll

#: Polls in flight at most, each of which occupies a thread. That many are needed only while answers
#: are slow: with answers of 20 s, to use up a quota.
MAX_IN_FLIGHT = 32
#: Of these, polls at most of jobs whose last poll failed: such polls may take a minute each.
_MAX_RETRIES = MAX_IN_FLIGHT // 2
#: Pages of the job list that are read at a time, once their number is known.
MAX_PAGES = 8
#: How many of them each kind of poll may have while others are due as well.
_SHARES = {Quota.STATUS: 20, Quota.HISTORY: 8, Quota.LISTING: 4}


@dataclass(slots=True)
class InFlight:
    """The polls in flight on one cluster.

    :param total: number of all polls.
    :param retries: number of polls of jobs whose last poll failed.
    :param kinds: number of polls by the quota of their first call.
    """

    total: int = 0
    retries: int = 0
    kinds: Counter[Quota] = field(default_factory=Counter)

    @property
    def may_list(self) -> bool:
        """Whether one more page of the job list may be read."""
        return self.kinds[Quota.LISTING] < MAX_PAGES

    @property
    def full(self) -> bool:
        """Whether no further poll may be sent."""
        return self.total >= MAX_IN_FLIGHT

    def allows(self, job: PolledJob) -> bool:
        """Return whether the job may be polled, considering how its last poll ended."""
        return not (job.failures and self.retries >= _MAX_RETRIES)

    def by_share(self) -> list[Quota]:
        """Return the kinds of polls, first the one that has used least of its share.

        When answers are slow, threads are scarcer than slots; no kind may take each that is freed.
        """
        return sorted(_SHARES, key=lambda quota: self.kinds[quota] / _SHARES[quota])

    def add(self, poll: Poll) -> None:
        """Count a poll that is sent."""
        self.total += 1
        self.kinds[poll.quota] += 1
        if isinstance(poll, StatusPoll):
            self.retries += bool(poll.job.failures)

    def remove(self, poll: Poll) -> None:
        """Stop counting a poll that has completed, before its result changes the job."""
        self.total -= 1
        self.kinds[poll.quota] -= 1
        if isinstance(poll, StatusPoll):
            self.retries -= bool(poll.job.failures)
