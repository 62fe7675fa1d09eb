"""Many callers need a token at once: IAM is asked by one of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import runs
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.simulator import CdmSimulator

MakeSession = Callable[..., CdmSession]
Sent = Callable[..., list[Any]]

JOB = "orders"


def outcome(ask: Callable[[], Any]) -> Any:
    """What a call returns, or the error it raises."""
    try:
        return ask()
    except errors.CdmError as error:
        return error


class Crowd:
    """Callers that queue for a token until the first of them has its answer."""

    def __init__(self, make_session: MakeSession, virtual_time: Any) -> None:
        self._make_session, self._options = make_session, virtual_time.options()
        self._answered = threading.Event()

    def threads(self, size: int, **connection: Any) -> list[Any]:
        """One token for each of some threads, each with a session of its own."""
        barrier = threading.Barrier(size)
        options = self._options | {"sleep": lambda seconds: self._answered.wait(30)}
        settings = self._make_session(**connection).settings

        def ask(_: int) -> Any:
            session = CdmSession(settings, **options, on_token=lambda token: self._answered.set())
            barrier.wait(30)
            try:
                return outcome(lambda: session.run(session.api.auth.authorize()))
            finally:
                self._answered.set()
                session.close()

        with ThreadPoolExecutor(size) as pool:
            return list(pool.map(ask, range(size)))

    def coroutines(self, size: int, **connection: Any) -> list[Any]:
        """The same for coroutines of one event loop."""
        settings = self._make_session(**connection).settings

        async def gather() -> list[Any]:
            answered = asyncio.Event()
            options = self._options | {"asleep": lambda seconds: answered.wait()}
            with CdmSession(settings, **options) as session:

                async def ask() -> Any:
                    try:
                        return await session.arun(session.api.auth.authorize())
                    finally:
                        answered.set()

                return await asyncio.gather(*(ask() for _ in range(size)), return_exceptions=True)

        return asyncio.run(gather())


@pytest.fixture
def crowd(make_session: MakeSession, virtual_time: Any) -> Crowd:
    """Many callers."""
    return Crowd(make_session, virtual_time)


@pytest.mark.parametrize("kind", ["threads", "coroutines"])
def test_a_crowd_makes_one_call(kind: str, crowd: Crowd, sim: CdmSimulator, sent: Sent) -> None:
    """Two hundred callers get the same token out of one call."""
    sim.fail("token", "delay", seconds=0.02)
    tokens = getattr(crowd, kind)(200)
    assert len(sent("token")) == 1
    assert len(tokens) == 200
    assert {id(token) for token in tokens} == {id(tokens[0])}
    assert tokens[0].project_id == sim.project_id


@pytest.mark.parametrize("kind", ["threads", "coroutines"])
def test_a_crowd_does_not_lock_the_account(
    kind: str, crowd: Crowd, sim: CdmSimulator, make_session: MakeSession, sent: Sent
) -> None:
    """Fifty callers with a wrong password send it once, so the right one still works."""
    sim.fail("token", "delay", seconds=0.02)
    refusals = getattr(crowd, kind)(50, password="wr0ng-w0rd")
    assert [type(refusal) for refusal in refusals] == [errors.CdmAuthError] * 50
    assert len(sent("token")) == 1
    session = make_session()
    assert session.run(session.api.auth.authorize()).project_id == sim.project_id


def test_a_crowd_with_a_revoked_token(
    sim: CdmSimulator, make_session: MakeSession, sent: Sent, virtual_time: Any
) -> None:
    """When a token dies under many calls, one new token serves them all."""
    sim.add_job(JOB)
    call = runs.status(sim.cluster_id, JOB)

    async def play() -> list[Any]:
        renewed = asyncio.Event()
        session = CdmSession(
            make_session().settings,
            **virtual_time.options() | {"asleep": lambda seconds: renewed.wait()},
            on_token=lambda token: renewed.set(),
        )
        with session:
            await session.arun(session.api.auth.authorize())
            renewed.clear()
            sim.revoke_tokens()
            calls = (session.arun(session.api.call(call)) for _ in range(40))
            return await asyncio.gather(*calls)

    assert len(asyncio.run(play())) == 40
    assert len(sent("token")) == 2


@pytest.mark.parametrize("end", ["cancelled", "failed"])
def test_the_queue_moves_on(
    end: str, sim: CdmSimulator, make_session: MakeSession, sent: Sent, virtual_time: Any
) -> None:
    """Whoever asks for the token may be cancelled or fail; the next in the queue asks then."""
    if end == "cancelled":
        sim.fail("token", "hang")
    else:
        sim.fail("token", "body", body="<html>")

    async def play() -> Any:
        queued, over = asyncio.Event(), asyncio.Event()

        async def asleep(seconds: float) -> None:
            queued.set()
            await over.wait()

        options = virtual_time.options() | {"asleep": asleep}
        with CdmSession(make_session().settings, **options) as session:
            first = asyncio.create_task(session.arun(session.api.auth.authorize()))
            first.add_done_callback(lambda task: over.set())
            second = asyncio.create_task(session.arun(session.api.auth.authorize()))
            await queued.wait()
            while not sent("token"):  # noqa: ASYNC110 - the simulator runs in another thread
                await asyncio.sleep(0)
            if end == "cancelled":
                first.cancel()
            [failure, token] = await asyncio.gather(first, second, return_exceptions=True)
            sim.reset()  # lets go of what hangs
            return failure, token

    failure, token = asyncio.run(play())
    wanted = asyncio.CancelledError if end == "cancelled" else errors.CdmBadResponse
    assert isinstance(failure, wanted)
    assert token.project_id == sim.project_id
