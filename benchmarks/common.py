"""What the benchmarks share: numbers, where results go, and the simulator in another process."""

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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from demo import processes

HERE = Path(__file__).parent
RESULTS = HERE / "results"
#: Calls of one kind that CDM documents per IAM user and minute.
QUOTA = 120


@dataclass
class Result:
    """What one benchmark found.

    :param name: of the benchmark.
    :param rows: what was measured, as plain data; the benchmark makes its table of it.
    :param facts: where and when; see :func:`circumstances`.
    """

    name: str
    rows: list[dict[str, Any]]
    facts: dict[str, Any] = field(default_factory=dict)

    def save(self) -> None:
        """Keep it, in place of an earlier one."""
        RESULTS.mkdir(exist_ok=True)
        content = {"facts": self.facts, "rows": self.rows}
        path = RESULTS / f"{self.name}.json"
        path.write_text(json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, name: str) -> Result | None:
        """What was kept, if anything."""
        path = RESULTS / f"{name}.json"
        if not path.exists():
            return None
        content = json.loads(path.read_text())
        return cls(name, content["rows"], content["facts"])


def prepare_airflow() -> None:
    """Give this process, and those that it starts, an Airflow of their own."""
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


def circumstances() -> dict[str, Any]:
    """Date, versions and machine, as far as they matter for figures."""
    names = ("airflow-provider-cdm", "apache-airflow", "requests", "httpx")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        **{name: version(name) for name in names},
        "cpus": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1),
    }


def median(values: Iterable[float]) -> float:
    """The middle one, to three digits."""
    return short(statistics.median(values))


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which a share of them lies, to three digits; NaN of nothing."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return short(ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)])


def short(value: float) -> float:
    """A number to three digits, as far as it has decimals."""
    return float(f"{value:.3g}") if abs(value) < 1000 else float(round(value))


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown; beside two columns, numbers stand on the right."""
    lines = [[_cell(cell) for cell in row] for row in rows]
    rule = ["---" if not i or len(heads) == 2 else "--:" for i in range(len(heads))]
    return "\n".join(f"| {' | '.join(line)} |" for line in [list(heads), rule, *lines])


def spread(quartiles: Sequence[float]) -> str:
    """Two quartiles, to be read."""
    return "{:g} to {:g}".format(*quartiles)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def verdict(met: bool) -> str:
    """Whether a goal was reached, to be read."""
    return "reached" if met else "**missed**"


def say(text: str) -> None:
    """Tell how it gets on."""
    print(f"{datetime.now(UTC):%H:%M:%S}  {text}", flush=True)


@dataclass
class Simulator:
    """The simulator in a process of its own.

    :param url: where it is.
    :param connection: an Airflow connection to it, as plain data.
    """

    url: str
    connection: dict[str, Any]

    def ask(self, path: str, body: Any = None) -> Any:
        """Use one of its own controls."""
        return processes.request_json(self.url + path, body, timeout=60)

    def routes(self) -> list[str]:
        """Which routes were called so far."""
        return [request["route"] for request in self.ask("/_sim/requests")]


@contextmanager
def simulator(config: dict[str, Any]) -> Iterator[Simulator]:
    """Start the simulator in another process, so that its work is not counted."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder, "simulator.yaml")
        path.write_text(json.dumps(config))  # JSON is YAML
        process = processes.Simulator(stack, path)
        yield Simulator(process.url, json.loads(process.connection))
