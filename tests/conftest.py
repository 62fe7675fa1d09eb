"""Fixtures of all tests: a real Airflow, the simulator over HTTP, and virtual time."""

from __future__ import annotations

from tests.support.airflow_home import AIRFLOW_HOME

# isort: split
# Airflow reads its configuration when it is first imported, so the import above comes first.
import contextlib
import gc
import importlib
import json
import logging
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from airflow_provider_cdm.client.auth import factory
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.connection.reader import settings_from
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.support.connection import Conn
from tests.support.task_harness import FakeSupervisor, TaskRunner, has_task_state_store
from tests.support.virtual_time import VirtualTime

# Tests must not fail because a machine is slow.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

#: Modules with Airflow's secrets masker: in Airflow 3.1 and later, 3.0, and 2.11.
MASKER_MODULES = (
    "airflow.sdk._shared.secrets_masker",
    "airflow.sdk.execution_time.secrets_masker",
    "airflow.utils.log.secrets_masker",
)


def pytest_configure(config: pytest.Config) -> None:
    """Turn warnings of this package into errors, but not those of Airflow."""
    config.addinivalue_line("filterwarnings", r"error:::airflow_provider_cdm(\.|$)")


def pytest_collection_finish() -> None:
    """Take Airflow and the tests out of the search for garbage, which they will never be."""
    gc.freeze()


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """Create the metadata database, once; a process that was forked has that of its parent."""
    done = AIRFLOW_HOME / "migrated"
    if not done.exists():
        command = (sys.executable, "-m", "airflow", "db", "migrate")
        subprocess.run(command, check=True, capture_output=True)
        done.touch()


@pytest.fixture
def clock() -> ManualClock:
    """Return the clock of the test, for the simulator and the client alike."""
    return ManualClock()


@pytest.fixture
def config() -> dict[str, Any]:
    """Return the configuration of the simulator; a test module or ``parametrize`` replaces it."""
    return {}


@pytest.fixture
def sim(config: dict[str, Any], clock: ManualClock) -> Iterator[CdmSimulator]:
    """Start a fresh simulator on the clock of the test."""
    with CdmSimulator(config, clock=clock) as simulator:
        yield simulator


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Return the log of the test, from level INFO."""
    caplog.set_level(logging.INFO)
    return caplog


@pytest.fixture(autouse=True)
def forget_tokens() -> Iterator[None]:
    """Forget the tokens, which are kept per process, so that no test uses those of another."""
    factory.forget_everything()
    yield
    factory.forget_everything()
    # Airflow masks every token that the process ever saw with one regular expression, which would
    # grow with every test.
    for module in MASKER_MODULES:
        with contextlib.suppress(ImportError):
            masker = importlib.import_module(module)._secrets_masker()
            masker.patterns, masker.replacer = set(), None
            break


@pytest.fixture
def virtual_time(clock: ManualClock) -> VirtualTime:
    """Return sleep functions that take no real time."""
    return VirtualTime(clock)


@pytest.fixture
def make_session(
    sim: CdmSimulator, virtual_time: VirtualTime
) -> Iterator[Callable[..., CdmSession]]:
    """Make sessions with the simulator, in virtual time; ``extra`` changes the connection."""
    opened: list[CdmSession] = []

    def make(*, login: str = sim.user, password: str = sim.password, **extra: Any) -> CdmSession:
        fields = {**sim.connection_extra, **extra}
        connection = Conn(host=sim.url, login=login, password=password, extra=json.dumps(fields))
        opened.append(CdmSession(settings_from(connection), **virtual_time.options()))
        return opened[-1]

    yield make
    for session in opened:
        session.close()


@pytest.fixture
def cdm_default(
    sim: CdmSimulator, virtual_time: VirtualTime, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Let the connection ``cdm_default`` name the simulator, and let all waits be virtual."""
    monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", sim.connection_json)
    monkeypatch.setattr(CdmHook, "session_options", virtual_time.options())
    try:
        sensor_module = importlib.import_module("airflow.sdk.bases.sensor")
    except ImportError:
        sensor_module = importlib.import_module("airflow.sensors.base")
    now = virtual_time.options()["clock"]
    monkeypatch.setattr(
        sensor_module,
        "time",
        types.SimpleNamespace(sleep=virtual_time.sleep, monotonic=now),
    )
    return sim.connection


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> FakeSupervisor | None:
    """Replace the supervisor of tasks where Airflow keeps the journal there (3.0 to 3.2)."""
    if has_task_state_store():
        return None
    try:
        task_runner_module = importlib.import_module("airflow.sdk.execution_time.task_runner")
    except ImportError:
        return None
    fake = FakeSupervisor()
    monkeypatch.setattr(task_runner_module, "SUPERVISOR_COMMS", fake, raising=False)
    return fake


@pytest.fixture
def task_runner(
    cdm_default: dict[str, Any],
    clock: ManualClock,
    airflow_database: None,
    supervisor: FakeSupervisor | None,
) -> TaskRunner:
    """Return what runs the attempts of one task as Airflow does, in virtual time."""
    return TaskRunner(advance=clock.advance)


@pytest.fixture
def task_log(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    """Return the log of the task, which not every Airflow writes with the standard library."""
    from airflow_provider_cdm.operators.job_run import JobRunOperator

    monkeypatch.setattr(JobRunOperator, "log", logging.getLogger("tests.task"), raising=False)
    return log
