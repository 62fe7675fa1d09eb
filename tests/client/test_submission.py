"""Runs as CDM describes them, and which of two descriptions is which run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_cdm.client.submission import (
    COUNTERS_GROUP,
    DETAILS_LIMIT,
    STATUS_LIMIT,
    RunRef,
    Submission,
    Verdict,
    newest_first,
    read_int,
    verdict_of,
)

RUN = Submission("c", "j", "SUCCEEDED", submission_id=5, creation_date=1_000)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        ("PENDING", Verdict.ACTIVE),
        ("BOOTING", Verdict.ACTIVE),
        ("RUNNING", Verdict.ACTIVE),
        ("SUCCEEDED", Verdict.SUCCESS),
        ("FAILED", Verdict.FAILURE),
        ("FAILURE_ON_SUBMIT", Verdict.FAILURE),
        ("STOPPED", Verdict.FAILURE),
        ("NEVER_EXECUTED", Verdict.NO_RUN),
        ("UNKNOWN", Verdict.UNKNOWN),
        ("succeeded", Verdict.SUCCESS),
        ("stopped", Verdict.FAILURE),
        ("Running", Verdict.ACTIVE),
        ("SUCCEEDED?", Verdict.UNKNOWN),
        ("", Verdict.UNKNOWN),
        ("DONE", Verdict.UNKNOWN),
    ],
)
def test_verdicts(status: str, verdict: Verdict) -> None:
    """Documented statuses count, whatever their capitals; no other one ends a wait."""
    run = replace(RUN, status=status)
    assert verdict_of(status) is run.verdict is verdict
    assert run.ended is (verdict in (Verdict.SUCCESS, Verdict.FAILURE))
    assert run.failed is (verdict is Verdict.FAILURE)


@pytest.mark.parametrize(
    ("status", "succeeded", "verdict"),
    [
        ("SUCCEEDED", 1, Verdict.FAILURE),
        ("SUCCEEDED", 2, Verdict.SUCCESS),
        ("SUCCEEDED", 3, Verdict.SUCCESS),
        ("RUNNING", 1, Verdict.ACTIVE),
        ("UNKNOWN", 0, Verdict.UNKNOWN),
    ],
)
def test_a_failed_table_makes_a_success_a_failure(
    status: str, succeeded: int, verdict: Verdict
) -> None:
    """A whole-database run succeeds only with all of its tables."""
    run = replace(RUN, status=status, tables={"succeeded": succeeded, "total": 2})
    assert run.verdict is verdict


@pytest.mark.parametrize(
    ("status", "created", "executed", "changed", "seconds"),
    [
        ("SUCCEEDED", 1_000, 2_000, 4_500, 3.5),
        ("FAILED", None, 2_000, 4_500, 2.5),
        ("SUCCEEDED", 0, 2_000, 4_500, 4.5),
        ("SUCCEEDED", 5_000, None, 4_500, 0),
        ("SUCCEEDED", 4_500, None, 4_501, 0.001),
        ("SUCCEEDED", None, None, 4_500, None),
        ("SUCCEEDED", 1_000, None, None, None),
        ("RUNNING", 1_000, 2_000, 4_500, None),
    ],
)
def test_duration(
    status: str,
    created: int | None,
    executed: int | None,
    changed: int | None,
    seconds: float | None,
) -> None:
    """A run takes from its creation to its last change, and is not over before it has ended."""
    run = Submission(
        *("c", "j", status),
        creation_date=created,
        execute_date=executed,
        last_update_date=changed,
    )
    assert run.duration_seconds == seconds


def test_result() -> None:
    """A result is small; what only an ended run has is added at its end, tables if there are."""
    identity = {"cluster_id": "c", "job_name": "j", "submission_id": 5, "creation_date": 1_000}
    identity["creation_time"] = "1970-01-01T00:00:01.000+00:00"
    assert replace(RUN, status="RUNNING").to_dict() == {**identity, "status": "RUNNING"}
    ended = replace(
        RUN,
        progress=1.0,
        counters={"ROWS": 1, "FILES": -1, "BYTES": 0},
        execute_date=2,
        last_update_date=3_000,
        tables={},
    )
    assert ended.to_dict() == {
        **identity,
        "status": "SUCCEEDED",
        "progress": 1.0,
        "counters": {"ROWS": 1, "BYTES": 0},
        "execute_date": 2,
        "execute_time": "1970-01-01T00:00:00.002+00:00",
        "last_update_date": 3_000,
        "last_update_time": "1970-01-01T00:00:03.000+00:00",
        "duration_seconds": 2.0,
        "tables": {},
    }


def test_what_little_is_known() -> None:
    """Without more than a status, nothing is claimed; details are no part of a description."""
    run = Submission("c", "j", "RUNNING", error_details="secret")
    assert not run.is_execute_auto
    assert "secret" not in repr(run)
    assert (DETAILS_LIMIT, STATUS_LIMIT) == (8_000, 100)


def test_payload() -> None:
    """A run survives the way through an event; of its details a part is kept."""
    run = replace(RUN, counters={"ROWS": 1}, error_details="x" * (DETAILS_LIMIT + 1))
    payload = run.to_payload()
    assert Submission.from_payload({**payload, "unknown": 1}) == replace(
        run, error_details="x" * DETAILS_LIMIT
    )
    assert RUN.to_payload()["error_details"] is None
    wrongs: list[Any] = [None, [], "x", {}]
    wrongs += [{**payload, "status": 5}, {**payload, "cluster_id": None}]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="not a submission"):
            Submission.from_payload(wrong)


def test_wire() -> None:
    """All fields of CDM's answer are read."""
    wire = {
        "status": "FAILED",
        "submission-id": "5",
        "creation-date": "1000",
        "creation-user": "u",
        "execute-date": 2,
        "last-update-date": 3,
        "last-udpate-user": "v",
        "progress": "0.5",
        "is-execute-auto": "True ",
        "external-id": "job_1",
        "counters": {COUNTERS_GROUP: {"ROWS": "7", "x": "none"}},
        "error-summary": "s",
        "error-details": "d",
        "write_rows": 4,
        "update_rows": 5,
        "delete_rows": 6,
    }
    assert Submission.from_wire(wire, "c", "j") == Submission(
        *("c", "j", "FAILED", 5, 1000, "u", 2, 3, "v", 0.5, True, "job_1", {"ROWS": 7}),
        *("s", "d", 4, 5, 6),
    )
    other = {"status": "x" * 200, "last-update-user": "w", "counters": {"A": 1}}
    run = Submission.from_wire(other, "c", "j")
    assert (run.last_update_user, run.counters) == ("w", {"A": 1})
    assert run.status == "x" * STATUS_LIMIT
    assert not run.is_execute_auto


@pytest.mark.parametrize("wire", [None, [], {}, {"status": ""}, {"status": " "}, {"status": 5}])
def test_no_submission(wire: Any) -> None:
    """A run without a status is an error."""
    with pytest.raises(ValueError, match="a submission"):
        Submission.from_wire(wire, "c", "j")


@pytest.mark.parametrize(
    ("value", "auto"),
    [(True, True), ("TRUE", True), (False, False), ("no", False), ("x", False), (1, False)],
)
def test_flags(value: Any, auto: bool) -> None:
    """Flags may be quoted."""
    wire = {"status": "RUNNING", "is-execute-auto": value}
    assert Submission.from_wire(wire, "c", "j").is_execute_auto is auto


@pytest.mark.parametrize("counters", [None, [], "x", {COUNTERS_GROUP: 5}])
def test_no_counters(counters: Any) -> None:
    """What is no table of numbers counts as none."""
    wire = {"status": "RUNNING", "counters": counters}
    assert Submission.from_wire(wire, "c", "j").counters == {}


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (5, 5),
        ("5", 5),
        ("5.9", 5),
        (5.9, 5),
        (-1, -1),
        (10**30, 10**30),
        ("1e18", None),
        ("-1e18", None),
        ("9e17", 9 * 10**17),
        (True, None),
        (None, None),
        ("x", None),
        ([5], None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_numbers(value: Any, number: int | None) -> None:
    """Numbers may be quoted or have a fraction; what is none, or beyond all measure, is ignored."""
    assert read_int(value) == number
    assert type(read_int(value)) is type(number)


@pytest.mark.parametrize("value", ["", 5, None])
def test_texts(value: Any) -> None:
    """An empty text counts as none, as does anything else; a long one is cut off."""
    wire = {"status": "RUNNING", "error-summary": value, "external-id": "x" * 10_000}
    wire["creation-user"] = value
    run = Submission.from_wire({**wire, "error-details": "y" * 10_000}, "c", "j")
    assert run.error_summary is None
    assert run.creation_user is None
    assert run.external_id == "x" * 256
    assert run.error_details == "y" * DETAILS_LIMIT


@pytest.mark.parametrize(
    ("number", "created", "shown_number", "shown", "order"),
    [
        (5, 1_000, 5, 1_000, 0),
        (5, 1_000, 5, 3_000, 0),
        (5, 1_000, 5, 3_001, None),
        (5, 3_001, 5, 1_000, None),
        (5, 1_000, 6, 1_000, -1),
        (6, 1_000, 5, 1_000, 1),
        (5, 1_000, 6, 900_000, -1),
        (5, 900_000, 6, 1_000, None),
        (6, 1_000, 5, 900_000, None),
        (6, 3_000, 5, 5_000, 1),
        (5, None, 5, 1_000, 0),
        (5, 1_000, 6, None, -1),
        (None, 1_000, 5, 1_000, 0),
        (None, 1_000, 5, 1_001, -1),
        (5, 1_001, None, 1_000, 1),
        (5, None, None, 1_000, None),
        (None, None, 5, 1_000, None),
        (None, None, None, None, None),
    ],
)
def test_order(
    number: int | None,
    created: int | None,
    shown_number: int | None,
    shown: int | None,
    order: int | None,
) -> None:
    """Numbers decide, or dates where there are none; contradictions and nothing have no order."""
    run = RunRef("c", "j", number, created)
    seen = Submission("c", "j", "RUNNING", shown_number, shown)
    assert run.is_run(seen) is (order == 0)
    assert run.is_before(seen) is (order == -1)
    assert run.is_unordered(seen) is (order is None)


def test_reference() -> None:
    """A reference is known by its number or its date, and says which."""
    assert RunRef.of(RUN) == RunRef("c", "j", 5, 1_000)
    for run, known, text in [
        (RunRef("c", "j", 5, 1_000), True, "run 5 of job 'j'"),
        (RunRef("c", "j", 0), True, "run 0 of job 'j'"),
        (
            RunRef("c", "j", None, 1_007),
            True,
            "the run created at 1970-01-01 00:00:01 UTC of job 'j'",
        ),
        (RunRef("c", "j"), False, "the run of job 'j'"),
    ]:
        assert (run.known, str(run)) == (known, text)
    assert RunRef("c", "j", 5).title == "Run 5"
    assert RunRef("c", "j").title == "The run"


def test_newest_first() -> None:
    """Numbers come before dates, and runs without both come last."""
    keys: list[tuple[int | None, int | None]] = [
        *((7, None), (6, 1), (5, 9), (5, None), (0, 3)),
        *((None, 9), (None, 0), (None, None)),
    ]
    runs = [Submission("c", "j", "RUNNING", *key) for key in keys]
    assert newest_first(reversed(runs)) == runs
