"""The loop that every wait runs: poll, pause for a jittered interval, give up at the deadline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar, cast

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.http.retry import Exchanger
from airflow_provider_cdm.client.sansio import Flow, Request, Sleep, TransportError, pause

T = TypeVar("T")

#: Seconds after its deadline by which a wait ends, even if the last poll is not answered.
LAST_POLL = 10.0
#: Seconds of the shortest pause, which keeps an interval of zero from becoming a busy loop.
_SHORTEST_PAUSE = 0.01


def poll_until_done(
    poll: Callable[[], Flow[T | None]],
    exchanger: Exchanger,
    *,
    poll_interval: float | Callable[[], float],
    deadline: float | None,
    timed_out: Callable[[], errors.CdmError],
    clock: Callable[[], float] | None = None,
) -> Flow[T]:
    """Poll until there is a result; the last poll is made at the deadline.

    A poll that is under way then is ended after ten seconds.

    :param poll: flow of one poll; returns ``None`` to go on waiting.
    :param exchanger: source of the time and of the random numbers for the jitter.
    :param poll_interval: seconds between two polls, or a function that returns those until the
        next one; each pause differs from them by up to a tenth.
    :param deadline: epoch seconds at which to give up; ``None`` to wait without a limit.
    :param timed_out: returns the error to raise at the deadline.
    :param clock: clock of the deadline; by default that of the wall.
    :returns: the first result that is not ``None``.
    """
    now = clock or exchanger.clock
    while True:
        try:
            result = yield from _until(poll(), deadline, now)
        except _OutOfTimeError:
            raise timed_out() from None
        if result is not None:
            return result
        interval = poll_interval() if callable(poll_interval) else poll_interval
        seconds = interval * (0.9 + 0.2 * exchanger.random())
        if deadline is not None:
            remaining = deadline - now()
            if remaining <= 0:
                raise timed_out()
            seconds = min(seconds, remaining)
        yield from pause(max(seconds, _SHORTEST_PAUSE))


class _OutOfTimeError(Exception):
    """A poll would pause beyond the deadline."""


def _until(flow: Flow[T], deadline: float | None, now: Callable[[], float]) -> Flow[T]:
    """Perform a poll whose exchanges and pauses end soon after the deadline.

    :raises _OutOfTimeError: when the poll would go on for longer.
    """
    if deadline is None:
        return (yield from flow)
    try:
        step = next(flow)
        while True:
            left = deadline + LAST_POLL - now()
            if left <= 0 or (isinstance(step, Sleep) and step.seconds > left):
                raise _OutOfTimeError
            if isinstance(step, Request):
                step = replace(step, time_limit=min(left, step.time_limit))
            try:
                result = yield step
            except (TransportError, errors.CdmJournalError) as failure:
                step = flow.throw(failure)
            else:
                step = flow.send(result)
    except StopIteration as end:
        return cast("T", end.value)
    finally:
        flow.close()
