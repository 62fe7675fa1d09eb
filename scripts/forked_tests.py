"""Runs tests in forks of a process that has imported everything but this package and its tests.

To import Airflow takes longer than most tests. A fork imports only what is ours, so it always tests
the files as they are at that moment.
"""

from __future__ import annotations

import ast
import functools
import gc
import importlib
import json
import math
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

_OURS = ("airflow_provider_cdm", "tests", "conftest")
#: Seconds of processor time after which tests of unchanged code count as hanging.
_PATIENCE = 900
#: How many times as long tests may take by the clock, since other processes may be busy.
_SLOWNESS = 20


@dataclass
class Calls:
    """Which tests call which functions of this package, and how long they take.

    A plugin of pytest.

    :param seconds: processor time of each test, by its node id.
    :param callers: node ids of the tests that call a function, by its file and first line.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    callers: dict[tuple[str, int], set[str]] = field(default_factory=dict)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Note what a test calls, in all threads."""
        called: set[CodeType] = set()

        def note(frame: FrameType, _event: str, _argument: Any) -> None:
            called.add(frame.f_code)

        began = time.process_time()
        threading.settrace(note)
        sys.settrace(note)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            self.seconds[item.nodeid] = time.process_time() - began
            for code in called:
                if _OURS[0] in code.co_filename:
                    key = (code.co_filename, code.co_firstlineno)
                    self.callers.setdefault(key, set()).add(item.nodeid)

    def tests_of(self, source: str, path: Path, line: int) -> Sequence[str]:
        """Return the tests that a change of a line may concern, the quickest first.

        These are all tests if the line is not in a function, since then it runs at import.

        :param source: the file without a change.
        """
        function = _function_at(source, line)
        tests = self.seconds if function is None else self.callers.get((str(path), function), ())
        return sorted(tests, key=self.seconds.__getitem__)


def _function_at(source: str, line: int) -> int | None:
    """Return the first line of the innermost function with a line in its body, if any."""
    first = None
    # The inner ones come after the outer ones.
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.body[0].lineno <= line <= (node.end_lineno or line):
            first = min(n.lineno for n in (node, *node.decorator_list))
    return first


@functools.cache
def observe(*tests: str) -> Calls:
    """Run tests once, to learn what they call, and import here what they import.

    :raises RuntimeError: when a test fails.
    """
    seen = _home() / "seen.json"
    calls = Calls()

    def run() -> int:
        code = _pytest(tests, calls)
        callers = [(*function, *names) for function, names in calls.callers.items()]
        seen.write_text(json.dumps([list(sys.modules), calls.seconds, callers]))
        return code

    succeeded, output = _fork(run, _PATIENCE)
    if not succeeded:
        raise RuntimeError(f"Tests fail without any change:\n{output}")
    imported, calls.seconds, callers = json.loads(seen.read_text())
    calls.callers = {(path, line): set(names) for path, line, *names in callers}
    for name in imported:
        if name.partition(".")[0] not in _OURS:
            # Some modules exist only under a name that no import finds.
            with suppress(ImportError):
                importlib.import_module(name)
    # pytest collects garbage at its end, and need not search what will never be garbage.
    gc.freeze()
    return calls


def succeed(tests: Sequence[str], timeout: float) -> tuple[bool, str]:
    """Run tests until one fails; return whether all succeeded, and what pytest printed.

    :param timeout: seconds of processor time after which they count as failed.
    """
    return _fork(lambda: _pytest(tests), timeout)


def _pytest(tests: Sequence[str], *plugins: object) -> int:
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests], plugins=plugins))


def _home() -> Path:
    return Path(os.environ["AIRFLOW_HOME"])


def _fork(work: Callable[[], int], timeout: float) -> tuple[bool, str]:
    """Do work in a fork; return whether it returned 0 in time, and what it printed."""
    output = _home() / "output.txt"
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return status == 0, output.read_text()
    code = 1
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(timeout),) * 2)
        signal.alarm(math.ceil(timeout * _SLOWNESS))
        with output.open("w") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        code = work()
        sys.stdout.flush()
    finally:
        # Without what this process has registered for its own end.
        os._exit(code)
