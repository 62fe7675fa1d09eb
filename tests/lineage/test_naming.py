"""Names of datasets: one form for each connector, no uncertain names, and no secrets."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_cdm.lineage.naming import (
    LIMIT,
    Column,
    Dataset,
    Side,
    column_pairs,
    datasets_of,
    link_of,
)

CLUSTER = "6ec9a0a4-76be-4262-8697-e7af1fac7920"


def block(name: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return a block with one configuration."""
    listed = [{"name": f"{name}.{key}", "value": value} for key, value in inputs.items()]
    return {"configs": [{"name": name, "inputs": listed}]}


def names(
    connector: str, job: dict[str, Any], link: dict[str, Any] | None = None, **options: Any
) -> list[tuple[str, str]]:
    """Return namespaces and names of the datasets that a job with these inputs writes."""
    found = datasets(connector, job, link, **options)
    return [(dataset.namespace, dataset.name) for dataset in found]


def datasets(
    connector: str,
    job: dict[str, Any],
    link: dict[str, Any] | None = None,
    *,
    side: Side = "to",
    job_type: str = "NORMAL_JOB",
    **options: Any,
) -> list[Dataset]:
    """Return the datasets of one side of a job with these inputs."""
    definition = {
        "job_type": job_type,
        f"{side}-connector-name": f"{connector}-connector",
        f"{side}-link-name": "a_link",
        f"{side}-config-values": block(f"{side}JobConfig", job),
    }
    shown = None if link is None else {"link-config-values": block("linkConfig", link)}
    return datasets_of(definition, side, shown, cluster_id=CLUSTER, **options)


def database(kind: str, **more: str) -> dict[str, str]:
    """Return the inputs of a link to a relational database."""
    return {"databaseType": kind, "host": "Db.example.com", "port": "1234", "database": "d", **more}


TABLE = {"schemaName": "s", "tableName": "t"}


@pytest.mark.parametrize(
    ("kind", "namespace", "name"),
    [
        ("MYSQL", "mysql://db.example.com:1234", "s.t"),
        ("DDM", "mysql://db.example.com:1234", "s.t"),
        ("POSTGRESQL", "postgres://db.example.com:1234", "d.s.t"),
        ("DWS", "postgres://db.example.com:1234", "d.s.t"),
        ("SQLSERVER", "mssql://db.example.com:1234", "d.s.t"),
        ("ORACLE", "oracle://db.example.com:1234", "d.s.t"),
        ("DB2", "db2://db.example.com:1234", "d.s.t"),
        ("SAP HANA", "saphana://db.example.com:1234", "d.s.t"),
    ],
)
def test_relational_databases(kind: str, namespace: str, name: str) -> None:
    """A table is named by server, database and schema, as OpenLineage specifies."""
    assert names("generic-jdbc", TABLE, database(kind)) == [(namespace, name)]


def test_an_oracle_database_with_a_sid() -> None:
    """The name of an Oracle database is its service or, if the link says so, its SID."""
    link = database("ORACLE", databaseconfig="SID", sidname="orcl")
    assert names("generic-jdbc", TABLE, link) == [("oracle://db.example.com:1234", "orcl.s.t")]


@pytest.mark.parametrize(
    ("kind", "name"), [("MYSQL", "d.t"), ("POSTGRESQL", "d.public.t"), ("SQLSERVER", "d.dbo.t")]
)
def test_a_table_without_a_schema(kind: str, name: str) -> None:
    """If the job contains no schema, it is the default of the database."""
    ((_, found),) = names("generic-jdbc", {"tableName": "t"}, database(kind))
    assert found == name


@pytest.mark.parametrize(
    ("connector", "job", "link", "expected"),
    [
        (
            "hive",
            {"database": "d", "table": "t"},
            {"hiveMsUris": "thrift://h1:9083,thrift://h2:9083", "host": "manager"},
            ("hive://h1:9083", "d.t"),
        ),
        ("hive", {"table": "t"}, {"host": "10.0.0.1"}, ("hive://10.0.0.1", "default.t")),
        ("hdfs", {"outputDirectory": "/a/b/"}, {"uri": "hdfs://n:8020"}, ("hdfs://n:8020", "/a/b")),
        (
            "hbase",
            {"table": "ns:t"},
            {"zookeeperQuorum": "zk1:2181,zk2:2181"},
            ("hbase://zk1:2181", "ns:t"),
        ),
        ("dli", {"database": "d", "table": "t"}, {"projectId": "c48"}, ("dli://c48", "d.t")),
        ("dis", {"streamName": "orders"}, {"projectId": "c48"}, ("dis://c48", "orders")),
        (
            "obs",
            {"bucketName": "b", "outputDirectory": "/in/2025/"},
            None,
            ("obs://b", "in/2025"),
        ),
        ("obs", {"bucketName": "b"}, None, ("obs://b", "/")),
        (
            "sftp",
            {"outputDirectory": "/srv/in"},
            {"server": "10.0.0.2", "port": "22"},
            ("file://10.0.0.2", "/srv/in"),
        ),
        (
            "elasticsearch",
            {"index": "orders"},
            {"host": "192.168.0.50:9200;192.168.0.62:9200"},
            ("elasticsearch://192.168.0.50:9200", "orders"),
        ),
        (
            "mongodb",
            {"collectionName": "c"},
            {"serverList": "10.0.0.3:27017", "database": "d"},
            ("mongodb://10.0.0.3:27017", "d.c"),
        ),
        ("redis", {"keyPrefix": "k"}, None, (f"cdm://{CLUSTER}", "a_link")),
        ("generic-jdbc", TABLE, {}, (f"cdm://{CLUSTER}", "a_link.s.t")),
    ],
)
def test_other_stores(
    connector: str, job: dict[str, str], link: dict[str, str] | None, expected: tuple[str, str]
) -> None:
    """Each kind of store has its own form of names; unknown ones are named after their links."""
    assert names(connector, job, link) == [expected]


def test_several_topics_and_files() -> None:
    """A job that reads several topics or files has as many sources."""
    topics = {"topicsList": "orders, customers"}
    brokers = {"brokerList": "k1:9092,k2:9092"}
    assert names("dms-kafka", topics, brokers, side="from") == [
        ("kafka://k1:9092", "orders"),
        ("kafka://k1:9092", "customers"),
    ]
    files = {"bucketName": "b", "inputDirectory": "in/a.csv|in/b.csv"}
    assert names("obs", files, side="from") == [("obs://b", "in/a.csv"), ("obs://b", "in/b.csv")]


@pytest.mark.parametrize(
    "inputs",
    [
        {"useSql": "true", "sql": "SELECT 1", "tableName": "t"},
        {"tableName": "t*"},
        {"tableName": "t_${dt}"},
        {"schemaName": "s"},
        {},
    ],
)
def test_uncertain_names(inputs: dict[str, str]) -> None:
    """A query, a pattern and a placeholder name no table, and no name is guessed."""
    assert names("generic-jdbc", inputs, database("MYSQL")) == []


@pytest.mark.parametrize("kind", ["MYSQL", "POSTGRESQL", "SQLSERVER", "ORACLE", "SAP HANA"])
def test_a_link_without_a_database(kind: str) -> None:
    """A table whose database is not known has no name: it would be that of many tables."""
    link = {name: value for name, value in database(kind).items() if name != "database"}
    assert names("generic-jdbc", {"tableName": "t"}, link) == []
    # Where a schema is the database, the job may name it.
    with_schema = names("generic-jdbc", TABLE, link)
    assert with_schema == ([("mysql://db.example.com:1234", "s.t")] if kind == "MYSQL" else [])


@pytest.mark.parametrize(
    ("connector", "key"),
    [("obs", "inputDirectory"), ("hdfs", "inputDirectory"), ("sftp", "inputDirectory")],
)
def test_a_query_is_no_part_of_a_name(connector: str, key: str) -> None:
    """The query of an address may hold a token; a question mark in a pattern is none."""
    link = {"uri": "n:1", "server": "h"}
    places = {"bucketName": "b"}
    for path, name in [
        ("in/a.csv?token=abc&x=1", "in/a.csv"),
        ("in/a.csv?X-Amz-Signature=ab/cd", "in/a.csv"),
        ("in/a?.csv", "in/a?.csv"),
    ]:
        ((_, found),) = names(connector, {**places, key: path}, link, side="from")
        assert found == name


def test_a_query_is_no_part_of_a_namespace() -> None:
    """What follows a question mark in the name of a bucket or project is cut off as well."""
    bucket = {"bucketName": "b?token=abc", "inputDirectory": "in"}
    assert names("obs", bucket, side="from") == [("obs://b", "in")]
    project = {"projectId": "c48?token=abc"}
    assert names("dis", {"streamName": "orders"}, project) == [("dis://c48", "orders")]


def test_a_link_that_cannot_be_read() -> None:
    """Without its link a table gets no name, because a second name for it would be wrong."""
    assert names("generic-jdbc", TABLE, None) == []


def test_variables_and_macros() -> None:
    """Variables of the run are replaced; of a path with a macro, the part before it is kept."""
    inputs = {"tableName": "t_${country}"}
    found = names("generic-jdbc", inputs, database("MYSQL"), variables={"country": "nl"})
    assert [name for _, name in found] == ["d.t_nl"]
    path = {"bucketName": "b", "outputDirectory": "in/${country}/x_${dateformat(yyyy/MM)}/y"}
    assert names("obs", path, variables={"country": "nl"}) == [("obs://b", "in/nl")]


def test_a_whole_database() -> None:
    """The tables of a whole-database job are those that its run has moved."""
    link = database("POSTGRESQL")
    inputs = {"schemaName": "s", "tableName": "*"}
    found = names("generic-jdbc", inputs, link, job_type="BATCH_JOB", tables=["a", "b"])
    assert [name for _, name in found] == ["d.s.a", "d.s.b"]
    assert names("generic-jdbc", TABLE, link, job_type="BATCH_JOB", tables=[]) == []
    many = [f"t{n}" for n in range(LIMIT + 1)]
    found = names("generic-jdbc", inputs, link, job_type="BATCH_JOB", tables=many)
    assert len(found) == LIMIT


def test_columns() -> None:
    """Columns are those that the job lists, paired by order; files have none."""
    link = database("MYSQL")
    (source,) = datasets("generic-jdbc", {**TABLE, "columnList": "id&name"}, link, side="from")
    (target,) = datasets("hive", {"table": "t", "columnList": "nr&label"}, {"host": "h"})
    pairs = [(column.name, other.name) for column, other in column_pairs(source, target)]
    assert pairs == [("id", "nr"), ("name", "label")]
    assert column_pairs(source, Dataset("x", "y", (Column("only"),))) == []
    (file,) = datasets("obs", {"bucketName": "b", "columnList": "1&2"})
    assert file.columns == ()
    (index,) = datasets(
        "elasticsearch", {"index": "i", "columnList": "a:numeric&b"}, {"host": "h:1"}
    )
    assert index.columns == (Column("a", "numeric"), Column("b"))


def test_encoded_values() -> None:
    """Percent-encoding by CDM does not change a name."""
    path = {"bucketName": "b", "outputDirectory": "in/täglich"}
    shown = {key: quote(value, safe="") for key, value in path.items()}
    assert names("obs", shown) == names("obs", path) == [("obs://b", "in/täglich")]


CONNECTORS = st.sampled_from(
    [
        *("generic-jdbc", "hive", "hdfs", "hbase", "kafka", "dms-kafka", "dli", "dis", "obs"),
        *("ftp", "sftp", "elasticsearch", "mongodb", "redis", "opentsdb", "http", ""),
    ]
)
KEYS = st.sampled_from(
    [
        *("databaseType", "host", "port", "database", "uri", "hiveMsUris", "zookeeperQuorum"),
        *("brokerList", "server", "serverList", "projectId", "schemaName", "tableName", "table"),
        *("collectionName", "topicsList", "streamName", "bucketName", "inputDirectory", "index"),
        *("outputDirectory", "columnList", "columns", "useSql", "databaseconfig", "sidname"),
    ]
)
SECRET = "hunter2-hunter2"
SECRETS = ("password", "accessKey", "securityKey", "ak", "sk", "token")
ADDRESSES = ["{0}@h", "u:{0}@h:1", "http://u:{0}@h/p", "a:{0}@h;b:{0}@g", "sftp://u:x/{0}@h/p"]


#: Inputs of every connector's jobs at once.
PLACES = {
    "schemaName": "s",
    "tableName": "t",
    "table": "t",
    "database": "d",
    "collectionName": "c",
    "topicsList": "o",
    "streamName": "o",
    "bucketName": "b",
    "outputDirectory": "/p",
    "index": "i",
}
SERVERS = ["host", "uri", "hiveMsUris", "zookeeperQuorum", "brokerList", "server", "serverList"]


@given(
    CONNECTORS,
    st.fixed_dictionaries(dict.fromkeys(SERVERS, st.sampled_from(ADDRESSES))),
    st.fixed_dictionaries(dict.fromkeys(SECRETS, st.just(SECRET))),
    st.sampled_from(["MYSQL", "ORACLE", "DWS", "SAP HANA"]),
)
def test_no_secret_in_a_name(
    connector: str, servers: dict[str, str], secrets: dict[str, str], kind: str
) -> None:
    """No name contains a secret input of a link, or a password in the address of a server."""
    addresses = {key: value.format(SECRET) for key, value in servers.items()}
    found = datasets(connector, PLACES, {"databaseType": kind, **addresses, **secrets})
    assert SECRET not in repr(found).lower()


@pytest.mark.parametrize("address", [address for address in ADDRESSES if "://" in address])
def test_no_password_from_a_path(address: str) -> None:
    """A path that is written as an address loses its user and password."""
    (found,) = datasets("hdfs", {"outputDirectory": address.format(SECRET)}, {"uri": "n:1"})
    assert found.name == "/p"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
PARTS = st.sampled_from(
    [
        *("job_type", "to-connector-name", "to-link-name", "to-config-values"),
        *("link-config-values", "configs", "inputs", "name", "value"),
    ]
)
JUNK = st.recursive(
    JSON | CONNECTORS.map("{}-connector".format) | KEYS.map("toJobConfig.{}".format),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PARTS, inner),
    max_leaves=20,
)


@pytest.mark.long
@given(st.dictionaries(PARTS, JUNK), st.none() | st.dictionaries(PARTS, JUNK))
def test_any_definition(job: dict[str, Any], link: dict[str, Any] | None) -> None:
    """Whatever a server shows as job and link, nothing is raised, and all names are text."""
    link_of(job, "to")
    for each in datasets_of(job, "to", link, cluster_id=CLUSTER):
        assert isinstance(each.name, str)
        assert each.name
        assert "://" in each.namespace


@given(CONNECTORS, st.dictionaries(KEYS, st.text()), st.dictionaries(KEYS, st.text()))
def test_any_inputs(connector: str, job: dict[str, str], link: dict[str, str]) -> None:
    """Whatever the inputs contain, no name contains a placeholder."""
    for each in datasets(connector, job, link):
        assert each.name
        assert "${" not in each.name
