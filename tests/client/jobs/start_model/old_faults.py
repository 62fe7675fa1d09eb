"""Faults that the start protocol once had, each as a change that brings it back.

The numbers are those of the list in which they were reported. The model must find each of them. One
more, a baseline that goes back when the history is out of date (10), does harm in one of 3,000
schedules only, so ``test_baseline_never_goes_back`` in ``test_start.py`` looks for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from airflow_provider_cdm.client import submission
from airflow_provider_cdm.client.jobs import own_run, run_search
from airflow_provider_cdm.client.jobs.earlier_start import EarlierStart
from airflow_provider_cdm.client.jobs.start_record import Generation, Relation, StartRecord
from airflow_provider_cdm.client.submission import RunRef
from airflow_provider_cdm.tasks import journal, kills, owned_job


@dataclass(frozen=True)
class OldFault:
    """A fault: what it was, and what in the product is replaced to bring it back.

    :param holder: class or module whose attribute is replaced.
    :param shows: part of the violation that the model must report.
    :param replacement: returns the new value, given the present one.
    :param first_seed: where to begin to look for the violation, if it is rare.
    """

    row: int
    title: str
    holder: Any
    name: str
    shows: str
    replacement: Callable[[Any], Any]
    first_seed: int = 0

    def __str__(self) -> str:
        return f"{self.row}: {self.title}"

    @contextmanager
    def brought_back(self) -> Iterator[None]:
        present = vars(self.holder)[self.name]
        with mock.patch.object(self.holder, self.name, self.replacement(present)):
            yield


def _only_more_tries_are_a_clear(_: Any) -> Any:
    def relation_to(self: Generation, earlier: Generation) -> Relation:
        return Relation.NEW if self.max_tries > earlier.max_tries else Relation.SAME

    return relation_to


def _lower_numbers_are_retries(present: Any) -> Any:
    def relation_to(self: Generation, earlier: Generation) -> Relation:
        if self.max_tries == earlier.max_tries and self.try_number <= earlier.try_number:
            return Relation.SAME
        relation: Relation = present(self, earlier)
        return relation

    return relation_to


def _journal_ends_with_the_run(present: Any) -> Any:
    def conclude(self: journal.Journal, run: Any) -> None:
        present(self, run)
        self.save(None)

    return conclude


def _names_joined_by_underscores(_: Any) -> Any:
    def name(context: Any, subject: str) -> str:
        ti = context["ti"]
        return "__".join(("cdm", subject, ti.dag_id, ti.task_id, str(ti.map_index), ti.run_id))

    return name


def _killed_attempts_go_on(_: Any) -> Any:
    return kills._stop_or_leave_run


def _other_arguments_start_anew(_: Any) -> Any:
    def settle(*_: Any, **__: Any) -> Any:
        yield from ()

    return settle


def _one_journal_for_all_operators(_: Any) -> Any:
    return lambda context, operator: "start"


def _anything_else_is_no_journal(present: Any) -> Any:
    def read(self: journal.TaskStore) -> Any:
        try:
            return present(self)
        except ValueError:
            return None

    return read


def _types_are_not_checked(_: Any) -> Any:
    return lambda self: None


def _future_starts_are_waited_for(_: Any) -> Any:
    def find_earlier(self: run_search.RunSearch, record: StartRecord, relation: Relation) -> Any:
        settled_at = record.sent_at + 75
        return (
            yield from self.find(
                record,
                lambda began_at: max(began_at, settled_at),
                settled_at,
                strict=relation is not Relation.NEW,
            )
        )

    return find_earlier


def _outcomes_must_be_noted(_: Any) -> Any:
    def conclude(self: journal.Journal, run: Any) -> None:
        self.note(run)
        self.leave()

    return conclude


def _nothing_is_too_old(_: Any) -> Any:
    return property(lambda self: -math.inf)


def _numbers_alone_order_runs(present: Any) -> Any:
    def compare(self: RunRef, seen: Any) -> int | None:
        if self.submission_id is not None and seen.submission_id is not None:
            return submission._sign(self.submission_id - seen.submission_id)
        order: int | None = present(self, seen)
        return order

    return compare


def _times_by_the_clock_of_the_worker(_: Any) -> Any:
    return lambda self: self.api.exchanger.clock()


def _searches_by_the_clock_of_the_worker(_: Any) -> Any:
    return lambda self, uptime: self.api.exchanger.clock() + uptime - self._now()


def _wrong_dates_are_other_runs(_: Any) -> Any:
    return lambda self, created: False


def _left_over_jobs_run_as_they_are(_: Any) -> Any:
    return lambda self, attempt: True


def _kills_stop_the_active_run(_: Any) -> Any:
    return lambda request, record: request.run(record.run) if record.run else None


OLD_FAULTS = [
    OldFault(
        1,
        "a clear with fewer retries is a retry",
        Generation,
        "relation_to",
        "started nothing after a clear",
        _only_more_tries_are_a_clear,
    ),
    OldFault(
        3,
        "the journal is deleted when the run has ended",
        journal.Journal,
        "conclude",
        "doubled",
        _journal_ends_with_the_run,
    ),
    OldFault(
        4,
        "a DAG run that was created again is a retry",
        Generation,
        "relation_to",
        "started nothing after a clear",
        _lower_numbers_are_retries,
    ),
    OldFault(
        4,
        "names of Variables collide",
        journal,
        "_variable_name",
        "doubled",
        _names_joined_by_underscores,
    ),
    OldFault(
        5,
        "other variables start a second run",
        EarlierStart,
        "settle_other_arguments",
        "doubled",
        _other_arguments_start_anew,
    ),
    OldFault(
        6,
        "two operators in one task share a run",
        journal,
        "_subject",
        "doubled",
        _one_journal_for_all_operators,
    ),
    OldFault(
        7,
        "a kill stops a run that the task attached to",
        kills,
        "started_run",
        "stopped",
        _kills_stop_the_active_run,
    ),
    OldFault(
        8,
        "a journal that is no object counts as none",
        journal.TaskStore,
        "read",
        "although the journal was none",
        _anything_else_is_no_journal,
    ),
    OldFault(
        8,
        "wrong types raise bare errors",
        StartRecord,
        "_check_types",
        "although the journal was none",
        _types_are_not_checked,
    ),
    OldFault(
        8,
        "a start in the future is waited for",
        run_search.RunSearch,
        "find_earlier",
        ": took",
        _future_starts_are_waited_for,
    ),
    OldFault(
        8,
        "a run whose end cannot be noted is lost",
        journal.Journal,
        "conclude",
        "because of the journal",
        _outcomes_must_be_noted,
    ),
    OldFault(
        9,
        "a left-over job runs as it is",
        owned_job.OwnedJob,
        "_replace",
        "other arguments",
        _left_over_jobs_run_as_they_are,
    ),
    OldFault(
        10,
        "a run from before the intent may be ours",
        own_run._Window,
        "earliest",
        "took",
        _nothing_is_too_old,
    ),
    OldFault(
        11,
        "numbers alone say which run is which",
        RunRef,
        "_compare",
        "took",
        _numbers_alone_order_runs,
        2000,
    ),
    OldFault(
        15,
        "times are by the clock of the worker",
        run_search.RunSearch,
        "server_now",
        "disowned",
        _times_by_the_clock_of_the_worker,
    ),
    OldFault(
        15,
        "searches are by that clock",
        run_search.RunSearch,
        "_server_time_at",
        "disowned",
        _searches_by_the_clock_of_the_worker,
    ),
    OldFault(
        16,
        "a run with a wrong date is never ours",
        own_run._Window,
        "_may_be_misdated",
        "doubled",
        _wrong_dates_are_other_runs,
    ),
    OldFault(
        17,
        "a killed attempt goes on",
        kills,
        "kill",
        "sent a start after the kill",
        _killed_attempts_go_on,
    ),
]
