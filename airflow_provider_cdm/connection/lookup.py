"""How the connection is looked up: on a worker, and in the triggerer, where many share one."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from airflow_provider_cdm._compat import (
    AirflowNotFoundException,
    aget_connection,
    amask_secret,
    config_values,
    failed_lookup,
    ignore_underscore,
    mask_secret,
)
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.text import end_sentence
from airflow_provider_cdm.connection import CONFIG_SECTION
from airflow_provider_cdm.connection.fields import CONFIG_FIELDS, CONN_TYPE, CONN_TYPE_NAME
from airflow_provider_cdm.connection.reader import settings_from

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_cdm.client.settings import Settings

#: Seconds for which all triggers share one look-up of a connection. Airflow masks the secrets again
#: at each look-up, and for every such message its triggerer goes through all of its triggers.
_SHARED_SECONDS = 5.0
#: Seconds after which a look-up that has not ended is given up.
_LOOK_UP_SECONDS = 60.0


class _Lookup(NamedTuple):
    loop: asyncio.AbstractEventLoop
    began: float
    task: asyncio.Task[Settings]


_shared: dict[str, _Lookup] = {}


def read_settings(conn_id: str, get_connection: Callable[[str], Any]) -> Settings:
    """Read a connection.

    :param get_connection: Airflow's function for that.
    :raises CdmConfigError: when there is no such connection, or its fields cannot be used.
    :raises CdmUnavailable: when it could not be looked up.
    """
    ignore_underscore(CONN_TYPE)
    try:
        connection = get_connection(conn_id)
    except AirflowNotFoundException:
        raise _not_found(conn_id) from None
    settings = settings_from(connection, config_values(CONFIG_SECTION, CONFIG_FIELDS))
    if password := _proxy_password(settings):
        mask_secret(password)
    return settings


async def aread_settings(conn_id: str, *, fresh: bool = False) -> Settings:
    """Read a connection; callers at about the same time share one look-up.

    :param fresh: do not use a look-up that has ended: the connection may have changed since.
    """
    loop = asyncio.get_running_loop()
    recent = _shared.get(conn_id)
    if recent is None or recent.loop is not loop or not _can_share(recent, loop.time(), fresh):
        for name, old in list(_shared.items()):
            if old.loop.is_closed():  # its timer never comes
                _forget_lookup(name, old)
        recent = _Lookup(loop, loop.time(), loop.create_task(_look_up(conn_id)))
        _shared[conn_id] = recent
        # The secrets of a connection go when nobody uses it.
        forget = partial(loop.call_later, _SHARED_SECONDS, _forget_lookup, conn_id, recent)
        recent.task.add_done_callback(lambda _: forget())
    try:
        # The cancellation of one trigger must not cancel the look-up of the others.
        return await asyncio.shield(recent.task)
    except Exception:
        # The next trigger tries again: the connection may have been fixed.
        _forget_lookup(conn_id, recent)
        raise


def read_settings_from_thread(loop: asyncio.AbstractEventLoop, conn_id: str) -> Settings:
    """Read a connection again, by way of the event loop: Airflow's triggerer answers only there."""
    reading = aread_settings(conn_id, fresh=True)
    try:
        future = asyncio.run_coroutine_threadsafe(reading, loop)
    except RuntimeError:  # the event loop has ended
        reading.close()
        raise
    try:
        return future.result(_LOOK_UP_SECONDS)
    finally:
        future.cancel()


async def _look_up(conn_id: str) -> Settings:
    ignore_underscore(CONN_TYPE)
    try:
        connection = await aget_connection(conn_id)
    except AirflowNotFoundException:
        # The look-up blocks, but other triggers with this connection cannot go on either.
        raise await asyncio.to_thread(_not_found, conn_id) from None
    settings = settings_from(connection, config_values(CONFIG_SECTION, CONFIG_FIELDS))
    if password := _proxy_password(settings):
        await amask_secret(password)
    return settings


def _can_share(recent: _Lookup, now: float, fresh: bool) -> bool:
    if recent.task.done():
        return not fresh and now <= recent.began + _SHARED_SECONDS
    return now <= recent.began + _LOOK_UP_SECONDS


def _forget_lookup(conn_id: str, lookup: _Lookup) -> None:
    if _shared.get(conn_id) is lookup:
        del _shared[conn_id]


def _not_found(conn_id: str) -> errors.CdmError:
    """Return the error for a connection that Airflow did not find."""
    if reason := failed_lookup(conn_id):
        return errors.CdmUnavailable(
            f"{end_sentence(reason)} So connection {conn_id!r} could not be looked up. A retry of"
            " the task looks it up again."
        )
    return errors.CdmConfigError(
        f"There is no connection {conn_id!r}. Add it under Admin > Connections, with the type"
        f" {CONN_TYPE_NAME!r}, or pass the id of another one as cdm_conn_id."
    )


def _proxy_password(settings: Settings) -> str | None:
    """Return the password in the proxy's URL, which Airflow does not mask: it looks at fields."""
    return urlsplit(settings.proxy).password if settings.proxy else None
