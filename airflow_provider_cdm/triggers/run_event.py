"""The trigger of an asset watcher that fires when a run of a CDM job ends, whoever started it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_cdm._compat import (
    HAS_ASSET_WATCHERS,
    BaseEventTrigger,
    TriggerEvent,
    asset_state_stores,
    config_values,
    is_reference,
)
from airflow_provider_cdm.client import arguments, errors
from airflow_provider_cdm.connection import CONFIG_SECTION, DEFAULT_CONN_ID
from airflow_provider_cdm.triggers.base import CdmTrigger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection
    from datetime import timedelta

#: Statuses in which a run ends.
_END_STATUSES = ("FAILED", "FAILURE_ON_SUBMIT", "STOPPED", "SUCCEEDED")
#: Seconds between two looks, if neither the watcher nor the deployment says anything else.
_POLL_INTERVAL = 30.0
#: Longest name of a user, a project or a connection, in characters.
_NAME_LIMIT = 256


class CdmRunEventTrigger(CdmTrigger, BaseEventTrigger):
    """Fires an event when a run of a CDM job has ended, once for each run, whoever started it.

    For an ``AssetWatcher`` (Airflow 3.0 and later). The payload of the event is the result of the
    run, with the same keys as that of the operators; ``missed_runs`` is there, too, if the ends of
    at least that many runs were missed before it.

    Delivery is at least once: compare ``submission_id`` and ``creation_date`` where an event that
    comes twice does harm. Arguments are not templates.

    :param job_name: name of the job.
    :param cluster_id: cluster of the job; by default the connection's.
    :param statuses: fire only for runs that ended in one of these statuses: ``SUCCEEDED``,
        ``FAILED``, ``FAILURE_ON_SUBMIT``, ``STOPPED``; one or several, by default all. A
        whole-database run that CDM calls ``SUCCEEDED`` counts as ``FAILED`` if one of its tables
        is not.
    :param started_by: fire only for runs of these users, as CDM's history names them; one or
        several.
    :param not_started_by: do not fire for runs of these users, such as that of Airflow's own
        connection; one or several.
    :param by_scheduler: ``True`` to fire only for runs that CDM's own scheduler started, ``False``
        only for others.
    :param look_back: seconds before the beginning of the watcher from which on ends are fired, if
        no position is stored. By default 0 where Airflow stores positions (3.3 and later), else
        600, so that a restart of the triggerer repeats events instead of losing some.
    :param poll_interval: seconds between two looks at the job, as far as CDM's rate limits allow;
        by default ``[cdm] poll_interval`` of ``airflow.cfg``, or 30.
    :param project_id: project of the cluster; by default the connection's.
    :param cdm_conn_id: connection of type ``huaweicloud_cdm``.
    :raises CdmConfigError: when an argument cannot be used, and below Airflow 3.
    """

    arguments = (
        "job_name",
        "cluster_id",
        "statuses",
        "started_by",
        "not_started_by",
        "by_scheduler",
        "look_back",
        "poll_interval",
        "project_id",
        "cdm_conn_id",
    )

    def __init__(
        self,
        *,
        job_name: str,
        cluster_id: str | None = None,
        statuses: str | Collection[str] | None = None,
        started_by: str | Collection[str] | None = None,
        not_started_by: str | Collection[str] | None = None,
        by_scheduler: bool | None = None,
        look_back: float | str | timedelta | None = None,
        poll_interval: float | str | timedelta | None = None,
        project_id: str | None = None,
        cdm_conn_id: str = DEFAULT_CONN_ID,
    ) -> None:
        if not HAS_ASSET_WATCHERS:
            raise errors.CdmConfigError(
                "CdmRunEventTrigger needs Airflow 3, since Airflow 2 has no AssetWatcher. There,"
                " wait for the run with CdmSubmissionSensor."
            )
        try:
            super().__init__(
                cluster_id=_optional("cluster_id", cluster_id),  # type: ignore[arg-type]  # or None
                poll_interval=_interval(poll_interval),
                deadline=None,
                project_id=_optional("project_id", project_id),
                cdm_conn_id=_text("cdm_conn_id", cdm_conn_id),
            )
            self.job_name = arguments.job_name(_text("job_name", job_name))
            self.statuses = _statuses(statuses)
            self.started_by = _names("started_by", started_by)
            self.not_started_by = _names("not_started_by", not_started_by)
            _ensure_disjoint(self.started_by, self.not_started_by)
            self.by_scheduler = _flag("by_scheduler", by_scheduler)
            self.look_back = None
            if look_back is not None:
                self.look_back = _seconds("look_back", look_back, positive=False)
        except errors.CdmConfigError as error:
            raise _UnusableArgumentError(str(error)) from None

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield an event for each run that ends; goes on until it is canceled."""
        # Only the triggerer polls; parsing a DAG does not need the modules for it.
        from airflow_provider_cdm.client.watching.run_filter import RunFilter
        from airflow_provider_cdm.triggers.job_watcher import JobWatcher

        watcher = JobWatcher(
            job_name=self.job_name,
            cluster_id=self.cluster_id,
            run_filter=RunFilter(
                self.statuses or (),
                self.started_by or (),
                self.not_started_by or (),
                self.by_scheduler,
            ),
            look_back=self.look_back,
            poll_interval=self.poll_interval,
            project_id=self.project_id,
            cdm_conn_id=self.cdm_conn_id,
            stores=asset_state_stores(self),
        )
        try:
            async for payload in watcher.payloads():
                yield TriggerEvent(payload)  # type: ignore[no-untyped-call]  # as in the base
        finally:
            watcher.close()


def _plain(argument: str, value: Any) -> Any:
    """Return a value that is the same for everybody: nothing renders the arguments of a watcher.

    :raises CdmConfigError: when it is a template or the output of a task.
    """
    if is_reference(value) or (isinstance(value, str) and ("{{" in value or "{%" in value)):
        raise errors.CdmConfigError(
            f"{argument} of CdmRunEventTrigger must be a value, not a template or the output of a"
            " task: Airflow renders nothing for an AssetWatcher."
        )
    return value


class _UnusableArgumentError(errors.CdmConfigError, TypeError):
    """An argument cannot be used.

    Airflow's triggerer skips a stored trigger that it cannot make only after a ``TypeError``; any
    other error ends the process, with all triggers.
    """


def _text(argument: str, value: Any) -> str:
    return arguments.text(argument, _plain(argument, value), limit=_NAME_LIMIT)


def _optional(argument: str, value: Any) -> str | None:
    return None if value is None else _text(argument, value)


def _seconds(argument: str, value: Any, *, positive: bool = True) -> float:
    value = _plain(argument, value)
    return float(arguments.seconds(argument, value, optional=False, positive=positive))


def _interval(value: Any) -> float:
    """Return the seconds between two looks: the argument, the deployment's, or 30."""
    if value is not None:
        return _seconds("poll_interval", value)
    configured = config_values(CONFIG_SECTION, ["poll_interval"]).get("poll_interval")
    seconds = arguments.seconds("[cdm] poll_interval in airflow.cfg", configured)
    return _POLL_INTERVAL if seconds is None else float(seconds)


def _flag(argument: str, value: Any) -> bool | None:
    if not (value is None or isinstance(value, bool)):
        raise errors.CdmConfigError(f"{argument} must be True, False or None, not {value!r}.")
    return value


def _ensure_disjoint(started_by: list[str] | None, not_started_by: list[str] | None) -> None:
    if both := set(started_by or ()) & set(not_started_by or ()):
        raise errors.CdmConfigError(
            f"started_by and not_started_by both name {', '.join(map(repr, sorted(both)))}, so no"
            " event would be fired for the runs of that user."
        )


def _names(argument: str, value: Any) -> list[str] | None:
    """Return one or several names in order, so that equal watchers are one."""
    if value is None:
        return None
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple | set | frozenset) or not names:
        raise errors.CdmConfigError(
            f"{argument} must be a name, or a list of at least one, not {value!r}."
        )
    return sorted({_text(argument, name) for name in names})


def _statuses(value: Any) -> list[str] | None:
    names = _names("statuses", value)
    if names is None:
        return None
    statuses = sorted({name.strip().upper() for name in names})
    for status in statuses:
        if status not in _END_STATUSES:
            raise errors.CdmConfigError(
                f"statuses must be some of {', '.join(_END_STATUSES)}, not {status!r}: a watcher"
                " fires when a run has ended."
            )
    return statuses
