"""``CdmHook`` as authors of ``@task`` functions use it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_cdm._compat import aget_connection
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.connection import lookup
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock

JOB = "orders"


def test_hook_starts_polls_and_stops_a_job(
    sim: CdmSimulator, cdm_default: dict[str, Any], clock: ManualClock
) -> None:
    """The hook starts a job, reads its status and history, and stops it."""
    sim.add_job(JOB, seconds=60)
    hook = CdmHook()
    started = hook.start_job(JOB, {"dt": "2025-01-02"})
    assert started.submission_id == 1
    assert sim.runs(JOB)[0].variables == {"dt": "2025-01-02"}
    clock.advance(10)
    assert hook.get_job_status(JOB).status == "RUNNING"
    assert hook.stop_job(JOB) is True
    clock.advance(60)
    assert hook.get_job_status(JOB).to_dict()["status"] == "STOPPED"
    assert hook.stop_job(JOB) is False
    hook.start_job(JOB)
    assert [run.submission_id for run in hook.list_submissions(JOB)] == [2, 1]


def test_job_without_runs_has_a_status_and_an_empty_history(
    sim: CdmSimulator, cdm_default: dict[str, Any]
) -> None:
    """A job that never ran has the status NEVER_EXECUTED and an empty history."""
    sim.add_job(JOB)
    assert CdmHook().get_job_status(JOB).status == "NEVER_EXECUTED"
    assert CdmHook().list_submissions(JOB) == []


@pytest.mark.parametrize(
    "call",
    [
        lambda hook: hook.start_job("no such job"),
        lambda hook: hook.get_job_status("no such job"),
        lambda hook: hook.stop_job("no such job"),
    ],
)
def test_unknown_job_raises_not_found(
    call: Callable[[CdmHook], Any], sim: CdmSimulator, cdm_default: dict[str, Any]
) -> None:
    """A job that does not exist is a typed error with CDM's code."""
    with pytest.raises(errors.CdmNotFound) as error:
        call(CdmHook())
    assert str(error.value.code).startswith("Cdm.")


def test_missing_cluster_raises_an_error(
    sim: CdmSimulator, cdm_default: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a cluster in the connection or the arguments, the error says where to name one."""
    connection = sim.connection_json.replace(f', "cluster_id": "{sim.cluster_id}"', "")
    monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", connection)
    with pytest.raises(errors.CdmConfigError, match="cluster_id"):
        CdmHook().start_job(JOB)
    sim.add_job(JOB)
    assert CdmHook(cluster_id=sim.cluster_id).start_job(JOB).cluster_id == sim.cluster_id


def test_connection_may_be_a_uri(
    sim: CdmSimulator, cdm_default: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection works in Airflow's URI form."""
    monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", sim.connection_uri)
    sim.add_job(JOB)
    assert CdmHook().start_job(JOB).submission_id == 1


def test_constructor_reads_no_connection() -> None:
    """The constructor reads no connection, so that DAG files and triggers can make hooks freely."""
    assert "no_such_connection" in CdmHook("no_such_connection").cdm_conn_id


def test_session_runs_on_an_event_loop(sim: CdmSimulator, cdm_default: dict[str, Any]) -> None:
    """A trigger gets the same session without blocking its event loop."""
    sim.add_job(JOB)

    sim.start(JOB)

    async def read_active_run() -> Any:
        session = await CdmHook().aget_conn()
        return await session.arun(session.api.active_run(sim.cluster_id, JOB))

    assert asyncio.run(read_active_run()).submission_id == 1


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ({"kind": "body", "body": "<html>Sign in</html>"}, errors.CdmBadResponse, "not JSON"),
        ({"kind": "body", "body": ""}, errors.CdmBadResponse, "empty"),
        ({"kind": "body", "body": "{}"}, errors.CdmBadResponse, "no submissions"),
        ({"kind": "body", "body": '{"submissions": [{}]}'}, errors.CdmBadResponse, "no status"),
        ({"kind": "status", "status": 302}, errors.CdmBadResponse, "redirects"),
    ],
)
def test_unusable_response_raises_a_typed_error(
    fault: dict[str, Any],
    error: type[Exception],
    message: str,
    sim: CdmSimulator,
    cdm_default: dict[str, Any],
) -> None:
    """The page of a proxy, an empty body or a missing field is a typed error that shows the
    response.
    """
    sim.add_job(JOB)
    sim.fail("status", **fault)
    with pytest.raises(error, match=message):
        CdmHook().get_job_status(JOB)


def test_unreachable_endpoint_raises_unavailable(
    sim: CdmSimulator, cdm_default: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endpoint that refuses connections is unavailable, and the error names it."""
    unreachable = sim.connection_json.replace(sim.url, "http://127.0.0.1:9")
    monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", unreachable)
    with pytest.raises(errors.CdmUnavailable, match=r"127\.0\.0\.1:9") as error:
        CdmHook().get_job_status(JOB)
    assert not error.value.effect_unknown


def test_what_was_looked_up_is_soon_forgotten(
    sim: CdmSimulator, cdm_default: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The secrets of a connection are not kept for triggers that may never come."""
    monkeypatch.setattr(lookup, "_SHARED_SECONDS", 0.0)

    async def read() -> None:
        await CdmHook().aget_conn()
        while lookup._shared:  # noqa: ASYNC110 - a timer of the event loop removes it
            await asyncio.sleep(0)

    asyncio.run(read())


def test_slow_look_up_is_shared_until_it_ends(
    sim: CdmSimulator, cdm_default: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions that want to know what the connection holds now wait for the same look-up."""
    began: list[str] = []

    async def slow(conn_id: str) -> Any:
        began.append(conn_id)
        await asyncio.sleep(0)
        return await aget_connection(conn_id)

    monkeypatch.setattr(lookup, "aget_connection", slow)

    async def read() -> None:
        read = lookup.aread_settings
        await asyncio.gather(*(read("cdm_default", fresh=True) for _ in range(5)))
        assert len(began) == 1
        await read("cdm_default")
        assert len(began) == 1
        await read("cdm_default", fresh=True)
        assert len(began) == 2

    asyncio.run(read())
