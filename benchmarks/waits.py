"""Many waits within CDM's quotas, against one poll for each wait."""

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
from benchmarks.common import QUOTA, Result, percentile, say, short, table, verdict
from benchmarks.virtual import Played, Traffic

TITLE = "Waits within the quota"
#: Seconds between two looks, as wished.
POLL_INTERVAL = 30.0
#: Ends per minute that the many runs are spread to; each costs a confirming status call.
ENDS_PER_MINUTE = 50
#: Minutes for which more than a thousand waits are played, since to the end it takes hours: the
#: runs that end in this time count. And minutes for which they may go unnoticed.
HORIZONS, GRACE = {"ours": 60.0, "polling": 5.0}, 3.0
#: Seconds that a goal allows for the slowest 5 % of ends, with 10,000 waits.
GOAL_LAG = 60.0

Wait = Callable[[CdmSession, RunRef], Awaitable[Submission]]


@dataclass(frozen=True)
class Scenario:
    """Runs that end at different times, evenly spread.

    :param first: minutes until the first of them may end.
    :param last: minutes until all have ended.
    :param limit: ``requests_per_minute`` of the connection; ``None`` for the default.
    """

    waits: int
    clusters: int
    last: float
    first: float = 1.0
    limit: int | None = None

    @classmethod
    def mixed(cls, waits: int, clusters: int) -> Scenario:
        """Half an hour of runs, or as long as it takes to have them end one by one."""
        return cls(waits, clusters, max(30.0, waits / ENDS_PER_MINUTE))

    @property
    def jobs(self) -> list[tuple[str, str, float]]:
        """Cluster, job and length in seconds of each run."""
        rng = random.Random(self.waits)
        span = (60 * self.first, 60 * self.last)
        numbers = range(self.waits)
        return [(f"c{i % self.clusters}", f"load_{i:05}", rng.uniform(*span)) for i in numbers]

    @property
    def ends_per_minute(self) -> float:
        """Mean of the time in which runs end."""
        return short(self.waits / (self.last - self.first))

    def config(self) -> dict[str, Any]:
        """The simulator's, with a user for each side."""
        clusters: dict[str, list[dict[str, Any]]] = {f"c{i}": [] for i in range(self.clusters)}
        for cluster, job, seconds in self.jobs:
            phases = {"booting": 0, "running": seconds}
            clusters[cluster].append({"name": job, "seconds": phases})
        return {
            "quotas": "documented",
            "users": [{"name": "watcher", "password": "w"}, {"name": "poller", "password": "p"}],
            "clusters": [{"name": id_, "id": id_, "jobs": jobs} for id_, jobs in clusters.items()],
        }


@dataclass
class Seen:
    """What the waits of one side saw.

    :param lags: seconds from the end of a run to the event of its wait.
    :param unseen: ended runs whose wait had not noticed when time was up; ``lags`` has what they
        had waited by then.
    """

    traffic: Traffic = field(default_factory=Traffic)
    lags: list[float] = field(default_factory=list)
    unseen: int = 0
    failed: int = 0
    minutes: float = 0.0


async def ours(session: CdmSession, run: RunRef) -> Submission:
    """Wait as :class:`~airflow_provider_cdm.triggers.CdmSubmissionTrigger` does."""
    with shared_poller(session, run.cluster_id) as watcher:
        return await watcher.wait(Follower(run), poll_interval=POLL_INTERVAL)


async def polling(session: CdmSession, run: RunRef) -> Submission:
    """Wait as triggers of other providers do, but with more patience: they fail when it lasts."""
    follower = Follower(run, grace=GracePeriods(outage=math.inf))
    return await session.arun(follower.follow(session.api, poll_interval=POLL_INTERVAL))


#: As with Databricks and dbt Cloud, a refused call is tried three times, with longer pauses.
POLLING_RETRIES = RetryPolicy(attempts=3)
SIDES: dict[str, Wait] = {"ours": ours, "polling": polling}


async def watch(
    wait: Wait,
    sessions: Callable[[], CdmSession],
    runs: Sequence[tuple[RunRef, float]],
    seen: Seen,
    horizon: float | None = None,
) -> None:
    """Wait for all runs at once.

    :param runs: with the instant at which each ends, epoch seconds.
    :param horizon: minutes after which an end does not count; some time later it stops.
    """
    clock = sessions().clock
    begin = clock()
    last = math.inf if horizon is None else begin + 60 * horizon

    async def one(run: RunRef, end: float) -> None:
        # A session for each, as each trigger opens one.
        ended = await wait(sessions(), run)
        if end <= last:
            seen.lags.append(clock() - end)
        seen.failed += ended.failed

    tasks = [asyncio.ensure_future(one(*each)) for each in runs]
    limit = None if horizon is None else 60 * (horizon + GRACE)
    _, late = await asyncio.wait(tasks, timeout=limit)
    seen.minutes = (clock() - begin) / 60
    for (_, end), task in zip(runs, tasks, strict=True):
        if task in late:
            task.cancel()
            if end <= last:
                seen.unseen += 1
                seen.lags.append(clock() - end)
    await asyncio.gather(*tasks, return_exceptions=True)
    seen.failed += sum(not task.cancelled() and task.exception() is not None for task in tasks)


def play(scenario: Scenario, side: str) -> dict[str, Any]:
    """Let one side wait, in virtual time."""
    logging.disable(logging.CRITICAL)  # each 429 would be a line
    horizon = HORIZONS[side] if scenario.waits > 1000 else None
    played, seen = Played(scenario.config()), Seen()
    runs = []
    for cluster, job, seconds in scenario.jobs:
        run = played.backend.clusters[cluster].start(job, {}, "somebody").run
        ref = RunRef(cluster, job, run.submission_id, round(run.created * 1000))
        runs.append((ref, run.created + seconds))
    settings = played.settings(list(SIDES).index(side), scenario.limit)
    policy = RetryPolicy() if side == "ours" else POLLING_RETRIES

    def session() -> CdmSession:
        return played.session(settings, seen.traffic, policy)

    played.run(lambda: watch(SIDES[side], session, runs, seen, horizon))
    return row_of("virtual", scenario, side, seen)


def row_of(time: str, scenario: Scenario, side: str, seen: Seen) -> dict[str, Any]:
    """What one side saw, as a row of the result.

    :param time: "real" or "virtual".
    """
    traffic = seen.traffic
    row = {
        "time": time,
        "waits": scenario.waits,
        "clusters": scenario.clusters,
        "side": side,
        "limit": scenario.limit,
        "ends_per_minute": scenario.ends_per_minute,
        "minutes": short(seen.minutes),
        "calls": {kind: len(times) for kind, times in sorted(traffic.at.items())},
        "peak": {kind: traffic.peak(kind) for kind in sorted(traffic.at)},
        "calls_per_minute": short(traffic.total / seen.minutes),
        "refused": traffic.throttled,
        "lag": [percentile(seen.lags, share) for share in (0.5, 0.95, 0.99, 1.0)],
        "unseen": seen.unseen,
        "failed": seen.failed,
    }
    say(f"waits: {row}")
    return row


def measure(*, quick: bool) -> Result:
    """Play all scenarios, several at a time: load changes nothing in virtual time."""
    plays = []
    spread = [(20, 1), (100, 5)] if quick else [(n, c) for n in _WAITS for c in (1, 5, 20)]
    for waits, clusters in spread:
        scenario = Scenario.mixed(waits, clusters)
        plays.append((scenario, "ours"))
        if waits == max(_WAITS):
            plays.append((replace(scenario, limit=QUOTA), "ours"))
        if clusters == 1 or quick:  # to whom it makes no difference
            plays.append((scenario, "polling"))
    burst = Scenario(100 if quick else 1000, 1, last=11, first=10)
    plays += [(burst, side) for side in SIDES]
    with ProcessPoolExecutor() as pool:
        return Result("waits", list(pool.map(play, *zip(*plays, strict=True))))


_WAITS = (20, 100, 1000, 5000, 10_000)


def tables(result: Result) -> str:
    """The table."""
    heads = (
        *("waits", "clusters", "ends a minute", "who", "calls a minute", "most status"),
        *("most lists", "429s", "delay p50, s", "p95", "p99", "calls, to ours", "p95, to ours"),
    )
    lines = []
    for row in result.rows:
        mine = _counterpart(result, row)
        polls = row["side"] == "polling"
        sign = "> " if row["unseen"] else ""
        who = "polling" if polls else f"ours, {row['limit']} a minute" if row["limit"] else "ours"
        lines.append(
            (
                *(row["waits"], row["clusters"], row["ends_per_minute"]),
                who,
                row["calls_per_minute"],
                *(row["peak"].get(kind, 0) for kind in ("status", "list_jobs")),
                row["refused"],
                *(f"{sign}{lag:,.0f}" for lag in row["lag"][:3]),
                f"{row['calls_per_minute'] / mine['calls_per_minute']:.1f}" if polls else "",
                f"{sign}{row['lag'][1] / mine['lag'][1]:.1f}" if polls else "",
            )
        )
    return table(heads, lines)


def _counterpart(result: Result, row: dict[str, Any]) -> dict[str, Any]:
    same = ("waits", "clusters", "ends_per_minute")
    alike = [each for each in result.rows if all(each[key] == row[key] for key in same)]
    return next(each for each in alike if each["side"] == "ours")


def goals(result: Result) -> list[tuple[str, str]]:
    """What was to be reached, and what was."""
    found = []
    for limit in (QUOTA, None):
        rows = [r for r in result.rows if r["waits"] == max(_WAITS) and r["side"] == "ours"]
        rows = [row for row in rows if row["limit"] == limit]
        lag = max(row["lag"][1] for row in rows)
        calls = max(max(row["peak"].values()) for row in rows)
        with_limit = f"`requests_per_minute: {limit or REQUESTS_PER_MINUTE}`"
        what = (
            f"10,000 waits on 1, 5 and 20 clusters, {with_limit}: at most {QUOTA} calls of each"
            f" kind in any minute, 95 of 100 ends seen within {GOAL_LAG:.0f} s"
        )
        met = verdict(lag <= GOAL_LAG and calls <= QUOTA)
        found.append((what, f"{met}: {calls} calls, {lag:.0f} s"))
    return found
