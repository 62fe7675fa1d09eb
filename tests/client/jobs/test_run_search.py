"""How long the history is searched for the run of a start, and by whose clock."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.runs import History
from airflow_provider_cdm.client.jobs.run_search import RunSearch, note_run
from airflow_provider_cdm.client.jobs.start_record import (
    Generation,
    Relation,
    StartPolicy,
    StartRecord,
    StartRequest,
)
from airflow_provider_cdm.client.sansio import Save, Sleep
from airflow_provider_cdm.client.submission import Submission

NOW = 1_000_000.0
REQUEST = StartRequest("c", "j", {})


@dataclass
class FakeApi:
    """The API, whose history is what a function of the seconds since the beginning returns.

    :param latency: seconds that an answer takes.
    """

    shows: Callable[[float], History | errors.CdmError] = lambda _: History([], 0)
    latency: float = 0.0
    now: float = NOW
    offset: float = 0.0
    known: bool = True
    reads: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.settings = SimpleNamespace(connect_timeout=5.0, read_timeout=20.0)
        self.server_clock = SimpleNamespace(offset=self.offset, known=self.known)
        self.exchanger = SimpleNamespace(
            clock=lambda: self.now,
            # A clock that begins anywhere.
            uptime=lambda: self.now - 123.0,
            server_clock=self.server_clock,
        )

    def call(self, call: Any) -> Generator[Any, Any, Any]:
        yield from ()
        self.reads.append(self.now - NOW)
        answer = self.shows(self.now - NOW)
        self.now += self.latency
        if isinstance(answer, Exception):
            raise answer
        return answer

    def perform(self, flow: Generator[Any, Any, Any]) -> Any:
        """Perform a flow; time passes only while it sleeps or an answer is on its way."""
        try:
            while True:
                step = next(flow)
                assert isinstance(step, Sleep)
                self.now += step.seconds
        except StopIteration as end:
            return end.value

    def search(self, policy: StartPolicy | None = None) -> RunSearch:
        return RunSearch(cast("CdmApi", self), REQUEST, policy or StartPolicy())


def record(sent_at: float = NOW, *, known: bool = True) -> StartRecord:
    return StartRecord(
        "f",
        Generation(),
        *("c", "j"),
        baseline_known=known,
        intent_at=sent_at,
        sent_at=sent_at,
        sends=1,
    )


def run(created: float, number: int = 1) -> Submission:
    return Submission("c", "j", "RUNNING", number, int(created * 1000))


def find(api: FakeApi, duration: float = 60.0, **options: Any) -> Submission | None:
    found: Submission | None = api.perform(
        api.search().find(record(), lambda began_at: began_at + duration, **options)
    )
    return found


def test_history_is_read_ever_less_often_and_once_at_the_end() -> None:
    """The pauses double up to 15 seconds; the last read is when the run must have appeared."""
    api = FakeApi()
    assert find(api) is None
    assert api.reads == [0, 1, 3, 7, 15, 30, 45, 60]


def test_last_pause_is_as_long_as_what_is_left() -> None:
    """The last read is not later than necessary, however little is left."""
    api = FakeApi()
    assert find(api, 15.5) is None
    assert api.reads == [0, 1, 3, 7, 15, 15.5]


def test_run_is_found_as_soon_as_it_shows() -> None:
    """A run that appears late is found by the next read."""
    api = FakeApi(lambda at: History([run(NOW + 10)] if at > 10 else [], None))
    assert find(api) == run(NOW + 10)
    assert api.reads[-1] == 15


def test_a_slow_answer_counts_from_its_request() -> None:
    """What a request that was sent too early shows is no proof."""
    api = FakeApi(latency=100.0)
    assert find(api) is None
    assert api.reads == [0, 101]
    api = FakeApi(latency=60.0)
    assert find(api) is None
    assert api.reads == [0, 61]


@pytest.mark.parametrize(
    "error",
    [errors.CdmUnavailable("down"), errors.CdmThrottled("busy"), errors.CdmBadResponse("odd")],
)
def test_outage_is_waited_out(error: errors.CdmError) -> None:
    """While the history cannot be read, the search goes on for five minutes more."""
    api = FakeApi(lambda at: error if at < 300 else History([], 0))
    assert find(api) is None
    assert api.reads[-1] == 300 + (15 - (300 - 60) % 15) % 15

    api = FakeApi(lambda _: error)
    with pytest.raises(errors.CdmStartUncertain, match="history of the job cannot be read") as c:
        find(api)
    assert c.value.__cause__ is error
    assert api.reads[-1] == 360
    assert api.now == NOW + 360


def test_outage_ends_with_the_first_answer_after_its_time() -> None:
    """Slow answers do not make an outage endless."""
    error = errors.CdmUnavailable("down")
    api = FakeApi(lambda _: error, latency=7.0)
    with pytest.raises(errors.CdmStartUncertain):
        find(api)
    assert 360 <= api.now - NOW < 360 + 7 + 15


def test_refusals_of_the_history_are_errors() -> None:
    """An error that is no outage ends the search."""
    api = FakeApi(lambda _: errors.CdmNotFound("gone"))
    with pytest.raises(errors.CdmNotFound):
        find(api)


def test_doubt() -> None:
    """Doubt is an error at the end of the search, unless the task was cleared."""
    early = History([run(NOW - 100)], 1)
    with pytest.raises(errors.CdmStartUncertain, match="may be its run"):
        find(FakeApi(lambda _: early))
    api = FakeApi(lambda _: early)
    assert find(api, strict=False) is None
    assert api.reads[-1] == 60


def test_latest_creation() -> None:
    """A run that was created after the end of the search is not ours for certain."""
    shown = History([run(NOW + 70)], 1)
    assert find(FakeApi(lambda _: shown), latest=NOW + 70) == run(NOW + 70)
    assert find(FakeApi(lambda _: shown), latest=NOW + 60, strict=False) is None
    assert find(FakeApi(lambda _: shown), strict=False) is None
    # By the server's clock, which is ahead.
    assert find(FakeApi(lambda _: shown, offset=10)) == run(NOW + 70)


@pytest.mark.parametrize(
    ("age", "offset", "known", "seconds"),
    [
        (0, 0, True, 100),
        (40, 0, True, 60),
        (100, 0, True, 0),
        (500, 0, True, 0),
        (-500, 0, True, 100),
        # The clock of this worker is ahead of or behind the server's.
        (40, 170, True, 60),
        (40, -170, True, 60),
        (500, 0, False, 100),
        (40, 0, False, 100),
    ],
)
def test_time_for_an_earlier_start(age: float, offset: float, known: bool, seconds: float) -> None:
    """The start of another worker gets 75 seconds and the time limits of its call, by the server's
    clock; where the server tells no time, from now on.
    """
    api = FakeApi(offset=offset, known=known)
    flow = api.search().find_earlier(record(NOW + offset - age), Relation.SAME)
    assert api.perform(flow) is None
    assert api.reads[-1] == seconds


def test_earlier_start_and_doubt() -> None:
    """A retry does not start in doubt; a cleared task does."""
    shown = History([run(NOW - 2_000)], 1)
    for relation in (Relation.SAME, Relation.UNCLEAR):
        api = FakeApi(lambda _: shown)
        flow = api.search().find_earlier(record(NOW - 500), relation)
        with pytest.raises(errors.CdmStartUncertain):
            api.perform(flow)
    api = FakeApi(lambda _: shown)
    assert api.perform(api.search().find_earlier(record(NOW - 500), Relation.NEW)) is None


def test_latest_creation_of_an_earlier_start() -> None:
    """A run that began 100 seconds after a start at most may be its run."""
    for seconds, ours in ((100, True), (103, False)):
        shown = History([run(NOW - 500 + seconds)], 1)
        api = FakeApi(lambda _, shown=shown: shown)  # type: ignore[misc]
        found = api.perform(api.search().find_earlier(record(NOW - 500), Relation.NEW))
        assert (found is not None) is ours


def test_clock_of_the_server() -> None:
    """The server's clock never goes back: a slow answer only makes it seem slow."""
    api = FakeApi(offset=5.0)
    search = api.search()
    assert search.server_now() == NOW + 5
    api.server_clock.offset = -3.0
    assert search.server_now() == NOW + 5
    api.server_clock.offset = 7.0
    assert search.server_now() == NOW + 7


def test_note(caplog: pytest.LogCaptureFixture) -> None:
    """A run that cannot be noted is followed all the same, with a warning."""
    flow = note_run(record())
    assert next(flow) == Save(record().to_payload())
    with pytest.raises(StopIteration):
        flow.throw(errors.CdmJournalError("down"))
    assert "down The run goes on; a retry would find it" in caplog.text
