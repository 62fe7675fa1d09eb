"""Where a watcher keeps its position: with its assets, where Airflow has a place for that."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Sequence
from typing import Any

from airflow_provider_cdm._compat import aread_asset_state, awrite_asset_state
from airflow_provider_cdm.client.sansio import pause
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.client.watching.position import WatchPosition

log = logging.getLogger(__name__)

#: Seconds from an event until the position after it is written. Airflow's triggerer stores events
#: about once a second, and does not say when; a position that is written earlier could survive an
#: event that does not.
EVENT_SECONDS = 10.0


class PositionKeeper:
    """Reads and writes the position of one watcher, in the state stores of all of its assets.

    :param stores: these stores; none below Airflow 3.3, so that the position is in memory only.
    :param cluster_id: cluster of the job.
    :param job_name: name of the job.
    :param identity: what else makes it this watcher and no other; plain JSON.
    """

    def __init__(
        self, stores: Sequence[Any], cluster_id: str, job_name: str, identity: Sequence[Any]
    ) -> None:
        self.cluster_id = cluster_id
        self._job_name = job_name
        self._stores = stores
        parts = json.dumps([cluster_id, job_name, *identity])
        self._key = f"cdm_runs_{hashlib.sha256(parts.encode()).hexdigest()[:32]}"
        self._next: WatchPosition | None = None
        self._writing: asyncio.Task[None] | None = None

    async def read(self) -> WatchPosition | None:
        """Return the stored position; ``None`` if there is none.

        An asset may have been added to the watcher, or away from it, for some time. So the position
        that was written last counts.

        :raises Exception: when a store cannot be read: that must not be taken for a new watcher.
        """
        newest: tuple[float, WatchPosition] | None = None
        for store in self._stores:
            value = await aread_asset_state(store, self._key)
            if value is None:
                continue
            try:
                position = WatchPosition.from_payload(value, self.cluster_id, self._job_name)
                written_at = float(value.get("written_at") or 0.0)
            except (ValueError, TypeError) as problem:
                log.warning(
                    "The position in the runs of job %r that is stored as %s cannot be used, so the"
                    " watcher begins anew: %s",
                    *(self._job_name, self._key, problem),
                )
                continue
            if newest is None or written_at > newest[0]:
                newest = written_at, position
        return newest[1] if newest else None

    async def write(self, session: CdmSession, position: WatchPosition) -> None:
        """Write a position now, unless a later one is already to be written."""
        if self._next is None and (self._writing is None or self._writing.done()):
            await self._write(session, position)
        else:
            self._next = position

    def write_after_events(self, session: CdmSession, position: WatchPosition) -> None:
        """Write a position once Airflow must have stored the events before it."""
        if not self._stores:
            return
        self._next = position
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write_next(session))

    def close(self) -> None:
        """Write nothing any more: what is not written is fired once more later."""
        if self._writing is not None:
            self._writing.cancel()

    async def _write_next(self, session: CdmSession) -> None:
        while (position := self._next) is not None:
            self._next = None
            await session.arun(pause(EVENT_SECONDS))
            await self._write(session, position)

    async def _write(self, session: CdmSession, position: WatchPosition) -> None:
        value = {
            **position.to_payload(),
            "job_name": self._job_name,
            "written_at": session.clock(),
        }
        for store in self._stores:
            try:
                await awrite_asset_state(store, self._key, value)
            except Exception as error:
                log.warning(
                    "The position in the runs of job %r cannot be stored, so a restart of the"
                    " triggerer may fire events once more: %s",
                    *(self._job_name, error),
                )
