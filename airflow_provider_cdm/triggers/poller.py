"""The triggerer's one poller per cluster: all waits share its calls, its threads and its session.

A trigger that waits is a future here; it has no session, no task and no thread of its own. What is
asked when is decided in :mod:`airflow_provider_cdm.client.polling.planner`; this module gives it a clock,
an event loop and a few threads. The loop only ever does small things: whole looks and whole pages
of listings, exchange and parsing, happen in threads of the watcher's own, so that a cluster that
does not answer keeps only its own threads busy.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.jobs.follower import Follower
from airflow_provider_cdm.client.polling.model import Poll, Wait
from airflow_provider_cdm.client.polling.planner import CALLS, PollPlanner
from airflow_provider_cdm.client.polling.rate_limit import rate_limits_for
from airflow_provider_cdm.client.sansio import Flow, pause
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.client.settings import Settings
from airflow_provider_cdm.client.submission import Submission

log = logging.getLogger(__name__)

#: Longest and shortest time for which a watcher sleeps, in seconds.
_LONG_NAP, _SHORT_NAP = 60.0, 0.05
#: Seconds by which a clock may go back before everything is planned anew.
_CLOCK_SLACK = 1.0
#: Seconds between two lines about what the quota allows.
_QUIET_SECONDS = 60.0

_Key: TypeAlias = tuple[Settings, str]
_watchers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[_Key, ClusterPoller]] = (
    weakref.WeakKeyDictionary()
)
_registry_lock = threading.Lock()


@contextmanager
def shared_poller(session: CdmSession, cluster_id: str) -> Iterator[ClusterPoller]:
    """Use the watcher of a cluster and a user, on the running event loop.

    The first one in opens it, with this session; the last one out closes both.
    """
    watcher = _enter(session, cluster_id)
    try:
        yield watcher
    finally:
        watcher.leave()


def _enter(session: CdmSession, cluster_id: str) -> ClusterPoller:
    # Neither of these changes what is asked, nor of whom.
    settings = replace(session.settings, cluster_id=None, console_url=None)
    with _registry_lock:
        mine = _watchers.setdefault(asyncio.get_running_loop(), {})
        watcher = mine.get((settings, cluster_id))
        if watcher is None:
            watcher = mine[settings, cluster_id] = ClusterPoller(
                session, cluster_id, on_close=partial(_forget, mine, (settings, cluster_id))
            )
        watcher.enter()
    return watcher


def _forget(watchers: dict[_Key, ClusterPoller], key: _Key) -> None:
    watchers.pop(key, None)


class ClusterPoller:
    """Looks at the runs of one cluster for all who wait for them; belongs to one event loop.

    :param session: performs the calls; its clock and its sleep are the watcher's.
    :param cluster_id: the cluster.
    :param on_close: called when the last user has left.
    """

    def __init__(
        self, session: CdmSession, cluster_id: str, on_close: Callable[[], None] = lambda: None
    ) -> None:
        self.session = session
        self._limits = rate_limits_for(session.settings, session.api.exchanger.random)
        self.watch = PollPlanner(cluster_id, session.api, self._limits)
        self._on_close = on_close
        self._users = 0
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(CALLS, thread_name_prefix="cdm-watcher")
        self._doing: set[asyncio.Future[None]] = set()
        self._done: deque[Poll] = deque()
        self._task: asyncio.Task[None] | None = None
        self._woken = self._loop.create_future()
        self._told, self._told_at = 0, -math.inf
        self._now = session.clock()

    @property
    def closed(self) -> bool:
        """Whether all have left; it is not opened again."""
        return self._users == 0

    def enter(self) -> None:
        """Come in."""
        self._users += 1

    def leave(self) -> None:
        """Go out; the last one closes everything."""
        self._users -= 1
        if not self.closed:
            return
        self._on_close()
        if self._task is not None:
            self._task.cancel()
        self._abandon()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.session.close()

    async def wait(
        self,
        follower: Follower,
        *,
        poll_interval: float,
        deadline: float | None = None,
        limit: str = "wait_timeout",
        on_status: Callable[[Submission | None], None] = lambda _: None,
        side_task: Callable[[CdmApi, Submission, str | None], Flow[None]] | None = None,
    ) -> Submission:
        """Wait until a run has ended, well or badly.

        :param follower: knows the run, and judges what is seen of it.
        :param poll_interval: seconds between two looks, as far as the quota allows.
        :param deadline: epoch seconds at which to give up; ``None`` to wait for as long as it runs.
        :param limit: the task's argument that set the deadline.
        :param on_status: told in a thread, in the caller's context, what each look saw; what it raises
            ends the wait.
        :param side_task: see :class:`~airflow_provider_cdm.client.polling.model.Wait`.
        :raises CdmWaitTimeout: at the deadline.
        :raises CdmSubmissionFailed: when the run cannot be followed to a known end.
        :raises CdmError: when CDM could not be asked for too long, or refused.
        """
        future: asyncio.Future[Submission | Exception] = self._loop.create_future()
        wait = Wait(
            follower,
            poll_interval,
            end=partial(_resolve, future),
            on_status=on_status,
            side_task=side_task,
            deadline=deadline,
            limit=limit,
        )
        self.watch.join(wait, self.session.clock())
        self._wake()
        try:
            outcome = await future
        finally:
            self.watch.leave(wait)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _wake(self) -> None:
        if self._task is None:
            # In a context of its own: what it logs belongs to no single task.
            self._task = self._loop.create_task(self._work(), context=contextvars.Context())
            self._task.add_done_callback(self._ended)
        if not self._woken.done():
            self._woken.set_result(None)

    async def _work(self) -> None:
        while True:
            now = self._look_at_clock()
            while self._done:
                self.watch.completed(self._done.popleft(), now)
            self.watch.housekeeping(now)
            while (sent := self.watch.next_call(now)) is not None:
                self._send(sent)
            self._tell(now)
            await self._rest(self.watch.next_event(now) - now)

    def _look_at_clock(self) -> float:
        now = self.session.clock()
        if self._now - now > _CLOCK_SLACK:
            self.watch.rewind(self._now - now)
        self._now = now
        return now

    def _send(self, sent: Poll) -> None:
        doing = self._loop.run_in_executor(self._pool, sent.perform, self.session.run)
        self._doing.add(doing)
        doing.add_done_callback(partial(self._landed, sent))

    def _landed(self, sent: Poll, doing: asyncio.Future[None]) -> None:
        # What was cancelled belongs to a watch that is no more.
        self._doing.discard(doing)
        if doing.cancelled():
            return
        if (error := doing.exception()) is not None:
            sent.failed(error)
        self._done.append(sent)
        self._wake()

    def _abandon(self) -> None:
        """What threads are doing ends unseen."""
        for doing in list(self._doing):
            doing.cancel()
        self._done.clear()

    async def _rest(self, seconds: float) -> None:
        """Sleep until the next event, or until woken.

        While calls are under way time is the loop's, so that a test's clock, which moves when
        something sleeps, stands still until they are answered.
        """
        nap = min(max(seconds, _SHORT_NAP), _LONG_NAP)
        if self.watch.in_flight or seconds == math.inf:
            await asyncio.wait({self._woken}, timeout=nap)
        elif not self._woken.done():
            sleep = asyncio.ensure_future(self.session.arun(pause(nap)))
            try:
                await asyncio.wait({self._woken, sleep}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                sleep.cancel()
        if self._woken.done():
            self._woken = self._loop.create_future()

    def _tell(self, now: float) -> None:
        """Say once per change what the quota makes of the wish."""
        if now - self._told_at < _QUIET_SECONDS:
            return
        allowed, wish = self.watch.pace(now)
        slower = round(math.log2(allowed / wish)) if wish > 0 else self._told
        if slower == self._told:
            return
        self._told, self._told_at = slower, now
        log.info(
            "Cluster %s: %d jobs are waited for. Within its quota of calls each is looked at about"
            " every %.0f s; every %.0f s is wished.",
            *(self.watch.cluster_id, len(self.watch.registry.jobs), allowed, wish),
        )

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.error("The watcher of cluster %s broke", self.watch.cluster_id, exc_info=error)
        waits = [wait for job in self.watch.registry.jobs.values() for wait in job.waits]
        # The next one who joins begins anew.
        self._abandon()
        self.watch = PollPlanner(self.watch.cluster_id, self.session.api, self._limits)
        self._task = None
        for wait in waits:
            wait.over = True
            wait.end(errors.CdmError(f"The watcher broke: {type(error).__name__}: {error}"))


def _resolve(
    future: asyncio.Future[Submission | Exception], outcome: Submission | Exception
) -> None:
    if not future.done():
        future.set_result(outcome)
