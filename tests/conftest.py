"""A real Airflow, a real HTTP server, and time that passes only when something waits."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

# Airflow reads its configuration at the first import, so this comes before all others.
AIRFLOW_HOME = Path(tempfile.mkdtemp(prefix="cdm-tests-"))
atexit.register(shutil.rmtree, AIRFLOW_HOME, ignore_errors=True)
os.environ |= {
    "AIRFLOW_HOME": str(AIRFLOW_HOME),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__CORE__DAGS_FOLDER": str(AIRFLOW_HOME / "dags"),
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{AIRFLOW_HOME}/airflow.db",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
}
for variable in ("AIRFLOW_CONN_CDM_DEFAULT", "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE"):
    os.environ.pop(variable, None)

import asyncio  # noqa: E402
import contextlib  # noqa: E402
import importlib  # noqa: E402
import json  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import types  # noqa: E402
import uuid  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from dataclasses import dataclass, field  # noqa: E402
from importlib.metadata import version  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from airflow_provider_cdm.client.auth import factory  # noqa: E402
from airflow_provider_cdm.client.session import CdmSession  # noqa: E402
from airflow_provider_cdm.connection.reader import settings_from  # noqa: E402
from airflow_provider_cdm.hooks import CdmHook  # noqa: E402
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock  # noqa: E402

# No test is about how fast a machine is.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    """Warnings out of this package are errors; those of Airflow are its own business."""
    config.addinivalue_line("filterwarnings", r"error:::airflow_provider_cdm(\.|$)")


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """Create the metadata database, once."""
    subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True
    )


def tell_of_assets(dag: Any) -> None:
    """Write the assets of a DAG to the database; from Airflow 3.1 on ``dag.test()`` does it."""
    if hasattr(dag, "sync_to_db"):  # Airflow 2
        dag.sync_to_db()
    elif version("apache-airflow").startswith("3.0."):
        kind = importlib.import_module("airflow.serialization.serialized_objects").SerializedDAG
        serialized = kind.deserialize_dag(kind.serialize_dag(dag))
        serialized.bulk_write_to_db(None, None, [serialized])


@pytest.fixture
def clock() -> ManualClock:
    """Time, for the simulator and the client alike."""
    return ManualClock()


@pytest.fixture
def sim(clock: ManualClock) -> Iterator[CdmSimulator]:
    """A fresh simulator that runs on the test's clock."""
    with CdmSimulator(clock=clock) as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def no_tokens() -> Iterator[None]:
    """Tokens are kept per process; no test inherits another's."""
    factory.forget_everything()
    yield
    factory.forget_everything()
    # Airflow masks every token ever seen in a process, with one regular expression of them all.
    for module in _MASKERS:
        with contextlib.suppress(ImportError):
            masker = importlib.import_module(module)._secrets_masker()
            masker.patterns, masker.replacer = set(), None
            break


#: Where the masker lives: Airflow 3.1 and later, 3.0, 2.11.
_MASKERS = (
    "airflow.sdk._shared.secrets_masker",
    "airflow.sdk.execution_time.secrets_masker",
    "airflow.utils.log.secrets_masker",
)


class VirtualTime:
    """Sleeping that moves the test's clock instead of taking time.

    :param slept: all pauses, in seconds.
    """

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Let some seconds pass at once."""
        self.slept.append(seconds)
        self._clock.advance(seconds)

    async def async_sleep(self, seconds: float) -> None:
        """The same on an event loop, which gets its turn."""
        self.sleep(seconds)
        await asyncio.sleep(0)

    def options(self) -> dict[str, Any]:
        """Arguments for a session; without jitter, so that pauses are predictable."""
        return {
            "clock": self._clock.now,
            "sleep": self.sleep,
            "async_sleep": self.async_sleep,
            "rng": lambda: 0.5,
        }


@pytest.fixture
def virtual_time(clock: ManualClock) -> VirtualTime:
    """Sleeping in no time."""
    return VirtualTime(clock)


@dataclass
class Conn:
    """An Airflow connection as far as settings need it."""

    conn_id: str = "cdm_default"
    conn_type: str = "huaweicloud_cdm"
    host: str | None = None
    schema: str | None = None
    login: str | None = None
    password: str | None = None
    port: int | None = None
    extra: str | None = None


@pytest.fixture
def make_session(
    sim: CdmSimulator, virtual_time: VirtualTime
) -> Iterator[Callable[..., CdmSession]]:
    """Make sessions against the simulator, in virtual time; ``extra`` changes the connection."""
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
    """The connection ``cdm_default`` leads to the simulator, and all waits take no time."""
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


class TaskStateStore:
    """The task state store of Airflow 3.3, as far as a task sees it."""

    def __init__(self) -> None:
        self.content: dict[str, str] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.content[key]) if key in self.content else default

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        self.content[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        self.content.pop(key, None)


class Supervisor:
    """What a task of Airflow 3.0 to 3.2 asks its supervisor for: Variables.

    :param broken: what to answer with to questions for a Variable.
    """

    def __init__(self) -> None:
        self.variables: dict[str, str] = {}
        self.broken: Exception | None = None

    def send(self, message: Any) -> Any:
        comms = importlib.import_module("airflow.sdk.execution_time.comms")
        if isinstance(message, comms.PutVariable):
            self.variables[message.key] = message.value
        elif isinstance(message, comms.DeleteVariable):
            self.variables.pop(message.key, None)
        elif isinstance(message, comms.GetVariable):
            if self.broken is not None:
                raise self.broken
            if message.key in self.variables:
                value = self.variables[message.key]
                return comms.VariableResult(key=message.key, value=value)
            kinds = importlib.import_module("airflow.sdk.exceptions").ErrorType
            return comms.ErrorResponse(error=kinds.VARIABLE_NOT_FOUND)
        return None


@dataclass
class TaskInstance:
    """What a task sees of its task instance."""

    task: Any = None
    dag_id: str = "a_dag"
    task_id: str = "a_task"
    run_id: str = field(default_factory=lambda: f"run_{uuid.uuid4()}")
    map_index: int = -1
    try_number: int = 1
    max_tries: int = 0
    xcoms: dict[str, Any] = field(default_factory=dict)

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = json.loads(json.dumps(value))

    def get_first_reschedule_date(self, context: Any) -> None:
        return None


@dataclass
class TaskLife:
    """Plays Airflow's part in the life of one task: new process, deferral, reschedule, resume.

    Everything that crosses a process boundary in Airflow goes through JSON here, and each process
    gets an operator of its own. The triggerer's side runs on an event loop of its own.

    :param deferrals: arguments of every trigger that the task deferred to.
    :param reschedules: how often the task gave its slot back.
    """

    advance: Callable[[float], None]
    ti: TaskInstance = field(default_factory=TaskInstance)
    store: TaskStateStore = field(default_factory=TaskStateStore)
    deferrals: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    reschedules: int = 0

    def run(self, make: Callable[[], Any]) -> Any:
        """Run one attempt to its end.

        :param make: makes the operator, as parsing the DAG does.
        """
        deferred, rescheduled = _airflow_signals()
        method = "execute"
        kwargs: dict[str, Any] = {}
        while True:
            operator = make()
            context = {"ti": self.ti, "task_instance": self.ti, "task": operator}
            if _has_state_store():
                context["task_state_store"] = self.store
            self.ti.task = operator
            try:
                if method == "execute":
                    return operator.execute(context)
                return operator.resume_execution(method, kwargs, context)
            except deferred as deferral:
                event = self._trigger(deferral.trigger)
                method, kwargs = deferral.method_name, {**(deferral.kwargs or {}), "event": event}
                kwargs = json.loads(json.dumps(kwargs))
            except rescheduled:
                self.reschedules += 1
                self.advance(operator.poke_interval)

    def _trigger(self, trigger: Any) -> dict[str, Any]:
        path, arguments = json.loads(json.dumps(trigger.serialize()))
        self.deferrals.append(arguments)
        module, name = path.rsplit(".", 1)
        revived = getattr(importlib.import_module(module), name)(**arguments)

        async def gather() -> list[Any]:
            return [event async for event in revived.run()]

        (event,) = asyncio.run(gather())
        self.events.append(json.loads(json.dumps(event.payload)))
        return self.events[-1]


def _airflow_signals() -> list[Any]:
    try:
        module = importlib.import_module("airflow.sdk.exceptions")
        return [module.TaskDeferred, module.AirflowRescheduleException]
    except (ImportError, AttributeError):
        module = importlib.import_module("airflow.exceptions")
        return [module.TaskDeferred, module.AirflowRescheduleException]


def _has_state_store() -> bool:
    try:
        module = importlib.import_module("airflow.sdk.execution_time.context")
    except ImportError:
        return False
    return hasattr(module, "TaskStateStoreAccessor")


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor | None:
    """The supervisor of tasks where Airflow has one and keeps the journal there."""
    if _has_state_store():
        return None
    try:
        runner = importlib.import_module("airflow.sdk.execution_time.task_runner")
    except ImportError:
        return None
    made = Supervisor()
    monkeypatch.setattr(runner, "SUPERVISOR_COMMS", made, raising=False)
    return made


@pytest.fixture
def task_life(
    cdm_default: dict[str, Any],
    clock: ManualClock,
    airflow_database: None,
    supervisor: Supervisor | None,
) -> TaskLife:
    """Airflow's part in the life of one task, in virtual time."""
    return TaskLife(advance=clock.advance)
