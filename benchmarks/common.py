"""Helpers of the benchmarks: statistics, saved results, and the simulator in another process."""

from __future__ import annotations

import atexit
import base64
import json
import math
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from demo import processes

HERE = Path(__file__).parent
RESULTS = HERE / "results"
#: Calls of one kind per IAM user and minute that CDM documents.
QUOTA = 120


@dataclass
class Result:
    """The result of one benchmark.

    :param name: name of the benchmark.
    :param rows: measurements as plain data, from which the benchmark makes its tables.
    :param facts: where and when it was measured; see :func:`environment_facts`.
    """

    name: str
    rows: list[dict[str, Any]]
    facts: dict[str, Any] = field(default_factory=dict)

    def save(self) -> None:
        """Save the result, in place of an earlier one."""
        RESULTS.mkdir(exist_ok=True)
        content = {"facts": self.facts, "rows": self.rows}
        path = RESULTS / f"{self.name}.json"
        path.write_text(json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, name: str) -> Result | None:
        """Return the saved result of a benchmark; ``None`` if there is none."""
        path = RESULTS / f"{name}.json"
        if not path.exists():
            return None
        content = json.loads(path.read_text())
        return cls(name, content["rows"], content["facts"])


def prepare_airflow() -> None:
    """Give this process and those that it starts an Airflow home and configuration of their own."""
    home = tempfile.mkdtemp(prefix="cdm-benchmarks-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    for name in [name for name in os.environ if name.startswith(("AIRFLOW", "_AIRFLOW"))]:
        del os.environ[name]
    os.environ |= {
        "AIRFLOW_HOME": home,
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "NO_PROXY": "127.0.0.1",
    }


def environment_facts() -> dict[str, Any]:
    """Return the date, the versions and the machine, as far as they matter for the figures."""
    names = ("airflow-provider-cdm", "apache-airflow", "requests", "httpx")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        **{name: version(name) for name in names},
        "cpus": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1),
    }


def median(values: Iterable[float]) -> float:
    """Return the median to three digits."""
    return round_short(statistics.median(values))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of the values lies, to three digits; NaN for none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return round_short(ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)])


def round_short(value: float) -> float:
    """Round a number to three digits, but never more than to an integer."""
    return float(f"{value:.3g}") if abs(value) < 1000 else float(round(value))


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; with more than two columns, all but the first align right."""
    lines = [[_cell(cell) for cell in row] for row in rows]
    rule = ["---" if not i or len(heads) == 2 else "--:" for i in range(len(heads))]
    return "\n".join(f"| {' | '.join(line)} |" for line in [list(heads), rule, *lines])


def quartile_range(quartiles: Sequence[float]) -> str:
    """Return two quartiles as text."""
    return "{:g} to {:g}".format(*quartiles)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def verdict(met: bool) -> str:
    """Return whether a goal was reached, as text."""
    return "reached" if met else "**missed**"


def log(text: str) -> None:
    """Print a line about the progress."""
    print(f"{datetime.now(UTC):%H:%M:%S}  {text}", flush=True)


def in_a_fork(
    work: Callable[[], None], prepare: Callable[[], None] = lambda: None
) -> tuple[float, float] | None:
    """Return wall and CPU seconds of some work in a forked process; ``None`` if it fails.

    :param work: what to measure.
    :param prepare: what the forked process does before, which is not measured.
    """
    reader, writer = os.pipe()
    if not (child := os.fork()):
        try:
            prepare()
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            took = time.perf_counter() - wall, time.process_time() - cpu
            os.write(writer, json.dumps(took).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else None


@dataclass
class Simulator:
    """The simulator in a process of its own.

    :param url: its address.
    :param connection: Airflow connection to it, as plain data.
    """

    url: str
    connection: dict[str, Any]

    def control(self, path: str, body: Any = None) -> Any:
        """Call one of the simulator's control routes, and return the answer."""
        return processes.request_json(self.url + path, body, timeout=60)

    def routes(self) -> list[str]:
        """Return the routes of all calls so far."""
        return [request["route"] for request in self.control("/_sim/requests")]


@contextmanager
def simulator(config: dict[str, Any]) -> Iterator[Simulator]:
    """Start the simulator in another process, so that its CPU time and memory are not measured."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder, "simulator.yaml")
        path.write_text(json.dumps(config))  # JSON is YAML
        process = processes.Simulator(stack, path)
        yield Simulator(process.url, json.loads(process.connection))
