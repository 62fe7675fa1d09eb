"""The configuration of the simulator: its data classes, and how it is loaded from YAML."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from airflow_provider_cdm.simulator.config.behaviour import Behaviour
from airflow_provider_cdm.simulator.config.faults import Fault
from airflow_provider_cdm.simulator.config.job_config import JDBC, JobConfig, Seconds
from airflow_provider_cdm.simulator.config.reader import ConfigError, read
from airflow_provider_cdm.simulator.transfer import jdbc

REGION = "eu-west-101"


def stable_hex(text: str) -> str:
    """Return a 32-digit hexadecimal id that is derived from ``text`` and therefore stable.

    :param text: description of the object that gets the id.
    """
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def stable_uuid(text: str) -> str:
    """Return a UUID with dashes that is derived from ``text`` and therefore stable.

    :param text: description of the object that gets the id.
    """
    return str(uuid.UUID(stable_hex(text)))


@dataclass(frozen=True, kw_only=True)
class AccessKey:
    """An access key for signed requests; a key with a security token is a temporary one."""

    access_key: str
    secret_key: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class UserConfig:
    """An IAM user; ``domain`` defaults to the account of the configuration.

    A user without a password gets a random one when the configuration is loaded.

    :param lists_projects: whether the user has the permission for ``GET /v3/projects``.
    :param refused_by_policy: whether a policy refuses all calls of CDM, with status 401 and a code
        that is neither the gateway's nor IAM's, as in the fixtures of a client of a partner cloud.
    """

    name: str
    password: str = field(default="", repr=False)
    domain: str | None = None
    access_keys: tuple[AccessKey, ...] = ()
    lists_projects: bool = True
    refused_by_policy: bool = False


@dataclass(frozen=True, kw_only=True)
class UserWithRandomPassword(UserConfig):
    """A user whose password the configuration does not name."""


@dataclass(frozen=True, kw_only=True)
class ProjectConfig:
    """A project of an account; its name is that of a region, possibly with a suffix."""

    name: str
    id: str = ""
    domain: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", self.id or stable_hex(f"project {self.name}"))


@dataclass(frozen=True, kw_only=True)
class AgencyConfig:
    """An agency: users of account ``trusted`` may act for account ``domain``."""

    name: str
    domain: str
    trusted: str | None = None


@dataclass(frozen=True, kw_only=True)
class LinkConfig:
    """A link of a cluster; jobs between links with a ``url`` (SQLAlchemy) really move rows."""

    name: str
    url: str | None = field(default=None, repr=False)
    connector: str = JDBC
    enabled: bool = True

    def __post_init__(self) -> None:
        if self.url is not None:
            jdbc.absolute(self.url, "")


@dataclass(frozen=True, kw_only=True)
class ClusterSeconds:
    """Durations of the start, stop and restart of a cluster, in seconds."""

    start: float = 1.0
    stop: float = 1.0
    restart: float = 1.0


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """A cluster with its links, jobs and environment variables.

    Status 200 is running, 900 is stopped. ``max_extractors`` is the console's setting "Maximum
    Concurrent Extractors": a run beyond that number waits; without it, none does.
    """

    name: str
    id: str = ""
    project: str | None = None
    status: Literal["100", "200", "300", "303", "800", "900"] = "200"
    seconds: ClusterSeconds = ClusterSeconds()
    max_extractors: int | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    links: tuple[LinkConfig, ...] = ()
    jobs: tuple[JobConfig, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", self.id or stable_uuid(f"cluster {self.name}"))


DEFAULT_USER = UserConfig(name="airflow")


@dataclass(frozen=True, kw_only=True)
class SimulatorConfig:
    """The complete configuration; the defaults describe one user, one project and one cluster."""

    domain: str = "acme"
    users: tuple[UserConfig, ...] = (DEFAULT_USER,)
    projects: tuple[ProjectConfig, ...] = (ProjectConfig(name=REGION),)
    agencies: tuple[AgencyConfig, ...] = ()
    clusters: tuple[ClusterConfig, ...] = (ClusterConfig(name="demo"),)
    databases: Mapping[str, str] = field(default_factory=dict, repr=False)
    quotas: Any = "off"
    auth: bool = True
    token_seconds: float = 86_400.0
    seconds: Seconds = field(default_factory=Seconds)
    behaviour: Behaviour = field(default_factory=Behaviour)
    faults: tuple[Fault, ...] = ()
    #: Host names, besides those of the loopback interface, that the simulator answers to.
    hosts: tuple[str, ...] = ()
    #: Whether to serve HTTPS, with a certificate that is made at each start.
    tls: bool = False
    #: File in which clients find that certificate; by default a temporary one.
    certificate: str = ""
    #: Folder that relative paths start from: that of the YAML file, otherwise the current one.
    base: str = ""

    def __post_init__(self) -> None:
        for url in self.databases.values():
            jdbc.absolute(url, "")


def load(source: SimulatorConfig | Mapping[str, Any] | str | Path | None) -> SimulatorConfig:
    """Load and validate a configuration.

    :param source: path of a YAML file, its content as a mapping, or ``None`` for the defaults.
    :raises ConfigError: if the configuration is not valid; it lists all problems.
    """
    if isinstance(source, SimulatorConfig):
        return _with_passwords(source)
    base = ""
    if isinstance(source, (str, Path)):
        path = Path(source)
        base = str(path.resolve().parent)
        source = _from_yaml(path)
    config = read(SimulatorConfig, source or {}, "")
    if base:
        config = replace(config, base=base)
    if problems := list(_inconsistencies(config)):
        raise ConfigError(problems)
    return _with_passwords(config)


def _with_passwords(config: SimulatorConfig) -> SimulatorConfig:
    """Return a configuration in which each user has a password that nobody can guess."""
    users = tuple(
        user
        if user.password
        else UserWithRandomPassword(**{**vars(user), "password": secrets.token_urlsafe(16)})
        for user in config.users
    )
    return replace(config, users=users)


def _from_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError([f"{path}: cannot be read: {exc.strerror}"]) from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ConfigError([f"{path}: is not valid YAML: {exc}"]) from exc


def _inconsistencies(config: SimulatorConfig) -> Iterator[str]:
    """Yield problems that involve several values: duplicates and unknown names."""
    for what, values in (
        ("users", config.users),
        ("projects", config.projects),
        ("clusters", config.clusters),
    ):
        if not values:
            yield f"{what}: expected at least one"
    yield from _duplicates(
        "users", [f"{user.domain or config.domain}/{user.name}" for user in config.users]
    )
    if config.certificate and not config.tls:
        yield "certificate: is for tls: on only"
    yield from _duplicates("projects", [project.id for project in config.projects])
    yield from _duplicates("clusters", [cluster.id for cluster in config.clusters])
    projects = {key for project in config.projects for key in (project.id, project.name)}
    for cluster in config.clusters:
        place = f"cluster {cluster.name}"
        if cluster.project is not None and cluster.project not in projects:
            yield f"{place}: project {cluster.project!r} is not one of the projects"
        yield from _duplicates(f"{place}: links", [link.name for link in cluster.links])
        yield from _duplicates(f"{place}: jobs", [job.name for job in cluster.jobs])
        links = {link.name for link in cluster.links}
        for job in cluster.jobs:
            for end in (job.from_, job.to):
                if end is not None and end.link not in links:
                    yield f"{place}, job {job.name}: link {end.link!r} is not one of its links"


def _duplicates(what: str, names: list[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{what}: {name!r} is defined {count} times"
