"""Many waits within CDM's quotas, compared with one poll for each wait."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_provider_cdm.client.http.retry import RetryPolicy
from airflow_provider_cdm.client.jobs.follower import Follower, GracePeriods
from airflow_provider_cdm.client.polling.rate_limit import REQUESTS_PER_MINUTE
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.client.submission import RunRef, Submission
from airflow_provider_cdm.triggers.poller import shared_poller
from benchmarks.common import QUOTA, Result, log, percentile, round_short, table, verdict
from benchmarks.virtual import Traffic, VirtualSimulator

TITLE = "Waits within the quota"
#: Requested seconds between two polls.
POLL_INTERVAL = 30.0
#: Ends per minute with many runs; each end costs a status call.
ENDS_PER_MINUTE = 50
#: Minutes that are simulated of more than a thousand waits, since all of it would take hours: only
#: runs that end in this time count. And minutes after that in which their ends may be seen.
HORIZONS, GRACE = {"ours": 60.0, "polling": 5.0}, 3.0
#: Goal for the delay that 95 % of the ends keep, in seconds, with 10,000 waits.
GOAL_DELAY = 60.0

WaitFunction = Callable[[CdmSession, RunRef], Awaitable[Submission]]


@dataclass(frozen=True)
class Scenario:
    """Runs whose ends are evenly spread.

    :param waits: number of runs.
    :param clusters: number of clusters that they are spread over.
    :param first: minutes until the first runs end.
    :param last: minutes until all runs have ended.
    :param limit: ``requests_per_minute`` of the connection; ``None`` for the default.
    """

    waits: int
    clusters: int
    last: float
    first: float = 1.0
    limit: int | None = None

    @classmethod
    def mixed(cls, waits: int, clusters: int) -> Scenario:
        """Return runs of up to half an hour, or longer if too many would end per minute."""
        return cls(waits, clusters, max(30.0, waits / ENDS_PER_MINUTE))

    @property
    def jobs(self) -> list[tuple[str, str, float]]:
        """The cluster, the job and the duration in seconds of each run."""
        rng = random.Random(self.waits)
        span = (60 * self.first, 60 * self.last)
        indexes = range(self.waits)
        return [(f"c{i % self.clusters}", f"load_{i:05}", rng.uniform(*span)) for i in indexes]

    @property
    def ends_per_minute(self) -> float:
        """The mean number of runs that end per minute."""
        return round_short(self.waits / (self.last - self.first))

    def config(self) -> dict[str, Any]:
        """Return the configuration of the simulator, with a user for each side."""
        clusters: dict[str, list[dict[str, Any]]] = {f"c{i}": [] for i in range(self.clusters)}
        for cluster, job, seconds in self.jobs:
            phases = {"booting": 0, "running": seconds}
            clusters[cluster].append({"name": job, "seconds": phases})
        return {
            "quotas": "documented",
            "users": [{"name": "ours", "password": "o"}, {"name": "polling", "password": "p"}],
            "clusters": [{"name": id_, "id": id_, "jobs": jobs} for id_, jobs in clusters.items()],
        }


@dataclass
class Observations:
    """What the waits of one side observed.

    :param traffic: calls that they made.
    :param delays: seconds from the end of each run to the end of its wait.
    :param unseen: number of ended runs whose wait had not ended when time was up; for these,
        ``delays`` has the seconds up to that time.
    :param failed: number of waits that failed.
    :param minutes: duration of the simulation.
    """

    traffic: Traffic = field(default_factory=Traffic)
    delays: list[float] = field(default_factory=list)
    unseen: int = 0
    failed: int = 0
    minutes: float = 0.0


async def ours(session: CdmSession, run: RunRef) -> Submission:
    """Wait as :class:`~airflow_provider_cdm.triggers.CdmSubmissionTrigger` does."""
    with shared_poller(session, run.cluster_id) as poller:
        return await poller.wait(Follower(run), poll_interval=POLL_INTERVAL)


async def polling(session: CdmSession, run: RunRef) -> Submission:
    """Wait as triggers of other providers do, but without failing in a long outage, as they do."""
    follower = Follower(run, grace=GracePeriods(outage=math.inf))
    return await session.arun(follower.follow(session.api, poll_interval=POLL_INTERVAL))


#: As in the providers for Databricks and dbt Cloud: three attempts, with growing pauses.
POLLING_RETRIES = RetryPolicy(attempts=3)
SIDES: dict[str, WaitFunction] = {"ours": ours, "polling": polling}


async def wait_for_all(
    wait: WaitFunction,
    new_session: Callable[[], CdmSession],
    runs: Sequence[tuple[RunRef, float]],
    observed: Observations,
    horizon: float | None = None,
) -> None:
    """Wait for all runs at the same time.

    :param wait: function that waits for one run.
    :param new_session: function that opens a session.
    :param runs: the runs, and when each ends, epoch seconds.
    :param observed: where observations are added.
    :param horizon: minutes after which ends do not count; the waits are canceled some time later.
    """
    clock = new_session().clock
    begin = clock()
    last = math.inf if horizon is None else begin + 60 * horizon

    async def wait_for_run(run: RunRef, end: float) -> None:
        # Each wait has a session of its own, as each trigger opens one.
        ended = await wait(new_session(), run)
        if end <= last:
            observed.delays.append(clock() - end)
        observed.failed += ended.failed

    tasks = [asyncio.ensure_future(wait_for_run(run, end)) for run, end in runs]
    timeout = None if horizon is None else 60 * (horizon + GRACE)
    _, pending = await asyncio.wait(tasks, timeout=timeout)
    observed.minutes = (clock() - begin) / 60
    for (_, end), task in zip(runs, tasks, strict=True):
        if task in pending:
            task.cancel()
            if end <= last:
                observed.unseen += 1
                observed.delays.append(clock() - end)
    await asyncio.gather(*tasks, return_exceptions=True)
    observed.failed += sum(not task.cancelled() and task.exception() is not None for task in tasks)


def simulate(scenario: Scenario, side: str) -> dict[str, Any]:
    """Measure one side in virtual time."""
    logging.disable(logging.CRITICAL)  # each 429 would be a log line
    horizon = HORIZONS[side] if scenario.waits > 1000 else None
    simulator, observed = VirtualSimulator(scenario.config()), Observations()
    runs = []
    for cluster, job, seconds in scenario.jobs:
        run = simulator.backend.clusters[cluster].start(job, {}, "benchmark").run
        ref = RunRef(cluster, job, run.submission_id, round(run.created * 1000))
        runs.append((ref, run.created + seconds))
    settings = simulator.settings(list(SIDES).index(side), scenario.limit)
    policy = RetryPolicy() if side == "ours" else POLLING_RETRIES

    def session() -> CdmSession:
        return simulator.session(settings, observed.traffic, policy)

    simulator.run(lambda: wait_for_all(SIDES[side], session, runs, observed, horizon))
    return row_of("virtual", scenario, side, observed)


def row_of(time: str, scenario: Scenario, side: str, observed: Observations) -> dict[str, Any]:
    """Return the observations of one side as a row of the result.

    :param time: "real" or "virtual".
    """
    traffic = observed.traffic
    row = {
        "time": time,
        "waits": scenario.waits,
        "clusters": scenario.clusters,
        "side": side,
        "limit": scenario.limit,
        "ends_per_minute": scenario.ends_per_minute,
        "minutes": round_short(observed.minutes),
        "calls": {kind: len(times) for kind, times in sorted(traffic.at.items())},
        "peak": {kind: traffic.peak(kind) for kind in sorted(traffic.at)},
        "calls_per_minute": round_short(traffic.total / observed.minutes),
        "throttled": traffic.throttled,
        "delay": [percentile(observed.delays, share) for share in (0.5, 0.95, 0.99, 1.0)],
        "unseen": observed.unseen,
        "failed": observed.failed,
    }
    log(f"waits: {row}")
    return row


def measure(*, quick: bool) -> Result:
    """Measure all scenarios, several at a time: load does not affect virtual time."""
    simulations = []
    sizes = [(20, 1), (100, 5)] if quick else [(n, c) for n in _WAITS for c in (1, 5, 20)]
    for waits, clusters in sizes:
        scenario = Scenario.mixed(waits, clusters)
        simulations.append((scenario, "ours"))
        if waits == max(_WAITS):
            simulations.append((replace(scenario, limit=QUOTA), "ours"))
        if clusters == 1 or quick:  # the number of clusters makes no difference to polling
            simulations.append((scenario, "polling"))
    burst = Scenario(100 if quick else 1000, 1, last=11, first=10)
    simulations += [(burst, side) for side in SIDES]
    with ProcessPoolExecutor() as pool:
        return Result("waits", list(pool.map(simulate, *zip(*simulations, strict=True))))


_WAITS = (20, 100, 1000, 5000, 10_000)


def tables(result: Result) -> str:
    """Return the table."""
    heads = (
        *("waits", "clusters", "ends a minute", "side", "calls a minute", "most status"),
        *("most lists", "429s", "delay p50, s", "p95", "p99", "calls, vs ours", "p95, vs ours"),
    )
    lines = []
    for row in result.rows:
        ours_row = _ours(result, row)
        is_polling = row["side"] == "polling"
        sign = "> " if row["unseen"] else ""
        side = f"ours, {row['limit']} a minute" if row["limit"] else row["side"]
        lines.append(
            (
                *(row["waits"], row["clusters"], row["ends_per_minute"]),
                side,
                row["calls_per_minute"],
                *(row["peak"].get(kind, 0) for kind in ("status", "list_jobs")),
                row["throttled"],
                *(f"{sign}{delay:,.0f}" for delay in row["delay"][:3]),
                f"{row['calls_per_minute'] / ours_row['calls_per_minute']:.1f}"
                if is_polling
                else "",
                f"{sign}{row['delay'][1] / ours_row['delay'][1]:.1f}" if is_polling else "",
            )
        )
    return table(heads, lines)


def _ours(result: Result, row: dict[str, Any]) -> dict[str, Any]:
    """Return the row of this provider for the same scenario."""
    keys = ("waits", "clusters", "ends_per_minute")
    rows = [other for other in result.rows if all(other[key] == row[key] for key in keys)]
    return next(other for other in rows if other["side"] == "ours")


def goals(result: Result) -> list[tuple[str, str]]:
    """Return the goals, and whether each was reached."""
    goals = []
    for limit in (QUOTA, None):
        rows = [row for row in result.rows if row["waits"] == max(_WAITS)]
        rows = [row for row in rows if row["side"] == "ours" and row["limit"] == limit]
        delay = max(row["delay"][1] for row in rows)
        calls = max(max(row["peak"].values()) for row in rows)
        with_limit = f"`requests_per_minute: {limit or REQUESTS_PER_MINUTE}`"
        goal = (
            f"10,000 waits on 1, 5 and 20 clusters, {with_limit}: at most {QUOTA} calls of each"
            f" kind in any minute, 95 % of the ends seen within {GOAL_DELAY:.0f} s"
        )
        reached = verdict(delay <= GOAL_DELAY and calls <= QUOTA)
        goals.append((goal, f"{reached}: {calls} calls, {delay:.0f} s"))
    return goals
