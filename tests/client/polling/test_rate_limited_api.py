"""Calls within the rate limits, whatever they wait for in between."""

from __future__ import annotations

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
from airflow_provider_cdm.client.sansio import Request
from tests.support.virtual_cluster import BEGIN, FakeAccount, FakeCluster

LIMIT = 6


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
