"""Authentication with an access key: signed requests, and the project id that they must name."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.auth.base import Authorization
from airflow_provider_cdm.client.auth.lockout import LockoutGuard
from airflow_provider_cdm.client.auth.project import find_project
from airflow_provider_cdm.client.auth.signing import sign
from airflow_provider_cdm.client.http.retry import Exchanger
from airflow_provider_cdm.client.sansio import Flow, Request
from airflow_provider_cdm.client.settings import KeyCredentials, Settings

log = logging.getLogger(__name__)

#: Seconds for which a rejected key is not used after its first rejection, its second one in a row,
#: and so on. The gateway locks a key for five minutes after the fifth.
PAUSES = (60.0, 300.0, 900.0)
#: How many rejections of all secrets of one access key are remembered until none is used.
MAX_REJECTIONS_OF_KEY = 3
#: Largest difference to the server's clock, in seconds, that is not taken as the cause of a
#: rejection. The gateway accepts 900; the response with the server's time may have been delayed.
MAX_SKEW = 600.0
#: Difference in seconds from which the server's clock is taken as wrong, and not ours.
MAX_PLAUSIBLE_SKEW = 10 * 365 * 86_400.0


@dataclass(slots=True)
class _KeyState:
    """What this process has found out about one access key.

    :param skew: seconds to add to our clock, so that signatures have the server's time.
    :param project_ids: ids of projects by their names.
    :param accepted: whether the last call was accepted, so that a rejection may be a fault of the
        gateway.
    """

    skew: float = 0.0
    project_ids: dict[str, str] = field(default_factory=dict)
    accepted: bool = False


_states: dict[tuple[object, ...], _KeyState] = {}
_guard = LockoutGuard(PAUSES, 1, MAX_REJECTIONS_OF_KEY, "the gateway does not lock the access key")


def forget_keys() -> None:
    """Drop all clock differences, project ids and rejections of this process; for tests."""
    _states.clear()
    _guard.rejections.clear()


@dataclass(frozen=True, slots=True)
class Signature:
    """Signs requests with an access key.

    :param keys: access key that signs.
    :param exchanger: provides the clock.
    :param skew: seconds to add to that clock.
    :param project_id: project that requests name in ``X-Project-Id``; ``None`` for none.
    """

    keys: KeyCredentials
    exchanger: Exchanger
    skew: float
    project_id: str | None = None

    def apply(self, request: Request) -> Request:
        """Return the request with its signature."""
        if self.project_id:
            headers = {**request.headers, "X-Project-Id": self.project_id}
            request = replace(request, headers=headers)
        return sign(request, self.keys, self.exchanger.clock() + self.skew)


@dataclass(frozen=True, slots=True)
class AccessKeyAuth:
    """Authorizes requests by signing them.

    :param settings: project id, or project name to find the id, and endpoints.
    :param keys: access key that signs.
    :param exchanger: performs the call that finds the project id.
    """

    settings: Settings
    keys: KeyCredentials
    exchanger: Exchanger

    def is_ready(self) -> bool:
        """Return whether a signature needs no call, or is not made now."""
        settings = self.settings
        looks_up = settings.project_id is None and settings.project_name
        known = not looks_up or settings.project_name in self._state().project_ids
        return known or self.is_refused()

    def is_refused(self) -> bool:
        """Return whether the gateway rejected the key recently."""
        return _guard.is_refused(*self._credentials(), self.exchanger.uptime())

    def is_current(self, authorization: Authorization) -> bool:
        """Return whether a signature is made with the present key and clock difference."""
        return (
            isinstance(authorization, Signature)
            and authorization.keys == self.keys
            and authorization.skew == self._state().skew
        )

    def authorize(self) -> Flow[Authorization]:
        """Return a signature for the project of the settings, if they name one.

        :raises CdmAuthError: when the key was rejected recently.
        :raises CdmConfigError: when there is not exactly one project of that name.
        """
        project_id = self.settings.project_id
        if project_id is None and self.settings.project_name:
            project_id = yield from self._project_id(self.settings.project_name)
        return self._signature(project_id)

    def invalidate(
        self, authorization: Authorization, error: errors.CdmError, *, last: bool = False
    ) -> Flow[bool]:
        """Correct the clock difference if it explains the rejection; otherwise remember it.

        A key that was accepted a moment ago is used once more: a gateway has faults, too.
        """
        yield from ()
        if not error.refuses_credentials or error.http_status == 407:
            return False
        if not self.is_current(authorization):
            return True
        state = self._state()
        skew = self.exchanger.server_clock.offset
        if abs(skew - state.skew) > MAX_SKEW and abs(skew) < MAX_PLAUSIBLE_SKEW:
            log.warning(
                "The clock of this machine is %.0f s %s the clock of %s, which rejects signatures"
                " with such a difference. Signatures now use the server's time. Set this machine's"
                " clock.",
                *(abs(skew), "behind" if skew > 0 else "ahead of", self.settings.cdm_endpoint),
            )
            state.skew = skew
            return True
        if not last and state.accepted:
            state.accepted = False
            return True
        if isinstance(error, errors.CdmAuthError):
            _guard.record(*self._credentials(), None, error, self.exchanger.uptime())
        return False

    def accept(self, authorization: Authorization) -> None:  # noqa: ARG002 - part of the interface
        """Note that the gateway knows the key, which also ends its count of rejections."""
        self._state().accepted = True
        _guard.clear(*self._credentials(), None)

    def forget(self) -> None:
        """Drop what is known of the key."""
        _states.pop(self._identity(), None)

    def _signature(self, project_id: str | None) -> Signature:
        blocked = _guard.check(*self._credentials(), None, self.exchanger.uptime())
        if blocked is not None:
            raise blocked
        return Signature(self.keys, self.exchanger, self._state().skew, project_id)

    def _state(self) -> _KeyState:
        return _states.setdefault(self._identity(), _KeyState())

    def _identity(self) -> tuple[object, ...]:
        settings = self.settings
        return settings.iam_endpoint, settings.cdm_endpoint, settings.credentials_key

    def _credentials(self) -> tuple[object, str]:
        """Return whom the gateway counts rejections for, and what distinguishes the secrets."""
        settings = self.settings
        user = settings.iam_endpoint, settings.cdm_endpoint, self.keys.access_key
        return user, settings.credentials_key

    def _project_id(self, name: str) -> Flow[str]:
        """Return the id of a project by its name; it is read once per process."""
        project_ids = self._state().project_ids
        if name not in project_ids:
            # These calls are signed without a project.
            auth = replace(self, settings=replace(self.settings, project_name=None))
            endpoint = self.settings.iam_endpoint
            project_ids[name] = yield from find_project(auth, self.exchanger, endpoint, name)
        return project_ids[name]
