"""The triggerer's shared stoppers, one per cluster: they stop the runs of tasks that users ended.

Users end hundreds of tasks at once, and Airflow then cancels all of their triggers in the same
second. CDM allows 1,200 stops a minute, but only 120 calls of each kind that tell whose run is
active. :mod:`airflow_provider_cdm.client.polling.stops` decides which call is made for which run;
this module makes them within the rate limits of the user, repeats what failed, and has threads of
its own, since those of the pollers may wait for answers.
"""

from __future__ import annotations

import asyncio
import math
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias, TypeVar

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import resources, runs
from airflow_provider_cdm.client.api.call import Call, Quota
from airflow_provider_cdm.client.api.definitions import JOB
from airflow_provider_cdm.client.api.job_list import JobPage
from airflow_provider_cdm.client.jobs import stop
from airflow_provider_cdm.client.jobs.stop import JobFate
from airflow_provider_cdm.client.polling.rate_limit import rate_limits_for
from airflow_provider_cdm.client.polling.rate_limited_api import OUTAGE_ERRORS
from airflow_provider_cdm.client.polling.stops import (
    ListReading,
    OnFailure,
    StopQueue,
    UnprovenRun,
)
from airflow_provider_cdm.client.sansio import Flow, pause
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.client.settings import Settings
from airflow_provider_cdm.client.submission import RunRef, Submission

T = TypeVar("T")

#: Stops in flight at most, looks in flight at most, and threads for them and a list.
_STOPS, _LOOKS, _THREADS = 32, 8, 44
#: Seconds after which a call counts as not answered, so that it is repeated.
_ANSWER_SECONDS = 20.0
#: Quotas of the calls that show the newest run of a job.
_LOOK_QUOTAS = (Quota.STATUS, Quota.HISTORY)
#: Seconds until the next slot from which on something else is done in the meantime.
_LONG_WAIT = 2.0
#: Failures in a row after which only one call is made at a time.
_MAX_FAILURES = 3
#: Seconds after a stop until the first look whether the run has ended, and between two looks.
_END_SECONDS = 3.0

_Key: TypeAlias = tuple[Settings, str]
_stoppers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[_Key, RunStopper]] = (
    weakref.WeakKeyDictionary()
)
_stoppers_lock = threading.Lock()
#: What goes on although nobody waits for it any more; an event loop keeps no reference.
_unfinished: set[asyncio.Task[None]] = set()


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


class _TooLateError(Exception):
    """What made a call right has been known for too long to rely on it."""


class RunStopper:
    """Stops runs in one cluster; belongs to one event loop.

    :param session: makes the calls; its clock and its sleep are used.
    :param cluster_id: the cluster.
    """

    def __init__(self, session: CdmSession, cluster_id: str) -> None:
        self.users = 0
        self._session, self._cluster_id = session, cluster_id
        self._api = stop.without_retries(session.api)
        self._random = session.api.exchanger.random
        self._limiters = rate_limits_for(session.settings, self, self._random).limiters
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="cdm-stopper")
        self._queue = StopQueue()
        self._workers: set[asyncio.Task[None]] = set()
        self._reader: asyncio.Task[None] | None = None
        self._stops = asyncio.Semaphore(_STOPS)
        self._probe, self._auth = asyncio.Lock(), asyncio.Lock()
        #: Last failure of a call, whatever it was for.
        self.failure: errors.CdmError | None = None
        #: Failures in a row, and until when no call is made because of them.
        self._failures, self._resume_at = 0, 0.0

    def close(self) -> None:
        """End all that is under way; a call in flight ends in its thread."""
        for task in (*self._workers, *filter(None, [self._reader])):
            task.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._session.close()

    async def stop(self, run: RunRef, on_failure: OnFailure) -> bool:
        """Stop one run, and no other; goes on until that has succeeded, or cannot.

        :param on_failure: called with each failure after which a call is repeated.
        :returns: whether the stop was sent; ``False`` if the run is not the active one.
        :raises CdmError: when CDM rejects the calls.
        """
        await self._stops_allowed()
        while await self._prove(run, on_failure):
            usable_until = self._uptime() + stop.PROOF_SECONDS
            async with self._stops:
                while self._uptime() <= usable_until:
                    call = runs.stop_job(self._cluster_id, run.job_name)
                    try:
                        await self._call(call, Quota.STOP, usable_until)
                    except errors.CdmNotRunning:
                        return False
                    except OUTAGE_ERRORS as error:
                        on_failure(error)
                    except _TooLateError:
                        break
                    else:
                        return True
            await self._stops_allowed()
        return False

    async def delete_after_stop(self, run: RunRef, on_failure: OnFailure) -> None:
        """Delete the job of a run that was asked to stop, once it has ended; log the result.

        :param on_failure: called with each failure after which a call is repeated.
        :raises CdmError: when CDM rejects the calls.
        """
        fate, deleted = JobFate.PENDING, False
        try:
            while fate is JobFate.PENDING:
                await self._sleep(_END_SECONDS)
                fate = stop.fate_of_job(run, await self._look(run, on_failure))
            while fate is JobFate.DELETE and not deleted:
                try:
                    call = resources.delete(JOB, self._cluster_id, run.job_name)
                    await self._call(call, Quota.DELETE)
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
        self._workers = {task for task in self._workers if not task.done()}
        if len(self._workers) < _LOOKS:
            self._workers.add(self._loop.create_task(self._look_at_runs()))
        if (self._reader is None or self._reader.done()) and self._queue.next_reading():
            self._reader = self._loop.create_task(self._read_lists())

    async def _look_at_runs(self) -> None:
        """Read the newest run of one job after the other, until none is left."""
        while (unproven := self._queue.next_look()) is not None:
            unproven.looking = True
            try:
                newest = await self._newest_run(unproven.run.job_name)
            except OUTAGE_ERRORS as error:
                unproven.on_failure(error)
            except Exception as error:
                self._queue.discard(unproven)
                unproven.on_answer(error)
            else:
                self._queue.discard(unproven)
                unproven.on_answer(newest)
            finally:
                unproven.looking = False

    async def _newest_run(self, job_name: str) -> Submission | None:
        now, limiters = self._session.clock(), self._limiters
        status, history = (limiters[quota].next_slot(now) for quota in _LOOK_QUOTAS)
        if status > max(now, history) + _LONG_WAIT:
            read = await self._call(runs.history(self._cluster_id, job_name), Quota.HISTORY)
            return stop.newest_of(read.submissions)
        shown = await self._call(runs.status(self._cluster_id, job_name), Quota.STATUS)
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
                page = await self._call(call, Quota.LISTING)
                self._queue.apply(reading, page)
                return page

    async def _call(self, call: Call[T], quota: Quota, until: float = math.inf) -> T:
        """Make a call once, within the rate limit; after several failures only one at a time.

        :param until: when it is too late to send the call, by the monotonic clock.
        :raises _TooLateError: when it could not be sent by then.
        """
        if self._failures >= _MAX_FAILURES:
            async with self._probe:
                # Those that queued go on together once a call has been answered.
                if self._failures >= _MAX_FAILURES:
                    return await self._call_now(call, quota, until)
        return await self._call_now(call, quota, until)

    async def _call_now(self, call: Call[T], quota: Quota, until: float) -> T:
        await self._sleep(self._resume_at - self._uptime())
        async with self._auth:
            if not self._api.auth.is_ready():
                # A slot would expire while the call waits for a token.
                await self._perform(self._api.auth.authorize())
        await self._take_slot(quota, until)
        try:
            return await self._perform(self._api.call(call))
        except errors.CdmThrottled as error:
            self._limiters[quota].throttled(self._session.clock(), error.retry_after)
            raise

    async def _take_slot(self, quota: Quota, until: float) -> None:
        """Wait until a call may be made; routine polls get the slots after those taken here."""
        limiter, clock = self._limiters[quota], self._session.clock
        while True:
            slot, reserved = limiter.try_reserve(clock(), until - self._uptime())
            if not reserved:
                raise _TooLateError
            await self._sleep(slot - clock())
            if limiter.is_usable(slot, clock()):
                return

    async def _stops_allowed(self) -> None:
        """Wait until the quota of stops is not used up: a proof is no longer right after that."""
        limiter, clock = self._limiters[Quota.STOP], self._session.clock
        while (seconds := limiter.next_slot(clock()) - clock()) > _LONG_WAIT:
            await self._sleep(seconds)

    async def _perform(self, flow: Flow[T]) -> T:
        """Perform a flow in a thread, and count failures in a row."""
        try:
            result = await self._in_thread(flow)
        except errors.CdmThrottled as error:
            self.failure = error
            raise
        except OUTAGE_ERRORS as error:
            self.failure = error
            self._failures += 1
            seconds = stop.pause_after_failure(error, self._failures, self._random)
            self._resume_at = max(self._resume_at, self._uptime() + seconds)
            raise
        except errors.CdmError:
            self._failures, self._resume_at = 0, 0.0
            raise
        self._failures, self._resume_at = 0, 0.0
        return result

    async def _in_thread(self, flow: Flow[T]) -> T:
        future = self._loop.run_in_executor(self._pool, self._session.run, flow)
        # The thread may end after everybody has lost interest in it.
        future.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        done, _ = await asyncio.wait({future}, timeout=_ANSWER_SECONDS)
        if not done:
            raise errors.CdmUnavailable(
                f"{self._session.settings.cdm_endpoint} did not answer within"
                f" {_ANSWER_SECONDS:.0f} s",
                effect_unknown=True,
            )
        return future.result()

    async def _sleep(self, seconds: float) -> None:
        await self._session.arun(pause(seconds))

    def _uptime(self) -> float:
        return self._session.monotonic()


def _resolve(answer: asyncio.Future[Any], result: Any) -> None:
    if answer.done():
        return
    if isinstance(result, Exception):
        answer.set_exception(result)
    else:
        answer.set_result(result)


async def finish(make_work: Callable[[], Coroutine[Any, Any, None]], seconds: float | None) -> bool:
    """Finish some work although the triggerer cancels it: every second, and once when it ends.

    :param make_work: makes the work; it is made once more when the event loop ends, since the
        loop cancels all tasks then, and waits for those that go on.
    :param seconds: after how long to return; the work goes on. ``None`` for never.
    :returns: whether the work is finished.
    """
    loop = asyncio.get_running_loop()
    give_up_at = math.inf if seconds is None else loop.time() + seconds
    task = loop.create_task(make_work())
    for remake in (True, False):
        while not task.done() and (left := give_up_at - loop.time()) > 0:
            # wait() does not cancel what it waits for.
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task}, timeout=None if left == math.inf else left)
        if not task.done():
            _unfinished.add(task)
            task.add_done_callback(_unfinished.discard)
            return False
        if remake and task.cancelled():
            task = loop.create_task(make_work())
    return True
