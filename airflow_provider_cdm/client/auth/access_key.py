"""Requests signed with an access key, and the project id that such requests have to name."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.auth.base import (
    Authorization,
    rejects_credentials,
    with_authorization,
)
from airflow_provider_cdm.client.auth.lockout import LockoutGuard
from airflow_provider_cdm.client.auth.signing import sign
from airflow_provider_cdm.client.http import error_mapping
from airflow_provider_cdm.client.http.retry import Exchanger
from airflow_provider_cdm.client.sansio import Flow, Request, Response
from airflow_provider_cdm.client.settings import KeyCredentials, Settings
from airflow_provider_cdm.client.text import read_json

log = logging.getLogger(__name__)

#: Seconds for which a refused key is not used again: the gateway locks it for as long after five.
LOCKOUT_SECONDS = 300.0
#: Seconds of difference to the server's clock from which a refusal is put down to it. The gateway
#: bears 900, and the answer that tells its time may have been a while on its way.
MAX_SKEW = 600.0
#: Seconds of difference from which it is the server's clock that is wrong.
MAX_PLAUSIBLE_SKEW = 10 * 365 * 86_400.0


@dataclass(slots=True)
class _KeyState:
    """What was learnt about one key in this process.

    :param skew: seconds to add to our clock, so that signatures bear the server's time.
    :param project_ids: ids of projects, by their names.
    """

    skew: float = 0.0
    project_ids: dict[str, str] = field(default_factory=dict)


_states: dict[tuple[object, ...], _KeyState] = {}
_refusals = LockoutGuard(LOCKOUT_SECONDS, 1, "the gateway does not lock the access key")


def forget_keys() -> None:
    """Drop all that was learnt in this process; for tests."""
    _states.clear()
    _refusals.refusals.clear()


@dataclass(frozen=True, slots=True)
class Signature:
    """Signs requests.

    :param exchanger: tells the time.
    :param skew: seconds to add to it.
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
    """Authorises requests by signing them.

    :param settings: their project id, or else their project name, is looked at.
    :param keys: what to sign with.
    :param exchanger: performs the look-up of the project.
    """

    settings: Settings
    keys: KeyCredentials
    exchanger: Exchanger

    def authorize(self) -> Flow[Authorization]:
        """Get a grant for the settings' project; for none where they name none.

        :raises CdmAuthError: when the key was refused a short while ago.
        :raises CdmConfigError: when the project's name does not lead to one project.
        """
        project_id = self.settings.project_id
        if project_id is None and self.settings.project_name:
            project_id = yield from self._project_id(self.settings.project_name)
        return self._signer(project_id)

    def invalidate(self, authorization: Authorization, error: errors.CdmError) -> Flow[bool]:
        """Put a refusal down to the clock, once, or remember it."""
        yield from ()
        if not rejects_credentials(error) or not isinstance(authorization, Signature):
            return False
        state = self._state()
        if state.skew != authorization.skew:
            return True
        skew = self.exchanger.server_clock.offset
        if abs(skew - state.skew) > MAX_SKEW and abs(skew) < MAX_PLAUSIBLE_SKEW:
            log.warning(
                "The clock of this machine is %.0f s %s that of %s, which does not bear it in"
                " signatures. They are made with the server's time now; set this machine's clock.",
                *(abs(skew), "behind" if skew > 0 else "ahead of", self.settings.cdm_endpoint),
            )
            state.skew = skew
            return True
        if isinstance(error, errors.CdmAuthError):
            _refusals.note(self._identity(), None, error, self.exchanger.clock())
        return False

    def _signer(self, project_id: str | None) -> Signature:
        _refusals.check(self._identity(), None, self.exchanger.clock())
        return Signature(self.keys, self.exchanger, self._state().skew, project_id)

    def _state(self) -> _KeyState:
        return _states.setdefault(self._identity(), _KeyState())

    def _identity(self) -> tuple[object, ...]:
        return self.settings.iam_endpoint, self.settings.cdm_endpoint, self.keys

    def _project_id(self, name: str) -> Flow[str]:
        """Look a project up by its name, once per process."""
        known = self._state().project_ids
        if name not in known:
            # Itself signed without a project.
            nameless = replace(self, settings=replace(self.settings, project_name=None))
            known[name] = yield from with_authorization(
                nameless, lambda authorization: self._find_project(authorization, name)
            )
        return known[name]

    def _find_project(self, authorization: Authorization, name: str) -> Flow[str]:
        """``GET /v3/projects?name=`` (IAM API, "Querying Project Information")."""
        operation = f"find project {name!r} at {self.settings.iam_endpoint}"
        request = Request(
            method="GET",
            url=f"{self.settings.iam_endpoint}/v3/projects?name={quote(name, safe='')}",
            headers={"Content-Type": "application/json"},
        )
        response = yield from self.exchanger.exchange(
            request, operation, idempotent=True, authorize=authorization.apply
        )
        return _only_project(response, operation, name)


def _only_project(response: Response, operation: str, name: str) -> str:
    try:
        found: Any = read_json(response.body)["projects"]
        ids = [(str(each["id"]), str(each["name"])) for each in found]
    except (ValueError, KeyError, TypeError):
        raise error_mapping.bad_response(
            response, operation, "the answer lists no projects"
        ) from None
    # One that bears exactly this name is meant, whatever else the server finds like it.
    exact = [each for each in ids if each[1] == name] or ids
    # The id goes into a header.
    if len(exact) == 1 and re.fullmatch(r"[\w-]+", exact[0][0], re.ASCII):
        return exact[0][0]
    listed = ", ".join(f"{label} ({number})" for number, label in exact) or "none"
    raise errors.CdmConfigError(
        f"Could not {operation}: one project was expected, and found was: {listed}. Fill in Project"
        " ID."
    )
