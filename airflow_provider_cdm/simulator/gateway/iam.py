"""IAM: tokens by password and agency, their expiry, and the lock-out after wrong passwords."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_cdm.simulator.config.config import ProjectConfig, UserConfig, stable_hex
from airflow_provider_cdm.simulator.errors import IamError
from airflow_provider_cdm.simulator.gateway.lockout import LoginAttempts

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.config.config import SimulatorConfig


@dataclass(frozen=True)
class Token:
    """A token; ``issued`` and ``expires`` are seconds since 1970."""

    value: str = field(repr=False)
    user: str
    domain: str
    method: str
    project: ProjectConfig | None
    issued: float
    expires: float
    assumed_by: str | None = None


class Delegate(Protocol):
    """The user who requests a token of an agency, to act for another account."""

    @property
    def user(self) -> str:
        """Name of the user."""

    @property
    def domain(self) -> str:
        """Account of the user."""


class Iam:
    """The identity service. All methods expect that the caller holds the backend's lock.

    :param config: configuration with accounts, users, projects and agencies.
    """

    def __init__(self, config: SimulatorConfig) -> None:
        self._config = config
        self._users = {(self.domain_of(user), user.name): user for user in config.users}
        #: All tokens that were issued and not revoked, including expired ones.
        self.tokens: dict[str, Token] = {}
        self._attempts: dict[tuple[str, str], LoginAttempts] = {}
        domains = {config.domain, *(self.domain_of(user) for user in config.users)}
        domains |= {self.domain_of(project) for project in config.projects}
        self._domains = domains | {agency.domain for agency in config.agencies}

    def revoke_tokens(self) -> None:
        """Forget all tokens that were issued so far."""
        self.tokens.clear()

    def change_password(self, name: str, password: str) -> None:
        """Replace the password of the users of a name, and forget their tokens."""
        for key, user in self._users.items():
            if user.name == name:
                self._users[key] = replace(user, password=password)
        self.forget_tokens_of(name)

    def forget_tokens_of(self, name: str) -> None:
        """Forget the tokens that were issued to users of a name, also for agencies."""
        self.tokens = {
            value: token
            for value, token in self.tokens.items()
            if name not in (token.user, token.assumed_by)
        }

    # Tokens

    def issue(self, body: Mapping[str, Any], delegate: Callable[[], Delegate], now: float) -> Token:
        """Issue a token (pages "Obtaining a User Token" and "Obtaining an Agency Token").

        :param body: JSON body of the request.
        :param delegate: function that returns the sender, called for agency tokens only.
        :param now: current time in seconds since 1970.
        :raises IamError: if the request is malformed or the credentials are wrong.
        """
        auth = _part(body, "auth")
        identity = _part(auth, "identity")
        methods = identity.get("methods")
        scope = auth.get("scope") if isinstance(auth.get("scope"), Mapping) else None
        if methods == ["password"]:
            user = self._verify_password(_part(_part(identity, "password"), "user"), now)
            domain = self.domain_of(user)
            project = self._project(scope, domain)
            return self._issue_token(user.name, domain, "password", project, now)
        if methods == ["assume_role"]:
            return self._issue_agency_token(_part(identity, "assume_role"), scope, delegate(), now)
        raise _invalid()

    def _verify_password(self, credentials: Mapping[str, Any], now: float) -> UserConfig:
        password = credentials.get("password")
        if not isinstance(password, str):
            raise _invalid()
        by_id = "id" in credentials
        domain = None if by_id else self._domain_named(_part(credentials, "domain"))
        user = next(
            (
                user
                for (owner, name), user in self._users.items()
                if (domain is None and credentials.get("id") == user_id(owner, name))
                or (owner == domain and name == credentials.get("name"))
            ),
            None,
        )
        wrong = IamError(401, "", "The username or password is wrong.")
        if user is None:
            raise wrong
        attempts = self._attempts.setdefault((self.domain_of(user), user.name), LoginAttempts())
        if attempts.is_locked(now):
            raise IamError(401, "IAM.0061", "The account is locked after too many failed logins.")
        if not secrets.compare_digest(password.encode(), user.password.encode()):
            attempts.add_failure(now)
            raise wrong
        attempts.clear()
        return user

    def _issue_agency_token(
        self,
        role: Mapping[str, Any],
        scope: Mapping[str, Any] | None,
        delegate: Delegate,
        now: float,
    ) -> Token:
        account = {"id": role.get("domain_id"), "name": role.get("domain_name")}
        domain = self._domain_named({key: value for key, value in account.items() if value})
        for agency in self._config.agencies:
            trusted = agency.trusted or self._config.domain
            if (agency.name, agency.domain, trusted) == (
                role.get("agency_name"),
                domain,
                delegate.domain,
            ):
                project = self._project(scope, agency.domain)
                name = f"{agency.domain}/{agency.name}"
                return self._issue_token(
                    name, agency.domain, "assume_role", project, now, assumed_by=delegate.user
                )
        # ASSUMED: the response does not distinguish a missing agency from one for another account.
        raise IamError(403, "", "You have no permission to assume this agency.")

    def _issue_token(
        self,
        user: str,
        domain: str,
        method: str,
        project: ProjectConfig | None,
        now: float,
        assumed_by: str | None = None,
    ) -> Token:
        value = "MII" + secrets.token_urlsafe(900)
        expires = now + self._config.token_seconds
        token = Token(value, user, domain, method, project, now, expires, assumed_by)
        self.tokens[value] = token
        return token

    def token(self, value: str | None, now: float) -> Token:
        """Return the token that a request to IAM is sent with.

        :param value: value of the ``X-Auth-Token`` header.
        :param now: current time in seconds since 1970.
        :raises IamError: 401 if the token is missing, unknown or expired.
        """
        token = self.tokens.get(value or "")
        if token is None or token.expires <= now:
            raise IamError(401, "", "The token must be updated or is missing.")
        return token

    def describe(self, token: Token, *, catalog: bool) -> dict[str, Any]:
        """Return the body of a response about a token.

        :param token: token to describe.
        :param catalog: whether the body contains the service catalog, which is large.
        """
        domain = self._domain_object(token.domain)
        described: dict[str, Any] = {
            "expires_at": format_time(token.expires),
            "issued_at": format_time(token.issued),
            "methods": [token.method],
            "roles": [{"id": "0", "name": "te_admin"}],
            "user": {
                "domain": domain,
                "id": user_id(token.domain, token.user),
                "name": token.user,
                "password_expires_at": "",
            },
        }
        if catalog:
            described["catalog"] = [{"type": "cdmv1.1", "name": "cdm", "endpoints": []}]
        if token.project is not None:
            project = {"domain": domain, "id": token.project.id, "name": token.project.name}
            described["project"] = project
        if token.assumed_by is not None:
            described["assumed_by"] = {"user": {"name": token.assumed_by}}
        return {"token": described}

    def find_projects(self, domain: str, name: str | None) -> list[dict[str, Any]]:
        """Return the projects of an account.

        :param domain: name of the account.
        :param name: only the project with this name; ``None`` for all.
        """
        return [
            {
                "id": project.id,
                "name": project.name,
                "domain_id": domain_id(domain),
                "enabled": True,
                "is_domain": False,
                "parent_id": domain_id(domain),
            }
            for project in self._config.projects
            if self.domain_of(project) == domain and name in (None, project.name)
        ]

    def lists_projects(self, sender: Delegate) -> bool:
        """Return whether the sender of a request has the permission to list projects."""
        user = self._users.get((sender.domain, sender.user))
        return user is None or user.lists_projects

    def is_refused_by_policy(self, sender: Delegate) -> bool:
        """Return whether a policy refuses the sender's calls of CDM."""
        user = self._users.get((sender.domain, sender.user))
        return user is not None and user.refused_by_policy

    def domain_of(self, owned: UserConfig | ProjectConfig) -> str:
        """Return the name of the account that a user or a project belongs to.

        :param owned: user or project.
        """
        return owned.domain or self._config.domain

    def _domain_named(self, reference: Mapping[str, Any]) -> str | None:
        """Return the name of an account by ``id`` or ``name``; ``None`` if it does not exist."""
        for name in self._domains:
            if reference.get("name") == name or reference.get("id") == domain_id(name):
                return name
        return None

    def _domain_object(self, name: str) -> dict[str, str]:
        return {"id": domain_id(name), "name": name}

    def _project(self, scope: Mapping[str, Any] | None, domain: str) -> ProjectConfig | None:
        """Return the project of a scope, or ``None`` for a scope without one.

        A scope with both a project and a domain means the project.
        """
        scoped = (scope or {}).get("project")
        if not isinstance(scoped, Mapping):
            return None
        for project in self._config.projects:
            by_id, by_name = scoped.get("id"), scoped.get("name")
            named = project.id == by_id if by_id else project.name == by_name
            if named and self.domain_of(project) == domain:
                return project
        # ASSUMED: the token page lists status 404 without its cause.
        raise IamError(
            404, "", f"Could not find project: {scoped.get('id') or scoped.get('name')}."
        )


def domain_id(name: str) -> str:
    """Return the id of an account.

    :param name: name of the account.
    """
    return stable_hex(f"domain {name}")


def user_id(domain: str, name: str) -> str:
    """Return the id of a user.

    :param domain: name of the account.
    :param name: name of the user.
    """
    return stable_hex(f"user {domain}/{name}")


def format_time(seconds: float) -> str:
    """Return a point in time in the format of IAM.

    :param seconds: seconds since 1970.
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _part(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = value.get(key)
    if not isinstance(part, Mapping):
        raise _invalid()
    return part


def _invalid() -> IamError:
    return IamError(400, "", "The request body is invalid")
