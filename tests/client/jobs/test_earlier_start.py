"""What becomes of the start of an earlier attempt, in a retry, after a clear, and in between."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.jobs.earlier_start import EarlierStart
from airflow_provider_cdm.client.jobs.start_record import (
    Generation,
    StartPolicy,
    StartRecord,
    StartRequest,
)
from airflow_provider_cdm.client.sansio import Response, Save, TransportError
from airflow_provider_cdm.client.submission import Submission

Play = Callable[..., Any]
BEGIN = 1_735_787_045.0
CREATED = int(BEGIN * 1000)
DOWN = Response(503)
#: The earlier attempt, and what may follow it.
EARLIER = Generation(1, 1, 0, 1)
RETRY, CLEARED, UNCLEAR = Generation(2, 1, 0, 1), Generation(2, 2, 1, 1), Generation(2, 1, 1, 0)
EVERY = {"retry": RETRY, "cleared": CLEARED, "unclear": UNCLEAR}
each = pytest.mark.parametrize("generation", EVERY.values(), ids=EVERY)


def run(status: str, number: int = 5, seconds: float = 0) -> dict[str, Any]:
    """Return a submission on the wire; ours by default."""
    created = CREATED + int(seconds * 1000)
    keys = {"submission-id": number, "creation-date": created, "job-name": "orders"}
    return {"status": status, **keys}


BUSY, DONE, BAD = [run("RUNNING")], [run("SUCCEEDED")], [run("FAILED")]
REQUEST = StartRequest("c", "orders", {}, attempt_id="b")
SENT = StartRecord(
    REQUEST.fingerprint,
    EARLIER,
    "c",
    "orders",
    baseline_known=True,
    intent_at=BEGIN,
    sent_at=BEGIN,
    sends=1,
    attempt_id="a",
)
KEY = {"submission_id": 5, "creation_date": CREATED}
KNOWN = replace(SENT, run=KEY)


@dataclass
class Settling:
    """Settles an earlier start against a fake CDM.

    :param saved: what was saved, in order.
    """

    cdm: Any
    generation: Generation
    saved: list[Mapping[str, Any] | None] = field(default_factory=list)

    def settle(self, record: StartRecord, *, others: bool = False, **limits: Any) -> Any:
        """Settle what a record says; ``others`` if it is about other arguments."""
        request = replace(REQUEST, generation=self.generation)
        earlier = EarlierStart(self.cdm.api, request, StartPolicy(), **limits)
        settle = earlier.settle_other_arguments if others else earlier.settle
        return self.cdm.play(self._save(settle(record)))

    def _save(self, flow: Any) -> Generator[Any, Any, Any]:
        try:
            step = next(flow)
            while True:
                if isinstance(step, Save):
                    self.saved.append(step.record)
                    step = flow.send(None)
                    continue
                try:
                    answer = yield step
                except TransportError as failure:
                    step = flow.throw(failure)
                else:
                    step = flow.send(answer)
        except StopIteration as end:
            return end.value


@pytest.fixture
def settling(play_cdm: Play) -> Callable[..., Settling]:
    """Return what settles an earlier start against a CDM that shows certain runs."""

    def make(generation: Generation, shown: Any = (), histories: Any = ([],)) -> Settling:
        return Settling(play_cdm(list(shown) or [[]], list(histories)), generation)

    return make


@each
def test_noted_success(generation: Generation, settling: Play) -> None:
    """A retry takes it as its result, a clear starts anew, and doubt ends the attempt; without any
    call.
    """
    ended = Submission("c", "orders", "SUCCEEDED", 5, CREATED)
    record, attempt = KNOWN.ended_well(ended), settling(generation)
    if generation is UNCLEAR:
        with pytest.raises(errors.CdmStartUncertain, match=r"run 5 .* succeeded, .* once more"):
            attempt.settle(record)
    else:
        expected = ended if generation is RETRY else None
        assert attempt.settle(record) == (record, expected)
    assert (attempt.cdm.looks, attempt.saved) == ([], [])


@each
def test_start_that_was_never_sent(generation: Generation, settling: Play) -> None:
    """Nothing is asked, and the job is started."""
    record, attempt = replace(SENT, sends=0), settling(generation)
    assert attempt.settle(record) == (record, None)
    assert (attempt.cdm.looks, attempt.saved, attempt.cdm.now) == ([], [], BEGIN)


@each
def test_lost_start_whose_run_shows(generation: Generation, settling: Play) -> None:
    """Its run is noted before it is polled, and then followed."""
    attempt = settling(generation, [BUSY], [BUSY])
    record, seen = attempt.settle(SENT)
    assert (seen.submission_id, seen.status) == (5, "RUNNING")
    assert record.run == KEY
    assert attempt.saved[0] == SENT.with_run(seen).to_payload()
    assert attempt.cdm.looks == [0]


@each
def test_lost_start_without_a_run(generation: Generation, settling: Play) -> None:
    """Once no run can appear any more, the job is started."""
    attempt = settling(generation)
    assert attempt.settle(SENT) == (SENT, None)
    assert attempt.cdm.now > BEGIN + 60
    assert attempt.saved == []


@each
def test_active_run(generation: Generation, settling: Play) -> None:
    """It is followed; after a clear the record is that of the new attempt from now on."""
    attempt = settling(generation, [BUSY])
    record, seen = attempt.settle(KNOWN)
    assert seen.status == "RUNNING"
    if generation is RETRY:
        assert (record, attempt.saved) == (KNOWN, [])
    else:
        assert record == replace(KNOWN, generation=generation, attempt_id="b")
        assert attempt.saved == [record.to_payload()]


@each
def test_run_that_has_succeeded_since(generation: Generation, settling: Play) -> None:
    """A retry takes it, a clear does not, and doubt notes it before it ends the attempt."""
    attempt = settling(generation, [DONE])
    if generation is UNCLEAR:
        with pytest.raises(errors.CdmStartUncertain, match="clear it once more"):
            attempt.settle(KNOWN)
        assert [record["result"]["status"] for record in attempt.saved] == ["SUCCEEDED"]
    else:
        record, seen = attempt.settle(KNOWN)
        assert (record.run, record.generation) == (KNOWN.run, KNOWN.generation)
        assert (seen and seen.status) == ("SUCCEEDED" if generation is RETRY else None)
        # A retry returns the run, and notes its result then.
        saved = [record["result"]["status"] for record in attempt.saved]
        assert saved == ([] if generation is RETRY else ["SUCCEEDED"])


@each
@pytest.mark.parametrize("status", ["FAILED", "STOPPED", "FAILURE_ON_SUBMIT"])
def test_run_that_has_failed_since(generation: Generation, status: str, settling: Play) -> None:
    """The job is started again, after a run that is known to have ended."""
    attempt = settling(generation, [[run(status)]])
    record, seen = attempt.settle(KNOWN)
    assert (record.run, record.baseline, seen) == (None, KNOWN.run, None)
    assert attempt.saved == [record.to_payload()]


@each
def test_run_whose_outcome_is_unknown(generation: Generation, settling: Play) -> None:
    """Only a clear starts the job again."""
    attempt = settling(generation, [[run("RUNNING", 6, 60)]], [[run("RUNNING", 6, 60)]])
    if generation is CLEARED:
        assert attempt.settle(KNOWN) == (KNOWN, None)
    else:
        with pytest.raises(errors.CdmOutcomeUnknown):
            attempt.settle(KNOWN)


@pytest.mark.parametrize(
    ("deadline", "looks"),
    [(-5, [0]), (0, [0]), (4, [0, 4]), (10, [0, 10]), (10.5, [0, 10, 10.5]), (25, [0, 10, 20, 25])],
)
def test_status_that_cannot_be_read(deadline: float, looks: list[float], settling: Play) -> None:
    """The last look is made at the deadline; the error names the argument that set it."""
    attempt = settling(RETRY, [DOWN])
    with pytest.raises(errors.CdmWaitTimeout, match=r"timed out \(execution_timeout\)"):
        attempt.settle(KNOWN, deadline=BEGIN + deadline, limit="execution_timeout")
    assert attempt.cdm.looks == looks


def test_status_that_cannot_be_read_without_a_deadline(settling: Play) -> None:
    """It is read until it can be, and every ten seconds."""
    attempt = settling(RETRY, [DOWN, DOWN, DOWN, BUSY])
    assert attempt.settle(KNOWN)[1].status == "RUNNING"
    assert attempt.cdm.looks == [0, 10, 20, 30]
    with pytest.raises(errors.CdmWaitTimeout, match=r"\(wait_timeout\)"):
        settling(RETRY, [DOWN]).settle(KNOWN, deadline=BEGIN)


# Other arguments

OTHER = replace(KNOWN, fingerprint="0" * 32)


def test_other_arguments_after_a_clear(settling: Play, caplog: pytest.LogCaptureFixture) -> None:
    """After a clear the earlier start does not matter, and the log says that its run goes on."""
    attempt = settling(CLEARED, [BUSY])
    assert attempt.settle(OTHER, others=True) is None
    assert attempt.cdm.looks == []
    assert "if it is active, it goes on" in caplog.text


@pytest.mark.parametrize(
    ("shown", "status"), [(BUSY, "RUNNING"), (DONE, "SUCCEEDED")], ids=["active", "succeeded"]
)
def test_run_of_other_arguments(shown: Any, status: str, settling: Play) -> None:
    """A retry starts nothing beside it; a success is noted, so that it is known when CDM forgets
    it.
    """
    attempt = settling(RETRY, [shown])
    with pytest.raises(errors.CdmStartUncertain, match=f"other arguments .* run 5 .* is {status}"):
        attempt.settle(OTHER, others=True)
    results = [record["result"]["status"] for record in attempt.saved]
    assert results == ([status] if status == "SUCCEEDED" else [])


def test_noted_success_of_other_arguments(settling: Play) -> None:
    """It is not noted again."""
    record = OTHER.ended_well(Submission("c", "orders", "SUCCEEDED", 5, CREATED))
    attempt = settling(RETRY)
    with pytest.raises(errors.CdmStartUncertain, match="other arguments"):
        attempt.settle(record, others=True)
    assert attempt.saved == []


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({}, True),
        ({"job_name": "a job"}, False),
        ({"job_name": "the job"}, False),
        ({"cluster_id": "b"}, False),
        ({"cluster_id": "d"}, False),
    ],
)
def test_failed_run_of_other_arguments(change: Any, kept: bool, settling: Play) -> None:
    """The job is started with the new arguments, after the run that failed if it is its own."""
    attempt = settling(RETRY, [[{**run("FAILED"), "job-name": change.get("job_name", "orders")}]])
    earlier = replace(OTHER, **change)
    record = attempt.settle(earlier, others=True)
    ended = replace(earlier, fingerprint=REQUEST.fingerprint, run=None, baseline=earlier.run)
    assert (record and (record.fingerprint, record.run, record.baseline)) == (
        (ended.fingerprint, ended.run, ended.baseline) if kept else None
    )


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED"])
def test_run_that_was_left_running_at_a_clear(status: str, settling: Play) -> None:
    """Its success is taken over, and is the result of a retry from now on; after its failure the
    job is started again.
    """
    attempt = settling(CLEARED, [[run(status)]])
    record, seen = attempt.settle(KNOWN, left_running=True)
    assert (seen and seen.status) == (status if status == "SUCCEEDED" else None)
    assert (record.generation == CLEARED) == (status == "SUCCEEDED")
    assert attempt.saved == [record.to_payload()]
