"""Dates in HTTP headers, in all formats that HTTP allows."""

from __future__ import annotations

import pytest

from airflow_provider_cdm.client.http.dates import parse_http_date


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Thu, 02 Jan 2025 03:04:05 GMT", 1_735_787_045.0),
        ("Thu, 02 Jan 2025 04:04:05 +0100", 1_735_787_045.0),
        ("Thursday, 02-Jan-25 03:04:05 GMT", 1_735_787_045.0),
        ("Thu Jan  2 03:04:05 2025", 1_735_787_045.0),
        ("", None),
        ("7", None),
        ("soon", None),
        ("Thu, 99 Jan 2025 03:04:05 GMT", None),
        ("Thu, 02 Jan 2025 03:04:05 +99999999999999", None),
        ("Fri, 31 Dec 9999 23:59:59 -1200", 253_402_343_999.0),
    ],
)
@pytest.mark.usefixtures("far_from_utc")
def test_http_dates(value: str, expected: float | None) -> None:
    """Every format of a date is read as UTC in any time zone, and anything else is no date."""
    assert parse_http_date(value) == expected
