"""Metrics, sent through Airflow's own statistics (StatsD, Datadog or OpenTelemetry).

What distinguishes outcomes is part of the name, since plain StatsD drops tags. A metric that cannot
be sent never fails a task.
"""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm._compat import stats_client

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_cdm.client.sansio import Request
    from airflow_provider_cdm.client.submission import Submission

log = logging.getLogger(__name__)


def count_start(outcome: str, ti: Any, cluster_id: str) -> None:
    """Count an attempt to start a job.

    :param outcome: ``new``: started and answered; ``found``: the answer was lost, and the history
        showed the run; ``attached``: the run is that of an earlier attempt, or somebody else's;
        ``uncertain``: it could not be determined.
    :param ti: task instance, or the task; ``None`` outside of one.
    """
    _incr(f"cdm.start.{outcome}", tags=_tags(ti, cluster_id))


def count_run(verdict: str, ti: Any, run: Submission) -> None:
    """Count a run that a task has judged, with its duration and rows.

    :param verdict: ``succeeded``, ``failed``, ``unknown`` or ``threshold_missed``.
    """
    tags = _tags(ti, run.cluster_id)
    _incr(f"cdm.run.{verdict}", tags=tags)
    if run.duration_seconds is not None:
        _timing("cdm.run.duration", run.duration_seconds, tags)
    written = run.counters.get("ROWS_WRITTEN", run.write_rows)
    for verb, count in (("read", run.counters.get("ROWS_READ")), ("written", written)):
        if count is not None and count > 0:
            _incr(f"cdm.run.rows_{verb}", count, tags)


def count_stall(cluster_id: str) -> None:
    """Count a run that has made no progress for ``stalled_after`` seconds."""
    _incr("cdm.run.stalled", tags={"cluster_id": cluster_id})


def time_notice(seconds: float | None, cluster_id: str) -> None:
    """Record how long after the end of a run a wait noticed it.

    :param seconds: the delay, by the server's clock; ``None`` if the run had ended before the wait.
    """
    if seconds is not None:
        _timing("cdm.wait.notice_delay", max(0.0, seconds), {"cluster_id": cluster_id})


def show_waits(count: int, cluster_id: str) -> None:
    """Record how many triggers of this process wait for runs on a cluster."""
    tags = {"cluster_id": cluster_id, "hostname": socket.gethostname()}
    _send("gauge", "cdm.waits", count, tags=tags)


def count_call(request: Request, status: int | None) -> None:
    """Count a call to CDM or IAM.

    :param status: HTTP status of the response; ``None`` if none arrived.
    """
    from airflow_provider_cdm.client.api.routes import route_of

    name = f"cdm.call.{route_of(request)}"
    _incr(name)
    if status == 429:
        _incr(f"{name}.throttled")
    elif status is None or status >= 500:
        _incr(f"{name}.failed")


def _tags(ti: Any, cluster_id: str) -> dict[str, str]:
    tags = {"cluster_id": cluster_id}
    return tags if ti is None else {**tags, "dag_id": ti.dag_id, "task_id": ti.task_id}


def _incr(name: str, count: int = 1, tags: Mapping[str, str] | None = None) -> None:
    _send("incr", name, count, tags=dict(tags or {}))


def _timing(name: str, seconds: float, tags: Mapping[str, str]) -> None:
    # A number, and not a timedelta, which Airflow 2 would send in seconds.
    _send("timing", name, 1000 * seconds, tags=dict(tags))


def _send(method: str, name: str, value: Any, *, tags: dict[str, str]) -> None:
    try:
        getattr(stats_client(), method)(name, value, tags=tags)
    except Exception as error:
        log.debug("The metric %s was not sent: %s", name, error)
