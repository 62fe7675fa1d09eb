"""All errors that operators, sensors, triggers and the hook raise, for users to import."""

from __future__ import annotations

from airflow_provider_cdm.client.errors import (
    CdmAlreadyExists,
    CdmAlreadyRunning,
    CdmAuthError,
    CdmBadResponse,
    CdmClusterUnusable,
    CdmConfigError,
    CdmError,
    CdmInUse,
    CdmJournalError,
    CdmNotFound,
    CdmNotRunning,
    CdmOutcomeUnknown,
    CdmRefused,
    CdmStalled,
    CdmStartUncertain,
    CdmSubmissionFailed,
    CdmThresholdMissed,
    CdmThrottled,
    CdmUnavailable,
    CdmWaitTimeout,
)

__all__ = [
    "CdmAlreadyExists",
    "CdmAlreadyRunning",
    "CdmAuthError",
    "CdmBadResponse",
    "CdmClusterUnusable",
    "CdmConfigError",
    "CdmError",
    "CdmInUse",
    "CdmJournalError",
    "CdmNotFound",
    "CdmNotRunning",
    "CdmOutcomeUnknown",
    "CdmRefused",
    "CdmStalled",
    "CdmStartUncertain",
    "CdmSubmissionFailed",
    "CdmThresholdMissed",
    "CdmThrottled",
    "CdmUnavailable",
    "CdmWaitTimeout",
]
