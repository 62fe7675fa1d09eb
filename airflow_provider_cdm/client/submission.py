"""Values of the CDM world: submissions, what their status means, and which one is meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

COUNTERS_GROUP = "org.apache.sqoop.submission.counter.SqoopCounters"
#: The longest text that is kept of a run, such as its error-details, in characters.
DETAILS_LIMIT = 8_000
#: The longest status, which is one word, in characters.
STATUS_LIMIT = 100


class Verdict(Enum):
    """What a submission status means for somebody who waits for it."""

    ACTIVE = "active"
    SUCCESS = "success"
    FAILURE = "failure"
    #: Not known, or not documented: wait on, but not for ever.
    UNKNOWN = "doubtful"
    #: The job has no run at all.
    NO_RUN = "absent"


_VERDICTS = {
    "PENDING": Verdict.ACTIVE,
    "BOOTING": Verdict.ACTIVE,
    "RUNNING": Verdict.ACTIVE,
    "SUCCEEDED": Verdict.SUCCESS,
    "FAILED": Verdict.FAILURE,
    "FAILURE_ON_SUBMIT": Verdict.FAILURE,
    "STOPPED": Verdict.FAILURE,
    "NEVER_EXECUTED": Verdict.NO_RUN,
}


def verdict_of(status: str) -> Verdict:
    """Say what a status means: the one table that every way of waiting uses.

    ``UNKNOWN`` and whatever is not listed is doubtful, never a success.
    """
    return _VERDICTS.get(status, Verdict.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Submission:
    """One run of a CDM job, as the start, status and submissions routes describe it.

    Everything but the status may be missing on the wire, so everything else may be ``None``.

    :param cluster_id: cluster that was asked (not part of the wire format).
    :param job_name: name of the job that was asked for.
    :param status: as CDM spells it, such as ``RUNNING``.
    :param submission_id: number of the run in its cluster; later runs have higher numbers.
    :param creation_date: when the run was created, epoch milliseconds.
    :param execute_date: when it began to execute, epoch milliseconds.
    :param last_update_date: when it last changed, epoch milliseconds.
    :param progress: as sent; its scale differs between versions, so it is for log lines only.
    :param is_execute_auto: whether CDM's own scheduler started it.
    :param external_id: Hadoop-style id of the execution.
    :param counters: rows, bytes and files by CDM's names; ``-1`` where one does not apply.
    :param error_summary: CDM's reason of a failure, one line.
    :param error_details: CDM's stack trace of a failure.
    :param job_type: type of its job, such as ``BATCH_JOB``, where it was learnt (not part of the
        wire format).
    :param tables: what became of its tables, if its job moves a whole database: see
        :meth:`~airflow_provider_cdm.client.whole_database.tables.Report.to_dict` (not part of the wire format).
    """

    cluster_id: str
    job_name: str
    status: str
    submission_id: int | None = None
    creation_date: int | None = None
    creation_user: str | None = None
    execute_date: int | None = None
    last_update_date: int | None = None
    last_update_user: str | None = None
    progress: float | None = None
    is_execute_auto: bool = False
    external_id: str | None = None
    counters: Mapping[str, int] = field(default_factory=dict)
    error_summary: str | None = None
    error_details: str | None = field(default=None, repr=False)
    write_rows: int | None = None
    update_rows: int | None = None
    delete_rows: int | None = None
    job_type: str | None = None
    tables: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def verdict(self) -> Verdict:
        """What the status means; a success of which a table lacks is none, whatever CDM says."""
        verdict, tables = verdict_of(self.status), self.tables
        if verdict is Verdict.SUCCESS and tables and tables["succeeded"] < tables["total"]:
            return Verdict.FAILURE
        return verdict

    @property
    def ended(self) -> bool:
        """Whether the run is over, well or badly."""
        return self.verdict in (Verdict.SUCCESS, Verdict.FAILURE)

    @property
    def failed(self) -> bool:
        """Whether the run is over, and not well."""
        return self.verdict is Verdict.FAILURE

    @property
    def duration_seconds(self) -> float | None:
        """Seconds from creation to the last change, once the run is over."""
        begin = self.creation_date if self.creation_date is not None else self.execute_date
        if not self.ended or begin is None or self.last_update_date is None:
            return None
        return max(0, self.last_update_date - begin) / 1000

    def to_dict(self) -> dict[str, Any]:
        """The small JSON object that operators and sensors return, the same in every mode.

        ``cluster_id, job_name, submission_id, creation_date, status``; once the run is over also
        ``progress, counters, execute_date, last_update_date, duration_seconds``, and ``tables`` if
        its job moves a whole database.
        """
        result: dict[str, Any] = {
            "cluster_id": self.cluster_id,
            "job_name": self.job_name,
            "submission_id": self.submission_id,
            "creation_date": self.creation_date,
            "status": self.status,
        }
        if self.ended:
            result |= {
                "progress": self.progress,
                "counters": dict(self.counters),
                "execute_date": self.execute_date,
                "last_update_date": self.last_update_date,
                "duration_seconds": self.duration_seconds,
            }
        if self.tables is not None:
            result["tables"] = dict(self.tables)
        return result

    def to_payload(self) -> dict[str, Any]:
        """All that is known, as plain JSON, to cross from the triggerer to a worker."""
        payload = {name: getattr(self, name) for name in self.__dataclass_fields__}
        payload["counters"] = dict(self.counters)
        if self.error_details:
            payload["error_details"] = self.error_details[:DETAILS_LIMIT]
        return payload

    @classmethod
    def from_payload(cls, payload: Any) -> Submission:
        """Read what :meth:`to_payload` made.

        :raises ValueError: when it is not such an object.
        """
        if not isinstance(payload, Mapping) or not all(
            isinstance(payload.get(name), str) for name in ("cluster_id", "job_name", "status")
        ):
            raise ValueError(f"not a submission: {payload!r}")
        known = {name: payload[name] for name in cls.__dataclass_fields__ if name in payload}
        return cls(**known)

    @classmethod
    def from_wire(cls, data: Any, cluster_id: str, job_name: str) -> Submission:
        """Read one element of ``submissions``; unknown keys are ignored.

        Dates come as numbers or as quoted numbers, and the last user under two spellings.

        :raises ValueError: when it is not an object with a status.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"a submission is {type(data).__name__}, not an object")
        status = data.get("status")
        if not isinstance(status, str) or not status.strip():
            raise ValueError("a submission has no status")
        return cls(
            cluster_id=cluster_id,
            job_name=job_name,
            status=status[:STATUS_LIMIT],
            submission_id=read_int(data.get("submission-id")),
            creation_date=read_int(data.get("creation-date")),
            creation_user=_read_text(data.get("creation-user")),
            execute_date=read_int(data.get("execute-date")),
            last_update_date=read_int(data.get("last-update-date")),
            last_update_user=_read_text(
                data.get("last-udpate-user") or data.get("last-update-user")
            ),
            progress=_read_float(data.get("progress")),
            is_execute_auto=_read_bool(data.get("is-execute-auto")),
            external_id=_read_text(data.get("external-id")),
            counters=_read_counters(data.get("counters")),
            error_summary=_read_text(data.get("error-summary")),
            error_details=_read_text(data.get("error-details")),
            write_rows=read_int(data.get("write_rows")),
            update_rows=read_int(data.get("update_rows")),
            delete_rows=read_int(data.get("delete_rows")),
        )


@dataclass(frozen=True, slots=True)
class RunRef:
    """Which run is meant: an identity that survives retries, deferrals and other people's runs.

    Runs are told apart by ``submission_id`` where both sides have one, else by ``creation_date``.
    """

    cluster_id: str
    job_name: str
    submission_id: int | None = None
    creation_date: int | None = None

    @classmethod
    def of(cls, submission: Submission) -> RunRef:
        """The identity of a run that was seen."""
        return cls(
            submission.cluster_id,
            submission.job_name,
            submission.submission_id,
            submission.creation_date,
        )

    @property
    def known(self) -> bool:
        """Whether there is anything to tell this run from others by."""
        return self.submission_id is not None or self.creation_date is not None

    def is_run(self, submission: Submission) -> bool:
        """Whether this submission is the run that is meant."""
        return self._compare(submission) == 0

    def is_before(self, submission: Submission) -> bool:
        """Whether this submission came after the run that is meant."""
        return self._compare(submission) == -1

    def _compare(self, submission: Submission) -> int | None:
        if self.submission_id is not None and submission.submission_id is not None:
            return _sign(self.submission_id - submission.submission_id)
        if self.creation_date is not None and submission.creation_date is not None:
            return _sign(self.creation_date - submission.creation_date)
        return None

    def __str__(self) -> str:
        number = f"run {self.submission_id}" if self.submission_id is not None else "the run"
        if self.submission_id is None and self.creation_date is not None:
            number += f" created at {self.creation_date} ms"
        return f"{number} of job {self.job_name!r} in cluster {self.cluster_id}"


def newest_first(submissions: Iterable[Submission]) -> list[Submission]:
    """Order runs by their number, or by creation date where numbers are absent."""
    return sorted(
        submissions,
        key=lambda s: (
            s.submission_id if s.submission_id is not None else -1,
            s.creation_date if s.creation_date is not None else -1,
        ),
        reverse=True,
    )


def _sign(difference: int) -> int:
    return (difference > 0) - (difference < 0)


def _read_float(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < 1e18 else None


def read_int(value: Any) -> int | None:
    """Read a whole number off the wire, where it may also come in quotes or with a fraction."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number = _read_float(value)
    return None if number is None else int(number)


def _read_text(value: Any) -> str | None:
    return value[:DETAILS_LIMIT] if isinstance(value, str) and value else None


def _read_bool(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.strip().lower() == "true")


def _read_counters(value: Any) -> dict[str, int]:
    if not isinstance(value, Mapping):
        return {}
    group = value.get(COUNTERS_GROUP, value)
    if not isinstance(group, Mapping):
        return {}
    counted = ((str(name), read_int(count)) for name, count in group.items())
    return {name: count for name, count in counted if count is not None}
