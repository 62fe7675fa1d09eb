"""The only place that knows which Airflow is installed.

Everything else imports Airflow's names from here. Most come through the official compatibility
package, which resolves them for Airflow 2.11 and 3.x.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol, cast

from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseHook,
    BaseOperator,
    BaseOperatorLink,
    BaseSensorOperator,
    PokeReturnValue,
    Variable,
    XCom,
    conf,
)
from airflow.triggers import base as triggers_base
from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow.providers.common.compat.sdk import (
        Connection as Connection,
    )
    from airflow.providers.common.compat.sdk import (
        Context as Context,
    )
    from airflow.providers.common.compat.sdk import (
        TaskInstanceKey as TaskInstanceKey,
    )
    from airflow.providers.common.compat.sdk import (
        XComArg as XComArg,
    )
    from airflow.sdk.bases.operator import BaseOperatorMeta

__all__ = [
    "ALL_CLEARS_ARE_COUNTED",
    "DEFERRAL_MARGIN",
    "FORM_HIDES_SECRETS",
    "FRAMES_COME_FIRST",
    "HAS_ASSET_STATE_STORE",
    "HAS_ASSET_WATCHERS",
    "HAS_PARTITIONS",
    "HAS_RETRY_POLICY",
    "KILLED_TASKS_GO_ON",
    "STARTS_FROM_TRIGGER",
    "START_MARGIN",
    "START_TIMEOUT",
    "TRIGGERS_HAVE_ON_KILL",
    "AirflowException",
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "AirflowTaskTimeout",
    "BaseEventTrigger",
    "BaseHook",
    "BaseOperator",
    "BaseOperatorLink",
    "BaseOperatorMeta",
    "BaseSensorOperator",
    "BaseTrigger",
    "PokeReturnValue",
    "RetryDecision",
    "RetryPolicy",
    "Store",
    "TriggerEvent",
    "VariableStore",
    "XCom",
    "aget_connection",
    "aget_task_state",
    "airflow_version",
    "amask_secret",
    "aread_asset_state",
    "asset_state_stores",
    "awrite_asset_state",
    "cli_config",
    "conf",
    "config_values",
    "delete_xcom",
    "failed_lookup",
    "ignore_underscore",
    "ignore_underscore_in_command",
    "is_asset",
    "is_from_mapped",
    "is_in_mapped_group",
    "is_reference",
    "kill_seconds",
    "lineage_is_active",
    "loop_iteration",
    "mask_secret",
    "on_kill_seconds",
    "operator_lineage",
    "read_stored_connections",
    "redact_secrets",
    "set_xcom",
    "start_trigger_args",
    "stats_client",
    "task_state_store",
    "template_environment",
    "token_cipher",
    "trigger_event",
]

if not TYPE_CHECKING:
    BaseOperatorMeta = type(BaseOperator)

_AIRFLOW_2 = find_spec("airflow.sdk") is None
_VERSION = tuple(map(int, airflow_version.split(".")[:2]))

#: Airflow 3.2 and later count all clears in ``DagRun.clear_number``, before only those of a DAG run
#: that had ended.
ALL_CLEARS_ARE_COUNTED = _VERSION >= (3, 2)
#: Seconds before ``execution_timeout`` at which a deferred wait ends. Airflow 2 ends a deferred
#: task at that instant with a less helpful error; Airflow 3 never does.
DEFERRAL_MARGIN = 15.0 if _AIRFLOW_2 else 0.0
#: The form of Airflow 2 shows no stored secrets, and its Test button tests what the form shows.
FORM_HIDES_SECRETS = _AIRFLOW_2
#: Airflow 2 prints the frames of a failure before its text; the page of Airflow 3 shows the text
#: first.
FRAMES_COME_FIRST = _AIRFLOW_2
#: Airflow 3.3 and later keep values for an asset, which its watchers can read and write.
HAS_ASSET_STATE_STORE = _VERSION >= (3, 3)
#: Airflow 3.0 and later run DAGs when triggers of an ``AssetWatcher`` fire.
HAS_ASSET_WATCHERS = hasattr(triggers_base, "BaseEventTrigger")
#: Airflow 3.3 and later know which partition of an asset an event is about.
HAS_PARTITIONS = _VERSION >= (3, 3)
#: Airflow 3.3 and later ask the task's retry policy what to do about a failure.
HAS_RETRY_POLICY = hasattr(BaseOperator, "retry_policy")
#: Airflow 3.3 and later render the templates of a task that starts in the triggerer.
STARTS_FROM_TRIGGER = _VERSION >= (3, 3)
#: Airflow 3.3 and later call ``Trigger.on_kill`` when a user ends a deferred task.
TRIGGERS_HAVE_ON_KILL = hasattr(BaseTrigger, "on_kill")
#: Airflow 3.4 and later discard the task state of a task that is cleared, unless the clear says
#: ``keep_task_state``.
_CLEARS_DISCARD_STATE = _VERSION >= (3, 4)

if TYPE_CHECKING or HAS_ASSET_WATCHERS:
    from airflow.triggers.base import BaseEventTrigger
else:
    BaseEventTrigger = BaseTrigger

if TYPE_CHECKING or HAS_RETRY_POLICY:
    from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
else:
    RetryDecision, RetryPolicy = None, object


def is_from_mapped(task: BaseOperator) -> bool:
    """Return whether a task is one of a mapped task, so that its arguments are resolved values."""
    return bool(getattr(task, "_BaseOperator__from_mapped", False))


def is_reference(value: Any) -> bool:
    """Return whether an argument is the output of another task, known only when the task runs."""
    return hasattr(value, "iter_references")


# Where the masker lives: Airflow 3.1 and later, 3.0, 2.11.
_MASKERS = (
    "airflow.sdk.log",
    "airflow.sdk.execution_time.secrets_masker",
    "airflow.utils.log.secrets_masker",
)


def mask_secret(secret: str | list[str]) -> None:
    """Have Airflow mask secrets in logs that it cannot know, such as a token."""
    for module in _MASKERS:
        with suppress(ImportError, AttributeError):
            import_module(module).mask_secret(secret)
            return


async def amask_secret(secret: str | list[str]) -> None:
    """Mask secrets in logs, without blocking the event loop."""
    from asgiref.sync import sync_to_async

    try:
        from airflow.sdk.log import amask_secret as amask
    except ImportError:  # below Airflow 3.3
        await sync_to_async(mask_secret)(secret)
    else:
        value: Any = secret
        await amask(value)


def config_values(section: str, names: Iterable[str]) -> dict[str, str]:
    """Return the options of a section of ``airflow.cfg`` that are set."""
    values = {name: conf.get(section, name, fallback=None) for name in names}
    return {name: str(value) for name, value in values.items() if value not in (None, "")}


def read_stored_connections() -> None:
    """Let this process find connections in Airflow's database, as Airflow's own commands do."""
    # Airflow 3 looks there only in processes that say so; ``airflow connections test`` does it too.
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"


def cli_config() -> Any:
    """Return the module of the classes in which Airflow declares its commands."""
    from airflow.cli import cli_config as module

    return module


def redact_secrets(values: Mapping[str, str]) -> dict[str, str]:
    """Return values with ``***`` for what Airflow's logs mask: secrets that it knows, and values
    whose name says that they are secret.
    """
    from airflow.providers.common.compat.sdk import redact

    redacted: Any = redact(dict(values))
    return {name: str(value) for name, value in redacted.items()}


#: Modules with Airflow's statistics (3.2 and later): of a task's process, and of its servers. The
#: triggerer sets up the second one, and the first one only by chance.
_STATS_MODULES = (
    "airflow.sdk._shared.observability.metrics.stats",
    "airflow._shared.observability.metrics.stats",
)


def stats_client() -> Any:
    """Return what sends metrics in this process: an object with ``incr``, ``gauge``, ``timing``."""
    for name in _STATS_MODULES:
        module = sys.modules.get(name)
        if getattr(module, "_factory", None) is not None:
            return module
        # Airflow 3.2 keeps it in a class, and sends nothing if that is used before it is set up.
        stats = getattr(module, "Stats", None)
        factory = getattr(stats, "factory", None)
        if factory is not None and getattr(factory, "__name__", "") != "NoStatsLogger":
            return stats
    from airflow.providers.common.compat.sdk import Stats

    return Stats


def token_cipher() -> Any:
    """Return what encrypts with Airflow's Fernet key; ``None`` if no key is set."""
    from airflow.models.crypto import get_fernet

    fernet = get_fernet()
    return fernet if fernet.is_encrypted else None


@dataclass(frozen=True)
class _UnderscoreFilter:
    conn_type: str

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log a record of Airflow's model of connections."""
        return record.args != (self.conn_type,)


def ignore_underscore(conn_type: str) -> None:
    """Keep Airflow 2.11 to 3.1 from warning that a connection type contains an underscore.

    They do so at each look-up, in the log of the task, and users cannot change the type.
    """
    for name in ("airflow.models.connection.Connection", "airflow.sdk.definitions.connection"):
        logging.getLogger(name).addFilter(_UnderscoreFilter(conn_type))


def ignore_underscore_in_command(conn_type: str) -> None:
    """Keep Airflow 3.2 and later from printing the same warning in the process of a command.

    There they log with structlog, which has no filters: the settings of the whole process change.
    """
    try:
        import structlog
    except ImportError:  # Airflow 2
        return
    if not structlog.is_configured():  # Airflow 3.0 and 3.1
        return

    def drop(_logger: Any, _name: str, event: Any) -> Any:
        text = str(event.get("event"))
        if "RFC3986" in text and f"(type: {conn_type})" in text:
            raise structlog.DropEvent
        return event

    structlog.configure(processors=[drop, *structlog.get_config()["processors"]])


async def aget_connection(conn_id: str) -> Connection:
    """Read a connection without blocking the event loop (or deadlocking it, before 3.3.2)."""
    from airflow.providers.common.compat.connection import get_async_connection

    connection: Any = await get_async_connection(conn_id)
    return connection  # type: ignore[no-any-return]  # typed loosely by older compat releases


def failed_lookup(conn_id: str) -> str | None:
    """Return why a connection may exist although Airflow did not find it; ``None`` if it does not.

    Airflow takes every failed look-up for a missing connection: an unreachable database or vault,
    and an API server that answers 500.
    """
    for backend in _secrets_backends():
        try:
            if "ExecutionAPI" in type(backend).__name__:
                _ensure_supervisor_answers(conn_id)
            else:
                backend.get_connection(conn_id=conn_id)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return None


def _secrets_backends() -> Any:
    try:
        from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded
    except ImportError:  # Airflow 2
        from airflow.configuration import ensure_secrets_loaded

        return ensure_secrets_loaded()
    return ensure_secrets_backend_loaded()


def _ensure_supervisor_answers(conn_id: str) -> None:
    from airflow.sdk.exceptions import ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse, GetConnection
    from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

    answer: Any = SUPERVISOR_COMMS.send(GetConnection(conn_id=conn_id))
    if isinstance(answer, ErrorResponse) and answer.error != ErrorType.CONNECTION_NOT_FOUND:
        raise AirflowException(f"{answer.error.value}: {answer.detail}")


class Store(Protocol):
    """Text by key, in a place that outlives the process of the task."""

    def get(self, key: str) -> Any:
        """Return the text, or ``None``."""

    def set(self, key: str, value: str) -> None:
        """Write or replace the text."""

    def delete(self, key: str) -> None:
        """Delete the text, if there is one."""


def task_state_store(context: Context) -> Store | None:
    """Return the task state store of Airflow 3.3, or ``None`` for other versions.

    Later ones have it, too, but a clear discards what it holds, and so whether a run of the task
    may still be active.
    """
    store: Store | None = context.get("task_state_store")
    return None if _CLEARS_DISCARD_STATE else store


def loop_iteration(context: Context) -> int | None:
    """Return the iteration of the loop that a task instance belongs to, from 0; ``None`` outside of
    loops. The iterations share DAG, task, run and map index (Airflow 3.4 and later).
    """
    loop: Any = cast("Any", context).get("loop")
    return None if loop is None else int(loop.index)


class VariableStore:
    """Airflow Variables as a store, for the versions without a task state store that lasts."""

    def get(self, key: str) -> Any:
        """Return the text, or ``None`` only if the variable does not exist.

        ``Variable.get`` treats most failures as a missing variable: an unreachable database, a
        wrong encryption key, an API server that answers 500. A journal must not.
        """
        try:
            from airflow.sdk.execution_time.comms import GetVariable
        except ImportError:
            return _variable_in_database(key)
        return _variable_of_supervisor(GetVariable(key=key))

    def set(self, key: str, value: str) -> None:
        """Write or replace the text."""
        Variable.set(key, value)

    def delete(self, key: str) -> None:
        """Delete the text, if there is one."""
        Variable.delete(key)


def _variable_of_supervisor(wanted: Any) -> Any:
    from airflow.sdk.exceptions import ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse
    from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

    if not hasattr(SUPERVISOR_COMMS, "send"):  # Airflow 3.0, whose own look-up is right
        return Variable.get(wanted.key, default=None)
    answer: Any = SUPERVISOR_COMMS.send(wanted)
    if not isinstance(answer, ErrorResponse):
        return answer.value
    if answer.error == ErrorType.VARIABLE_NOT_FOUND:
        return None
    raise AirflowException(f"{answer.error.value}: {answer.detail}")


def _variable_in_database(key: str) -> Any:
    from airflow.models.variable import Variable as Row
    from airflow.utils.session import create_session

    with create_session() as session:
        row = session.query(Row).filter_by(key=key).one_or_none()
        if row is None:
            return None
        if row.val is None:
            raise AirflowException(f"Variable {key} cannot be decrypted with this fernet_key")
        return row.val


class _ShortEvent(TriggerEvent):
    """An event of Airflow 2 that is written to logs in a few words."""

    def __init__(self, payload: Any, text: str) -> None:
        super().__init__(payload)  # type: ignore[no-untyped-call]  # Airflow's events are untyped
        self._text = text

    def __repr__(self) -> str:
        return self._text


def trigger_event(payload: Any, text: str) -> TriggerEvent:
    """Return the event of a trigger.

    :param text: the event in a few words. Airflow 2 writes each event into the log of its task, and
        shows a line in red that contains the word "error", as a payload without an error does.
    """
    if _AIRFLOW_2:
        return _ShortEvent(payload, text)
    return TriggerEvent(payload)  # type: ignore[no-untyped-call]  # as above


def asset_state_stores(trigger: BaseTrigger) -> list[Any]:
    """Return the state store of each asset that a trigger watches; none below Airflow 3.3."""
    accessors = getattr(trigger, "asset_state_store", None)
    if accessors is None:
        return []
    # The accessors together refuse to work for several assets, and do not say which these are.
    each = [getattr(accessors, name, {}) for name in ("_by_name", "_by_uri")]
    return [store for stores in each for store in stores.values()] or [accessors]


async def aread_asset_state(store: Any, key: str) -> Any:
    """Return a value from the state store of an asset; ``None`` if there is none."""
    if hasattr(store, "aget"):  # Airflow 3.3.2 and later
        return await store.aget(key)
    from asgiref.sync import sync_to_async

    return await sync_to_async(store.get)(key)


async def awrite_asset_state(store: Any, key: str, value: Any) -> None:
    """Write or replace a value in the state store of an asset."""
    if hasattr(store, "aset"):
        await store.aset(key, value)
        return
    from asgiref.sync import sync_to_async

    await sync_to_async(store.set)(key, value)


#: Seconds before ``execution_timeout`` at which a wait ends that began in the triggerer: there all
#: versions of Airflow end it at that instant themselves.
START_MARGIN = 15.0

#: Seconds after which Airflow ends a wait that began in the triggerer. Airflow tells a trigger this
#: instant, and not when the attempt began, which follows from it.
START_TIMEOUT = 366 * 86_400.0


def start_trigger_args(name: str, arguments: Mapping[str, Any], next_method: str) -> Any:
    """Return what makes the scheduler defer a task instead of queueing it.

    :param name: class of the trigger in the package of triggers.
    :param arguments: of the trigger, as plain JSON, with templates.
    :param next_method: method of the task that goes on with the event.
    """
    from datetime import timedelta

    from airflow.triggers.base import StartTriggerArgs

    return StartTriggerArgs(
        trigger_cls=f"airflow_provider_cdm.triggers.{name}",
        next_method=next_method,
        trigger_kwargs=dict(arguments),
        timeout=timedelta(seconds=START_TIMEOUT),
    )


def template_environment() -> Any:
    """Return an environment for templates in the triggerer: with Airflow's filters, and without
    what the DAG adds to them, which Airflow does not store.
    """
    import jinja2
    from airflow.sdk.definitions._internal.templater import SandboxedEnvironment

    environment: Any = SandboxedEnvironment
    return environment(undefined=jinja2.StrictUndefined, cache_size=0)


def is_in_mapped_group(task: BaseOperator) -> bool:
    """Return whether a task belongs to a task group that is mapped."""
    return task.get_closest_mapped_task_group() is not None


def set_xcom(ti: Any, key: str, value: str) -> None:
    """Write an XCom of a task instance from the triggerer (Airflow 3), whose own method lacks what
    the triggerer does not know of the task.
    """
    store: Any = XCom
    place = {"task_id": ti.task_id, "dag_id": ti.dag_id, "run_id": ti.run_id}
    store.set(key=key, value=value, map_index=ti.map_index, **place)


def delete_xcom(ti: Any, key: str) -> None:
    """Delete an XCom of a task instance, if there is one (Airflow 3)."""
    store: Any = XCom
    store.delete(
        key=key, task_id=ti.task_id, dag_id=ti.dag_id, run_id=ti.run_id, map_index=ti.map_index
    )


#: Whether a task goes on after ``on_kill`` until it is killed for good: for five seconds in Airflow
#: 3.0 to 3.3, for ``[core] killed_task_cleanup_time`` from 3.4 on. Airflow 2 raises an error in it.
KILLED_TASKS_GO_ON = not _AIRFLOW_2
#: Seconds from SIGTERM to SIGKILL in Airflow 3, which no option changes below 3.4; from then on the
#: same after failed heartbeats, and longer after a clear.
_ESCALATION_SECONDS = 5
#: Seconds of a kill that are left for the rest of the task.
_KILL_RESERVE = 10.0


def kill_seconds() -> float:
    """Return the seconds that ``on_kill`` of a task may take on a worker, at present.

    Airflow 3 kills the process for good five seconds after its signal (3.4 at times later), Airflow
    2 after ``[core] killed_task_cleanup_time``. After ``execution_timeout`` neither does.
    """
    after_signal = _ESCALATION_SECONDS - 1.0
    if _AIRFLOW_2:
        cleanup = conf.getfloat("core", "killed_task_cleanup_time", fallback=60.0)
        after_signal = max(after_signal, min(60.0, cleanup) - _KILL_RESERVE)
    # The exception that is being handled where on_kill is called.
    if any(cls.__name__ == "AirflowTaskTimeout" for cls in type(sys.exc_info()[1]).__mro__):
        return max(after_signal, 60.0)
    return after_signal


def on_kill_seconds() -> float:
    """Return the seconds for which the triggerer waits for ``on_kill``.

    Below Airflow 3.3 a trigger is canceled instead, and has any time to end.
    """
    return float(conf.getfloat("triggerer", "on_kill_timeout", fallback=30.0))


async def aget_task_state(ti: Any) -> str | None:
    """Return the present state of a trigger's task instance; ``None`` after a clear."""
    from asgiref.sync import sync_to_async

    try:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    except ImportError:
        return await sync_to_async(_task_state_in_database)(ti)
    states = await sync_to_async(RuntimeTaskInstance.get_task_states)(
        dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
    )
    found = states.get(ti.run_id, {})
    # Mapped task instances are listed by task and index.
    state = found.get(ti.task_id, found.get(f"{ti.task_id}_{ti.map_index}"))
    return None if state is None else str(getattr(state, "value", state))


def _task_state_in_database(ti: Any) -> str | None:
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    with create_session() as session:
        state: str | None = (
            session.query(TaskInstance.state)
            .filter_by(
                dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=ti.map_index
            )
            .scalar()
        )
    return None if state is None else str(state)


def is_asset(outlet: Any) -> bool:
    """Return whether an outlet is an asset (in Airflow 2, a dataset) or a reference to one."""
    from airflow.providers.common.compat.sdk import Asset

    try:
        from airflow.sdk.definitions.asset import AssetRef
    except ImportError:
        return isinstance(outlet, Asset)
    return isinstance(outlet, Asset | AssetRef)


def lineage_is_active() -> bool:
    """Return whether the OpenLineage provider is installed, configured and not disabled; only then
    has Airflow loaded its listener.
    """
    return "airflow.providers.openlineage.plugins.listener" in sys.modules


def operator_lineage(**parts: Any) -> Any:
    """Return an ``OperatorLineage``; the OpenLineage provider has to be installed."""
    from airflow.providers.openlineage.extractors import OperatorLineage

    return OperatorLineage(**parts)
