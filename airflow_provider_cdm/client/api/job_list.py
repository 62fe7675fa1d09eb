"""The job list of a cluster: pages of up to 100 jobs, each with the status of its newest run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_cdm.client.submission import (
    Verdict,
    read_int,
    read_status,
    verdict_of,
)


@dataclass(frozen=True, slots=True)
class ListedJob:
    """A job as a listing shows it.

    :param name: name of the job.
    :param status: status of its newest run, in capitals if it is known; ``NEW`` if it has none.
    :param created: time at which that run was created, epoch milliseconds.
    :param wire: complete entry of the listing.
    """

    name: str
    status: str
    created: int | None = None
    wire: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def active(self) -> bool:
        """Whether its newest run is active."""
        return verdict_of(self.status) is Verdict.ACTIVE

    @classmethod
    def from_wire(cls, data: Any) -> ListedJob:
        """Read one element of ``jobs``.

        :raises ValueError: when it is not an object with a name.
        """
        name = data.get("name") if isinstance(data, dict) else None
        if not isinstance(name, str) or not name:
            raise ValueError("a job has no name")
        status = data.get("status")
        created = read_int(data.get("execute_create_date"))
        return cls(name, read_status(status) if isinstance(status, str) else "", created, data)


@dataclass(frozen=True, slots=True)
class JobPage:
    """One page of a listing.

    :param jobs: jobs on this page.
    :param total: number of jobs on all pages, if the server gives it.
    """

    jobs: list[ListedJob]
    total: int | None = None


def name_filter(prefix: str) -> str:
    """Return the filter of a listing for names with a common prefix.

    Only letters, digits, ``_`` and ``-`` are used: other characters may have a meaning in a filter.

    :param prefix: prefix of all names.
    """
    match = re.match(r"[A-Za-z0-9_-]*", prefix)
    return match[0] if match else ""
