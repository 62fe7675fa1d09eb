"""The job that exists in CDM independently of the task that starts it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_cdm.client import errors
    from airflow_provider_cdm.client.jobs.job_check import JobCheck
    from airflow_provider_cdm.client.sansio import Flow
    from airflow_provider_cdm.client.session import CdmSession
    from airflow_provider_cdm.client.submission import RunRef, Submission
    from airflow_provider_cdm.tasks.attempt import Attempt
    from airflow_provider_cdm.triggers.submission import CdmSubmissionTrigger


class ExistingJob:
    """A job that exists in CDM independently of the task, so it is only checked before a start.

    :param check: check of its definition.
    """

    fingerprint = None
    taken_over_at = None

    def __init__(self, check: JobCheck) -> None:
        self.name = check.job_name
        self.check = check

    @property
    def trigger_class(self) -> type[CdmSubmissionTrigger]:
        """What waits in the triggerer."""
        from airflow_provider_cdm.triggers.submission import CdmSubmissionTrigger

        return CdmSubmissionTrigger

    @property
    def definition(self) -> Mapping[str, Any] | None:
        """Definition of the job, if the check has read it."""
        return self.check.shown

    def before_start(self, session: CdmSession, cluster_id: str) -> Flow[None]:
        """Read the definition of the job, and check it."""
        return self.check.read_and_check(session.api, cluster_id)

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
