"""Work with a time limit: its result, its error, or the fact that it did not finish."""

from __future__ import annotations

import threading

import pytest

from airflow_provider_cdm.client.bounded import NotFinishedError, run_bounded


def test_result() -> None:
    """The result of work that finishes in time is returned."""
    assert run_bounded(lambda: "done", 30) == "done"


@pytest.mark.parametrize("error", [ValueError("wrong"), TimeoutError("silent"), SystemExit(1)])
def test_error(error: BaseException) -> None:
    """An error of the work is raised in the caller, and a timeout inside the work is such an error
    too.
    """

    def work() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        run_bounded(work, 30)
    assert caught.value is error


def test_work_that_takes_too_long() -> None:
    """The caller continues after its time limit, and the work continues in a daemon thread."""
    may_finish, finished = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def work() -> None:
        threads.append(threading.current_thread())
        may_finish.wait(30)
        finished.set()

    with pytest.raises(NotFinishedError, match=r"did not finish within 0\.05 s"):
        run_bounded(work, 0.05)
    assert threads[0].daemon
    assert not finished.is_set()
    may_finish.set()
    assert finished.wait(30)
