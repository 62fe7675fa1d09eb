"""Starting and stopping clusters, and waiting until they have."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import resources
from airflow_provider_cdm.client.api.call import Call
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.cluster import Cluster
from airflow_provider_cdm.client.api.definitions import JOB_TYPES
from airflow_provider_cdm.client.jobs.follower import GracePeriods
from airflow_provider_cdm.client.sansio import Flow, pause
from airflow_provider_cdm.client.submission import Verdict, verdict_of

log = logging.getLogger(__name__)

#: Seconds after which an action without an answer that shows no effect has had none.
_SETTLE = 60.0
#: How often an action is sent at most.
_SENDS = 3


def poll(api: CdmApi, cluster_id: str) -> Flow[Cluster]:
    """Read the state of a cluster.

    :raises CdmNotFound: when there is no such cluster; says which there are.
    """
    try:
        return (yield from api.call(resources.show_cluster(cluster_id)))
    except errors.CdmNotFound as error:
        try:
            known = yield from api.call(resources.list_clusters())
        except errors.CdmError:
            raise error from None
        names = ", ".join(f"{one.cluster_id} ({one.name})" for one in known) or "none"
        error.add_detail(f" Clusters of this project: {names}.")
        raise


def busy_jobs(api: CdmApi, cluster_id: str) -> Flow[list[str]]:
    """Name the jobs of a cluster, of any type, that have an active run, whoever started it.

    A listing may be out of date, so each job whose run is not surely over is asked about.
    """
    names: dict[str, bool] = {}
    for job_type in JOB_TYPES:
        page_no, listed = 1, 0
        while True:
            call = resources.list_jobs(cluster_id, page_no, job_type=job_type)
            page = yield from api.call(call)
            news = {job.name: _may_run(job.status) for job in page.jobs if job.name not in names}
            names |= news
            page_no, listed = page_no + 1, listed + len(page.jobs)
            if not news or (page.total and listed >= page.total):
                break
    busy = []
    for name in (name for name, may_run in names.items() if may_run):
        if (yield from api.active_run(cluster_id, name)) is not None:
            busy.append(name)  # noqa: PERF401 - a comprehension cannot yield from a flow
    return busy


def _may_run(status: str) -> bool:
    return status != "NEW" and verdict_of(status) in (Verdict.ACTIVE, Verdict.UNKNOWN)


def send(api: CdmApi, call: Call[None], before: Cluster) -> Flow[None]:
    """Send an action, again if there is no answer and no effect.

    :param before: the cluster right before.
    :raises CdmError: when CDM refused, or no action was answered or had an effect.
    """
    for left in reversed(range(_SENDS)):
        try:
            yield from api.call(call)
        except errors.CdmError as error:
            if not error.effect_unknown:
                raise
            log.warning("%s Whether it was done is not known; looking.", error)
            if (yield from _changes(api, before)):
                return
            if not left:
                raise
        else:
            return


def _changes(api: CdmApi, before: Cluster) -> Flow[bool]:
    until = api.exchanger.clock() + _SETTLE
    delay = 1.0
    while True:
        now = yield from poll(api, before.cluster_id)
        if now.state != before.state:
            return True
        left = until - api.exchanger.clock()
        if left <= 0:
            return False
        yield from pause(min(delay, left))
        delay = min(2 * delay, 15.0)


@dataclass(slots=True)
class ClusterWaiter:
    """Waits until a cluster is in one of some states, and bears outages for a bounded time.

    :param states: what is waited for.
    :param grace: ``outage`` says how long CDM may not be reachable.
    :param last: the cluster as last seen.
    :param trouble_since: since when CDM cannot be asked, epoch seconds.
    """

    cluster_id: str
    states: Collection[str]
    grace: GracePeriods = field(default_factory=GracePeriods)
    last: Cluster | None = None
    trouble_since: float | None = None

    def wait(
        self,
        api: CdmApi,
        *,
        poll_interval: float,
        deadline: float | None,
        info: Callable[[str], None],
    ) -> Flow[Cluster]:
        """Wait.

        :param poll_interval: seconds between two looks, spread by a tenth.
        :param deadline: epoch seconds at which to give up; ``None`` for never.
        :param info: writes a line when the state has changed.
        :raises CdmWaitTimeout: at the deadline.
        :raises CdmClusterUnusable: when the cluster comes to another dead end.
        :raises CdmError: when CDM could not be asked for too long, or refused.
        """
        shown = None
        while True:
            seen = yield from self.poll(api)
            if seen is not None and seen.state != shown:
                shown = seen.state
                info(f"The {seen} is {shown}")
            if seen is not None and seen.state in self.states:
                return seen
            wait = poll_interval * (0.9 + 0.2 * api.exchanger.random())
            if deadline is not None:
                left = deadline - api.exchanger.clock()
                if left <= 0:
                    raise self.timed_out()
                wait = min(wait, left)
            yield from pause(max(wait, 0.01))

    def poll(self, api: CdmApi) -> Flow[Cluster | None]:
        """Look once; ``None`` while CDM cannot be asked.

        :raises CdmClusterUnusable: when the cluster has come to a dead end that is not waited for.
        :raises CdmError: when CDM could not be asked for too long, or refused.
        """
        try:
            self.last = yield from poll(api, self.cluster_id)
        except (errors.CdmUnavailable, errors.CdmThrottled, errors.CdmBadResponse) as error:
            now = api.exchanger.clock()
            if self.trouble_since is None:
                self.trouble_since = now
                log.warning("%s Waiting up to %.0f s.", error, self.grace.outage)
            if now - self.trouble_since >= self.grace.outage:
                raise
            return None
        self.trouble_since = None
        return self.last if self.last.state in self.states else self.last.ensure_usable()

    def timed_out(self) -> errors.CdmWaitTimeout:
        """The error for a wait that reached its deadline."""
        seen = f"it was last seen {self.last.state}" if self.last else "it was never seen"
        return errors.CdmWaitTimeout(
            f"The time to wait until cluster {self.cluster_id} is {' or '.join(self.states)} is"
            f" over; {seen}. Give it more time, or look at it in the CDM console."
        )
