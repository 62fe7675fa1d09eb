"""Runs triggers as Airflow's triggerer does, and ends their tasks as a user does."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

#: Seconds that Airflow 3.3 gives ``on_kill``.
ON_KILL_SECONDS = 30.0
_USER_ACTION = "__airflow_user_action__"


class FakeTriggerer:
    """The part of Airflow's triggerer that runs triggers and cancels them.

    Airflow cancels the trigger of a task that a user ended once a second until it has finished.

    :param has_on_kill: whether it calls ``on_kill``, as Airflow 3.3 and later.
    :param timed_out: number of calls of ``on_kill`` that took longer than Airflow waits.
    """

    def __init__(self, *, has_on_kill: bool) -> None:
        self.has_on_kill = has_on_kill
        self.timed_out = 0
        self.tasks: list[asyncio.Task[None]] = []
        self._kills: list[asyncio.Task[None]] = []

    def start(self, trigger: Any) -> None:
        """Start a trigger."""
        self.tasks.append(asyncio.get_running_loop().create_task(self._run(trigger)))

    async def end_tasks(self) -> None:
        """End the tasks of all triggers, as a user does, and wait until the triggers finished.

        On Python 3.11, the second cancellation ends a trigger, while its ``on_kill`` goes on.
        """
        while left := [task for task in self.tasks if not task.done()]:
            for task in left:
                task.cancel(_USER_ACTION)
                await asyncio.sleep(0)
            await asyncio.wait(left, timeout=1)
        if self._kills:
            await asyncio.wait(self._kills)

    async def _run(self, trigger: Any) -> None:
        try:
            async for _ in trigger.run():
                pass
        except asyncio.CancelledError as cancellation:
            if self.has_on_kill and cancellation.args == (_USER_ACTION,):
                self._kills.append(asyncio.get_running_loop().create_task(trigger.on_kill()))
                try:
                    with suppress(asyncio.CancelledError):
                        await asyncio.wait_for(self._kills[-1], ON_KILL_SECONDS)
                except TimeoutError:
                    self.timed_out += 1
            raise
