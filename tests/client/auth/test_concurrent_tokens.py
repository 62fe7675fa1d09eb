"""Many callers need a token at the same time: one of them requests it."""

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
from tests.client.fixture_types import MakeSession, Sent

JOB = "orders"


def outcome(call: Callable[[], Any]) -> Any:
    """Return the result of a call, or its error."""
    try:
        return call()
    except errors.CdmError as error:
        return error


class ManyCallers:
    """Callers that wait for a token until the first of them has received it."""

    def __init__(self, make_session: MakeSession, virtual_time: Any) -> None:
        self._make_session, self._options = make_session, virtual_time.options()
        self._answered = threading.Event()

    def threads(self, size: int, **connection: Any) -> list[Any]:
        """Return one token for each of some threads, each with its own session."""
        barrier = threading.Barrier(size)
        options = self._options | {"sleep": lambda seconds: self._answered.wait(30)}
        settings = self._make_session(**connection).settings

        def authorize(_: int) -> Any:
            session = CdmSession(settings, **options, on_token=lambda token: self._answered.set())
            barrier.wait(30)
            try:
                return outcome(lambda: session.run(session.api.auth.authorize()))
            finally:
                self._answered.set()
                session.close()

        with ThreadPoolExecutor(size) as pool:
            return list(pool.map(authorize, range(size)))

    def coroutines(self, size: int, **connection: Any) -> list[Any]:
        """Return one token for each of some coroutines of one event loop."""
        settings = self._make_session(**connection).settings

        async def gather() -> list[Any]:
            answered = asyncio.Event()
            options = self._options | {"async_sleep": lambda seconds: answered.wait()}
            with CdmSession(settings, **options) as session:

                async def authorize() -> Any:
                    try:
                        return await session.arun(session.api.auth.authorize())
                    finally:
                        answered.set()

                return await asyncio.gather(
                    *(authorize() for _ in range(size)), return_exceptions=True
                )

        return asyncio.run(gather())


@pytest.fixture
def callers(make_session: MakeSession, virtual_time: Any) -> ManyCallers:
    """Return many callers."""
    return ManyCallers(make_session, virtual_time)


@pytest.mark.parametrize("kind", ["threads", "coroutines"])
def test_many_callers_make_one_call(
    kind: str, callers: ManyCallers, sim: CdmSimulator, sent: Sent
) -> None:
    """Two hundred callers get the same token from one call."""
    sim.fail("token", "delay", seconds=0.02)
    tokens = getattr(callers, kind)(200)
    assert len(sent("token")) == 1
    assert len(tokens) == 200
    assert {id(token) for token in tokens} == {id(tokens[0])}
    assert tokens[0].project_id == sim.project_id


@pytest.mark.parametrize("kind", ["threads", "coroutines"])
def test_many_callers_do_not_lock_the_account(
    kind: str, callers: ManyCallers, sim: CdmSimulator, make_session: MakeSession, sent: Sent
) -> None:
    """Fifty callers with a wrong password send it once, so the account is not locked."""
    sim.fail("token", "delay", seconds=0.02)
    rejections = getattr(callers, kind)(50, password="wr0ng-w0rd")
    assert [type(error) for error in rejections] == [errors.CdmAuthError] * 50
    assert len(sent("token")) == 1
    session = make_session()
    assert session.run(session.api.auth.authorize()).project_id == sim.project_id


def test_many_callers_with_a_revoked_token(
    sim: CdmSimulator, make_session: MakeSession, sent: Sent, virtual_time: Any
) -> None:
    """When a token is revoked during many calls, all of them use one new token."""
    sim.add_job(JOB)
    call = runs.status(sim.cluster_id, JOB)

    async def perform() -> list[Any]:
        renewed = asyncio.Event()
        session = CdmSession(
            make_session().settings,
            **virtual_time.options() | {"async_sleep": lambda seconds: renewed.wait()},
            on_token=lambda token: renewed.set(),
        )
        with session:
            await session.arun(session.api.auth.authorize())
            renewed.clear()
            sim.revoke_tokens()
            calls = (session.arun(session.api.call(call)) for _ in range(40))
            return await asyncio.gather(*calls)

    assert len(asyncio.run(perform())) == 40
    assert len(sent("token")) == 2


@pytest.mark.parametrize("end", ["cancelled", "failed"])
def test_next_caller_takes_over(
    end: str, sim: CdmSimulator, make_session: MakeSession, sent: Sent, virtual_time: Any
) -> None:
    """If the caller that requests the token is cancelled or fails, the next one requests it."""
    if end == "cancelled":
        sim.fail("token", "hang")
    else:
        sim.fail("token", "body", body="<html>")

    async def perform() -> Any:
        queued, ended = asyncio.Event(), asyncio.Event()

        async def async_sleep(seconds: float) -> None:
            queued.set()
            await ended.wait()

        options = virtual_time.options() | {"async_sleep": async_sleep}
        with CdmSession(make_session().settings, **options) as session:
            first = asyncio.create_task(session.arun(session.api.auth.authorize()))
            first.add_done_callback(lambda task: ended.set())
            second = asyncio.create_task(session.arun(session.api.auth.authorize()))
            await queued.wait()
            while not sent("token"):  # noqa: ASYNC110 - the simulator runs in another thread
                await asyncio.sleep(0)
            if end == "cancelled":
                first.cancel()
            [failure, token] = await asyncio.gather(first, second, return_exceptions=True)
            sim.reset()  # ends the request that hangs
            return failure, token

    failure, token = asyncio.run(perform())
    expected = asyncio.CancelledError if end == "cancelled" else errors.CdmBadResponse
    assert isinstance(failure, expected)
    assert token.project_id == sim.project_id
