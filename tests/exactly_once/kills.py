"""Attempts that end in the middle: the machine is lost, or Airflow kills the process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.simulator import ManualClock
from airflow_provider_cdm.tasks.journal import TaskStore
from tests.support.task_harness import TaskRunner


class Killed(BaseException):
    """Stands for the end of a process."""


def answer_nothing(*_: Any) -> NoReturn:
    """Stand for Airflow while it kills a task."""
    raise AssertionError("a look-up during a kill")


@dataclass
class Kills:
    """Runs an attempt that ends right after its first exchange whose URL has a certain end.

    The next attempt is a retry.

    :param answer: what happens to a look-up during a kill.
    """

    task_runner: TaskRunner
    monkeypatch: pytest.MonkeyPatch
    answer: Callable[..., Any] = answer_nothing

    def run_and_lose(self, make_operator: Callable[[], Any], url_end: str) -> None:
        """Run an attempt whose process ends without ``on_kill``, as when its machine is lost."""

        def lose() -> NoReturn:
            raise Killed

        self._run_and_end(make_operator, url_end, lose)

    def run_and_kill(
        self, operator: Any, url_end: str, before_kill: Callable[[], Any] = lambda: None
    ) -> None:
        """Run an attempt that Airflow kills; something may happen right before the kill."""

        def kill() -> NoReturn:
            before_kill()
            self.kill(operator)

        self._run_and_end(lambda: operator, url_end, kill)

    def kill(self, operator: Any) -> NoReturn:
        """Kill a task for good."""
        with suppress(errors.CdmKilled):
            self.signal(operator)
        raise Killed

    def signal(self, operator: Any) -> None:
        """Send a task the signal that it is killed, after which Airflow 3 lets it go on for some
        seconds; Airflow answers no look-ups while ``on_kill`` runs.
        """
        with self.monkeypatch.context() as silent:
            for name in ("read", "write", "delete"):
                silent.setattr(TaskStore, name, self.answer)
            operator.on_kill()

    def run_and_signal(self, operator: Any, when: Callable[[], bool], clock: ManualClock) -> None:
        """Run an attempt of Airflow 3 that gets the signal in a pause, once something is true."""
        signals: list[Any] = []

        def signal_once() -> None:
            if not signals and when():
                signals.append(operator)
                self.signal(operator)

        clock.subscribe(signal_once)
        try:
            with pytest.raises(errors.CdmKilled):
                self.task_runner.run(lambda: operator)
        finally:
            clock.unsubscribe(signal_once)
        assert signals

    def run_and_signal_after(
        self, operator: Any, url_end: str, when: Callable[[], bool] = lambda: True
    ) -> None:
        """The same, right after the first exchange whose URL has a certain end."""

        def signal() -> None:
            self.signal(operator)

        self._run_and_end(lambda: operator, url_end, signal, errors.CdmKilled, when)

    def _run_and_end(
        self,
        make_operator: Callable[[], Any],
        url_end: str,
        end: Callable[[], Any],
        ends_with: type[BaseException] = Killed,
        when: Callable[[], bool] = lambda: True,
    ) -> None:
        exchange = CdmSession._exchange
        ended: list[Any] = []

        def exchange_and_end(session: CdmSession, request: Any) -> Any:
            try:
                return exchange(session, request)
            finally:
                # A kill itself sends requests.
                if request.url.endswith(url_end) and not ended and when():
                    ended.append(request)
                    end()

        with self.monkeypatch.context() as patch:
            patch.setattr(CdmSession, "_exchange", exchange_and_end)
            with pytest.raises(ends_with):
                self.task_runner.run(make_operator)
        self.task_runner.retry()
