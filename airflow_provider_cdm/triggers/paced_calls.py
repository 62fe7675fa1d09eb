"""Calls of the stoppers: within the rate limits, each made once."""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.call import Call, Quota
from airflow_provider_cdm.client.jobs import stop
from airflow_provider_cdm.client.polling.rate_limit import rate_limits_for
from airflow_provider_cdm.client.polling.rate_limited_api import OUTAGE_ERRORS
from airflow_provider_cdm.client.sansio import Flow, pause
from airflow_provider_cdm.client.session import CdmSession

T = TypeVar("T")

#: Seconds after which a call counts as not answered, so that it is repeated.
_ANSWER_SECONDS = 30.0
#: Failures in a row after which only one call is made at a time.
_MAX_FAILURES = 3


class TooLateError(Exception):
    """What made a call right has been known for too long to rely on it."""


class PacedCalls:
    """Makes calls on an event loop, each in a thread and in a slot of its quota.

    :param session: makes the calls; its clock and its sleep are used.
    :param threads: number of calls in flight at most.
    """

    def __init__(self, session: CdmSession, threads: int) -> None:
        self._session = session
        self._api = stop.without_retries(session.api)
        self._random = session.api.exchanger.random
        self._limiters = rate_limits_for(session.settings, self, self._random).limiters
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="cdm-stopper")
        self._probe, self._auth = asyncio.Lock(), asyncio.Lock()
        #: Last failure of a call, whatever it was for.
        self.failure: errors.CdmError | None = None
        #: Failures in a row, and until when no call is made because of them.
        self._failures, self._resume_at = 0, 0.0

    def close(self) -> None:
        """Make no more calls; one in flight ends in its thread."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._session.close()

    def next_slot(self, quota: Quota) -> float:
        """Return the seconds until a call can be made; 0 for now."""
        now = self._session.clock()
        return self._limiters[quota].next_slot(now) - now

    async def call(self, call: Call[T], quota: Quota, until: float = math.inf) -> T:
        """Make a call once, within the rate limit; after several failures only one at a time.

        :param until: when it is too late to send the call, by the monotonic clock.
        :raises TooLateError: when it could not be sent by then.
        """
        if self._failures >= _MAX_FAILURES:
            async with self._probe:
                # Those that queued go on together once a call has been answered.
                if self._failures >= _MAX_FAILURES:
                    return await self._call_now(call, quota, until)
        return await self._call_now(call, quota, until)

    async def _call_now(self, call: Call[T], quota: Quota, until: float) -> T:
        await self.sleep(self._resume_at - self.uptime())
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
            slot, reserved = limiter.try_reserve(clock(), until - self.uptime())
            if not reserved:
                raise TooLateError
            await self.sleep(slot - clock())
            if limiter.is_usable(slot, clock()):
                return

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
            self._resume_at = max(self._resume_at, self.uptime() + seconds)
            raise
        except errors.CdmError:
            self._failures, self._resume_at = 0, 0.0
            raise
        self._failures, self._resume_at = 0, 0.0
        return result

    async def _in_thread(self, flow: Flow[T]) -> T:
        future = asyncio.get_running_loop().run_in_executor(self._pool, self._session.run, flow)
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

    async def sleep(self, seconds: float) -> None:
        """Pause for some seconds; not at all if they are not above 0."""
        await self._session.arun(pause(seconds))

    def uptime(self) -> float:
        """Return seconds by a clock that nobody can set."""
        return self._session.monotonic()
