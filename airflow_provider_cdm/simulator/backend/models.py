"""What a cluster holds: links and jobs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.backend.run import RunLifecycle
    from airflow_provider_cdm.simulator.config.job_config import JobConfig


@dataclass
class Link:
    """A link; ``wire`` is the object it was created with, ``url`` the database it stands for."""

    name: str
    wire: dict[str, Any]
    url: str | None
    user: str
    created: float
    updated: float
    enabled: bool = True


@dataclass
class Job:
    """A job and its submissions, oldest first."""

    number: int
    config: JobConfig
    user: str
    created: float
    updated: float
    lifecycles: list[RunLifecycle] = field(default_factory=list)
    #: How many submissions there were when its outcomes were last configured.
    outcomes_from: int = 0
    #: The whole-database job of which it is a sub-job.
    part_of: str | None = None

    @property
    def name(self) -> str:
        """The name, unique in its cluster."""
        return self.config.name

    @property
    def last(self) -> RunLifecycle | None:
        """The newest submission."""
        return self.lifecycles[-1] if self.lifecycles else None

    @property
    def active(self) -> bool:
        """Whether the newest submission is still going on."""
        return self.last is not None and self.last.run.active
