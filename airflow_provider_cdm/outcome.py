"""What an ended run means for its task: the one place for operators and sensor, in every mode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.client import errors, notices
from airflow_provider_cdm.client.models import Submission, Verdict
from airflow_provider_cdm.client.thresholds import Thresholds
from airflow_provider_cdm.links import run_address
from airflow_provider_cdm.retries import CdmTask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_cdm._compat import Context
    from airflow_provider_cdm.client.session import CdmSession


class JudgesRuns(CdmTask):
    """Base of the tasks that wait for a run and answer for its outcome.

    The thresholds are compared with the counters of a run that CDM calls a success. One that is
    missed fails the task with :class:`~airflow_provider_cdm.client.errors.CdmThresholdMissed` and
    without a retry, since the rows are in the target by then.

    :param min_rows_written: the run must have written at least so many rows (templated).
    :param max_rows_skipped: the run may have left out at most so many rows as faulty (templated).
    :param rows_written_equal_read: the run must have written as many rows as it read.
    """

    template_fields: Sequence[str] = ("min_rows_written", "max_rows_skipped")

    def __init__(
        self,
        *,
        min_rows_written: int | str | None = None,
        max_rows_skipped: int | str | None = None,
        rows_written_equal_read: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.min_rows_written = min_rows_written
        self.max_rows_skipped = max_rows_skipped
        self.rows_written_equal_read = rows_written_equal_read

    @property
    def _thresholds_given(self) -> list[str]:
        """The names of the thresholds that are set."""
        return [
            name
            for name in ("min_rows_written", "max_rows_skipped", "rows_written_equal_read")
            if getattr(self, name) not in (None, False)
        ]

    def _thresholds(self) -> Thresholds:
        return Thresholds.of(
            self.min_rows_written, self.max_rows_skipped, self.rows_written_equal_read
        )

    def _judge(self, context: Context, run: Submission) -> dict[str, Any]:  # noqa: ARG002 - for outlets
        """Return the result of a run that ended well.

        :raises CdmSubmissionFailed: for one that did not, with all that helps to understand it.
        :raises CdmThresholdMissed: when it moved other numbers of rows than it has to.
        """
        if run.verdict is not Verdict.SUCCESS:
            notices.ensure_succeeded(run, *self._surroundings(run))
        self._thresholds().check(run)
        return run.to_dict()

    def _surroundings(self, run: Submission) -> tuple[Mapping[str, Any] | None, str | None]:
        """The definition of a failed run's job, and where to look at the run."""
        try:
            session = self._open_session()
        except Exception as error:
            # What has failed is the run; that is to be told in any case.
            self.log.warning("The job of the failed run cannot be looked up: %s", error)
            return None, None
        return self._definition(session, run), run_address(session.settings, run)

    def _definition(self, session: CdmSession, run: Submission) -> Mapping[str, Any] | None:
        """The definition of a run's job, if it can be had."""
        return session.run(notices.route_of(session.flows, run))

    def _open_session(self) -> CdmSession:
        """The session of this task's connection."""
        raise NotImplementedError


#: What a run can come to that a sensor with ``soft_fail`` skips for.
UNWANTED = (errors.CdmSubmissionFailed, errors.CdmStalled, errors.CdmThresholdMissed)
