"""What a task instance remembers, in both places where Airflow keeps it, and for how long."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from airflow_provider_cdm import _compat
from airflow_provider_cdm._compat import VariableStore
from airflow_provider_cdm.client.errors import CdmJournalError
from airflow_provider_cdm.client.jobs.start_record import Generation, StartRecord, StartRequest
from airflow_provider_cdm.client.submission import Submission
from airflow_provider_cdm.simulator import ManualClock
from airflow_provider_cdm.tasks import journal
from airflow_provider_cdm.tasks.journal import Journal, SensorStore, TaskStore
from tests.support.task_harness import FakeSupervisor, FakeTaskInstance, FakeTaskStateStore

DAY = 86_400
BEGAN = datetime(2025, 1, 2, tzinfo=UTC)
REQUEST = StartRequest("c", "j", {})
RECORD = StartRecord(REQUEST.fingerprint, Generation(), "c", "j", sends=1)
RUN = Submission("c", "j", "RUNNING", 5, 1000)
WELL, BADLY = Submission("c", "j", "SUCCEEDED", 5, 1000), Submission("c", "j", "FAILED", 5, 1000)


class BrokenStore(FakeTaskStateStore):
    """A store that can be read, but neither written nor emptied while it is broken."""

    broken = True

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        if self.broken:
            raise OSError("500")
        super().set(key, value)

    def delete(self, key: str) -> None:
        if self.broken:
            raise OSError("500")
        super().delete(key)


def make_context(store: Any = None, **changes: Any) -> Any:
    """Return the context of a task instance; without a store it has Variables only."""
    ti = FakeTaskInstance(**{"task_id": "t", "run_id": "r", **changes})
    dag_run = SimpleNamespace(clear_number=3, start_date=BEGAN)
    context = {"ti": ti, "task": SimpleNamespace(task_id="t", retries=2), "dag_run": dag_run}
    return context if store is None else {**context, "task_state_store": store}


def make_journal(store: Any = None, **changes: Any) -> Journal:
    """Return the journal of the task in a context of its own, as each process has one."""
    context = make_context(store, **changes)
    return Journal(context, context["task"])


@pytest.fixture(autouse=True)
def clears_keep_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a store that a task has be one of Airflow 3.3, also on later versions."""
    monkeypatch.setattr(_compat, "_CLEARS_DISCARD_STATE", False)


@pytest.fixture
def variables(airflow_database: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let Variables be real below Airflow 3, and those of a supervisor in it."""
    try:
        module = importlib.import_module("airflow.sdk.execution_time.task_runner")
    except ImportError:
        module = None
    if module is not None:
        monkeypatch.setattr(module, "SUPERVISOR_COMMS", FakeSupervisor(), raising=False)
    yield
    if module is None:
        database = importlib.import_module("airflow.utils.session")
        row = importlib.import_module("airflow.models.variable").Variable
        with database.create_session() as session:
            session.query(row).delete()


@pytest.fixture
def days(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """Return the clock by which Variables grow old."""
    clock = ManualClock()
    monkeypatch.setattr(journal, "time", SimpleNamespace(time=clock.now))
    return clock


# The journal


@pytest.mark.parametrize("managed", [True, False], ids=["task state store", "Variables"])
def test_journal_outlives_its_process(managed: bool, variables: None) -> None:
    """What one process saved is what the next one reads, until it is deleted."""
    store = FakeTaskStateStore() if managed else None
    first, second = make_journal(store), make_journal(store)
    assert (first.record(), first.stored) == (None, True)
    first.save(RECORD.to_payload())
    assert first.last == RECORD.to_payload()
    assert second.record() == RECORD
    assert (second.last, second.stored) == (RECORD.to_payload(), True)
    second.save(None)
    assert (second.last, second.stored, first.read()) == (None, True, None)


def test_run_counts_although_it_cannot_be_noted() -> None:
    """A run is remembered when writing it fails; an intent is not, since nothing was sent."""
    store = BrokenStore()
    broken = make_journal(store)
    with pytest.raises(CdmJournalError, match="cannot be written, and nothing is started"):
        broken.save(RECORD.to_payload())
    assert (broken.last, broken.stored) == (None, True)
    noted = RECORD.with_run(RUN).to_payload()
    with pytest.raises(CdmJournalError, match=r"task 't' of DAG run 'r' .* task state store"):
        broken.save(noted)
    assert (broken.last, broken.stored) == (noted, False)
    assert broken.remembered(REQUEST) == RECORD.with_run(RUN)
    with pytest.raises(CdmJournalError):
        broken.save(None)
    assert broken.last == noted
    store.broken = False
    broken.save(noted)
    assert broken.stored


def test_only_a_record_of_the_request_is_remembered() -> None:
    """Without a record, or with one of other arguments, nothing is remembered."""
    store = FakeTaskStateStore()
    kept = make_journal(store)
    assert kept.remembered(REQUEST) is None
    kept.save(RECORD.to_payload())
    assert kept.remembered(REQUEST) == RECORD
    for name in ("a", "b", "d", "e"):
        assert kept.remembered(StartRequest("c", name, {})) is None


@pytest.mark.parametrize("stored", ["[]", '"text"', "5", "not JSON"])
def test_anything_but_an_object_cannot_be_read(stored: str) -> None:
    """What nobody can have written is an error, and no empty journal."""
    store = FakeTaskStateStore()
    store.set("cdm_start", stored)
    with pytest.raises(CdmJournalError, match="cannot be read, and nothing is started"):
        make_journal(store).read()


def test_object_may_be_stored_as_one() -> None:
    """A store that returns objects instead of text is understood."""
    store = FakeTaskStateStore()
    store.set("cdm_start", RECORD.to_payload())
    assert make_journal(store).record() == RECORD


def test_outcome_is_noted() -> None:
    """A success is kept as a result; after a failure, the next run must be newer."""
    store = FakeTaskStateStore()
    kept = make_journal(store)
    kept.note(WELL)
    assert kept.read() is None
    assert kept.run() is None
    kept.save(RECORD.with_run(RUN).to_payload())
    assert kept.run() == {"submission_id": 5, "creation_date": 1000}
    kept.note(WELL)
    assert kept.record() == RECORD.ended_well(WELL)
    assert kept.run() is None
    kept.note(BADLY)
    assert kept.record() == RECORD.ended_badly(BADLY)


def test_outcome_that_cannot_be_noted_fails_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The rows are in the target, whatever the journal says, and the log tells of it."""
    store = BrokenStore()
    store.content["cdm_start"] = json.dumps(json.dumps(RECORD.with_run(RUN).to_payload()))
    make_journal(store).conclude(WELL)
    assert "The outcome is not noted" in caplog.text


def test_what_airflow_says_of_the_attempt() -> None:
    """The generation has the retries of the task, also for an operator that the task executes."""
    context = make_context(FakeTaskStateStore(), try_number=2, max_tries=2)
    kept = Journal(context, SimpleNamespace(task_id="inner", retries=9))
    generation = kept.generation
    numbers = (generation.try_number, generation.max_tries, generation.retries)
    assert (numbers, generation.clear_number) == ((2, 2, 2), 3)
    assert generation.began_at == BEGAN.timestamp()
    assert not kept.last_attempt
    assert not make_journal(FakeTaskStateStore(), try_number=1, max_tries=2).last_attempt
    assert make_journal(FakeTaskStateStore(), try_number=3, max_tries=2).last_attempt
    bare_context: Any = {**context, "dag_run": None, "task": SimpleNamespace()}
    bare = Journal(bare_context, context["task"])
    assert (bare.generation.began_at, bare.generation.clear_number) == (None, None)
    assert (bare.generation.retries, bare.generation.reschedules) == (0, 0)
    again_context: Any = {**bare_context, "task_reschedule_count": 2}
    again = Journal(again_context, context["task"])
    assert again.generation.reschedules == 2


def test_each_start_of_a_task_has_a_subject() -> None:
    """Operators that one task executes are distinguished by id and number; regions, which every
    task of Airflow 3.4 has, are not.
    """
    context = make_context(FakeTaskStateStore())
    first, same, other = (SimpleNamespace(task_id=name) for name in "atu")
    operators = (same, same, other, other, same, first)
    subjects = [Journal(context, operator).subject for operator in operators]
    assert subjects == ["start", "start_2", "start_u", "start_u_2", "start_3", "start_a"]
    context = make_context(FakeTaskStateStore())
    for region in (0, 4):
        context["ti"].region_id = UUID(int=region)
        assert Journal(context, SimpleNamespace(task_id="t")).subject == "start"
        context.pop("cdm_attempts")


# Variables


def test_names_of_variables_differ_and_fit() -> None:
    """Each task instance has a Variable of its own, whose name Airflow's column can hold."""
    changes: list[dict[str, Any]] = [
        {},
        {"map_index": 0},
        {"run_id": "s"},
        {"task_id": "u"},
        {"dag_id": "d"},
        {"run_id": "s" * 300},
        {"run_id": "s" * 301},
    ]
    names = [TaskStore(make_context(**change), "start").key for change in changes]
    assert names[0] == "cdm:start:a_dag:t:-1:r"
    assert len({*names, TaskStore(make_context(), "sensor").key}) == len(names) + 1
    assert [len(name) for name in names[-2:]] == [250, 250]
    prefix = len("cdm:start:a_dag:t:-1:")
    longest = [TaskStore(make_context(run_id="s" * (n - prefix)), "start").key for n in (250, 251)]
    assert longest[0].endswith("s" * 100)
    assert longest[1][:185] == longest[0][:185]
    assert longest[1][185] == ":"


def test_a_store_that_a_clear_empties_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """From Airflow 3.4 on the journal is a Variable, one for each iteration of a loop."""
    monkeypatch.setattr(_compat, "_CLEARS_DISCARD_STATE", True)
    context = make_context(FakeTaskStateStore())
    assert TaskStore(context, "start").key == "cdm:start:a_dag:t:-1:r"
    assert not TaskStore(context, "start").is_managed
    context["loop"] = SimpleNamespace(index=2)
    assert TaskStore(context, "start").key == "cdm:start:a_dag:t:-1.2:r"


def test_old_variables_are_deleted_by_later_dag_runs(variables: None, days: ManualClock) -> None:
    """A later DAG run deletes a Variable thirty days after its task ended, and no other one."""
    runs = {name: make_journal(run_id=name) for name in ("old", "newer", "own")}
    for kept in runs.values():
        kept.save(RECORD.to_payload())
    runs["old"].conclude(WELL)
    days.advance(1)
    runs["newer"].leave()
    days.advance(30 * DAY - 1)
    runs["own"].leave()
    assert [kept.read() is None for kept in runs.values()] == [False, False, False]
    days.advance(1)
    runs["own"].leave()
    assert [kept.read() is None for kept in runs.values()] == [True, False, False]
    days.advance(1)
    runs["own"].leave()
    assert [kept.read() is None for kept in runs.values()] == [True, True, False]


def test_few_variables_are_deleted_at_a_time(variables: None, days: ManualClock) -> None:
    """A task that comes after a long time deletes ten Variables, and the others next time."""
    many = [make_journal(run_id=f"run {number}") for number in range(12)]
    for kept in many:
        kept.save(RECORD.to_payload())
        kept.leave()
    days.advance(31 * DAY)
    for expected in (2, 0):
        make_journal(run_id="later").leave()
        assert sum(kept.read() is not None for kept in many) == expected


def test_tasks_do_not_delete_each_others_variables(variables: None, days: ManualClock) -> None:
    """Each task cleans up after itself."""
    old = make_journal(run_id="old", task_id="u")
    old.save(RECORD.to_payload())
    old.leave()
    days.advance(31 * DAY)
    make_journal(run_id="later").leave()
    assert old.read() is not None


def test_clean_up_never_fails_a_task(
    variables: None, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong with Airflow's Variables at the end of a task is in the log only."""
    kept = make_journal()
    kept.save(RECORD.to_payload())

    def fail(*_: Any) -> None:
        raise OSError("500")

    monkeypatch.setattr(VariableStore, "set", fail)
    kept.leave()
    assert "not deleted this time: 500" in log.text


def test_journal_in_variables_says_so(variables: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the place that could not be reached."""

    def fail(*_: Any) -> None:
        raise OSError("500")

    kept = make_journal()
    monkeypatch.setattr(VariableStore, "set", fail)
    with pytest.raises(CdmJournalError, match="It is kept in Airflow's Variables"):
        kept.save(RECORD.to_payload())


def test_task_state_store_needs_no_clean_up(days: ManualClock) -> None:
    """Where Airflow removes the journal itself, nothing else is written."""
    store = FakeTaskStateStore()
    kept = make_journal(store)
    kept.save(RECORD.with_run(RUN).to_payload())
    kept.conclude(WELL)
    assert list(store.content) == ["cdm_start"]


# Sensors


@pytest.mark.parametrize("managed", [True, False], ids=["task state store", "Variables"])
def test_sensor_reads_what_it_stored_for_its_question(
    managed: bool, variables: None, days: ManualClock
) -> None:
    """A poke continues from the last one of the same question, until nothing is left to keep."""
    context = make_context(FakeTaskStateStore() if managed else None)

    def store(number: int) -> SensorStore:
        return SensorStore(context, {"number": number, "dates": (1, 2)})

    first = store(1)
    assert first.read() is None
    first.replace({"a": 1})
    assert store(1).read() == {"a": 1}
    assert store(2).read() is None
    second = store(2)
    second.read()
    second.replace({"b": 2})
    assert (store(1).read(), store(2).read()) == (None, {"b": 2})
    last = store(2)
    last.read()
    last.replace(None)
    assert TaskStore(cast("Any", context), "sensor").read() is None


def test_sensor_that_stored_nothing_deletes_nothing() -> None:
    """A poke that ends the sensor at once makes no call to Airflow."""
    for read in (True, False):
        store = SensorStore(make_context(BrokenStore()), {})
        assert not read or store.read() is None
        store.replace(None)


def test_variable_of_a_sensor_that_timed_out_is_deleted_later(
    variables: None, days: ManualClock
) -> None:
    """Airflow ends a sensor at its timeout without calling it, so its Variable is listed before."""
    context = make_context(run_id="old")
    first = SensorStore(context, {})
    first.read()
    first.replace({"a": 1})
    days.advance(20 * DAY)
    again = SensorStore(context, {})
    again.read()
    again.replace({"a": 2})
    days.advance(11 * DAY)
    make_journal(run_id="later").leave()
    assert SensorStore(context, {}).read() is None
