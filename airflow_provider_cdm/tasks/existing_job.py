"""The job that exists in CDM independently of the task that starts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_cdm.triggers.submission import CdmSubmissionTrigger

if TYPE_CHECKING:
    from airflow_provider_cdm.client import errors
    from airflow_provider_cdm.client.sansio import Flow
    from airflow_provider_cdm.client.session import CdmSession
    from airflow_provider_cdm.client.submission import RunRef, Submission
    from airflow_provider_cdm.tasks.attempt import Attempt


class ExistingJob:
    """A job that exists in CDM independently of the task, so there is nothing to do around it.

    :param name: name of the job.
    """

    fingerprint = None
    definition = None
    trigger_class = CdmSubmissionTrigger
    taken_over_at = None

    def __init__(self, name: str) -> None:
        self.name = name

    def prepare(self, attempt: Attempt) -> None:
        """Do nothing."""

    def redefine(
        self,
        session: CdmSession,  # noqa: ARG002 - part of the protocol, as the next
        cluster_id: str,  # noqa: ARG002
    ) -> Flow[None]:
        """Do nothing."""
        yield from ()

    def prepare_again(
        self,
        attempt: Attempt,  # noqa: ARG002 - part of the protocol
        error: errors.CdmNotFound,
    ) -> None:
        """Raise the error: this task cannot make the job."""
        raise error

    def is_lost(
        self,
        attempt: Attempt,  # noqa: ARG002 - part of the protocol, as the next two
        error: errors.CdmOutcomeUnknown,  # noqa: ARG002
        since: float | None,  # noqa: ARG002
    ) -> bool:
        """Return ``False``: whoever deleted the job, this task cannot make it again."""
        return False

    def dispose(self, attempt: Attempt, run: Submission) -> None:
        """Do nothing."""

    def stopped(self, session: CdmSession, run: RunRef) -> None:
        """Do nothing."""
