"""What all operators and sensors share: connection, retries, journal, outcome and asset events."""

__all__ = [
    "assets",
    "base",
    "journal",
    "outcome",
]
