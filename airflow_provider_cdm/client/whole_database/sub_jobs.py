"""The sub-jobs that CDM makes of a job for a whole database, one for each table, in its listings.

In the listing of which type they show, if in any, is not documented: they are looked for among jobs
of tables and files first, then among whole databases. A job whose name happens to begin in the same
way is left out when its links or its source table show that it is none.
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

#: Pages after which a listing is taken for endless: ten thousand tables.
_MANY_PAGES = 100


@dataclass(slots=True)
class SubJobReader:
    """Reads the sub-jobs of a job that moves a whole database.

    :param run: of that job.
    :param definition: of that job, if it is at hand.
    :param kinds: types in whose listings to look for them, one after the other.
    :param wait_for_quota: whether to repeat a call that failed in passing.
    :param found: whether there were any.
    :param pages: how many pages were read.
    """

    api: CdmApi
    run: Submission
    definition: Mapping[str, Any] | None
    kinds: Sequence[str] = (NORMAL_JOB, BATCH_JOB)
    wait_for_quota: bool = True
    found: bool = False
    pages: int = 0

    def read(self) -> Flow[list[Table]]:
        """Return all tables that show, of whatever run.

        :raises CdmBadResponse: when the listing has no end.
        """
        for kind in self.kinds:
            tables: list[Table] = []
            for page_no in range(1, _MANY_PAGES + 1):
                jobs, last = yield from self._page(kind, page_no)
                tables += [Table.of(job, self.run.job_name) for job in self._own(jobs)]
                if last:
                    break
            else:
                raise errors.CdmBadResponse(
                    f"The listing of jobs that begin with {self.run.job_name!r} has no end."
                )
            if tables:
                self.found = True
                return tables
        return []

    def _page(self, kind: str, page_no: int) -> Flow[tuple[list[ListedJob], bool]]:
        call = resources.list_jobs(
            self.run.cluster_id,
            page_no,
            job_type=kind,
            name_filter=name_filter(f"{self.run.job_name}_"),
        )
        page = yield from self.api.call(replace(call, wait_for_quota=self.wait_for_quota))
        self.pages += 1
        if page.total is None:
            return page.jobs, len(page.jobs) < resources.LISTING_PAGE
        return page.jobs, not page.jobs or page_no * resources.LISTING_PAGE >= page.total

    def _own(self, jobs: Sequence[ListedJob]) -> Iterator[ListedJob]:
        prefix = f"{self.run.job_name}_"
        for job in jobs:
            if job.name.startswith(prefix) and self._may_be(job, job.name[len(prefix) :]):
                yield job

    def _may_be(self, job: ListedJob, rest: str) -> bool:
        """Whether nothing that a job shows speaks against its being the sub-job of a table."""
        for key in ("from-link-name", "to-link-name"):
            links = {job.wire.get(key), (self.definition or {}).get(key)} - {None}
            if len(links) > 1:
                return False
        inputs = inputs_of(job.wire, "from-config-values")
        table = unquote(inputs.get("fromJobConfig.tableName", ""))
        schema = unquote(inputs.get("fromJobConfig.schemaName", ""))
        if not table:
            # Another whole-database job would show no table.
            return job.wire.get("job_type") != BATCH_JOB
        return _plain(rest) in (_plain(table), _plain(schema + table))


def _plain(name: str) -> str:
    """A name without what CDM may have to replace in the name of a job."""
    return "".join(filter(str.isalnum, name)).casefold()
