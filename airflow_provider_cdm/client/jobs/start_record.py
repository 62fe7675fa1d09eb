"""What is to be started, and what the journal keeps of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.submission import RunRef, Submission

VERSION = 1
_MEND = (
    "To begin anew, see in CDM what became of the job's last run, and delete cdm_start from the"
    " state of the task (below Airflow 3.3: the Variable cdm__start__ with the names of DAG, task"
    " and run)."
)


@dataclass(frozen=True, slots=True)
class StartPolicy:
    """How a start whose effect is not known is settled, in seconds.

    :param settle: a start that did not show up this long after it was sent has had no effect.
    :param grace: added to it for a start that another process sent, whose clock may differ.
    :param poll: time for which to try to read the history, counted from the end of settling.
    :param sends: how often a start is sent at most.
    :param blur: how far creation dates and our idea of the server's time may lie apart.
    """

    settle: float = 60.0
    clock_tolerance: float = 15.0
    history_timeout: float = 300.0
    max_sends: int = 3
    date_tolerance: float = 2.0


@dataclass(frozen=True, slots=True)
class StartRequest:
    """What is to be started, and on whose behalf.

    :param generation: the same for all attempts that shall share one run.
    :param if_running: ``attach`` takes a run that is active already for our own.
    :param definition: fingerprint of the job's definition, where the job is made for this order.
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
        """Tells orders apart; holds nothing of the variables that could be read back."""
        content = [self.project, self.cluster_id, self.job_name, sorted(self.variables.items())]
        if self.definition is not None:
            content.append(self.definition)
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]

    def run(self, key: Mapping[str, Any] | None) -> RunRef:
        """A run of this job by its key in a record."""
        key = key or {}
        return RunRef(
            self.cluster_id, self.job_name, key.get("submission_id"), key.get("creation_date")
        )


@dataclass(frozen=True, slots=True)
class StartRecord:
    """What is remembered of a start, in the words of the journal.

    :param fingerprint: of the order.
    :param generation: of the order.
    :param baseline: the newest run before the start, ``None`` if there was none or it is not known.
    :param baseline_known: whether the history was read for the baseline.
    :param intent_at: when the intent was written, epoch seconds by the server's clock.
    :param sent_at: when the start was last about to be sent, epoch seconds by our clock.
    :param sends: how often it was; 0 means that nothing is under way.
    :param run: the run that the start made.
    :param result: that run, once it ended well.
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
        """The record as plain JSON."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> StartRecord:
        """Read what :meth:`to_payload` made.

        :raises CdmJournalError: when it is something else.
        """
        try:
            if payload["version"] != VERSION:
                raise errors.CdmJournalError(
                    f"The journal was written in version {payload['version']!r}, and this release"
                    f" reads version {VERSION}. Use the release that wrote it. {_MEND}"
                )
            names = cls.__dataclass_fields__
            return cls(**{name: payload[name] for name in names if name in payload})
        except (KeyError, TypeError) as problem:
            raise _unreadable(problem, payload) from problem

    def ended_run(self) -> Submission | None:
        """The run that ended well, if one is noted.

        :raises CdmJournalError: when what is noted is no run.
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
        """The record once the run is known."""
        return replace(self, run=key_of(run), result=None)

    def ended_well(self, run: Submission) -> StartRecord:
        """The record once the run succeeded: a retry takes this for its result."""
        return replace(self, run=key_of(run), result=run.to_payload())

    def ended_badly(self, run: Submission) -> StartRecord:
        """The record once the run failed: the next start has to be newer than it."""
        return StartRecord(self.fingerprint, self.generation, baseline=key_of(run))


@dataclass(frozen=True, slots=True)
class StartResult:
    """Our run, and how we came by it.

    :param run: as it was seen last.
    :param earlier: whether an earlier attempt had started it.
    """

    run: Submission
    from_earlier_attempt: bool = False


def _unreadable(problem: Exception, payload: Any) -> errors.CdmJournalError:
    return errors.CdmJournalError(
        f"The journal of this task cannot be read ({problem!r}): {payload!r} {_MEND}"
    )


def key_of(run: Submission | RunRef) -> dict[str, Any]:
    """What a record keeps of a run."""
    return {"submission_id": run.submission_id, "creation_date": run.creation_date}
