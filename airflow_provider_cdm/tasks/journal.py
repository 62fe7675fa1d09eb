"""What a task instance remembers between its processes and attempts.

Airflow 3.3 and later keep it in the task state store, and remove it with the DAG run. Below, it is
kept in an Airflow Variable that is named after DAG, task, map index and run. What Airflow may still
do with the attempt, such as running ``post_execute`` or a retry, needs it, so it is not deleted
when the run has ended: a later DAG run of the same task deletes it after :data:`RETENTION_DAYS`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_cdm._compat import (
    ALL_CLEARS_ARE_COUNTED,
    VariableStore,
    loop_iteration,
    task_state_store,
)
from airflow_provider_cdm.client.errors import CdmJournalError
from airflow_provider_cdm.client.jobs.start_record import Generation, StartRecord
from airflow_provider_cdm.client.text import end_sentence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_cdm._compat import Context, Store
    from airflow_provider_cdm.client.jobs.start_record import StartRequest
    from airflow_provider_cdm.client.submission import Submission

log = logging.getLogger(__name__)

#: Longest name of a Variable, in characters.
_NAME_LIMIT = 250
#: Days after which a Variable of a DAG run whose task has ended is deleted, as Airflow's task state
#: store does by default.
RETENTION_DAYS = 30
#: Most Variables that one task deletes at a time.
_DELETED_AT_A_TIME = 10
#: Key in the context under which the attempts of one process are counted.
_COUNTS = "cdm_attempts"


class TaskStore:
    """One small JSON object that belongs to one task instance.

    :param context: context of the running task.
    :param subject: what the object is about; each subject has an object of its own.
    """

    def __init__(self, context: Context, subject: str) -> None:
        store = task_state_store(context)
        self._store: Store = VariableStore() if store is None else store
        #: Whether Airflow removes the object when the DAG run is deleted.
        self.is_managed = store is not None
        self.key = f"cdm_{subject}" if store is not None else _variable_name(context, subject)

    def read(self) -> dict[str, Any] | None:
        """Return the object that was written last, or ``None`` if there is none.

        :raises ValueError: when something else is stored.
        """
        text = self._store.get(self.key)
        if text is None:
            return None
        content = json.loads(text) if isinstance(text, str) else text
        if not isinstance(content, dict):
            raise ValueError(f"{self.key} does not hold a JSON object: {text!r}")
        return content

    def write(self, content: dict[str, Any]) -> None:
        """Replace the object."""
        self._store.set(self.key, json.dumps(content))

    def delete(self) -> None:
        """Delete the object, if there is one."""
        self._store.delete(self.key)


class SensorStore:
    """What a rescheduled sensor has found out so far.

    :param context: context of the running task.
    :param question: what the sensor waits for, and in which attempt; what was stored for another
        question is ignored.
    """

    def __init__(self, context: Context, question: Mapping[str, Any]) -> None:
        self._store = TaskStore(context, "sensor")
        self._trail = None if self._store.is_managed else Trail(context, self._store.key)
        self._question = json.loads(json.dumps(question))
        self._exists = False

    def read(self) -> dict[str, Any] | None:
        """Return the state of an earlier poke; ``None`` for the first one."""
        content = self._store.read()
        self._exists = content is not None
        if content is None or content.get("question") != self._question:
            return None
        state: dict[str, Any] = content["state"]
        return state

    def replace(self, state: Mapping[str, Any] | None) -> None:
        """Store a state; ``None`` deletes what is stored."""
        if state is not None:
            self._store.write({"question": self._question, "state": dict(state)})
            # Airflow ends a sensor at its timeout without calling it again.
            if self._trail is not None and not self._exists:
                self._trail.add()
        elif self._exists:
            self._store.delete()


class Journal:
    """The journal of a task instance: which start it sent, and which run is its own.

    A *generation* is all attempts between two clears.

    The journal can be asked for its record while it cannot be read. ``last`` is the record as plain
    JSON: that which was last read or written. A run counts from the moment it is known, even if
    writing it fails; an intent only once it is written, since a start is not sent before.
    ``stored`` is whether the journal itself holds ``last``.

    :param context: context of the running task.
    :param operator: what starts the job. A ``@task`` function may execute several operators in one
        attempt; each has a journal of its own.
    """

    last: Mapping[str, Any] | None = None
    stored = True

    def __init__(self, context: Context, operator: Any) -> None:
        ti = context["ti"]
        #: What tells this journal from others of the task instance.
        self.subject = _subject(context, operator)
        self._store = TaskStore(context, self.subject)
        self._trail = None if self._store.is_managed else Trail(context, self._store.key)
        self._name = f"task {ti.task_id!r} of DAG run {ti.run_id!r}"
        dag_run = context.get("dag_run")
        began = getattr(dag_run, "start_date", None)
        self.generation = Generation(
            try_number=ti.try_number,
            max_tries=ti.max_tries,
            clear_number=getattr(dag_run, "clear_number", None),
            # Not those of an operator that a @task function executes.
            retries=getattr(context.get("task", operator), "retries", None) or 0,
            began_at=None if began is None else began.timestamp(),
            counts_all_clears=ALL_CLEARS_ARE_COUNTED,
            reschedules=cast("Any", context).get("task_reschedule_count") or 0,
        )
        self.last_attempt = ti.try_number > ti.max_tries

    def read(self) -> dict[str, Any] | None:
        """Return the record of this or an earlier attempt as plain JSON, or ``None``.

        :raises CdmJournalError: when it cannot be read, so that nothing is started blindly.
        """
        try:
            self.last = record = self._store.read()
        except Exception as error:
            raise self._unusable("read", error) from error
        return record

    def record(self) -> StartRecord | None:
        """Return the record of this or an earlier attempt, or ``None``.

        :raises CdmJournalError: when it cannot be read.
        """
        payload = self.read()
        return None if payload is None else StartRecord.from_payload(payload)

    def save(self, record: Mapping[str, Any] | None) -> None:
        """Replace the record.

        :param record: plain JSON; ``None`` deletes it.
        :raises CdmJournalError: when that is not possible.
        """
        if record is not None and record.get("run"):
            self.last, self.stored = record, False
        try:
            if record is None:
                self._store.delete()
            else:
                self._store.write(dict(record))
        except Exception as error:
            raise self._unusable("written", error) from error
        self.last, self.stored = record, True

    def remembered(self, request: StartRequest) -> StartRecord | None:
        """Return the last record, without reading the journal, if it is about this request."""
        record = StartRecord.from_payload(self.last) if self.last else None
        same = record and record.fingerprint == request.in_cluster_of(record).fingerprint
        return record if same else None

    def note(self, run: Submission) -> None:
        """Note that the run of this task has ended: a retry takes a success as its own result, and
        starts the job again after a failure.
        """
        record = self.record()
        if record is not None:
            ended = record.ended_badly(run) if run.failed else record.ended_well(run)
            self.save(ended.to_payload())

    def conclude(self, run: Submission) -> None:
        """Note that the run has ended and that nothing remains to be done about it.

        Never raises: the rows are in the target, or the failure of the run is what counts. Without
        the note, a retry reads the outcome from CDM.
        """
        try:
            self.note(run)
        except CdmJournalError as error:
            log.warning("%s The outcome is not noted; a retry would read it from CDM.", error)
        self.leave()

    def leave(self) -> None:
        """Note that this task needs the journal only for a retry from now on."""
        if self._trail is not None:
            self._trail.add()

    def run(self) -> Mapping[str, Any] | None:
        """Return the key of the run of this task, if it is known and may still be active."""
        record = self.record()
        return record.run if record is not None and record.result is None else None

    def _unusable(self, verb: str, error: Exception) -> CdmJournalError:
        place = "task state store" if self._store.is_managed else "Variables"
        return CdmJournalError(
            f"{end_sentence(f'{type(error).__name__}: {error}')} The journal of {self._name} cannot"
            f" be {verb}, and nothing is started without it. It is kept in Airflow's {place}; check"
            " that the worker can reach that."
        )


class Trail:
    """The Variables that earlier DAG runs of a task have left, so that later ones delete them.

    Best effort, without a lock: when two DAG runs end at once, one of them may stay for good.

    :param context: context of the running task.
    :param key: the Variable of this task instance.
    """

    def __init__(self, context: Context, key: str) -> None:
        ti = context["ti"]
        self._key = key
        self._name = _limited(":".join(("cdm", "trail", ti.dag_id, ti.task_id)))
        self._store = VariableStore()

    def add(self) -> None:
        """Add this task instance's Variable, and delete those that are past their retention."""
        try:
            self._add()
        except Exception as error:
            log.info("Old journals of this task are not deleted this time: %s", error)

    def _add(self) -> None:
        now = int(time.time())
        left: dict[str, int] = json.loads(self._store.get(self._name) or "{}")
        left[self._key] = now
        expired = [key for key, at in left.items() if at < now - RETENTION_DAYS * 86_400]
        for key in expired[:_DELETED_AT_A_TIME]:
            self._store.delete(key)
            del left[key]
        self._store.set(self._name, json.dumps(left))


def _subject(context: Context, operator: Any) -> str:
    """Return what distinguishes the starts of one task instance from each other.

    They are the task itself and the operators that a ``@task`` function executes, by their own task
    id and in their order.
    """
    ti = context["ti"]
    parts = ["start"]
    if operator.task_id != ti.task_id:
        parts.append(operator.task_id)
    counts: dict[str, int] = cast("Any", context).setdefault(_COUNTS, {})
    number = counts[operator.task_id] = counts.get(operator.task_id, 0) + 1
    if number > 1:
        parts.append(str(number))
    return "_".join(map(str, parts))


def _variable_name(context: Context, subject: str) -> str:
    # The ids of DAGs and tasks have no colon; that of a run may have, so it comes last.
    ti, iteration = context["ti"], loop_iteration(context)
    # Not the region of a loop, which a clear replaces.
    index = str(ti.map_index) if iteration is None else f"{ti.map_index}.{iteration}"
    return _limited(":".join(("cdm", subject, ti.dag_id, ti.task_id, index, ti.run_id)))


def _limited(name: str) -> str:
    if len(name) <= _NAME_LIMIT:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f"{name[: _NAME_LIMIT - len(digest) - 1]}:{digest}"
