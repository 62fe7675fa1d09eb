"""What to do while CDM calls a job running, but shows no run that is in the way."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.submission import RunRef

#: Seconds after which an attempt without a deadline gives up.
_GRACE = 600.0
#: Seconds of the longest pause, unless polls are further apart. Each try costs a history call.
_LONGEST_PAUSE = 10.0


@dataclass(slots=True)
class Refusals:
    """Starts in a row that failed because the job is said to run, although no run is active.

    :param job: cluster and name of the job.
    :param poll_interval: seconds between two polls of a run; pauses grow up to it.
    :param count: number of refusals so far.
    :param since: when the first one came, by the monotonic clock.
    """

    job: RunRef
    poll_interval: float
    count: int = 0
    since: float = 0.0

    def pause_after(
        self,
        refusal: errors.CdmAlreadyRunning,
        now: float,
        left: float | None,
        limit: str,
    ) -> float:
        """Return the seconds until the start may be sent again.

        :param refusal: how the last start failed.
        :param now: time by the monotonic clock.
        :param left: seconds until the deadline; ``None`` if there is none.
        :param limit: name of the argument that set the deadline.
        :raises CdmWaitTimeout: at the deadline.
        :raises CdmAlreadyRunning: after a grace period, if there is no deadline.
        """
        if not self.count:
            self.since = now
        self.count += 1
        lasted = now - self.since
        if left is None and lasted >= _GRACE:
            raise errors.CdmAlreadyRunning(
                f"{self._seen(lasted)} The last answer: {refusal}",
                http_status=refusal.http_status,
                code=refusal.code,
                request_id=refusal.request_id,
            )
        if left is not None and left <= 0:
            raise errors.CdmWaitTimeout(
                f"The wait for the turn of this task timed out ({limit}). {self._seen(lasted)}"
                f" The last answer: {refusal}"
            )
        pause = min(2.0 ** min(self.count - 1, 20), max(self.poll_interval, _LONGEST_PAUSE))
        return pause if left is None else min(pause, left)

    def _seen(self, lasted: float) -> str:
        return (
            f"{self.count} times within {lasted:.0f} s CDM said that job {self.job.job_name!r} is"
            " running, but it shows no active run of it, or only one whose end it has shown before."
            f" Nothing was started. Check the job in the CDM console (cluster"
            f" {self.job.cluster_id}); if it does not run there either, ask Huawei Cloud support,"
            " or make the job anew under another name."
        )
