"""The window of a limit: what a 429 names is waited for by every kind of call, on both drivers."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import parsing, resources, runs
from airflow_provider_cdm.client.api.definitions import JOB, LINK
from airflow_provider_cdm.client.auth import factory
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.simulator import CdmSimulator
from tests.client.fixture_types import Drive, MakeSession, Sent

ENDS = ("from", "to")
DEFINITION = parsing.job(
    {
        "name": "a",
        **{f"{end}-connector-name": "generic-jdbc-connector" for end in ENDS},
        **{f"{end}-link-name": "shop" for end in ENDS},
        **{f"{end}-config-values": {"configs": []} for end in ENDS},
    }
)
#: Calls by the names of their routes; whether they succeed does not matter to a quota.
CALLS: dict[str, Callable[[str], Any]] = {
    "start": lambda c: runs.start_job(c, "a"),
    "stop": lambda c: runs.stop_job(c, "a"),
    "status": lambda c: runs.status(c, "a"),
    "submissions": lambda c: runs.history(c, "a"),
    "create_job": lambda c: resources.create(c, DEFINITION),
    "update_job": lambda c: resources.update(c, DEFINITION),
    "delete_job": lambda c: resources.delete(JOB, c, "a"),
    "show_job": lambda c: resources.show(JOB, c, "a"),
    "show_link": lambda c: resources.show(LINK, c, "a"),
    "delete_link": lambda c: resources.delete(LINK, c, "a"),
    "list_clusters": lambda _: resources.list_clusters(),
    "show_cluster": resources.show_cluster,
    "stop_cluster": lambda _: resources.stop_cluster("none", graceful=False),
    "token": lambda c: runs.status(c, "a"),
}
WINDOWS: list[tuple[dict[str, Any], float]] = [
    ({"quota_seconds": 300}, 300.5),
    ({"quota_policy": "ip"}, 60.5),
    ({"throttled_text": "plain"}, 60.5),
    ({"quota_seconds": 30}, 30.5),
]


def attempt(session: CdmSession, drive: Drive, call: Any) -> None:
    """Make a call with a new token; CDM may refuse what it asks for."""
    factory.forget_everything()
    with suppress(errors.CdmRefused):
        drive(session, session.api.call(call))


@pytest.mark.parametrize(
    ("route", "config", "pause"),
    [
        pytest.param(
            route, {"quotas": {route: 1}, "behaviour": behaviour}, pause, id=f"{route} {n}"
        )
        for n, (behaviour, pause) in enumerate(WINDOWS)
        for route in CALLS
    ],
)
def test_each_call_waits_for_the_window_once(
    route: str,
    pause: float,
    drive: Drive,
    sim: CdmSimulator,
    make_session: MakeSession,
    sent: Sent,
    virtual_time: Any,
    log: pytest.LogCaptureFixture,
) -> None:
    """A call that is throttled for a window is repeated after it, and the log says when that is."""
    session = make_session()
    call = CALLS[route](sim.cluster_id)
    attempt(session, drive, call)
    assert virtual_time.slept == []
    attempt(session, drive, call)
    assert virtual_time.slept == [pause]
    first, throttled, repeated = [request.status for request in sent(route)]
    assert (throttled, repeated) == (429, first)
    [line] = [line for line in log.messages if "Trying again" in line]
    assert re.search(rf"Trying again in {pause:.1f} s, at \d\d:\d\d:\d\d UTC\.$", line)


@pytest.mark.parametrize(
    ("route", "config"),
    [
        pytest.param(
            route,
            {
                "quotas": {route: 1},
                "behaviour": {"quota_seconds": 600, "refused_calls_count": True},
            },
            id=route,
        )
        for route in CALLS
    ],
)
def test_few_repeats_while_a_window_lasts(
    route: str,
    drive: Drive,
    sim: CdmSimulator,
    make_session: MakeSession,
    sent: Sent,
    virtual_time: Any,
) -> None:
    """Where refused calls count and the window is longer than the cap, a call ends after three."""
    session = make_session()
    call = CALLS[route](sim.cluster_id)
    attempt(session, drive, call)
    with pytest.raises(errors.CdmThrottled) as caught:
        attempt(session, drive, call)
    assert caught.value.retry_after == 600
    assert not caught.value.effect_unknown
    assert virtual_time.slept == [300.5, 300.5]
    assert [request.status for request in sent(route)][1:] == [429] * 3


@pytest.mark.parametrize(
    "config", [{"quotas": {"start": 0}, "behaviour": {"quota_seconds": 1}}], ids=["a second"]
)
def test_a_short_window_leaves_all_repeats(
    drive: Drive, sim: CdmSimulator, make_session: MakeSession, sent: Sent, virtual_time: Any
) -> None:
    """A window of a second, as some services have, makes no call end sooner than no window."""
    session = make_session()
    with pytest.raises(errors.CdmThrottled):
        attempt(session, drive, CALLS["start"](sim.cluster_id))
    assert virtual_time.slept == [1.5] * 4
    assert len(sent("start")) == 5


@pytest.mark.parametrize(
    ("config", "advice"),
    [
        ({"quotas": {"status": 0}}, "distribute the work over several IAM users"),
        ({"quotas": {"status": 0}, "behaviour": {"quota_policy": "ip"}}, "from this address"),
    ],
    ids=["user", "address"],
)
def test_whose_calls_count(
    advice: str, drive: Drive, sim: CdmSimulator, make_session: MakeSession
) -> None:
    """More users help against a limit of the user only."""
    session = make_session()
    with pytest.raises(errors.CdmThrottled, match=advice):
        attempt(session, drive, CALLS["status"](sim.cluster_id))
