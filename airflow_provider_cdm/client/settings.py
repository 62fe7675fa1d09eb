"""Settings of a session: endpoints, credentials and timeouts, already checked and complete."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class PasswordCredentials:
    """An IAM user with a password.

    :param domain: name of the account that the user belongs to.
    """

    user: str
    password: str = field(repr=False)
    domain: str

    @property
    def owner(self) -> tuple[str, str]:
        """Who the quotas count for; the same after the password has changed."""
        return self.domain, self.user


@dataclass(frozen=True, slots=True)
class KeyCredentials:
    """An access key (AK/SK), which signs requests.

    :param access_key: public id of the key.
    :param secret_key: secret that signs; it is never sent.
    :param security_token: token that accompanies a temporary access key.
    """

    access_key: str
    secret_key: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)

    @property
    def owner(self) -> tuple[str, str]:
        """Who the quotas count for, as far as it is known: the user of a key is not."""
        return "", self.access_key


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


Credentials: TypeAlias = PasswordCredentials | KeyCredentials


@dataclass(frozen=True, slots=True)
class Agency:
    """An agency: another account's permission for our account to use its projects.

    :param name: name of the agency.
    :param domain: name of the account that granted it (the delegating account).
    """

    name: str
    domain: str


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one session.

    :param cdm_endpoint: URL of CDM: scheme, host, port and path prefix, without a final slash.
    :param iam_endpoint: URL of IAM, in the same form.
    :param credentials: password or access key of the user.
    :param agency: agency to use; project id and name are those of the delegating account then.
    :param region: region of the project, such as ``eu-west-101``.
    :param project_id: id of the project, which is part of the path of every call; ``None`` to look
        it up by name.
    :param project_name: name of the project, needed while the id is not known.
    :param cluster_id: cluster for calls that do not name one.
    :param verify: whether to verify certificates, or the path of a CA bundle.
    :param proxy: URL of the HTTP proxy.
    :param connect_timeout: seconds to establish a connection.
    :param read_timeout: seconds to wait for the next byte of a response.
    :param console_url: address of a run in a web console; may contain placeholders.
    :param requests_per_minute: rate limit: calls of one kind that this user may make in a minute.
    :param token_cache: folder in which the processes of this machine share tokens.
    :param conn_id: the connection that the settings were read from, for messages.
    """

    cdm_endpoint: str
    iam_endpoint: str
    credentials: Credentials
    agency: Agency | None = None
    region: str | None = None
    project_id: str | None = None
    project_name: str | None = None
    cluster_id: str | None = None
    verify: bool | str = True
    proxy: str | None = field(default=None, repr=False)
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    console_url: str | None = None
    requests_per_minute: int | None = None
    token_cache: str | None = None
    conn_id: str | None = None

    @property
    def place(self) -> tuple[object, ...]:
        """Where calls go and what they see there; stays the same when credentials change."""
        project = self.project_id, self.project_name
        return self.cdm_endpoint, self.iam_endpoint, self.agency, *project

    def moved_to(self, place: Settings) -> Settings:
        """Return these settings with the project, cluster and console of others."""
        return replace(
            self,
            region=place.region,
            project_id=place.project_id,
            project_name=place.project_name,
            cluster_id=place.cluster_id,
            console_url=place.console_url,
        )

    @property
    def credentials_key(self) -> str:
        """What distinguishes credentials, for what a process remembers of them: holds no secret."""
        return _digest(asdict(self.credentials))

    @property
    def route_key(self) -> str:
        """What distinguishes ways to the servers, without the password of a proxy."""
        return _digest([self.proxy, self.verify])

    def for_project(self, project_id: str | None) -> Settings:
        """Return these settings with another project id; ``None`` keeps the project."""
        return replace(self, project_id=project_id) if project_id else self
