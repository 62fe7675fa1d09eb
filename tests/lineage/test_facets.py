"""The events that Airflow's OpenLineage listener writes to a file, for runs that move real rows."""

from __future__ import annotations

import importlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attr
import jsonschema
import pytest

from airflow_provider_cdm.client.api import parsing
from airflow_provider_cdm.client.jobs import apply
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.client.submission import Submission
from airflow_provider_cdm.connection.reader import settings_from
from airflow_provider_cdm.lineage.naming import Dataset, datasets_of
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.simulator import CdmSimulator
from tests.support import lineage_dag
from tests.support.airflow_home import empty_dags_folder
from tests.support.connection import Conn

# A DAG of Airflow runs in a process of its own.
pytestmark = pytest.mark.long

#: A clone of OpenLineage's repository (folder ``spec``), to validate events against its schemas.
SPEC = os.environ.get("OPENLINEAGE_SPEC")
ROWS = 7
PASSWORD = "Pa55word-of-the-warehouse"
SHOP = ("mysql://shop.example.com:3306", "main.orders")
WAREHOUSE = ("postgres://warehouse.example.com:8000", "gaussdb.main.orders_nl")


@pytest.fixture(scope="module")
def openlineage() -> None:
    """Skip the test if the extra is not installed."""
    pytest.importorskip("airflow.providers.openlineage", reason="needs the extra openlineage")


def link(name: str, kind: str, port: int, database: str) -> dict[str, Any]:
    """Return a link to a relational database."""
    values = {"databaseType": kind, "host": f"{name}.example.com", "port": str(port)}
    more = {"database": database, "username": "cdm", "password": PASSWORD}
    return {
        "name": name,
        "connector-name": lineage_dag.JDBC,
        "link-config-values": lineage_dag.inputs("linkConfig", **values, **more),
    }


def tables(path: Path, rows: int, **columns: str) -> None:
    """Create a database with these tables, and with so many rows in each."""
    with sqlite3.connect(path) as database:
        for name, types in columns.items():
            database.execute(f"CREATE TABLE {name} ({types})")
            days = [(number, "2025-01-01") for number in range(rows)]
            database.executemany(f"INSERT INTO {name} VALUES (?, ?)", days)


def job(**changes: Any) -> dict[str, Any]:
    """Return the definition of the DAG's job with changes."""
    return {**lineage_dag.DEFINITION, **changes}


FILES = job(
    **{
        "from-connector-name": "obs-connector",
        "from-link-name": "bucket",
        "from-config-values": lineage_dag.inputs(
            "fromJobConfig", bucketName="in", inputDirectory="/a/"
        ),
        "to-connector-name": "hdfs-connector",
        "to-link-name": "hadoop",
        "to-config-values": lineage_dag.inputs("toJobConfig", outputDirectory="/out"),
    }
)
FILE_COUNTERS = {
    **dict.fromkeys(("ROWS_READ", "ROWS_WRITTEN"), -1),
    **dict.fromkeys(("BYTES_READ", "BYTES_WRITTEN"), 2048),
    **dict.fromkeys(("FILES_READ", "FILES_WRITTEN"), 3),
}


@pytest.fixture(scope="module")
def stage(openlineage: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CdmSimulator]:
    """Two databases, links to them that the API created, and jobs of several kinds."""
    folder = tmp_path_factory.mktemp("lineage")
    tables(folder / "shop.db", ROWS, orders="id INTEGER, day TEXT")
    tables(
        folder / "warehouse.db", 0, orders_nl="nr INTEGER, date TEXT", orders="id INTEGER, day TEXT"
    )
    databases = {name: f"sqlite:///{folder}/{name}.db" for name in ("shop", "warehouse")}
    hadoop = {
        "name": "hadoop",
        "connector-name": "hdfs-connector",
        "link-config-values": lineage_dag.inputs(
            "linkConfig", uri="namenode:8020", password=PASSWORD
        ),
    }
    links = [
        link("shop", "MYSQL", 3306, "sales"),
        link("warehouse", "DWS", 8000, "gaussdb"),
        hadoop,
    ]
    with CdmSimulator({"databases": databases, "seconds": 0.2}) as sim:
        with session_of(sim) as session:
            for wire in links:
                made = apply.create(session.api, sim.cluster_id, parsing.link(wire))
                session.run(made)
        for number in ("", "_2", "_3", "_4"):
            sim.add_job(f"orders{number}", wire=job())
        sim.add_job("failing", wire=job(), outcome="FAILED", error_summary="Disk full")
        whole = {
            "from-config-values": lineage_dag.inputs(
                "fromJobConfig", schemaName="main", tableName="*"
            ),
            "to-config-values": lineage_dag.inputs("toJobConfig", schemaName="main"),
        }
        sim.add_job("whole", type="BATCH_JOB", wire=job(**whole, job_type="BATCH_JOB"))
        sim.add_job("files", wire=FILES, counters=FILE_COUNTERS)
        sim.add_job("unreadable", wire={**job(), "from-link-name": "gone", "to-link-name": "gone"})
        yield sim


def session_of(sim: CdmSimulator) -> CdmSession:
    """Return a session for a simulator."""
    extra = json.dumps(sim.connection_extra)
    connection = Conn(host=sim.url, login=sim.user, password=sim.password, extra=extra)
    return CdmSession(settings_from(connection))


Events = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def events_and_calls(
    stage: CdmSimulator, airflow_database: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Events, list[str]]:
    """The events of all tasks of the DAG, which runs in a separate process, and the calls made."""
    written = tmp_path_factory.mktemp("events") / "events.jsonl"
    transport = {"type": "file", "log_file_path": str(written), "append": True}
    dag_file = empty_dags_folder() / "lineage_dag.py"
    dag_file.write_text(Path(lineage_dag.__file__).read_text())
    environment = os.environ | {
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport),
        "AIRFLOW_CONN_CDM_DEFAULT": stage.connection_json,
    }
    command = [sys.executable, str(dag_file), "2025-01-01T00:00:00+00:00"]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert written.exists(), process.stdout[-5000:] + process.stderr[-5000:]
    assert PASSWORD not in process.stdout + process.stderr
    lines = [json.loads(line) for line in written.read_text().splitlines()]
    prefix = f"{lineage_dag.DAG_ID}."
    events = {
        (event["job"]["name"].removeprefix(prefix), event["eventType"]): event for event in lines
    }
    return events, [each.route for each in stage.requests]


@pytest.fixture(scope="module")
def events(events_and_calls: tuple[Events, list[str]]) -> Events:
    """The events of all tasks, by task and type."""
    return events_and_calls[0]


def ends(event: Mapping[str, Any]) -> list[list[tuple[str, str]]]:
    """Return namespaces and names of the inputs and outputs of an event."""
    return [
        [(each["namespace"], each["name"]) for each in event[side]]
        for side in ("inputs", "outputs")
    ]


def statistics(event: Mapping[str, Any]) -> list[Any]:
    """Return the statistics of the inputs and outputs of an event."""
    facets = (
        ("inputs", "inputFacets", "inputStatistics"),
        (
            *("outputs", "outputFacets"),
            "outputStatistics",
        ),
    )
    return [
        {key: count for key, count in facet.items() if not key.startswith("_")}
        for side, kind, name in facets
        for each in event[side]
        if (facet := each[kind].get(name)) is not None
    ]


@pytest.mark.parametrize(
    ("task", "kind"),
    [("worker", "COMPLETE"), ("deferred", "COMPLETE"), ("own_job", "COMPLETE"), ("missed", "FAIL")],
)
def test_source_and_target(task: str, kind: str, events: Events) -> None:
    """A run that moved rows names its source and its target, with the rows read and written.

    So it does in every mode, after its job was deleted, and when it missed a threshold.
    """
    event = events[task, kind]
    assert ends(event) == [[SHOP], [WAREHOUSE]]
    assert statistics(event) == [{"rowCount": ROWS}, {"rowCount": ROWS}]


def test_columns(events: Events) -> None:
    """Source and target list their columns, and the target names the origin of each."""
    event = events["worker", "COMPLETE"]
    (source,), (target,) = event["inputs"], event["outputs"]
    columns = [
        [field["name"] for field in each["facets"]["schema"]["fields"]] for each in (source, target)
    ]
    assert columns == [["id", "day"], ["nr", "date"]]
    fields = target["facets"]["columnLineage"]["fields"]
    origins = {name: field["inputFields"] for name, field in fields.items()}
    assert {
        name: [(each["namespace"], each["name"], each["field"]) for each in found]
        for name, found in origins.items()
    } == {"nr": [(*SHOP, "id")], "date": [(*SHOP, "day")]}


def test_a_failed_run(events: Events) -> None:
    """A failed run names source and target, without rows, and gives CDM's reason."""
    event = events["failing", "FAIL"]
    assert ends(event) == [[SHOP], [WAREHOUSE]]
    assert statistics(event) == []
    assert "Disk full" in event["run"]["facets"]["errorMessage"]["message"]


def test_a_task_that_does_not_wait(events: Events, stage: CdmSimulator) -> None:
    """The event of a task that only starts a run names only the run; its sensor names the source.

    The sensor does not know the variables of the run, so it does not know the target.
    """
    (run,) = stage.runs("orders_4")
    start, sensor = events["start_only", "COMPLETE"], events["sensor", "COMPLETE"]
    assert ends(start) == [[], []]
    assert ends(sensor) == [[SHOP], []]
    for event in (start, sensor):
        query = event["run"]["facets"]["externalQuery"]
        assert query["source"] == "huaweicloud-cdm"
        assert query["externalQueryId"] == f"{stage.cluster_id}/orders_4/{run.submission_id}"


def test_a_whole_database(events: Events) -> None:
    """The run of a whole-database job names its tables, each with its own rows."""
    event = events["whole", "COMPLETE"]
    assert ends(event) == [[SHOP], [(WAREHOUSE[0], "gaussdb.main.orders")]]
    assert statistics(event) == [{"rowCount": ROWS}, {"rowCount": ROWS}]


@pytest.mark.parametrize(
    ("name", "rows"), [("d.s.b", 1), ("d.s.a.b", 2), ("d.s.c", None), ("d.s.cb", None)]
)
def test_rows_of_a_table_with_a_dot_in_its_name(
    name: str, rows: int | None, openlineage: None
) -> None:
    """Each table has its own rows, also if the name of one ends as that of another."""
    from airflow_provider_cdm.lineage import facets

    tables = [
        {"table": table, "status": "SUCCEEDED", "counters": {"ROWS_READ": number}}
        for table, number in (("b", 1), ("a.b", 2))
    ]
    run = Submission("c", "whole", "SUCCEEDED", 1, tables={"list": tables})
    assert facets._counters(Dataset("n", name), run, 2).get("ROWS_READ") == rows


def test_a_table_that_was_not_moved_is_not_named(openlineage: None) -> None:
    """Of a run whose tables failed in part, only those that were moved count."""
    from airflow_provider_cdm.lineage import facets

    tables = [
        {"table": table, "status": status, "counters": {"ROWS_READ": 3}}
        for table, status in (("a", "SUCCEEDED"), ("b", "FAILED"), ("c", "STOPPED"))
    ]
    run = Submission("c", "whole", "FAILED", 1, tables={"list": tables})
    assert [*facets._tables(run)] == ["a"]
    assert facets._counters(Dataset("n", "d.s.b"), run, 3) == {}


def test_files(events: Events) -> None:
    """A run that moves files reports bytes and files, and no rows."""
    event = events["files", "COMPLETE"]
    assert ends(event) == [[("obs://in", "a")], [("hdfs://namenode:8020", "/out")]]
    assert statistics(event) == [{"size": 2048, "fileCount": 3}] * 2


def test_links_that_cannot_be_read(events: Events) -> None:
    """Without its links a run names no datasets, and the task still succeeds."""
    assert ends(events["unreadable", "COMPLETE"]) == [[], []]


def test_quota(events_and_calls: tuple[Events, list[str]]) -> None:
    """The event of a start names no datasets; an ended run costs one call for each link."""
    events, calls = events_and_calls
    assert ends(events["worker", "START"]) == [[], []]
    seven_jobs, files, unreadable = 7 * 2, 1, 1
    before_the_play = calls.index("start")
    assert calls[before_the_play:].count("show_link") == seven_jobs + files + unreadable


def test_no_secret(events: Events) -> None:
    """The password of a link is in no event."""
    assert events
    assert PASSWORD not in json.dumps(list(events.values()))


def conforms(value: Any, hint: Any) -> bool:
    """Return whether a piece of JSON matches a type of the OpenLineage package."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(conforms(value, each) for each in arguments)
    if origin is list:
        return isinstance(value, list) and all(conforms(each, arguments[0]) for each in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            conforms(each, arguments[1]) for each in value.values()
        )
    if attr.has(hint):
        attr.resolve_types(hint)
        fields = {field.name: field for field in attr.fields(hint)}
        needed = {name for name, field in fields.items() if field.default is attr.NOTHING}
        return (
            isinstance(value, dict)
            and needed - {"_producer", "_schemaURL"} <= set(value)
            and all(
                name in fields and conforms(each, fields[name].type) for name, each in value.items()
            )
        )
    return hint is Any or (isinstance(hint, type) and isinstance(value, hint))


def own_facets(event: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the facets that this package adds to an event, by the ends of their schema URLs."""
    kept = [event["run"]["facets"].get("externalQuery")]
    for each in (*event["inputs"], *event["outputs"]):
        for kind in ("facets", "inputFacets", "outputFacets"):
            kept += each.get(kind, {}).values()
    for facet in kept:
        if facet is not None:
            yield facet["_schemaURL"].rpartition("/")[2], facet


def test_facets_are_of_their_types(events: Events) -> None:
    """Each facet has the fields and types of its class, generated from OpenLineage's schema."""
    seen = set()
    for event in events.values():
        for name, facet in own_facets(event):
            stem = re.sub(r"(?<!^)(?=[A-Z])", "_", name.removesuffix("Facet")).lower()
            module = importlib.import_module(f"openlineage.client.generated.{stem}")
            assert conforms(facet, getattr(module, name)), facet
            seen.add(name)
    assert len(seen) == 5


@pytest.mark.skipif(SPEC is None, reason="OPENLINEAGE_SPEC names no clone of OpenLineage")
def test_events_are_valid(events: Events) -> None:
    """OpenLineage's own JSON schemas accept every event and every facet in it."""
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    spec = Path(SPEC or "") / "spec"
    provider = Path(importlib.import_module("airflow.providers.openlineage").__file__ or "").parent
    schemas = {
        path.name: json.loads(path.read_text())
        for folder in (spec, spec / "facets", provider / "facets")
        for path in folder.glob("*.json")
    }

    def retrieve(uri: str) -> Any:
        # Any version will do: newer ones only add to older ones.
        name = urlsplit(uri).path.rpartition("/")[2]
        return DRAFT202012.create_resource(schemas[name])

    registry: Any = Registry(retrieve=retrieve)  # type: ignore[call-arg]
    validator = jsonschema.Draft202012Validator(
        {"$ref": "https://openlineage.io/spec/2-0-2/OpenLineage.json"},
        registry=registry,
        format_checker=jsonschema.FormatChecker(),
    )
    facets = 0
    for event in events.values():
        validator.validate(event)
        for _, facet in own_facets(event):
            validator.evolve(schema={"$ref": facet["_schemaURL"]}).validate(facet)
            facets += 1
    assert facets


NAMES = {
    "MYSQL": ("MySQL", {"database": "s"}),
    "POSTGRESQL": ("Postgres", {"database": "d", "schema": "s"}),
    "ORACLE": ("Oracle", {"service_name": "d", "schema": "s"}),
    "DB2": ("DB2", {"database": "d", "schema": "s"}),
}


@pytest.mark.parametrize("kind", NAMES)
def test_names_are_those_of_openlineage(kind: str, openlineage: None) -> None:
    """OpenLineage's own package gives a table the same name."""
    naming = pytest.importorskip("openlineage.client.naming.dataset")
    name, parts = NAMES[kind]
    official = getattr(naming, name)(host="db.example.com", port="1234", table="t", **parts)
    values = {"databaseType": kind, "host": "db.example.com", "port": "1234", "database": "d"}
    wire = {
        "to-connector-name": lineage_dag.JDBC,
        "to-link-name": "db",
        "to-config-values": lineage_dag.inputs("toJobConfig", schemaName="s", tableName="t"),
    }
    shown = {"link-config-values": lineage_dag.inputs("linkConfig", **values)}
    (found,) = datasets_of(wire, "to", shown, cluster_id="c")
    assert (found.namespace, found.name) == (official.get_namespace(), official.get_name())


ENDED: dict[str, Any] = {"status": "SUCCEEDED", "submission_id": 1, "counters": {"ROWS_WRITTEN": 3}}


@pytest.mark.parametrize(
    "fault",
    [
        {"route": "show_link", "kind": "status", "status": 403},
        {"route": "show_link", "kind": "status", "status": 429},
        {"route": "show_link", "kind": "reset"},
        {"route": "show_link", "kind": "hang"},
        {"route": "show_job", "kind": "body", "body": "{"},
    ],
    ids=["refused", "quota", "reset", "hanging", "nonsense"],
)
def test_failed_calls(
    fault: dict[str, Any],
    stage: CdmSimulator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """If CDM does not answer, the event names no datasets, a warning says so, and no call is
    repeated.
    """
    lineage = importlib.import_module("airflow_provider_cdm.lineage.facets")
    monkeypatch.setattr(lineage, "TIMEOUT", 0.5)
    stage.fail(**fault)
    before = len(stage.requests)
    with session_of(stage) as session:
        result = lineage.describe(
            Submission(stage.cluster_id, "orders", **ENDED),
            open_session=lambda: session,
            definition=None,
            variables={},
        )
    assert (result.inputs, result.outputs) == ([], [])
    assert result.run_facets
    assert "The OpenLineage event lacks part" in caplog.text
    routes = [each.route for each in stage.requests[before:]]
    assert len(routes) == len(set(routes))
    stage.faults.clear()


def test_a_connection_that_is_gone(openlineage: None, caplog: pytest.LogCaptureFixture) -> None:
    """If not even a session can be opened, the event still names the run."""
    lineage = importlib.import_module("airflow_provider_cdm.lineage.facets")

    def gone() -> CdmSession:
        raise RuntimeError("no such connection")

    run = Submission("c", "orders", **ENDED)
    result = lineage.describe(run, open_session=gone, definition=None, variables=None)
    assert result.run_facets["externalQuery"].externalQueryId == "c/orders/1"
    assert "no such connection" in caplog.text


def test_a_task_without_a_run(openlineage: None) -> None:
    """The event of a task that failed before it had a run has no facets."""
    task = CdmStartJobOperator(task_id="t", job_name="orders")
    assert task.get_openlineage_facets_on_failure(None).run_facets == {}


@pytest.mark.long
def test_nothing_is_imported() -> None:
    """Operators and sensors do not import OpenLineage, which may not be installed."""
    code = (
        "import sys, airflow_provider_cdm.operators, airflow_provider_cdm.sensors;"
        "print(*({'openlineage', 'airflow_provider_cdm.lineage.facets'} & set(sys.modules)))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == ""
