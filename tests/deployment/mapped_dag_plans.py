"""The fleets: what moves while processes are killed, and two hundred migrations at once."""

from __future__ import annotations

from datetime import date

from tests.deployment.deployment import PATIENT, POOL
from tests.deployment.mapped_dags import Fleet, Mapped

#: Longer than it takes to notice that a worker is lost, so that there is a run to come back to.
KILLS = Fleet(
    "kills",
    date(2024, 1, 1),
    {
        "deferred": Mapped(12, 35, {"deferrable": True, "poll_interval": 15}),
        "waiting": Mapped(6, 35, {"deferrable": False, "poll_interval": 15, "queue": PATIENT}),
    },
)
MANY = Fleet(
    "many",
    date(2024, 2, 1),
    {
        "waiting": Mapped(8, 6, {"deferrable": False, "poll_interval": 3, "queue": PATIENT}),
        "deferred": Mapped(192, 45, {"deferrable": True, "poll_interval": 10, "pool": POOL}),
    },
)
FLEETS = [KILLS, MANY]
