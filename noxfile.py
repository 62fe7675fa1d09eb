"""All checks and tools of this project: ``nox --list`` lists them.

``nox -s NAME -- --help`` shows the options of a session that has some. ``scripts/test`` and
``scripts/demo`` install nox and uv first, for machines that have nothing but Python.

nox makes the environments of most sessions, keeps them, and installs into them again each time,
which takes a moment if nothing has changed. A test environment depends on the versions of Airflow
and Python that are asked for, so ``scripts/environments.py`` makes it.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nox
from nox.command import CommandFailed

ROOT = Path(__file__).parent
# nox does not put the folder of this file on the path.
sys.path.insert(0, str(ROOT))

from scripts.environments import PYTHONS, find_python, install, pythons_for  # noqa: E402
from scripts.wheel_suite import TIME_TO_END, Suite  # noqa: E402

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"
nox.options.download_python = "never"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests", "lint", "docs"]
# An environment must still work after the clone has been moved.
os.environ |= {"UV_PYTHON_DOWNLOADS": "never", "UV_VENV_RELOCATABLE": "1"}

AIRFLOW_3 = "apache-airflow==3.3.*"
TRUTH_TABLE = "tests/system/test_truth_table.py"
IN_THE_TRIGGERER = ("tests/system/test_watched_run.py", "tests/system/test_trigger_start.py")


def parser(session: str, description: str) -> argparse.ArgumentParser:
    """Return a parser for the options of a session."""
    return argparse.ArgumentParser(
        prog=f"nox -s {session} --",
        description=description,
        epilog="All other arguments are passed to pytest, for example: -k sensor -x",
        allow_abbrev=False,
    )


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
        help="series or release of Airflow, such as 2.11, or lowest (default: $AIRFLOW or 3.3)",
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
    options.add_argument(
        "--long",
        dest="tests",
        action="store_const",
        const="long",
        help="the tests that take long, which are left out otherwise",
    )
    options.add_argument(
        "--all", dest="tests", action="store_const", const="long or not long", help="all tests"
    )
    chosen, arguments = options.parse_known_args(session.posargs)
    # Who names a test wants it, however long it takes.
    named = any(argument.startswith("tests/") for argument in arguments)
    tests = chosen.tests or ("long or not long" if named else "not long")
    arguments = ["-m", tests, *arguments]
    Suite(airflow=chosen.airflow, python=chosen.python, arguments=arguments).run(session)


def system_tests(
    session: nox.Session,
    description: str,
    *selection: str,
    series: Sequence[str] = ("3.3", "2.11"),
) -> None:
    """Run tests that start a real Airflow, for each series that is asked for."""
    options = parser(session.name, description)
    options.add_argument(
        "--airflow",
        action="append",
        metavar="VERSION",
        help=f"series of Airflow; may be repeated (default: {' and '.join(series)})",
    )
    options.add_argument("--keep", action="store_true", help="keep Airflow's logs and databases")
    chosen, arguments = options.parse_known_args(session.posargs)
    variables = {"CDM_SYSTEM": "1"} | ({"CDM_SYSTEM_KEEP": "1"} if chosen.keep else {})
    suites = [
        Suite(airflow=airflow, arguments=[*selection, *arguments], variables=variables)
        for airflow in chosen.airflow or series
    ]
    run_all(session, [functools.partial(suite.run, session) for suite in suites])


@nox.session(venv_backend="none")
def faults(session: nox.Session) -> None:
    """Kill the processes of a real Airflow at every step of a task; count runs and rows."""
    text = (
        "Starts a real Airflow (scheduler, triggerer, API server, workers; SQLite) and the"
        " simulator, kills task processes, supervisors and triggerers at many points, ends and"
        " clears tasks as users do, and then counts runs at the simulator and rows in the target."
        " About four minutes for each Airflow."
    )
    # The others have an Airflow of their own: together they overload Airflow 2.
    others = [f"--ignore={path}" for path in (TRUTH_TABLE, *IN_THE_TRIGGERER)]
    system_tests(session, text, "tests/system", *others)


@nox.session(venv_backend="none")
def truth_table(session: nox.Session) -> None:
    """Play the truth table of clears and retries on a real Airflow; count runs and rows."""
    text = (
        "Starts a real Airflow with all its processes and the simulator, ends, edits, clears and"
        " deletes DAG runs as users do, and compares the runs, the rows and the states of the tasks"
        " with the truth table in the documentation. About three minutes for each Airflow."
    )
    system_tests(session, text, TRUTH_TABLE)


@nox.session(venv_backend="none")
def triggerer(session: nox.Session) -> None:
    """Test what begins in the triggerer of a real Airflow: watchers of assets, and sensors."""
    text = (
        "Starts a real Airflow 3.3 and the simulator; watches runs that others start, while"
        " triggerers are killed, and lets sensors begin without a worker. About four minutes."
    )
    system_tests(session, text, *IN_THE_TRIGGERER, series=("3.3",))


def random_tests(session: nox.Session, module: str, variable: str, count: int) -> None:
    """Run a test module with more random examples than usual; the variable sets another number."""
    variables = {variable: os.environ.get(variable, str(count))}
    Suite(arguments=[module, *session.posargs], variables=variables).run(session)


@nox.session(venv_backend="none")
def model(session: nox.Session) -> None:
    """Play 50,000 random schedules against the model of CDM and Airflow; takes minutes."""
    module = "tests/client/jobs/test_start_model.py"
    random_tests(session, module, "CDM_MODEL_SCHEDULES", 50_000)


@nox.session(venv_backend="none")
def planner(session: nox.Session) -> None:
    """Play 5,000 random scenarios of waiting, of two kinds, in virtual time; takes an hour."""
    for module in ("test_planner.py", "test_invariants.py"):
        random_tests(session, f"tests/client/polling/{module}", "CDM_PLANNER_SCENARIOS", 5000)


@nox.session(venv_backend="none")
def fuzz(session: nox.Session) -> None:
    """Send 100,000 random answers to the client, and 5,000 random requests to the simulator."""
    variables = {"CDM_FUZZ_CASES": "100000", "CDM_SIMULATOR_REQUESTS": "5000"}
    chosen = {name: os.environ.get(name, number) for name, number in variables.items()}
    modules = ("client/test_fuzz.py", "hostile/test_any_bytes.py", "simulator/test_fuzz.py")
    paths = [f"tests/{module}" for module in modules]
    Suite(arguments=[*paths, *session.posargs], variables=chosen).run(session)


@nox.session(venv_backend="none")
def secrets(session: nox.Session) -> None:
    """Search everything that a real Airflow has written for credentials."""
    text = (
        "Starts a real Airflow that uses connections of every kind, with right and with wrong"
        " credentials, and searches its logs, database, output and files for them."
    )
    system_tests(session, text, "tests/secrets")


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
        arguments=["tests/deployment", "tests/simulator/test_postgresql.py", *arguments],
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
    paths = filter(None, [os.environ.get("CHROMIUM"), *map(shutil.which, names)])
    path = next(paths, None)
    if path is None:
        session.error("Chromium was not found; on Debian and Ubuntu: apt install chromium")
    return path


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
    counts = re.findall(r"^=*\s*(\d+ \w+.* in [\d.]+s[^=\n]*)", text, re.MULTILINE)
    versions = re.search(r"Airflow [\w.]+, common-compat [\d.]+", text)
    return result, counts[-1].strip() if counts else "none ran", versions[0] if versions else ""


@nox.session
def lint(session: nox.Session) -> None:
    """Check formatting, lint, types, and the order of imports between packages."""
    groups = ("--group", "test", "--group", "lint")
    install(session, AIRFLOW_3, "--editable", ".[simulator]", *groups)
    checks = (("ruff", "format", "--check"), ("ruff", "check"), ("mypy",), ("lint-imports",))
    run_all(session, [functools.partial(session.run, *check) for check in checks])


@nox.session
def mutation(session: nox.Session) -> None:
    """Change the modules that decide, and show what no test notices; takes half an hour.

    Arguments are parts of names of modules, such as ``own_run``.
    """
    # Only here: nothing else needs cosmic-ray, and what it needs.
    install(session, AIRFLOW_3, "cosmic-ray>=8.4", "--editable", ".[simulator]", "--group", "test")
    folder = session.create_tmp()
    session.run("python", "-m", "scripts.mutation", folder, *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into .docs/html; a warning is an error. --links checks all URLs."""
    options = argparse.ArgumentParser(prog="nox -s docs --", description=docs.__doc__)
    options.add_argument("--links", action="store_true", help="check URLs; needs the internet")
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
    names = ("huawei", "airbyte", "dbt-cloud", "apache-livy")
    others = [f"apache-airflow-providers-{name}" for name in names]
    # Editable: what is measured is the code of this clone.
    install(session, AIRFLOW_3, *others, "matplotlib", "--editable", ".[simulator]")
    session.run("python", "-m", "benchmarks", *session.posargs, **TIME_TO_END)


@nox.session
def release(session: nox.Session) -> None:
    """Build sdist and wheel into dist/, or the folder given, and check them; publish nothing."""
    install(session, "build", "check-wheel-contents", "pyroma", "twine", "PyYAML")
    folder = Path(session.invoked_from, *(session.posargs or [str(ROOT / "dist")])).resolve()
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
    if not re.search(rf"^## \[({re.escape(version)}|Unreleased)\]", changelog, re.MULTILINE):
        session.error(f"CHANGELOG.md has no section for {version}")
