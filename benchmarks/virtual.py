"""Virtual time, which passes only when there is nothing to do, and an in-process simulator.

Hours of waiting take minutes that way, and give the same results each time. An exchange takes no
time and needs no socket: the request is passed to the simulator's router, as its web server does.
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
    """An event loop that advances a clock instead of sleeping.

    Calls for threads are made at once, on the event loop.
    """

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        super().__init__(_Selector(clock))
        # Epoch seconds as floats are not precise to nanoseconds, but a timer must be due in time.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Return the time of the clock."""
        return self._clock.now()

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]  # the types do not matter here
        """Call the function now."""
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
            raise RuntimeError("There are no timers and no events, so virtual time cannot go on.")
        if timeout and not ready:
            self._clock.advance(timeout)
        return ready


@dataclass
class Traffic:
    """The calls that were made.

    :param at: times of the calls by kind, epoch seconds.
    :param throttled: number of calls that got 429.
    """

    at: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    throttled: int = 0

    def record(self, request: Request, status: int, now: float) -> None:
        """Record an exchange."""
        self.at[kind_of(request.url)].append(now)
        self.throttled += status == 429

    @property
    def total(self) -> int:
        """The number of all calls."""
        return sum(map(len, self.at.values()))

    def peak(self, kind: str) -> int:
        """Return the largest number of calls of a kind within any minute."""
        times, most, first = sorted(self.at.get(kind, [])), 0, 0
        for last, now in enumerate(times):
            while times[first] <= now - 60:
                first += 1
            most = max(most, last - first + 1)
        return most


def kind_of(url: str) -> str:
    """Return the name of the simulator's route for a URL."""
    path = urlsplit(url).path
    last = path.rsplit("/", 1)[-1]
    return {"all": "list_jobs", "tokens": "token"}.get(last, last)


class RecordingSession(CdmSession):
    """A session that records its calls."""

    def __init__(self, settings: Settings, traffic: Traffic, **options: Any) -> None:
        super().__init__(settings, **options)
        self._traffic = traffic

    def _exchange(self, request: Request) -> Response:
        response = self._perform(request)
        self._traffic.record(request, response.status, self.clock())
        return response

    def _perform(self, request: Request) -> Response:
        return super()._exchange(request)


class InProcessSession(RecordingSession):
    """A session that passes requests to the router of an in-process simulator."""

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
class VirtualSimulator:
    """A simulator in virtual time, and sessions with it.

    :param config: configuration of the simulator.
    :param clock: clock of the simulator and the sessions.
    :param seed: seed of the random numbers that sessions use.
    """

    config: dict[str, Any]
    clock: ManualClock = field(default_factory=ManualClock)
    seed: int = 1

    def __post_init__(self) -> None:
        self.backend = Backend(load(self.config), self.clock, ROUTER.names())
        self.backend.event_queue.start()
        self._random = random.Random(self.seed)

    def session(self, settings: Settings, traffic: Traffic, policy: RetryPolicy) -> CdmSession:
        """Return a new session."""
        return InProcessSession(
            self.backend,
            settings,
            traffic,
            policy=policy,
            clock=self.clock.now,
            # Used only by calls for threads, rarely and for less than 5 s.
            sleep=self.clock.advance,
            rng=self._random.random,
        )

    def settings(self, user: int = 0, limit: int | None = None) -> Settings:
        """Return the settings of a user.

        :param user: index of the user.
        :param limit: ``requests_per_minute``; ``None`` for the default.
        """
        user_config = self.backend.config.users[user]
        return Settings(
            cdm_endpoint="http://cdm",
            iam_endpoint=f"http://iam-{id(self)}",
            credentials=PasswordCredentials(
                user_config.name, user_config.password, self.backend.config.domain
            ),
            project_id=self.backend.config.projects[0].id,
            requests_per_minute=limit,
        )

    def run(self, work: Callable[[], Any]) -> Any:
        """Run a coroutine function on an event loop in virtual time."""
        with asyncio.Runner(loop_factory=lambda: VirtualLoop(self.clock)) as runner:
            return runner.run(work())
