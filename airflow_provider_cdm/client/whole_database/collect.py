"""The outcome of the tables of a run of a whole-database job (job type ``BATCH_JOB``).

In each run, CDM creates a sub-job ``<job>_<source table>`` for each table. It is not documented
which status the run itself has when only some tables succeeded. So each table is checked, and a run
with a failed table never counts as a success.

* A sub-job of our run was created since our run was, and so was its newest run; without such a run
  it is waiting. All dates are from CDM, so clocks do not matter. Which jobs are sub-jobs is decided
  in :mod:`~airflow_provider_cdm.client.whole_database.look_alikes`.
* One list call shows 100 sub-jobs, but not why they failed. The reasons come from one status call
  for each table that did not succeed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import runs
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.definitions import BATCH_JOB, JOB, JOB_TYPES, job_type_of
from airflow_provider_cdm.client.sansio import Flow, pause
from airflow_provider_cdm.client.submission import RunRef, Submission, Verdict, verdict_of
from airflow_provider_cdm.client.text import end_sentence
from airflow_provider_cdm.client.whole_database import summary
from airflow_provider_cdm.client.whole_database.details import MAX_DETAILS, read_details
from airflow_provider_cdm.client.whole_database.look_alikes import (
    ClassifiedJob,
    missing_tables,
)
from airflow_provider_cdm.client.whole_database.sub_jobs import SubJobReader
from airflow_provider_cdm.client.whole_database.tables import (
    TableReport,
    TableState,
    tables_of,
)

log = logging.getLogger(__name__)

#: Seconds after the end of a run within which listings show the end of its tables.
_SETTLE = 60.0
#: Seconds for which the tables of a succeeded run may be impossible to list.
_OUTAGE = 300.0
_TRANSIENT = (errors.CdmUnavailable, errors.CdmThrottled, errors.CdmBadResponse)


def with_tables(
    api: CdmApi, run: Submission, definition: Mapping[str, Any] | None = None
) -> Flow[Submission]:
    """Return an ended run with the outcome of its tables, if its job is a whole-database job.

    :param run: ended run.
    :param definition: definition of its job, if it is known.
    :returns: the run, failed if one of its tables is; unchanged if the type of its job is another
        or not known.
    :raises CdmUnavailable: when the run succeeded, but its tables cannot be listed; a later attempt
        may try again.
    :raises CdmOutcomeUnknown: when the run succeeded, but a later run has replaced its sub-jobs.
    """
    if run.tables is not None:
        return run
    run = replace(run, job_type=run.job_type or job_type_of(definition))
    if run.job_type != BATCH_JOB:
        return run
    return (yield from _collect(api, run, definition))


def read_definition(api: CdmApi, run: Submission) -> Flow[dict[str, Any] | None]:
    """Read the definition of a run's job, which contains its type.

    :returns: the definition; ``None``, after a warning, if it cannot be read. Then the run's own
        status counts: nearly all jobs are of other types, and must not fail because of this call.
    """
    definition, problem = None, "CDM does not show its definition"
    try:
        definition = yield from api.find(JOB, run.cluster_id, run.job_name)
    except errors.CdmError as error:
        problem = str(error)
    if job_type_of(definition) is None:
        log.warning(
            "%s So it is not known whether job %r moves a whole database, and no tables are"
            " checked.",
            *(end_sentence(problem), run.job_name),
        )
    return definition


class TableProgress:
    """Logs the progress of the tables while a task waits for the run of a whole-database job.

    A side task of the wait. After some time it reads the type of the job, and then lists the
    sub-jobs about once a minute, less often if there are many. Failed calls are only logged, since
    the end of the run decides.

    :param definition: definition of the job, if it is known.
    :param on_change: called when the tables have changed.
    """

    __slots__ = (
        *("_definition", "_on_change", "_due_at", "_line", "_listings", "_next_poll_at", "_polled"),
        "_type_requested",
        "job_type",
    )

    #: Seconds of waiting before the first poll of the tables.
    FIRST_POLL_AFTER = 20.0
    #: Seconds between two polls: at least, and for each page of the listing.
    _INTERVAL, _PER_PAGE = 60.0, 20.0
    #: Seconds between two polls while no listing shows sub-jobs.
    _NOTHING_LISTED = 300.0

    def __init__(
        self,
        definition: Mapping[str, Any] | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_change = on_change
        self.job_type = job_type_of(definition)
        self._definition = definition
        self._type_requested = False
        #: When the next poll is due: by the monotonic clock, and by the server's (for dumps).
        self._next_poll_at: float | None = None
        self._due_at: int | None = None
        self._line = ""
        self._listings: Sequence[str] = JOB_TYPES
        self._polled = False

    def __call__(self, api: CdmApi, seen: Submission, job_type: str | None = None) -> Flow[None]:
        """Log the progress of the tables if a poll of them is due.

        :param seen: run as a status call showed it.
        :param job_type: type of the job, if the caller knows it.
        """
        self.job_type = self.job_type or job_type
        now = api.exchanger.uptime()
        if self._next_poll_at is None:
            left = self.FIRST_POLL_AFTER
            if self._due_at is not None:
                left = self._due_at - api.exchanger.server_time()
            self._schedule(api, left)
        due = self._next_poll_at is not None and now >= self._next_poll_at
        if seen.ended or not due or self.job_type not in (None, BATCH_JOB):
            return
        try:
            yield from self._poll(api, seen)
        except errors.CdmError as error:
            self._type_requested = True
            self._schedule(api, self._INTERVAL)
            log.info("%s The tables are not in the log for now; the wait goes on.", error)

    def _poll(self, api: CdmApi, seen: Submission) -> Flow[None]:
        if self.job_type is None and not self._type_requested:
            self._definition = yield from api.find(
                JOB, seen.cluster_id, seen.job_name, wait_for_quota=False
            )
            self._type_requested, self.job_type = True, job_type_of(self._definition)
        if self.job_type != BATCH_JOB:
            return
        reader = SubJobReader(api, seen, self._definition, self._listings, wait_for_quota=False)
        tables = tables_of((yield from reader.read()), seen)
        self._definition = reader.definition
        report = TableReport.of(tables, seen.creation_date)
        # Once sub-jobs are certain, the listings that show them are enough for a log line.
        self._listings = reader.found_in or JOB_TYPES
        nothing = self._polled and not report.tables
        wait = max(self._NOTHING_LISTED if nothing else 0.0, self._PER_PAGE * reader.pages)
        self._polled = True
        self._schedule(api, max(self._INTERVAL, wait))
        if report.tables and (line := report.progress_line(RunRef.of(seen).title)) != self._line:
            self._line = line
            self._on_change()
            log.info("%s", line)

    def _schedule(self, api: CdmApi, seconds: float) -> None:
        """Set when the next poll is due."""
        self._next_poll_at = api.exchanger.uptime() + seconds
        if self._due_at is None or seconds > 0:
            self._due_at = round(api.exchanger.server_time() + seconds)

    def with_job_type(self, run: Submission) -> Submission:
        """Return an ended run with the type of its job, if that was read during the wait."""
        return run if self.job_type is None else replace(run, job_type=self.job_type)

    def dump(self) -> dict[str, Any]:
        """Return what another process needs to continue, as plain JSON."""
        return {
            "type": self.job_type,
            "asked": self._type_requested,
            "next": self._due_at,
            "line": self._line,
        }

    def restore(self, dump: Mapping[str, Any] | None) -> None:
        """Continue where another process stopped.

        :param dump: what :meth:`dump` returned there.
        """
        if dump:
            self.job_type, self._type_requested = dump["type"], dump["asked"]
            self._due_at, self._line = dump["next"], dump["line"]


def _collect(
    api: CdmApi, run: Submission, definition: Mapping[str, Any] | None
) -> Flow[Submission]:
    uptime = api.exchanger.uptime
    settled_at, failing_since = uptime() + _SETTLE, None
    while True:
        asked_at = uptime()
        try:
            classified, missing = yield from _classify_jobs(api, run, definition)
            later = yield from _later_run(api, run)
        except errors.CdmError as error:
            if run.failed:
                log.warning("%s So the report does not name the tables that failed.", error)
                return run
            failing_since = asked_at if failing_since is None else failing_since
            lasted = uptime() - failing_since
            passes = isinstance(error, _TRANSIENT) or error.refuses_credentials
            if lasted >= _OUTAGE or not passes:
                raise summary.tables_unavailable(run, error, lasted) from error
            log.info("%s Without the tables, the outcome is not known; trying again.", error)
            yield from pause(15.0 + 15.0 * api.exchanger.random())
            continue
        if failing_since is not None:
            # What CDM could not be asked about had no time to settle.
            settled_at, failing_since = settled_at + asked_at - failing_since, None
        if later is not None:
            return summary.superseded(run, later)
        tables = tables_of(classified, run)
        report = TableReport.of(tables, run.creation_date)
        report = replace((yield from read_details(api, run, report)), missing=missing)
        settled = run.failed or asked_at >= settled_at
        if settled or not report.names_in(TableState.RUNNING, TableState.WAITING):
            summary.log_other_jobs(run, classified)
            return summary.summarize(run, report)
        yield from pause(15.0)


def _classify_jobs(
    api: CdmApi, run: Submission, definition: Mapping[str, Any] | None
) -> Flow[tuple[list[ClassifiedJob], list[str]]]:
    """Return the jobs that may be sub-jobs, after another look at those that are unclear.

    :returns: these jobs, and the tables of the definition without one.
    """
    reader = SubJobReader(api, run, definition)
    classified = yield from reader.read()
    unclear = [
        each.job.name
        for each in classified
        if each.incomplete and verdict_of(each.job.status) is not Verdict.SUCCESS
    ]
    if unclear:
        classified = yield from reader.look_again(unclear[:MAX_DETAILS])
    return classified, missing_tables(classified, reader.parent)


def _later_run(api: CdmApi, run: Submission) -> Flow[Submission | None]:
    """Return a later run of the job, which has replaced all sub-jobs; ``None`` if there is none."""
    try:
        shown = yield from api.call(runs.status(run.cluster_id, run.job_name))
    except errors.CdmNotFound as error:
        if not error.reported_by_cdm:
            raise
        # The job may have deleted itself after its run.
        return None
    latest = (other for other in shown if other.verdict is not Verdict.NO_RUN)
    return next((other for other in latest if RunRef.of(run).is_before(other)), None)
