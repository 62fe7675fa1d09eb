"""Looks at the history of a job until it shows something new, and completes what it shows."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import runs
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.definitions import JOB
from airflow_provider_cdm.client.sansio import Flow
from airflow_provider_cdm.client.submission import RunRef, Submission
from airflow_provider_cdm.client.watching.position import (
    Look,
    WatchPosition,
    compare,
    shows_nothing_new,
)
from airflow_provider_cdm.client.whole_database import collect

log = logging.getLogger(__name__)

#: Seconds by which the date in an answer's header may be behind the instant of the answer.
_DATE_HEADER_ERROR = 0.5
_TRANSIENT = (errors.CdmUnavailable, errors.CdmThrottled, errors.CdmBadResponse)


@dataclass(slots=True)
class RunWatch:
    """Looks at the history of a job until it shows something new; waits like a follower does.

    It does not move on by itself: whoever waits takes :attr:`look` and makes the next watch.

    :param cluster_id: cluster of the job.
    :param job_name: name of the job.
    :param position: what has been dealt with.
    :param look_back: seconds before the beginning of the watcher from which on ends are new.
    :param on_answer: called with each history that was read.
    :param look: the last look that moves the position; ``None`` while there is none.
    """

    cluster_id: str
    job_name: str
    position: WatchPosition
    look_back: float = 0.0
    on_answer: Callable[[], None] = lambda: None
    look: Look | None = None
    problems_since: dict[str, float] = field(default_factory=dict)

    @property
    def run(self) -> RunRef:
        """The active run, if one was seen; only to judge whether a poll is worth it."""
        pending = self.position.pending
        return pending[0] if pending else RunRef(self.cluster_id, self.job_name)

    @property
    def created_from(self) -> int:
        """Creation date from which on a run is new, as far as is known; epoch milliseconds."""
        newest = self.position.newest
        return 0 if newest is None or newest.creation_date is None else newest.creation_date + 1

    @property
    def asks_history(self) -> bool:
        """Whether polls begin with the history: always, as only that shows more than one run."""
        return True

    def poll(self, api: CdmApi) -> Flow[Submission | None]:
        """Read the history once.

        :returns: ``None``: no run ends this wait; see :attr:`look`.
        :raises CdmError: when CDM rejects the call for another reason than the credentials.
        """
        status = api.known_answer(runs.status(self.cluster_id, self.job_name))
        if status is not None and shows_nothing_new(self.position, status):
            # A wait for a run of the same job has just asked.
            self._record_answer()
            return None
        uptime = api.exchanger.uptime
        asked_at = uptime()
        try:
            history = yield from api.call(runs.history(self.cluster_id, self.job_name))
        except errors.CdmError as error:
            if not (isinstance(error, _TRANSIENT) or error.refuses_credentials):
                raise
            # The poller repeats the call, seldom, and gives up after the grace period of waits.
            if not self.problems_since:
                log.warning("The runs of job %r cannot be read: %s", self.job_name, error)
            self.problems_since.setdefault("outage", uptime())
            return None
        self._record_answer()
        # The server's clock is known from its answer, which was sent later than the question.
        ahead = api.exchanger.server_clock.offset + _DATE_HEADER_ERROR + uptime() - asked_at
        begin = (self.position.began_at + ahead - self.look_back) * 1000
        look = compare(self.position, history, begin)
        if look.ends or look.position != self.position:
            self.look = look
        return None

    def _record_answer(self) -> None:
        self.problems_since.clear()
        self.on_answer()

    def unreachable(self, error: errors.CdmError, lasted: float) -> errors.CdmError:
        """Return the error for a wait during which calls failed, or were refused, for too long."""
        error_type = errors.CdmAuthError if error.refuses_credentials else errors.CdmUnavailable
        return error_type(
            f"The runs of job {self.job_name!r} could not be read for {lasted:.0f} s (cluster"
            f" {self.cluster_id}). The last error: {error}",
            http_status=error.http_status,
            code=error.code,
            request_id=error.request_id,
        )

    def timed_out(self, limit: str = "wait_timeout") -> errors.CdmWaitTimeout:
        """Return the error for a wait that reached its deadline; watchers have none."""
        return errors.CdmWaitTimeout(f"No run of job {self.job_name!r} ended ({limit}).")


def with_outcome(api: CdmApi, run: Submission, *, last_try: bool) -> Flow[Submission | None]:
    """Return an ended run as the operators report it: with its tables, if its job has any.

    :param last_try: whether to go on without what cannot be read.
    :returns: the run; ``None``, after a warning, if CDM calls it a success and does not show
        whether all of its tables are.
    :raises CdmError: when CDM cannot be asked at the moment.
    """
    definition, problem = None, "Its job no longer exists."
    try:
        definition = yield from api.find(JOB, run.cluster_id, run.job_name)
    except errors.CdmError as error:
        if not last_try and (isinstance(error, _TRANSIENT) or error.refuses_credentials):
            raise
        problem = str(error)
    if definition is None:
        # The run's own status counts: nearly all jobs are of other types.
        log.warning(
            "It is not known whether %s has moved a whole database, so no tables are checked. %s",
            *(RunRef.of(run), problem),
        )
    try:
        return (yield from collect.with_tables(api, run, definition))
    except errors.CdmOutcomeUnknown as error:
        log.warning("%s", error)
    except errors.CdmError as error:
        if not last_try:
            raise
        log.warning("%s", error)
    return None
