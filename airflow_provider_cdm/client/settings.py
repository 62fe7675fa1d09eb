"""What a session must know: endpoints, credentials, time-outs. Checked before it gets here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class PasswordCredentials:
    """An IAM user with a password; the domain is the account's name."""

    user: str
    password: str = field(repr=False)
    domain: str


@dataclass(frozen=True, slots=True)
class KeyCredentials:
    """An access key with its secret; temporary ones come with a security token."""

    access_key: str
    secret_key: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)


Credentials: TypeAlias = PasswordCredentials | KeyCredentials


@dataclass(frozen=True, slots=True)
class Agency:
    """A delegation by another account, under which its project is used.

    :param domain: name of the account that delegates.
    """

    name: str
    domain: str


@dataclass(frozen=True, slots=True)
class Settings:
    """All that a session must know, checked and complete.

    :param cdm_endpoint: scheme, host, port and path prefix, without a slash at the end.
    :param iam_endpoint: the same for IAM.
    :param agency: act in the delegating account; its projects are meant by the next two then.
    :param project_id: project in the path of every call; ``None`` to have it looked up by name.
    :param project_name: name of the project while its id is not known.
    :param cluster_id: cluster of calls that name none.
    :param verify: whether to check certificates, or the path of a CA bundle.
    :param proxy: URL of a client proxy.
    :param connect_timeout: seconds to establish a connection.
    :param read_timeout: seconds without a byte from the server.
    :param console_url: where people look at a run; may hold placeholders.
    :param requests_per_minute: calls of one kind that this user may make in a minute.
    :param token_cache: folder in which the processes of this machine share tokens.
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

    def for_project(self, project_id: str | None) -> Settings:
        """The same settings for another project; ``None`` keeps the project."""
        return replace(self, project_id=project_id) if project_id else self
