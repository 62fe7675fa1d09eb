"""What a record of a start says, and how attempts relate to each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.jobs.start_record import (
    Generation,
    Relation,
    StartPolicy,
    StartRecord,
    StartRequest,
    StartResult,
    key_of,
)
from airflow_provider_cdm.client.submission import RunRef, Submission

REQUEST = StartRequest("c", "j", {"a": "1", "b": "2"})
RUN = Submission("c", "j", "SUCCEEDED", submission_id=5, creation_date=1000)
KEY = {"submission_id": 5, "creation_date": 1000}
RECORD = StartRecord(
    "f",
    Generation(2, 3, 1, 2),
    "c",
    "j",
    baseline={"submission_id": 4, "creation_date": None},
    baseline_known=True,
    intent_at=1.5,
    sent_at=2.5,
    sends=1,
    attempt_id="x",
)


def again(*numbers: Any) -> Generation:
    """Return what Airflow says about a try that was rescheduled once."""
    return replace(Generation(*numbers), reschedules=1)


@pytest.mark.parametrize(
    ("earlier", "later", "relation"),
    [
        (Generation(1, 2, 0, 2), Generation(2, 2, 0, 2), Relation.SAME),
        (Generation(1, 2, 0, 2), Generation(3, 2, 0, 2), Relation.SAME),
        (Generation(1, 2, 0, 2), Generation(2, 3, 1, 2), Relation.NEW),
        (Generation(3, 2, 0, 2), Generation(4, 1, 1, 0), Relation.NEW),
        (Generation(2, 2, 0, 2), Generation(1, 2, 0, 2), Relation.NEW),
        (Generation(1, 2, 0, 2), Generation(1, 2, 0, 2), Relation.NEW),
        # Another task was cleared: the first attempt after a clear would be number 1.
        (Generation(1, 2, 0, 2), Generation(2, 2, 1, 2), Relation.SAME),
        # The retries were edited from 1 to 0, so attempt 2 may be a retry or follow a clear.
        (Generation(1, 1, 0, 1), Generation(2, 1, 1, 0), Relation.UNCLEAR),
        (Generation(1, 1, 0, 1), Generation(2, 1, 0, 0), Relation.SAME),
        (Generation(1, 2, 0, 2), Generation(2, 2, 1, 1), Relation.UNCLEAR),
        (Generation(1, 2, 0, 2), Generation(3, 2, 1, 1), Relation.UNCLEAR),
        (Generation(2, 2, 0, 2), Generation(3, 2, 1, 1), Relation.SAME),
        (Generation(1, 3, 0, 3), Generation(2, 3, 1, 1), Relation.SAME),
        (Generation(1, 1, None, 1), Generation(2, 1, None, 0), Relation.SAME),
        (Generation(1, 1, None, 1), Generation(2, 1, None, 0, None, False), Relation.UNCLEAR),
        # Attempt 2 would be the first one after a clear, and the earlier one was number 3.
        (Generation(3, 4, 0, 4), Generation(4, 4, 1, 3), Relation.SAME),
        # The DAG run began again, whichever worker's clock dates that.
        (Generation(1, 1, 0, 1, 5.0), Generation(2, 1, 1, 0, 6.0), Relation.NEW),
        (Generation(1, 1, 0, 1, 6.0), Generation(2, 1, 1, 0, 5.0), Relation.NEW),
        (Generation(1, 1, 0, 1, 5.0), Generation(2, 1, 1, 0, 5.0), Relation.UNCLEAR),
        (Generation(1, 2, 0, 2, 5.0), Generation(2, 2, 1, 2, 6.0), Relation.UNCLEAR),
        (Generation(1, 2, 0, 2, 5.0), Generation(2, 2, 0, 2, 6.0), Relation.UNCLEAR),
        (Generation(1, 2, 0, 2, 6.0), Generation(2, 2, 0, 2, 5.0), Relation.UNCLEAR),
        (Generation(1, 2, 0, 2, 5.0), Generation(2, 2, 0, 2, 5.0), Relation.SAME),
        (Generation(1, 2, 0, 2, None), Generation(2, 2, 0, 2, 6.0), Relation.SAME),
        (Generation(1, 2, 0, 2, 5.0), Generation(2, 2, 0, 2, None), Relation.SAME),
        # A retry policy rescheduled the try, so that it keeps its number.
        (Generation(1, 2, 0, 2), again(1, 2, 0, 2), Relation.SAME),
        (Generation(1, 2, 0, 2, 5.0), again(1, 2, 0, 2, 5.0), Relation.SAME),
        (Generation(1, 2, 0, 2, 5.0), again(1, 2, 0, 2, 6.0), Relation.NEW),
        (again(1, 2, 0, 2), again(1, 2, 0, 2), Relation.NEW),
        (again(1, 2, 0, 2), Generation(2, 2, 0, 2), Relation.SAME),
        (Generation(2, 2, 0, 2), again(1, 2, 0, 2), Relation.NEW),
        (Generation(1, 2, 0, 2), again(1, 3, 1, 2), Relation.NEW),
        (Generation(1, 1, 0, 1), again(1, 1, 1, 0), Relation.SAME),
    ],
)
def test_relation(earlier: Generation, later: Generation, relation: Relation) -> None:
    """A retry, a clear, and what cannot be told apart."""
    assert later.relation_to(earlier) is relation


def test_relation_of_a_request() -> None:
    """The id of the attempt says that it is the same one; without an id its numbers count."""
    record = replace(RECORD, generation=Generation())
    assert replace(REQUEST, attempt_id="x").relation_to(record) is Relation.SAME
    for other in ("w", "y"):
        assert replace(REQUEST, attempt_id=other).relation_to(record) is Relation.NEW
    assert REQUEST.relation_to(replace(record, attempt_id="")) is Relation.NEW


@pytest.mark.parametrize(
    ("earlier", "later", "expected"),
    [
        (Generation(1, 2, 1), Generation(2, 2, 1), False),
        (Generation(1, 2, 1), Generation(2, 2, 2), True),
        (Generation(1, 2, 1), Generation(2, 2, 0), True),
        (Generation(1, 2, 1), Generation(2, 3, 1), True),
    ],
)
def test_may_follow_a_clear(earlier: Generation, later: Generation, expected: bool) -> None:
    """A clear may be all that ended an attempt if anything was cleared since."""
    request = replace(REQUEST, generation=later)
    assert request.may_follow_a_clear(replace(RECORD, generation=earlier)) is expected


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"cluster_id": "d"}, False),
        ({"job_name": "k"}, False),
        ({"variables": {"a": "1"}}, False),
        ({"variables": {"b": "2", "a": "1"}}, True),
        ({"definition": "d"}, False),
        ({"if_running": "wait"}, True),
        ({"attempt_id": "z"}, True),
    ],
)
def test_fingerprint(change: dict[str, Any], same: bool) -> None:
    """The fingerprint tells what would be another migration, and nothing else."""
    assert (replace(REQUEST, **change).fingerprint == REQUEST.fingerprint) is same
    assert len(REQUEST.fingerprint) == 32
    definitions = {replace(REQUEST, definition=text).fingerprint for text in ("d", "e")}
    assert len(definitions) == 2


def test_run_of_a_request() -> None:
    """A key in a record is a run of the job; no key is a run that is not known."""
    assert REQUEST.run(KEY) == RunRef("c", "j", 5, 1000)
    assert REQUEST.run(None) == RunRef("c", "j")
    assert REQUEST.if_running == "fail"


def test_record_survives_the_journal() -> None:
    """A record is read as it was written, and its format has a version."""
    assert RECORD.to_payload()["version"] == 2
    for record in (RECORD, RECORD.with_run(RUN), RECORD.ended_well(RUN), RECORD.ended_badly(RUN)):
        assert StartRecord.from_payload(record.to_payload()) == record


def _changed(**changes: Any) -> dict[str, Any]:
    return {**RECORD.to_payload(), **changes}


@pytest.mark.parametrize("number", [0, 0.0, 1.5])
def test_times_may_be_any_positive_number(number: float) -> None:
    """Times are numbers that are not negative."""
    record = StartRecord.from_payload(_changed(intent_at=number, sent_at=number))
    assert (record.intent_at, record.sent_at) == (number, number)


def test_clear_number_may_be_missing() -> None:
    """An Airflow that tells no clear number leaves it out of the record."""
    generation = {"try_number": 1, "max_tries": 0, "clear_number": None, "retries": 0}
    record = StartRecord.from_payload(_changed(generation=generation))
    assert record.generation.clear_number is None


@pytest.mark.parametrize(
    "payload",
    [
        {},
        _changed(version=1),
        _changed(version=3),
        _changed(version=None),
        _changed(generation=None),
        _changed(generation={"try": 1}),
        _changed(generation={"try_number": "1"}),
        _changed(generation={"max_tries": None}),
        _changed(generation={"clear_number": "1"}),
        _changed(generation={"retries": None}),
        _changed(fingerprint=None),
        _changed(cluster_id=1),
        _changed(job_name=None),
        _changed(attempt_id=None),
        _changed(intent_at="1"),
        _changed(intent_at=-1),
        _changed(sent_at=None),
        _changed(sends=-1),
        _changed(sends="1"),
        _changed(baseline_known="no"),
        _changed(foreign=0),
        _changed(baseline=[1]),
        _changed(baseline={"submission_id": "4"}),
        _changed(baseline={"submission_id": 4, "creation_date": 1.5}),
        _changed(run="5"),
        _changed(run={"submission_id": [5]}),
        _changed(result=5),
    ],
)
def test_anything_else_is_an_error(payload: dict[str, Any]) -> None:
    """What is no record is a clear error, which says how to start again."""
    with pytest.raises(errors.CdmJournalError) as caught:
        StartRecord.from_payload(payload)
    assert "To start again, check in CDM how the last run of the job ended" in str(caught.value)


def test_unreadable_results_are_errors() -> None:
    """A result that is no run is a clear error as well."""
    assert RECORD.ended_run() is None
    assert RECORD.ended_well(RUN).ended_run() == RUN
    for result in ({}, {"cluster_id": "c", "job_name": "j", "status": 5}):
        with pytest.raises(errors.CdmJournalError, match="cannot be read"):
            replace(RECORD, result=result).ended_run()


def test_states_of_a_record() -> None:
    """A start is open from its intent until its run is known."""
    closed, known = replace(RECORD, sends=0), RECORD.with_run(RUN)
    assert (RECORD.open, closed.open, known.open) == (True, False, False)
    assert (RECORD.may_exist, closed.may_exist, known.may_exist) == (True, False, True)
    assert replace(known, sends=0).may_exist


def test_course_of_a_record() -> None:
    """A record keeps the run that is followed, its result, or the run that the next one follows."""
    known = RECORD.with_run(RUN, foreign=True)
    assert (known.run, known.foreign, known.result) == (KEY, True, None)
    assert not RECORD.with_run(RUN).foreign
    assert RECORD.ended_well(RUN).with_run(RUN).result is None
    well = RECORD.ended_well(RUN)
    assert (well.run, well.result) == (KEY, RUN.to_payload())
    badly = known.ended_badly(RUN)
    assert (badly.baseline, badly.run, badly.sends, badly.foreign) == (KEY, None, 0, False)
    assert (badly.fingerprint, badly.generation) == (RECORD.fingerprint, RECORD.generation)
    assert (badly.cluster_id, badly.job_name, badly.attempt_id) == ("c", "j", "x")
    assert not badly.baseline_known


def test_key() -> None:
    """A run and its reference have the same key."""
    assert key_of(RUN) == key_of(RunRef.of(RUN)) == KEY


def test_defaults() -> None:
    """A new record has no start under way, and a result is that of this attempt."""
    record = StartRecord("f", Generation())
    assert (record.sends, record.intent_at, record.sent_at) == (0, 0.0, 0.0)
    assert (record.baseline_known, record.foreign, record.open) == (False, False, False)
    assert Generation() == Generation(1, 0, None, 0)
    result = StartResult(RUN)
    assert (result.from_earlier_attempt, result.foreign) == (False, False)


def test_durations() -> None:
    """The durations are those that the documentation states."""
    policy = StartPolicy()
    assert (policy.settle, policy.clock_tolerance, policy.history_timeout) == (60, 15, 300)
    assert (policy.max_sends, policy.date_tolerance, policy.max_record_skew) == (3, 2, 86_400)


@pytest.mark.parametrize(
    ("recorded", "chosen"),
    [(None, "c"), ("c", "c"), ("d", "d"), ("another", "c")],
)
def test_a_start_is_settled_in_the_cluster_of_its_record(recorded: str | None, chosen: str) -> None:
    """Of several clusters, that of the record counts; a cluster that is not named does not."""
    request = replace(REQUEST, standby_cluster_ids=("d", "e"))
    record = None if recorded is None else replace(RECORD, cluster_id=recorded)
    here = request.in_cluster_of(record)
    assert (here.cluster_id, here.cluster_ids) == (chosen, (chosen,))
    assert here.fingerprint == replace(REQUEST, cluster_id=chosen).fingerprint
