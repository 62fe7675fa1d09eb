"""The lock-out guard: rejected credentials are not sent again for some time.

IAM locks an account after a few wrong passwords, and the API gateway locks an access key after five
wrong signatures in a row. Many tasks that fail at the same time must not lock their own account.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from threading import Lock

from airflow_provider_cdm.client.errors import CdmAuthError

#: Seconds after its end for which a pause counts as one before the next.
_REMEMBERED = 3600.0


@dataclass(frozen=True, slots=True)
class _Rejection:
    credentials: Hashable
    scope: Hashable
    message: str
    http_status: int | None
    code: str | None
    request_id: str | None
    until: float


@dataclass(slots=True)
class LockoutGuard:
    """Remembers the credentials that were rejected in this process, but no secret of them.

    :param pauses: seconds for which credentials are not sent again after they were rejected for the
        first time, for the second time in a row, and so on; the last one repeats.
    :param max_attempts: how many rejections of the same credentials, for whatever scopes, may be
        remembered at a time before they are no longer sent.
    :param max_of_user: the same for all credentials of a user together: the server counts by user,
        so a new password has no new budget.
    :param consequence: what the guard achieves, to complete the sentence "... so that ...".
    """

    pauses: tuple[float, ...]
    max_attempts: int
    max_of_user: int
    consequence: str
    rejections: dict[Hashable, tuple[_Rejection, ...]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def check(
        self, user: Hashable, credentials: Hashable, scope: Hashable, now: float
    ) -> CdmAuthError | None:
        """Return the error to raise if credentials must not be sent now.

        A rejection may be about the scope alone (a project without permission), so one rejection
        blocks only its own scope. ``max_attempts`` rejections block all scopes.

        :param user: whom the server counts rejections for.
        :param credentials: key of the credentials.
        :param scope: what the authorization is requested for, such as a project.
        :param now: seconds by the monotonic clock.
        :returns: an error with the reason of the earlier rejection, and the seconds until the
            credentials may be sent in ``retry_after``; ``None`` if they may be sent now.
        """
        recent = [item for item in self.rejections.get(user, ()) if now < item.until]
        same = [item for item in recent if item.credentials == credentials]
        until = max(
            max((item.until for item in same if item.scope == scope), default=-math.inf),
            _full_until(same, self.max_attempts),
            _full_until(recent, self.max_of_user),
        )
        if until <= now:
            return None
        rejection = (same or recent)[-1]
        whose = "These credentials" if same else "Other credentials of this user"
        these = "they" if same else "these"
        minutes = math.ceil((until - now) / 60)
        return CdmAuthError(
            f"{rejection.message} {whose} were rejected recently, and {these} are not sent"
            f" again for {minutes} min in this process, so that {self.consequence}.",
            http_status=rejection.http_status,
            code=rejection.code,
            request_id=rejection.request_id,
            retry_after=until - now,
        )

    def is_refused(self, user: Hashable, credentials: Hashable, now: float) -> bool:
        """Return whether credentials were rejected recently, for any scope."""
        return any(
            item.credentials == credentials and now < item.until
            for item in self.rejections.get(user, ())
        )

    def record(
        self,
        user: Hashable,
        credentials: Hashable,
        scope: Hashable,
        error: CdmAuthError,
        now: float,
    ) -> None:
        """Remember a rejection, and tell in ``error.retry_after`` for how long.

        :param user: whom the server counts rejections for.
        :param credentials: key of the credentials.
        :param scope: what the authorization was requested for.
        :param error: the rejection.
        :param now: seconds by the monotonic clock.
        """
        with self._lock:
            self._forget_old(now)
            earlier = self.rejections.get(user, ())
            number = sum((item.credentials, item.scope) == (credentials, scope) for item in earlier)
            error.retry_after = self.pauses[min(number, len(self.pauses) - 1)]
            details = error.message, error.http_status, error.code, error.request_id
            rejection = _Rejection(credentials, scope, *details, now + error.retry_after)
            self.rejections[user] = (*earlier, rejection)

    def clear(self, user: Hashable, credentials: Hashable, scope: Hashable) -> None:
        """Forget the rejections of a scope, since the same credentials were accepted for it."""
        if user not in self.rejections:
            return
        with self._lock:
            self.rejections[user] = tuple(
                item
                for item in self.rejections.get(user, ())
                if (item.credentials, item.scope) != (credentials, scope)
            )

    def _forget_old(self, now: float) -> None:
        for user, items in list(self.rejections.items()):
            kept = tuple(item for item in items if now < item.until + _REMEMBERED)
            if kept:
                self.rejections[user] = kept
            else:
                del self.rejections[user]


def _full_until(rejections: list[_Rejection], limit: int) -> float:
    """Return until when so many rejections are remembered that nothing more is sent."""
    if len(rejections) < limit:
        return -math.inf
    return sorted(item.until for item in rejections)[-limit]
