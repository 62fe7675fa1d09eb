"""The only place that knows which Airflow is installed.

Everything else imports Airflow's names from here. Most come through the official compatibility
package, which resolves them for Airflow 2.11 and 3.x.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseHook,
    BaseOperator,
    BaseOperatorLink,
    BaseSensorOperator,
    PokeReturnValue,
    XCom,
    conf,
)
from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import (
        Connection as Connection,
    )
    from airflow.providers.common.compat.sdk import (
        Context as Context,
    )
    from airflow.providers.common.compat.sdk import (
        TaskInstanceKey as TaskInstanceKey,
    )

__all__ = [
    "AirflowException",
    "AirflowFailException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "BaseHook",
    "BaseOperator",
    "BaseOperatorLink",
    "BaseSensorOperator",
    "BaseTrigger",
    "PokeReturnValue",
    "TriggerEvent",
    "XCom",
    "aget_connection",
    "conf",
    "mask_secret",
]

# Where the masker lives: Airflow 3.1 and later, 3.0, 2.11.
_MASKERS = (
    "airflow.sdk.log",
    "airflow.sdk.execution_time.secrets_masker",
    "airflow.utils.log.secrets_masker",
)


def mask_secret(secret: str) -> None:
    """Tell Airflow's log masker a secret that it cannot know, such as a token got at run time."""
    for module in _MASKERS:
        with suppress(ImportError, AttributeError):
            import_module(module).mask_secret(secret)
            return


async def aget_connection(conn_id: str) -> Connection:
    """Look a connection up without blocking the event loop (or deadlocking it, before 3.3.2)."""
    from airflow.providers.common.compat.connection import get_async_connection

    connection: Any = await get_async_connection(conn_id)
    return connection  # type: ignore[no-any-return]  # typed loosely by older compat releases
