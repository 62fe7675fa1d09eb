"""The tables of a whole database: what counts, what is said, and how much of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.sansio import Flow, Request, Response
from airflow_provider_cdm.client.submission import Submission, Verdict
from airflow_provider_cdm.client.whole_database.collect import with_tables
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
    """Each table is in one of the numbers of a result, or is left from an earlier run."""
    report = TableReport.of(tables, SINCE)
    told = report.to_dict()
    assert told["succeeded"] + told["failed"] + told["unfinished"] == told["total"]
    assert told["total"] + len(report.stale) == len(tables)
    assert len(told["list"]) + told["left_out"] == told["total"]
    assert (report.failure_summary() == "") == (told["succeeded"] == told["total"])


@given(tables=TABLES)
def test_a_result_is_small(tables: list[Table]) -> None:
    """However many tables there are, what is returned and said of them stays small."""
    report = TableReport.of(tables, SINCE)
    told = report.to_dict()
    assert len(told["list"]) <= TABLES_SHOWN
    bad = [one for one in told["list"] if one["status"] != "SUCCEEDED"]
    assert told["list"][: len(bad)] == bad
    assert len(json.dumps(told, ensure_ascii=False)) < TABLES_SHOWN * 2_000
    assert len(report.progress_line()) < 20 * 250 + 100
    assert len(failure_lines(Submission("c", "j", "FAILED", tables=told))) <= 11


@given(tables=TABLES)
def test_totals(tables: list[Table]) -> None:
    """A total is the sum over all tables that are done, or it is not given."""
    report = TableReport.of(tables, SINCE)
    done = [table for state, table in report.tables if state is TableState.DONE]
    for name, total in report.totals().items():
        assert total == sum(table.counters[name] for table in done)


@pytest.mark.parametrize(
    ("status", "created", "made", "state"),
    [
        ("SUCCEEDED", SINCE, None, TableState.DONE),
        ("SUCCEEDED", SINCE - 1, None, TableState.WAITING),
        ("SUCCEEDED", SINCE - 1, SINCE - 1, TableState.STALE),
        ("FAILED", SINCE - 1, SINCE - 1, TableState.STALE),
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
def test_state(status: str, created: int | None, made: int | None, state: TableState) -> None:
    """Only what was begun since the run was created counts, and no doubt makes a success."""
    assert Table("t", status, created, made).state(SINCE) is state


@given(status=STATUSES, created=DAYS, made=DAYS)
def test_without_a_date_of_the_run_nothing_is_left_out(
    status: str, created: int | None, made: int | None
) -> None:
    """While it is not known since when the run lasts, no table is taken for an earlier run's."""
    assert Table("t", status, created, made).state(None) is not TableState.STALE


@given(tables=TABLES, status=st.sampled_from(["SUCCEEDED", "FAILED", "RUNNING"]))
def test_a_success_of_which_a_table_lacks_is_none(tables: list[Table], status: str) -> None:
    """The verdict on a run takes its tables in; they never make a success of a failure."""
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
    """Answer for the job ``shop`` and its sub-jobs."""

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


def sub_job(table: str, status: str, created: int, made: int | None = None) -> dict[str, Any]:
    shown = {"name": f"shop_{table}", "status": status, "creation-date": made}
    return {**shown, "execute_create_date": created, "rows_read": 3, "rows_written": 3}


def collect(answer: Callable[[Request], Response], run: Submission = RUN) -> Any:
    def visit(api: CdmApi) -> Flow[Submission]:
        return with_tables(api, run)

    return FakeServer([answer], "/cdm/job/").run(visit, USERS["keys"])


@given(drawn=SUB_JOBS, listed_as=st.sampled_from(["NORMAL_JOB", "BATCH_JOB"]))
def test_no_failed_table_is_overlooked(drawn: list[Any], listed_as: str) -> None:
    """Whatever the tables came to: the run is good if and only if all of its own went well."""
    jobs = [sub_job(f"t{n}", *each) for n, each in enumerate(drawn)]
    run = collect(server(jobs, listed_as))
    own = [
        status
        for status, created, made in drawn
        if (status != "NEW" and created >= SINCE) or made is None or made >= SINCE
    ]
    since = [s for s, created, _ in drawn if s == "SUCCEEDED" and created >= SINCE]
    assert run.tables["total"] == len(own)
    assert run.tables["succeeded"] == len(since)
    assert run.failed == (len(since) < len(own))


def test_the_definition_tells_the_type() -> None:
    """A run is of a whole database if the definition of its job says so."""
    run = Submission("c", "shop", "SUCCEEDED", 5, SINCE)
    answer = server([sub_job("t", "SUCCEEDED", SINCE)])

    def collected(definition: Any) -> Any:
        return FakeServer([answer], "/cdm/job/").run(
            lambda api: with_tables(api, run, definition), USERS["keys"]
        )

    assert collected({"job_type": "BATCH_JOB"}).tables["total"] == 1


@pytest.mark.parametrize("definition", [{"job_type": "NORMAL_JOB"}, {"job_type": "WHAT"}, {}, None])
def test_other_types_cost_nothing(definition: Any, make_session: Callable[..., Any]) -> None:
    """Nothing is asked about the tables of a job that has none, or is not known to have any."""
    flow = with_tables(make_session().api, Submission("c", "j", "SUCCEEDED"), definition)
    with pytest.raises(StopIteration) as end:
        next(flow)
    assert end.value.value.tables is None


def test_other_jobs_are_no_tables() -> None:
    """A job whose own source table is another than its name says is not a table of ours."""

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
    assert sorted(one["table"] for one in run.tables["list"]) == ["a_b", "orders", "u_", "x_t"]


@pytest.mark.parametrize("end", ["SUCCEEDED", "FAILED"])
def test_tables_that_lag_behind(end: str) -> None:
    """The end of a table may show later than that of its run, which is waited for, and judged."""
    job, asked = sub_job("t", "RUNNING", SINCE), []

    def answer(request: Request) -> Response:
        asked.append(request)
        if len(asked) > 5:
            job["status"] = end
        return server([job])(request)

    run = collect(answer)
    assert (run.tables["succeeded"], run.failed) == (
        (1, False) if end == "SUCCEEDED" else (0, True)
    )


def test_a_table_that_never_ends() -> None:
    """A table that still runs a minute after the end of its run keeps the run from being good."""
    run = collect(server([sub_job("t", "RUNNING", SINCE)]))
    assert (run.failed, "1 did not end (t)" in (run.error_summary or "")) == (True, True)


def test_a_later_run() -> None:
    """When the job has run again, its sub-jobs say nothing about our run."""
    answer = server([sub_job("t", "SUCCEEDED", SINCE + 9)], later=SINCE + 5)
    with pytest.raises(errors.CdmOutcomeUnknown):
        collect(answer)


def test_a_listing_without_an_end() -> None:
    """A server that has always one more page is not read for ever."""
    page = {"jobs": [sub_job("t", "SUCCEEDED", SINCE)] * 100, "total": 10**9}

    def answer(request: Request) -> Response:
        status = {"submissions": [_run("SUCCEEDED", SINCE, 5)]}
        return _json(page if "/all" in request.url else status)

    with pytest.raises(errors.CdmUnavailable, match="no end"):
        collect(answer)
