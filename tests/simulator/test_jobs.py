from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.support.raw_client import Cdm, error_code

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ["每日订单", "a b", "a/b", "..", "100%", "%2F", "x?y#z", "start", "ü+&=", "a" * 240]


@pytest.fixture
def config() -> dict[str, Any]:
    links = [{"name": "in", "connector": "obs-connector"}, {"name": "out"}]
    return {"clusters": [{"name": "demo", "links": links}]}


def job(name: str, **changes: Any) -> dict[str, Any]:
    inputs = [{"name": "fromJobConfig.inputDirectory", "value": "/in put/%"}]
    return {
        "job_type": "NORMAL_JOB",
        "name": name,
        "from-connector-name": "obs-connector",
        "from-link-name": "in",
        "from-config-values": {"configs": [{"name": "fromJobConfig", "inputs": inputs}]},
        "to-connector-name": "generic-jdbc-connector",
        "to-link-name": "out",
        "to-config-values": {"configs": [{"name": "toJobConfig", "inputs": {}}]},
        **changes,
    }


def create(cdm: Cdm, name: str, **changes: Any) -> Any:
    return cdm.call("POST", "job", json={"jobs": [job(name, **changes)]})


def test_create_and_show(cdm: Cdm) -> None:
    """A created job is shown as it was sent, with read-only keys, and is not started."""
    response = create(cdm, "copy")
    assert (response.status_code, response.json()) == (
        200,
        {"name": "copy", "validation-result": []},
    )
    body = cdm.on_job("GET", "copy").json()
    [shown] = body["jobs"]
    assert body["total"] == 0
    assert job("copy").items() <= shown.items()
    assert (shown["status"], shown["creation-user"], shown["id"]) == ("NEW", "airflow", 1)
    assert cdm.status("copy")["status"] == "NEVER_EXECUTED"


def test_created_job_runs(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """A job whose links have no databases runs and succeeds without moving rows."""
    create(cdm, "copy")
    cdm.start("copy")
    clock.advance(1)
    assert cdm.status("copy")["status"] == "SUCCEEDED"
    [shown] = cdm.on_job("GET", "copy").json()["jobs"]
    assert (shown["status"], shown["rows_read"]) == ("SUCCEEDED", 0)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"jobs": [job("taken")]}, "Cdm.0104"),
        ({"jobs": []}, "Cdm.0018"),
        ({"jobs": [job("a"), job("b")]}, "Cdm.0018"),
        ({}, "Cdm.0018"),
        ({"jobs": [job("")]}, "Cdm.0018"),
        ({"jobs": [job("a" * 241)]}, "Cdm.0018"),
        ({"jobs": [job("a", **{"to-link-name": None})]}, "Cdm.0018"),
        ({"jobs": [job("a", **{"to-link-name": "gone"})]}, "Cdm.0101"),
        ({"jobs": [job("a", job_type="STRANGE")]}, "Cdm.0055"),
    ],
)
def test_invalid_create(cdm: Cdm, body: object, code: str) -> None:
    """An invalid job is rejected with the four keys of the create page."""
    create(cdm, "taken")
    response = cdm.call("POST", "job", json=body)
    error = response.json()
    assert (response.status_code, error["code"], error["errCode"]) == (400, code, code)
    assert error["message"] == error["externalMessage"]


def test_update(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """An update replaces the job object; a missing or a running job is an error."""
    create(cdm, "copy")
    changed = {"jobs": [job("copy", **{"from-link-name": "out"})]}
    response = cdm.on_job("PUT", "copy", json=changed)
    assert (response.status_code, response.json()) == (200, {"validation-result": [{}, {}, {}]})
    assert cdm.on_job("GET", "copy").json()["jobs"][0]["from-link-name"] == "out"
    missing = cdm.on_job("PUT", "gone", json=changed).json()
    assert (missing["code"], missing["errCode"]) == ("Cdm.0095", "Cdm.00095")
    cdm.start("copy")
    assert error_code(cdm.on_job("PUT", "copy", json=changed)) == "Cdm.0322"


def test_delete(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """A job is deleted with its history; a running job is kept; a missing job is status 500."""
    create(cdm, "copy")
    cdm.start("copy")
    assert error_code(cdm.on_job("DELETE", "copy")) == "Cdm.0322"
    clock.advance(1)
    response = cdm.on_job("DELETE", "copy")
    assert (response.status_code, response.content) == (200, b"")
    again = cdm.on_job("DELETE", "copy")
    assert (again.status_code, error_code(again)) == (500, "Cdm.0100")
    assert "copy" in again.json()["externalMessage"]
    create(cdm, "copy")
    assert cdm.history("copy")["total"] == 0


@pytest.mark.parametrize("config", [{"behaviour": {"default_inputs": True, "check_links": False}}])
def test_default_inputs(sim: CdmSimulator, cdm: Cdm) -> None:
    """With a switch, a job is shown with default settings next to those that were sent."""
    inputs = [{"name": "throttlingConfig.numExtractors", "value": "4"}]
    driver = {"configs": [{"name": "throttlingConfig", "inputs": inputs}]}
    create(cdm, "copy", **{"driver-config-values": driver})
    [shown] = cdm.on_job("GET", "copy").json()["jobs"]
    values = {
        item["name"]: item["value"]
        for config in shown["driver-config-values"]["configs"]
        for item in config["inputs"]
    }
    assert values["throttlingConfig.numExtractors"] == "4"
    assert values["retryJobConfig.retryJobType"] == "NONE"


@pytest.mark.parametrize("config", [{"behaviour": {"list_values": True, "check_links": False}}])
def test_values_that_are_lists(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """With a switch, a job is shown as a recorded one is; what is shown may be sent, and runs."""
    create(cdm, "copy")
    [shown] = cdm.on_job("GET", "copy").json()["jobs"]
    configs = shown["driver-config-values"]["configs"]
    [trans] = [each for each in configs if each["name"] == "transformConfig"]
    assert trans["inputs"] == [{"name": "transformConfig.trans", "type": "STRING", "value": []}]
    assert trans["type"] == "JOB"
    assert isinstance(trans["id"], int)
    assert cdm.on_job("PUT", "copy", json={"jobs": [shown]}).status_code == 200
    [again] = cdm.on_job("GET", "copy").json()["jobs"]
    assert again["driver-config-values"] == shown["driver-config-values"]
    cdm.start("copy")
    clock.advance(10)
    assert sim.runs("copy")[-1].status == "SUCCEEDED"


@pytest.mark.parametrize(
    "config", [{"behaviour": {"show_needs_job_type": True, "cluster_not_found_code": "Cdm.0777"}}]
)
def test_jobs_that_are_shown_with_their_type(sim: CdmSimulator, cdm: Cdm) -> None:
    """With a switch, one job is shown under its own type only; so is the code for a cluster."""
    sim.add_job("load")
    sim.add_job("all_tables", type="BATCH_JOB")
    assert cdm.on_job("GET", "load").status_code == 200
    assert error_code(cdm.on_job("GET", "all_tables")) == "Cdm.0100"
    assert error_code(cdm.on_job("GET", "all_tables", params={"jobType": "SCENARIO_JOB"})) == (
        "Cdm.0100"
    )
    [shown] = cdm.on_job("GET", "all_tables", params={"jobType": "BATCH_JOB"}).json()["jobs"]
    assert shown["name"] == "all_tables"
    missing = cdm.call("GET", f"{cdm.project}/clusters/nowhere")
    assert (missing.status_code, error_code(missing)) == (404, "Cdm.0777")


def test_names_of_current_jobs(sim: CdmSimulator, cdm: Cdm) -> None:
    """``jobs`` returns the names of the current jobs, however they were created."""
    sim.add_job("load")
    create(cdm, "copy")
    assert sim.jobs() == ["load", "copy"]
    cdm.on_job("DELETE", "load")
    assert sim.jobs() == ["copy"]


@pytest.mark.parametrize(
    ("method", "action", "code"),
    [
        ("PUT", "/start", "Cdm.0054"),
        ("PUT", "/stop", "Cdm.0054"),
        ("GET", "/status", "Cdm.0054"),
        ("GET", "", "Cdm.0100"),
    ],
)
def test_unknown_job(cdm: Cdm, method: str, action: str, code: str) -> None:
    """Each route has its own error code for a missing job, under two keys."""
    response = cdm.on_job(method, "gone", action)
    assert (response.status_code, response.json().keys()) == (400, {"errCode", "externalMessage"})
    assert error_code(response) == code


def test_listing(sim: CdmSimulator, cdm: Cdm) -> None:
    """The listing has one type of job, filtered by name, in pages of 10 to 100 jobs."""
    for number in range(25):
        sim.add_job(f"load_{number:02d}")
    sim.add_job("whole", type="BATCH_JOB")
    first = cdm.on_job("GET", "all").json()
    assert (first["total"], first["page_no"], first["page_size"]) == (25, 1, 10)
    last = cdm.on_job("GET", "all", params={"page_no": 2, "page_size": 20}).json()
    assert [job["name"] for job in last["jobs"]] == [f"load_{n}" for n in range(20, 25)]
    some = cdm.on_job("GET", "all", params={"filter": "D_1"}).json()
    assert some["total"] == 10
    batch = cdm.on_job("GET", "all", params={"jobType": "BATCH_JOB"}).json()
    assert [job["name"] for job in batch["jobs"]] == ["whole"]


@pytest.mark.parametrize(
    "query",
    [{"page_size": 9}, {"page_size": 101}, {"page_no": 0}, {"page_no": "x"}, {"jobType": "x"}],
)
def test_invalid_listing(cdm: Cdm, query: dict[str, Any]) -> None:
    """Page numbers, page sizes and types outside their range are errors."""
    assert cdm.on_job("GET", "all", params=query).status_code == 400


def test_history(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """The history of a job is the newest run first, ten on a page."""
    sim.add_job("load")
    sim.add_job("other")
    sim.start("other")
    for _ in range(12):
        sim.start("load")
        clock.advance(1)
    history = cdm.history("load")
    ids = [run["submission-id"] for run in history["submissions"]]
    assert ids == list(range(13, 3, -1))
    assert (history["total"], history["page_no"], history["page_size"]) == (12, 1, 10)
    rest = cdm.history("load", page_no=2)["submissions"]
    assert [run["submission-id"] for run in rest] == [3, 2]
    assert error_code(cdm.call("GET", "submissions")) == "Cdm.0009"
    assert error_code(cdm.call("GET", "submissions?jname=gone")) == "Cdm.0054"


@pytest.mark.parametrize(
    "body", [None, b"", b"{}", b'""', b'{"variables":{}}', b'{"variables":{"a":"b"}}']
)
def test_start_bodies(sim: CdmSimulator, cdm: Cdm, body: bytes | None) -> None:
    """The body of a start call may be absent, empty, an empty object, or contain variables."""
    sim.add_job("load")
    assert cdm.on_job("PUT", "load", "/start", data=body).status_code == 200
    assert sim.runs("load")[0].variables == ({"a": "b"} if body and b"a" in body[13:] else {})


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'{"variables":[]}', b'{"variables":{"a":1}}', b'{"variables":{"a":null}}'],
)
def test_invalid_start_bodies(sim: CdmSimulator, cdm: Cdm, body: bytes) -> None:
    """Variables must be an object with text values; otherwise the job is not started."""
    sim.add_job("load")
    response = cdm.on_job("PUT", "load", "/start", data=body)
    assert (response.status_code, error_code(response)) == (400, "Cdm.0010")
    assert sim.runs("load") == []


def test_disabled_job_or_link(sim: CdmSimulator, cdm: Cdm) -> None:
    """A disabled job, and a job with a disabled link, cannot be started."""
    create(cdm, "copy")
    sim.add_job("copy", enabled=False)
    assert error_code(cdm.on_job("PUT", "copy", "/start")) == "Cdm.0059"
    sim.add_job("copy", enabled=True)
    sim.add_link("in", enabled=False)
    assert error_code(cdm.on_job("PUT", "copy", "/start")) == "Cdm.0060"


@pytest.mark.parametrize("name", NAMES)
def test_job_names_in_paths(sim: CdmSimulator, cdm: Cdm, name: str) -> None:
    """A percent-encoded name in the path selects the job, whatever characters it contains."""
    sim.add_job(name)
    path = f"{cdm.base.removeprefix(sim.url)}/job/{quote(name, safe='')}"
    connection = http.client.HTTPConnection(sim.url.removeprefix("http://"))
    headers = {"X-Auth-Token": cdm.login()}
    for method, action in (("PUT", "/start"), ("GET", "/status")):
        connection.request(method, path + action, headers=headers)
        [run] = json.load(connection.getresponse())["submissions"]
        assert (run["job-name"], run["submission-id"]) == (name, 1)
    connection.close()
    assert cdm.history(name)["total"] == 1


@pytest.fixture(scope="module")
def shared() -> Iterator[Cdm]:
    with CdmSimulator(clock=ManualClock()) as sim:
        yield Cdm(sim)


@settings(max_examples=50)
@given(name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_any_job_name_in_a_path(shared: Cdm, name: str) -> None:
    """Any name, percent-encoded in the path, selects the job."""
    shared.sim.add_job(name, statuses=["SUCCEEDED"])
    sim, path = shared.sim, f"/job/{quote(name, safe='')}/status"
    connection = http.client.HTTPConnection(sim.url.removeprefix("http://"))
    shared._token = shared._token or shared.login()
    connection.request(
        "GET", shared.base.removeprefix(sim.url) + path, headers={"X-Auth-Token": shared._token}
    )
    body = json.load(connection.getresponse())
    connection.close()
    assert body["submissions"][0]["job-name"] == name


def test_unknown_path(sim: CdmSimulator, cdm: Cdm) -> None:
    """An unknown path is the gateway's 404, whose message lists the available routes."""
    response = cdm.call("GET", "jobs")
    assert (response.status_code, error_code(response)) == (404, "APIGW.0101")
    assert "submissions" in response.json()["error_msg"]
    assert sim.requests[-1].route == "unknown"
    assert cdm.on_job("POST", "load", "/start").status_code == 404


SPELLINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"submission-id": 1, "last-udpate-user": "airflow", "creation-date": 1735787045000}),
    ({"dates_as": "string"}, {"creation-date": "1735787045000"}),
    ({"update_user_key": "last-update-user"}, {"last-update-user": "airflow"}),
    ({"update_user_key": "both"}, {"last-update-user": "airflow", "last-udpate-user": "airflow"}),
    ({"extra_keys": True}, {"external-link": "http://localhost/"}),
]


@pytest.mark.parametrize(("behaviour", "expected"), SPELLINGS)
def test_submission_formats(behaviour: dict[str, Any], expected: dict[str, Any]) -> None:
    """Switches control the format of a submission."""
    with CdmSimulator({"behaviour": behaviour}, clock=ManualClock()) as sim:
        sim.add_job("load")
        assert expected.items() <= Cdm(sim).start("load").items()


@pytest.mark.parametrize(
    ("switch", "in_start", "in_status"),
    [("present", True, True), ("absent-in-start", False, True), ("absent", False, False)],
)
def test_submission_id_may_be_absent(switch: str, in_start: bool, in_status: bool) -> None:
    """With a switch, the id is absent from the start response, or from all responses."""
    with CdmSimulator({"behaviour": {"submission_id": switch}}, clock=ManualClock()) as sim:
        sim.add_job("load")
        cdm = Cdm(sim)
        assert ("submission-id" in cdm.start("load")) is in_start
        assert ("submission-id" in cdm.status("load")) is in_status
        assert ("submission-id" in cdm.history("load")["submissions"][0]) is in_status


@pytest.mark.parametrize(
    ("behaviour", "body"),
    [({"stop_answer": "empty"}, b""), ({"stop_answer": "submissions"}, b'{"submissions": [')],
)
def test_generations_of_the_stop_response(behaviour: dict[str, Any], body: bytes) -> None:
    """With a switch, the stop response is that of an older cluster: empty, or the submission."""
    with CdmSimulator({"behaviour": behaviour}, clock=ManualClock()) as sim:
        sim.add_job("load")
        sim.start("load")
        response = Cdm(sim).on_job("PUT", "load", "/stop")
        assert (response.status_code, response.content[: len(body) or 1]) == (200, body)


def test_other_switches() -> None:
    """Switches control stopped runs, HTTP statuses, the history, progress and variables."""
    behaviour = {
        "stop_status": "FAILED",
        "not_found_status": 404,
        "delete_not_found_status": "400",
        "conflict_status": "500",
        "unknown_history": "empty",
        "history_paging": False,
        "progress_scale": "1",
        "stop_pending": "off",
    }
    clock = ManualClock()
    with CdmSimulator({"behaviour": behaviour}, clock=clock) as sim:
        sim.add_job("load", seconds={"pending": 1, "booting": 1, "running": 10})
        cdm = Cdm(sim)
        cdm.start("load")
        assert cdm.on_job("PUT", "load", "/stop").status_code == 500
        assert cdm.on_job("PUT", "load", "/start").status_code == 500
        clock.advance(7)
        assert cdm.status("load")["progress"] == 0.5
        cdm.on_job("PUT", "load", "/stop")
        clock.advance(1)
        run = cdm.status("load")
        assert (run["status"], "error-summary" in run) == ("FAILED", True)
        assert cdm.on_job("GET", "gone").status_code == 404
        assert cdm.on_job("DELETE", "gone").status_code == 400
        assert cdm.history("gone") == {"submissions": [], "total": 0, "page_no": 1, "page_size": 10}
        assert cdm.history("load", page_no=7)["page_no"] == 1


def test_encoded_values(cdm: Cdm, sim: CdmSimulator) -> None:
    """With a switch, values of a job's configuration are returned percent-encoded."""
    behaviour = {"encode_values": True, "check_links": False}
    with CdmSimulator({"behaviour": behaviour}) as other:
        create(Cdm(other), "copy")
        [shown] = Cdm(other).on_job("GET", "copy").json()["jobs"]
    [block] = shown["from-config-values"]["configs"]
    assert block["inputs"][0]["value"] == "%2Fin%20put%2F%25"
