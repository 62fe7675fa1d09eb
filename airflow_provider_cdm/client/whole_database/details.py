"""Reading what listings do not say of a table: why it failed, and which run of its job counts."""

from __future__ import annotations

import logging
from dataclasses import replace

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import runs
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.sansio import Flow
from airflow_provider_cdm.client.submission import Submission
from airflow_provider_cdm.client.whole_database.tables import Table, TableReport, TableState

log = logging.getLogger(__name__)

#: Maximum number of tables for which to make a status call.
MAX_DETAILS = 50
#: Why nothing is known of a table.
_REPEATED = "its sub-job was started again after the run, and its run in this run is not shown"


def read_details(api: CdmApi, run: Submission, report: TableReport) -> Flow[TableReport]:
    """Make a status call for each table that did not succeed, or whose run has no date or is later.

    A run that was created after the whole-database run had ended is not part of it: somebody has
    repeated the sub-job since. Then its own run is looked for in the history of the sub-job.
    """
    tables = [table for _, table in report.tables]
    until = run.last_update_date if run.ended else None
    calls = 0
    for index, (state, table) in enumerate(report.tables):
        later = table.is_run_after(until)
        if state is TableState.DONE and table.created is not None and not later:
            continue
        if calls < MAX_DETAILS:
            calls += 1
            try:
                table = yield from _read_table(api, run, table, until)
            except errors.CdmError as error:
                log.warning("The status of table %s cannot be read: %s", table.name, error)
                calls = MAX_DETAILS
        if table.is_run_after(until):
            table = table.as_unknown(_REPEATED)
        tables[index] = table
    detailed = TableReport.of(tables, run.creation_date)
    return replace(detailed, stale=report.stale, older=report.older)


def _read_table(api: CdmApi, run: Submission, table: Table, until: int | None) -> Flow[Table]:
    """Return a table with the results of the last run of its sub-job that belongs to a run."""
    name = f"{run.job_name}_{table.name}"
    if not table.is_run_after(until):
        try:
            shown = yield from api.call(runs.status(run.cluster_id, name))
        except errors.CdmNotFound as error:
            if not error.reported_by_cdm:
                raise
            return table
        table = table.with_status(shown[0]) if shown else table
    if not table.is_run_after(until):
        return table
    history = yield from api.call(runs.history(run.cluster_id, name))
    for earlier in history.submissions:
        # The counters of a listing are those of the later run.
        dated = replace(table, counters={}).with_status(earlier)
        if earlier.creation_date is not None and not dated.is_run_after(until):
            since = run.creation_date or earlier.creation_date
            return dated if earlier.creation_date >= since else table
    return table
