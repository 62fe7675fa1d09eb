"""The lock-out guard: rejected credentials are not sent again for some time.

IAM locks an account after a few wrong passwords, and the API gateway locks an access key after five
wrong signatures in a row. Many tasks that fail at the same time must not lock their own account.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field

from airflow_provider_cdm.client.errors import CdmAuthError


@dataclass(frozen=True, slots=True)
class _Rejection:
    scope: Hashable
    error: CdmAuthError
    until: float


@dataclass(slots=True)
class LockoutGuard:
    """Remembers the credentials that were rejected in this process.

    :param seconds: how long a rejection is remembered.
    :param max_attempts: how often the same credentials may be rejected within that time, in all
        scopes together, before they are no longer sent.
    :param consequence: what the guard achieves, to complete the sentence "... so that ...".
    """

    seconds: float
    max_attempts: int
    consequence: str
    rejections: dict[Hashable, tuple[_Rejection, ...]] = field(default_factory=dict)

    def check(self, credentials: Hashable, scope: Hashable, now: float) -> None:
        """Raise an error if credentials must not be sent now.

        A rejection may be about the scope alone (a project without permission), so one rejection
        blocks only its own scope. ``max_attempts`` rejections block all scopes.

        :param credentials: key of the credentials.
        :param scope: what the authorization is requested for, such as a project.
        :param now: seconds by the monotonic clock.
        :raises CdmAuthError: with the reason of the earlier rejection.
        """
        recent = [item for item in self.rejections.get(credentials, ()) if now < item.until]
        same_scope = [item for item in recent if item.scope == scope]
        if not same_scope and len(recent) < self.max_attempts:
            return
        rejection = (same_scope or recent)[-1]
        minutes = math.ceil((rejection.until - now) / 60)
        raise CdmAuthError(
            f"{rejection.error.message} These credentials were rejected recently and are not sent"
            f" again for {minutes} min in this process, so that {self.consequence}.",
            http_status=rejection.error.http_status,
            code=rejection.error.code,
            request_id=rejection.error.request_id,
        )

    def record(
        self, credentials: Hashable, scope: Hashable, error: CdmAuthError, now: float
    ) -> None:
        """Remember a rejection.

        :param credentials: key of the credentials.
        :param scope: what the authorization was requested for.
        :param error: the rejection.
        :param now: seconds by the monotonic clock.
        """
        earlier = self.rejections.get(credentials, ())
        self.rejections[credentials] = (
            *earlier[-self.max_attempts :],
            _Rejection(scope, error, now + self.seconds),
        )

    def clear(self, credentials: Hashable, scope: Hashable) -> None:
        """Forget the rejections of a scope, since the same credentials were accepted for it."""
        self.rejections[credentials] = tuple(
            item for item in self.rejections.get(credentials, ()) if item.scope != scope
        )
