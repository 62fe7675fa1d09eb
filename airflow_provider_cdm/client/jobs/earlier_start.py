"""The start of an earlier attempt: what becomes of it before this attempt starts anything.

Whether a record belongs to the same generation is decided in
:mod:`~airflow_provider_cdm.client.jobs.start_record`.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.jobs.follower import Follower
from airflow_provider_cdm.client.jobs.own_run import start_uncertain
from airflow_provider_cdm.client.jobs.run_search import RunSearch, note_run
from airflow_provider_cdm.client.jobs.start_record import (
    Relation,
    StartPolicy,
    StartRecord,
    StartRequest,
)
from airflow_provider_cdm.client.sansio import Flow, pause, save
from airflow_provider_cdm.client.submission import RunRef, Submission, Verdict

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EarlierStart:
    """Settles the start that a record of the journal describes.

    :param request: what this attempt is to start.
    :param policy: time limits of the protocol.
    :param deadline: when to stop looking at the run of the earlier attempt, epoch seconds.
    :param limit: name of the task's argument that set the deadline.
    :param left_running: whether a clear has ended the earlier attempt while its run was active, and
        was not to stop it; then the success of that run is the task's, also after the clear.
    """

    api: CdmApi
    request: StartRequest
    policy: StartPolicy
    deadline: float | None = None
    limit: str = "wait_timeout"
    left_running: bool = False

    def settle(self, record: StartRecord) -> Flow[tuple[StartRecord, Submission | None]]:
        """Continue where the earlier attempt stopped.

        :returns: the record, and our run; no run if the job must be started again.
        """
        relation = self.request.relation_to(record)
        ended = record.ended_run()
        if relation is Relation.SAME and ended is not None:
            log.info("The run of an earlier attempt succeeded, so nothing is started again.")
            return record, ended
        if ended is not None:
            if relation is Relation.UNCLEAR:
                raise self._in_doubt(RunRef.of(ended))
            return record, None
        if record.open:
            log.info("An earlier attempt may have started the job; searching for its run.")
            search = RunSearch(self.api, self.request, self.policy)
            run = yield from search.find_earlier(record, relation)
            if run is None:
                return record, None
            record = record.with_run(run)
            yield from note_run(record)
        if record.run is None:
            return record, None
        return (yield from self._poll_run_of(record, relation))

    def settle_other_arguments(self, record: StartRecord) -> Flow[StartRecord | None]:
        """Settle the start of an earlier attempt whose arguments were other ones.

        After a clear, the earlier start does not matter. In a retry, nothing is started while a run
        may exist that the earlier attempt started, whatever the arguments are now: it would be a
        second migration, and its success would not be that of these arguments.

        :returns: a record whose run has failed, if it is of the same job; else ``None``.
        :raises CdmStartUncertain: when such a run is active, has succeeded, or may exist.
        """
        request = self.request
        if request.relation_to(record) is Relation.NEW:
            log.warning(
                "The journal of this task describes a start with other arguments, before the task"
                " was cleared. That run is not followed; if it is active, it goes on."
            )
            return None
        earlier = replace(request, cluster_id=record.cluster_id, job_name=record.job_name)
        record, run = yield from replace(self, request=earlier).settle(record)
        if run is not None:
            if run.ended and not record.result:
                yield from note_run(record.ended_well(run))
            raise start_uncertain(
                request,
                f"an earlier attempt of this task had other arguments and started {RunRef.of(run)},"
                f" which is {run.status}",
            )
        same_job = (record.cluster_id, record.job_name) == (request.cluster_id, request.job_name)
        return replace(record, fingerprint=request.fingerprint) if same_job else None

    def _poll_run_of(
        self, record: StartRecord, relation: Relation
    ) -> Flow[tuple[StartRecord, Submission | None]]:
        """Poll the run of an earlier attempt.

        :returns: the record, and the run; no run if it has ended and a new one must be started.
        :raises CdmStartUncertain: when it succeeded, and it is not known whether the task was
            cleared since.
        """
        run = self.request.run(record.run)
        try:
            seen = yield from self._see(run)
        except errors.CdmOutcomeUnknown:
            if relation is not Relation.NEW:
                raise
            return record, None
        if not seen.ended:
            log.info("Resumed %s, which an earlier attempt started: %s.", run, seen.status)
            if relation is not Relation.SAME:
                record = yield from self._adopt(record)
            return record, seen
        log.info("%s, which an earlier attempt started, ended %s.", run.title, seen.status)
        if seen.verdict is not Verdict.SUCCESS:
            return (yield from self._note_end(record.ended_badly(seen))), None
        if relation is Relation.NEW:
            if not self.left_running:
                return (yield from self._note_end(record.ended_well(seen))), None
            log.info("It was left running when the task was cleared, so nothing is started again.")
            record = yield from self._adopt(record)
        if relation is Relation.UNCLEAR:
            yield from self._note_end(record.ended_well(seen))
            raise self._in_doubt(run)
        return record, seen

    def _note_end(self, record: StartRecord) -> Flow[StartRecord]:
        """Save that the run of a record has ended, so that no error asks people to stop it: a call
        that stops a job stops whichever run of it is active.
        """
        yield from save(record.to_payload())
        return record

    def _adopt(self, record: StartRecord) -> Flow[StartRecord]:
        """Make the run of a record that of this attempt, so that a retry knows it as its own."""
        generation, attempt_id = self.request.generation, self.request.attempt_id
        record = replace(record, generation=generation, attempt_id=attempt_id)
        yield from save(record.to_payload())
        return record

    def _in_doubt(self, run: RunRef) -> errors.CdmStartUncertain:
        """Return what ends an attempt that may be a retry or the first one after a clear."""
        return start_uncertain(
            self.request,
            f"{run} succeeded, and it is not known whether this task was cleared since then or is"
            " a retry; clear it once more to start the job again, or mark it as success",
        )

    def _see(self, run: RunRef) -> Flow[Submission]:
        """Poll a run until there is an answer: whether it has ended decides what to do.

        :raises CdmWaitTimeout: when there is none until the deadline.
        """
        follower = Follower(run)
        while (seen := (yield from follower.poll(self.api))) is None:
            deadline = math.inf if self.deadline is None else self.deadline
            left = deadline - self.api.exchanger.clock()
            if left <= 0:
                raise follower.timed_out(self.limit)
            yield from pause(min(10.0, left))
        return seen
