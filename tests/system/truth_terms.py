"""Values that many rows of the truth table share."""

from __future__ import annotations

from typing import Any

TWO, ONE = ("SUCCEEDED", "SUCCEEDED"), ("SUCCEEDED",)
STOPPED, FAILED = ("STOPPED", "SUCCEEDED"), ("FAILED", "SUCCEEDED")
POKED: dict[str, Any] = {"mode": "reschedule"}
DEFERRED: dict[str, Any] = {"deferrable": True}
CLEAR_THIS, CLEAR_OTHER = ("clear this task",), ("clear another task",)
CLEAR_RUN, CLEAR_TWICE = ("clear the DAG run",), ("clear this task", "clear it again")
RETRY = ("retry",)
#: Seconds of a first run that must be active when something happens, also on a slow machine.
LONG = 90
#: Failures of the first attempt: while its run is active, and after its success is noted.
FAILS_ACTIVE, FAILS_NOTED = ("after the record",), ("before the report",)
DOUBT = "clear it once more to start the job again"
