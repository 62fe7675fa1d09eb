from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Any

import pytest
import requests

from airflow_provider_cdm.simulator import CdmSimulator
from tests.support.raw_client import Cdm

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator import ManualClock

JSON = {"Content-Type": "application/json"}
HTML = "<script>alert('x')</script>/&\"'"


@pytest.fixture
def config() -> dict[str, Any]:
    return {"clusters": [{"name": "demo", "jobs": ["load"]}]}


def get(sim: CdmSimulator, path: str) -> requests.Response:
    return requests.get(sim.url + path, timeout=5)


def post(sim: CdmSimulator, path: str, body: object = None) -> requests.Response:
    return requests.post(sim.url + path, json=body, timeout=5)


def links(text: str) -> set[str]:
    """Return the paths that a page links to."""
    return {html.unescape(path) for path in re.findall(r'href="(/[^"]*)"', text)}


def rows(text: str) -> list[str]:
    """Return the rows of a page's tables, as a person reads them."""
    found = re.findall(r"<tr>.*?</tr>", text, re.DOTALL)
    return [" ".join(html.unescape(re.sub(r"<[^>]*>", " ", row)).split()) for row in found]


def row(text: str, *parts: str) -> str:
    """Return the only row with all these parts."""
    (found,) = [row for row in rows(text) if all(part in row for part in parts)]
    return found


def test_overview(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """The page shows clusters, jobs, runs with variables and errors, and requests."""
    sim.add_job("load", outcome="FAILED", error_summary="No space.")
    cdm.start("load", {"dt": "2025-01-01"})
    clock.advance(1)
    text = get(sim, "/").text
    for part in ("demo", sim.cluster_id, "load", "FAILED", "No space.", "dt=2025-01-01", "PUT /v1"):
        assert part in text
    assert "http" not in text.replace(sim.url, "")


def test_run_page(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """The page of a run has an address with cluster, job and id, and shows its counters."""
    sim.add_job("a/b 每日", counters={"ROWS_READ": 123456})
    cdm.start("a/b 每日")
    clock.advance(1)
    path = f"/clusters/{sim.cluster_id}/jobs/a%2Fb%20%E6%AF%8F%E6%97%A5/runs/1"
    assert path in get(sim, "/").text
    response = get(sim, path)
    assert (response.status_code, "ROWS_READ=123456" in response.text) == (200, True)
    assert get(sim, path[:-1] + "2").status_code == 404
    assert get(sim, path.replace(sim.cluster_id, "x")).status_code == 404


def test_page_escapes_values(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """Names, variables and error texts are escaped on the page."""
    sim.add_job(HTML, outcome="FAILED", error_summary=HTML, error_details=HTML)
    sim.start(HTML, variables={HTML: HTML}, user=HTML)
    clock.advance(1)
    cdm.on_job("GET", HTML, params={HTML: HTML})
    overview = get(sim, "/")
    addresses = {path for path in links(overview.text) if "/runs/" in path}
    assert len(addresses) == 3  # two jobs and a run
    for response in (overview, *(get(sim, address) for address in addresses)):
        assert response.status_code == 200
        assert "<script>alert" not in response.text
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]


def test_secrets_are_redacted(sim: CdmSimulator, cdm: Cdm) -> None:
    """Tests can read tokens and passwords of requests, but ``repr`` and the page redact them."""
    cdm.start("load")
    inputs = [{"name": "linkConfig.password", "value": "link-secret"}]
    values = {"configs": [{"name": "linkConfig", "inputs": inputs}]}
    link = {"name": "x", "connector-name": "y", "link-config-values": values}
    cdm.call("POST", "link", json={"links": [link]})
    token = sim.requests[1].headers["x-auth-token"]
    shown = [repr(sim.requests), get(sim, "/").text, get(sim, "/_sim/state").text]
    for text in [*shown, get(sim, "/_sim/requests").text]:
        assert sim.password not in text
        assert token not in text
        assert "link-secret" not in text
    assert sim.password.encode() in sim.requests[0].body


def test_request_log(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """The log contains requests with sender and status, but none to the page and controls."""
    clock.advance(5)
    cdm.start("load", {"a": "b"})
    cdm.history("load")
    get(sim, "/")
    get(sim, "/_sim/state")
    token, start, history = sim.requests
    assert (token.route, token.status, token.user) == ("token", 201, None)
    assert (start.method, start.route, start.status, start.user) == ("PUT", "start", 200, "airflow")
    assert (start.json(), start.at) == ({"variables": {"a": "b"}}, clock.now())
    assert history.query == {"jname": "load"}
    assert history.json() is None


def test_state(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """The state lists runs and requests, the newest first; reading it has no side effects."""
    sim.add_job("load", statuses=["RUNNING", "SUCCEEDED"])
    sim.start("load", user="first")
    cdm.status("load")
    cdm.status("load")
    cdm.start("load")
    for _ in range(3):
        state = get(sim, "/_sim/state").json()
    [cluster] = state["clusters"]
    runs = [(run["submission_id"], run["status"]) for run in cluster["runs"]]
    assert (runs, cluster["jobs"][0]["runs"]) == ([(2, "BOOTING"), (1, "SUCCEEDED")], 2)
    assert [request["route"] for request in state["requests"]] == [
        "start",
        "status",
        "status",
        "token",
    ]


def test_faults_over_http(sim: CdmSimulator, cdm: Cdm) -> None:
    """Another process can add faults; if one of them is not valid, none is added."""
    fault = {"route": "status", "kind": "status", "status": 500}
    assert post(sim, "/_sim/faults", [fault, fault]).status_code == 200
    assert [cdm.on_job("GET", "load", "/status").status_code for _ in range(3)] == [500, 500, 200]
    response = post(sim, "/_sim/faults", [fault, {"route": "status"}])
    assert (response.status_code, response.json()["problems"]) == (
        400,
        ["faults[1].kind: required key is missing"],
    )
    assert sim.faults.remaining() == []


def test_jobs_over_http(sim: CdmSimulator, cdm: Cdm, clock: ManualClock) -> None:
    """Another process can add a job and change it."""
    assert post(sim, "/_sim/jobs/new%2Fone", {"outcome": "FAILED"}).status_code == 200
    for outcome in ("FAILED", "SUCCEEDED"):
        post(sim, f"/_sim/jobs/new%2Fone?cluster_id={sim.cluster_id}", {"outcome": outcome})
        cdm.start("new/one")
        clock.advance(1)
        assert cdm.status("new/one")["status"] == outcome
    assert "unknown key" in post(sim, "/_sim/jobs/x", {"y": 1}).json()["problems"][0]
    assert post(sim, "/_sim/jobs/x?cluster_id=z", {}).status_code == 400
    response = requests.post(f"{sim.url}/_sim/jobs/x", data="{", headers=JSON, timeout=5)
    assert response.status_code == 400


def test_reset_over_http(sim: CdmSimulator, cdm: Cdm) -> None:
    """Another process can reset the simulator."""
    cdm.start("load")
    assert post(sim, "/_sim/reset", {}).status_code == 200
    assert (sim.requests, sim.runs("load")) == ([], [])


def test_rows_move(sim: CdmSimulator, clock: ManualClock, shop: Any, warehouse: Any) -> None:
    """A run shows its rows while they move, between databases as well as with made-up counters."""
    sim.add_link("shop", url=shop.url)
    sim.add_link("warehouse", url=warehouse.url)
    seconds = {"booting": 0, "running": 90}
    ends: list[Any] = [{"link": link, "table": "orders"} for link in ("shop", "warehouse")]
    sim.add_job("real", seconds=seconds, from_=ends[0], to=ends[1])
    counters = {"ROWS_READ": 1000, "ROWS_WRITTEN": 999}
    sim.add_job("load", seconds=seconds, counters=counters)
    sim.start("real")
    sim.start("load")
    clock.advance(31)
    text = get(sim, "/").text
    assert "34% 1 of 3 read" in row(text, "real", "RUNNING", "somebody-else")
    assert "34% 344 of 1,000 read" in row(text, "load", "RUNNING", "somebody-else")
    assert "1 of 3 read" in get(sim, f"/clusters/{sim.cluster_id}/jobs/real/runs/1").text
    clock.advance(60)
    text = get(sim, "/").text
    assert "3 read, 3 written" in row(text, "real", "somebody-else")
    assert "1,000 read, 999 written" in row(text, "load", "somebody-else")


def test_rows_of_a_failed_run(
    sim: CdmSimulator, clock: ManualClock, shop: Any, warehouse: Any
) -> None:
    """A run that fails when it writes, or half-way, shows how many rows it had read."""
    sim.add_link("shop", url=shop.url)
    sim.add_link("warehouse", url=warehouse.url)
    warehouse.run("CREATE UNIQUE INDEX once ON orders (id)")
    warehouse.fill((1, "2025-01-01", 1, "there already"))
    ends: list[Any] = [{"link": link, "table": "orders"} for link in ("shop", "warehouse")]
    seconds = {"booting": 0, "running": 90}
    sim.add_job("real", seconds=seconds, from_=ends[0], to=ends[1])
    sim.start("real")
    clock.advance(100)
    assert "3 read, 0 written" in row(get(sim, "/").text, "UNIQUE constraint failed")
    sim.start("real")
    clock.advance(70)
    control(sim, "real", 2, action="fail")
    assert "2 read, 0 written" in row(get(sim, "/").text, "Failed on the page")


@pytest.mark.parametrize(
    ("status", "words"),
    [("200", "normal (200)"), ("900", "stopped (900)"), ("800", "frozen (800)")],
)
def test_words_beside_the_codes_of_clusters(status: str, words: str) -> None:
    """The status of a cluster is shown in words, with its code."""
    with CdmSimulator({"clusters": [{"name": "demo", "status": status}]}) as sim:
        assert words in get(sim, "/").text


def test_words_beside_the_codes_of_answers(sim: CdmSimulator, cdm: Cdm) -> None:
    """A request that was refused is shown with the meaning of its status and the error's words."""
    cdm.start("load")
    cdm.on_job("PUT", "load", "/start", json={})
    cdm.on_job("GET", "nothing", "/status")
    sim.fail("status", "status", status=429)
    cdm.on_job("GET", "load", "/status")
    sim.fail("status", "drop")
    with pytest.raises(requests.ConnectionError):
        cdm.on_job("GET", "load", "/status")
    requests.get(f"{sim.url}/v1.1/x/clusters/y/cdm/job/load/status", timeout=5)
    text = get(sim, "/").text
    assert "400 Bad Request Cdm.0052: Job load is running" in row(text, "Cdm.0052")
    assert "Cdm.0054: Job[nothing] doesn't exist." in row(text, "/nothing/status")
    assert "429 Too Many Requests APIGW.0308: The throttling threshold" in row(text, "429")
    assert "no answer before drop" in row(text, "drop")
    assert "401 Unauthorized APIGW.0301: Incorrect IAM" in row(text, "/clusters/y/")
    assert "200 OK" in row(text, "PUT", "200")


def test_requests_are_folded(sim: CdmSimulator, cdm: Cdm) -> None:
    """The requests, which are many, are in a part of the page that is closed at first."""
    cdm.start("load")
    folded = re.search(r"<details id=.requests.>(.*)</details>", get(sim, "/").text, re.DOTALL)
    assert folded is not None
    assert "Requests: the last 2" in folded[1]
    assert "/cdm/job/load/start" in folded[1]


@pytest.mark.parametrize(
    "config",
    [
        {
            "clusters": [
                {
                    "name": "demo",
                    "jobs": [
                        *("load", "a/b", ".", "..", "50%", "a b?c#d", "\u6bcf\u65e5"),
                        {"name": "shop", "type": "BATCH_JOB", "tables": ["orders", "parts"]},
                        {"name": "once", "disposable": "DELETE"},
                    ],
                },
                {"name": "empty", "id": "a/b?", "status": "900"},
            ]
        }
    ],
)
def test_every_link_leads_to_a_page(sim: CdmSimulator, clock: ManualClock) -> None:
    """All pages that can be reached exist, whatever jobs are called, and if they are deleted."""
    jobs = sim.jobs()
    for job in jobs:
        sim.start(job)
        clock.advance(10)
        sim.start(job if job != "once" else "load")
        clock.advance(10 if job != "shop" else 1)
    found, left = set(), {"/"}
    while left:
        path = left.pop()
        found.add(path)
        # As a browser does it: parts that are "." or ".." are removed from the path.
        response = get(sim, path)
        assert response.status_code == 200, path
        left |= links(response.text) - found
    assert len(found) > 2 * len(jobs)
    assert any("once" in path for path in found)


def test_links_of_a_job_are_those_that_exist(sim: CdmSimulator) -> None:
    """A job shows no made-up link, and says of a link that it does not exist."""
    sim.add_link("shop", url="sqlite://")
    sim.add_job("load")
    wire = {"from-link-name": "shop", "to-link-name": "archive"}
    sim.add_job("real", wire=wire)
    text = get(sim, "/").text
    assert row(text, "load") == "load NORMAL_JOB 0 never run"
    assert row(text, "real") == "real NORMAL_JOB shop archive (does not exist) 0 never run"


def test_address_of_a_run_whose_number_is_not_known(sim: CdmSimulator, cdm: Cdm) -> None:
    """Where CDM shows no number, the button "CDM run" of a task leads to the runs of the job."""
    cdm.start("load")
    path = sim.connection_extra["console_url"].removeprefix(sim.url)
    address = path.format(cluster_id=sim.cluster_id, job_name="load", submission_id="")
    response = get(sim, address)
    assert (response.status_code, f"{address}1" in response.text) == (200, True)
    missing = get(sim, address.replace("load", "nothing"))
    assert (missing.status_code, "does not exist" in missing.text) == (404, True)


def control(sim: CdmSimulator, job: str, number: int, **body: Any) -> requests.Response:
    """Do to a run what the buttons of the page do."""
    return post(sim, f"/_sim/clusters/{sim.cluster_id}/jobs/{job}/runs/{number}", body)


def test_buttons_of_a_run(sim: CdmSimulator, clock: ManualClock) -> None:
    """A run has buttons while it is active, on the overview and on its own page."""
    sim.add_job("load", seconds=60)
    sim.start("load")
    path = f"/clusters/{sim.cluster_id}/jobs/load/runs/1"
    for text in (get(sim, "/").text, get(sim, path).text):
        assert set(re.findall(r'data-action="(\w+)"', text)) == {"stop", "fail", "slow"}
        assert f'data-run="/_sim{path}"' in text
    clock.advance(61)
    for text in (get(sim, "/").text, get(sim, path).text):
        assert f'data-run="/_sim{path}"' not in text


def test_stop_a_run(sim: CdmSimulator, clock: ManualClock) -> None:
    """A run that is stopped on the page ends as after a stop call."""
    sim.add_job("load", seconds=60)
    sim.start("load")
    clock.advance(5)
    assert control(sim, "load", 1, action="stop").status_code == 200
    assert "stopping" in row(get(sim, "/").text, "somebody-else")
    clock.advance(5)
    assert sim.runs("load")[0].status == sim.config.behaviour.stop_status


def test_fail_a_run(sim: CdmSimulator, clock: ManualClock) -> None:
    """A run that is failed on the page is FAILED at once, with a reason."""
    sim.add_job("load", seconds=60)
    sim.start("load")
    clock.advance(5)
    assert control(sim, "load", 1, action="fail").status_code == 200
    (run,) = sim.runs("load")
    assert (run.status, run.error_summary) == ("FAILED", "Failed on the page of the simulator.")
    assert control(sim, "load", 1, action="fail", reason="again").json()["problems"] == [
        "run 1 of load has ended: FAILED"
    ]
    sim.start("load")
    assert control(sim, "load", 2, action="fail", reason="No space.").status_code == 200
    assert sim.runs("load")[1].error_summary == "No space."


def test_slow_a_run(sim: CdmSimulator, clock: ManualClock) -> None:
    """A run that is slowed down takes that much longer, each time, and its progress says so."""
    sim.add_job("load", seconds={"booting": 1, "running": 10})
    sim.start("load")
    assert control(sim, "load", 1, action="slow", seconds=10).status_code == 200
    clock.advance(6)
    assert control(sim, "load", 1, action="slow", seconds=30).status_code == 200
    assert "10%" in row(get(sim, "/").text, "somebody-else")
    clock.advance(44.9)
    assert sim.runs("load")[0].status == "RUNNING"
    clock.advance(0.2)
    run = sim.runs("load")[0]
    assert run.status == "SUCCEEDED"
    assert run.updated - run.created == pytest.approx(51)
    sim.start("load")
    clock.advance(11.1)
    assert sim.runs("load")[1].status == "SUCCEEDED"


@pytest.mark.parametrize(
    "config",
    [
        {
            "clusters": [
                {
                    "name": "demo",
                    "jobs": [
                        {
                            "name": "shop",
                            "type": "BATCH_JOB",
                            "tables": ["orders", "parts"],
                            "tables_at_once": 1,
                            "seconds": {"booting": 0, "running": 10},
                        }
                    ],
                }
            ]
        }
    ],
)
@pytest.mark.parametrize("action", ["fail", "slow", "stop"])
def test_control_a_whole_database(action: str, sim: CdmSimulator, clock: ManualClock) -> None:
    """What is done to a whole-database run is done to the tables that are being moved."""
    sim.start("shop")
    clock.advance(5)
    assert control(sim, "shop", 1, action=action, seconds=20).status_code == 200
    clock.advance(8)
    (run,), (table,) = sim.runs("shop"), sim.runs("shop_orders")
    if action == "slow":
        assert (run.status, table.status) == ("RUNNING", "RUNNING")
        clock.advance(40)
        assert sim.runs("shop")[0].status == "SUCCEEDED"
    else:
        assert not run.active
        assert not table.active
        assert sim.runs("shop_parts") == []


def test_fail_one_table(sim: CdmSimulator, clock: ManualClock) -> None:
    """The run of a table can be failed alone; the page of that run leads to the whole run."""
    sim.add_job("shop", type="BATCH_JOB", tables=["orders", "parts"], seconds=10)
    sim.start("shop")
    clock.advance(5)
    assert control(sim, "shop_orders", 2, action="fail").status_code == 200
    path = f"/clusters/{sim.cluster_id}/jobs/shop_orders/runs/2"
    assert path.replace("shop_orders/runs/2", "shop/runs/1") in links(get(sim, path).text)
    clock.advance(20)
    statuses = [sim.runs(f"shop_{table}")[0].status for table in ("orders", "parts")]
    assert statuses == ["FAILED", "SUCCEEDED"]


def test_controls_that_are_refused(sim: CdmSimulator) -> None:
    """What cannot be done is answered with the reason, and changes nothing."""
    sim.add_job("load", statuses=["RUNNING"])
    sim.start("load")
    reasons = {
        "statuses of load are scripted": control(sim, "load", 1, action="slow"),
        "the run does not exist": control(sim, "load", 2, action="stop"),
        "action: required key is missing": control(sim, "load", 1),
        "seconds: expected a number": control(sim, "load", 1, action="slow", seconds=-1),
        "seconds: expected at most a day": control(sim, "load", 1, action="slow", seconds=90_000),
        "action: expected": control(sim, "load", 1, action="explode"),
    }
    for reason, response in reasons.items():
        assert response.status_code == 400
        assert reason in response.json()["problems"][0]
    assert sim.runs("load")[0].active
