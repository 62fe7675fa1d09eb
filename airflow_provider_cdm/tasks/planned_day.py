"""The days that a DAG run stands for, compared with the day on which its job is started."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.client import errors, instants

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class PlannedDays:
    """The days that a DAG run stands for, in the time zone of its DAG.

    A run of a schedule is planned for the end of its data interval, and named after the beginning.
    So both days are right for a run in time.

    :param zone: time zone of the DAG.
    :param logical: day of the logical date; ``None`` for a run without one.
    :param planned: day of the end of the data interval, if there is one.
    """

    zone: tzinfo
    logical: date | None = None
    planned: date | None = None

    @classmethod
    def of(cls, context: Mapping[str, Any]) -> PlannedDays:
        """Return the days of the DAG run that a task belongs to.

        :param context: context of the running task.
        """
        zone, run = zone_of(context), context.get("dag_run")

        def day(name: str) -> date | None:
            value = context.get(name) or getattr(run, name, None)
            return value.astimezone(zone).date() if isinstance(value, datetime) else None

        return cls(zone, day("logical_date"), day("data_interval_end"))

    def differ_from(self, now: float) -> str:
        """Return how these days differ from that of a start; empty if they do not.

        :param now: time of the start, epoch seconds.
        """
        today = datetime.fromtimestamp(now, self.zone).date()
        if self.logical is None or today in (self.logical, self.planned):
            return ""
        return f"that is on {today}, while this task is for {self.logical}"


def zone_of(context: Mapping[str, Any]) -> tzinfo:
    """Return the time zone of the DAG; UTC if it has none."""
    zone = getattr(context.get("dag"), "timezone", None)
    return zone if isinstance(zone, tzinfo) else UTC


def macro_time(argument: str, value: Any, context: Mapping[str, Any]) -> datetime:
    """Return the point in time for date macros, in the time zone in which they are meant.

    Airflow renders dates in UTC; the days of a schedule are those of its DAG. So a time in UTC, or
    without a zone, is taken to the time zone of the DAG, and any other zone is kept.

    :param argument: name of the argument, for messages.
    :param value: what the user gave, rendered.
    :param context: context of the running task.
    :raises CdmConfigError: when it is no time.
    """
    zone = zone_of(context)
    text = value.strip() if isinstance(value, str) else value
    given = text if isinstance(text, datetime) else None
    if isinstance(text, str) and not (text.isdigit() and len(text) != len("yyyymmdd")):
        try:
            given = datetime.fromisoformat(text)
        except ValueError:
            given = None
    if isinstance(text, date) and given is None:
        given = datetime(text.year, text.month, text.day)  # noqa: DTZ001 - its zone follows
    if given is None:
        return _of_epoch(instants.epoch_ms(argument, value), zone)
    # A plain datetime: those of pendulum have arithmetic of their own.
    plain = datetime.fromisoformat(given.isoformat())
    if plain.tzinfo is None:
        return plain.replace(tzinfo=zone)
    return plain if plain.utcoffset() else plain.astimezone(zone)


def _of_epoch(milliseconds: int, zone: tzinfo) -> datetime:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, zone)
    except (OverflowError, OSError, ValueError):
        raise errors.CdmConfigError(f"{milliseconds} ms is outside the calendar.") from None
