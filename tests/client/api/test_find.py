"""Looking for one job among all types of jobs, and for a cluster that may not exist."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_cdm.client import clusters, errors
from airflow_provider_cdm.client.api import parsing, resources
from airflow_provider_cdm.client.api.definitions import JOB, LINK
from airflow_provider_cdm.client.jobs import apply, failure_report
from airflow_provider_cdm.client.submission import Submission
from airflow_provider_cdm.client.whole_database import collect
from airflow_provider_cdm.simulator import CdmSimulator
from tests.client.fixture_types import Drive, MakeSession, Sent

JOBS = [
    {"name": "table"},
    {"name": "whole", "type": "BATCH_JOB", "tables": ["a", "b"]},
    {"name": "scenario", "type": "SCENARIO_JOB"},
]
TYPES = {"table": "NORMAL_JOB", "whole": "BATCH_JOB", "scenario": "SCENARIO_JOB"}


@pytest.fixture(params=["400", "404", "500"])
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return a configuration that shows a job only under its type."""
    behaviour = {"show_needs_job_type": True, "not_found_status": request.param}
    links = [{"name": "source"}, {"name": "target"}]
    return {
        "behaviour": behaviour,
        "clusters": [{"name": "demo", "jobs": JOBS, "links": links}],
    }


@pytest.mark.parametrize(("name", "calls"), [("table", 1), ("whole", 2), ("scenario", 3)])
def test_a_job_of_any_type_is_found(
    name: str, calls: int, drive: Drive, sim: CdmSimulator, make_session: MakeSession, sent: Sent
) -> None:
    """A job is asked for without a type first, and with the others only if it is not found."""
    session = make_session()
    found = drive(session, session.api.find(JOB, sim.cluster_id, name))
    assert found["job_type"] == TYPES[name]
    assert len(sent("show_job")) == calls


def test_a_job_that_does_not_exist(
    drive: Drive, sim: CdmSimulator, make_session: MakeSession, sent: Sent
) -> None:
    """A missing job is asked for under each type; of a known type, under that one alone."""
    session = make_session()
    assert drive(session, session.api.find(JOB, sim.cluster_id, "no")) is None
    types = [request.query.get("jobType") for request in sent("show_job")]
    assert types == [None, "BATCH_JOB", "SCENARIO_JOB"]
    for job_type, calls in {"NORMAL_JOB": 1, "BATCH_JOB": 2, "SCENARIO_JOB": 2}.items():
        before = len(sent("show_job"))
        find = session.api.find(JOB, sim.cluster_id, "no", job_type=job_type)
        assert drive(session, find) is None
        assert len(sent("show_job")) - before == calls
    assert drive(session, session.api.find(LINK, sim.cluster_id, "no")) is None
    assert len(sent("show_link")) == 1


def test_an_answer_without_a_job(
    drive: Drive, sim: CdmSimulator, make_session: MakeSession
) -> None:
    """An empty answer may mean another type; if no type has the job, nothing is claimed."""
    session = make_session()
    sim.fail("show_job", "body", body={"jobs": [], "total": 0})
    found = drive(session, session.api.find(JOB, sim.cluster_id, "whole"))
    assert found["job_type"] == "BATCH_JOB"
    for _ in range(3):
        sim.fail("show_job", "body", body={"jobs": [], "total": 0})
    with pytest.raises(errors.CdmBadResponse, match="contains no job"):
        drive(session, session.api.find(JOB, sim.cluster_id, "whole"))


@pytest.mark.parametrize("body", ["<html>", "", {"total": 0}, {"jobs": None}, {"jobs": [1]}])
def test_an_answer_that_cannot_be_read(
    body: Any, drive: Drive, sim: CdmSimulator, make_session: MakeSession, sent: Sent
) -> None:
    """Any other answer is an error at once, and says nothing about the job."""
    session = make_session()
    sim.fail("show_job", "body", body=body)
    with pytest.raises(errors.CdmBadResponse):
        drive(session, session.api.find(JOB, sim.cluster_id, "whole"))
    assert len(sent("show_job")) == 1


def test_an_outage_says_nothing(drive: Drive, sim: CdmSimulator, make_session: MakeSession) -> None:
    """A job is missing only if CDM says so for each type; a release may refuse a type."""
    session = make_session(max_retries=0)
    sim.fail("show_job", "status", status=400, body={"errCode": "Cdm.0100"})
    sim.fail("show_job", "status", "before", times=9, status=503)
    with pytest.raises(errors.CdmUnavailable):
        drive(session, session.api.find(JOB, sim.cluster_id, "whole"))


def test_a_type_that_is_refused(
    drive: Drive, sim: CdmSimulator, make_session: MakeSession, sent: Sent
) -> None:
    """A release of CDM without a type of jobs has no job of that type."""
    session = make_session()
    sim.fail("show_job", "status", status=400, body={"errCode": "Cdm.0100"})
    sim.fail("show_job", "status", status=400, body={"errCode": "Cdm.0010"})
    found = drive(session, session.api.find(JOB, sim.cluster_id, "scenario"))
    assert found["name"] == "scenario"
    assert len(sent("show_job")) == 3


def test_everybody_who_reads_a_definition_finds_it(
    drive: Drive, sim: CdmSimulator, make_session: MakeSession
) -> None:
    """Tables, failure reports and applying know a job for whole databases."""
    session = make_session()
    run = Submission(sim.cluster_id, "whole", "SUCCEEDED")
    for read in (collect.read_definition, failure_report.read_definition):
        definition = drive(session, read(session.api, run))
        assert definition is not None
        assert definition["job_type"] == "BATCH_JOB"
    wire = drive(session, session.api.find(JOB, sim.cluster_id, "whole"))
    flow = apply.apply(session.api, sim.cluster_id, parsing.job(wire))
    assert drive(session, flow).action == "unchanged"
    other = parsing.job({**wire, "job_type": "NORMAL_JOB"})
    with pytest.raises(errors.CdmAlreadyExists, match="job_type is 'BATCH_JOB'"):
        drive(session, apply.apply(session.api, sim.cluster_id, other))


def test_a_whole_database_run_is_known_while_it_is_waited_for(
    sim: CdmSimulator, make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The progress of the tables is logged for a job that is shown only under its type."""
    session = make_session()
    run = Submission(sim.cluster_id, "whole", "RUNNING", submission_id=1)
    monkeypatch.setattr(collect.TableProgress, "FIRST_POLL_AFTER", 0.0)
    tables = collect.TableProgress()
    session.run(tables(session.api, run))
    assert tables.job_type == "BATCH_JOB"


@pytest.mark.parametrize("code", ["Cdm.0001", "Cdm.0777", "CDM.3040", "Cdm.0010", "DLF.0100"])
def test_a_cluster_that_does_not_exist(
    code: str, drive: Drive, sim: CdmSimulator, make_session: MakeSession
) -> None:
    """HTTP 404 with any code means that there is no such cluster; the error lists others."""
    session = make_session()
    body = {"errCode": code, "externalMessage": "gone"}
    sim.fail("show_cluster", "status", status=404, body=body)
    with pytest.raises(errors.CdmNotFound, match=r"Clusters of this project: .*demo") as missing:
        drive(session, clusters.poll(session.api, "nowhere"))
    assert str(missing.value).startswith("gone. Could not read the state of cluster nowhere (")
    assert "Check the spelling" in str(missing.value)
    assert missing.value.http_status == 404
    actions = {
        "start": resources.start_cluster("nowhere"),
        "stop": resources.stop_cluster("nowhere", graceful=False),
        "restart": resources.restart_cluster("nowhere", mode="soft"),
    }
    for action, call in actions.items():
        sim.fail(f"{action}_cluster", "status", status=404, body=body)
        with pytest.raises(errors.CdmNotFound, match=f"^gone. Could not {action} cluster"):
            drive(session, session.api.call(call))


def test_other_refusals_of_a_cluster(
    drive: Drive, sim: CdmSimulator, make_session: MakeSession
) -> None:
    """Any other status keeps its meaning, and so does any other call."""
    session = make_session()
    body = {"errCode": "Cdm.0777"}
    sim.fail("show_cluster", "status", status=400, body=body)
    sim.fail("show_job", "status", status=404, body=body)
    for call in (resources.show_cluster("c"), resources.show(JOB, sim.cluster_id, "table")):
        with pytest.raises(errors.CdmRefused) as refusal:
            drive(session, session.api.call(call))
        assert type(refusal.value) is errors.CdmRefused
