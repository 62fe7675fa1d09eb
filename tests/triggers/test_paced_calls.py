"""Calls of stoppers and watchers: within the rate limit, whatever they wait for."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_cdm.client.api import runs
from airflow_provider_cdm.client.api.call import Quota
from airflow_provider_cdm.client.auth import factory
from airflow_provider_cdm.client.polling import rate_limit
from airflow_provider_cdm.client.polling.rate_limited_api import PacedApi
from airflow_provider_cdm.client.sansio import Request, Sleep
from airflow_provider_cdm.triggers.paced_calls import PacedCalls
from tests.support.virtual_cluster import (
    BEGIN,
    FakeAccount,
    FakeCluster,
    FakeJob,
    FakeRun,
    api_of,
    most_in_a_minute,
    new_exchanger,
)

LIMIT = 6


class FakeSession:
    """A session of a fake cluster, in virtual time.

    :param slow: what takes a hundred seconds once: ``token``, or ``pause`` for an event loop that
        was busy.
    """

    def __init__(self, slow: str) -> None:
        factory.forget_everything()
        self.cluster, self._slow = FakeCluster(), slow
        account = self.cluster.accounts["u"] = FakeAccount("u")
        self.settings = replace(account.settings, requests_per_minute=LIMIT)
        self.api = api_of(account, new_exchanger(self.cluster, lambda: 0.5))
        self.cluster.add(FakeJob("job", [FakeRun(1, -60.0, 9e9)]))

    def clock(self) -> float:
        return BEGIN + self.cluster.now

    monotonic = clock

    def run(self, flow: Any) -> Any:
        """Perform a flow, as a thread does."""
        try:
            step = next(flow)
            while True:
                if isinstance(step, Sleep):
                    self._pass("pause", step.seconds)
                    step = flow.send(None)
                    continue
                assert isinstance(step, Request)
                self._pass("token" if "/tokens" in step.url else "call", 0.1)
                step = flow.send(self.cluster.handle(step))
        except StopIteration as end:
            return end.value

    async def arun(self, flow: Any) -> Any:
        """Perform a flow, as an event loop does."""
        return self.run(flow)

    def close(self) -> None:
        """Do nothing."""

    def _pass(self, what: str, seconds: float) -> None:
        self.cluster.now += seconds
        if what == self._slow and seconds > 0:
            self.cluster.now, self._slow = self.cluster.now + 100, ""


@pytest.mark.parametrize("who", ["stopper", "watcher"])
@pytest.mark.parametrize("slow", ["token", "pause"])
def test_a_slot_is_not_used_when_it_has_expired(
    slow: str, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that waited for a token, or for its turn, adds to no other minute than that of its
    slot.
    """
    monkeypatch.setattr(rate_limit, "_rate_limits", {})
    session: Any = FakeSession(slow)

    call = runs.status("c", "job")

    async def stop() -> None:
        calls = PacedCalls(session, 1)
        for _ in range(4 * LIMIT):
            await calls.call(call, Quota.STATUS)
        calls.close()

    async def watch() -> None:
        api = PacedApi.wrap(session.api, rate_limit.rate_limits_for(session.settings, session))
        for _ in range(4 * LIMIT):
            await session.arun(api.call(call))

    asyncio.run(stop() if who == "stopper" else watch())
    made = session.cluster.calls["status"]
    assert len(made) == 4 * LIMIT
    assert made[-1] > 100
    assert most_in_a_minute(made) <= LIMIT
