"""Time that passes only when nothing is left to do, and the simulator within reach of a call.

Hours of waiting take minutes that way, and come out the same each time. An exchange takes no time
at all here, and no socket: the request goes to the simulator's router, as its web server does it.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from airflow_provider_cdm.client.http.retry import RetryPolicy
from airflow_provider_cdm.client.sansio import Request, Response
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.client.settings import PasswordCredentials, Settings
from airflow_provider_cdm.simulator.backend.backend import Backend
from airflow_provider_cdm.simulator.clock import ManualClock
from airflow_provider_cdm.simulator.config.config import load
from airflow_provider_cdm.simulator.messages import Request as SimulatorRequest
from airflow_provider_cdm.simulator.routes.router import ROUTER


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that moves a clock on instead of sleeping.

    What is given to threads is done at once.
    """

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        super().__init__(_Selector(clock))
        # Epoch seconds have no nanoseconds, and a timer must count as due at its very instant.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """The clock's time."""
        return self._clock.now()

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]  # typed looser, since it serves all
        """Do it now."""
        del executor
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class _Selector(selectors.DefaultSelector):
    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if timeout is None and not ready:
            raise RuntimeError("nothing will ever happen again")
        if timeout and not ready:
            self._clock.advance(timeout)
        return ready


@dataclass
class Traffic:
    """The calls that were made.

    :param at: instants by kind of call, epoch seconds.
    :param throttled: how many met a used-up quota.
    """

    at: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    throttled: int = 0

    def note(self, request: Request, status: int, now: float) -> None:
        """Take note of an exchange."""
        self.at[kind_of(request.url)].append(now)
        self.throttled += status == 429

    @property
    def total(self) -> int:
        """All calls."""
        return sum(map(len, self.at.values()))

    def peak(self, kind: str) -> int:
        """The most calls of a kind within any minute."""
        times, most, first = sorted(self.at.get(kind, [])), 0, 0
        for last, now in enumerate(times):
            while times[first] <= now - 60:
                first += 1
            most = max(most, last - first + 1)
        return most


def kind_of(url: str) -> str:
    """Which operation a URL stands for, in the simulator's words."""
    path = urlsplit(url).path
    last = path.rsplit("/", 1)[-1]
    return {"all": "list_jobs", "tokens": "token"}.get(last, last)


class RecordingSession(CdmSession):
    """A session that takes note of its calls, after the session's arguments."""

    def __init__(self, settings: Settings, traffic: Traffic, **options: Any) -> None:
        super().__init__(settings, **options)
        self._traffic = traffic

    def _exchange(self, request: Request) -> Response:
        response = self._perform(request)
        self._traffic.note(request, response.status, self.clock())
        return response

    def _perform(self, request: Request) -> Response:
        return super()._exchange(request)


class PlayedSession(RecordingSession):
    """A session that has the simulator's router for a network."""

    def __init__(
        self, backend: Backend, settings: Settings, traffic: Traffic, **options: Any
    ) -> None:
        super().__init__(settings, traffic, **options)
        self._backend = backend

    def _perform(self, request: Request) -> Response:
        address = urlsplit(request.url)
        received = SimulatorRequest(
            method=request.method,
            path=address.path,
            query=dict(parse_qsl(address.query, keep_blank_values=True)),
            raw_query=address.query,
            headers={name.lower(): value for name, value in request.headers.items()},
            body=request.body or b"",
        )
        answer = ROUTER.handle(self._backend, received, ROUTER.find(received))
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Response(answer.status, headers, answer.body)


@dataclass
class Played:
    """A world in virtual time, and sessions with it.

    :param config: of the simulator.
    """

    config: dict[str, Any]
    clock: ManualClock = field(default_factory=ManualClock)
    seed: int = 1

    def __post_init__(self) -> None:
        self.backend = Backend(load(self.config), self.clock, ROUTER.names())
        self.backend.event_queue.start()
        self._random = random.Random(self.seed)

    def session(self, settings: Settings, traffic: Traffic, policy: RetryPolicy) -> CdmSession:
        """Make a session."""
        return PlayedSession(
            self.backend,
            settings,
            traffic,
            policy=policy,
            clock=self.clock.now,
            # Only what is given to threads sleeps like this, seldom and for less than 5 s.
            sleep=self.clock.advance,
            rng=self._random.random,
        )

    def settings(self, user: int = 0, limit: int | None = None) -> Settings:
        """The settings of one of its users."""
        one = self.backend.config.users[user]
        return Settings(
            cdm_endpoint="http://cdm",
            iam_endpoint=f"http://iam-{id(self)}",
            credentials=PasswordCredentials(one.name, one.password, self.backend.config.domain),
            project_id=self.backend.config.projects[0].id,
            requests_per_minute=limit,
        )

    def run(self, work: Callable[[], Any]) -> Any:
        """Run a coroutine function on a loop in this time."""
        with asyncio.Runner(loop_factory=lambda: VirtualLoop(self.clock)) as runner:
            return runner.run(work())
