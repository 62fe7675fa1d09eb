"""Processes that are forked while others wait: they take neither their locks nor their answers."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.locks import ProcessLock
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.simulator import CdmSimulator

HANGS = 60.0
FORK = multiprocessing.get_context("fork")
pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)


def in_child(work: Callable[[], Any]) -> Any:
    """Return what some work returns in a forked process; fail if it does not end."""
    results = FORK.Queue()
    child = FORK.Process(target=lambda: results.put(work()))
    child.start()
    try:
        return results.get(timeout=HANGS)
    finally:
        child.kill()
        child.join()


def test_a_fork_during_a_request_for_a_token(sim: CdmSimulator, make_session: Any) -> None:
    """A process that is forked while a token is requested gets a token of its own."""
    sim.add_job("orders")
    sim.fail("token", "hang", seconds=HANGS)
    session: CdmSession = make_session(read_timeout=2 * HANGS)

    def ask() -> str:
        session.run(session.api.active_run(sim.cluster_id, "orders"))
        return "answered"

    def ask_in_vain() -> None:
        # The simulator ends before it answers.
        with suppress(errors.CdmError):
            ask()

    waiting = threading.Thread(target=ask_in_vain, daemon=True)
    waiting.start()
    while not any(request.route == "token" for request in sim.requests):
        assert waiting.is_alive()
    assert in_child(ask) == "answered"
    assert waiting.is_alive()


def test_locks_are_free_in_a_forked_process() -> None:
    """A lock that a thread of the parent holds is free in the child, and still held here."""
    lock = ProcessLock()
    with lock:
        assert in_child(lambda: lock.acquire(blocking=False)) is True
        assert lock.acquire(blocking=False) is False
