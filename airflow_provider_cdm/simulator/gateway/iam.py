"""IAM: tokens by password and by agency, their expiry, and the lock-out after wrong passwords."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_cdm.simulator.config.config import ProjectConfig, UserConfig, stable_hex
from airflow_provider_cdm.simulator.errors import IamError

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.config.config import SimulatorConfig

MAX_FAILURES = 5
FAILURE_SECONDS = 15 * 60
LOCKED_SECONDS = 15 * 60


@dataclass(frozen=True)
class Token:
    """A token; instants are seconds since 1970."""

    value: str = field(repr=False)
    user: str
    domain: str
    method: str
    project: ProjectConfig | None
    issued: float
    expires: float
    assumed_by: str | None = None


@dataclass
class _Attempts:
    failed_at: deque[float] = field(default_factory=deque)
    locked_until: float = 0.0


class Delegate(Protocol):
    """The user who wants to act for another account."""

    @property
    def user(self) -> str:
        """Name of the user."""

    @property
    def domain(self) -> str:
        """Account of the user."""


class Iam:
    """The identity service of one simulator. Methods expect the simulator's lock to be held.

    :param config: accounts, users, projects and agencies.
    """

    def __init__(self, config: SimulatorConfig) -> None:
        self._config = config
        self._users = {(self.domain_of(user), user.name): user for user in config.users}
        #: Every token that was issued and not revoked, expired ones too.
        self.tokens: dict[str, Token] = {}
        self._attempts: dict[tuple[str, str], _Attempts] = {}
        domains = {config.domain, *(self.domain_of(each) for each in config.users)}
        domains |= {self.domain_of(each) for each in config.projects}
        self._domains = domains | {each.domain for each in config.agencies}

    def revoke_tokens(self) -> None:
        """Make every token issued so far unknown."""
        self.tokens.clear()

    # Tokens

    def issue(
        self, body: Mapping[str, Any], delegate: Callable[[], Delegate], now: float
    ) -> Token:
        """Issue a token (pages "Obtaining a User Token" and "Obtaining an Agency Token").

        :param body: the JSON body.
        :param delegate: tells who asks, which an agency token needs.
        :param now: the present instant.
        :raises IamError: when the request or the credentials are not good.
        """
        auth = _part(body, "auth")
        identity = _part(auth, "identity")
        methods = identity.get("methods")
        scope = auth.get("scope") if isinstance(auth.get("scope"), Mapping) else None
        if methods == ["password"]:
            user = self._by_password(_part(_part(identity, "password"), "user"), now)
            domain = self.domain_of(user)
            return self._new(user.name, domain, "password", self._project(scope, domain), now)
        if methods == ["assume_role"]:
            return self._by_agency(_part(identity, "assume_role"), scope, delegate(), now)
        raise _invalid()

    def _by_password(self, given: Mapping[str, Any], now: float) -> UserConfig:
        password = given.get("password")
        if not isinstance(password, str):
            raise _invalid()
        domain = self._domain_named(_part(given, "domain")) if "id" not in given else None
        user = next(
            (
                each
                for (owner, name), each in self._users.items()
                if (domain is None and given.get("id") == user_id(owner, name))
                or (owner == domain and name == given.get("name"))
            ),
            None,
        )
        wrong = IamError(401, "", "The username or password is wrong.")
        if user is None:
            raise wrong
        attempts = self._attempts.setdefault((self.domain_of(user), user.name), _Attempts())
        if now < attempts.locked_until:
            raise IamError(401, "IAM.0061", "The account is locked after too many failed logins.")
        if secrets.compare_digest(password.encode(), user.password.encode()):
            attempts.failed_at.clear()
            return user
        while attempts.failed_at and attempts.failed_at[0] <= now - FAILURE_SECONDS:
            attempts.failed_at.popleft()
        attempts.failed_at.append(now)
        if len(attempts.failed_at) >= MAX_FAILURES:
            attempts.failed_at.clear()
            attempts.locked_until = now + LOCKED_SECONDS
        raise wrong

    def _by_agency(
        self,
        given: Mapping[str, Any],
        scope: Mapping[str, Any] | None,
        holder: Delegate,
        now: float,
    ) -> Token:
        wanted = {"id": given.get("domain_id"), "name": given.get("domain_name")}
        domain = self._domain_named({key: value for key, value in wanted.items() if value})
        for agency in self._config.agencies:
            trusted = agency.trusted or self._config.domain
            if (agency.name, agency.domain, trusted) == (
                given.get("agency_name"),
                domain,
                holder.domain,
            ):
                project = self._project(scope, agency.domain)
                name = f"{agency.domain}/{agency.name}"
                return self._new(
                    name, agency.domain, "assume_role", project, now, assumed_by=holder.user
                )
        # ASSUMED: a missing agency and one for somebody else look alike.
        raise IamError(403, "", "You have no permission to assume this agency.")

    def _new(
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
        """Return a token by its value, as IAM looks at it.

        :param value: the ``X-Auth-Token`` header.
        :param now: the present instant.
        :raises IamError: when it is missing, unknown or has expired.
        """
        token = self.tokens.get(value or "")
        if token is None or token.expires <= now:
            raise IamError(401, "", "The token must be updated or is missing.")
        return token

    def describe(self, token: Token, *, catalog: bool) -> dict[str, Any]:
        """Return the body that goes with a token.

        :param token: a token.
        :param catalog: whether the bulky list of services is wanted.
        """
        domain = self._domain_object(token.domain)
        described: dict[str, Any] = {
            "expires_at": instant(token.expires),
            "issued_at": instant(token.issued),
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

        :param domain: the account.
        :param name: only this one.
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

    def domain_of(self, owned: UserConfig | ProjectConfig) -> str:
        """Return the account a user or a project belongs to.

        :param owned: the user or project.
        """
        return owned.domain or self._config.domain

    def _domain_named(self, given: Mapping[str, Any]) -> str | None:
        """Return an account by ``id`` or ``name``, ``None`` when there is no such account."""
        for name in self._domains:
            if given.get("name") == name or given.get("id") == domain_id(name):
                return name
        return None

    def _domain_object(self, name: str) -> dict[str, str]:
        return {"id": domain_id(name), "name": name}

    def _project(self, scope: Mapping[str, Any] | None, domain: str) -> ProjectConfig | None:
        """Return the project of a scope; a project wins over a domain, no scope is no project."""
        wanted = (scope or {}).get("project")
        if not isinstance(wanted, Mapping):
            return None
        for project in self._config.projects:
            by_id, by_name = wanted.get("id"), wanted.get("name")
            named = project.id == by_id if by_id else project.name == by_name
            if named and self.domain_of(project) == domain:
                return project
        # ASSUMED: the token page lists 404 without saying when.
        raise IamError(
            404, "", f"Could not find project: {wanted.get('id') or wanted.get('name')}."
        )


def domain_id(name: str) -> str:
    """Return the id of an account.

    :param name: its name.
    """
    return stable_hex(f"domain {name}")


def user_id(domain: str, name: str) -> str:
    """Return the id of a user.

    :param domain: name of the account.
    :param name: name of the user.
    """
    return stable_hex(f"user {domain}/{name}")


def instant(seconds: float) -> str:
    """Return an instant in IAM's spelling.

    :param seconds: since 1970.
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _part(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = value.get(key)
    if not isinstance(part, Mapping):
        raise _invalid()
    return part


def _invalid() -> IamError:
    return IamError(400, "", "The request body is invalid")
