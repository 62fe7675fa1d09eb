"""What a cluster is doing, in people's words instead of CDM's numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_cdm.client import errors

NORMAL = "normal"
STOPPED = "stopped"

#: Documented codes ("Querying Cluster Details").
_STATES = {
    "100": "creating",
    "200": NORMAL,
    "300": "failed",
    "303": "creation failed",
    "500": "restarting",
    "800": "frozen",
    "900": STOPPED,
    "910": "stopping",
    "920": "starting",
}
STATES = tuple(_STATES.values())
#: States that end only when a person acts.
DEAD_ENDS = ("failed", "creation failed", "frozen")
#: Longest texts that are kept of a cluster, in characters.
_NAME_LIMIT, _REASONS_LIMIT = 200, 2_000


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster, as its details describe it.

    :param cluster_id: cluster that was asked for.
    :param name: as shown in the console.
    :param status: CDM's code, such as ``200``; an unknown one is no reason to fail.
    :param frozen: whether the account may not use it, usually for an unpaid bill.
    :param reasons: why it failed, as far as CDM says so.
    """

    cluster_id: str
    name: str
    status: str
    frozen: bool = False
    reasons: str = ""

    @property
    def state(self) -> str:
        """What it is doing: one of :data:`STATES`, or ``status`` and an unknown code."""
        return "frozen" if self.frozen else _STATES.get(self.status, f"status {self.status}")

    def __str__(self) -> str:
        return f"cluster {self.name!r} ({self.cluster_id})"

    def ensure_usable(self) -> Cluster:
        """Return the cluster unless it has come to a dead end.

        :raises CdmClusterUnusable: says why, and what to do.
        """
        if self.state not in DEAD_ENDS:
            return self
        advice = (
            "That is usually an unpaid bill or a violation: see the account's messages in the"
            " console. Its jobs run again once it is unfrozen"
            if self.frozen or self.state == "frozen"
            else "Look at it in the CDM console under Cluster Management, restart it there, or have"
            " it repaired by Huawei Cloud support"
        )
        because = f": {self.reasons}" if self.reasons else ""
        raise errors.CdmClusterUnusable(f"The {self} is {self.state}{because}. {advice}.")

    def to_payload(self) -> dict[str, Any]:
        """All of it as plain JSON, to cross from the triggerer to a worker."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> Cluster:
        """Read what :meth:`to_payload` made.

        :raises CdmBadResponse: when it is something else.
        """
        try:
            return cls(**payload)
        except TypeError:
            raise errors.CdmBadResponse(f"Not a cluster: {payload!r}") from None

    @classmethod
    def from_wire(cls, data: Any, cluster_id: str | None = None) -> Cluster:
        """Read a cluster of a list, or of the details, which one sample wraps in ``clusters``.

        :param cluster_id: id that was asked for; by default the one in the object.
        :raises ValueError: when it is not an object with a status.
        """
        inside = data.get("clusters") if isinstance(data, Mapping) else None
        if isinstance(inside, list) and inside:
            inside = inside[0]
        data = inside if isinstance(inside, Mapping) else data
        status = data.get("status") if isinstance(data, Mapping) else None
        if isinstance(status, bool) or not isinstance(status, str | int):
            raise ValueError("a cluster has no status")
        return cls(
            cluster_id=cluster_id or str(data.get("id"))[:_NAME_LIMIT],
            name=str(data.get("name") or "")[:_NAME_LIMIT],
            status=str(status)[:_NAME_LIMIT],
            frozen=str(data.get("isFrozen")) == "1",
            reasons="; ".join(_messages(data.get("failedReasons")))[:_REASONS_LIMIT],
        )


def state(value: Any) -> str:
    """Return the state that a user means.

    :raises CdmConfigError: when there is none of that name.
    """
    text = str(value).strip().lower().replace("_", " ")
    if text not in STATES:
        raise errors.CdmConfigError(
            f"There is no cluster state {value!r}; there are {', '.join(STATES)}."
        )
    return text


def _messages(reasons: Any) -> Iterator[str]:
    """The texts in ``failedReasons``: objects with ``errorMsg``, under the name of an action."""
    if isinstance(reasons, str) and reasons:
        yield reasons
    elif isinstance(reasons, Mapping):
        for key, value in reasons.items():
            if key == "errorMsg" or not isinstance(value, str):
                yield from _messages(value)
