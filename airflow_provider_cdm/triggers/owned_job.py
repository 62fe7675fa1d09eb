"""The trigger that waits for a run whose job belongs to one task instance."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.jobs import stop
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.triggers.submission import CdmSubmissionTrigger

if TYPE_CHECKING:
    from airflow_provider_cdm.client.submission import RunRef

log = logging.getLogger(__name__)

#: Seconds within which a run that was stopped must have ended for its job to be deleted.
_DELETE_SECONDS = 20.0


class CdmOwnedJobTrigger(CdmSubmissionTrigger):
    """Waits for one run of a job that belongs to the task; a kill stops it and deletes the job.

    As on a worker, the job stays if its run succeeded before it could be stopped.

    Takes the arguments of :class:`~airflow_provider_cdm.triggers.CdmSubmissionTrigger`.
    """

    async def _stop(self, run: RunRef) -> None:
        await super()._stop(run)
        session = await CdmHook(self.cdm_conn_id, project_id=self.project_id).aget_conn()
        try:
            await session.arun(stop.delete_after_stop(session.api, run, within=_DELETE_SECONDS))
        except errors.CdmError as error:
            # The stop was sent; what failed is only the deletion.
            log.warning("Job %r stays in CDM for now: %s", run.job_name, error)
        finally:
            session.close()
