"""What all operators and sensors share: connection, retries, journal, outcome and asset events."""

__all__ = [
    "assets",
    "attempt",
    "base",
    "existing_job",
    "journal",
    "kills",
    "outcome",
    "owned_job",
    "refusals",
]
