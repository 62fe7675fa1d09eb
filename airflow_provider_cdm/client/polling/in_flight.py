"""How many polls are in flight, and how many of each kind may be."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_cdm.client.polling.model import ListingPoll, Poll, PolledJob

#: Polls in flight at most, each of which occupies a thread.
MAX_IN_FLIGHT = 8
#: Of these, polls at most of jobs whose last poll failed: such polls may take a minute each.
_MAX_RETRIES = MAX_IN_FLIGHT // 2


@dataclass(slots=True)
class InFlight:
    """The polls in flight on one cluster.

    :param total: number of all polls.
    :param retries: number of polls of jobs whose last poll failed.
    :param listing: whether a page of the job list is being read.
    """

    total: int = 0
    retries: int = 0
    listing: bool = False

    @property
    def full(self) -> bool:
        """Whether no further poll may be sent."""
        return self.total >= MAX_IN_FLIGHT

    def allows(self, job: PolledJob) -> bool:
        """Return whether the job may be polled, considering how its last poll ended."""
        return not (job.failures and self.retries >= _MAX_RETRIES)

    def add(self, poll: Poll) -> None:
        """Count a poll that is sent."""
        self.total += 1
        if isinstance(poll, ListingPoll):
            self.listing = True
        else:
            self.retries += bool(poll.job.failures)

    def remove(self, poll: Poll) -> None:
        """Stop counting a poll that has completed, before its result changes the job."""
        self.total -= 1
        if isinstance(poll, ListingPoll):
            self.listing = False
        else:
            self.retries -= bool(poll.job.failures)
