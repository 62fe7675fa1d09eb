"""What a person can do to a run from the page: stop it, fail it, or slow it down."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from airflow_provider_cdm.simulator.config.reader import ConfigError
from airflow_provider_cdm.simulator.errors import CdmError

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.backend.cluster import Cluster
    from airflow_provider_cdm.simulator.backend.lifecycle import RunLifecycle


@dataclass(frozen=True, kw_only=True)
class RunAction:
    """An action on an active run.

    :param action: ``stop`` as with a stop call, ``fail`` at once, or ``slow``: take longer.
    :param reason: error summary of a run that is failed.
    :param seconds: time that a run that is slowed down takes in addition.
    """

    action: Literal["stop", "fail", "slow"]
    reason: str = "Failed on the page of the simulator."
    seconds: float = 60.0

    def __post_init__(self) -> None:
        if not self.seconds <= 86_400:
            raise ValueError("seconds: expected at most a day")


def apply(action: RunAction, cluster: Cluster, lifecycle: RunLifecycle) -> None:
    """Apply an action to a run, and to the runs of its tables if it is a whole-database run.

    :param action: what to do.
    :param cluster: cluster of the run; the backend's lock is held.
    :param lifecycle: lifecycle of the run.
    :raises ConfigError: if the run has ended or cannot be stopped, or its statuses are scripted.
    """
    run = lifecycle.run
    if not run.active:
        raise ConfigError([f"run {run.submission_id} of {run.job_name} has ended: {run.status}"])
    if action.action == "stop":
        try:
            cluster.stop(run.job_name)
        except CdmError as exc:
            raise ConfigError([exc.message]) from exc
    elif action.action == "fail":
        for each in [lifecycle, *_tables(cluster, lifecycle)]:
            each.kill(action.reason)
    else:
        slowed = [each.slow_down(action.seconds) for each in _clocked(cluster, lifecycle)]
        if not any(slowed):
            raise ConfigError([f"the statuses of {run.job_name} are scripted, and take no time"])


def _clocked(cluster: Cluster, lifecycle: RunLifecycle) -> list[RunLifecycle]:
    """Return the lifecycles whose time passes: the active tables of a whole-database run."""
    return list(_tables(cluster, lifecycle)) or [lifecycle]


def _tables(cluster: Cluster, lifecycle: RunLifecycle) -> Iterator[RunLifecycle]:
    for each in cluster.lifecycles:
        if each.run.part_of == lifecycle.run.submission_id and each.run.active:
            yield each
