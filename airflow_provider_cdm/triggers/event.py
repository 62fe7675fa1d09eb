"""The event that a wait in the triggerer sends back to a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.submission import Submission


@dataclass(frozen=True, slots=True)
class SubmissionEvent:
    """How a wait in the triggerer ended: with a run that has ended, or with an error.

    :param submission: the run as last seen.
    :param error: why the wait ended before the run did.
    :param stall: what the next trigger needs to go on, if the wait only ended so that a worker
        reports a stall: the state of the progress log, and the deadline.
    """

    submission: Submission | None = None
    error: errors.CdmError | None = None
    stall: Mapping[str, Any] | None = None

    def to_payload(self) -> dict[str, Any]:
        """Return the event as plain JSON."""
        payload: dict[str, Any] = {
            "submission": self.submission and self.submission.to_payload(),
            "error": self.error and errors.to_payload(self.error),
        }
        return payload if self.stall is None else {**payload, "stall": dict(self.stall)}

    def __str__(self) -> str:
        if self.error is not None:
            return type(self.error).__name__
        run = self.submission
        return f"run {run.submission_id}: {run.status}" if run else "no run"

    @classmethod
    def stall_in(cls, payload: Any) -> tuple[errors.CdmStalled, Mapping[str, Any]] | None:
        """Return the stall that an event reports, and what the next trigger needs to go on.

        :returns: ``None`` for an event that ends the wait.
        """
        stall = payload.get("stall") if isinstance(payload, dict) else None
        if stall is None:
            return None
        try:
            cls.unwrap(payload)
        except errors.CdmStalled as error:
            return error, stall
        return None

    @classmethod
    def unwrap(cls, payload: Any) -> Submission:
        """Return the ended run from the payload of an event.

        :raises CdmBadResponse: when the event is missing or malformed.
        :raises CdmError: the error that the event holds.
        """
        if not isinstance(payload, dict) or not (payload.get("submission") or payload.get("error")):
            raise errors.CdmBadResponse(
                "The trigger ended without a usable event, so the outcome of the run is unknown."
                " See the log of the triggerer; a retry of this task reads the status again. The"
                f" event: {payload!r}"
            )
        found = payload.get("submission")
        try:
            submission = Submission.from_payload(found) if found else None
        except (ValueError, TypeError) as problem:
            raise errors.CdmBadResponse(f"The event of the trigger is {problem}") from None
        if payload.get("error"):
            raise errors.from_payload(payload["error"], submission)
        if submission is None or not submission.ended:
            raise errors.CdmBadResponse(
                f"The trigger ended although the run is still active: {payload!r}"
            )
        return submission
