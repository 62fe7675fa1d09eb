"""Processes that are forked while others wait: they take neither their locks nor their answers."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.locks import ProcessLock
from airflow_provider_cdm.client.sansio import offload
from airflow_provider_cdm.client.session import POOL_SIZE, CdmSession
from airflow_provider_cdm.simulator import CdmSimulator

HANGS = 60.0
FORK = multiprocessing.get_context("fork")


def in_child(work: Callable[[], Any]) -> Any:
    """Return what some work returns in a forked process; fail if it does not end."""
    results = FORK.Queue()
    child = FORK.Process(target=lambda: results.put(work()))
    with warnings.catch_warnings():
        # Forking a process with threads is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()
    try:
        return results.get(timeout=HANGS)
    finally:
        child.kill()
        child.join()


def ending(work: Callable[[], Any]) -> str:
    """Return how some work ends in a forked process, as text; fail if it does not end.

    What computes for ever can only be ended with its process.
    """

    def end() -> str:
        try:
            work()
        except BaseException as error:
            return f"{type(error).__name__}: {error}"
        return "no error"

    return str(in_child(end))


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


def test_a_forked_process_has_threads_of_its_own(sim: CdmSimulator, make_session: Any) -> None:
    """A process that is forked from one with a triggerer's threads does not wait for those."""
    sim.add_job("orders")
    session: CdmSession = make_session()

    def ask() -> str:
        asyncio.run(session.arun(session.api.active_run(sim.cluster_id, "orders")))
        return "answered"

    # With fewer threads, a pool makes one more where none is known to be free.
    begun = threading.Barrier(POOL_SIZE)

    async def begin_all_threads() -> None:
        await asyncio.gather(*(session.arun(offload(begun.wait)) for _ in range(POOL_SIZE)))

    asyncio.run(begin_all_threads())
    ask()
    assert in_child(ask) == "answered"


def test_locks_are_free_in_a_forked_process() -> None:
    """A lock that a thread of the parent holds is free in the child, and still held here."""
    lock = ProcessLock()
    with lock:
        assert in_child(lambda: lock.acquire(blocking=False)) is True
        assert lock.acquire(blocking=False) is False
