"""How each kind of store names its datasets: one row for each connector.

The names follow https://openlineage.io/docs/spec/naming where it has the kind of store, and its
conventions where it does not; ``docs/results.md`` lists them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

# Matches only what a host can consist of, so that a password in an address never counts as one.
_SERVER = re.compile(
    r"(?:[a-z][a-z0-9+.-]*://)?(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?(?:[/?].*)?",
    re.IGNORECASE,
)


class Endpoint(NamedTuple):
    """The source or target of a job; inputs go by the last part of their names, in lower case.

    :param job: inputs of the job for this side.
    :param link: inputs of the link.
    :param tables: tables that the run moved, if its job is a whole-database job.
    """

    job: Mapping[str, str]
    link: Mapping[str, str]
    tables: Sequence[str] | None


class Store(NamedTuple):
    """How the datasets of a connector are named.

    :param namespace: function that returns the namespace; ``None`` if the inputs do not contain it.
    :param names: function that returns the names, which may be none.
    :param needs_link: whether the namespace depends on the link.
    """

    namespace: Callable[[Endpoint], str | None]
    names: Callable[[Endpoint], list[str]]
    needs_link: bool = True


def _server(text: str, port: str = "") -> str | None:
    """Return host and port of the first address in a text, without user and password."""
    first = re.split(r"[,;|\s]", text.rpartition("@")[2].strip(), maxsplit=1)[0]
    match = _SERVER.fullmatch(first)
    if match is None:
        return None
    number = match[2] or (port if port.isdecimal() else "")
    return match[1].lower() + (f":{number}" if number else "")


def _server_of(scheme: str, *keys: str) -> Callable[[Endpoint], str | None]:
    """Return a namespace function: the server in the first usable one of some inputs of a link."""

    def namespace(endpoint: Endpoint) -> str | None:
        link = endpoint.link
        servers = (_server(link.get(key, ""), link.get("port", "")) for key in keys)
        server = next(filter(None, servers), None)
        return f"{scheme}://{server}" if server else None

    return namespace


def _tables(endpoint: Endpoint, *prefixes: str | None) -> list[str]:
    """Return the names of the tables, each after those prefixes that are known."""
    text = endpoint.job.get("tablename") or endpoint.job.get("table") or ""
    tables = text.split("&") if endpoint.tables is None else endpoint.tables
    known = [prefix for prefix in prefixes if prefix]
    # A pattern says which tables to search for, not which ones exist.
    return [".".join((*known, table)) for table in tables if table and not set("*?") & set(table)]


class _Database(NamedTuple):
    """A kind of relational database.

    :param scheme: scheme of its namespaces.
    :param schemas: whether the name of a table contains both database and schema, not just one.
    :param default: schema of tables for which none is given.
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


def _database(endpoint: Endpoint) -> _Database:
    name = re.sub(r"[^a-z0-9]", "", endpoint.link.get("databasetype", "").lower())
    return _DATABASES.get(name, _Database(name))


def _jdbc_namespace(endpoint: Endpoint) -> str | None:
    scheme = _database(endpoint).scheme
    return _server_of(scheme, "host")(endpoint) if scheme else None


def _jdbc_tables(endpoint: Endpoint) -> list[str]:
    kind, schema = _database(endpoint), endpoint.job.get("schemaname")
    database = endpoint.link.get("database")
    if endpoint.link.get("databaseconfig", "").upper() == "SID":
        database = endpoint.link.get("sidname") or database
    if not kind.schemas:
        database, schema = schema or database, None
    if not database and _jdbc_namespace(endpoint):
        # The table would have the same name as those of the server's other databases.
        return []
    return _tables(endpoint, database, schema or kind.default)


def _warehouse_tables(endpoint: Endpoint) -> list[str]:
    return _tables(endpoint, endpoint.job.get("database") or "default")


def _collections(endpoint: Endpoint) -> list[str]:
    database = endpoint.job.get("database") or endpoint.link.get("database")
    collection = endpoint.job.get("collectionname")
    return [f"{database}.{collection}"] if database and collection else []


def _list_in(key: str) -> Callable[[Endpoint], list[str]]:
    """Return a function for the names in one input, separated by commas."""
    return lambda endpoint: [name.strip() for name in endpoint.job.get(key, "").split(",")]


def _paths(endpoint: Endpoint) -> list[str]:
    text = endpoint.job.get("inputdirectory") or endpoint.job.get("outputdirectory") or ""
    return [_path(path) for path in text.split("|") if path.strip()]


def _path(text: str) -> str:
    """Return a path without server; before a macro that CDM expands, only the folder is known."""
    path = re.sub(r"^[a-z][a-z0-9+.-]*://(?:.*@)?[^/]*", "", text.strip(), flags=re.IGNORECASE)
    known, macro, _ = path.partition("${")
    return (known.rpartition("/")[0] if macro else path).rstrip("/") or "/"


def _object_keys(endpoint: Endpoint) -> list[str]:
    return [path.strip("/") or "/" for path in _paths(endpoint)] or ["/"]


def _bucket(endpoint: Endpoint) -> str | None:
    bucket = endpoint.job.get("bucketname")
    return f"obs://{bucket}" if bucket and "${" not in bucket else None


def _file_server(endpoint: Endpoint) -> str | None:
    server = _server(endpoint.link.get("server", ""))
    return f"file://{re.sub(r':[0-9]+$', '', server)}" if server else None


def _project(scheme: str) -> Callable[[Endpoint], str | None]:
    def namespace(endpoint: Endpoint) -> str | None:
        project = endpoint.link.get("projectid")
        return f"{scheme}://{project}" if project else None

    return namespace


#: Stores by the names of their connectors, without ``-connector``.
STORES = {
    "generic-jdbc": Store(_jdbc_namespace, _jdbc_tables),
    # A link to Hive in MRS may name the manager of the cluster instead of the metastore.
    "hive": Store(_server_of("hive", "hivemsuris", "host"), _warehouse_tables),
    "hdfs": Store(_server_of("hdfs", "uri", "host"), _paths),
    "hbase": Store(_server_of("hbase", "zookeeperquorum", "host"), _tables),
    "kafka": Store(_server_of("kafka", "brokerlist", "host"), _list_in("topicslist")),
    "dms-kafka": Store(_server_of("kafka", "brokerlist"), _list_in("topicslist")),
    "dli": Store(_project("dli"), _warehouse_tables),
    "dis": Store(_project("dis"), _list_in("streamname")),
    "obs": Store(_bucket, _object_keys, needs_link=False),
    "ftp": Store(_file_server, _paths),
    "sftp": Store(_file_server, _paths),
    "elasticsearch": Store(_server_of("elasticsearch", "host"), _list_in("index")),
    "mongodb": Store(_server_of("mongodb", "serverlist"), _collections),
}
#: Any other connector: one dataset, named after its link.
UNKNOWN_STORE = Store(lambda _endpoint: None, lambda _endpoint: [""], needs_link=False)
