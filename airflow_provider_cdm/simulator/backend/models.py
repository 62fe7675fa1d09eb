"""The links and jobs of a cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.backend.lifecycle import RunLifecycle
    from airflow_provider_cdm.simulator.config.job_config import JobConfig


@dataclass
class Link:
    """A link.

    :param wire: link object (JSON) that it was created with.
    :param url: SQLAlchemy URL of the database behind it, if any.
    :param user: name of the user who created it.
    :param created: time of its creation, in seconds since 1970.
    :param updated: time of its last change, in seconds since 1970.
    """

    name: str
    wire: dict[str, Any]
    url: str | None
    user: str
    created: float
    updated: float
    enabled: bool = True


@dataclass
class Job:
    """A job and its submissions, the oldest first.

    :param number: id of the job, unique in its cluster.
    :param user: name of the user who created it.
    :param created: time of its creation, in seconds since 1970.
    :param updated: time of its last change, in seconds since 1970.
    """

    number: int
    config: JobConfig
    user: str
    created: float
    updated: float
    lifecycles: list[RunLifecycle] = field(default_factory=list)
    #: Number of submissions when the outcomes were last configured.
    outcomes_from: int = 0
    #: Name of the whole-database job that this sub-job belongs to.
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
        """Whether the newest submission has not ended."""
        return self.last is not None and self.last.run.active
