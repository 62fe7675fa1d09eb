"""Watches one job in the triggerer, with the poller that also serves all waits of its cluster.

A watcher never ends by itself: Airflow would start it again at once, and again. Whatever goes wrong
is logged, and tried again after some time.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm._compat import HAS_ASSET_STATE_STORE
from airflow_provider_cdm.client import arguments, errors
from airflow_provider_cdm.client.sansio import pause
from airflow_provider_cdm.client.session import CdmSession, sleep_without_session
from airflow_provider_cdm.client.submission import RunRef, Submission
from airflow_provider_cdm.client.watching.position import Look, WatchPosition
from airflow_provider_cdm.client.watching.run_filter import RunFilter
from airflow_provider_cdm.client.watching.run_watch import RunWatch, with_outcome
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.triggers.poller import ClusterPoller, shared_poller
from airflow_provider_cdm.triggers.positions import EVENT_SECONDS, PositionKeeper

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

log = logging.getLogger(__name__)

#: Seconds before the beginning of a watcher from which on ends are fired, where Airflow stores no
#: position: nobody knows then whether it begins or goes on.
_LOOK_BACK = 600.0
#: Seconds until the next try after a failure; doubles up to the second number.
_PAUSE, _MAX_PAUSE = 5.0, 300.0
#: Seconds after which a failure that goes on is logged again.
_LOG_AGAIN = 3600.0
#: How often in a row the tables of an ended run may be impossible to read.
_MAX_TRIES = 3


class JobWatcher:
    """Finds the runs of a job that end, one after the other.

    :param job_name: name of the job.
    :param cluster_id: cluster of the job; by default the connection's.
    :param run_filter: runs that events are fired for.
    :param look_back: seconds before the beginning from which on ends are fired; by default 0 where
        Airflow stores positions.
    :param poll_interval: seconds between two looks.
    :param project_id: project of the cluster; by default the connection's.
    :param cdm_conn_id: connection.
    :param stores: state stores of the assets.
    """

    def __init__(
        self,
        *,
        job_name: str,
        cluster_id: str | None,
        run_filter: RunFilter,
        look_back: float | None,
        poll_interval: float,
        project_id: str | None,
        cdm_conn_id: str,
        stores: Sequence[Any],
    ) -> None:
        default = 0.0 if HAS_ASSET_STATE_STORE else _LOOK_BACK
        self._job_name, self._cluster_id = job_name, cluster_id
        self._filter = run_filter
        self._look_back = default if look_back is None else look_back
        self._poll_interval = poll_interval
        self._project_id, self._conn_id = project_id, cdm_conn_id
        self._stores = stores
        self._keeper: PositionKeeper | None = None
        self._position = WatchPosition(began_at=0.0)
        self._failures = _Failures(job_name)
        self._tries: dict[RunRef, int] = {}
        self._fired_at = -math.inf

    def close(self) -> None:
        """End all that is under way."""
        if self._keeper is not None:
            self._keeper.close()

    async def payloads(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the results of the runs that end, and never end."""
        while True:
            try:
                session = await CdmHook(self._conn_id, project_id=self._project_id).aget_conn()
                cluster_id = arguments.cluster_id(self._cluster_id, session.settings.cluster_id)
                with shared_poller(session, cluster_id) as poller:
                    keeper = await self._open_position(poller.session, cluster_id)
                    async for payload in self._watch(poller, keeper):
                        yield payload
            except Exception as error:
                seconds = self._failures.record(error)
            await CdmHook.session_options.get("async_sleep", sleep_without_session)(seconds)

    async def _open_position(self, session: CdmSession, cluster_id: str) -> PositionKeeper:
        """Go on where this watcher stopped, here or elsewhere; otherwise it begins now."""
        if self._keeper is not None and self._keeper.cluster_id == cluster_id:
            return self._keeper
        self.close()
        identity = (self._project_id, *astuple(self._filter))
        keeper = PositionKeeper(self._stores, cluster_id, self._job_name, identity)
        found = await keeper.read()
        self._keeper = keeper
        self._position = found or WatchPosition(began_at=session.clock())
        newest = self._position.newest
        log.info(
            "Watching job %r for runs that end, %s (cluster %s)",
            self._job_name,
            f"after {newest.number}" if newest else "from now on",
            cluster_id,
        )
        if found is None:
            await keeper.write(session, self._position)
        return keeper

    async def _watch(
        self, poller: ClusterPoller, keeper: PositionKeeper
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the payloads of one look after the other, the last of each look a little later.

        Airflow's scheduler gives a DAG run the events up to the first one that made it necessary.
        What comes between that and the DAG run waits for the next event, however late that is: so
        the last one must come after the scheduler has dealt with those before.
        """
        session = poller.session
        while True:
            look = await self._next_look(poller, keeper.cluster_id)
            payloads, last, position = await self._report(poller, look)
            for payload in payloads[:-1]:
                yield payload
                self._fired_at = session.monotonic()
            if last is not None:
                if len(payloads) > 1:
                    self._position = _without(position, last)
                    keeper.write_after_events(session, self._position)
                await session.arun(pause(self._fired_at + EVENT_SECONDS - session.monotonic()))
                yield payloads[-1]
                self._fired_at = session.monotonic()
            self._position = position
            if payloads:
                keeper.write_after_events(session, position)
            else:
                await keeper.write(session, position)

    async def _next_look(self, poller: ClusterPoller, cluster_id: str) -> Look:
        """Wait for a look that shows something new."""
        watch = RunWatch(
            cluster_id,
            self._job_name,
            self._position,
            self._look_back,
            on_answer=self._failures.clear,
        )

        def end_wait(_: Submission | None) -> None:
            if watch.look is not None:
                raise _NewsError(watch.look)

        interval = self._poll_interval
        try:
            await poller.wait(watch, poll_interval=interval, watches=True, on_status=end_wait)
        except _NewsError as news:
            return news.look
        raise errors.CdmError("A wait for news ended without any.")

    async def _report(
        self, poller: ClusterPoller, look: Look
    ) -> tuple[list[dict[str, Any]], RunRef | None, WatchPosition]:
        """Return the payloads of a look, the run of the last one, and the position after them."""
        payloads: list[dict[str, Any]] = []
        last, missed = None, look.position.missed
        for seen in look.ends:
            run, is_missed = await self._judge(poller, seen)
            missed += is_missed
            if run is not None:
                # Those that were missed came before.
                payloads.append(run.to_dict() | ({"missed_runs": missed} if missed else {}))
                last, missed = RunRef.of(run), 0
        return payloads, last, replace(look.position, missed=missed)

    async def _judge(
        self, poller: ClusterPoller, seen: Submission
    ) -> tuple[Submission | None, int]:
        """Return the run to fire an event for, if it is to be, and whether an end is missed."""
        if not self._filter.may_accept(seen):
            return None, 0
        run = await self._with_outcome(poller, seen)
        if run is None and self._filter.statuses:
            log.warning(
                "No event is fired for the end of %s: it is not known whether it succeeded",
                RunRef.of(seen),
            )
            return None, True
        run = run or seen
        return (run if self._filter.accepts_outcome(run) else None), False

    async def _with_outcome(self, poller: ClusterPoller, run: Submission) -> Submission | None:
        """Return an ended run with its tables; ``None`` if it may have failed."""
        ref = RunRef.of(run)
        tries = self._tries[ref] = self._tries.get(ref, 0) + 1
        found = await poller.session.arun(
            with_outcome(poller.api, run, last_try=tries >= _MAX_TRIES)
        )
        del self._tries[ref]
        return found


def _without(position: WatchPosition, run: RunRef) -> WatchPosition:
    """Return a position after a look, but before the event of its last run."""
    known = tuple(other for other in position.known if other != run)
    return replace(position, known=known, pending=(run, *position.pending))


@dataclass(slots=True)
class _Failures:
    """The failures in a row of one watcher.

    :param job_name: name of the job.
    :param count: number of failures in a row.
    """

    job_name: str
    count: int = 0
    _logged: str = ""
    _logged_at: float = -math.inf

    def clear(self) -> None:
        """Record an answer of CDM."""
        if self._logged:
            log.info("The runs of job %r can be read again", self.job_name)
        self.count, self._logged, self._logged_at = 0, "", -math.inf

    def record(self, error: Exception) -> float:
        """Log a failure unless it was logged recently; return the seconds until the next try."""
        seconds = min(_MAX_PAUSE, _PAUSE * 2.0 ** min(self.count, 10))
        self.count += 1
        now = time.monotonic()
        # Not the text, which may hold the id of the request.
        kind = f"{type(error).__name__} {getattr(error, 'code', None)}"
        if kind != self._logged or now > self._logged_at + _LOG_AGAIN:
            self._logged, self._logged_at = kind, now
            log.warning(
                "%s No events of runs of job %r are fired until that has changed; the next look is"
                " in %.0f s, later ones at most %.0f s apart.",
                *(str(error) or type(error).__name__, self.job_name, seconds, _MAX_PAUSE),
                exc_info=None if isinstance(error, errors.CdmError) else error,
            )
        return seconds


class _NewsError(Exception):
    """Ends a wait, as a look has shown something new."""

    def __init__(self, look: Look) -> None:
        super().__init__(look)
        self.look = look
