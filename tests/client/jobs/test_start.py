"""What a start does with each answer: what is sent, what is saved, and what follows."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.runs import History
from airflow_provider_cdm.client.jobs.start import start_once
from airflow_provider_cdm.client.jobs.start_record import (
    Generation,
    StartPolicy,
    StartRecord,
    StartRequest,
    StartResult,
)
from airflow_provider_cdm.client.sansio import Request, Response, Save, Sleep, TransportError
from airflow_provider_cdm.client.submission import Submission

NOW = 1_000_000.0
LOST = errors.CdmUnavailable("lost", effect_unknown=True)
REFUSED = errors.CdmRefused("refused")


def run(number: int | None, seconds: float = 1.0, status: str = "RUNNING") -> Submission:
    return Submission("c", "j", status, number, int((NOW + seconds) * 1000))


def busy() -> errors.CdmAlreadyRunning:
    return errors.CdmAlreadyRunning("busy")


def key(number: int | None, seconds: float = 1.0) -> dict[str, Any]:
    return {"submission_id": number, "creation_date": int((NOW + seconds) * 1000)}


@dataclass
class ScriptedApi:
    """The API with given answers; the last one of a kind is given again and again.

    :param saved: records in the order in which they were saved.
    :param breaks: whether the connection breaks at each start.
    :param waits: whether each read of the history waits for its quota.
    """

    starts: list[Any]
    histories: list[Any]
    active: Submission | None = None
    now: float = NOW
    generation: Generation = field(default_factory=Generation)
    breaks: bool = False
    sends: int = 0
    saved: list[Mapping[str, Any] | None] = field(default_factory=list)
    waits: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        clock = SimpleNamespace(offset=0.0, known=True)
        self.settings = SimpleNamespace(connect_timeout=5.0, read_timeout=20.0)
        self.exchanger = SimpleNamespace(
            clock=lambda: self.now, uptime=lambda: self.now, server_clock=clock
        )

    def call(self, call: Any) -> Generator[Any, Any, Any]:
        answers = self.histories
        if call.operation.startswith("start job"):
            answers = self.starts
            self.sends += 1
            # Any other request, such as one for a token, saves nothing.
            yield Request("GET", "http://token")
            try:
                yield Request(call.method, "http://start")
            except TransportError as failure:
                raise LOST from failure
        else:
            self.waits.append(call.wait_for_quota)
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if answers is self.starts else History(answer, len(answer))

    def active_run(self, cluster_id: str, job_name: str) -> Generator[Any, Any, Any]:
        yield from ()
        return self.active

    def start(self, if_running: str = "fail", payload: Any = None) -> StartResult:
        """Start the job, and perform all steps of that."""
        request = StartRequest("c", "j", {}, self.generation, if_running)
        flow = start_once(cast("CdmApi", self), request, payload, StartPolicy())
        try:
            step: Any = next(flow)
            while True:
                answer, previous = None, step
                if isinstance(step, Sleep):
                    self.now += step.seconds
                elif isinstance(step, Save):
                    self.saved.append(step.record)
                elif isinstance(step, Request):
                    answer = Response(200)
                broken = self.breaks and answer is not None and step.method == "PUT"
                step = flow.throw(TransportError("reset", sent=True)) if broken else None
                step = step or flow.send(answer)
                if isinstance(step, Request):
                    # The intent is saved immediately before the start, and before nothing else.
                    assert isinstance(previous, Save) is (step.method == "PUT")
        except StopIteration as end:
            return cast("StartResult", end.value)

    @property
    def last(self) -> Mapping[str, Any]:
        assert self.saved[-1] is not None
        return self.saved[-1]


def test_answered_start() -> None:
    """The intent is saved before the start, with the newest run as baseline, then the run."""
    api = ScriptedApi([run(6)], [[run(5, -90, "FAILED"), run(4, -99, "FAILED")]])
    assert api.start() == StartResult(run(6))
    intent, noted = api.saved
    assert intent is not None
    assert (intent["baseline"], intent["baseline_known"]) == (key(5, -90), True)
    assert (intent["sends"], intent["run"], intent["sent_at"]) == (1, None, NOW)
    assert noted == {**intent, "run": key(6)}
    # The number is known, so the history is read once, and not waited for.
    assert api.waits == [False]


def test_start_without_a_baseline() -> None:
    """A history whose quota is used up is not waited for, and the record says so."""
    api = ScriptedApi([run(6)], [errors.CdmThrottled("quota")])
    api.start()
    assert (api.last["baseline"], api.last["baseline_known"]) == (None, False)


def test_answer_without_a_number() -> None:
    """The number is read from the history, if that is possible."""
    api = ScriptedApi([run(None)], [[run(5, -90, "FAILED")], [run(6), run(5, -90, "FAILED")]])
    assert api.start().run == run(6)
    api = ScriptedApi([run(None)], [[], errors.CdmThrottled("quota")])
    assert api.start().run == run(None)
    assert api.last["run"] == key(None)
    assert api.waits == [False, False]


def test_answer_without_anything() -> None:
    """A run of which nothing is known is searched for."""
    bare = Submission("c", "j", "BOOTING")
    api = ScriptedApi([bare], [[], [run(6)]])
    assert api.start().run == run(6)
    api = ScriptedApi([bare], [[]])
    with pytest.raises(errors.CdmStartUncertain, match="the history shows no run"):
        api.start()
    assert (api.sends, api.last["sends"]) == (1, 1)
    assert 60 <= api.now - NOW < 70


def test_lost_start_whose_run_shows() -> None:
    """A start without an answer is not sent again once its run shows."""
    api = ScriptedApi([LOST], [[], [run(6)]])
    assert api.start() == StartResult(run(6), found=True)
    assert (api.sends, api.last["run"]) == (1, key(6))


def test_lost_starts() -> None:
    """A start is sent three times at most, a minute apart; the journal stays open."""
    api = ScriptedApi([LOST], [[]])
    with pytest.raises(errors.CdmStartUncertain, match="sent 3 times without an answer"):
        api.start()
    assert api.sends == 3
    assert [record and record["sends"] for record in api.saved] == [1, 2, 3]
    assert [record and record["sent_at"] - NOW for record in api.saved] == [0, 60, 120]


def test_refusal_with_a_status_of_a_failure() -> None:
    """A refusal that may be a failure of CDM after the start is looked for, and not sent again."""
    failed = errors.CdmRefused("no such code", http_status=500, effect_unknown=True)
    api = ScriptedApi([failed], [[], [run(1)]])
    assert api.start().run.submission_id == 1
    api = ScriptedApi([failed], [[run(1, -60, "SUCCEEDED")]])
    with pytest.raises(errors.CdmRefused, match="no such code"):
        api.start()
    assert api.sends == 1
    assert api.now >= NOW + 60
    assert api.last["sends"] == 0


def test_broken_connection() -> None:
    """A connection that breaks is a lost answer."""
    api = ScriptedApi([run(6)], [[], [run(6)]], breaks=True)
    assert api.start() == StartResult(run(6), found=True)
    assert api.sends == 1


@pytest.mark.parametrize("past", [[], [run(5, -90, "FAILED")]])
def test_refusal(past: list[Submission]) -> None:
    """A start that certainly had no effect closes the journal; a baseline is kept."""
    api = ScriptedApi([REFUSED], [past])
    with pytest.raises(errors.CdmRefused):
        api.start()
    if past:
        assert (api.last["sends"], api.last["baseline"]) == (0, key(5, -90))
    else:
        assert api.saved[-1] is None


def test_refusal_after_a_lost_start() -> None:
    """A refusal says nothing about the start before it, so the journal stays open."""
    api = ScriptedApi([LOST, REFUSED], [[]])
    with pytest.raises(errors.CdmRefused):
        api.start()
    assert (api.sends, api.last["sends"], api.last["run"]) == (2, 2, None)


def test_late_effect() -> None:
    """A job that is running after a lost start may be running because of it: the run is ours."""
    # The baseline and eight reads within the first minute show nothing.
    api = ScriptedApi([LOST, busy()], [*[[]] * 9, [run(6, 60)]])
    assert api.start() == StartResult(run(6, 60), found=True)
    assert (api.last["run"], api.last["foreign"]) == (key(6, 60), False)


def test_busy_job() -> None:
    """A job that is running is somebody else's; the journal is closed before that is looked at."""
    api = ScriptedApi([busy()], [[]], active=run(6))
    with pytest.raises(errors.CdmAlreadyRunning) as caught:
        api.start("wait")
    assert caught.value.submission == run(6)
    assert api.saved[-1] is None
    api = ScriptedApi([busy()], [[]])
    with pytest.raises(errors.CdmAlreadyRunning) as caught:
        api.start("attach")
    assert caught.value.submission is None


@pytest.mark.parametrize("shown_at_once", [True, False])
def test_attaching(shown_at_once: bool) -> None:
    """A run of somebody else is followed if that is asked for, and noted as theirs."""
    api = ScriptedApi([busy()], [[run(6)] if shown_at_once else []], active=run(6))
    result = api.start("attach")
    assert result == StartResult(run(6), foreign=True)
    assert (api.last["run"], api.last["foreign"]) == (key(6), True)
    assert api.sends == (0 if shown_at_once else 1)


@pytest.mark.parametrize("if_running", ["fail", "attach"])
def test_run_that_begins_right_before_a_refused_start(if_running: str) -> None:
    """A start that was sent once and refused had no effect, so a new run is somebody else's."""
    api = ScriptedApi([busy()], [[], [run(6)]], active=run(6))
    if if_running == "attach":
        assert api.start(if_running) == StartResult(run(6), foreign=True)
    else:
        with pytest.raises(errors.CdmAlreadyRunning) as caught:
            api.start(if_running)
        assert caught.value.submission == run(6)


@pytest.mark.parametrize("if_running", ["fail", "wait"])
def test_active_run_in_the_history(if_running: str) -> None:
    """An active run is seen before anything is sent or saved."""
    api = ScriptedApi([run(7)], [[run(6)]])
    with pytest.raises(errors.CdmAlreadyRunning) as caught:
        api.start(if_running)
    assert caught.value.submission == run(6)
    assert (api.sends, api.saved) == (0, [])


def record(fingerprint: str | None = None, **changes: Any) -> dict[str, Any]:
    """The record of an earlier attempt whose run has failed, unless something else is said."""
    request = StartRequest("c", "j", {})
    start = StartRecord(
        fingerprint or request.fingerprint, Generation(), "c", "j", baseline=key(5, -90)
    )
    return {**start.to_payload(), **changes}


def test_retry_after_a_success() -> None:
    """The success of an earlier attempt is the result; nothing is asked or sent."""
    ended = run(6, status="SUCCEEDED")
    api = ScriptedApi([run(7)], [[]], generation=Generation(2))
    payload = record(run=key(6), result=ended.to_payload(), foreign=True)
    result = api.start(payload=payload)
    assert result == StartResult(ended, from_earlier_attempt=True, foreign=True)
    assert (api.sends, api.waits, api.saved) == (0, [], [])


@pytest.mark.parametrize("fingerprint", ["0" * 32, "f" * 32])
def test_retry_with_other_arguments(fingerprint: str) -> None:
    """The success of other arguments is not the result of these, and a retry starts nothing."""
    api = ScriptedApi([run(7)], [[]], generation=Generation(2))
    payload = record(fingerprint, run=key(6), result=run(6, status="SUCCEEDED").to_payload())
    with pytest.raises(errors.CdmStartUncertain, match="had other arguments"):
        api.start(payload=payload)
    assert api.sends == 0


@pytest.mark.parametrize(
    ("shown", "baseline"),
    [
        ([], key(5, -90)),
        ([run(4, -99, "FAILED")], key(5, -90)),
        ([run(5, -90, "FAILED"), run(4, -99, "FAILED")], key(5, -90)),
        ([run(6, -80, "FAILED"), run(4, -99, "FAILED")], key(6, -80)),
    ],
)
def test_baseline_never_goes_back(shown: list[Submission], baseline: dict[str, Any]) -> None:
    """The run that an earlier attempt knew is the baseline, unless there is a later one."""
    api = ScriptedApi([run(7)], [shown], generation=Generation(2))
    assert api.start(payload=record()) == StartResult(run(7))
    assert api.last["baseline"] == baseline


def test_cleared_task_follows_its_run() -> None:
    """The run of the last generation is older than the new one, whatever its baseline was."""
    api = ScriptedApi([run(7)], [[]], generation=Generation(2, 1))
    payload = record(run=key(6, -50), result=run(6, -50, "SUCCEEDED").to_payload())
    assert api.start(payload=payload) == StartResult(run(7))
    assert api.last["baseline"] == key(6, -50)


def test_only_the_newest_run_is_in_the_way() -> None:
    """What the history says of an older run does not matter."""
    api = ScriptedApi([run(7)], [[run(6, -50, "FAILED"), run(5, -90)]])
    assert api.start() == StartResult(run(7))
    api = ScriptedApi([run(7)], [[run(6, -50), run(5, -90, "FAILED")]])
    with pytest.raises(errors.CdmAlreadyRunning) as caught:
        api.start()
    assert caught.value.submission == run(6, -50)


def test_warnings(caplog: pytest.LogCaptureFixture) -> None:
    """The log says that a start is sent again, and only then."""
    ScriptedApi([LOST, run(7, 61)], [[]]).start()
    assert "No run has appeared within 60 s, so the start is sent again." in caplog.text
    caplog.clear()
    ScriptedApi([LOST], [[], [run(6)]]).start()
    assert "sent again" not in caplog.text
