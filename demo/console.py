"""What the demo prints: lines with the elapsed time, and tables."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

_GREEN, _RED, _PLAIN = "\033[32m", "\033[31m", "\033[0m"


class Console:
    """Prints the progress of the demo to standard output, in color on a terminal."""

    def __init__(self) -> None:
        self._started_at = time.monotonic()
        self._colors = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self._last_progress: dict[int, tuple[str, int]] = {}
        self._last_progress_at = 0.0

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started_at

    def print(self, text: str) -> None:
        """Print a line with the elapsed time."""
        print(f"{self.seconds:6.1f} s  {self._colored(text)}", flush=True)

    def print_details(self, text: str = "") -> None:
        """Print a line without the time."""
        print(self._colored(text), flush=True)

    def print_progress(self, run: dict[str, Any]) -> bool:
        """Print the status of a run if it has changed; return whether the run has just ended.

        :param run: run of a CDM job, as the simulator shows it.
        """
        percent = round(100 * max(0.0, run["progress"]))
        progress = (run["status"], percent)
        previous = self._last_progress.get(run["submission_id"], ("", 0))
        same_status = previous[0] == progress[0]
        if previous == progress or (same_status and self.seconds - self._last_progress_at < 1):
            return False
        self._last_progress[run["submission_id"]] = progress
        self._last_progress_at = self.seconds
        line = f"{run['variables']['dt']}  run {run['submission_id']}  {run['status']}"
        if run["status"] == "RUNNING":
            line += f" {percent:3} %, {format_number(run['rows_read'])} rows read"
        elif run["status"] == "SUCCEEDED":
            line += f", {format_number(run['rows_written'])} rows written"
        self.print(line)
        return not same_status and run["status"] in ("SUCCEEDED", "FAILED")

    def _colored(self, text: str) -> str:
        if not self._colors:
            return text
        text = text.replace("SUCCEEDED", f"{_GREEN}SUCCEEDED{_PLAIN}")
        return text.replace("FAILED", f"{_RED}FAILED{_PLAIN}")


def format_number(value: int) -> str:
    """Return a number with a space between groups of three digits."""
    return f"{value:,}".replace(",", " ")
