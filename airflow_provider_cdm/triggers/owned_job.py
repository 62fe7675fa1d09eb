"""The trigger that waits for a run whose job belongs to one task instance."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.triggers.submission import CdmSubmissionTrigger

if TYPE_CHECKING:
    from airflow_provider_cdm.triggers.kill import Kill
    from airflow_provider_cdm.triggers.stopper import RunStopper

log = logging.getLogger(__name__)


class CdmOwnedJobTrigger(CdmSubmissionTrigger):
    """Waits for one run of a job that belongs to the task; a kill stops it and deletes the job.

    As on a worker, the job stays if its run succeeded before it could be stopped.

    Takes the arguments of :class:`~airflow_provider_cdm.triggers.CdmSubmissionTrigger`.
    """

    async def _stop_with(self, stopper: RunStopper, kill: Kill) -> None:
        await super()._stop_with(stopper, kill)
        try:
            await stopper.delete_after_stop(kill.run, kill.record_failure)
        except errors.CdmError as error:
            # The stop was sent; what failed is only the deletion.
            self._log_kept_job(kill, f"The error: {error}")
        except asyncio.CancelledError:
            self._log_kept_job(kill, f"The time is over. {kill.reason}")
            raise

    def _log_kept_job(self, kill: Kill, reason: str) -> None:
        log.warning(
            "Job %r stays in CDM for now. If no attempt follows, delete it there, in cluster"
            " %s. %s",
            *(kill.run.job_name, kill.run.cluster_id, reason),
        )
