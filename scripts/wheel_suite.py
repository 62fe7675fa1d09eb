"""The test suite, run on the built wheel outside of the source tree; noxfile.py uses this."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from scripts.environments import (
    EXCLUDE_NEWER,
    ROOT,
    find_python,
    install_wheel,
    lowest_versions,
    pythons_for,
    run_uv,
    test_environment,
)

if TYPE_CHECKING:
    import nox

#: Tests that start a real Airflow, a deployment or a browser are skipped unless these are set.
SLOW_TESTS = ("CDM_SYSTEM", "CDM_DEPLOYMENT", "CDM_BROWSER")
#: Seconds that a process gets to end what it has started, after Ctrl-C and after SIGTERM.
TIME_TO_END: dict[str, Any] = {"interrupt_timeout": 90, "terminate_timeout": 30}
#: Printed before the tests. The package must be the installed one, not that of the source tree.
DESCRIBE = """
from importlib.metadata import version
from pathlib import Path
import platform, airflow_provider_cdm
package = Path(airflow_provider_cdm.__file__).parent
assert package.parent.name == "site-packages", package
print(f"Testing {package}, with Airflow {version('apache-airflow')},", end=" ")
print(f"common-compat {version('apache-airflow-providers-common-compat')},", end=" ")
print(f"Python {platform.python_version()}", flush=True)
"""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A run of pytest on the built wheel.

    :param airflow: series or release of Airflow, such as 3.4 or 3.4.0b2, or ``lowest`` for the
        lowest versions of all direct dependencies.
    :param python: version of Python; by default the preferred one that is installed.
    :param arguments: arguments for pytest.
    :param name: name of the additional packages, for the environment.
    :param packages: packages that these tests need in addition.
    :param variables: environment variables for pytest.
    """

    airflow: str = "3.3"
    python: str | None = None
    arguments: Sequence[str] = ()
    name: str = ""
    packages: Sequence[str] = ()
    variables: dict[str, str] = field(default_factory=dict)

    def run(self, session: nox.Session, output: IO[str] | None = None) -> None:
        """Build the wheel, install it, copy the tests out of the source tree and run them there.

        :param output: file for the output of the tests, instead of the terminal.
        """
        started_at = time.monotonic()
        environment, python = self._environment(session)
        variables = dict(self.variables)
        if (peer := environment / "peer").is_dir():
            variables["CDM_PEER"] = str(peer)
        with tempfile.TemporaryDirectory(prefix="cdm-test-") as temporary:
            folder = Path(temporary)
            run_uv(session, "build", "--wheel", "--out-dir", temporary, str(ROOT))
            (wheel,) = folder.glob("*.whl")
            install_wheel(session, wheel, environment, python)
            for name in ("tests", "demo", "example_dags", "docs", "benchmarks"):
                shutil.copytree(ROOT / name, folder / name)
            for file in (ROOT / "pyproject.toml", *ROOT.glob("*.md")):
                shutil.copy(file, folder)
            with session.chdir(folder):
                keywords: dict[str, Any] = {"external": True, "stdout": output, "log": False}
                session.run(python, "-c", DESCRIBE, **keywords)
                session.log(f"Ready after {time.monotonic() - started_at:.0f} s")
                command = (python, "-m", "pytest", "-p", "no:cacheprovider", *self._workers)
                keywords |= {"env": variables, "stderr": output and subprocess.STDOUT}
                session.run(*command, *self.arguments, **keywords, **TIME_TO_END)

    @property
    def _workers(self) -> Sequence[str]:
        # Slow tests share what they start, and run their scenarios at the same time themselves.
        slow = any(self.variables.get(name) or os.environ.get(name) for name in SLOW_TESTS)
        if slow:
            return ()
        # One more than there are cores: now and then a test waits.
        return ("-n", str((os.cpu_count() or 1) + 1), "--dist", "worksteal")

    def _environment(self, session: nox.Session) -> tuple[Path, str]:
        """Return a kept environment without the wheel, and the path of its Python."""
        versions = [self.python] if self.python else pythons_for(self.airflow)
        base = find_python(*versions) or (None if self.python else sys.executable)
        if base is None:
            session.error(f"Python {self.python} is not installed, or does not run")
        name = "-".join(filter(None, ("airflow", self.airflow, self.name)))
        # The other provider works with Airflow 2 only.
        peer = self.airflow.startswith("2.")
        return test_environment(session, name, base, self._requirements, peer=peer)

    @property
    def _requirements(self) -> Sequence[str]:
        # The direct requirements of pyproject.toml: for uv, those of a wheel are not direct.
        extras = ("--extra", "simulator", "--extra", "openlineage", "--group", "test")
        needed = ("--requirement", "pyproject.toml", *extras, *self.packages)
        if self.airflow == "lowest":
            return ("--resolution", "lowest-direct", "--constraint", lowest_versions(), *needed)
        date = EXCLUDE_NEWER.get(".".join(self.airflow.split(".")[:2]))
        chosen = ("--exclude-newer", date) if date else ()
        # uv takes a beta of a series that has no release yet, and no other one unless it is named.
        release = self.airflow if re.search("[a-z]", self.airflow) else f"{self.airflow}.*"
        return (*chosen, f"apache-airflow=={release}", *needed)
