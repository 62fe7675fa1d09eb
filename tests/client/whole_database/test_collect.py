"""The tables of a whole-database job: which count, and what is reported of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.sansio import Flow, Request, Response
from airflow_provider_cdm.client.submission import Submission, Verdict
from airflow_provider_cdm.client.text import LINE_LIMIT
from airflow_provider_cdm.client.whole_database.collect import with_tables
from airflow_provider_cdm.client.whole_database.summary import summarize
from airflow_provider_cdm.client.whole_database.tables import (
    TABLES_SHOWN,
    Table,
    TableReport,
    TableState,
    failure_lines,
)
from tests.support.fake_server import USERS, FakeServer

SINCE = 1_735_787_045_000
DAYS = st.sampled_from([None, 0, SINCE - 1, SINCE, SINCE + 1])
STATUSES = st.sampled_from(
    [
        *("NEW", "NEVER_EXECUTED", "PENDING", "BOOTING", "RUNNING", "SUCCEEDED", "FAILED"),
        *("STOPPED", "FAILURE_ON_SUBMIT", "UNKNOWN", "", "succeeded"),
    ]
)
COUNTERS = st.dictionaries(
    st.sampled_from(["ROWS_READ", "ROWS_WRITTEN", "BYTES_READ"]), st.integers(0, 10**12)
)
TABLES = st.lists(
    st.builds(
        Table,
        st.text(min_size=1, max_size=240),
        STATUSES,
        DAYS,
        DAYS,
        COUNTERS,
        st.none() | st.text(min_size=1, max_size=200),
    ),
    max_size=120,
    unique_by=lambda table: table.name,
)
RUN = Submission("c", "shop", "SUCCEEDED", 5, SINCE, job_type="BATCH_JOB")


@given(tables=TABLES)
def test_all_tables_are_accounted_for(tables: list[Table]) -> None:
    """Each table is in one of the numbers of a result, or belongs to an earlier run."""
    report = TableReport.of(tables, SINCE)
    result = report.to_dict()
    assert result["succeeded"] + result["failed"] + result["unfinished"] == result["total"]
    assert result["total"] + len(report.stale) == len(tables)
    assert len(result["list"]) + result["left_out"] == result["total"]
    assert (report.failure_summary() == "") == (result["succeeded"] == result["total"])


@given(tables=TABLES)
def test_a_result_is_small(tables: list[Table]) -> None:
    """However many tables there are, results and messages stay small."""
    report = TableReport.of(tables, SINCE)
    result = report.to_dict()
    assert len(result["list"]) <= TABLES_SHOWN
    bad = [table for table in result["list"] if table["status"].upper() != "SUCCEEDED"]
    assert result["list"][: len(bad)] == bad
    assert len(json.dumps(result, ensure_ascii=False)) < TABLES_SHOWN * 2_000
    assert len(report.progress_line("Run 123456")) <= LINE_LIMIT
    assert len(failure_lines(Submission("c", "j", "FAILED", tables=result))) <= 11


@given(tables=TABLES)
def test_totals(tables: list[Table]) -> None:
    """A total is the sum over all succeeded tables, or it is missing."""
    report = TableReport.of(tables, SINCE)
    done = [table for state, table in report.tables if state is TableState.DONE]
    for name, total in report.totals().items():
        assert total == sum(table.counters[name] for table in done)


def test_counters_that_do_not_apply_are_those_of_the_tables() -> None:
    """CDM sends -1 for a counter that does not apply to a run; the sum of its tables is better."""
    run = replace(RUN, counters={"ROWS_READ": 15, "ROWS_WRITTEN": -1})
    counters = {"ROWS_READ": 7, "ROWS_WRITTEN": 7}
    tables = [Table(name, "SUCCEEDED", SINCE, SINCE, counters) for name in ("a", "b")]
    summary = summarize(run, TableReport.of(tables, SINCE))
    assert summary.counters == {"ROWS_READ": 15, "ROWS_WRITTEN": 14}


@pytest.mark.parametrize(
    ("status", "created", "sub_job_created", "state"),
    [
        ("SUCCEEDED", SINCE, None, TableState.DONE),
        ("SUCCEEDED", SINCE - 1, None, TableState.WAITING),
        ("SUCCEEDED", SINCE - 1, SINCE - 1, TableState.STALE),
        ("FAILED", SINCE - 1, SINCE - 1, TableState.STALE),
        ("FAILED", SINCE + 1, SINCE - 1, TableState.STALE),
        ("FAILED", SINCE - 1, SINCE, TableState.WAITING),
        ("FAILED", SINCE, SINCE, TableState.FAILED),
        ("STOPPED", SINCE, SINCE, TableState.FAILED),
        ("RUNNING", SINCE, SINCE, TableState.RUNNING),
        ("UNKNOWN", SINCE, SINCE, TableState.RUNNING),
        ("FAILED", None, None, TableState.FAILED),
        ("NEW", None, SINCE, TableState.WAITING),
        ("NEW", None, SINCE - 1, TableState.STALE),
        ("NEVER_EXECUTED", SINCE + 1, SINCE - 1, TableState.STALE),
    ],
)
def test_state(
    status: str, created: int | None, sub_job_created: int | None, state: TableState
) -> None:
    """Only jobs and runs created since our run count, and an unclear status is no success."""
    assert Table("t", status, created, sub_job_created).state(SINCE) is state


@given(status=STATUSES, created=DAYS, sub_job_created=DAYS)
def test_without_a_date_of_the_run_no_table_is_stale(
    status: str, created: int | None, sub_job_created: int | None
) -> None:
    """While the date of the run is not known, no table is attributed to an earlier run."""
    assert Table("t", status, created, sub_job_created).state(None) is not TableState.STALE


@given(tables=TABLES, status=st.sampled_from(["SUCCEEDED", "FAILED", "RUNNING"]))
def test_a_success_needs_all_tables(tables: list[Table], status: str) -> None:
    """The verdict on a run includes its tables, which never turn a failure into a success."""
    report = TableReport.of(tables, SINCE)
    run = Submission("c", "j", status, tables=report.to_dict())
    well = status == "SUCCEEDED" and not report.failure_summary()
    assert (run.verdict is Verdict.SUCCESS) == well
    assert Submission.from_payload(json.loads(json.dumps(run.to_payload()))) == run


# With a server


SUB_JOBS = st.lists(
    st.tuples(
        st.sampled_from(["SUCCEEDED", "SUCCEEDED", "SUCCEEDED", "FAILED", "RUNNING", "NEW"]),
        st.sampled_from([SINCE - 1, SINCE, SINCE + 5]),
        st.sampled_from([SINCE - 1, SINCE + 1, None]),
    ),
    max_size=130,
)


def server(
    jobs: list[dict[str, Any]], listed_as: str = "NORMAL_JOB", later: int | None = None
) -> Callable[[Request], Response]:
    """Return a function that answers for the job ``shop`` and its sub-jobs."""

    def answer(request: Request) -> Response:
        url = urlsplit(request.url)
        query = {key: value[0] for key, value in parse_qs(url.query).items()}
        name = unquote(url.path.split("/cdm/job/")[1].split("/")[0])
        if name == "all":
            number, size = int(query["page_no"]), int(query["page_size"])
            found = jobs if query["jobType"] == listed_as else []
            page = found[(number - 1) * size : number * size]
            return _json({"jobs": page, "total": len(found)})
        if not url.path.endswith("/status"):
            return _json({"jobs": [{"name": name, "job_type": "BATCH_JOB"}]})
        if name == "shop":
            number, date = (5, SINCE) if later is None else (6, later)
            return _json({"submissions": [_run("SUCCEEDED", date, number)]})
        (job,) = [job for job in jobs if job["name"] == name]
        if job["status"] == "NEW":
            return _json({"submissions": [_run("NEVER_EXECUTED", SINCE + 99, None)]})
        return _json({"submissions": [_run(job["status"], job["execute_create_date"], 7)]})

    return answer


def _run(status: str, created: int, number: int | None) -> dict[str, Any]:
    return {"status": status, "creation-date": created, "submission-id": number}


def _json(body: Any) -> Response:
    return Response(200, {}, json.dumps(body).encode())


def sub_job(
    table: str, status: str, created: int, sub_job_created: int | None = None
) -> dict[str, Any]:
    shown = {"name": f"shop_{table}", "status": status, "creation-date": sub_job_created}
    return {**shown, "execute_create_date": created, "rows_read": 3, "rows_written": 3}


def collect(answer: Callable[[Request], Response], run: Submission = RUN) -> Any:
    def visit(api: CdmApi) -> Flow[Submission]:
        return with_tables(api, run)

    return FakeServer([answer], "/cdm/job/").run(visit, USERS["keys"])


@pytest.mark.long
@given(drawn=SUB_JOBS, listed_as=st.sampled_from(["NORMAL_JOB", "BATCH_JOB"]))
def test_no_failed_table_is_overlooked(drawn: list[Any], listed_as: str) -> None:
    """The run succeeded if and only if all of its own tables did."""
    jobs = [sub_job(f"t{n}", *each) for n, each in enumerate(drawn)]
    run = collect(server(jobs, listed_as))
    own = [
        status
        for status, created, sub_job_created in drawn
        if sub_job_created is None or sub_job_created >= SINCE
    ]
    since = [
        status
        for status, created, sub_job_created in drawn
        if status == "SUCCEEDED"
        and created >= SINCE
        and (sub_job_created is None or sub_job_created >= SINCE)
    ]
    assert run.tables["total"] == len(own)
    assert run.tables["succeeded"] == len(since)
    assert run.failed == (len(since) < len(own))


def test_the_definition_contains_the_type() -> None:
    """The definition of a job decides whether it is a whole-database job."""
    run = Submission("c", "shop", "SUCCEEDED", 5, SINCE)
    answer = server([sub_job("t", "SUCCEEDED", SINCE)])

    def collected(definition: Any) -> Any:
        return FakeServer([answer], "/cdm/job/").run(
            lambda api: with_tables(api, run, definition), USERS["keys"]
        )

    assert collected({"job_type": "BATCH_JOB"}).tables["total"] == 1


@pytest.mark.parametrize("definition", [{"job_type": "NORMAL_JOB"}, {"job_type": "WHAT"}, {}, None])
def test_other_types_cost_nothing(definition: Any, make_session: Callable[..., Any]) -> None:
    """No call is made for the tables of a job of another, or of an unknown, type."""
    flow = with_tables(make_session().api, Submission("c", "j", "SUCCEEDED"), definition)
    with pytest.raises(StopIteration) as end:
        next(flow)
    assert end.value.value.tables is None


def test_other_jobs_are_no_tables() -> None:
    """A job whose source table does not match its name is not a sub-job."""

    def job(name: str, source: str, schema: str = "") -> dict[str, Any]:
        inputs = [
            {"name": "fromJobConfig.tableName", "value": source},
            {"name": "fromJobConfig.schemaName", "value": schema},
        ]
        block = {"configs": [{"name": "fromJobConfig", "inputs": inputs}]}
        return {**sub_job(name, "FAILED", SINCE), "from-config-values": block}

    ours = [job("orders", "orders"), job("a_b", "a$b"), job("x_t", "t", "x"), job("u_", "u%5F")]
    others = [job("daily", "orders"), job("eu_orders", "orders"), job("all", "*")]
    run = collect(server([*ours, *others]))
    assert sorted(table["table"] for table in run.tables["list"]) == ["a_b", "orders", "u_", "x_t"]


@pytest.mark.parametrize("end", ["SUCCEEDED", "FAILED"])
def test_tables_that_lag_behind(end: str) -> None:
    """The end of a table may show later than that of its run, and is waited for."""
    job, requests = sub_job("t", "RUNNING", SINCE), []

    def answer(request: Request) -> Response:
        requests.append(request)
        if len(requests) > 5:
            job["status"] = end
        return server([job])(request)

    run = collect(answer)
    assert (run.tables["succeeded"], run.failed) == (
        (1, False) if end == "SUCCEEDED" else (0, True)
    )


def test_tables_that_lag_behind_after_an_outage() -> None:
    """Time in which the listings cannot be read is no time in which tables should have ended."""
    job = sub_job("t", "RUNNING", SINCE)
    failures: list[Request] = []
    listed: list[Request] = []

    def answer(request: Request) -> Response:
        if "/job/all" in request.url and len(failures) < 25:
            failures.append(request)
            return Response(503, {}, b"")
        listed.append(request)
        if len(listed) > 14:
            job["status"] = "SUCCEEDED"
        return server([job])(request)

    run = collect(answer)
    assert (run.tables["succeeded"], run.failed) == (1, False)


def test_a_table_that_never_ends() -> None:
    """A table that is still active a minute after the end of its run makes the run fail."""
    run = collect(server([sub_job("t", "RUNNING", SINCE)]))
    assert (run.failed, "1 did not end (t)" in (run.error_summary or "")) == (True, True)


def test_a_later_run() -> None:
    """If the job has run again, its sub-jobs say nothing about our run."""
    answer = server([sub_job("t", "SUCCEEDED", SINCE + 9)], later=SINCE + 5)
    with pytest.raises(errors.CdmOutcomeUnknown):
        collect(answer)


@pytest.mark.long
def test_a_listing_without_an_end() -> None:
    """A listing that always has one more page is an error."""
    page = {"jobs": [sub_job("t", "SUCCEEDED", SINCE)] * 100, "total": 10**9}

    def answer(request: Request) -> Response:
        status = {"submissions": [_run("SUCCEEDED", SINCE, 5)]}
        return _json(page if "/all" in request.url else status)

    with pytest.raises(errors.CdmUnavailable, match="no end"):
        collect(answer)


@pytest.mark.parametrize("total", [0, 100, None])
def test_a_total_that_is_too_small(total: int | None) -> None:
    """A full page is followed by the next one, whatever total the listing gives."""
    jobs = [sub_job(f"t{n:03}", "SUCCEEDED", SINCE) for n in range(100)]
    jobs.append(sub_job("u", "FAILED", SINCE))

    def answer(request: Request) -> Response:
        response = server(jobs)(request)
        body = json.loads(response.body)
        return _json({**body, "total": total}) if "/all" in request.url else response

    assert "of 101 tables 1 failed (u)" in (collect(answer).error_summary or "")


def test_jobs_that_move_between_pages() -> None:
    """If a job disappears while pages are read, those that moved to an earlier page are found."""
    jobs = [sub_job(f"t{n:03}", "SUCCEEDED", SINCE) for n in range(101)]
    jobs[100]["status"] = "FAILED"

    def answer(request: Request) -> Response:
        response = server(jobs)(request)
        if "jobType=NORMAL_JOB" in request.url and len(jobs) == 101:
            del jobs[0]
        return response

    assert "1 failed (t100)" in (collect(answer).error_summary or "")


@pytest.mark.parametrize("first", ["SUCCEEDED", "FAILED"])
@pytest.mark.parametrize("end", ["SUCCEEDED", "FAILED"])
def test_listings_that_disagree(first: str, end: str) -> None:
    """If two listings show one job in different states, a status call settles it."""
    second = "FAILED" if first == "SUCCEEDED" else "SUCCEEDED"

    def answer(request: Request) -> Response:
        if "/all" not in request.url:
            return server([sub_job("t", end, SINCE)])(request)
        status = first if "jobType=NORMAL_JOB" in request.url else second
        return _json({"jobs": [sub_job("t", status, SINCE)], "total": 1})

    assert collect(answer).failed == (end == "FAILED")


def test_the_shorter_listing_may_be_the_right_one() -> None:
    """Jobs of all listings count, not only those of the first that shows any."""
    jobs = {"NORMAL_JOB": ["a", "b"], "BATCH_JOB": ["c"], "SCENARIO_JOB": ["d"]}
    shown = {kind: [sub_job(name, "SUCCEEDED", SINCE) for name in jobs[kind]] for kind in jobs}
    shown["SCENARIO_JOB"][0]["status"] = "FAILED"
    everything = [each for listed in shown.values() for each in listed]

    def answer(request: Request) -> Response:
        kinds = [kind for kind in shown if f"jobType={kind}" in request.url]
        return server(shown[kinds[0]] if kinds else everything, kinds[0] if kinds else "")(request)

    run = collect(answer)
    assert (run.tables["total"], run.tables["failed"]) == (4, 1)
