"""The truth table of clears and retries: what each does, on Airflow 3.3 and on 2.11.

``python -m tests.system.truth_table`` writes it into the documentation.

``docs/truth_table.md`` shows it, and says what is left out and why.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tests.system.truth_ended import AFTER_FAILURE, AFTER_SUCCESS
from tests.system.truth_runner import Row
from tests.system.truth_waiting import RESCHEDULED, UP_FOR_RETRY, WHILE_WAITING

#: In the order in which they start: those that take long first.
ROWS = [*WHILE_WAITING, *RESCHEDULED, *UP_FOR_RETRY, *AFTER_FAILURE, *AFTER_SUCCESS]

#: Where the documentation includes the table from.
PAGE = Path(__file__).parents[2] / "docs" / "snippets" / "truth_table.md"


def page() -> str:
    """Return the table in Markdown."""
    heads = ("When", "Retries", "Then", "Runs started", "Rows moved", "Task", "Because")
    lines = [_line(heads), _line(["---"] * len(heads))]
    for row in [*AFTER_SUCCESS, *AFTER_FAILURE, *WHILE_WAITING, *UP_FOR_RETRY, *RESCHEDULED]:
        old = row.on("2.11")
        outcomes = (_outcome(row), _outcome(old) if old else ("not there",) * 3)
        cells = [
            new if new == before else f"{new}; on 2.11: {before}"
            for new, before in zip(*outcomes, strict=True)
        ]
        then = ", then ".join(row.act)
        when = "; ".join(filter(None, (row.when, row.detail)))
        lines.append(_line((when, row.edited_retries, then, *cells, row.says)))
    return "\n".join(lines) + "\n"


def _outcome(row: Row) -> tuple[str, str, str]:
    """Return what a row must do: the runs, how often rows were moved, the state of the task."""
    moved = sum((row.copies or {"": row.runs.count("SUCCEEDED")}).values())
    rows = {0: "none", 1: "once", 2: "twice"}.get(moved, f"{moved} times")
    ways = filter(None, (row.runs, row.alternative_runs))
    runs = " or ".join(f"{len(way)} ({', '.join(map(str.lower, way))})" for way in ways)
    sensor = f"; its sensor judged run {row.judged}: {row.sensor_state}" if row.judged else ""
    return runs, rows, row.state + sensor


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page())
