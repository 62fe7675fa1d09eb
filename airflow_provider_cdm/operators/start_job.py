"""The operator that starts an existing CDM job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.client import arguments
from airflow_provider_cdm.operators.job_run import JobRunOperator

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import Context
    from airflow_provider_cdm.tasks.existing_job import ExistingJob


class CdmStartJobOperator(JobRunOperator):
    """Starts a CDM job exactly once and, if ``wait_for_completion`` is set, waits for its run.

    Returns, and pushes as XCom, one small JSON object, the same in every mode: ``cluster_id,
    job_name, submission_id, creation_date, status``, and once the run has ended also ``progress,
    counters, execute_date, last_update_date, duration_seconds``.

    A task that waits succeeds only if its own run ends ``SUCCEEDED``, and fails otherwise with
    :class:`~airflow_provider_cdm.exceptions.CdmSubmissionFailed` and CDM's reason. Errors that no
    retry can fix, such as wrong credentials, fail the task at once
    (:class:`~airflow_provider_cdm.retry_policy.CdmRetryPolicy`).

    :param job_name: name of an existing job (templated).
    :param cluster_id: cluster of the job; by default the connection's (templated).
    :param variables: values for ``${name}`` in the job's parameters, for this run only (templated).
        Pass the logical date here, so that a backfill migrates the rows of its own day.
    :param project_id: project of the cluster; by default the connection's (templated).
    :param wait_for_completion: wait until the run has ended. If off, the task ends right after the
        start, and a :class:`~airflow_provider_cdm.sensors.CdmSubmissionSensor` can do the waiting.
    :param deferrable: wait in the triggerer instead of on a worker; needs ``wait_for_completion``.
    :param poll_interval: seconds between two polls of the run's status.
    :param wait_timeout: seconds after which to stop waiting, with
        :class:`~airflow_provider_cdm.exceptions.CdmWaitTimeout`; the run is not stopped. Only the
        search for a start that got no answer may take longer, by about three minutes. By default
        the task waits for as long as the run takes.
    :param stalled_after: seconds without a change of status, progress or rows after which the log
        warns; ``None`` for never.
    :param fail_when_stalled: stop waiting then, with
        :class:`~airflow_provider_cdm.exceptions.CdmStalled`; the run is not stopped.
    :param if_running: what to do when a run of the job is already active: ``fail``, ``wait`` until
        it has ended and start then, or ``attach`` to it and take its outcome as the task's own.
    :param cancel_on_kill: stop the run of this task when the task is killed, or ends by its
        ``execution_timeout``; never a run that it attached to.
    :param on_giving_up: what to do with a run that is still active when the task fails and no
        attempt is left: ``leave`` it (the log names it and says how to stop it), or ``stop`` it.
    :param cdm_conn_id: connection of type ``huaweicloud_cdm`` (templated).

    ``min_rows_written``, ``max_rows_skipped`` and ``rows_written_equal_read`` are those of
    :class:`~airflow_provider_cdm.tasks.outcome.RunOutcomeTask`; they need ``wait_for_completion``.
    """

    template_fields: Sequence[str] = ("job_name", *JobRunOperator.template_fields)
    template_fields_renderers = {"variables": "json"}  # noqa: RUF012 - as Airflow declares it

    def __init__(self, *, job_name: str, wait_for_completion: bool = False, **kwargs: Any) -> None:
        super().__init__(wait_for_completion=wait_for_completion, **kwargs)
        self.job_name = job_name

    def _job(self, context: Context) -> ExistingJob:  # noqa: ARG002 - a subclass needs it
        from airflow_provider_cdm.tasks.existing_job import ExistingJob

        return ExistingJob(arguments.job_name(self.job_name))
