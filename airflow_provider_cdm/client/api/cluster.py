"""A cluster and its state, in words instead of CDM's numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.text import end_sentence, one_line, shown

NORMAL = "normal"
STOPPED = "stopped"

#: Status codes, as documented in "Querying Cluster Details".
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
#: States that do not end until a person intervenes.
DEAD_ENDS = ("failed", "creation failed", "frozen")
#: Name of the action that restarts a cluster.
_REBOOTING = "REBOOTING"
#: Maximum lengths of the texts kept of a cluster, in characters.
_NAME_LIMIT, _REASONS_LIMIT = 200, 2_000


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster, as its details describe it.

    :param cluster_id: id of the cluster.
    :param name: name shown in the console.
    :param status: CDM's code, such as ``200``; unknown codes are accepted.
    :param frozen: whether the account may not use it, usually because of an unpaid bill.
    :param reasons: reasons of a failure, if CDM gives any.
    :param updated: when it was changed last, as CDM writes it; empty if CDM does not show it.
    :param rebooting: whether CDM shows a restart among the actions.
    """

    cluster_id: str
    name: str
    status: str
    frozen: bool = False
    reasons: str = ""
    updated: str = ""
    rebooting: bool = False

    @property
    def is_restarting(self) -> bool:
        """Whether a restart is under way, by its state or by what is done to it."""
        return self.state == "restarting" or self.rebooting

    @property
    def state(self) -> str:
        """State: one of :data:`STATES`, or ``status`` and the code if that is unknown."""
        return "frozen" if self.frozen else _STATES.get(self.status, f"status {self.status}")

    def __str__(self) -> str:
        return f"cluster {self.name!r} ({self.cluster_id})"

    def ensure_usable(self) -> Cluster:
        """Return the cluster unless it is in one of :data:`DEAD_ENDS`.

        :raises CdmClusterUnusable: with the reason and what to do.
        """
        if self.state not in DEAD_ENDS:
            return self
        advice = (
            "The usual reason is an unpaid bill or a violation: see the messages for the account in"
            " the console. Jobs can run again once the cluster is unfrozen"
            if self.frozen or self.state == "frozen"
            else "Check it in the CDM console under Cluster Management, and restart it there or"
            " contact Huawei Cloud support"
        )
        reasons = f"{end_sentence(self.reasons)} " if self.reasons else ""
        raise errors.CdmClusterUnusable(
            f"{reasons}Cluster {self.name!r} is {self.state}. {advice} (cluster {self.cluster_id})."
        )

    def to_payload(self) -> dict[str, Any]:
        """Return the cluster as plain JSON, to pass it from the triggerer to a worker."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> Cluster:
        """Read what :meth:`to_payload` returned.

        :raises CdmBadResponse: when the payload is anything else.
        """
        try:
            return cls(**payload)
        except TypeError:
            raise errors.CdmBadResponse(f"Not a cluster: {payload!r}") from None

    @classmethod
    def from_wire(cls, data: Any, cluster_id: str | None = None) -> Cluster:
        """Read an element of the list of clusters, or the details of one.

        One documented sample of the details is wrapped in ``clusters``.

        :param cluster_id: id that was requested; by default the one in the object.
        :raises ValueError: when it is not an object with a status.
        """
        wrapped = data.get("clusters") if isinstance(data, Mapping) else None
        if isinstance(wrapped, list) and wrapped:
            wrapped = wrapped[0]
        data = wrapped if isinstance(wrapped, Mapping) else data
        status = data.get("status") if isinstance(data, Mapping) else None
        if isinstance(status, bool) or not isinstance(status, str | int):
            raise ValueError("a cluster has no status")
        return cls(
            cluster_id=cluster_id or one_line(str(data.get("id")), _NAME_LIMIT),
            name=one_line(str(data.get("name") or ""), _NAME_LIMIT),
            status=one_line(str(status), _NAME_LIMIT),
            frozen=str(data.get("isFrozen")).lower() in ("1", "true"),
            reasons=one_line("; ".join(_messages(data.get("failedReasons"))), _REASONS_LIMIT),
            updated=one_line(str(data.get("updated") or ""), _NAME_LIMIT),
            # A list by its type, plain text in the sample.
            rebooting=_REBOOTING in str(data.get("actions")).upper(),
        )


def state(value: Any) -> str:
    """Return the state that a user named, in the spelling of :data:`STATES`.

    :raises CdmConfigError: when there is no such state.
    """
    text = value.strip().lower().replace("_", " ") if isinstance(value, str) else ""
    if text not in STATES:
        raise errors.CdmConfigError(
            f"There is no cluster state {shown(value)}; the states are {', '.join(STATES)}."
        )
    return text


def _messages(reasons: Any) -> Iterator[str]:
    """Yield the texts in ``failedReasons``: objects with ``errorMsg``, by the name of an action."""
    if isinstance(reasons, str) and reasons:
        yield reasons
    elif isinstance(reasons, Mapping):
        for key, value in reasons.items():
            if key == "errorMsg" or not isinstance(value, str):
                yield from _messages(value)
