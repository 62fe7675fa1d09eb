"""What is known about the stop of a run whose deferred task was ended, and how it is finished."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.submission import RunRef
from airflow_provider_cdm.triggers.stopper import RunStopper

#: What goes on although nobody waits for it any more; an event loop keeps no reference.
_unfinished: set[asyncio.Task[None]] = set()


@dataclass(slots=True)
class Kill:
    """What is known about the stop of a run whose task was ended.

    :param state: state of the task, once it was read.
    :param asked_state: whether Airflow was asked for it.
    :param sent: whether nothing is left to stop: the stop was sent, or the run was not active.
    :param in_background: whether the time that Airflow gives is over.
    :param cancelled: whether the work was cancelled, and is done once more.
    :param failure: last failure after which a call was repeated.
    :param uptime: function that returns seconds by a clock that nobody can set.
    :param stopper: what stops it, with other runs of the cluster.
    :param give_up_at: when to give up after a failure, by that clock.
    """

    run: RunRef
    uptime: Callable[[], float] = time.monotonic
    state: str | None = None
    asked_state: bool = False
    sent: bool = False
    in_background: bool = False
    cancelled: bool = False
    failure: errors.CdmError | None = None
    stopper: RunStopper | None = None
    give_up_at: float | None = None

    def record_failure(self, error: errors.CdmError) -> None:
        """Keep a failure for the log; raise it when the time for the stop is over."""
        self.failure = error
        if self.give_up_at is not None and self.uptime() >= self.give_up_at:
            raise error

    @property
    def reason(self) -> str:
        """The last failure as a sentence."""
        failure = self.failure or (self.stopper and self.stopper.failure)
        return f"The last error: {failure}" if failure else "CDM's quota of calls was used up."


async def finish(make_work: Callable[[], Coroutine[Any, Any, None]], seconds: float | None) -> bool:
    """Finish some work although the triggerer cancels it: every second, and once when it ends.

    :param make_work: makes the work; it is made once more when the event loop ends, since the
        loop cancels all tasks then, and waits for those that go on.
    :param seconds: after how long to return; the work goes on. ``None`` for never.
    :returns: whether the work is finished.
    """
    loop = asyncio.get_running_loop()
    give_up_at = math.inf if seconds is None else loop.time() + seconds
    task = loop.create_task(make_work())
    for remake in (True, False):
        while not task.done() and (left := give_up_at - loop.time()) > 0:
            # wait() does not cancel what it waits for.
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task}, timeout=None if left == math.inf else left)
        if not task.done():
            _unfinished.add(task)
            task.add_done_callback(_unfinished.discard)
            return False
        if remake and task.cancelled():
            task = loop.create_task(make_work())
    return True
