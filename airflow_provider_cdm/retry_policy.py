"""Which failures of a task are retried: the retry policy of all operators and sensors."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm._compat import RetryDecision, RetryPolicy
from airflow_provider_cdm.client.errors import CdmError, CdmOutcomeUnknown, CdmSubmissionFailed

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import Context

__all__ = ["CdmRetryPolicy"]


class CdmRetryPolicy(RetryPolicy):
    """Decides by the error whether a task of this package is tried again.

    What no retry can mend fails the task at once, whatever ``retries`` says: wrong credentials or a
    missing permission, a job, link or cluster that does not exist, wrong input, rows that miss a
    threshold. When the server said how long to wait, the retry comes after that time. Anything else
    is retried as the task says.

    All operators and sensors of this package have one unless they are given another
    ``retry_policy``. Below Airflow 3.3, which has no such policies, they act on it themselves, but
    for the time of the retry, which Airflow decides there.

    :param retry_failed_runs: whether a run that CDM reports as failed is tried again; each retry is
        a run of its own.
    """

    def __init__(self, *, retry_failed_runs: bool = True) -> None:
        self.retry_failed_runs = retry_failed_runs

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002 - Airflow passes it, as the next two
        max_tries: int,  # noqa: ARG002
        context: Context | None = None,  # noqa: ARG002
    ) -> RetryDecision:
        """Decide; called by Airflow 3.3 and later."""
        name = type(exception).__name__
        if self.is_final(exception):
            return RetryDecision.fail(f"{name}: no retry can mend this")
        delay = getattr(exception, "retry_after", None) if isinstance(exception, CdmError) else None
        if delay:
            return RetryDecision.retry(
                timedelta(seconds=delay), f"{name}: the server asked for {delay:g} s"
            )
        return RetryDecision.default()

    def is_final(self, exception: BaseException) -> bool:
        """Whether no retry is to follow."""
        if isinstance(exception, CdmSubmissionFailed):
            unknown = isinstance(exception, CdmOutcomeUnknown)
            return not self.retry_failed_runs and not unknown
        return isinstance(exception, CdmError) and exception.final

    def serialize(self) -> dict[str, Any]:
        """Describe this policy as plain JSON."""
        return {"retry_failed_runs": self.retry_failed_runs}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> CdmRetryPolicy:
        """Make the policy that :meth:`serialize` described."""
        return cls(**data)
