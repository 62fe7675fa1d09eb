"""Credentials that were refused a short while ago, so that they are not sent again and again.

IAM locks an account after a few wrong passwords, and the gateway an access key after five bad
signatures in a row; many tasks that fail at once must not do that to their own account.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field

from airflow_provider_cdm.client.errors import CdmAuthError


@dataclass(frozen=True, slots=True)
class _Refusal:
    place: Hashable
    error: CdmAuthError
    until: float


@dataclass(slots=True)
class LockoutGuard:
    """What was refused in this process.

    :param seconds: how long a refusal is remembered.
    :param max_attempts: how many refusals of the same credentials are borne within that time, wherever
        they were sent.
    :param consequence: what sending them again may lead to, to complete "so that ...".
    """

    seconds: float
    max_attempts: int
    consequence: str
    refusals: dict[Hashable, tuple[_Refusal, ...]] = field(default_factory=dict)

    def check(self, credentials: Hashable, place: Hashable, now: float) -> None:
        """Let credentials pass that were not refused of late.

        A refusal may be about the place alone (a project), so it counts for its own; but as many
        as are borne count for all places.

        :param now: epoch seconds.
        :raises CdmAuthError: with the reason of the earlier refusal.
        """
        recent = [one for one in self.refusals.get(credentials, ()) if now < one.until]
        here = [one for one in recent if one.place == place]
        if not here and len(recent) < self.max_attempts:
            return
        refusal = (here or recent)[-1]
        minutes = math.ceil((refusal.until - now) / 60)
        raise CdmAuthError(
            f"{refusal.error.message} These credentials were refused a short while ago and are not"
            f" sent again for {minutes} min in this process, so that {self.consequence}.",
            http_status=refusal.error.http_status,
            code=refusal.error.code,
            request_id=refusal.error.request_id,
        )

    def note(self, credentials: Hashable, place: Hashable, error: CdmAuthError, now: float) -> None:
        """Remember a refusal.

        :param now: epoch seconds.
        """
        earlier = self.refusals.get(credentials, ())
        self.refusals[credentials] = (
            *earlier[-self.max_attempts :],
            _Refusal(place, error, now + self.seconds),
        )

    def forget(self, credentials: Hashable, place: Hashable) -> None:
        """Drop what was refused at a place, since the same was accepted there now."""
        left = tuple(one for one in self.refusals.get(credentials, ()) if one.place != place)
        self.refusals[credentials] = left
