"""Processes on this machine: how to start, call and end them; and the simulator as a process."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TextIO

#: The source tree.
ROOT = Path(__file__).parents[1]


def start_process(stack: ExitStack, command: list[str], **options: Any) -> subprocess.Popen[str]:
    """Start a process that is ended, with all processes it started, when the stack is closed.

    :param options: options for :class:`subprocess.Popen`.
    """
    # In a session of its own, so that Ctrl-C does not reach it: it is ended when its turn comes.
    process = subprocess.Popen(command, text=True, start_new_session=True, **options)
    stack.callback(_end_session, process)
    return process


def _end_session(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def exit_on_signals() -> None:
    """Exit on SIGINT, SIGTERM and SIGHUP in a way that closes all exit stacks.

    Ctrl-C works then even if a shell has started this process with SIGINT ignored.
    """
    for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_number, lambda number, _: sys.exit(128 + number))


def wait_until(
    condition: Callable[[], bool], timeout: float, description: str, interval: float = 0.3
) -> None:
    """Wait until a condition holds.

    :param timeout: time limit in seconds.
    :param description: the condition in words, for the error.
    :param interval: pause between two checks in seconds.
    :raises TimeoutError: the condition did not hold within the time limit.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"Waited {timeout:.0f} s until {description}; it did not happen.")
        time.sleep(interval)


def free_ports(count: int) -> list[int]:
    """Return different ports of the loopback interface on which nothing listens."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def port_or_free_port(preferred: int) -> int:
    """Return the preferred port if nothing listens on it, otherwise any free port."""
    with socket.socket() as probe:
        # A connection that was closed a moment ago does not keep the port from being used.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            return free_ports(1)[0]
        return preferred


def request_json(
    url: str,
    body: Any = None,
    *,
    method: str | None = None,
    token: str = "",
    timeout: float = 10,
) -> Any:
    """Exchange JSON with an HTTP server on this machine; an answer without content is ``None``.

    :param method: by default GET, or POST if there is a body.
    :param token: bearer token.
    :param timeout: time limit in seconds.
    :raises urllib.error.HTTPError: the server answered with an error status.
    """
    headers = {} if body is None else {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    # A proxy that the environment names cannot reach this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=timeout) as response:
        text = response.read()
        return json.loads(text) if text else None


def airflow_environment(home: Path) -> dict[str, str]:
    """Return the environment for processes of an Airflow of its own.

    :param home: the folder for ``AIRFLOW_HOME``. No setting of another Airflow is passed on.
    """
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "_AIR"))}
    return inherited | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
    }


class Simulator:
    """The simulator of CDM and IAM in a process of its own.

    :param stack: ends the process when it is closed.
    :param config: configuration file in YAML; relative paths of databases start from its folder.
    :param log: file for the standard error of the process.
    """

    def __init__(self, stack: ExitStack, config: Path, log: TextIO | None = None) -> None:
        module = "airflow_provider_cdm.simulator"
        command = [sys.executable, "-m", module, "--port", "0", "--config", str(config)]
        process = start_process(stack, command, stdout=subprocess.PIPE, stderr=log)
        if process.stdout is None:
            raise RuntimeError("The standard output of the simulator is not a pipe.")
        address, connection = process.stdout.readline(), process.stdout.readline()
        if not connection:
            place = f"; see {log.name}" if log else ""
            raise SystemExit(f"The simulator did not start{place}.")
        #: URL of the simulator's page.
        self.url = address.split()[-1]
        #: Airflow connection to the simulator, as JSON.
        self.connection = shlex.split(connection)[1].partition("=")[2]

    def request(self, path: str, body: Any = None) -> Any:
        """Use one of the simulator's own controls, below ``/_sim/``."""
        return request_json(self.url + path, body, timeout=60)

    def runs(self) -> list[dict[str, Any]]:
        """Return all runs of the first cluster, the oldest first."""
        runs: list[dict[str, Any]] = self.request("/_sim/state")["clusters"][0]["runs"]
        return runs[::-1]
