"""The API gateway's part: who a request to CDM is from, and whether it may use the project."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_cdm.simulator.errors import GatewayError, unauthorized
from airflow_provider_cdm.simulator.gateway.iam import instant
from airflow_provider_cdm.simulator.gateway.signatures import SignatureCheck

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.config.config import SimulatorConfig
    from airflow_provider_cdm.simulator.gateway.iam import Iam
    from airflow_provider_cdm.simulator.messages import Request


@dataclass(frozen=True)
class Identity:
    """Who sent a request: a user, or an agency on behalf of its account.

    :param projects: ids of the projects the credentials are good for.
    """

    user: str
    domain: str
    projects: frozenset[str]


class Gateway:
    """Looks at credentials. Methods expect the simulator's lock to be held.

    :param config: users with their keys, and projects.
    :param iam: knows the tokens.
    """

    def __init__(self, config: SimulatorConfig, iam: Iam) -> None:
        self._config, self._iam = config, iam
        pairs = [(key, user) for user in config.users for key in user.access_keys]
        self._owners = {key.access_key: user for key, user in pairs}
        self._signatures = SignatureCheck({key.access_key: key for key, _ in pairs})

    def identify(self, request: Request, now: float) -> Identity:
        """Return who a request is from.

        :param request: the request.
        :param now: the present instant.
        :raises GatewayError: 401 with one of the documented sub-messages.
        """
        if request.headers.get("authorization"):
            owner = self._owners[self._signatures.verify(request, now)]
            domain = self._iam.domain_of(owner)
            return Identity(owner.name, domain, self._projects_of(domain))
        value = request.headers.get("x-auth-token")
        if not value:
            raise unauthorized("x-auth-token not found")
        token = self._iam.tokens.get(value)
        if token is None:
            raise unauthorized("decrypt token fail")
        if token.expires <= now:
            raise unauthorized(f"token expires, expires_at: {instant(token.expires)}")
        projects = {token.project.id} if token.project else set[str]()
        return Identity(token.user, token.domain, frozenset(projects))

    def authorize(self, request: Request, now: float) -> Identity:
        """Return who a request is from, provided they may use the project in its path.

        :param request: the request.
        :param now: the present instant.
        :raises GatewayError: 401, or 403 for another project (which code that has is ASSUMED).
        """
        identity = self.identify(request, now)
        if request.params.get("project_id") not in identity.projects:
            raise GatewayError(403, "APIGW.0310", "The project is not accessible with this token.")
        return identity

    def _projects_of(self, domain: str) -> frozenset[str]:
        return frozenset(
            each.id for each in self._config.projects if self._iam.domain_of(each) == domain
        )
