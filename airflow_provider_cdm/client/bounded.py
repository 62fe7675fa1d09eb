"""Run blocking work for a limited time, in a thread of its own.

Timeouts of sockets are not enough where a caller must go on after some seconds: looking up a host
name has no timeout, and the read timeout of a socket starts again with every byte.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")


class NotFinishedError(TimeoutError):
    """The work did not finish in time; its thread continues, and its result is discarded."""


def run_bounded(work: Callable[[], T], seconds: float) -> T:
    """Run work in a daemon thread, wait for it for a limited time, and return its result.

    The caller is never blocked for longer than ``seconds``. Work that takes longer is not
    interrupted: it continues in its thread, which does not keep the process from exiting. A
    signal handler may call this, since the work runs in a new thread and not in the interrupted
    one.

    :param work: function without arguments; it closes what it opens, since it may outlive the wait.
    :param seconds: how long to wait at most.
    :returns: what the work returned.
    :raises NotFinishedError: when the work has not finished after ``seconds``.
    :raises BaseException: whatever the work raised.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="cdm-bounded", daemon=True).start()
    if wait([outcome], timeout=seconds).not_done:
        raise NotFinishedError(f"It did not finish within {seconds:g} s")
    return outcome.result()
