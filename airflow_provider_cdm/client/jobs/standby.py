"""Which cluster a start goes to, where a job exists in several: the first that can take it.

A start goes on to the next cluster only while it is certain that nothing was started: what may have
had an effect is settled in its own cluster. So two clusters never run the job for one start.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeVar

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import resources
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.cluster import DEAD_ENDS, STOPPED
from airflow_provider_cdm.client.jobs.start_record import StartRequest
from airflow_provider_cdm.client.sansio import Flow
from airflow_provider_cdm.client.text import end_sentence

log = logging.getLogger(__name__)

T_co = TypeVar("T_co", covariant=True)

#: States of a cluster that takes no start now. A state that is not documented is none of them.
_UNAVAILABLE = (*DEAD_ENDS, STOPPED, "stopping", "starting", "creating", "restarting")


class PossibleStart(Protocol[T_co]):
    """A start in one cluster."""

    @property
    def may_have_effect(self) -> bool:
        """Whether a start was sent that was not certainly refused."""

    def perform(self) -> Flow[T_co]:
        """Start the job."""


def start_in_first(
    api: CdmApi, request: StartRequest, make: Callable[[StartRequest], PossibleStart[T_co]]
) -> Flow[T_co]:
    """Start a job in the first of the clusters of a request that can take it.

    If there is only one, its state is not read.

    :param api: API of the user who starts it.
    :param request: what to start.
    :param make: function that returns the start for a request with one cluster.
    :raises CdmError: from the last cluster, or from one that could have taken the job; the error
        says why those before could not.
    """
    reasons: list[str] = []
    *others, last = request.cluster_ids
    for cluster_id, next_cluster in zip(others, request.cluster_ids[1:], strict=True):
        reason = yield from _unavailability(api, cluster_id)
        if reason is None:
            start = make(request.at(cluster_id))
            try:
                return (yield from start.perform())
            except errors.CdmError as error:
                reason = error
                if start.may_have_effect or not (yield from _cannot_take(api, cluster_id, error)):
                    raise _with_reasons(error, reasons) from None
        reasons.append(f"Cluster {cluster_id} could not take it: {end_sentence(reason.message)}")
        log.warning(
            "Job %r was not started in cluster %s; trying stand-by cluster %s. The reason: %s",
            *(request.job_name, cluster_id, next_cluster, reason),
        )
    try:
        return (yield from make(request.at(last)).perform())
    except errors.CdmError as error:
        raise _with_reasons(error, reasons) from None


def _with_reasons(error: errors.CdmError, reasons: list[str]) -> errors.CdmError:
    if reasons:
        error.add_detail(f" {' '.join(reasons)}")
    return error


def _unavailability(api: CdmApi, cluster_id: str) -> Flow[errors.CdmError | None]:
    """Read the state of a cluster, and return why it takes no start now; ``None`` if it may.

    :raises CdmNotFound: when the project, or the endpoint, is not the one of the cluster.
    """
    # Once, and without a wait: what cannot be read is no reason not to start the job.
    call = replace(resources.show_cluster(cluster_id), wait_for_quota=False, idempotent=False)
    try:
        cluster = (yield from api.call(call)).ensure_usable()
    except errors.CdmError as error:
        if isinstance(error, errors.CdmNotFound) and error.concerns_project:
            raise
        if isinstance(error, errors.CdmNotFound | errors.CdmClusterUnusable):
            return error
        log.info("The state of cluster %s was not read before the start: %s", cluster_id, error)
        return None
    state = "restarting" if cluster.is_restarting else cluster.state
    if state in _UNAVAILABLE:
        return errors.CdmClusterUnusable(f"Cluster {cluster.name!r} is {state}.")
    return None


def _cannot_take(api: CdmApi, cluster_id: str, error: errors.CdmError) -> Flow[bool]:
    """Return whether an error means that a cluster takes no start now.

    :param error: what a start without any effect failed with.
    """
    if isinstance(error, errors.CdmUnavailable):
        return True
    if isinstance(error, errors.CdmAlreadyRunning) or not isinstance(error, errors.CdmRefused):
        return False
    # CDM refuses what is wrong with the job, too, and its answer for a stopped cluster is not
    # documented. The state of the cluster is.
    return not error.concerns_project and (yield from _unavailability(api, cluster_id)) is not None
