"""What a task demands of the numbers of a run that CDM calls a success."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from airflow_provider_cdm.client import arguments, errors
from airflow_provider_cdm.client.submission import RunRef, Submission

_READ, _WRITTEN, _SKIPPED = "ROWS_READ", "ROWS_WRITTEN", "ROWS_WRITTEN_SKIPPED"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Demands on the counters of a run, all of them optional.

    A counter that CDM does not report cannot meet a demand: files have no rows, and what is not
    known is not taken for good.

    :param min_rows_written: at least so many rows must have been written.
    :param max_rows_skipped: at most so many rows may have been left out as faulty.
    :param rows_written_equal_read: as many rows must have been written as were read.
    """

    min_rows_written: int | None = None
    max_rows_skipped: int | None = None
    rows_written_equal_read: bool = False

    @classmethod
    def of(cls, min_rows_written: Any, max_rows_skipped: Any, rows_written_equal_read: Any) -> Self:
        """Read a task's arguments, the numbers of which may have come from templates.

        :raises CdmConfigError: when one of them is not what it should be.
        """
        if not isinstance(rows_written_equal_read, bool):
            raise errors.CdmConfigError(
                f"rows_written_equal_read must be True or False, not {rows_written_equal_read!r}."
            )
        return cls(
            arguments.non_negative_int("min_rows_written", min_rows_written),
            arguments.non_negative_int("max_rows_skipped", max_rows_skipped),
            rows_written_equal_read,
        )

    def check(self, run: Submission) -> None:
        """Compare the counters of a run with what is demanded.

        :raises CdmThresholdMissed: names everything that is not as demanded, at once.
        """
        read, written, skipped = (_count(run, name) for name in (_READ, _WRITTEN, _SKIPPED))
        least, most = self.min_rows_written, self.max_rows_skipped
        problems = []
        if least is not None and (written is None or written < least):
            problems.append(f"{_rows(written)} written, min_rows_written is {least:,}")
        if most is not None and (skipped is None or skipped > most):
            problems.append(f"{_rows(skipped)} skipped, max_rows_skipped is {most:,}")
        if self.rows_written_equal_read and (read is None or read != written):
            problems.append(
                f"{_rows(read)} read and {_rows(written)} written, rows_written_equal_read is set"
            )
        if problems:
            raise errors.CdmThresholdMissed(
                f"{RunRef.of(run)} ended {run.status}, but not as this task demands:"
                f" {'; '.join(problems)}. The rows are in the target, so no retry runs the job"
                " again. Look at source and target; then mark the task as a success, or clear it to"
                " run the job anew.",
                run,
            )


def _count(run: Submission, name: str) -> int | None:
    """A counter; CDM sends -1 for one that does not apply."""
    count = run.counters.get(name, -1)
    return None if count < 0 else count


def _rows(count: int | None) -> str:
    return "an unknown number of rows" if count is None else f"{count:,} rows"
