"""What an ended run means for its task: the one place for operators and sensor, in every mode."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm._compat import lineage_is_active
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import definitions
from airflow_provider_cdm.client.jobs import failure_report
from airflow_provider_cdm.client.jobs.thresholds import Thresholds
from airflow_provider_cdm.client.submission import Submission, Verdict
from airflow_provider_cdm.client.whole_database import collect
from airflow_provider_cdm.links import run_address
from airflow_provider_cdm.tasks import assets
from airflow_provider_cdm.tasks.base import CdmTask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_cdm._compat import Context
    from airflow_provider_cdm.client.session import CdmSession


class RunOutcomeMixin(CdmTask):
    """Base of the tasks that wait for a run and answer for its outcome.

    The thresholds are compared with the counters of a run that CDM calls a success. One that is
    missed fails the task with :class:`~airflow_provider_cdm.exceptions.CdmThresholdMissed` and
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
        self._last_run: Submission | None = None
        #: Definition of the run's job, once it was looked up; empty if that was in vain.
        self._definition_read: Mapping[str, Any] | None = None

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

    def _with_tables(self, run: Submission) -> Submission:
        """Add to an ended run what became of its tables, if its job moves a whole database.

        To be done before anything is made of the run: a failed table makes a failure of it.

        :raises CdmError: when the tables of a run that CDM calls a success cannot be learnt.
        """
        if run.tables is not None or run.job_type not in (None, definitions.BATCH_JOB):
            return run
        try:
            session = self._open_session()
        except Exception as error:
            if run.job_type is not None and not run.failed:
                raise
            self.log.warning("Whether the run has tables cannot be looked up: %s", error)
            return run
        if run.job_type is None and self._own_definition() is None:
            self._definition_read = session.run(collect.read_definition(session.api, run)) or {}
        return session.run(collect.with_tables(session.api, run, self._own_definition()))

    def _own_definition(self) -> Mapping[str, Any] | None:
        """The definition of the run's job, where the task has it."""
        return self._definition_read or None

    def _judge(self, context: Context, run: Submission) -> dict[str, Any]:
        """Return the result of a run that ended well.

        :raises CdmSubmissionFailed: for one that did not, with all that helps to understand it.
        :raises CdmThresholdMissed: when it moved other numbers of rows than it has to.
        """
        self._prepare_lineage(run)
        if run.verdict is not Verdict.SUCCESS:
            failure_report.ensure_succeeded(run, *self._report_context(run))
        self._thresholds().check(run)
        assets.report(context, self.outlets, run)
        return run.to_dict()

    def _leave(self, context: Context, run: Submission) -> dict[str, Any]:
        """Return the result of a run that is left to others to wait for."""
        self._prepare_lineage(run)
        assets.report(context, self.outlets, run)
        return run.to_dict()

    def _prepare_lineage(self, run: Submission) -> None:
        """Keep what OpenLineage will ask for when the task is over."""
        self._last_run = run
        if lineage_is_active():
            # It asks in a fork, where looking a connection up may garble what Airflow's own
            # processes say to each other. A connection that is away is no reason to fail.
            with suppress(Exception):
                self._open_session()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:  # noqa: ARG002 - passed
        """What the run read and wrote; the OpenLineage provider asks for it, if it is active."""
        from airflow_provider_cdm.lineage import facets

        return facets.describe(
            self._last_run,
            open_session=self._open_session,
            definition=self._own_definition(),
            variables=getattr(self, "variables", None),
        )

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> Any:
        """The same for a task that failed."""
        return self.get_openlineage_facets_on_complete(task_instance)

    def _report_context(self, run: Submission) -> tuple[Mapping[str, Any] | None, str | None]:
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
        if self._definition_read is not None:
            return self._own_definition()
        return session.run(failure_report.read_definition(session.api, run))

    def _open_session(self) -> CdmSession:
        """The session of this task's connection."""
        raise NotImplementedError


#: What a run can come to that a sensor with ``soft_fail`` skips for.
SOFT_FAILURES = (errors.CdmSubmissionFailed, errors.CdmStalled, errors.CdmThresholdMissed)
