"""What an ended run means for its task: the one place for operators and sensor, in every mode."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from airflow_provider_cdm._compat import HAS_PARTITIONS, lineage_is_active, redact_secrets
from airflow_provider_cdm.client import arguments, errors
from airflow_provider_cdm.links import run_address
from airflow_provider_cdm.tasks.base import DeferrableCdmTask

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_cdm._compat import Context
    from airflow_provider_cdm.client.jobs.thresholds import Thresholds
    from airflow_provider_cdm.client.submission import Submission

    StallCallback: TypeAlias = Callable[[Context], Any]

#: What a run can end with that a sensor with ``soft_fail`` skips for.
SOFT_FAILURES = (errors.CdmSubmissionFailed, errors.CdmStalled, errors.CdmThresholdMissed)


class RunOutcomeTask(DeferrableCdmTask):
    """Base of the tasks that wait for a run and succeed or fail with it.

    The thresholds are compared with the counters of a run that CDM reports as succeeded. A missed
    one fails the task with :class:`~airflow_provider_cdm.exceptions.CdmThresholdMissed` and without
    a retry, since the rows are in the target by then.

    :param min_rows_written: the least number of rows that the run must have written (templated).
    :param max_rows_skipped: the most rows that the run may have skipped as faulty (templated).
    :param rows_written_equal_read: the run must have written as many rows as it read.
    :param partition_key: partition of the outlets that the run has filled, such as ``{{ ds }}``
        (templated). The events of the assets carry it, so that DAGs that are scheduled on
        partitions run for it. Needs Airflow 3.3.
    :param on_stalled: function, notifier or list of those, called with the context when the run has
        made no progress for ``stalled_after`` seconds, once for each stall. ``exception`` in the
        context is a :class:`~airflow_provider_cdm.exceptions.CdmStalled`, whose text says which run
        it is; ``reason`` is that text. It runs on a worker; a deferred task resumes for it, and
        defers again. What it raises is logged.
    """

    template_fields: Sequence[str] = (
        *DeferrableCdmTask.template_fields,
        "min_rows_written",
        "max_rows_skipped",
        "partition_key",
    )

    def __init__(
        self,
        *,
        min_rows_written: int | str | None = None,
        max_rows_skipped: int | str | None = None,
        rows_written_equal_read: bool = False,
        partition_key: str | None = None,
        on_stalled: StallCallback | Sequence[StallCallback] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.on_stalled = on_stalled
        if not all(map(callable, self._stall_callbacks)):
            raise errors.CdmConfigError(
                "on_stalled must be a function or a notifier, or a list of those, not"
                f" {type(on_stalled).__name__}."
            )
        if partition_key is not None and not HAS_PARTITIONS:
            raise errors.CdmConfigError("partition_key needs Airflow 3.3 or later.")
        self.partition_key = partition_key
        self._has_partition = partition_key is not None
        self.min_rows_written = min_rows_written
        self.max_rows_skipped = max_rows_skipped
        self.rows_written_equal_read = rows_written_equal_read
        #: Kept from before the templates are rendered, which may make nothing of them.
        self._given_thresholds = _given(
            min_rows_written=min_rows_written,
            max_rows_skipped=max_rows_skipped,
            rows_written_equal_read=rows_written_equal_read,
        )
        self._last_run: Submission | None = None
        #: Definition of the run's job as CDM showed it; empty if it could not be read.
        self._definition_read: Mapping[str, Any] | None = None

    @property
    def given_thresholds(self) -> list[str]:
        """Names of the thresholds that were given; 0 is a threshold."""
        return self._given_thresholds

    def check_outcome_arguments(self) -> None:
        """Check the rendered arguments before anything is started or waited for.

        :raises CdmConfigError: when one cannot be used.
        """
        self.thresholds()
        if self._has_partition:
            arguments.partition_key(self.partition_key)

    def thresholds(self) -> Thresholds:
        """Return the thresholds from the rendered arguments.

        :raises CdmConfigError: when one cannot be used, or its template rendered to nothing.
        """
        from airflow_provider_cdm.client.jobs.thresholds import Thresholds

        for name in self._given_thresholds:
            arguments.ensure_rendered(name, getattr(self, name))
        return Thresholds.of(
            self.min_rows_written, self.max_rows_skipped, self.rows_written_equal_read
        )

    @property
    def job_definition(self) -> Mapping[str, Any] | None:
        """Definition of the run's job, where the task has it."""
        return self._definition_read or None

    def with_tables(self, run: Submission) -> Submission:
        """Add the tables to an ended run whose job migrates a whole database.

        Has to come before the run is judged: a failed table makes the run a failed one.

        :raises CdmError: when the tables of a run that CDM reports as succeeded cannot be read.
        """
        from airflow_provider_cdm.client.api import definitions
        from airflow_provider_cdm.client.whole_database import collect

        if run.tables is not None or run.job_type not in (None, definitions.BATCH_JOB):
            return run
        try:
            session = self.hook.get_conn()
        except Exception as error:
            if run.job_type is not None and not run.failed:
                raise
            self.log.warning("%s So the tables of the run are not in its report.", error)
            return run
        if run.job_type is None and self.job_definition is None:
            self._definition_read = session.run(collect.read_definition(session.api, run)) or {}
        return session.run(collect.with_tables(session.api, run, self.job_definition))

    def judge_run(
        self,
        context: Context,
        run: Submission,
        variables: Mapping[str, str] | None = None,
        *,
        foreign: bool = False,
    ) -> dict[str, Any]:
        """Return the result of an ended run, and pass it on to assets and lineage.

        The last line of the log says how the run ended, how many rows it moved, and how long it
        took; if it failed, that is the last line of the error.

        :param variables: what the run was started with; ``None`` if this task did not start it.
        :param foreign: whether an operator waited for a run that somebody else started.
        :raises CdmSubmissionFailed: when the run did not succeed; with the failure report.
        :raises CdmThresholdMissed: when it succeeded and missed a threshold.
        """
        from airflow_provider_cdm import metrics
        from airflow_provider_cdm.client.jobs import failure_report
        from airflow_provider_cdm.client.jobs.progress import outcome_line
        from airflow_provider_cdm.client.submission import Verdict
        from airflow_provider_cdm.tasks import assets

        self._prepare_lineage(run)
        if run.verdict is not Verdict.SUCCESS:
            metrics.count_run("failed", context["ti"], run)
            shown = None if variables is None else redact_secrets(variables)
            failure_report.ensure_succeeded(run, *self._report_context(run), shown, foreign=foreign)
        try:
            self.thresholds().check(run, foreign=foreign)
        except errors.CdmThresholdMissed:
            metrics.count_run("threshold_missed", context["ti"], run)
            raise
        metrics.count_run("succeeded", context["ti"], run)
        assets.report(context, self.outlets, run, self.partition_key)
        self.log.info("%s", outcome_line(run, foreign=foreign))
        return run.to_dict()

    @property
    def _stall_callbacks(self) -> Sequence[StallCallback]:
        if self.on_stalled is None:
            return ()
        several = isinstance(self.on_stalled, list | tuple)
        return cast("Sequence[StallCallback]", self.on_stalled if several else (self.on_stalled,))

    def report_stall(self, context: Context, error: errors.CdmStalled) -> None:
        """Call ``on_stalled``, as Airflow calls ``on_failure_callback``."""
        extended = cast("dict[str, Any]", context)
        extended.update(exception=error, reason=str(error))
        for callback in self._stall_callbacks:
            try:
                callback(context)
            except Exception:
                self.log.exception("on_stalled failed; the wait goes on")
        for name in ("exception", "reason"):
            del extended[name]

    def leave_run(self, context: Context, run: Submission) -> dict[str, Any]:
        """Return the result of a run that another task will wait for."""
        from airflow_provider_cdm.tasks import assets

        self._prepare_lineage(run)
        assets.report(context, self.outlets, run, self.partition_key)
        # So that the task that waits for the run need not read the type of its job again.
        known = {} if run.job_type is None else {"job_type": run.job_type}
        return {**run.to_dict(), **known}

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:  # noqa: ARG002 - passed
        """Return what the run read and wrote; called by an active OpenLineage provider."""
        from airflow_provider_cdm.lineage import facets

        return facets.describe(
            self._last_run,
            open_session=self.hook.get_conn,
            definition=self.job_definition,
            variables=getattr(self, "variables", None),
        )

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> Any:
        """Return the same for a task that failed."""
        return self.get_openlineage_facets_on_complete(task_instance)

    def _prepare_lineage(self, run: Submission) -> None:
        """Keep what OpenLineage will ask for after the task has ended."""
        self._last_run = run
        if lineage_is_active():
            # It asks in a forked process, where a look-up of the connection may garble the messages
            # between Airflow's own processes. A missing connection is no reason to fail.
            with suppress(Exception):
                self.hook.get_conn()

    def _report_context(self, run: Submission) -> tuple[Mapping[str, Any] | None, str | None]:
        """Return the definition of a failed run's job, and the address of the run."""
        from airflow_provider_cdm.client.jobs import failure_report

        definition, address = self.job_definition, None
        try:
            session = self.hook.get_conn()
        except Exception as error:
            # What failed is the run; that is what the task reports in any case.
            self.log.warning("%s So the report lacks source and target.", error)
        else:
            address = run_address(session.settings, run)
            if definition is None and self._definition_read is None:
                definition = session.run(failure_report.read_definition(session.api, run))
        return definition, address


def _given(**values: Any) -> list[str]:
    """Return the names of the arguments that have a value; 0 is one, and equals ``False``."""
    return [name for name, value in values.items() if value is not None and value is not False]
