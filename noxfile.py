"""All checks and tools of this project: ``nox --list`` lists them.

``nox -s NAME -- --help`` shows the options of a session that has some. ``scripts/test`` and
``scripts/demo`` install nox and uv first, for machines that have nothing but Python.

nox makes the environments of most sessions, keeps them, and installs into them again each time,
which takes a moment if nothing has changed. A test environment depends on the versions of Airflow
and Python that are asked for, so :func:`test_environment` makes it.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import nox
from nox.command import CommandFailed
from nox.virtualenv import UV

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"
nox.options.download_python = "never"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests", "lint", "docs"]
# An environment must still work after the clone has been moved.
os.environ |= {"UV_PYTHON_DOWNLOADS": "never", "UV_VENV_RELOCATABLE": "1"}

ROOT = Path(__file__).parent
AIRFLOW_3 = "apache-airflow==3.3.*"
#: Supported series of Airflow, and the Pythons that their release notes name, the preferred first.
PYTHONS = {
    "2.11": ("3.12", "3.11"),
    "3.0": ("3.11", "3.12"),
    "3.1": ("3.13", "3.12", "3.11"),
    "3.2": ("3.12", "3.11", "3.13"),
    "3.3": ("3.13", "3.12", "3.11"),
    "lowest": ("3.11", "3.12"),
}
#: Airflow has hardly any upper bounds, and older series do not work with today's FastAPI, pydantic
#: and others. So they get what was published before the next series, as in their constraints file.
EXCLUDE_NEWER = {
    "3.0": "2026-01-18T00:00:00Z",  # a day after common-compat 1.12
    "3.1": "2026-04-07T00:00:00Z",
    "3.2": "2026-07-06T00:00:00Z",
}
#: Tests that start a real Airflow, a deployment or a browser are skipped unless these are set.
SLOW_TESTS = ("CDM_SYSTEM", "CDM_DEPLOYMENT", "CDM_BROWSER")
#: Seconds that a process gets to end what it has started, after Ctrl-C and after SIGTERM.
TIME_TO_END: dict[str, float] = {"interrupt_timeout": 90, "terminate_timeout": 30}
#: Printed before the tests. The package must be the installed one, not that of the source tree.
DESCRIBE = """
from importlib.metadata import version
from pathlib import Path
import platform, airflow_provider_cdm
where = Path(airflow_provider_cdm.__file__).parent
assert where.parent.name == "site-packages", where
print(f"Testing {where}, with Airflow {version('apache-airflow')},", end=" ")
print(f"common-compat {version('apache-airflow-providers-common-compat')},", end=" ")
print(f"Python {platform.python_version()}", flush=True)
"""


@functools.cache
def uv_settings() -> dict[str, str]:
    """Return the certificate and the package index that pip is configured with, as uv reads them.

    What the environment already says to uv has priority.
    """
    command = [sys.executable, "-m", "pip", "config", "list"]
    listing = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    # pip lists its environment variables before its files, and the first must win.
    pip = dict(reversed(re.findall(r"^[^.\n]+\.(cert|index-url)='(.*)'$", listing, re.M)))
    names = {"cert": "SSL_CERT_FILE", "index-url": "UV_DEFAULT_INDEX"}
    return {names[key]: os.environ.get(names[key], value) for key, value in pip.items()}


def install(session: nox.Session, *packages: str) -> None:
    """Install packages into the environment of a session."""
    session.install(*packages, env=uv_settings())


def parser(session: str, description: str) -> argparse.ArgumentParser:
    """Return a parser for the options of a session."""
    return argparse.ArgumentParser(
        prog=f"nox -s {session} --",
        description=description,
        epilog="All other arguments are passed to pytest, for example: -k sensor -x",
        allow_abbrev=False,
    )


def find_python(*versions: str) -> str | None:
    """Return the path of the first of these Pythons that is installed and runs."""
    for version in versions:
        pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python3"))
        for program in (*map(str, pyenv), f"python{version}", sys.executable):
            # Run, not only found: pyenv has a command for every version, even if it is disabled.
            question = "import sys; print('%d.%d' % sys.version_info[:2], sys.executable)"
            try:
                answer = subprocess.check_output(
                    [program, "-c", question], text=True, stderr=subprocess.DEVNULL
                )
            except (OSError, subprocess.CalledProcessError):
                continue
            found, _, path = answer.strip().partition(" ")
            if found == version:
                return path
    return None


def pythons_for(airflow: str) -> Sequence[str]:
    """Return the Pythons for a series or a release of Airflow, the preferred first."""
    return PYTHONS.get(".".join(airflow.split(".")[:2]), PYTHONS["3.3"])


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A run of pytest on the built wheel.

    :param airflow: series or release of Airflow, or ``lowest`` for the lowest versions of all
        direct dependencies.
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
        began = time.monotonic()
        environment, python = self._environment(session)
        variables = dict(self.variables)
        if (peer := environment / "peer").is_dir():
            variables["CDM_PEER"] = str(peer)
        with tempfile.TemporaryDirectory(prefix="cdm-test-") as temporary:
            folder = Path(temporary)
            run_uv(session, "build", "--wheel", "--out-dir", temporary, str(ROOT))
            (wheel,) = map(str, folder.glob("*.whl"))
            options = ("--python", python, "--no-deps", "--reinstall")
            run_uv(session, "pip", "install", *options, wheel)
            for name in ("tests", "demo", "example_dags", "docs", "benchmarks"):
                shutil.copytree(ROOT / name, folder / name)
            for file in (ROOT / "pyproject.toml", *ROOT.glob("*.md")):
                shutil.copy(file, folder)
            with session.chdir(folder):
                keywords: dict[str, Any] = {"external": True, "stdout": output, "log": False}
                session.run(python, "-c", DESCRIBE, **keywords)
                session.log(f"Ready after {time.monotonic() - began:.0f} s")
                command = (python, "-m", "pytest", "-p", "no:cacheprovider", *self._workers)
                keywords |= {"env": variables, "stderr": output and subprocess.STDOUT}
                session.run(*command, *self.arguments, **keywords, **TIME_TO_END)

    @property
    def _workers(self) -> Sequence[str]:
        # Slow tests share what they start, and run their scenarios at the same time themselves.
        slow = any(self.variables.get(name) or os.environ.get(name) for name in SLOW_TESTS)
        return () if slow else ("-n", "auto", "--dist", "worksteal")

    def _environment(self, session: nox.Session) -> tuple[Path, str]:
        """Return a kept environment without the wheel, and the path of its Python."""
        versions = [self.python] if self.python else pythons_for(self.airflow)
        base = find_python(*versions) or (None if self.python else sys.executable)
        if base is None:
            session.error(f"Python {self.python} is not installed, or does not run")
        name = "-".join(filter(None, ("airflow", self.airflow, self.name)))
        return test_environment(session, name, base, self._requirements, peer=self.airflow[:2] == "2.")

    @property
    def _requirements(self) -> Sequence[str]:
        # The direct requirements of pyproject.toml: for uv, those of a wheel are not direct.
        project = ("--requirement", "pyproject.toml", "--extra", "simulator", "--extra", "openlineage")
        needed = (*project, "--group", "test", *self.packages)
        if self.airflow == "lowest":
            return ("--resolution", "lowest-direct", "--constraint", lowest_versions(), *needed)
        date = EXCLUDE_NEWER.get(".".join(self.airflow.split(".")[:2]))
        chosen = ("--exclude-newer", date) if date else ()
        return (*chosen, f"apache-airflow=={self.airflow}.*", *needed)


def lowest_versions() -> str:
    """Write a constraint ``name==1.2.*`` for each ``name>=1.2`` in pyproject.toml; return its path.

    Without it uv prefers a higher version of one package to an older version of another.
    """
    floors = re.findall(r'"([a-z-]+)>=([0-9.]+)"', (ROOT / "pyproject.toml").read_text())
    file = ROOT / ".nox" / "lowest.txt"
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(f"{name}=={version}.*\n" for name, version in floors))
    return str(file)


def test_environment(
    session: nox.Session, name: str, base: str, requirements: Sequence[str], *, peer: bool
) -> tuple[Path, str]:
    """Return a kept virtual environment and the path of its Python.

    It is made anew when pyproject.toml, the requirements or Python have changed, so that it holds
    exactly what users would get.

    :param base: path of the interpreter.
    :param peer: whether to add the package that docs/migrating.md compares with. It works with
        Airflow 2 only, and no other test may import it.
    """
    version = subprocess.check_output([base, "-VV"], text=True)
    folder = ROOT / ".nox" / f"{name}-py{'.'.join(version.split()[1].split('.')[:2])}"
    python = str(folder / "bin" / "python")
    stamp = "\n".join((version, *requirements, (ROOT / "pyproject.toml").read_text()))
    made_for = folder / "made-for.txt"
    if not made_for.exists() or made_for.read_text() != stamp or not Path(python).exists():
        session.log(f"Building {folder.relative_to(ROOT)}, which takes a minute or two")
        run_uv(session, "venv", "--clear", "--python", base, str(folder))
        to = ("--python", python)
        run_uv(session, "pip", "install", *to, "--compile-bytecode", *requirements)
        if peer:
            packages = ("apache-airflow-providers-huawei==1.7.0", "huaweicloudsdkiam")
            target = ("--target", str(folder / "peer"))
            run_uv(session, "pip", "install", *to, "--no-deps", *target, *packages)
        made_for.write_text(stamp)
    return folder, python


def run_uv(session: nox.Session, *command: str) -> None:
    """Run uv quietly; if it fails, its output is shown."""
    session.run_install(UV, *command, env=uv_settings(), external=True, silent=True)


def run_all(session: nox.Session, actions: Sequence[Callable[[], object]]) -> None:
    """Run all actions, and fail afterwards if one has failed."""
    failed = False
    for action in actions:
        try:
            action()
        except CommandFailed:
            failed = True
    if failed:
        session.error("Not all commands succeeded")


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Run the test suite on the built wheel, in an environment of its own."""
    options = parser("tests", "Runs the test suite on the built wheel; also scripts/test.")
    default = os.environ.get("AIRFLOW", "3.3")
    options.add_argument(
        "--airflow",
        default=default,
        metavar="VERSION",
        help=f"series or release of Airflow, such as 2.11, or lowest (default: $AIRFLOW or 3.3)",
    )
    options.add_argument(
        "--lowest",
        dest="airflow",
        action="store_const",
        const="lowest",
        help="the lowest versions of all direct dependencies that pyproject.toml allows",
    )
    options.add_argument(
        "--python", metavar="VERSION", help="such as 3.12 (default: the best that is installed)"
    )
    chosen, arguments = options.parse_known_args(session.posargs)
    Suite(airflow=chosen.airflow, python=chosen.python, arguments=arguments).run(session)


def system_tests(session: nox.Session, folder: str, description: str) -> None:
    """Run tests that start a real Airflow, for each series that is asked for."""
    options = parser(session.name, description)
    options.add_argument(
        "--airflow",
        action="append",
        metavar="VERSION",
        help="series of Airflow; may be repeated (default: 3.3 and 2.11)",
    )
    options.add_argument("--keep", action="store_true", help="keep Airflow's logs and databases")
    chosen, arguments = options.parse_known_args(session.posargs)
    variables = {"CDM_SYSTEM": "1"} | ({"CDM_SYSTEM_KEEP": "1"} if chosen.keep else {})
    suites = [
        Suite(airflow=airflow, arguments=[folder, *arguments], variables=variables)
        for airflow in chosen.airflow or ("3.3", "2.11")
    ]
    run_all(session, [functools.partial(suite.run, session) for suite in suites])


@nox.session(venv_backend="none")
def faults(session: nox.Session) -> None:
    """Kill the processes of a real Airflow at every step of a task; count runs and rows."""
    text = (
        "Starts a real Airflow (scheduler, triggerer, API server, workers; SQLite) and the"
        " simulator, kills task processes, supervisors and triggerers at many points, ends and"
        " clears tasks as users do, and then counts runs at the simulator and rows in the target."
        " About three minutes for each Airflow."
    )
    system_tests(session, "tests/system", text)


@nox.session(venv_backend="none")
def secrets(session: nox.Session) -> None:
    """Search everything that a real Airflow has written for credentials."""
    text = (
        "Starts a real Airflow that uses connections of every kind, with right and with wrong"
        " credentials, and searches its logs, database, output and files for them."
    )
    system_tests(session, "tests/secrets", text)


@nox.session(venv_backend="none")
def deployment(session: nox.Session) -> None:
    """Test Airflow on PostgreSQL, Redis and Celery, with two triggerers and two workers."""
    options = parser(
        "deployment",
        "Starts an Airflow 3.3 as it is deployed for many users: PostgreSQL, Redis, API server,"
        " scheduler, DAG processor, two triggerers, two Celery workers. Runs the example DAGs"
        " over the REST API, kills a worker and a triggerer during migrations, and runs two"
        " hundred migrations at once within CDM's quotas. About six minutes. Needs PostgreSQL and"
        " Redis of the distribution; as root, they are installed with apt-get.",
    )
    options.add_argument("--report", type=Path, help="file to write the table of results to")
    options.add_argument("--keep", action="store_true", help="keep the folder with logs and data")
    chosen, arguments = options.parse_known_args(session.posargs)
    install_servers(session)
    variables = {"CDM_DEPLOYMENT": "1"} | ({"CDM_DEPLOYMENT_KEEP": "1"} if chosen.keep else {})
    if chosen.report:
        variables["CDM_DEPLOYMENT_REPORT"] = str(Path(session.invoked_from, chosen.report))
    Suite(
        arguments=["tests/deployment", *arguments],
        name="deployment",
        # Celery 5.7 removed a name that the provider for Celery imports.
        packages=(
            *("apache-airflow-providers-celery", "celery[redis]<5.7"),
            *("psycopg2-binary", "asyncpg"),
        ),
        variables=variables,
    ).run(session)


def install_servers(session: nox.Session) -> None:
    """Install PostgreSQL and Redis if they are missing."""
    # Debian does not put PostgreSQL's server programs on the path.
    postgres = shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    programs = {"postgresql": postgres, "redis-server": shutil.which("redis-server")}
    missing = [package for package, program in programs.items() if not program]
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        session.error(f"On Debian and Ubuntu, first: sudo apt-get install {' '.join(missing)}")
    keywords: dict[str, Any] = {"external": True, "silent": True}
    keywords["env"] = {"DEBIAN_FRONTEND": "noninteractive"}
    session.run_install("apt-get", "update", **keywords)
    session.run_install(
        "apt-get", "install", "--yes", "--no-install-recommends", *missing, **keywords
    )


def find_chromium(session: nox.Session) -> str:
    """Return the path of the browser: $CHROMIUM, or one that is installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = [os.environ.get("CHROMIUM"), *map(shutil.which, names)]
    for path in filter(None, found):
        return path
    session.error("Chromium was not found; on Debian and Ubuntu: apt install chromium")


@nox.session(venv_backend="none")
def browser(session: nox.Session) -> None:
    """Test the simulator's page in headless Chromium."""
    Suite(
        arguments=["tests/browser", *session.posargs],
        name="browser",
        packages=("playwright>=1.50",),
        variables={"CDM_BROWSER": "1", "CHROMIUM": find_chromium(session)},
    ).run(session)


@nox.session(venv_backend="none")
def matrix(session: nox.Session) -> None:
    """Run the test suite on every supported pair of Airflow and Python."""
    options = parser(
        "matrix",
        "Runs the test suite for every pair of an Airflow series and a Python that go together, and"
        " with the lowest dependencies, and prints a table. Takes hours, and about 0.3 GB for each"
        " pair in .nox/. Pythons that are not installed are left out.",
    )
    options.add_argument(
        "--airflow", action="append", metavar="VERSION", help="only this series; may be repeated"
    )
    options.add_argument("--once", action="store_true", help="one Python for each series")
    chosen, arguments = options.parse_known_args(session.posargs)
    rows = [("Airflow", "Python", "result", "tests", "installed")]
    for airflow in chosen.airflow or PYTHONS:
        for python in pythons_for(airflow):
            if not find_python(python):
                rows.append((airflow, python, "not installed", "", ""))
                continue
            suite = Suite(airflow=airflow, python=python, arguments=["-q", *arguments])
            rows.append((airflow, python, *matrix_cells(session, suite)))
            if chosen.once:
                break
    for row in rows:
        print("{:<8} {:<7} {:<14} {:<60} {}".format(*row).rstrip())
    if any("FAILED" in row for row in rows):
        session.error("Some pairs failed")


def matrix_cells(session: nox.Session, suite: Suite) -> tuple[str, str, str]:
    """Run a suite; return its result, the summary of pytest, and what was installed."""
    file = ROOT / ".nox" / f"matrix-{suite.airflow}-py{suite.python}.log"
    file.parent.mkdir(exist_ok=True)
    result = "ok"
    with file.open("w+") as output:
        try:
            suite.run(session, output)
        except CommandFailed:
            result = "FAILED"
        output.seek(0)
        text = output.read()
    if result == "FAILED":
        print(*text.splitlines()[-15:], sep="\n")
    # The summary is not always the last line: Airflow 2 prints more when it ends.
    counts = re.findall(r"^=*\s*(\d+ \w+.* in [\d.]+s[^=\n]*)", text, re.M)
    versions = re.search(r"Airflow [\d.]+, common-compat [\d.]+", text)
    return result, counts[-1].strip() if counts else "none ran", versions[0] if versions else ""


@nox.session
def lint(session: nox.Session) -> None:
    """Check formatting, lint, types, and the order of imports between packages."""
    groups = ("--group", "test", "--group", "lint")
    install(session, AIRFLOW_3, "--editable", ".[simulator]", *groups)
    checks = (("ruff", "format", "--check"), ("ruff", "check"), ("mypy",), ("lint-imports",))
    run_all(session, [functools.partial(session.run, *check) for check in checks])


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into .docs/html; a warning is an error. --links checks all URLs."""
    options = argparse.ArgumentParser(prog="nox -s docs --", description=docs.__doc__)
    options.add_argument("--links", action="store_true", help="check URLs, which needs the internet")
    chosen = options.parse_args(session.posargs)
    install(session, "--editable", ".[simulator]", "--group", "docs")
    output = ROOT / ".docs"
    # The reference imports Airflow, which must not touch the user's own Airflow home.
    variables = {"AIRFLOW_HOME": str(output / "airflow"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    sphinx = ("sphinx-build", "--fail-on-warning", "--keep-going", "--quiet")
    for builder in ("html", *(["linkcheck"] if chosen.links else [])):
        folders = ("--doctree-dir", f"{output}/doctrees", "docs", f"{output}/{builder}")
        session.run(*sphinx, "--builder", builder, *folders, env=variables)
    session.log("The documentation is in .docs/html/index.html")


@nox.session
def demo(session: nox.Session) -> None:
    """Run the demo; also scripts/demo."""
    # Editable: the demo shows the code of this clone.
    install(session, AIRFLOW_3, "--editable", ".[simulator]")
    session.run("python", "-m", "demo", *session.posargs, **TIME_TO_END)


@nox.session
def screenshots(session: nox.Session) -> None:
    """Take the screenshots in docs/images with a real Airflow 3.3 and Chromium."""
    chromium = find_chromium(session)
    # Playwright drives the Chromium that is installed, and downloads none.
    install(session, AIRFLOW_3, "playwright>=1.50", "--editable", ".[simulator]")
    variables = {"CHROMIUM": chromium, "PYTHONPATH": str(ROOT)}
    command = ("python", "docs/screenshots/take.py", *session.posargs)
    session.run(*command, env=variables, **TIME_TO_END)


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Measure this provider, also against others; benchmarks/README.md describes the options."""
    others = [f"apache-airflow-providers-{n}" for n in ("huawei", "airbyte", "dbt-cloud", "apache-livy")]
    # Editable: what is measured is the code of this clone.
    install(session, AIRFLOW_3, *others, "matplotlib", "--editable", ".[simulator]")
    session.run("python", "-m", "benchmarks", *session.posargs, **TIME_TO_END)


@nox.session
def release(session: nox.Session) -> None:
    """Build sdist and wheel into dist/, or the folder given, and check them; publish nothing."""
    install(session, "build", "check-wheel-contents", "pyroma", "twine", "PyYAML")
    folder = Path(session.invoked_from, *(session.posargs or [ROOT / "dist"])).resolve()
    for old in folder.glob("airflow_provider_cdm-*"):
        old.unlink()
    # The wheel is built from the sdist.
    session.run("python", "-m", "build", "--outdir", str(folder), silent=True)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    session.run("twine", "check", "--strict", str(wheel), str(sdist))
    session.run("check-wheel-contents", str(wheel))
    with session.chdir(session.create_tmp()):
        # 10 needs an author's address and a home page, which do not exist before the first release.
        session.run("pyroma", "--min", "8", str(sdist))
    session.run("python", "scripts/provider_yaml.py", "--check")
    version = wheel.name.split("-")[1]
    changelog = (ROOT / "CHANGELOG.md").read_text()
    if not re.search(rf"^## \[({re.escape(version)}|Unreleased)\]", changelog, re.M):
        session.error(f"CHANGELOG.md has no section for {version}")
