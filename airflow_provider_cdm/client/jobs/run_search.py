"""The search for the run that a start created, in the history of its job."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import runs
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.runs import History
from airflow_provider_cdm.client.jobs.own_run import find_own_run, start_uncertain
from airflow_provider_cdm.client.jobs.start_record import (
    Relation,
    StartPolicy,
    StartRecord,
    StartRequest,
)
from airflow_provider_cdm.client.sansio import Flow, pause, save
from airflow_provider_cdm.client.submission import RunRef, Submission

log = logging.getLogger(__name__)


@dataclass(slots=True)
class RunSearch:
    """The search for the runs of one request, and the server's clock that it goes by.

    :param api: gives the histories.
    :param request: what was started.
    :param policy: durations and tolerances.
    """

    api: CdmApi
    request: StartRequest
    policy: StartPolicy
    #: Seconds by which the server's clock is ahead of ours, as far as is known.
    _server_ahead: float = field(default=-math.inf, init=False)

    def server_now(self) -> float:
        """Return the present time by the server's clock as far as it is known, epoch seconds."""
        # A slow answer makes the server's clock seem slow, but never fast.
        self._server_ahead = max(self._server_ahead, self.api.exchanger.server_clock.offset)
        return self.api.exchanger.clock() + self._server_ahead

    def find_earlier(self, record: StartRecord, relation: Relation) -> Flow[Submission | None]:
        """Search for the run of a start that an earlier attempt sent.

        How long ago that was is only known by the server's clock, since clocks of workers differ.
        Where the server tells no time, the search takes as long as if it had been sent just now.
        """
        settings, policy = self.api.settings, self.policy
        duration = (
            settings.connect_timeout
            + settings.read_timeout
            + policy.settle
            + policy.clock_tolerance
        )

        def settled_at(began_at: float) -> float:
            if not self.api.exchanger.server_clock.known:
                return began_at + duration
            left = record.sent_at + duration - self._server_time_at(began_at)
            return began_at + min(max(left, 0.0), duration)

        latest = record.sent_at + duration
        search = self.find(record, settled_at, latest, strict=relation is not Relation.NEW)
        return (yield from search)

    def find(
        self,
        record: StartRecord,
        settled_at: Callable[[float], float],
        latest: float | None = None,
        *,
        strict: bool = True,
    ) -> Flow[Submission | None]:
        """Search the history for the run that a start created, until it must have appeared.

        :param settled_at: returns when to stop, by the monotonic clock; called with the time at
            which the search began.
        :param latest: time after which a run was created too late to be ours, epoch seconds by the
            server's clock; by default when the search stops.
        :param strict: whether doubt is an error. If not, the task was cleared and must start again,
            so unclear evidence counts as no run.
        :raises CdmStartUncertain: when the history cannot be read, or may not show our run.
        """
        began_at, delay = self._now(), 1.0
        while True:
            asked_at = self._now()
            answer = yield from self._read_history()
            end = settled_at(began_at)
            if isinstance(answer, History):
                until = self._server_time_at(end) if latest is None else latest
                evidence = find_own_run(
                    self.request, record, answer, policy=self.policy, latest=until
                )
                if evidence.run is not None:
                    found = RunRef.of(evidence.run)
                    log.warning("The history shows %s; it is taken for ours.", found)
                    return evidence.run
                # The answer may have been slow, so the time of the request counts.
                if asked_at >= end:
                    if strict and evidence.doubt is not None:
                        raise start_uncertain(self.request, evidence.doubt)
                    return None
            elif self._now() >= end + self.policy.history_timeout:
                reason = "the history of the job cannot be read"
                raise start_uncertain(self.request, reason, answer)
            remaining = end - self._now()
            yield from pause(delay if remaining <= 0 else min(delay, remaining))
            delay = min(2 * delay, 15.0)

    def _read_history(self) -> Flow[History | errors.CdmError]:
        """Read the runs of the job, or return why that is not possible at the moment."""
        call = runs.history(self.request.cluster_id, self.request.job_name)
        try:
            return (yield from self.api.call(call))
        except (errors.CdmUnavailable, errors.CdmThrottled, errors.CdmBadResponse) as error:
            return error
        except errors.CdmError as error:
            if not error.refuses_credentials:
                raise
            return error

    def _server_time_at(self, uptime: float) -> float:
        """Convert an instant of the monotonic clock."""
        return self.server_now() + uptime - self._now()

    def _now(self) -> float:
        return self.api.exchanger.uptime()


def note_run(record: StartRecord) -> Flow[None]:
    """Save the run of a start, if that is possible.

    The intent is in the journal already, so a retry finds the run in the history.
    """
    try:
        yield from save(record.to_payload())
    except errors.CdmJournalError as error:
        log.warning("%s The run goes on; a retry would find it in CDM's history.", error)
