"""The triggerer's shared pollers, one per cluster: all waits share its calls, threads and session.

A waiting trigger only awaits a future here; it has no session, task or thread of its own.
:mod:`airflow_provider_cdm.client.polling.planner` decides which poll to send when; this module
gives it a clock, an event loop and a few threads. The event loop itself does little: complete
polls, exchange and parsing, run in the poller's own threads. So a cluster that does not answer
occupies only its own threads.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeAlias

from airflow_provider_cdm import metrics
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.locks import ProcessLock
from airflow_provider_cdm.client.polling.in_flight import MAX_IN_FLIGHT
from airflow_provider_cdm.client.polling.model import Followed, Wait
from airflow_provider_cdm.client.polling.planner import PollPlanner
from airflow_provider_cdm.client.polling.polls import Poll
from airflow_provider_cdm.client.polling.rate_limit import follow_user, rate_limits_for
from airflow_provider_cdm.client.polling.rate_limited_api import PacedApi
from airflow_provider_cdm.client.sansio import Flow, pause
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.client.submission import Submission

log = logging.getLogger(__name__)

#: Longest and shortest time for which a poller sleeps, in seconds.
_MAX_SLEEP, _MIN_SLEEP = 60.0, 0.05
#: Seconds by which the clock may differ from the monotonic one before all times are moved.
_CLOCK_TOLERANCE = 1.0
#: Seconds between two log lines about polling that is slower than requested, and between two looks
#: at whether it is.
_LOG_INTERVAL, _CHECK_INTERVAL = 60.0, 5.0

#: Connection, place and cluster. No secret, so that a poller goes on when credentials change.
_Key: TypeAlias = tuple[object, ...]
_pollers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[_Key, ClusterPoller]] = (
    weakref.WeakKeyDictionary()
)
_pollers_lock = ProcessLock()


@contextmanager
def shared_poller(session: CdmSession, cluster_id: str) -> Iterator[ClusterPoller]:
    """Use the poller of a cluster and a connection on the running event loop.

    The first user opens it with this session, and the last one closes both. What later ones find in
    the connection, the poller goes on with.
    """
    poller = _acquire(session, cluster_id)
    try:
        yield poller
    finally:
        poller.release()


def _acquire(session: CdmSession, cluster_id: str) -> ClusterPoller:
    settings = session.settings
    key = (settings.conn_id or settings.credentials_key, *settings.place, cluster_id)
    with _pollers_lock:
        pollers = _pollers.setdefault(asyncio.get_running_loop(), {})
        poller = pollers.get(key)
        if poller is None:
            poller = pollers[key] = ClusterPoller(
                session, cluster_id, on_close=partial(_discard, pollers, key)
            )
        else:
            poller.session.adopt(settings)
        poller.acquire()
    return poller


def _discard(pollers: dict[_Key, ClusterPoller], key: _Key) -> None:
    pollers.pop(key, None)


class ClusterPoller:
    """Polls the runs of one cluster for all waits; belongs to one event loop.

    :param session: makes the calls; its clock and its sleep are used.
    :param cluster_id: the cluster.
    :param on_close: called when the last user has released the poller.
    """

    def __init__(
        self, session: CdmSession, cluster_id: str, on_close: Callable[[], None] = lambda: None
    ) -> None:
        self.session = session
        self._settings = session.settings
        self._limits = rate_limits_for(self._settings, self, session.api.exchanger.random)
        self.planner = PollPlanner(cluster_id, session.api, self._limits)
        self._on_close = on_close
        self._users = 0
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(MAX_IN_FLIGHT, thread_name_prefix="cdm-poller")
        self._in_flight: set[asyncio.Future[None]] = set()
        self._completed: deque[Poll] = deque()
        self._task: asyncio.Task[None] | None = None
        self._wakeup = self._loop.create_future()
        self._logged_slowdown, self._check_at = 0, -math.inf
        self._last_now, self._last_uptime = session.clock(), session.monotonic()

    @property
    def closed(self) -> bool:
        """Whether all users have released the poller; it is not opened again."""
        return self._users == 0

    @property
    def api(self) -> PacedApi:
        """The API for calls beside the polls, within the same rate limits."""
        return PacedApi.wrap(self.session.api, self._limits)

    def acquire(self) -> None:
        """Count one more user."""
        self._users += 1
        metrics.show_waits(self._users, self.planner.cluster_id)

    def release(self) -> None:
        """Count one user less; the last one closes the poller and its session."""
        self._users -= 1
        metrics.show_waits(self._users, self.planner.cluster_id)
        if not self.closed:
            return
        self._on_close()
        if self._task is not None:
            self._task.cancel()
        self._abandon_polls()
        self.planner.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.session.close()

    async def wait(
        self,
        follower: Followed,
        *,
        poll_interval: float,
        deadline: float | None = None,
        limit: str = "wait_timeout",
        watches: bool = False,
        on_status: Callable[[Submission | None], None] = lambda _: None,
        side_task: Callable[[CdmApi, Submission, str | None], Flow[None]] | None = None,
    ) -> Submission:
        """Wait until a run has ended, whether it succeeded or not.

        :param follower: identifies the run, and decides from each poll whether it has ended.
        :param poll_interval: seconds between two polls, as far as the quota allows.
        :param deadline: when to give up, epoch seconds; ``None`` (the default) for never.
        :param limit: name of the task's argument that set the deadline.
        :param watches: whether to go without calls of its own where others wait for runs of the
            job.
        :param on_status: called after each poll, in a thread and in the caller's context, with the
            run, or ``None`` if it could not be seen; an exception that it raises ends the wait.
        :param side_task: see :class:`~airflow_provider_cdm.client.polling.model.Wait`.
        :returns: the ended run.
        :raises CdmWaitTimeout: at the deadline.
        :raises CdmSubmissionFailed: when the run cannot be followed to a known end.
        :raises CdmError: when CDM rejects the calls, or has not answered for too long.
        """
        future: asyncio.Future[Submission | Exception] = self._loop.create_future()
        wait = Wait(
            follower,
            poll_interval,
            on_end=partial(_resolve, future),
            on_status=on_status,
            side_task=side_task,
            deadline=deadline,
            limit=limit,
            watches=watches,
        )
        self.planner.add(wait, self._read_clock())
        self._wake()
        try:
            outcome = await future
        finally:
            self.planner.remove(wait)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _wake(self) -> None:
        if self._task is None:
            # In a context of its own, since its log lines belong to no single task.
            self._task = self._loop.create_task(self._run(), context=contextvars.Context())
            self._task.add_done_callback(self._handle_end)
        if not self._wakeup.done():
            self._wakeup.set_result(None)

    async def _run(self) -> None:
        while True:
            now = self._read_clock()
            self._follow_settings()
            while self._completed:
                self.planner.completed(self._completed.popleft(), now)
            self.planner.housekeeping(now)
            while (poll := self.planner.next_poll(now)) is not None:
                self._send(poll)
            self._log_slowdown(now)
            await self._sleep(self.planner.next_event(now) - now)

    def _follow_settings(self) -> None:
        if (settings := self.session.settings) is not self._settings:
            self._settings = settings
            follow_user(self._limits, settings, self)

    def _read_clock(self) -> float:
        now, uptime = self.session.clock(), self.session.monotonic()
        was_set_by = (now - self._last_now) - (uptime - self._last_uptime)
        if abs(was_set_by) > _CLOCK_TOLERANCE:
            self.planner.shift(was_set_by)
        self._last_now, self._last_uptime = now, uptime
        return now

    def _send(self, poll: Poll) -> None:
        future = self._loop.run_in_executor(self._pool, poll.perform, self.session.run)
        self._in_flight.add(future)
        future.add_done_callback(partial(self._receive, poll))

    def _receive(self, poll: Poll, future: asyncio.Future[None]) -> None:
        self._in_flight.discard(future)
        # A canceled poll belongs to a planner that no longer exists.
        if future.cancelled():
            return
        if (error := future.exception()) is not None:
            poll.fail(error)
        self._completed.append(poll)
        self._wake()

    def _abandon_polls(self) -> None:
        """Ignore the results of all polls in flight; their threads end when their calls do."""
        for future in list(self._in_flight):
            future.cancel()
        self._completed.clear()

    async def _sleep(self, seconds: float) -> None:
        """Sleep until the next event, or until woken.

        While polls are in flight the event loop's clock is used, not the session's. The clock of a
        test moves only when something sleeps with the session, so it stands still until the polls
        have completed.
        """
        duration = min(max(seconds, _MIN_SLEEP), _MAX_SLEEP)
        if self.planner.in_flight.total or seconds == math.inf:
            await asyncio.wait({self._wakeup}, timeout=duration)
        elif not self._wakeup.done():
            sleep = asyncio.ensure_future(self.session.arun(pause(duration)))
            try:
                await asyncio.wait({self._wakeup, sleep}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                sleep.cancel()
        if self._wakeup.done():
            self._wakeup = self._loop.create_future()

    def _log_slowdown(self, now: float) -> None:
        """Log when the quota makes polls less frequent than requested, once for each change."""
        if now < self._check_at:
            return
        self._check_at = now + _CHECK_INTERVAL
        allowed, requested = self.planner.poll_intervals(now)
        slowdown = round(math.log2(allowed / requested)) if requested > 0 else self._logged_slowdown
        if slowdown == self._logged_slowdown:
            return
        self._logged_slowdown, self._check_at = slowdown, now + _LOG_INTERVAL
        log.info(
            "Cluster %s: %d jobs are polled. CDM's quota of calls allows a poll of each about every"
            " %.0f s; a poll every %.0f s was requested.",
            *(self.planner.cluster_id, len(self.planner.registry.jobs), allowed, requested),
        )

    def _handle_end(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.error("The poller of cluster %s failed", self.planner.cluster_id, exc_info=error)
        waits = [wait for job in self.planner.registry.jobs.values() for wait in job.waits]
        # The next wait starts with a new planner.
        self._abandon_polls()
        self.planner = PollPlanner(self.planner.cluster_id, self.session.api, self._limits)
        self._task = None
        for wait in waits:
            wait.done = True
            wait.on_end(errors.CdmError(f"The poller failed: {type(error).__name__}: {error}"))


def _resolve(
    future: asyncio.Future[Submission | Exception], outcome: Submission | Exception
) -> None:
    if not future.done():
        future.set_result(outcome)
