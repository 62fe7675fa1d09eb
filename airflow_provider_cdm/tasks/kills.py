"""What an attempt knows about its start without looking anything up, and what a kill makes of it.

While Airflow kills a task it answers no look-ups, so a kill reads no journal and no connection.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.client.api import runs
from airflow_provider_cdm.client.jobs.own_run import find_own_run, start_uncertain
from airflow_provider_cdm.client.jobs.start_record import StartPolicy, StartRecord
from airflow_provider_cdm.client.submission import RunRef
from airflow_provider_cdm.tasks.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_cdm.client.api.client import CdmApi
    from airflow_provider_cdm.client.jobs.start_record import StartRequest
    from airflow_provider_cdm.client.sansio import Flow


class RememberedJournal(Journal):
    """A journal that can be asked for its record while the journal itself cannot be read.

    ``last`` is the record as plain JSON: that which was last read or written. A run counts from
    the moment it is known, even if writing it fails; an intent only once it is written, since a
    start is not sent before. ``stored`` is whether the journal itself holds ``last``.
    """

    last: Mapping[str, Any] | None = None
    stored = True

    def read(self) -> dict[str, Any] | None:
        """Return the record of this or an earlier attempt as plain JSON, or ``None``."""
        record = super().read()
        self.last = record
        return record

    def save(self, record: Mapping[str, Any] | None) -> None:
        """Replace the record; ``None`` deletes it."""
        if record is not None and record.get("run"):
            self.last, self.stored = record, False
        super().save(record)
        self.last, self.stored = record, True

    def remembered(self, request: StartRequest) -> StartRecord | None:
        """Return the last record, if it is about this request."""
        record = StartRecord.from_payload(self.last) if self.last else None
        return record if record is not None and record.fingerprint == request.fingerprint else None


def started_run(request: StartRequest, record: StartRecord) -> RunRef | None:
    """Return the run in a record if this task started it and it may still be active.

    A run that the task attached to belongs to somebody else, so nothing ever stops it on behalf of
    this task.
    """
    if record.run is None or record.result is not None or record.foreign:
        return None
    return request.run(record.run)


def find_started_run(
    api: CdmApi, request: StartRequest, record: StartRecord
) -> Flow[RunRef | None]:
    """Look once for the run of a start that was sent and whose run is not known.

    :returns: the run, or ``None`` if the history shows none so far.
    :raises CdmStartUncertain: when a run that is shown may be ours or somebody else's.
    :raises CdmError: when the history cannot be read.
    """
    call = runs.history(request.cluster_id, request.job_name)
    history = yield from api.call(replace(call, wait_for_quota=False))
    exchanger = api.exchanger
    evidence = find_own_run(
        request,
        record,
        history,
        policy=StartPolicy(),
        latest=exchanger.clock() + exchanger.server_clock.offset,
    )
    if evidence.run is None and evidence.doubt is not None:
        raise start_uncertain(request, evidence.doubt)
    return None if evidence.run is None else RunRef.of(evidence.run)
