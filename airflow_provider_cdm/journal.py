"""What a task instance remembers between its processes and attempts.

Airflow 3.3 and later keep it in the task state store. Below, it is an Airflow Variable, named after
DAG, task, run and map index, and deleted as soon as it is of no more use.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm._compat import VariableStore, task_state_store

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import Context, Store

#: Longest name of a Variable, in characters.
_NAME_LIMIT = 250


class Notebook:
    """One small JSON object that belongs to one task instance.

    :param context: context of the running task.
    :param subject: what the object is about; each subject is kept apart.
    """

    def __init__(self, context: Context, subject: str) -> None:
        store = task_state_store(context)
        self._store: Store = VariableStore() if store is None else store
        self._key = f"cdm_{subject}" if store is not None else _variable_name(context, subject)

    def read(self) -> dict[str, Any] | None:
        """Return what was written last, or ``None``."""
        text = self._store.get(self._key)
        found = json.loads(text) if isinstance(text, str) else None
        return found if isinstance(found, dict) else None

    def write(self, content: dict[str, Any]) -> None:
        """Replace what was written before."""
        self._store.set(self._key, json.dumps(content))

    def delete(self) -> None:
        """Forget it; nothing happens if there is nothing."""
        self._store.delete(self._key)


def _variable_name(context: Context, subject: str) -> str:
    ti = context["ti"]
    parts = (subject, ti.dag_id, ti.task_id, ti.run_id, ti.map_index)
    name = "__".join(("cdm", *(str(part) for part in parts)))
    if len(name) <= _NAME_LIMIT:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f"{name[: _NAME_LIMIT - len(digest) - 2]}__{digest}"
