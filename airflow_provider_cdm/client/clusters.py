"""Starting, stopping and restarting clusters, and waiting until that is done."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import resources
from airflow_provider_cdm.client.api.call import Call
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.cluster import NORMAL, Cluster
from airflow_provider_cdm.client.api.definitions import JOB_TYPES
from airflow_provider_cdm.client.jobs.follower import GracePeriods
from airflow_provider_cdm.client.jobs.refusals import Refusals
from airflow_provider_cdm.client.poll_loop import poll_until_done
from airflow_provider_cdm.client.sansio import Flow, pause
from airflow_provider_cdm.client.submission import Verdict, verdict_of

log = logging.getLogger(__name__)

#: Seconds within which the effect of an action shows; an unanswered one without effect had none.
_SETTLE = 60.0
#: Maximum number of times that an action is sent.
_MAX_SENDS = 3
#: Seconds after which a change of the cluster counts for a restart that was not seen, and seconds
#: after which a restart without any sign is given up.
_UNSEEN_RESTART, _NO_RESTART = 120.0, 600.0


def poll(api: CdmApi, cluster_id: str) -> Flow[Cluster]:
    """Read the state of a cluster.

    :raises CdmNotFound: when the cluster does not exist; the error lists those that do.
    """
    try:
        return (yield from api.call(resources.show_cluster(cluster_id)))
    except errors.CdmNotFound as error:
        if error.concerns_project:
            raise
        try:
            known = yield from api.call(resources.list_clusters())
        except errors.CdmError:
            raise error from None
        names = ", ".join(f"{other.cluster_id} ({other.name})" for other in known) or "none"
        error.add_detail(f" Clusters of this project: {names}.")
        raise


def busy_jobs(api: CdmApi, cluster_id: str) -> Flow[list[str]]:
    """Return the names of the jobs of a cluster, of any type, that have an active run.

    Listings may be out of date, so a status call is made for each job whose run may be active.
    """
    may_run: dict[str, bool] = {}
    for job_type in JOB_TYPES:
        page_no, listed = 1, 0
        while True:
            call = resources.list_jobs(cluster_id, page_no, job_type=job_type)
            page = yield from api.call(call)
            new = {job.name: _may_run(job.status) for job in page.jobs if job.name not in may_run}
            may_run |= new
            page_no, listed = page_no + 1, listed + len(page.jobs)
            if not new or (page.total and listed >= page.total):
                break
    busy = []
    for name in (name for name, active in may_run.items() if active):
        if (yield from api.active_run(cluster_id, name)) is not None:
            busy.append(name)  # noqa: PERF401 - a comprehension cannot yield from a flow
    return busy


def _may_run(status: str) -> bool:
    return status != "NEW" and verdict_of(status) in (Verdict.ACTIVE, Verdict.UNKNOWN)


def send(api: CdmApi, call: Call[None], before: Cluster) -> Flow[None]:
    """Send an action, and send it again if it has neither an answer nor an effect.

    :param call: action, such as starting the cluster.
    :param before: state of the cluster immediately before.
    :raises CdmError: when CDM rejected the action, or three of them had no answer and no effect.
    """
    for sends_left in reversed(range(_MAX_SENDS)):
        try:
            yield from api.call(call)
        except errors.CdmError as error:
            if not error.effect_unknown:
                raise
            log.warning("%s It is not known whether this had an effect; polling.", error)
            if (yield from _wait_for_change(api, before)):
                return
            if not sends_left:
                raise
        else:
            return


def _wait_for_change(api: CdmApi, before: Cluster) -> Flow[bool]:
    """Return whether the cluster leaves its state within the settling time."""
    until = api.exchanger.uptime() + _SETTLE
    delay = 1.0
    while True:
        cluster = yield from poll(api, before.cluster_id)
        if cluster.state != before.state or cluster.is_restarting != before.is_restarting:
            return True
        remaining = until - api.exchanger.uptime()
        if remaining <= 0:
            return False
        yield from pause(min(delay, remaining))
        delay = min(2 * delay, 15.0)


@dataclass(slots=True)
class RestartWatch:
    """Tells when a restart is over, although a cluster is normal before it and after it.

    The details may show a restart by the status, among the actions, or not at all. In the last case
    a change of the cluster since counts, some time later.

    :param before: cluster before the restart, or as it was seen during one.
    :param sent_at: when the restart was sent, epoch seconds.
    :param delay: seconds after which CDM was to begin.
    """

    before: Cluster
    sent_at: float
    delay: float = 0.0
    begun: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.begun = self.before.is_restarting

    def is_over(self, cluster: Cluster, now: float) -> bool:
        """Return whether the restart is over.

        :param cluster: cluster as it is now.
        :param now: current time, epoch seconds.
        :raises CdmError: when there was no sign of a restart for a long time.
        """
        if cluster.state != NORMAL or cluster.is_restarting:
            self.begun = True
            return False
        since = now - self.sent_at - self.delay
        changed = bool(cluster.updated) and cluster.updated != self.before.updated
        if self.begun or (changed and since >= _UNSEEN_RESTART):
            return True
        if since >= _NO_RESTART:
            raise errors.CdmError(
                f"CDM accepted the restart, but for {since:.0f} s it has shown no sign of it, so"
                f" it is not known whether cluster {cluster.name!r} was restarted. Check it in the"
                " CDM console; a retry of this task restarts it again (cluster"
                f" {cluster.cluster_id})."
            )
        return False

    def to_payload(self) -> dict[str, Any]:
        """Return the watch as plain JSON."""
        return {
            "before": self.before.to_payload(),
            "sent_at": self.sent_at,
            "delay": self.delay,
        }

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> RestartWatch:
        """Read what :meth:`to_payload` returned."""
        before = Cluster.from_payload(payload["before"])
        return cls(before, payload["sent_at"], payload["delay"])


@dataclass(slots=True)
class ClusterWaiter:
    """Waits until a cluster is in one of several states, and tolerates outages for a limited time.

    :param cluster_id: cluster to wait for.
    :param states: states that end the wait.
    :param restart: what tells when a restart is over, if the wait is for that.
    :param grace: grace periods; only ``outage`` and ``refused`` are used here.
    :param last: cluster as last seen.
    :param unreachable_since: since when calls have failed, by the monotonic clock; ``None`` if they
        do not.
    :param refusals: refusals of credentials in a row.
    """

    cluster_id: str
    states: Collection[str]
    restart: RestartWatch | None = None
    grace: GracePeriods = field(default_factory=GracePeriods)
    last: Cluster | None = None
    unreachable_since: float | None = None
    refusals: Refusals = field(default_factory=Refusals)

    def wait(
        self,
        api: CdmApi,
        *,
        poll_interval: float,
        deadline: float | None,
        info: Callable[[str], None],
    ) -> Flow[Cluster]:
        """Wait until the cluster is in one of the states.

        :param poll_interval: seconds between two polls, with a jitter of a tenth.
        :param deadline: epoch seconds at which to give up; ``None`` to wait without a limit.
        :param info: called with a log line when the state has changed.
        :returns: the cluster.
        :raises CdmWaitTimeout: at the deadline.
        :raises CdmClusterUnusable: when the cluster has failed or is frozen, unless the wait is for
            that state.
        :raises CdmError: when calls failed for longer than the grace period, or CDM rejected one.
        """
        state: str | None = None

        def poll() -> Flow[Cluster | None]:
            nonlocal state
            cluster = yield from self.poll(api)
            if cluster is None:
                return None
            if cluster.state != state:
                state = cluster.state
                info(f"Cluster {cluster.name!r}: {state}")
            if self.restart is not None and not self.restart.is_over(
                cluster, api.exchanger.clock()
            ):
                return None
            return cluster if cluster.state in self.states else None

        return (
            yield from poll_until_done(
                poll,
                api.exchanger,
                poll_interval=poll_interval,
                deadline=deadline,
                timed_out=self.timed_out,
            )
        )

    def poll(self, api: CdmApi) -> Flow[Cluster | None]:
        """Read the state of the cluster once.

        :returns: the cluster; ``None`` if the call failed.
        :raises CdmClusterUnusable: when the cluster has failed or is frozen, unless the wait is for
            that state.
        :raises CdmError: when calls failed for longer than the grace period, or CDM rejected one.
        """
        try:
            self.last = yield from poll(api, self.cluster_id)
        except (errors.CdmUnavailable, errors.CdmThrottled, errors.CdmBadResponse) as error:
            now = api.exchanger.uptime()
            if self.unreachable_since is None:
                self.unreachable_since = now
                log.warning("%s Polling goes on for up to %.0f s.", error, self.grace.outage)
            if now - self.unreachable_since >= self.grace.outage:
                raise
            return None
        except errors.CdmError as error:
            if not error.refuses_credentials:
                raise
            self.unreachable_since = None
            lasted, tolerable = self.refusals.record(error, api.exchanger, self.grace.refused)
            if not tolerable:
                error.add_detail(f" They have been refused for {lasted:.0f} s.")
                raise
            log.warning("%s Polling goes on for up to %.0f s.", error, self.grace.refused)
            return None
        self.unreachable_since = None
        self.refusals.clear()
        return self.last if self.last.state in self.states else self.last.ensure_usable()

    def timed_out(self) -> errors.CdmWaitTimeout:
        """Return the error for a wait that reached its deadline."""
        seen = f"was last seen {self.last.state}" if self.last else "was never seen"
        wanted = "has restarted" if self.restart else f"is {' or '.join(self.states)}"
        return errors.CdmWaitTimeout(
            f"The cluster {seen}, and the wait until it {wanted} timed out."
            " Increase the time limit, or check the cluster in the CDM console (cluster"
            f" {self.cluster_id})."
        )
