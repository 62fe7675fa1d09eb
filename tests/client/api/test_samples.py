"""Reading answers: the documented samples in ``tests/wire``, their variants, and bad answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import resources, runs
from airflow_provider_cdm.client.api.definitions import JOB
from airflow_provider_cdm.client.sansio import Response
from airflow_provider_cdm.client.submission import (
    COUNTERS_GROUP,
    DETAILS_LIMIT,
    RunRef,
    Submission,
    newest_first,
)

SAMPLES = Path(__file__).parents[2] / "wire"
PROPERTY = settings(derandomize=True, max_examples=80)
CALLS: dict[str, Any] = {
    "start": runs.start_job("c", "asked"),
    "status": runs.status("c", "asked"),
    "submissions": runs.history("c", "asked"),
    "stop": runs.stop_job("c", "asked"),
    "show_job": resources.show(JOB, "c", "asked"),
}


def read(call: str, body: bytes) -> Any:
    """Return what an operation reads from the body of a successful answer."""
    return CALLS[call].parse(Response(200, {"x-request-id": "r-1"}, body), CALLS[call])


def samples(call: str) -> pytest.MarkDecorator:
    """Return the samples of one operation, as parameters of a test."""
    rows = json.loads((SAMPLES / f"{call}.json").read_text())
    assert all(row["source"].startswith(("documented", "recorded", "assumed")) for row in rows)
    return pytest.mark.parametrize("sample", rows, ids=[row["name"] for row in rows])


def body_of(sample: dict[str, Any]) -> bytes:
    """Return the body of a sample, JSON or raw text, as the answer about the job that is asked."""
    text = sample["raw"] if "raw" in sample else json.dumps(sample["body"])
    return re.sub(r'("job-name": ")[^"]*"', r'\1asked"', text).encode()


def part(submission: Submission, wanted: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of a submission that a sample contains."""
    payload = submission.to_payload()
    return {name: payload[name] for name in wanted}


@samples("start")
def test_start_samples(sample: dict[str, Any]) -> None:
    """The answer to a start is read as it is documented."""
    assert part(read("start", body_of(sample)), sample["means"]) == sample["means"]


@samples("status")
def test_status_samples(sample: dict[str, Any]) -> None:
    """The answer to a status call is read as it is documented."""
    found = read("status", body_of(sample))
    assert [part(s, m) for s, m in zip(found, sample["means"], strict=True)] == sample["means"]


@samples("submissions")
def test_history_samples(sample: dict[str, Any]) -> None:
    """A history is sorted newest first, and knows whether it is complete."""
    found = read("submissions", body_of(sample))
    ids = [submission.submission_id for submission in found.submissions]
    means = {"ids": ids, "total": found.total, "complete": found.complete}
    assert means == sample["means"]


@samples("stop")
def test_stop_samples(sample: dict[str, Any]) -> None:
    """Each documented form of the stop answer is a success, unless it contains an ERROR."""
    if sample["means"] is None:
        assert read("stop", body_of(sample)) is None
    else:
        with pytest.raises(errors.CdmRefused) as caught:
            read("stop", body_of(sample))
        assert sample["means"] in str(caught.value)
        assert not caught.value.retryable


@pytest.mark.parametrize(
    ("call", "body", "problem"),
    [
        ("start", b"", "is empty"),
        ("status", b"  \n", "is empty"),
        ("start", b"<html>Sign in</html>", "not JSON"),
        ("start", b'{"submissions": [{"status": "BOO', "not JSON"),
        ("status", b"\xff\xfe", "not JSON"),
        ("status", b"[" * 100_000, "not JSON"),
        ("status", b"[]", "not a JSON object"),
        ("submissions", b"null", "not a JSON object"),
        ("start", b"{}", "no submissions"),
        ("status", b'{"submissions": {}}', "no submissions"),
        ("submissions", b'{"submissions": null, "total": 0}', "no submissions"),
        ("start", b'{"submissions": []}', "names no submission"),
        ("status", b'{"submissions": ["RUNNING"]}', "is str, not an object"),
        ("status", b'{"submissions": [{"submission-id": 1}]}', "has no status"),
        ("status", b'{"submissions": [{"status": ""}]}', "has no status"),
        ("status", b'{"submissions": [{"status": 3}]}', "has no status"),
        ("stop", b"<html>Sign in</html>", "not JSON"),
        ("show_job", b"{}", "contains no job"),
        ("show_job", b'{"jobs": []}', "contains no job"),
        ("show_job", b'{"jobs": ["asked"]}', "contains no job"),
    ],
)
def test_bad_answers(call: str, body: bytes, problem: str) -> None:
    """A success in another form than documented is an error, and its effect is unknown."""
    with pytest.raises(errors.CdmBadResponse) as caught:
        read(call, body)
    error = caught.value
    assert problem in str(error)
    assert "asked" in str(error)
    assert "request id r-1" in str(error)
    assert (error.http_status, error.request_id, error.retryable) == (200, "r-1", False)
    assert error.effect_unknown
    assert len(str(error)) < 1_000


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (1536905778725, 1536905778725),
        ("1536905778725", 1536905778725),
        (" 1536905778725 ", 1536905778725),
        (1536905778725.0, 1536905778725),
        ("1.5369e12", 1536900000000),
        (-1, -1),
        (0, 0),
        (True, None),
        (None, None),
        ("", None),
        ("yesterday", None),
        ([], None),
        ({}, None),
        (float("nan"), None),
        (float("inf"), None),
        ("nan", None),
        ("9" * 400, None),
    ],
)
def test_whole_numbers(sent: Any, read: int | None) -> None:
    """Numbers and dates may be quoted; anything else counts as missing."""
    wire = {"status": "RUNNING", "creation-date": sent, "submission-id": sent}
    submission = Submission.from_wire(json.loads(json.dumps(wire)), "c", "j")
    assert (submission.creation_date, submission.submission_id) == (read, read)


@pytest.mark.parametrize("sent", [True, "true", " TRUE ", False, "false", "", None, 0, 1, [], {}])
def test_flags(sent: Any) -> None:
    """A flag may be a boolean or text, and only true is true."""
    wire = {"status": "RUNNING", "is-execute-auto": sent}
    yes = sent is True or (isinstance(sent, str) and "true" in sent.lower())
    assert Submission.from_wire(wire, "c", "j").is_execute_auto is yes


@pytest.mark.parametrize(
    ("keys", "read"),
    [
        ({"last-udpate-user": "typo"}, "typo"),
        ({"last-update-user": "right"}, "right"),
        ({"last-udpate-user": "same", "last-update-user": "same"}, "same"),
        ({"last-udpate-user": "", "last-update-user": "right"}, "right"),
        ({}, None),
    ],
)
def test_last_user(keys: dict[str, str], read: str | None) -> None:
    """The last user is read under both spellings of its key."""
    assert Submission.from_wire({"status": "X", **keys}, "c", "j").last_update_user == read


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["1536905778725", "RUNNING", "ERROR", "true", "\ud800"])
)
KEYS = st.text(max_size=5) | st.one_of(
    st.sampled_from(["submissions", "total", "jobs", "validation-result", "message", "status"]),
    st.sampled_from(["submission-id", "job-name", "creation-date", "progress", "counters"]),
    st.sampled_from(["error-summary", "last-udpate-user", "is-execute-auto", COUNTERS_GROUP]),
)
JSON = st.recursive(
    LEAVES,
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(KEYS, inside, max_size=6),
    max_leaves=30,
)
SUBMISSION = st.dictionaries(KEYS, JSON, max_size=8).map(lambda d: {"status": "RUNNING", **d})
ANSWERS = st.one_of(
    JSON.map(lambda value: json.dumps(value).encode()),
    st.lists(SUBMISSION, max_size=4).map(lambda s: json.dumps({"submissions": s}).encode()),
    st.binary(max_size=50),
)


@given(st.sampled_from(sorted(CALLS)), ANSWERS)
@PROPERTY
def test_any_answer_is_a_value_or_our_error(call: str, body: bytes) -> None:
    """Whatever a server sends is read as a value that JSON can represent, or is our error."""
    try:
        found = read(call, body)
    except errors.CdmError:
        return
    if call == "show_job" or found is None:
        return
    listed = getattr(found, "submissions", found if isinstance(found, list) else [found])
    for submission in listed:
        payload = json.loads(json.dumps(submission.to_payload(), allow_nan=False))
        assert Submission.from_payload(payload) == submission


def test_deeply_nested_messages() -> None:
    """A nested validation-result is no problem; one that is nested without an end is no answer."""
    assert read("stop", b'{"validation-result": ' + b"[" * 90 + b"]" * 90 + b"}") is None
    with pytest.raises(errors.CdmBadResponse):
        read("stop", b'{"validation-result": ' + b"[" * 900 + b"]" * 900 + b"}")


@given(JSON)
@PROPERTY
def test_any_payload_is_a_submission_or_refused(payload: Any) -> None:
    """A payload from the triggerer is read, or rejected with ValueError."""
    try:
        assert Submission.from_payload(payload).status == payload["status"]
    except ValueError:
        assert not {"cluster_id", "job_name", "status"} <= (
            payload.keys() if isinstance(payload, dict) else set()
        )


def test_long_details_are_cut() -> None:
    """A stack trace of any length is cut before it passes from the triggerer."""
    submission = Submission("c", "j", "FAILED", error_details="x" * 10 * DETAILS_LIMIT)
    assert len(submission.to_payload()["error_details"]) == DETAILS_LIMIT


RUNS = st.builds(
    Submission,
    cluster_id=st.just("c"),
    job_name=st.just("j"),
    status=st.just("RUNNING"),
    submission_id=st.none() | st.integers(1, 4),
    creation_date=st.none() | st.integers(1, 4),
)


@given(RUNS, RUNS)
@PROPERTY
def test_runs_are_distinguished(ours: Submission, other: Submission) -> None:
    """Numbers decide if both sides have one, else dates; else nothing is claimed."""
    ref = RunRef.of(ours)
    keys = [
        (getattr(ours, name), getattr(other, name)) for name in ("submission_id", "creation_date")
    ]
    mine, its = next(((a, b) for a, b in keys if None not in (a, b)), (None, None))
    assert ref.is_run(other) is (mine is not None and mine == its)
    assert ref.is_before(other) is (mine is not None and its is not None and mine < its)
    assert ref.known is (ours.submission_id is not None or ours.creation_date is not None)


@given(st.lists(RUNS.filter(lambda run: run.submission_id is not None), max_size=6))
@PROPERTY
def test_newest_first(runs: list[Submission]) -> None:
    """Runs with numbers are sorted by them, and none is lost."""
    ordered = newest_first(runs)
    ids = [run.submission_id or 0 for run in ordered]
    assert ids == sorted(ids, reverse=True)
    assert sorted(map(repr, ordered)) == sorted(map(repr, runs))
