"""Dates in HTTP headers."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime


def parse_http_date(value: str) -> float | None:
    """Return an HTTP date (``Date``, ``Retry-After``) in epoch seconds; ``None`` if it is none."""
    try:
        date = parsedate_to_datetime(value)
        # HTTP dates are in UTC, and one of their three formats does not say so.
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
