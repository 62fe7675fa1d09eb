"""The tables of a run that moves a whole database (job type ``BATCH_JOB``).

CDM makes a sub-job ``<job>_<source table>`` for each table, anew in each run. What the run's own
status is when only some of them succeeded is not documented, so each is looked at by itself: a run
of which a table failed is never called good. How a sub-job is told to belong to a run, and what is
not known:

* A sub-job counts if its newest run was created at or after our run was. Both dates are CDM's, so
  no clock of ours matters. One that was made anew since then and has no such run has not begun;
  any other is left from an earlier run, maybe of a table that is not moved any more.
* A listing shows 100 of them with a call, but no reasons; those come from the status of a sub-job,
  and are asked for where a table did not end well.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import resources, runs
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.definitions import BATCH_JOB, JOB, NORMAL_JOB
from airflow_provider_cdm.client.sansio import Flow, pause
from airflow_provider_cdm.client.submission import RunRef, Submission, Verdict
from airflow_provider_cdm.client.whole_database.sub_jobs import SubJobReader
from airflow_provider_cdm.client.whole_database.tables import (
    TableReport,
    TableState,
    job_type_of,
    join_names,
)

log = logging.getLogger(__name__)

#: Tables whose own status is asked for, at most.
_CLOSER_LOOKS = 50
#: Seconds after the end of a run within which listings must show the end of its tables.
_SETTLING = 60.0
#: Seconds for which to bear that the tables of a run that succeeded cannot be listed.
_OUTAGE = 300.0
_PASSING = (errors.CdmUnavailable, errors.CdmThrottled, errors.CdmBadResponse)


def with_tables(
    api: CdmApi, run: Submission, definition: Mapping[str, Any] | None = None
) -> Flow[Submission]:
    """Add to an ended run what became of its tables, if its job moves a whole database.

    :param definition: of the job, if it is at hand.
    :returns: the run, of which a failed table makes a failure; itself, if the type of its job is
        not known.
    :raises CdmUnavailable: when the run succeeded and its tables cannot be listed; a later attempt
        may look again.
    :raises CdmOutcomeUnknown: when it succeeded, and a later run has taken its tables' place.
    """
    if run.tables is not None:
        return run
    run = replace(run, job_type=run.job_type or job_type_of(definition))
    if run.job_type != BATCH_JOB:
        return run
    return (yield from _collect(api, run, definition))


def read_definition(api: CdmApi, run: Submission) -> Flow[dict[str, Any] | None]:
    """Read the definition of a run's job, to learn its type.

    When that fails there is a warning, and the run is to be taken at CDM's word: nearly all jobs
    move no database, and none of them shall fail for a question that does not concern it.
    """
    definition, problem = None, "CDM does not show it"
    try:
        definition = yield from api.find(JOB, run.cluster_id, run.job_name)
    except errors.CdmError as error:
        problem = str(error)
    if job_type_of(definition) is None:
        log.warning(
            "Whether job %r moves a whole database cannot be learnt, so it is taken for one that"
            " does not, and nothing is said about tables: %s",
            *(run.job_name, problem),
        )
    return definition


class TableProgress:
    """Tells those who wait for the run of a whole database how its tables get on.

    Says nothing while the wait is short, then learns the type of the job with one look-up, and
    lists the sub-jobs about once a minute, less often where they are many. What cannot be asked is
    left: the end of the run decides.

    :param definition: of the job, if it is at hand.
    """

    __slots__ = ("_asked", "_definition", "_kind", "_line", "_next", "job_type")

    #: Seconds of waiting after which the first look is worth its calls.
    FIRST_POLL_AFTER = 20.0
    _INTERVAL, _PER_PAGE = 60.0, 20.0

    def __init__(self, definition: Mapping[str, Any] | None = None) -> None:
        self.job_type = job_type_of(definition)
        self._definition = definition
        self._asked = False
        self._next: float | None = None
        self._line = ""
        self._kind = NORMAL_JOB

    def __call__(self, api: CdmApi, seen: Submission, job_type: str | None = None) -> Flow[None]:
        """Take note of a look at the run, and look at its tables if it is time.

        :param job_type: type of the job, if somebody has learnt it.
        """
        self.job_type = self.job_type or job_type
        now = api.exchanger.clock()
        if self._next is None:
            self._next = now + self.FIRST_POLL_AFTER
        if seen.ended or now < self._next or self.job_type not in (None, BATCH_JOB):
            return
        try:
            yield from self._look(api, seen)
        except errors.CdmError as error:
            self._asked, self._next = True, now + self._INTERVAL
            log.info("How the tables of %s get on cannot be said: %s", RunRef.of(seen), error)

    def _look(self, api: CdmApi, seen: Submission) -> Flow[None]:
        if self.job_type is None and not self._asked:
            call = resources.show(JOB, seen.cluster_id, seen.job_name)
            self._definition = yield from api.call(replace(call, wait_for_quota=False))
            self._asked, self.job_type = True, job_type_of(self._definition)
        if self.job_type != BATCH_JOB:
            return
        reader = SubJobReader(api, seen, self._definition, (self._kind,), wait_for_quota=False)
        report = TableReport.of((yield from reader.read()), seen.creation_date)
        rest = self._PER_PAGE * reader.pages
        if not reader.found:
            # Not made yet, or in the other listing.
            self._kind, rest = (BATCH_JOB, 0) if self._kind == NORMAL_JOB else (NORMAL_JOB, 300.0)
        self._next = api.exchanger.clock() + max(self._INTERVAL, rest)
        if report.tables and (line := report.progress_line()) != self._line:
            self._line = line
            log.info("%s: %s", RunRef.of(seen), line)

    def with_job_type(self, run: Submission) -> Submission:
        """An ended run with the type of its job, if that was learnt on the way."""
        return run if self.job_type is None else replace(run, job_type=self.job_type)

    def dump(self) -> dict[str, Any]:
        """What another process needs to go on, as plain JSON."""
        return {"type": self.job_type, "asked": self._asked, "next": self._next, "line": self._line}

    def restore(self, dump: Mapping[str, Any] | None) -> None:
        """Go on where another process left off.

        :param dump: what :meth:`dump` returned there.
        """
        if dump:
            self.job_type, self._asked = dump["type"], dump["asked"]
            self._next, self._line = dump["next"], dump["line"]


def _collect(
    api: CdmApi, run: Submission, definition: Mapping[str, Any] | None
) -> Flow[Submission]:
    ended_at = api.exchanger.clock()
    while True:
        lasted = api.exchanger.clock() - ended_at
        try:
            tables = yield from SubJobReader(api, run, definition).read()
            later = yield from _later_run(api, run)
        except errors.CdmError as error:
            if run.failed:
                log.warning("Which tables of %s failed cannot be said: %s", RunRef.of(run), error)
                return run
            if lasted >= _OUTAGE or not isinstance(error, _PASSING):
                raise _tables_unavailable(run, error, lasted) from error
            log.info("The tables of %s cannot be listed yet: %s", RunRef.of(run), error)
            yield from pause(15.0 + 15.0 * api.exchanger.random())
            continue
        if later is not None:
            return _superseded(run, later)
        report = yield from _read_details(api, run, TableReport.of(tables, run.creation_date))
        settled = run.failed or lasted >= _SETTLING
        if settled or not report.named(TableState.RUNNING, TableState.WAITING):
            return _summarize(run, report)
        yield from pause(15.0)


def _later_run(api: CdmApi, run: Submission) -> Flow[Submission | None]:
    """Find the run that has taken the place of ours, and with it all sub-jobs."""
    try:
        shown = yield from api.call(runs.status(run.cluster_id, run.job_name))
    except errors.CdmNotFound:
        # A job may delete itself after its run.
        return None
    latest = (one for one in shown if one.verdict is not Verdict.NO_RUN)
    return next((one for one in latest if RunRef.of(run).is_before(one)), None)


def _read_details(api: CdmApi, run: Submission, report: TableReport) -> Flow[TableReport]:
    """Ask for the status of the tables that did not end well, or do not say when they ran."""
    tables = [table for _, table in report.tables]
    looks = 0
    for place, (state, table) in enumerate(report.tables):
        if (state is TableState.DONE and table.created is not None) or looks >= _CLOSER_LOOKS:
            continue
        looks += 1
        name = f"{run.job_name}_{table.name}"
        try:
            shown = yield from api.call(runs.status(run.cluster_id, name))
        except errors.CdmNotFound:
            continue
        except errors.CdmError as error:
            log.warning("Why table %s did not end well cannot be said: %s", table.name, error)
            break
        if shown:
            tables[place] = table.with_status(shown[0])
    again = TableReport.of(tables, run.creation_date)
    return TableReport(again.tables, [*report.stale, *again.stale])


def _summarize(run: Submission, report: TableReport) -> Submission:
    name = RunRef.of(run)
    if report.stale:
        log.warning(
            "%s: %d sub-jobs did not run in it: %s. They are left from earlier runs: of tables that"
            " are not moved any more, or that this run did not get to.",
            *(name, len(report.stale), join_names(report.stale)),
        )
    if not report.tables:
        log.warning(
            "%s moves a whole database, and CDM shows none of its tables, so its own status is all"
            " that is known. Ask for min_rows_written to be sure that it moved something.",
            name,
        )
    else:
        log.info("%s: %s", name, report.progress_line())
    counters = {n: count for n, count in run.counters.items() if count >= 0}
    run = replace(
        run,
        tables=report.to_dict(),
        counters={**run.counters, **report.totals(), **counters},
    )
    if failure_summary := report.failure_summary():
        own = run.error_summary or f"CDM reports {run.status}"
        run = replace(run, error_summary=f"{own.rstrip('.')}; {failure_summary}.")
    return run


def _superseded(run: Submission, later: Submission) -> Submission:
    text = f"{RunRef.of(later)} has made the sub-jobs of {RunRef.of(run)} anew, so what became of"
    if run.failed:
        log.warning("%s its tables cannot be said.", text)
        return run
    raise errors.CdmOutcomeUnknown(
        f"{text} its tables cannot be learnt, though CDM reports {run.status}. Check the target.",
        run,
    )


def _tables_unavailable(
    run: Submission, error: errors.CdmError, lasted: float
) -> errors.CdmUnavailable:
    return errors.CdmUnavailable(
        f"CDM reports {run.status} for {RunRef.of(run)}, but what became of its tables could not be"
        f" learnt for {lasted:.0f} s, and some may have failed. A retry of this task looks again,"
        f" and starts nothing before. The last attempt: {error}",
        http_status=error.http_status,
        code=error.code,
        request_id=error.request_id,
        retry_after=error.retry_after,
    )
