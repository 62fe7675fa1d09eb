"""Every public sample of an answer in ``tests/wire``, replayed over HTTP on both drivers.

Each row of a file has a source: "documented" in a public document, "recorded" from live traffic and
published, or "assumed". The id of a test has the number of the sample and how many its file has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import parsing, resources, runs
from airflow_provider_cdm.client.api.definitions import JOB, LINK, Definition, inputs_of
from airflow_provider_cdm.client.auth import factory
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.client.settings import PasswordCredentials, Settings
from tests.client.fixture_types import Drive
from tests.support.sample_server import SampleServer
from tests.support.virtual_time import VirtualTime

FOLDER = Path(__file__).parents[1] / "wire"
CORPUS: dict[str, list[dict[str, Any]]] = {
    path.stem: json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))
}
#: Numbers of samples by file: whoever adds one changes them.
COUNTS = {
    "cluster_action": 2, "create": 6, "delete": 1, "errors": 35, "gateway": 34, "list_clusters": 2,
    "list_jobs": 2, "show_cluster": 6, "show_job": 6, "show_link": 3, "start": 7, "status": 13,
    "stop": 10, "submissions": 6, "token": 3,
}  # fmt: skip
DEFINITION = parsing.job({"name": "asked", "job_type": "SCENARIO_JOB"})


def samples(*files: str) -> pytest.MarkDecorator:
    """Return the samples of some files, as parameters of a test."""
    rows = [
        pytest.param(file, sample, id=f"{file} {number} of {len(CORPUS[file])}: {sample['name']}")
        for file in files
        for number, sample in enumerate(CORPUS[file], 1)
    ]
    return pytest.mark.parametrize(("file", "sample"), rows)


@pytest.fixture(scope="module")
def server() -> Iterator[SampleServer]:
    """Return a server that gives samples."""
    server = SampleServer()
    yield server
    server.close()


@pytest.fixture
def replay(
    server: SampleServer, drive: Drive, virtual_time: VirtualTime
) -> Iterator[Callable[..., Any]]:
    """Return a function that makes a call to which a sample is the answer."""
    factory.forget_everything()
    credentials = PasswordCredentials("u", "p", "d")
    settings = Settings(server.url, server.url, credentials, project_id="p")
    session = CdmSession(settings, **virtual_time.options())

    def replay(
        sample: dict[str, Any], make_flow: Callable[[Any], Any], *, iam: bool = False
    ) -> Any:
        server.sample, server.about_iam, server.requests = asked(sample), iam, []
        return drive(session, make_flow(session.api))

    yield replay
    session.close()
    factory.forget_everything()


def asked(sample: dict[str, Any]) -> dict[str, Any]:
    """Return a sample as the answer about the job that is asked for."""
    if "raw" in sample:
        return sample
    text = re.sub(r'("job-name": ")[^"]*"', r'\1asked"', json.dumps(sample["body"]))
    return {**sample, "body": json.loads(text)}


def part(submission: Any, wanted: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of a submission that a sample names."""
    payload = submission.to_payload()
    return {name: payload[name] for name in wanted}


def all_inputs(definition: Definition, wire: dict[str, Any]) -> dict[str, str]:
    """Return all inputs of a job or link."""
    return {k: v for block in definition.kind.blocks for k, v in inputs_of(wire, block).items()}


def test_counts_and_sources() -> None:
    """Each sample has a name of its own, a source, and what it means; none is lost."""
    assert {file: len(rows) for file, rows in CORPUS.items()} == COUNTS
    for rows in CORPUS.values():
        assert len({row["name"] for row in rows}) == len(rows)
        for row in rows:
            assert re.match(r"(documented|recorded|assumed)\b", row["source"]), row
            assert {"name", "source", "means"} < row.keys()
            assert ("raw" in row) is not ("body" in row)


@samples("start")
def test_start(file: str, sample: dict[str, Any], replay: Any) -> None:
    """The answer to a start is read as it is documented."""
    found = replay(sample, lambda api: api.call(runs.start_job("c", "asked")))
    assert part(found, sample["means"]) == sample["means"]


@samples("status")
def test_status(file: str, sample: dict[str, Any], replay: Any) -> None:
    """The answer to a status call is read as it is documented."""
    found = replay(sample, lambda api: api.call(runs.status("c", "asked")))
    assert [part(s, m) for s, m in zip(found, sample["means"], strict=True)] == sample["means"]


@samples("submissions")
def test_history(file: str, sample: dict[str, Any], replay: Any) -> None:
    """A history is sorted newest first, and knows whether it is complete."""
    found = replay(sample, lambda api: api.call(runs.history("c", "asked")))
    ids = [submission.submission_id for submission in found.submissions]
    assert {"ids": ids, "total": found.total, "complete": found.complete} == sample["means"]


@samples("stop", "create", "delete", "cluster_action")
def test_answers_to_changes(file: str, sample: dict[str, Any], replay: Any, server: Any) -> None:
    """Each form of these answers is a success, unless it contains an ERROR."""
    calls: dict[str, list[Any]] = {
        "stop": [runs.stop_job("c", "asked")],
        "create": [resources.create("c", DEFINITION), resources.update("c", DEFINITION)],
        "delete": [resources.delete(kind, "c", "asked") for kind in (JOB, LINK)],
        "cluster_action": [
            resources.start_cluster("c"),
            resources.stop_cluster("c", graceful=True),
        ],
    }
    for call in calls[file]:
        if isinstance(sample["means"], str):
            with pytest.raises(errors.CdmRefused, match=re.escape(sample["means"])):
                replay(sample, lambda api, call=call: api.call(call))
        else:
            assert replay(sample, lambda api, call=call: api.call(call)) == sample["means"]
        assert len(server.requests) == 1


@samples("show_job")
def test_show_job(file: str, sample: dict[str, Any], replay: Any) -> None:
    """A shown job is read, differs from itself in nothing, and is sent back unchanged."""
    found = replay(sample, lambda api: api.find(JOB, "c", "asked"))
    definition = parsing.job(found)
    means = sample["means"]
    assert found["job_type"] == definition.wire["job_type"] == means["job_type"]
    assert [found["from-link-name"], found["to-link-name"]] == means["links"]
    assert all_inputs(definition, found) == means["inputs"]
    assert (definition.differences(found), definition.unmanaged(found)) == ([], [])
    blocks = [key for key in JOB.blocks if key in found]
    assert flat(definition.wire, blocks) == flat(found, blocks)
    assert parsing.job(json.dumps(found)).wire == definition.wire
    for name, value in sample.get("wanted", {}).items():
        wanted = json.dumps(found).replace(json.dumps(means["inputs"][name]), json.dumps(value))
        assert parsing.job(wanted).differences(found) == []


def flat(wire: Any, blocks: list[str]) -> Any:
    """Return blocks for a comparison: an empty object for a list of inputs is an empty list."""
    return json.loads(
        json.dumps([wire[key] for key in blocks]).replace('"inputs": {}', '"inputs": []')
    )


@samples("show_link")
def test_show_link(file: str, sample: dict[str, Any], replay: Any) -> None:
    """A shown link is read and differs from itself in nothing, though it lacks its secrets."""
    found = replay(sample, lambda api: api.find(LINK, "c", "asked"))
    definition = parsing.link(found)
    assert found["connector-name"] == sample["means"]["connector"]
    assert all_inputs(definition, found) == sample["means"]["inputs"]
    assert definition.differences(found) == []


@samples("list_jobs")
def test_list_jobs(file: str, sample: dict[str, Any], replay: Any) -> None:
    """A page of the job list has the names of jobs, and their newest runs."""
    page = replay(sample, lambda api: api.call(resources.list_jobs("c", 1)))
    jobs = [[job.name, job.status, job.created] for job in page.jobs]
    assert {"total": page.total, "jobs": jobs} == sample["means"]


@samples("show_cluster")
def test_show_cluster(file: str, sample: dict[str, Any], replay: Any) -> None:
    """The details of a cluster are its name and state."""
    cluster = replay(sample, lambda api: api.call(resources.show_cluster("c")))
    assert [cluster.name, cluster.state] == sample["means"]


@samples("list_clusters")
def test_list_clusters(file: str, sample: dict[str, Any], replay: Any) -> None:
    """The list of clusters has their ids and states."""
    listed = replay(sample, lambda api: api.call(resources.list_clusters()))
    assert [[each.cluster_id, each.state] for each in listed] == sample["means"]


@samples("token")
def test_token(file: str, sample: dict[str, Any], replay: Any) -> None:
    """A token says for which project it is valid."""
    token = replay(sample, lambda api: api.auth.authorize(), iam=True)
    assert token.project_id == sample["means"]["project"]


@samples("errors", "gateway")
def test_errors(file: str, sample: dict[str, Any], replay: Any) -> None:
    """Each error has a class, a code and the reason that the server gave, on the whole way."""
    cls, code, *texts = sample["means"]
    with pytest.raises(errors.CdmError) as caught:
        replay(sample, lambda api: api.call(runs.status("c", "asked")))
    assert (type(caught.value).__name__, caught.value.code) == (cls, code)
    assert caught.value.http_status == sample["status"]
    for text in texts:
        assert text in str(caught.value)
    # Nothing that a caller may not see: tokens, and what the gateway echoes of them.
    assert "MIIa" not in str(caught.value)
