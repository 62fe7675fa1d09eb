"""The session: performs flows, on the calling thread or on an event loop.

:meth:`CdmSession.run` performs a flow on the calling thread. :meth:`CdmSession.arun` performs the
same flow on an event loop: exchanges in a bounded thread pool of this module, pauses with
``asyncio.sleep``. A thread of that pool is used for one exchange with a timeout, never for a pause.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar, cast

from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.auth.factory import rotating_auth_for
from airflow_provider_cdm.client.errors import CdmJournalError, CdmKilled
from airflow_provider_cdm.client.http.retry import Exchanger, RetryPolicy
from airflow_provider_cdm.client.locks import ProcessLock
from airflow_provider_cdm.client.sansio import (
    Flow,
    Offload,
    Request,
    Response,
    Save,
    Sleep,
    TransportError,
)
from airflow_provider_cdm.client.settings import Settings

if TYPE_CHECKING:
    import requests

    from airflow_provider_cdm.client.auth.token_cache import Cipher

T = TypeVar("T")
#: Function that stores a record for a flow; ``None`` deletes the stored one.
SaveRecord: TypeAlias = Callable[[Mapping[str, Any] | None], None]

#: Pauses an event loop where there is no session, as its connection cannot be read.
sleep_without_session: Callable[[float], Any] = asyncio.sleep

#: Number of threads in this process that perform exchanges for event loops.
POOL_SIZE = 16

_pool_lock = ProcessLock()
_pool: concurrent.futures.ThreadPoolExecutor | None = None
_sessions: weakref.WeakSet[CdmSession] = weakref.WeakSet()


class CdmSession:
    """Performs flows against one CDM endpoint as one user. Several threads may share a session.

    :param settings: endpoints and credentials.
    :param policy: rules for repeating failed calls; by default five attempts.
    :param clock: function that returns epoch seconds.
    :param monotonic: function that returns seconds by a clock that nobody can set, for durations.
    :param sleep: function that pauses the calling thread for some seconds.
    :param async_sleep: coroutine function that pauses for some seconds on an event loop.
    :param rng: function that returns a number in [0, 1).
    :param user_agent: value of the ``User-Agent`` header of every request.
    :param on_token: function that is called with every new token, so that logs can mask it.
    :param cipher: encryption for the token cache of the settings; without it, the cache is off.
    :param on_exchange: called after each exchange with the request and the HTTP status, which is
        ``None`` if no response arrived; from any thread.
    :param time_limit: seconds that each exchange may take in all.
    :param look_up: function that reads the settings again after their credentials were refused; it
        is called where it may block. Without it, they never change.
    :param give_up_after: seconds of real time after which no exchange goes on.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        policy: RetryPolicy | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        async_sleep: Callable[[float], Any] = asyncio.sleep,
        rng: Callable[[], float] = random.random,
        user_agent: str = "airflow-provider-cdm",
        on_token: Callable[[str], None] | None = None,
        cipher: Cipher | None = None,
        on_exchange: Callable[[Request, int | None], None] | None = None,
        time_limit: float = math.inf,
        look_up: Callable[[], Settings] | None = None,
        give_up_after: float = math.inf,
    ) -> None:
        exchanger = Exchanger(policy or RetryPolicy(), clock, rng, monotonic=monotonic)
        self._auth = rotating_auth_for(settings, exchanger, on_token, cipher, look_up)
        self.api = CdmApi(settings, self._auth, exchanger)
        self.clock = clock
        self.monotonic = monotonic
        self._sleep = sleep
        self._async_sleep = async_sleep
        self._user_agent = user_agent
        self._cipher = cipher
        self._on_exchange = on_exchange or _ignore
        self._time_limit = time_limit
        self._give_up_at = time.monotonic() + give_up_after
        self._local = threading.local()
        self._opened: list[requests.Session] = []
        _sessions.add(self)

    @property
    def settings(self) -> Settings:
        """The settings with the present credentials."""
        return self._auth.settings

    def adopt(self, settings: Settings) -> None:
        """Go on with what the connection holds now: its credentials, proxy and timeouts.

        :param settings: settings of the connection, for the same endpoints and agency.
        """
        self._auth.adopt(settings)

    def __repr__(self) -> str:
        return f"CdmSession({self.settings.cdm_endpoint})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections. The session remains usable and opens new ones when needed."""
        while self._opened:
            self._opened.pop().close()

    def with_time_limit(self, seconds: float) -> CdmSession:
        """Return a session of the same user for calls that may fail, but must not take long.

        It repeats no calls, and new tokens are not passed to ``on_token``.

        :param seconds: how long each exchange may take in all.
        """
        return CdmSession(
            self.settings,
            policy=RetryPolicy(attempts=1),
            clock=self.clock,
            monotonic=self.monotonic,
            sleep=self._sleep,
            user_agent=self._user_agent,
            cipher=self._cipher,
            time_limit=min(seconds, self._time_limit),
            on_exchange=self._on_exchange,
        )

    def run(self, flow: Flow[T], save: SaveRecord | None = None) -> T:
        """Perform a flow on this thread and return its result.

        :param flow: flow that has not been started.
        :param save: function that stores the records of the flow; it raises when it cannot.
        :raises CdmError: when the flow fails.
        :raises CdmKilled: when this thread was interrupted; a record is still saved.
        """
        try:
            step = next(flow)
            while True:
                result = None
                try:
                    if isinstance(step, Sleep):
                        self._pause(step.seconds)
                    else:
                        if not isinstance(step, Save):
                            self._check_interrupt()
                        result = self._work(step, save)()
                except (TransportError, CdmJournalError) as failure:
                    step = flow.throw(failure)
                else:
                    step = flow.send(result)
        except StopIteration as end:
            return cast("T", end.value)
        finally:
            flow.close()

    def interrupt(self) -> None:
        """Make what this thread performs end: a pause at once, all else before its next step.

        A signal handler may call this: it runs in the thread that it has interrupted, and nothing
        is left half done.

        :raises CdmKilled: out of a pause that a signal handler has interrupted.
        """
        self._local.interrupted = True
        if getattr(self._local, "pausing", False):
            self._check_interrupt()

    def _check_interrupt(self) -> None:
        if getattr(self._local, "interrupted", False):
            raise CdmKilled

    def _pause(self, seconds: float) -> None:
        self._local.pausing = True
        try:
            # After the flag is set, so that an interruption in between is not slept through.
            self._check_interrupt()
            self._sleep(seconds)
        finally:
            self._local.pausing = False

    async def arun(self, flow: Flow[T], save: SaveRecord | None = None) -> T:
        """Perform a flow on the running event loop, without blocking it, and return its result.

        After a cancellation, at most one exchange continues in its thread; its result is discarded.

        :param flow: flow that has not been started.
        :param save: function that stores the records of the flow; called in a thread.
        :raises CdmError: when the flow fails.
        """
        loop = asyncio.get_running_loop()
        try:
            step = next(flow)
            while True:
                result = None
                try:
                    if isinstance(step, Sleep):
                        await self._async_sleep(step.seconds)
                    else:
                        result = await _in_thread(loop, self._work(step, save))
                except (TransportError, CdmJournalError) as failure:
                    step = flow.throw(failure)
                else:
                    step = flow.send(result)
        except StopIteration as end:
            return cast("T", end.value)
        finally:
            flow.close()

    def _work(self, step: Request | Save | Offload, save: SaveRecord | None) -> Callable[[], Any]:
        """Return the blocking function that performs a step."""
        if isinstance(step, Request):
            return partial(self._exchange, step)
        if isinstance(step, Save):
            return partial(_required(save), step.record)
        return step.work

    def _exchange(self, request: Request) -> Response:
        from airflow_provider_cdm.client.http import transport

        left = max(0.01, self._give_up_at - time.monotonic())
        if (seconds := min(self._time_limit, left)) < request.time_limit:
            request = replace(request, time_limit=seconds)
        status = None
        try:
            response = transport.exchange(self._http(), request, self.settings, self._user_agent)
            status = response.status
        finally:
            self._on_exchange(request, status)
        return response

    def _http(self) -> requests.Session:
        """Return this thread's connections, since a ``requests`` session is not thread-safe."""
        from airflow_provider_cdm.client.http.connections import open_http_session

        http: requests.Session | None = getattr(self._local, "http", None)
        if http is None or http not in self._opened:
            http = self._local.http = open_http_session()
            self._opened.append(http)
        return http


def _ignore(request: Request, status: int | None) -> None:
    """Do nothing."""


def _required(save: SaveRecord | None) -> SaveRecord:
    if save is None:
        raise RuntimeError("This flow saves records; pass the argument save")
    return save


def _thread_pool() -> concurrent.futures.ThreadPoolExecutor:
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = concurrent.futures.ThreadPoolExecutor(POOL_SIZE, thread_name_prefix="cdm")
        return _pool


def _in_thread(loop: asyncio.AbstractEventLoop, work: Callable[[], T]) -> asyncio.Future[T]:
    try:
        return loop.run_in_executor(_thread_pool(), work)
    except RuntimeError as error:
        # The work is in the queue, so a thread that exists may perform it nevertheless.
        raise TransportError(f"no thread can be started ({error})", sent=True) from None


def _forget_connections() -> None:
    """Leave to the parent process what a forked one has of its connections and threads.

    On a connection that both used, each would read answers to the other.
    """
    global _pool
    _pool = None
    for session in _sessions:
        session._local, session._opened = threading.local(), []  # noqa: SLF001 - same module


os.register_at_fork(after_in_child=_forget_connections)
