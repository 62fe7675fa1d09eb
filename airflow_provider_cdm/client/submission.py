"""Submissions (runs of a job), the meaning of their status, and the identity of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice
from typing import Any

from airflow_provider_cdm.client.text import format_instant, iso_instant, one_line

COUNTERS_GROUP = "org.apache.sqoop.submission.counter.SqoopCounters"
#: Largest difference between two creation dates of one run, in milliseconds: some answers have
#: whole seconds.
_DATE_TOLERANCE = 2_000
#: Longest text of a run that is kept, such as its ``error-details``, in characters.
DETAILS_LIMIT = 8_000
#: Longest status that is kept, in characters; documented ones are one word.
STATUS_LIMIT = 100
#: Most counters of a run, and longest name of one in characters; CDM has eight.
_COUNTERS_LIMIT, _COUNTER_NAME_LIMIT = 64, 64
#: Longest name of a user or id of another system, in characters.
_NAME_LIMIT = 256


class Verdict(Enum):
    """Meaning of a submission's status for a task that waits for the run."""

    ACTIVE = "active"
    SUCCESS = "success"
    FAILURE = "failure"
    #: The status is ``UNKNOWN`` or not documented: keep waiting, but only for a limited time.
    UNKNOWN = "unknown"
    #: The job has never been run.
    NO_RUN = "no run"


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
#: Every documented status; job lists show ``NEW`` for a job without a run.
_STATUSES = frozenset({*_VERDICTS, "NEW", "UNKNOWN"})


def verdict_of(status: str) -> Verdict:
    """Return the meaning of a status, for everything that waits for a run.

    ``UNKNOWN`` and every undocumented status give ``Verdict.UNKNOWN``, never a success. Capitals
    make no difference: a client of another vendor was written for ``stopped``.
    """
    return _VERDICTS.get(status.strip().upper(), Verdict.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Submission:
    """One run of a CDM job, as the start, status and history calls describe it.

    CDM may omit everything but the status, so everything else may be ``None``.

    :param cluster_id: id of the cluster, from the call (not part of CDM's answer).
    :param job_name: name of the job, from the call.
    :param status: status in CDM's spelling, such as ``RUNNING``.
    :param submission_id: number of the run in its cluster; later runs have higher numbers.
    :param creation_date: when the run was created, epoch milliseconds.
    :param creation_user: user who started the run.
    :param execute_date: when the run began to execute, epoch milliseconds.
    :param last_update_date: when the run last changed, epoch milliseconds.
    :param last_update_user: user who last changed the run.
    :param progress: progress as CDM sends it; its scale differs between versions, so it is only
        for log lines.
    :param is_execute_auto: whether CDM's scheduler started the run.
    :param external_id: Hadoop-style id of the execution.
    :param counters: numbers of rows, bytes and files by CDM's names; ``-1`` for one that does not
        apply.
    :param error_summary: reason of a failure, one line.
    :param error_details: stack trace of a failure.
    :param write_rows: number of rows written.
    :param update_rows: number of rows updated.
    :param delete_rows: number of rows deleted.
    :param job_type: type of the job, such as ``BATCH_JOB``, if it was read (not part of CDM's
        answer).
    :param tables: results of the tables of a whole-database job (not part of CDM's answer): see
        :meth:`~airflow_provider_cdm.client.whole_database.tables.Report.to_dict`.
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
        """Meaning of the status; a success counts as a failure if a table did not succeed."""
        verdict, tables = verdict_of(self.status), self.tables
        if verdict is Verdict.SUCCESS and tables and tables["succeeded"] < tables["total"]:
            return Verdict.FAILURE
        return verdict

    @property
    def ended(self) -> bool:
        """Whether the run has ended, with success or failure."""
        return self.verdict in (Verdict.SUCCESS, Verdict.FAILURE)

    @property
    def failed(self) -> bool:
        """Whether the run has ended with a failure."""
        return self.verdict is Verdict.FAILURE

    @property
    def duration_seconds(self) -> float | None:
        """Seconds from creation to the last change; ``None`` until the run has ended."""
        begin = self.creation_date if self.creation_date is not None else self.execute_date
        if not self.ended or begin is None or self.last_update_date is None:
            return None
        return max(0, self.last_update_date - begin) / 1000

    def to_dict(self) -> dict[str, Any]:
        """Return the small JSON object that operators and sensors return, the same in every mode.

        It holds ``cluster_id, job_name, submission_id, creation_date, status``; after the run has
        ended also ``progress, counters, execute_date, last_update_date, duration_seconds``; and
        ``tables`` for a whole-database job. Each date is also there in ISO 8601, under a name with
        ``time`` in place of ``date``. Counters that do not apply to the job are left out.
        """
        result: dict[str, Any] = {
            "cluster_id": self.cluster_id,
            "job_name": self.job_name,
            "submission_id": self.submission_id,
            "creation_date": self.creation_date,
            "creation_time": iso_instant(self.creation_date),
            "status": self.status,
        }
        if self.ended:
            result |= {
                "progress": self.progress,
                "counters": {name: count for name, count in self.counters.items() if count >= 0},
                "execute_date": self.execute_date,
                "execute_time": iso_instant(self.execute_date),
                "last_update_date": self.last_update_date,
                "last_update_time": iso_instant(self.last_update_date),
                "duration_seconds": self.duration_seconds,
            }
        if self.tables is not None:
            result["tables"] = dict(self.tables)
        return result

    def to_payload(self) -> dict[str, Any]:
        """Return all fields as plain JSON, for a trigger's event."""
        payload = {name: getattr(self, name) for name in self.__dataclass_fields__}
        payload["counters"] = dict(self.counters)
        if self.error_details:
            payload["error_details"] = self.error_details[:DETAILS_LIMIT]
        return payload

    @classmethod
    def from_payload(cls, payload: Any) -> Submission:
        """Return the submission that :meth:`to_payload` was called on.

        :raises ValueError: when the payload is not such an object.
        """
        if not isinstance(payload, Mapping) or not all(
            isinstance(payload.get(name), str) for name in ("cluster_id", "job_name", "status")
        ):
            raise ValueError(f"not a submission: {payload!r}")
        known = {name: payload[name] for name in cls.__dataclass_fields__ if name in payload}
        return cls(**known)

    @classmethod
    def from_wire(cls, data: Any, cluster_id: str, job_name: str) -> Submission:
        """Read one element of ``submissions`` in CDM's answer; unknown keys are ignored.

        Dates may be numbers or quoted numbers, and the key of the last user has two spellings.

        :raises ValueError: when the element is not an object with a status.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"a submission is {type(data).__name__}, not an object")
        status = data.get("status")
        if not isinstance(status, str) or not status.strip():
            raise ValueError("a submission has no status")
        return cls(
            cluster_id=cluster_id,
            job_name=job_name,
            status=read_status(status),
            submission_id=read_int(data.get("submission-id")),
            creation_date=read_int(data.get("creation-date")),
            creation_user=_read_name(data.get("creation-user")),
            execute_date=read_int(data.get("execute-date")),
            last_update_date=read_int(data.get("last-update-date")),
            last_update_user=_read_name(
                data.get("last-udpate-user") or data.get("last-update-user")
            ),
            progress=_read_float(data.get("progress")),
            is_execute_auto=_read_bool(data.get("is-execute-auto")),
            external_id=_read_name(data.get("external-id")),
            counters=_read_counters(data.get("counters")),
            error_summary=_read_text(data.get("error-summary")),
            error_details=_read_text(data.get("error-details")),
            write_rows=read_int(data.get("write_rows")),
            update_rows=read_int(data.get("update_rows")),
            delete_rows=read_int(data.get("delete_rows")),
        )


@dataclass(frozen=True, slots=True)
class RunRef:
    """Identity of a run, which stays valid across retries, deferrals and other runs of the job.

    Runs are distinguished by ``submission_id`` if both have one, else by ``creation_date``. Numbers
    can begin again, for example after a cluster was rebuilt: so equal numbers with different dates
    are different runs, and runs whose numbers and dates contradict each other have no order.

    :param cluster_id: id of the cluster.
    :param job_name: name of the job.
    :param submission_id: number of the run in its cluster.
    :param creation_date: when the run was created, epoch milliseconds.
    """

    cluster_id: str
    job_name: str
    submission_id: int | None = None
    creation_date: int | None = None

    @classmethod
    def of(cls, submission: Submission) -> RunRef:
        """Return the identity of a run."""
        return cls(
            submission.cluster_id,
            submission.job_name,
            submission.submission_id,
            submission.creation_date,
        )

    @property
    def known(self) -> bool:
        """Whether this holds anything that distinguishes the run from other runs of its job."""
        return self.submission_id is not None or self.creation_date is not None

    def is_run(self, submission: Submission | RunRef) -> bool:
        """Return whether a submission is this run."""
        return self._compare(submission) == 0

    def is_unordered(self, submission: Submission) -> bool:
        """Return whether it is not known if this run is a submission, or before or after it."""
        return self._compare(submission) is None

    def is_before(self, submission: Submission) -> bool:
        """Return whether this run was created before a submission."""
        return self._compare(submission) == -1

    def _compare(self, submission: Submission | RunRef) -> int | None:
        by_number = by_date = None
        if self.submission_id is not None and submission.submission_id is not None:
            by_number = _sign(self.submission_id - submission.submission_id)
        if self.creation_date is not None and submission.creation_date is not None:
            by_date = self.creation_date - submission.creation_date
        if by_number is None:
            return None if by_date is None else _sign(by_date)
        if by_date is not None and abs(by_date) > _DATE_TOLERANCE and _sign(by_date) != by_number:
            return None
        return by_number

    @property
    def number(self) -> str:
        """What distinguishes this run from others of its job, for texts that need not name that."""
        if self.submission_id is not None:
            return f"run {self.submission_id}"
        if self.creation_date is not None:
            return f"the run created at {format_instant(self.creation_date)}"
        return "the run"

    @property
    def title(self) -> str:
        """The same for the beginning of a line."""
        return self.number[0].upper() + self.number[1:]

    def __str__(self) -> str:
        # Without the cluster: its id would push the rest of each line out of sight.
        return f"{self.number} of job {self.job_name!r}"


def newest_first(submissions: Iterable[Submission]) -> list[Submission]:
    """Sort runs by their number, or by creation date if they have no number."""
    return sorted(
        submissions,
        key=lambda run: (
            run.submission_id if run.submission_id is not None else -1,
            run.creation_date if run.creation_date is not None else -1,
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
    """Return an integer from CDM's answer, which may be quoted or have a fraction."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number = _read_float(value)
    return None if number is None else int(number)


def _read_text(value: Any) -> str | None:
    return value[:DETAILS_LIMIT] if isinstance(value, str) and value else None


def read_status(value: str) -> str:
    """Return a documented status in CDM's spelling, and another one as it is."""
    usual = value.strip().upper()
    return usual if usual in _STATUSES else one_line(value, STATUS_LIMIT)


def _read_name(value: Any) -> str | None:
    return one_line(value, _NAME_LIMIT) if isinstance(value, str) and value else None


def _read_bool(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.strip().lower() == "true")


def _read_counters(value: Any) -> dict[str, int]:
    if not isinstance(value, Mapping):
        return {}
    group = value.get(COUNTERS_GROUP, value)
    if not isinstance(group, Mapping):
        return {}
    counts = (
        (one_line(str(name), _COUNTER_NAME_LIMIT), read_int(count))
        for name, count in islice(group.items(), _COUNTERS_LIMIT)
    )
    return {name: count for name, count in counts if count is not None}
