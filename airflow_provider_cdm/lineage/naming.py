"""What a job reads and writes, named as OpenLineage names datasets.

The names are those of https://openlineage.io/docs/spec/naming where it has the kind of store, and
made in its manner where it has not; ``docs/results.md`` lists them. Only inputs that tell a place
are looked at. What cannot be named for sure is left out: a lineage graph forgets no wrong name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote

from airflow_provider_cdm.client.api.definitions import BATCH_JOB, inputs_of, is_secret

Side = Literal["from", "to"]
#: The most datasets of one side of a job.
LIMIT = 100
_VARIABLE = re.compile(r"\$\{(\w+)\}")
# What a host may consist of; so a password that stands in an address never passes for one.
_SERVER = re.compile(
    r"(?:[a-z][a-z0-9+.-]*://)?(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?(?:[/?].*)?",
    re.IGNORECASE,
)


class Column(NamedTuple):
    """A column, with its type where the job names one."""

    name: str
    type: str | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """A table, folder, topic or the like.

    :param namespace: of the store, such as ``postgres://db.example.com:5432``.
    :param name: in the store, such as ``shop.public.orders``.
    :param columns: those that the job names, in their order; none if it names none.
    """

    namespace: str
    name: str
    columns: tuple[Column, ...] = ()


class _End(NamedTuple):
    """One side of a job, by the lower-case last words of its inputs' names."""

    job: Mapping[str, str]
    link: Mapping[str, str]
    tables: Sequence[str] | None


class _Store(NamedTuple):
    """How the datasets of a connector are named.

    :param namespace: ``None`` when the inputs do not tell.
    :param names: may be none at all.
    :param linked: whether the namespace is told by the link.
    """

    namespace: Callable[[_End], str | None]
    names: Callable[[_End], list[str]]
    linked: bool = True


def link_of(job: Mapping[str, Any], side: Side) -> str | None:
    """Name of the link whose definition :func:`datasets_of` needs; ``None`` if it needs none."""
    store = _STORES.get(_connector(job, side))
    name = job.get(f"{side}-link-name")
    return name if store and store.linked and isinstance(name, str) and name else None


def datasets_of(
    job: Mapping[str, Any],
    side: Side,
    link: Mapping[str, Any] | None,
    *,
    cluster_id: str,
    variables: Mapping[str, str] | None = None,
    tables: Sequence[str] | None = None,
) -> list[Dataset]:
    """Name what one side of a job reads or writes. Never raises; knows nothing of secrets.

    A place behind a link that says nothing of a server, or behind a connector that is not known
    here, is named after the link: ``cdm://<cluster>``, ``<link>`` or ``<link>.<table>``.

    :param job: definition of the job, as it was written or as CDM shows it.
    :param link: definition of the link named by :func:`link_of`; nothing is named without it.
    :param variables: values for ``${name}``; what holds another ``${...}`` is no name.
    :param tables: that the run moved, if its job moves a whole database; no others are named then.
    """
    if link is None and link_of(job, side) is not None:
        return []
    end = _End(
        _inputs(job, f"{side}-config-values", variables or {}),
        _inputs(link or {}, "link-config-values", {}),
        (tables or ()) if job.get("job_type") == BATCH_JOB else None,
    )
    if end.job.get("usesql", "").lower() == "true":
        return []
    store = _STORES.get(_connector(job, side), _UNKNOWN)
    names, namespace = store.names(end), store.namespace(end)
    if namespace is None:
        place = job.get(f"{side}-link-name")
        names = [f"{place}.{name}".strip(".") for name in names] if place else []
        namespace = f"cdm://{cluster_id}"
    kept = [name for name in dict.fromkeys(names) if name and "${" not in name][:LIMIT]
    columns = _columns(end.job, _connector(job, side)) if len(kept) == 1 else ()
    return [Dataset(namespace, name, columns) for name in kept]


def column_pairs(source: Dataset, target: Dataset) -> list[tuple[Column, Column]]:
    """Which column of a source goes to which of the target, as far as the job lists both."""
    if len(source.columns) != len(target.columns):
        return []
    return list(zip(source.columns, target.columns, strict=True))


def _connector(job: Mapping[str, Any], side: Side) -> str:
    return str(job.get(f"{side}-connector-name")).removesuffix("-connector")


def _inputs(wire: Mapping[str, Any], block: str, variables: Mapping[str, str]) -> dict[str, str]:
    # Documents and releases differ in upper and lower case (serverList, serverlist), and CDM may
    # show values percent-encoded.
    return {
        name.rpartition(".")[2].lower(): _VARIABLE.sub(
            lambda found: variables.get(found[1], found[0]), unquote(value).strip()
        )
        for name, value in inputs_of(wire, block).items()
        if not is_secret(name)
    }


def _server(text: str, port: str = "") -> str | None:
    """Host and port of the first address in a text, without user and password."""
    first = re.split(r"[,;|\s]", text.rpartition("@")[2].strip(), maxsplit=1)[0]
    found = _SERVER.fullmatch(first)
    if found is None:
        return None
    number = found[2] or (port if port.isdecimal() else "")
    return found[1].lower() + (f":{number}" if number else "")


def _at(scheme: str, *keys: str) -> Callable[[_End], str | None]:
    """A namespace that is told by the first of some inputs of the link."""

    def namespace(end: _End) -> str | None:
        servers = (_server(end.link.get(key, ""), end.link.get("port", "")) for key in keys)
        server = next((each for each in servers if each), None)
        return f"{scheme}://{server}" if server else None

    return namespace


def _joined(end: _End, *parts: str | None) -> list[str]:
    """Names of the tables of one side, after the parts that are there."""
    given = end.job.get("tablename") or end.job.get("table") or ""
    tables = given.split("&") if end.tables is None else end.tables
    known = [part for part in parts if part]
    # A pattern tells what to look for, not what was found.
    return [".".join((*known, each)) for each in tables if each and not set("*?") & set(each)]


class _Database(NamedTuple):
    """A kind of relational database.

    :param schemas: whether a table is named with database and schema, or with either of them.
    :param default: schema of tables that are named without.
    """

    scheme: str
    schemas: bool = True
    default: str | None = None


_DATABASES = {
    "mysql": _Database("mysql", schemas=False),
    "ddm": _Database("mysql", schemas=False),
    "postgresql": _Database("postgres", default="public"),
    "dws": _Database("postgres", default="public"),
    "sqlserver": _Database("mssql", default="dbo"),
    "oracle": _Database("oracle"),
    "db2": _Database("db2"),
}


def _database(end: _End) -> _Database:
    kind = re.sub(r"[^a-z0-9]", "", end.link.get("databasetype", "").lower())
    return _DATABASES.get(kind, _Database(kind))


def _jdbc_namespace(end: _End) -> str | None:
    scheme = _database(end).scheme
    return _at(scheme, "host")(end) if scheme else None


def _jdbc_names(end: _End) -> list[str]:
    kind, schema, name = _database(end), end.job.get("schemaname"), end.link.get("database")
    if end.link.get("databaseconfig", "").upper() == "SID":
        name = end.link.get("sidname") or name
    if not kind.schemas:
        return _joined(end, schema or name)
    return _joined(end, name, schema or kind.default)


def _warehouse_names(end: _End) -> list[str]:
    return _joined(end, end.job.get("database") or "default")


def _collection_names(end: _End) -> list[str]:
    database = end.job.get("database") or end.link.get("database")
    collection = end.job.get("collectionname")
    return [f"{database}.{collection}"] if database and collection else []


def _listed(key: str) -> Callable[[_End], list[str]]:
    """Names that stand in one input, with commas between them."""
    return lambda end: [each.strip() for each in end.job.get(key, "").split(",")]


def _paths(end: _End) -> list[str]:
    given = end.job.get("inputdirectory") or end.job.get("outputdirectory") or ""
    return [_path(each) for each in given.split("|") if each.strip()]


def _path(text: str) -> str:
    """A path without server and query; of one that CDM completes, the folder that is sure."""
    path = re.sub(r"^[a-z][a-z0-9+.-]*://(?:.*@)?[^/]*", "", text.strip(), flags=re.IGNORECASE)
    sure, macro, _ = path.partition("${")
    return (sure.rpartition("/")[0] if macro else path).rstrip("/") or "/"


def _keys(end: _End) -> list[str]:
    """Paths as the keys of an object store."""
    return [path.strip("/") or "/" for path in _paths(end)] or ["/"]


def _bucket(end: _End) -> str | None:
    bucket = end.job.get("bucketname")
    return f"obs://{bucket}" if bucket and "${" not in bucket else None


def _remote(end: _End) -> str | None:
    server = _server(end.link.get("server", ""))
    return f"file://{re.sub(r':[0-9]+$', '', server)}" if server else None


def _project(scheme: str) -> Callable[[_End], str | None]:
    def namespace(end: _End) -> str | None:
        project = end.link.get("projectid")
        return f"{scheme}://{project}" if project else None

    return namespace


def _columns(job: Mapping[str, str], connector: str) -> tuple[Column, ...]:
    names = [
        each.strip() for each in (job.get("columnlist") or job.get("columns") or "").split("&")
    ]
    if not all(names) or all(name.isdecimal() for name in names):
        return ()  # those of files are numbers
    if connector == "elasticsearch":
        parts = (name.partition(":") for name in names)
        return tuple(Column(name, kind or None) for name, _, kind in parts)
    return tuple(map(Column, names))


_STORES = {
    "generic-jdbc": _Store(_jdbc_namespace, _jdbc_names),
    # Of MRS, a link names the cluster's manager instead of the service.
    "hive": _Store(_at("hive", "hivemsuris", "host"), _warehouse_names),
    "hdfs": _Store(_at("hdfs", "uri", "host"), _paths),
    "hbase": _Store(_at("hbase", "zookeeperquorum", "host"), _joined),
    "kafka": _Store(_at("kafka", "brokerlist", "host"), _listed("topicslist")),
    "dms-kafka": _Store(_at("kafka", "brokerlist"), _listed("topicslist")),
    "dli": _Store(_project("dli"), _warehouse_names),
    "dis": _Store(_project("dis"), _listed("streamname")),
    "obs": _Store(_bucket, _keys, linked=False),
    "ftp": _Store(_remote, _paths),
    "sftp": _Store(_remote, _paths),
    "elasticsearch": _Store(_at("elasticsearch", "host"), _listed("index")),
    "mongodb": _Store(_at("mongodb", "serverlist"), _collection_names),
}
_UNKNOWN = _Store(lambda _end: None, lambda _end: [""], linked=False)
