"""Thresholds that a task sets for the counters of a succeeded run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from airflow_provider_cdm.client import arguments, errors
from airflow_provider_cdm.client.jobs.progress import outcome_line
from airflow_provider_cdm.client.submission import RunRef, Submission

_READ, _WRITTEN, _SKIPPED = "ROWS_READ", "ROWS_WRITTEN", "ROWS_WRITTEN_SKIPPED"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Limits for the counters of a run; all of them are optional.

    A counter that CDM does not report misses its threshold: an unknown number is never assumed to
    be good. Jobs that move files have no rows.

    :param min_rows_written: minimum number of rows written.
    :param max_rows_skipped: maximum number of rows skipped as faulty.
    :param rows_written_equal_read: whether as many rows must be written as were read.
    """

    min_rows_written: int | None = None
    max_rows_skipped: int | None = None
    rows_written_equal_read: bool = False

    @classmethod
    def of(cls, min_rows_written: Any, max_rows_skipped: Any, rows_written_equal_read: Any) -> Self:
        """Read the arguments of a task; numbers may be text, since templates render to text.

        :raises CdmConfigError: when an argument has a wrong type or value.
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

    def check(self, run: Submission, *, foreign: bool = False) -> None:
        """Compare the counters of a run with the thresholds.

        :param foreign: whether the task did not start the run.
        :raises CdmThresholdMissed: when any is missed; the error lists all that are.
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
                f"{'; '.join(problems)}: {RunRef.of(run)} missed thresholds of this task. The rows"
                " are in the target, so a retry does not run the job again. Check source and"
                " target; then mark the task as success, or clear it to run the job again (cluster"
                f" {run.cluster_id}).\n{outcome_line(run, foreign=foreign)}",
                run,
            )


def _count(run: Submission, name: str) -> int | None:
    """Return a counter; CDM sends -1 for one that does not apply."""
    count = run.counters.get(name, -1)
    return None if count < 0 else count


def _rows(count: int | None) -> str:
    return "an unknown number of rows" if count is None else f"{count:,} rows"
