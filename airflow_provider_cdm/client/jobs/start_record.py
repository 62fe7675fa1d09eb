"""The request to start a job, and the record of it that the journal keeps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.submission import RunRef, Submission

VERSION = 2
_HOW_TO_RESET = (
    "To start again, check in CDM how the last run of the job ended, and delete cdm_start from the"
    " state of the task (before Airflow 3.3: the Variable cdm:start: with the names of DAG, task"
    " and run)."
)


class Relation(Enum):
    """How an attempt relates to the attempt that wrote a record."""

    #: A retry: it shares the run of the earlier attempt.
    SAME = "same generation"
    #: The task was cleared since: it attaches to an active run, and otherwise starts the job again.
    NEW = "new generation"
    #: Either of them: the task's retries were edited since, or the DAG run began again.
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Generation:
    """What Airflow says about an attempt, from which retries and clears are distinguished.

    Airflow sets ``max_tries`` to the tries so far plus the task's retries when it clears a task. If
    the retries were edited, that may leave ``max_tries`` as it was; but the first attempt after a
    clear is number ``max_tries - retries + 1``. Then the DAG run tells more: a clear of any of its
    tasks increases its clear number, and if it had ended, with all its tasks, it begins again.

    :param try_number: number of the attempt, from 1.
    :param max_tries: ``max_tries`` of the task instance.
    :param clear_number: ``clear_number`` of the DAG run; ``None`` where Airflow does not tell it.
    :param retries: the task's retries.
    :param began_at: when the DAG run began, epoch seconds; ``None`` where Airflow does not tell it.
    :param counts_all_clears: whether the clear number counts all clears; below Airflow 3.2 it does
        not count those of a DAG run that had not ended.
    :param reschedules: how often this try was rescheduled before. From Airflow 3.4 on, a retry
        policy may let a failed task begin again with the same try number.
    """

    try_number: int = 1
    max_tries: int = 0
    clear_number: int | None = None
    retries: int = 0
    began_at: float | None = None
    counts_all_clears: bool = True
    reschedules: int = 0

    def relation_to(self, earlier: Generation) -> Relation:
        """Return how this attempt relates to an earlier one of the same task instance."""
        if self.max_tries != earlier.max_tries:
            return Relation.NEW
        began_again = self.began_again_since(earlier)
        rescheduled = self.reschedules > earlier.reschedules and not began_again
        if self.try_number < earlier.try_number + (not rescheduled):
            # Tries only grow within a DAG run: it was deleted and created again.
            return Relation.NEW
        first_after_clear = self.max_tries - self.retries + 1
        may_be_cleared = earlier.try_number < first_after_clear <= self.try_number
        any_clear = self.clear_number != earlier.clear_number
        if may_be_cleared and any_clear and began_again:
            return Relation.NEW
        if began_again or (may_be_cleared and (any_clear or not self.counts_all_clears)):
            return Relation.UNCLEAR
        return Relation.SAME

    def began_again_since(self, earlier: Generation) -> bool:
        """Return whether the DAG run, with all its tasks, ended and began again since."""
        known = None not in (self.began_at, earlier.began_at)
        return known and self.began_at != earlier.began_at


@dataclass(frozen=True, slots=True)
class StartPolicy:
    """How a start whose effect is not known is settled; all times in seconds.

    :param settle: time after sending within which the run of a start appears in the history; a
        start without a run had no effect (60 by default).
    :param clock_tolerance: time added to it for a start that another process sent, whose clock may
        differ from ours (15 by default).
    :param history_timeout: time after settling for which to go on trying to read the history (300
        by default).
    :param max_sends: maximum number of times that a start is sent (3 by default).
    :param date_tolerance: maximum difference between the server's time and our estimate of it (2 by
        default).
    :param max_record_skew: maximum difference between the clock of CDM's answers and that of the
        creation dates in its records (a day by default).
    """

    settle: float = 60.0
    clock_tolerance: float = 15.0
    history_timeout: float = 300.0
    max_sends: int = 3
    date_tolerance: float = 2.0
    max_record_skew: float = 86_400.0


@dataclass(frozen=True, slots=True)
class StartRequest:
    """What to start, and for whom.

    :param cluster_id: cluster of the job.
    :param job_name: job to start.
    :param variables: values for ``${name}`` in the job's parameters.
    :param generation: what distinguishes a retry from a clear.
    :param attempt_id: what distinguishes this attempt from all others, the same after a deferral.
    :param if_running: ``attach`` to follow a run that is already active; anything else to fail.
    :param definition: fingerprint of the job's definition, if the job is created for this request.
    :param standby_cluster_ids: clusters that hold the same job, in the order in which they are
        tried while those before take no start.
    """

    cluster_id: str
    job_name: str
    variables: Mapping[str, str]
    generation: Generation = field(default_factory=Generation)
    if_running: str = "fail"
    definition: str | None = None
    attempt_id: str = ""
    standby_cluster_ids: tuple[str, ...] = ()

    @property
    def cluster_ids(self) -> tuple[str, ...]:
        """All clusters that the job may be started in."""
        return (self.cluster_id, *self.standby_cluster_ids)

    def at(self, cluster_id: str) -> StartRequest:
        """Return the request for one of its clusters alone."""
        return replace(self, cluster_id=cluster_id, standby_cluster_ids=())

    def in_cluster_of(self, record: StartRecord | None) -> StartRequest:
        """Return the request for the cluster that a record is about, if that is one of its own, and
        else for the first.
        """
        if record is not None and record.cluster_id in self.cluster_ids:
            return self.at(record.cluster_id)
        return self.at(self.cluster_id)

    @property
    def fingerprint(self) -> str:
        """Digest that distinguishes requests; variables cannot be read back from it."""
        # Not the project: the id of the cluster implies it, and a user may fill it in any time.
        content = [self.cluster_id, self.job_name, sorted(self.variables.items())]
        if self.definition is not None:
            content.append(self.definition)
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]

    def relation_to(self, record: StartRecord) -> Relation:
        """Return how this attempt relates to the attempt that wrote a record."""
        if self.attempt_id and self.attempt_id == record.attempt_id:
            return Relation.SAME
        return self.generation.relation_to(record.generation)

    def may_follow_a_clear(self, record: StartRecord) -> bool:
        """Return whether a clear may have ended the attempt that wrote a record.

        The clear of a running task may change nothing but the clear number, which a clear of
        another task changes as well.
        """
        return (
            self.relation_to(record) is not Relation.SAME
            or self.generation.clear_number != record.generation.clear_number
        )

    def run(self, key: Mapping[str, Any] | None) -> RunRef:
        """Return a run of this job.

        :param key: key of the run in a record, see :func:`key_of`.
        """
        key = key or {}
        return RunRef(
            self.cluster_id, self.job_name, key.get("submission_id"), key.get("creation_date")
        )


@dataclass(frozen=True, slots=True)
class StartRecord:
    """What the journal keeps of a start.

    :param fingerprint: fingerprint of the request.
    :param generation: generation of the attempt that started or attached.
    :param attempt_id: id of that attempt.
    :param cluster_id: cluster of the job.
    :param job_name: job that was started.
    :param baseline: key of the newest run before the start; ``None`` if there was none or it is not
        known.
    :param baseline_known: whether the baseline was read from the history.
    :param intent_at: time at which the intent was formed, epoch seconds by the server's clock.
    :param sent_at: time immediately before the start was last sent, epoch seconds by the server's
        clock.
    :param sends: number of times that the start was sent; 0 means that no start is under way.
    :param run: key of the run that the start created.
    :param foreign: whether this task attached to that run and did not start it.
    :param result: that run, once it has succeeded.
    """

    fingerprint: str
    generation: Generation
    cluster_id: str = ""
    job_name: str = ""
    baseline: Mapping[str, Any] | None = None
    baseline_known: bool = False
    intent_at: float = 0.0
    sent_at: float = 0.0
    sends: int = 0
    run: Mapping[str, Any] | None = None
    foreign: bool = False
    result: Mapping[str, Any] | None = None
    attempt_id: str = ""

    def to_payload(self) -> dict[str, Any]:
        """Return the record as plain JSON."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> StartRecord:
        """Read what :meth:`to_payload` returned.

        :raises CdmJournalError: when the payload is anything else.
        """
        try:
            if payload["version"] != VERSION:
                raise errors.CdmJournalError(
                    f"The journal has version {payload['version']!r}; this release reads version"
                    f" {VERSION}. Use the release that wrote it. {_HOW_TO_RESET}"
                )
            names = cls.__dataclass_fields__
            content = {name: payload[name] for name in names if name in payload}
            record = cls(**{**content, "generation": Generation(**payload["generation"])})
            record._check_types()
        except (KeyError, TypeError, AttributeError) as problem:
            raise _unreadable(problem, payload) from problem
        return record

    def _check_types(self) -> None:
        generation = self.generation
        numbers = (self.intent_at, self.sent_at, self.sends, generation.began_at or 0)
        clears = generation.clear_number or 0
        tries = (
            *(generation.try_number, generation.max_tries, generation.retries),
            *(generation.reschedules, clears),
        )
        flags = (self.baseline_known, self.foreign, generation.counts_all_clears)
        mappings = (self.baseline or {}, self.run or {}, self.result or {})
        texts = (self.fingerprint, self.cluster_id, self.job_name, self.attempt_id)
        keys = [key for run in mappings[:2] for key in run.values()]
        if not (
            all(isinstance(text, str) for text in texts)
            and all(isinstance(number, int | float) and number >= 0 for number in numbers)
            and all(isinstance(number, int) for number in tries)
            and all(isinstance(flag, bool) for flag in flags)
            and all(isinstance(mapping, Mapping) for mapping in mappings)
            and all(key is None or isinstance(key, int) for key in keys)
        ):
            raise TypeError("a value has the wrong type")

    def ended_run(self) -> Submission | None:
        """Return the run that succeeded, if there is one.

        :raises CdmJournalError: when the result cannot be read as a run.
        """
        try:
            return None if self.result is None else Submission.from_payload(self.result)
        except (ValueError, TypeError) as problem:
            raise _unreadable(problem, self.result) from problem

    @property
    def open(self) -> bool:
        """Whether a start may be under way whose run is not known."""
        return self.sends > 0 and self.run is None

    @property
    def may_exist(self) -> bool:
        """Whether a run of this record may exist that has not ended in failure."""
        return self.open or self.run is not None

    def with_run(self, run: Submission, *, foreign: bool = False) -> StartRecord:
        """Return the record once the run is known."""
        return replace(self, run=key_of(run), foreign=foreign, result=None)

    def ended_well(self, run: Submission) -> StartRecord:
        """Return the record once the run has succeeded; a retry returns that run."""
        return replace(self, run=key_of(run), result=run.to_payload())

    def ended_badly(self, run: Submission) -> StartRecord:
        """Return the record once the run has failed; the next run must be newer than it."""
        return StartRecord(
            self.fingerprint,
            self.generation,
            self.cluster_id,
            self.job_name,
            baseline=key_of(run),
            attempt_id=self.attempt_id,
        )


@dataclass(frozen=True, slots=True)
class StartResult:
    """The run that is ours.

    :param run: run as it was last seen.
    :param from_earlier_attempt: whether an earlier attempt started it.
    :param foreign: whether this task attached to it and did not start it.
    :param found: whether the start got no answer, and the history showed the run.
    """

    run: Submission
    from_earlier_attempt: bool = False
    foreign: bool = False
    found: bool = False


def _unreadable(problem: Exception, payload: Any) -> errors.CdmJournalError:
    return errors.CdmJournalError(
        f"The journal of this task cannot be read: {problem!r}. {_HOW_TO_RESET} It holds"
        f" {payload!r}"
    )


def key_of(run: Submission | RunRef) -> dict[str, Any]:
    """Return what a record keeps of a run: its number and its creation date."""
    return {"submission_id": run.submission_id, "creation_date": run.creation_date}
