"""Where flows meet the network: one HTTP exchange, and two drivers around it.

``run`` performs a flow on the calling thread. ``arun`` performs the same flow on an event loop: the
same exchange in a private, bounded thread pool, and pauses with ``asyncio.sleep``. A thread carries
one exchange with a time-out, never a wait.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar, cast

from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.auth.factory import authenticator_for
from airflow_provider_cdm.client.auth.token_cache import Cipher
from airflow_provider_cdm.client.http.retry import Exchanger, RetryPolicy
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

T = TypeVar("T")
#: Keeps what a flow wants remembered, or forgets it.
SaveRecord: TypeAlias = Callable[[Mapping[str, Any] | None], None]

#: Threads of the whole process that carry exchanges for event loops.
POOL_SIZE = 16

_pool_lock = threading.Lock()
_pool: concurrent.futures.ThreadPoolExecutor | None = None


class CdmSession:
    """Performs flows against one CDM endpoint as one user. Usable from many threads at once.

    :param settings: where, and as whom.
    :param policy: how failed calls are repeated.
    :param clock: epoch seconds.
    :param sleep: pauses the calling thread for some seconds.
    :param async_sleep: the same on an event loop.
    :param rng: returns a number in [0, 1).
    :param user_agent: sent with every request.
    :param on_token: told every new token, so that it can be masked in logs.
    :param cipher: encrypts what goes to the token cache of the settings.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        policy: RetryPolicy | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        async_sleep: Callable[[float], Any] = asyncio.sleep,
        rng: Callable[[], float] = random.random,
        user_agent: str = "airflow-provider-cdm",
        on_token: Callable[[str], None] | None = None,
        cipher: Cipher | None = None,
    ) -> None:
        exchanger = Exchanger(policy or RetryPolicy(), clock, rng)
        self.settings = settings
        auth = authenticator_for(settings, exchanger, on_token, cipher)
        self.api = CdmApi(settings, auth, exchanger)
        self.clock = clock
        self._sleep = sleep
        self._async_sleep = async_sleep
        self._user_agent = user_agent
        self._cipher = cipher
        self._local = threading.local()
        self._opened: list[requests.Session] = []

    def __repr__(self) -> str:
        return f"CdmSession({self.settings.cdm_endpoint})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; the session may be used again and opens new ones."""
        while self._opened:
            self._opened.pop().close()

    def with_time_limit(self, seconds: float) -> CdmSession:
        """A session of the same user for calls that may fail, but must not take long.

        No call is repeated, and new tokens are told to nobody.

        :param seconds: that a connection, and a silence of the server, may last at most.
        """
        settings = replace(
            self.settings,
            connect_timeout=min(seconds, self.settings.connect_timeout),
            read_timeout=min(seconds, self.settings.read_timeout),
        )
        return CdmSession(
            settings,
            policy=RetryPolicy(attempts=1),
            clock=self.clock,
            sleep=self._sleep,
            user_agent=self._user_agent,
            cipher=self._cipher,
        )

    def run(self, flow: Flow[T], save: SaveRecord | None = None) -> T:
        """Perform a flow on this thread.

        :param save: keeps a record, for flows that ask for it; it raises when it cannot.
        :raises CdmError: what the flow comes to.
        """
        try:
            step = next(flow)
            while True:
                answer = None
                try:
                    if isinstance(step, Sleep):
                        self._sleep(step.seconds)
                    else:
                        answer = self._work(step, save)()
                except TransportError as failure:
                    step = flow.throw(failure)
                else:
                    step = flow.send(answer)
        except StopIteration as end:
            return cast("T", end.value)
        finally:
            flow.close()

    async def arun(self, flow: Flow[T], save: SaveRecord | None = None) -> T:
        """Perform a flow on the running event loop without blocking it.

        Cancelling it leaves at most one exchange to finish unseen in its thread.

        :param save: keeps a record, for flows that ask for it; called in a thread.
        :raises CdmError: what the flow comes to.
        """
        loop = asyncio.get_running_loop()
        try:
            step = next(flow)
            while True:
                answer = None
                try:
                    if isinstance(step, Sleep):
                        await self._async_sleep(step.seconds)
                    else:
                        answer = await loop.run_in_executor(_threads(), self._work(step, save))
                except TransportError as failure:
                    step = flow.throw(failure)
                else:
                    step = flow.send(answer)
        except StopIteration as end:
            return cast("T", end.value)
        finally:
            flow.close()

    def _work(self, step: Request | Save | Offload, save: SaveRecord | None) -> Callable[[], Any]:
        """What a step asks for, to be called on a thread that may wait for it."""
        if isinstance(step, Request):
            return partial(self._exchange, step)
        if isinstance(step, Save):
            return partial(_keeper(save), step.record)
        return step.work

    def _exchange(self, request: Request) -> Response:
        from airflow_provider_cdm.client.http import transport

        return transport.exchange(self._http(), request, self.settings, self._user_agent)

    def _http(self) -> requests.Session:
        """This thread's connections; requests does not promise that threads may share them."""
        from airflow_provider_cdm.client.http.transport import open_http

        http: requests.Session | None = getattr(self._local, "http", None)
        if http is None or http not in self._opened:
            http = self._local.http = open_http()
            self._opened.append(http)
        return http


def _keeper(save: SaveRecord | None) -> SaveRecord:
    if save is None:
        raise RuntimeError("This flow wants something remembered, and nothing keeps it")
    return save


def _threads() -> concurrent.futures.ThreadPoolExecutor:
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = concurrent.futures.ThreadPoolExecutor(POOL_SIZE, thread_name_prefix="cdm")
        return _pool
