"""The request to start a job, and the record of it that the journal keeps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.submission import RunRef, Submission

VERSION = 1
_HOW_TO_RESET = (
    "To start again, check in CDM how the last run of the job ended, and delete cdm_start from the"
    " state of the task (before Airflow 3.3: the Variable cdm__start__ with the names of DAG, task"
    " and run)."
)


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
    """

    settle: float = 60.0
    clock_tolerance: float = 15.0
    history_timeout: float = 300.0
    max_sends: int = 3
    date_tolerance: float = 2.0


@dataclass(frozen=True, slots=True)
class StartRequest:
    """What to start, and for whom.

    :param project: project of the cluster.
    :param cluster_id: cluster of the job.
    :param job_name: job to start.
    :param variables: values for ``${name}`` in the job's parameters.
    :param generation: identifier shared by all attempts that must share one run.
    :param if_running: ``attach`` to follow a run that is already active; anything else to fail.
    :param definition: fingerprint of the job's definition, if the job is created for this request.
    """

    project: str
    cluster_id: str
    job_name: str
    variables: Mapping[str, str]
    generation: str = ""
    if_running: str = "fail"
    definition: str | None = None

    @property
    def fingerprint(self) -> str:
        """Digest that distinguishes requests; variables cannot be read back from it."""
        content = [self.project, self.cluster_id, self.job_name, sorted(self.variables.items())]
        if self.definition is not None:
            content.append(self.definition)
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]

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
    :param generation: generation of the request.
    :param baseline: key of the newest run before the start; ``None`` if there was none or it is not
        known.
    :param baseline_known: whether the baseline was read from the history.
    :param intent_at: time at which the intent was formed, epoch seconds by the server's clock.
    :param sent_at: time immediately before the start was last sent, epoch seconds by our clock.
    :param sends: number of times that the start was sent; 0 means that no start is under way.
    :param run: key of the run that the start created.
    :param result: that run, once it has succeeded.
    """

    fingerprint: str
    generation: str
    baseline: Mapping[str, Any] | None = None
    baseline_known: bool = False
    intent_at: float = 0.0
    sent_at: float = 0.0
    sends: int = 0
    run: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None

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
            return cls(**{name: payload[name] for name in names if name in payload})
        except (KeyError, TypeError) as problem:
            raise _unreadable(problem, payload) from problem

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

    def with_run(self, run: Submission) -> StartRecord:
        """Return the record once the run is known."""
        return replace(self, run=key_of(run), result=None)

    def ended_well(self, run: Submission) -> StartRecord:
        """Return the record once the run has succeeded; a retry returns that run."""
        return replace(self, run=key_of(run), result=run.to_payload())

    def ended_badly(self, run: Submission) -> StartRecord:
        """Return the record once the run has failed; the next run must be newer than it."""
        return StartRecord(self.fingerprint, self.generation, baseline=key_of(run))


@dataclass(frozen=True, slots=True)
class StartResult:
    """The run that is ours.

    :param run: run as it was last seen.
    :param from_earlier_attempt: whether an earlier attempt started it.
    """

    run: Submission
    from_earlier_attempt: bool = False


def _unreadable(problem: Exception, payload: Any) -> errors.CdmJournalError:
    return errors.CdmJournalError(
        f"The journal of this task cannot be read ({problem!r}): {payload!r} {_HOW_TO_RESET}"
    )


def key_of(run: Submission | RunRef) -> dict[str, Any]:
    """Return what a record keeps of a run: its number and its creation date."""
    return {"submission_id": run.submission_id, "creation_date": run.creation_date}
