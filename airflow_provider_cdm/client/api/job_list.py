"""The list of a cluster's jobs, as CDM shows it: a hundred jobs a page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_cdm.client.submission import Verdict, read_int, verdict_of


@dataclass(frozen=True, slots=True)
class ListedJob:
    """A job as a listing shows it.

    :param status: of its newest run; ``NEW`` if it has none.
    :param created: when that run was created, epoch milliseconds.
    :param wire: all that the listing shows of it.
    """

    name: str
    status: str
    created: int | None = None
    wire: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def active(self) -> bool:
        """Whether its newest run is under way."""
        return verdict_of(self.status) is Verdict.ACTIVE

    @classmethod
    def from_wire(cls, data: Any) -> ListedJob:
        """Read one element of ``jobs``.

        :raises ValueError: when it is not an object with a name.
        """
        name = data.get("name") if isinstance(data, Mapping) else None
        if not isinstance(name, str) or not name:
            raise ValueError("a job has no name")
        status = data.get("status")
        created = read_int(data.get("execute_create_date"))
        return cls(name, status if isinstance(status, str) else "", created, data)


@dataclass(frozen=True, slots=True)
class JobPage:
    """One page of a listing.

    :param total: how many jobs there are on all pages, if the server says so.
    """

    jobs: list[ListedJob]
    total: int | None = None


def name_filter(common: str) -> str:
    """What to filter a listing by for names that begin alike: no more than surely means itself.

    :param common: what they all begin with.
    """
    match = re.match(r"[A-Za-z0-9_-]*", common)
    return match[0] if match else ""
