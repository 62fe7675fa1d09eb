"""Reading the sub-jobs of a whole-database job, one for each table, from listings.

It is not documented which type's listing shows them, if any: the listing of table and file jobs is
read first, then that of whole-database jobs. A job whose name merely has the same prefix is skipped
if its links or its source table show that it is not a sub-job.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import resources
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.definitions import BATCH_JOB, NORMAL_JOB, inputs_of
from airflow_provider_cdm.client.api.job_list import ListedJob, name_filter
from airflow_provider_cdm.client.sansio import Flow
from airflow_provider_cdm.client.submission import Submission
from airflow_provider_cdm.client.whole_database.tables import Table

#: Pages after which a listing counts as endless: 10,000 tables.
_MAX_PAGES = 100


@dataclass(slots=True)
class SubJobReader:
    """Reads the sub-jobs of a whole-database job.

    :param run: run of that job.
    :param definition: definition of that job, if it is known.
    :param job_types: types whose listings to read, one after the other, until one shows sub-jobs.
    :param wait_for_quota: whether to wait while the quota is used up.
    :param found: whether any were found.
    :param pages: number of pages read.
    """

    api: CdmApi
    run: Submission
    definition: Mapping[str, Any] | None
    job_types: Sequence[str] = (NORMAL_JOB, BATCH_JOB)
    wait_for_quota: bool = True
    found: bool = False
    pages: int = 0

    def read(self) -> Flow[list[Table]]:
        """Return the tables of all sub-jobs, whichever run they belong to.

        :raises CdmBadResponse: when the listing has no end.
        """
        for job_type in self.job_types:
            tables: list[Table] = []
            for page_no in range(1, _MAX_PAGES + 1):
                jobs, last = yield from self._page(job_type, page_no)
                tables += [Table.of(job, self.run.job_name) for job in self._select(jobs)]
                if last:
                    break
            else:
                raise errors.CdmBadResponse(
                    f"The listing of jobs whose names begin with {self.run.job_name!r} has no end."
                )
            if tables:
                self.found = True
                return tables
        return []

    def _page(self, job_type: str, page_no: int) -> Flow[tuple[list[ListedJob], bool]]:
        call = resources.list_jobs(
            self.run.cluster_id,
            page_no,
            job_type=job_type,
            name_filter=name_filter(f"{self.run.job_name}_"),
        )
        page = yield from self.api.call(replace(call, wait_for_quota=self.wait_for_quota))
        self.pages += 1
        if page.total is None:
            return page.jobs, len(page.jobs) < resources.LISTING_PAGE
        return page.jobs, not page.jobs or page_no * resources.LISTING_PAGE >= page.total

    def _select(self, jobs: Sequence[ListedJob]) -> Iterator[ListedJob]:
        prefix = f"{self.run.job_name}_"
        for job in jobs:
            if job.name.startswith(prefix) and self._may_be_sub_job(job, job.name[len(prefix) :]):
                yield job

    def _may_be_sub_job(self, job: ListedJob, rest: str) -> bool:
        """Return whether nothing rules out that a job is a sub-job.

        :param rest: its name without the prefix.
        """
        for key in ("from-link-name", "to-link-name"):
            links = {job.wire.get(key), (self.definition or {}).get(key)} - {None}
            if len(links) > 1:
                return False
        inputs = inputs_of(job.wire, "from-config-values")
        table = unquote(inputs.get("fromJobConfig.tableName", ""))
        schema = unquote(inputs.get("fromJobConfig.schemaName", ""))
        if not table:
            # Another whole-database job has no source table either.
            return job.wire.get("job_type") != BATCH_JOB
        return _plain(rest) in (_plain(table), _plain(schema + table))


def _plain(name: str) -> str:
    """Return a name without the characters that CDM may replace in the name of a sub-job."""
    return "".join(filter(str.isalnum, name)).casefold()
