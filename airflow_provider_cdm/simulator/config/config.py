"""What a simulator can be told: the shapes of its configuration, and reading them from YAML."""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml

from airflow_provider_cdm.simulator.config.faults import Fault
from airflow_provider_cdm.simulator.config.job_config import JDBC, JobConfig, Seconds
from airflow_provider_cdm.simulator.config.reader import ConfigError, read
from airflow_provider_cdm.simulator.transfer import jdbc

REGION = "eu-west-101"


def stable_hex(text: str) -> str:
    """Return a 32-digit hexadecimal id that is always the same for ``text``.

    :param text: what the id is for.
    """
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def stable_uuid(text: str) -> str:
    """Return a dashed UUID that is always the same for ``text``.

    :param text: what the id is for.
    """
    return str(uuid.UUID(stable_hex(text)))


def time_zone(name: str) -> tzinfo:
    """Return a time zone; ``UTC`` needs no time zone database.

    :param name: IANA name, such as ``Europe/Dublin``.
    :raises ValueError: when there is no such zone.
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except ZoneInfoNotFoundError as exc:
        raise ValueError(f"there is no time zone {name!r}") from exc


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """Switches for what the documents leave open or state in two ways.

    A default is the documented side where there is one, otherwise the likelier one (ASSUMED).
    """

    #: What a stopped run ends in; the API's list has no value for it, the console shows "Stopped".
    stop_status: Literal["STOPPED", "FAILED"] = "STOPPED"
    #: How long a run goes on after an accepted stop. ASSUMED: only that it does is documented.
    stop_seconds: float = 0.2
    #: Three generations of the stop answer.
    stop_answer: Literal["validation-result", "submissions", "empty"] = "validation-result"
    #: Whether a queued run can be stopped. ASSUMED.
    stop_pending: bool = True
    #: Spelling of the key for the last user: the typo is in most captured answers.
    update_user_key: Literal["last-udpate-user", "last-update-user", "both"] = "last-udpate-user"
    #: Type of dates on the wire: samples quote them, the type tables and the Go clients do not.
    dates_as: Literal["number", "string"] = "number"
    #: Where ``submission-id`` appears: the type table has it, the short samples do not.
    submission_id: Literal["present", "absent-in-start", "absent"] = "present"
    #: ``progress`` runs up to 100 (documented) or to 1 (Sqoop).
    progress_scale: Literal["100", "1"] = "100"
    #: Whether submissions carry the bulky keys of captured answers (schemas, external link).
    extra_keys: bool = False
    #: HTTP status of "no such job", except on delete.
    not_found_status: Literal["400", "404", "500"] = "400"
    #: HTTP status of "no such job" on delete; the page says 500, the table of codes 400.
    delete_not_found_status: Literal["400", "404", "500"] = "500"
    #: HTTP status of "already running", "not running" and "disabled".
    conflict_status: Literal["400", "409", "500"] = "400"
    #: History of a job that does not exist. ASSUMED.
    unknown_history: Literal["error", "empty"] = "error"
    #: Whether the history honours ``page_no`` and ``page_size``, which no page documents. ASSUMED.
    history_paging: bool = True
    #: ``variables`` of the start call; clouds whose pages lack them may ignore them silently.
    variables: Literal["used", "ignored"] = "used"
    #: A ``${name}`` nobody defined: the run fails, or the text stays as it is. ASSUMED.
    undefined_variable: Literal["fail", "literal"] = "fail"
    #: What the run of a whole database ends in when only some of its tables succeeded. ASSUMED: the
    #: value that is worst for whoever trusts it.
    partial_status: Literal["SUCCEEDED", "FAILED"] = "SUCCEEDED"
    #: Whether such a run has counters when it succeeds: the sums of its tables'. ASSUMED.
    whole_counters: Literal["sum", "absent"] = "sum"
    #: In the listing of which type the sub-jobs of a whole database show. ASSUMED.
    sub_jobs_listed_as: Literal["NORMAL_JOB", "BATCH_JOB", "nowhere"] = "NORMAL_JOB"
    #: Whether a sub-job still has its earlier runs after it was made anew. ASSUMED.
    sub_job_history: Literal["kept", "dropped"] = "kept"
    #: What becomes of sub-jobs when their job is deleted. ASSUMED.
    sub_jobs_of_deleted: Literal["deleted", "kept"] = "deleted"
    #: Whether creating or updating a job demands that its links exist. ASSUMED.
    check_links: bool = True
    #: Whether values of a job's configuration are read back percent-encoded.
    encode_values: bool = False
    #: Whether a job is shown with settings that nobody sent. ASSUMED: which, and that they are so.
    default_inputs: bool = False
    #: ``jobId`` of a cluster restart; the page shows a string, a client in the field reads a list.
    restart_job_id: Literal["string", "list"] = "string"
    #: Whether 429 answers carry ``Retry-After``.
    retry_after: bool = False
    #: Code of the refusal to work on a cluster that is not in status 200. ASSUMED.
    cluster_not_ready_code: str = "Cdm.0201"
    #: Time zone of date macros (IANA name). ASSUMED to be the cluster's, UTC here.
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        time_zone(self.timezone)


@dataclass(frozen=True, kw_only=True)
class AccessKey:
    """A pair of keys for signed requests; temporary when it has a security token."""

    access_key: str
    secret_key: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class UserConfig:
    """An IAM user; ``domain`` defaults to the account of the simulator."""

    name: str
    password: str = field(default="", repr=False)
    domain: str | None = None
    access_keys: tuple[AccessKey, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ProjectConfig:
    """A project of an account; its name is a region, possibly with a suffix."""

    name: str
    id: str = ""
    domain: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", self.id or stable_hex(f"project {self.name}"))


@dataclass(frozen=True, kw_only=True)
class AgencyConfig:
    """A delegation: users of ``trusted`` may act for account ``domain`` under the agency's name."""

    name: str
    domain: str
    trusted: str | None = None


@dataclass(frozen=True, kw_only=True)
class LinkConfig:
    """A link of a cluster; with ``url`` (SQLAlchemy) its jobs can really move rows."""

    name: str
    url: str | None = field(default=None, repr=False)
    connector: str = JDBC
    enabled: bool = True

    def __post_init__(self) -> None:
        if self.url is not None:
            jdbc.absolute(self.url, "")


@dataclass(frozen=True, kw_only=True)
class ClusterSeconds:
    """How long a cluster takes to start, stop and restart."""

    start: float = 1.0
    stop: float = 1.0
    restart: float = 1.0


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """A cluster with its links, jobs and environment variables; status 200 runs, 900 is stopped."""

    name: str
    id: str = ""
    project: str | None = None
    status: Literal["100", "200", "300", "303", "800", "900"] = "200"
    seconds: ClusterSeconds = ClusterSeconds()
    variables: Mapping[str, str] = field(default_factory=dict)
    links: tuple[LinkConfig, ...] = ()
    jobs: tuple[JobConfig, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", self.id or stable_uuid(f"cluster {self.name}"))


DEFAULT_USER = UserConfig(name="airflow", password="airflow-secret")  # noqa: S106 - opens nothing


@dataclass(frozen=True, kw_only=True)
class SimulatorConfig:
    """Everything; whatever is left out has the default of a small, friendly account."""

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
    behaviour: Behaviour = Behaviour()
    faults: tuple[Fault, ...] = ()
    #: Folder that relative SQLite paths start from; the YAML file's, otherwise the current one.
    base: str = ""

    def __post_init__(self) -> None:
        for url in self.databases.values():
            jdbc.absolute(url, "")


def load(source: SimulatorConfig | Mapping[str, Any] | str | Path | None) -> SimulatorConfig:
    """Read and check a configuration.

    :param source: a YAML file, its content as a mapping, or ``None`` for the defaults.
    :raises ConfigError: listing everything that is wrong.
    """
    if isinstance(source, SimulatorConfig):
        return source
    base = ""
    if isinstance(source, (str, Path)):
        path = Path(source)
        base = str(path.resolve().parent)
        source = _from_yaml(path)
    config = read(SimulatorConfig, source or {}, "")
    if base:
        config = replace(config, base=base)
    if problems := list(_contradictions(config)):
        raise ConfigError(problems)
    return config


def _from_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError([f"{path}: cannot be read: {exc.strerror}"]) from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ConfigError([f"{path}: is not YAML: {exc}"]) from exc


def _contradictions(config: SimulatorConfig) -> Iterator[str]:
    """Yield what no single value shows: duplicates and names that lead nowhere."""
    for what, values in (
        ("users", config.users),
        ("projects", config.projects),
        ("clusters", config.clusters),
    ):
        if not values:
            yield f"{what}: at least one is needed"
    yield from _duplicates(
        "users", [f"{user.domain or config.domain}/{user.name}" for user in config.users]
    )
    yield from _duplicates("projects", [project.id for project in config.projects])
    yield from _duplicates("clusters", [cluster.id for cluster in config.clusters])
    projects = {key for project in config.projects for key in (project.id, project.name)}
    for cluster in config.clusters:
        place = f"cluster {cluster.name}"
        if cluster.project is not None and cluster.project not in projects:
            yield f"{place}: project {cluster.project!r} is not among the projects"
        yield from _duplicates(f"{place}: links", [link.name for link in cluster.links])
        yield from _duplicates(f"{place}: jobs", [job.name for job in cluster.jobs])
        links = {link.name for link in cluster.links}
        for job in cluster.jobs:
            for end in (job.from_, job.to):
                if end is not None and end.link not in links:
                    yield f"{place}, job {job.name}: link {end.link!r} is not among its links"


def _duplicates(what: str, names: list[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{what}: {name!r} is given {count} times"
