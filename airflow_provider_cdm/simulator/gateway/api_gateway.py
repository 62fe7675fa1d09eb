"""The API gateway: identifies the sender of a request and checks access to the project."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_cdm.simulator.errors import GatewayError, PolicyError, unauthorized
from airflow_provider_cdm.simulator.gateway.iam import format_time
from airflow_provider_cdm.simulator.gateway.signatures import SignatureVerifier
from airflow_provider_cdm.simulator.messages import Identity, Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_cdm.simulator.config.config import AccessKey, SimulatorConfig
    from airflow_provider_cdm.simulator.gateway.iam import Iam


class Gateway:
    """Checks credentials. All methods expect that the caller holds the backend's lock.

    :param config: configuration with the users, their access keys, and the projects.
    :param iam: identity service that issued the tokens.
    """

    def __init__(self, config: SimulatorConfig, iam: Iam) -> None:
        self._config, self._iam = config, iam
        pairs = [(key, user) for user in config.users for key in user.access_keys]
        self._owners = {key.access_key: user for key, user in pairs}
        self._signatures = SignatureVerifier({key.access_key: key for key, _ in pairs})

    def change_access_keys(self, name: str, keys: Sequence[AccessKey]) -> None:
        """Replace the access keys of the user of a name."""
        user = next(user for user in self._config.users if user.name == name)
        self._owners = {key: owner for key, owner in self._owners.items() if owner.name != name}
        self._owners |= {key.access_key: user for key in keys}
        others = {key: value for key, value in self._signatures.keys.items() if key in self._owners}
        self._signatures.keys = others | {key.access_key: key for key in keys}

    def identify(self, request: Request, now: float) -> Identity:
        """Return the sender of a request.

        :param request: request with a signature or a token.
        :param now: current time in seconds since 1970.
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
            raise unauthorized(f"token expires, expires_at: {format_time(token.expires)}")
        projects = {token.project.id} if token.project else set[str]()
        return Identity(token.user, token.domain, frozenset(projects))

    def authorize(self, request: Request, now: float) -> Identity:
        """Return the sender of a request after checking access to the project in its path.

        :param request: request with a signature or a token.
        :param now: current time in seconds since 1970.
        :raises WireError: 401, or 403 for another project (the code of which is ASSUMED).
        """
        wrong_region = self._config.behaviour.wrong_region
        if wrong_region == "no-api":
            raise GatewayError(404, "APIGW.0101", "The API does not exist or is not published.")
        identity = self.identify(request, now)
        if wrong_region == "token":
            raise GatewayError(401, "APIGW.0307", "The token must be updated.")
        if self._iam.is_refused_by_policy(identity):
            raise PolicyError(401, "EPS.0003", "Policy doesn't allow this operation.")
        if request.params.get("project_id") not in identity.projects:
            raise GatewayError(403, "APIGW.0310", "The project is not accessible with this token.")
        return identity

    def _projects_of(self, domain: str) -> frozenset[str]:
        return frozenset(
            project.id
            for project in self._config.projects
            if self._iam.domain_of(project) == domain
        )
