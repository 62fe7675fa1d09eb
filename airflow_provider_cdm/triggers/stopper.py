"""The triggerer's shared stoppers, one per cluster: they stop the runs of tasks that users ended.

Users end hundreds of tasks at once, and Airflow then cancels all of their triggers in the same
second. CDM allows 1,200 stops a minute, but only 120 calls of each kind that tell whose run is
active. :mod:`airflow_provider_cdm.client.polling.stops` decides which call is made for which run;
this module makes them within the rate limits of the user, repeats what failed, and has threads of
its own, since those of the pollers may wait for answers.
"""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias, TypeVar

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import resources, runs
from airflow_provider_cdm.client.api.call import Quota
from airflow_provider_cdm.client.api.definitions import JOB
from airflow_provider_cdm.client.api.job_list import JobPage
from airflow_provider_cdm.client.jobs import stop
from airflow_provider_cdm.client.jobs.stop import JobFate
from airflow_provider_cdm.client.locks import ProcessLock
from airflow_provider_cdm.client.polling.rate_limited_api import OUTAGE_ERRORS
from airflow_provider_cdm.client.polling.stops import (
    ListReading,
    OnFailure,
    StopQueue,
    UnprovenRun,
)
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.client.settings import Settings
from airflow_provider_cdm.client.submission import RunRef, Submission
from airflow_provider_cdm.triggers.paced_calls import PacedCalls, TooLateError

T = TypeVar("T")

#: Stops in flight at most, looks in flight at most, and threads for them and a list.
_STOPS, _LOOKS, _THREADS = 64, 8, 80
#: Quotas of the calls that show the newest run of a job.
_LOOK_QUOTAS = (Quota.STATUS, Quota.HISTORY)
#: Seconds until the next slot from which on something else is done in the meantime; also how long a
#: list may take before runs are looked at one by one.
_LONG_WAIT = 2.0
#: Seconds in which further runs may come before it is decided how to ask about them.
_GATHER_SECONDS = 0.2
#: Seconds after a stop until the first look whether the run has ended, and between two looks; and
#: within which it must have ended for its job to be deleted.
_END_SECONDS, _END_WITHIN = 3.0, 60.0

_Key: TypeAlias = tuple[Settings, str]
_stoppers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[_Key, RunStopper]] = (
    weakref.WeakKeyDictionary()
)
_stoppers_lock = ProcessLock()


@contextmanager
def shared_stopper(session: CdmSession, cluster_id: str) -> Iterator[RunStopper]:
    """Use the stopper of a cluster and a user on the running event loop.

    :param session: makes the calls of a stopper that is new; others keep theirs.
    """
    key = replace(session.settings, cluster_id=None, console_url=None), cluster_id
    with _stoppers_lock:
        stoppers = _stoppers.setdefault(asyncio.get_running_loop(), {})
        stopper = stoppers.get(key) or stoppers.setdefault(key, RunStopper(session, cluster_id))
        stopper.users += 1
    try:
        yield stopper
    finally:
        with _stoppers_lock:
            stopper.users -= 1
            if not stopper.users:
                stoppers.pop(key, None)
                stopper.close()


class RunStopper:
    """Stops runs in one cluster; belongs to one event loop.

    :param session: makes the calls; its clock and its sleep are used.
    :param cluster_id: the cluster.
    """

    def __init__(self, session: CdmSession, cluster_id: str) -> None:
        self.users = 0
        self._cluster_id = cluster_id
        self._calls = PacedCalls(session, _THREADS)
        self._loop = asyncio.get_running_loop()
        self._queue = StopQueue()
        self._workers: set[asyncio.Task[None]] = set()
        self._reader: asyncio.Task[None] | None = None
        self._planner: asyncio.Task[None] | None = None
        self._stops = asyncio.Semaphore(_STOPS)

    def close(self) -> None:
        """End all that is under way; a call in flight ends in its thread."""
        for task in (*self._workers, *filter(None, [self._reader, self._planner])):
            task.cancel()
        self._calls.close()

    @property
    def failure(self) -> errors.CdmError | None:
        """Last failure of a call, whatever it was for."""
        return self._calls.failure

    async def stop(self, run: RunRef, on_failure: OnFailure) -> bool:
        """Stop one run, and no other; goes on until that has succeeded, or cannot.

        :param on_failure: called with each failure after which a call is repeated; raises it when
            the time is over.
        :returns: whether the stop was sent; ``False`` if the run is not the active one.
        :raises CdmError: when CDM rejects the calls.
        """
        await self._stops_allowed()
        while await self._prove(run, on_failure):
            usable_until = self._calls.uptime() + stop.PROOF_SECONDS
            async with self._stops:
                while self._calls.uptime() <= usable_until:
                    call = runs.stop_job(self._cluster_id, run.job_name)
                    try:
                        await self._calls.call(call, Quota.STOP, usable_until)
                    except errors.CdmNotRunning:
                        return False
                    except OUTAGE_ERRORS as error:
                        on_failure(error)
                    except TooLateError:
                        break
                    else:
                        return True
            await self._stops_allowed()
        return False

    async def delete_after_stop(self, run: RunRef, on_failure: OnFailure) -> None:
        """Delete the job of a run that was asked to stop, once it has ended; log the result.

        :param on_failure: called with each failure after which a call is repeated; raises it when
            the time is over.
        :raises CdmWaitTimeout: when the run has not ended within a minute.
        :raises CdmError: when CDM rejects the calls.
        """
        give_up_at = self._calls.uptime() + _END_WITHIN
        fate, deleted = JobFate.PENDING, False
        try:
            while fate is JobFate.PENDING:
                if self._calls.uptime() > give_up_at:
                    raise stop.not_ended(run, _END_WITHIN)
                await self._calls.sleep(_END_SECONDS)
                fate = stop.fate_of_job(run, await self._look(run, on_failure))
            while fate is JobFate.DELETE and not deleted:
                try:
                    call = resources.delete(JOB, self._cluster_id, run.job_name)
                    await self._calls.call(call, Quota.DELETE)
                    deleted = True
                except OUTAGE_ERRORS as error:
                    on_failure(error)
        except errors.CdmNotFound as error:
            if not stop.job_is_gone(error):
                raise
            fate = JobFate.DELETE
        stop.log_fate(run, fate, deleted=deleted)

    async def _prove(self, run: RunRef, on_failure: OnFailure) -> bool:
        """Find out whether a run is the active one of its job."""
        answer: asyncio.Future[Submission | bool | None] = self._loop.create_future()
        on_listed = partial(_resolve, answer, True)
        unproven = UnprovenRun(run, partial(_resolve, answer), on_failure, on_listed)
        found = await self._ask(unproven, answer)
        return found if isinstance(found, bool) else stop.is_active(run, found)

    async def _look(self, run: RunRef, on_failure: OnFailure) -> Submission | None:
        """Return the newest run of the job of a run; stops go first."""
        answer: asyncio.Future[Submission | None] = self._loop.create_future()
        return await self._ask(UnprovenRun(run, partial(_resolve, answer), on_failure), answer)

    async def _ask(self, unproven: UnprovenRun, answer: asyncio.Future[T]) -> T:
        self._queue.put(unproven)
        self._set_to_work()
        try:
            return await answer
        finally:
            self._queue.discard(unproven)

    def _set_to_work(self) -> None:
        if self._planner is None or self._planner.done():
            self._planner = self._start(self._plan_work())

    async def _plan_work(self) -> None:
        """Have lists read if they tell more, and then runs looked at one by one.

        A look that has a slot is made, and takes the slot from others, though a list that is read
        at the same time tells the same.
        """
        while True:
            await self._calls.sleep(_GATHER_SECONDS)
            if (self._reader is None or self._reader.done()) and self._queue.next_reading():
                self._reader = self._start(self._read_lists())
            if self._reader is not None and not self._reader.done():
                await asyncio.wait({self._reader}, timeout=_LONG_WAIT)
            self._workers = {task for task in self._workers if not task.done()}
            for _ in range(min(_LOOKS - len(self._workers), self._queue.looks_to_do)):
                self._workers.add(self._start(self._look_at_runs()))
            reads = self._reader is not None and not self._reader.done()
            if reads or self._queue.next_reading() is None:
                return

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # In a context of its own, since its log lines belong to no single task.
        return self._loop.create_task(work, context=contextvars.Context())

    async def _look_at_runs(self) -> None:
        """Read the newest run of one job after the other, until none is left."""
        while (unproven := self._queue.next_look()) is not None:
            unproven.looking = True
            try:
                newest = await self._newest_run(unproven.run.job_name)
            except OUTAGE_ERRORS as error:
                try:
                    unproven.on_failure(error)
                except errors.CdmError as final:
                    self._queue.discard(unproven)
                    unproven.on_answer(final)
            except Exception as error:
                self._queue.discard(unproven)
                unproven.on_answer(error)
            else:
                self._queue.discard(unproven)
                unproven.on_answer(newest)
            finally:
                unproven.looking = False

    async def _newest_run(self, job_name: str) -> Submission | None:
        status, history = (self._calls.next_slot(quota) for quota in _LOOK_QUOTAS)
        if status > history + _LONG_WAIT:
            read = await self._calls.call(runs.history(self._cluster_id, job_name), Quota.HISTORY)
            return stop.newest_of(read.submissions)
        shown = await self._calls.call(runs.status(self._cluster_id, job_name), Quota.STATUS)
        return stop.newest_of(shown)

    async def _read_lists(self) -> None:
        """Read job lists as long as they tell more than looks."""
        while (reading := self._queue.next_reading()) is not None:
            with suppress(errors.CdmRefused, errors.CdmAuthError):
                first = await self._read_page(reading, 1)
                others = range(2, reading.pages(first) + 1)
                pages = [self._loop.create_task(self._read_page(reading, n)) for n in others]
                try:
                    await asyncio.gather(*pages)
                finally:
                    for page in pages:
                        page.cancel()
            self._queue.finish(reading)

    async def _read_page(self, reading: ListReading, number: int) -> JobPage:
        call = resources.list_jobs(
            self._cluster_id, number, job_type=reading.job_type, name_filter=reading.name_filter
        )
        while True:
            with suppress(*OUTAGE_ERRORS):
                page = await self._calls.call(call, Quota.LISTING)
                self._queue.apply(reading, page)
                return page

    async def _stops_allowed(self) -> None:
        """Wait until the quota of stops is not used up: a proof is no longer right after that."""
        while (seconds := self._calls.next_slot(Quota.STOP)) > _LONG_WAIT:
            await self._calls.sleep(seconds)


def _resolve(answer: asyncio.Future[Any], result: Any) -> None:
    if answer.done():
        return
    if isinstance(result, Exception):
        answer.set_exception(result)
    else:
        answer.set_result(result)
