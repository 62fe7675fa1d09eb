"""The mapped DAGs: one whose processes are killed, and one with two hundred migrations at once."""

from __future__ import annotations

from datetime import date

from tests.deployment.deployment import POOL, WAITING_QUEUE
from tests.deployment.mapped_dags import MappedDag, MappedTask

#: Runs last longer than Airflow needs to notice a killed worker, so that retries find them active.
KILLS = MappedDag(
    "kills",
    date(2024, 1, 1),
    {
        "deferred": MappedTask(12, 35, {"deferrable": True, "poll_interval": 15}),
        "waiting": MappedTask(
            6, 35, {"deferrable": False, "poll_interval": 15, "queue": WAITING_QUEUE}
        ),
    },
)
MANY = MappedDag(
    "many",
    date(2024, 2, 1),
    {
        "waiting": MappedTask(
            8, 6, {"deferrable": False, "poll_interval": 3, "queue": WAITING_QUEUE}
        ),
        "deferred": MappedTask(192, 45, {"deferrable": True, "poll_interval": 10, "pool": POOL}),
    },
)
MAPPED_DAGS = [KILLS, MANY]
