"""Calls within the rate limits, whatever they wait for in between."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from airflow_provider_cdm.client.api import runs
from airflow_provider_cdm.client.api.call import Quota
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.auth import factory
from airflow_provider_cdm.client.http.retry import Exchanger, RetryPolicy
from airflow_provider_cdm.client.polling.rate_limit import RateLimits
from airflow_provider_cdm.client.polling.rate_limited_api import (
    CallBatch,
    RateLimited,
    RateLimitedApi,
)
from airflow_provider_cdm.client.sansio import Flow, Request, Response, Sleep
from tests.support.virtual_cluster import (
    BEGIN,
    FakeAccount,
    FakeCluster,
    FakeJob,
    FakeRun,
    api_of,
    new_exchanger,
)

LIMIT = 6
#: Seconds for which a token counts as valid at most.
TOKEN_SECONDS = 30 * 86_400.0


@pytest.mark.parametrize(("seconds", "sent"), [(0.5, True), (30.0, False)])
def test_a_slot_that_expired_while_a_token_was_requested(seconds: float, sent: bool) -> None:
    """A call does not use a slot of an earlier minute, which would add to those of this one."""
    factory.forget_everything()
    cluster, limits = FakeCluster(), RateLimits(LIMIT, lambda: 0.5)
    exchanger = Exchanger(RetryPolicy(), lambda: BEGIN + cluster.now, lambda: 0.5)
    account = cluster.accounts["u"] = FakeAccount("u")
    settings = account.settings
    api = CdmApi(settings, factory.authenticator_for(settings, exchanger), exchanger)
    limiter = limits.limiters[Quota.STATUS]
    batch = CallBatch(reserved=(Quota.STATUS, limiter.reserve(BEGIN)))
    flow = RateLimitedApi.wrap(api, limits, batch).call(runs.status("c", "j"))
    token_request = next(flow)
    assert isinstance(token_request, Request)
    answer = cluster.handle(token_request)
    cluster.now += seconds
    for _ in range(LIMIT):
        limiter.reserve(BEGIN + cluster.now)
    if sent:
        call = flow.send(answer)
        assert isinstance(call, Request)
        assert call.url.endswith("/status")
    else:
        with pytest.raises(RateLimited):
            flow.send(answer)


class Look:
    """The calls of one look at some jobs, in virtual time.

    :param limits: rate limits of the user.
    """

    def __init__(self, limits: RateLimits) -> None:
        factory.forget_everything()
        self.cluster, self.limits, self.waited = FakeCluster(), limits, 0.0
        account = self.cluster.accounts["u"] = FakeAccount("u")
        exchanger = new_exchanger(self.cluster, lambda: 0.5)
        slot = limits.limiters[Quota.STATUS].reserve(BEGIN)
        batch = CallBatch(reserved=(Quota.STATUS, slot))
        self.api = RateLimitedApi.wrap(api_of(account, exchanger), limits, batch)

    def read_status(self, job: str) -> None:
        """Make the status call of a job."""
        self.cluster.add(FakeJob(job, [FakeRun(1, -60.0, 9e9)]))
        flow = self.api.call(runs.status("c", job))
        with contextlib.suppress(StopIteration):
            step = next(flow)
            while True:
                if isinstance(step, Sleep):
                    self.cluster.now += step.seconds
                    self.waited += step.seconds
                    step = flow.send(None)
                else:
                    assert isinstance(step, Request)
                    answer = self.cluster.handle(step)
                    assert isinstance(answer, Response)
                    step = flow.send(answer)


def test_each_call_of_a_look_has_a_slot_of_its_own() -> None:
    """The slot that is reserved for a look serves its first call only."""
    limits = RateLimits(1, lambda: 0.5)
    look = Look(limits)
    look.read_status("first")
    with pytest.raises(RateLimited):
        look.read_status("second")
    assert len(look.cluster.calls["status"]) == 1


@pytest.mark.parametrize("what", ["a 429", "a busy machine"])
def test_a_slot_that_expired_while_a_look_paused_for_it(what: str) -> None:
    """The second call of a look is not made during the back-off of another one, nor in a slot of
    an earlier minute.
    """
    limits = RateLimits(100, lambda: 0.5)
    look, limiter = Look(limits), limits.limiters[Quota.STATUS]
    look.read_status("first")
    while limiter.next_slot(BEGIN) <= BEGIN:
        limiter.reserve(BEGIN)
    flow = look.api.call(runs.status("c", "second"))
    step = next(flow)
    assert isinstance(step, Sleep)
    look.cluster.now += step.seconds
    if what == "a 429":
        limiter.throttled(BEGIN + look.cluster.now)
    else:
        look.cluster.now += 100
    with pytest.raises(RateLimited):
        flow.send(None)


def test_no_wait_of_a_look_tries_again_what_was_postponed() -> None:
    """After a 429, the other waits for a job neither make the call nor pause for its slot."""
    look = Look(RateLimits(100, lambda: 0.0))
    look.cluster.quota = 0
    for job in ("first", "second", "third"):
        with pytest.raises(RateLimited):
            look.read_status(job)
    assert len(look.cluster.calls["status"]) == 1
    assert look.waited == 0


def test_a_dead_proxy_delays_no_connection_without_it() -> None:
    """While one connection of a user waits for its token, another one with another way to the
    servers asks for its own.
    """
    factory.forget_everything()
    cluster, limits = FakeCluster(), RateLimits(100, lambda: 0.5)
    account = cluster.accounts["u"] = FakeAccount("u")
    exchanger = new_exchanger(cluster, lambda: 0.5)

    def look(proxy: str | None) -> Flow[object]:
        settings = replace(account.settings, proxy=proxy)
        api = CdmApi(settings, factory.authenticator_for(settings, exchanger), exchanger)
        return RateLimitedApi.wrap(api, limits, CallBatch()).call(runs.status("c", "j"))

    behind_proxy, direct = look("http://127.0.0.1:1"), look(None)
    with ThreadPoolExecutor(1) as pool:
        assert isinstance(next(behind_proxy), Request)
        try:
            assert isinstance(pool.submit(next, direct).result(10), Request)
        finally:
            behind_proxy.close()
    direct.close()


def test_a_renewal_delays_no_look() -> None:
    """While one look renews the token of its connection, others are made with the old one."""
    look = Look(RateLimits(100, lambda: 0.5))
    look.read_status("first")
    look.cluster.now += TOKEN_SECONDS - 100
    renewing, other = (look.api.call(runs.status("c", name)) for name in ("second", "third"))
    with ThreadPoolExecutor(1) as pool:
        request = next(renewing)
        assert isinstance(request, Request)
        assert "/tokens" in request.url
        try:
            request = pool.submit(next, other).result(10)
            assert isinstance(request, Request)
            assert request.url.endswith("/third/status")
        finally:
            renewing.close()
    other.close()
