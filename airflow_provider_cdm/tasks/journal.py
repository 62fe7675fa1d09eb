"""What a task instance remembers between its processes and attempts.

Airflow 3.3 and later keep it in the task state store. Below, it is kept in an Airflow Variable that
is named after DAG, task, run and map index, and deleted as soon as it is no longer needed.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm._compat import VariableStore, task_state_store
from airflow_provider_cdm.client.errors import CdmJournalError
from airflow_provider_cdm.client.jobs.start_record import StartRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_cdm._compat import Context, Store
    from airflow_provider_cdm.client.submission import Submission

#: Longest name of a Variable, in characters.
_NAME_LIMIT = 250


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
        self._key = f"cdm_{subject}" if store is not None else _variable_name(context, subject)

    def read(self) -> dict[str, Any] | None:
        """Return the object that was written last, or ``None``."""
        text = self._store.get(self._key)
        content = json.loads(text) if isinstance(text, str) else None
        return content if isinstance(content, dict) else None

    def write(self, content: dict[str, Any]) -> None:
        """Replace the object."""
        self._store.set(self._key, json.dumps(content))

    def delete(self) -> None:
        """Delete the object, if there is one."""
        self._store.delete(self._key)


class Journal:
    """The journal of a task instance: which start it sent, and which run is its own.

    A *generation* is all attempts between two clears. Airflow raises ``max_tries`` when a finished
    task is cleared, so that number distinguishes a retry from a clear.

    :param context: context of the running task.
    """

    def __init__(self, context: Context) -> None:
        ti = context["ti"]
        self._store = TaskStore(context, "start")
        self._name = f"task {ti.task_id!r} of DAG run {ti.run_id!r}"
        self.generation = str(ti.max_tries)
        self.last_attempt = ti.try_number > ti.max_tries

    def read(self) -> dict[str, Any] | None:
        """Return the record of this or an earlier attempt as plain JSON, or ``None``.

        :raises CdmJournalError: when it cannot be read, so that nothing is started blindly.
        """
        try:
            return self._store.read()
        except Exception as error:
            raise self._unusable("read", error) from error

    def record(self) -> StartRecord | None:
        """Return the record of this or an earlier attempt, or ``None``.

        :raises CdmJournalError: when it cannot be read.
        """
        payload = self.read()
        return StartRecord.from_payload(payload) if payload else None

    def save(self, record: Mapping[str, Any] | None) -> None:
        """Replace the record.

        :param record: plain JSON; ``None`` deletes it.
        :raises CdmJournalError: when that is not possible.
        """
        try:
            if record is None:
                self._store.delete()
            else:
                self._store.write(dict(record))
        except Exception as error:
            raise self._unusable("written", error) from error

    def note(self, run: Submission) -> None:
        """Note that the run of this task has ended: a retry takes a success as its own result, and
        starts the job again after a failure.
        """
        record = self.record()
        if record is not None:
            ended = record.ended_badly(run) if run.failed else record.ended_well(run)
            self.save(ended.to_payload())

    def conclude(self, run: Submission, *, final: bool) -> None:
        """Note that the run has ended and that nothing remains to be done about it.

        A journal in a Variable is deleted instead, as soon as no attempt needs it.

        :param final: whether no attempt follows, even if some are left.
        """
        if not self._store.is_managed and (self.last_attempt or final):
            self.save(None)
        else:
            self.note(run)

    def leave(self) -> None:
        """Note that this task has stopped waiting for its run, which may still be active."""
        if not self._store.is_managed:
            self.save(None)

    def run(self) -> Mapping[str, Any] | None:
        """Return the key of the run of this task, if it is known and may still be active."""
        record = self.record()
        return record.run if record is not None and record.result is None else None

    def _unusable(self, verb: str, error: Exception) -> CdmJournalError:
        place = "task state store" if self._store.is_managed else "Variables"
        return CdmJournalError(
            f"The journal of {self._name} cannot be {verb}, so nothing is started:"
            f" {type(error).__name__}: {error}. It is kept in Airflow's {place}; check that the"
            " worker can reach that."
        )


def _variable_name(context: Context, subject: str) -> str:
    ti = context["ti"]
    parts = (subject, ti.dag_id, ti.task_id, ti.run_id, ti.map_index)
    name = "__".join(("cdm", *(str(part) for part in parts)))
    if len(name) <= _NAME_LIMIT:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f"{name[: _NAME_LIMIT - len(digest) - 2]}__{digest}"
