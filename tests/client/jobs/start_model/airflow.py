"""The model of Airflow around an attempt: where journals are kept, and what may happen to them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.client.jobs.start_model.cdm import Cdm


class Crash(BaseException):
    """The worker process has died."""


@dataclass
class Store:
    """The task state store of a task instance (Airflow 3.3), or the Variables (below).

    :param down: how often a write fails.
    :param step: called before and after each access; it may raise :class:`Crash`.
    :param failed: called with the text whose write fails.
    :param written: called with each record of a start that is written.
    """

    cdm: Cdm
    down: float = 0.0
    content: dict[str, str] = field(default_factory=dict)
    step: Callable[[], None] = lambda: None
    failed: Callable[[str], None] = lambda _: None
    written: Callable[[dict[str, Any]], None] = lambda _: None

    def get(self, key: str) -> str | None:
        self.step()
        return self.content.get(key)

    def set(self, key: str, value: str) -> None:
        self.step()
        fails = not self.cdm.calm and self.cdm.rng.random() < self.down
        if not fails or self.cdm.rng.random() < 0.3:
            self.content[key] = value
            if is_record(value):
                self.written(json.loads(value))
        if fails:
            self.cdm.note("journal not written")
            self.failed(value)
            raise OSError("the store is down")
        self.step()

    def records(self, part_of_key: str) -> list[str]:
        """Return the keys of records of starts."""
        return sorted(
            key for key, value in self.content.items() if part_of_key in key and is_record(value)
        )

    def delete(self, key: str) -> None:
        self.step()
        self.content.pop(key, None)
        self.step()


def is_record(value: str) -> bool:
    """Return whether a text is the record of a start, and no note about a stop or list of keys."""
    return '"fingerprint"' in value


@dataclass
class TaskInstance:
    """The attributes and methods of a task instance that an attempt uses."""

    dag_id: str
    task_id: str
    try_number: int
    max_tries: int
    run_id: str = "r"
    map_index: int = -1

    def xcom_push(self, key: str, value: Any) -> None:
        """Forget a value."""


#: What may be wrong with a stored record, by name; the last entry is still a record.
POISONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "not an object": lambda _: [1],
    "a number": lambda _: 5,
    "an empty object": lambda _: {},
    "another version": lambda record: {**record, "version": 1},
    "a baseline of the wrong type": lambda record: {**record, "baseline": [1]},
    "a time of the wrong type": lambda record: {**record, "sent_at": "now"},
    "a run of the wrong type": lambda record: {**record, "run": "5"},
    "a generation without numbers": lambda record: {
        **record,
        "generation": {**record["generation"], "max_tries": None},
    },
    "sent in the future": lambda record: {**record, "sent_at": record["sent_at"] + 100_000},
}
HARMLESS_POISON = "sent in the future"
