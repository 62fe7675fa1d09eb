"""The operator that starts an existing CDM job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.client import arguments
from airflow_provider_cdm.operators.job_run import JobRunOperator
from airflow_provider_cdm.tasks.attempt import ExistingJob

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import Context


class CdmStartJobOperator(JobRunOperator):
    """Starts a CDM job and, if asked to, waits until that run is over.

    Returns, and pushes as XCom, one small JSON object, the same in every mode: ``cluster_id,
    job_name, submission_id, creation_date, status``, and once the run is over also ``progress,
    counters, execute_date, last_update_date, duration_seconds``.

    Fails with :class:`~airflow_provider_cdm.exceptions.CdmSubmissionFailed` and CDM's own reason
    when the run ends in any other way than ``SUCCEEDED``. A failure that no retry can mend, such as
    wrong credentials, fails the task at once
    (:class:`~airflow_provider_cdm.retry_policy.CdmRetryPolicy`).

    :param job_name: name of an existing job (templated).
    :param cluster_id: cluster of the job; by default the connection's (templated).
    :param variables: values for ``${name}`` in the job's parameters, for this run only (templated).
        Pass the logical date here, so that a backfill moves the rows of its own day.
    :param project_id: project of the cluster; by default the connection's (templated).
    :param wait_for_completion: wait until the run is over. Off: end right after the start, and
        leave the waiting to a :class:`~airflow_provider_cdm.sensors.CdmSubmissionSensor`.
    :param deferrable: wait in the triggerer instead of on a worker; needs ``wait_for_completion``.
    :param poll_interval: seconds between two looks at the run.
    :param wait_timeout: seconds after which to stop waiting, with
        :class:`~airflow_provider_cdm.exceptions.CdmWaitTimeout`; the run goes on. By default the
        task waits for as long as the run takes.
    :param stalled_after: seconds in which neither status nor progress nor rows move, and after
        which the log warns; ``None`` for never.
    :param fail_when_stalled: stop waiting then, with
        :class:`~airflow_provider_cdm.exceptions.CdmStalled`; the run goes on.
    :param if_running: what to do when the job has an active run already: ``fail``, ``wait`` until
        it is over and start then, or ``attach`` to it and take it for this task's own.
    :param cancel_on_kill: stop the run when the task is killed, if it is this task's own.
    :param on_giving_up: what to do with a run that is still active when the task fails and has no
        attempt left: ``leave`` it (the log says which, and how to stop it), or ``stop`` it.
    :param cdm_conn_id: connection of type ``huaweicloud_cdm`` (templated).

    ``min_rows_written``, ``max_rows_skipped`` and ``rows_written_equal_read`` are those of
    :class:`~airflow_provider_cdm.tasks.outcome.RunOutcomeMixin`; they need ``wait_for_completion``.
    """

    template_fields: Sequence[str] = ("job_name", *JobRunOperator.template_fields)
    template_fields_renderers = {"variables": "json"}  # noqa: RUF012 - as Airflow declares it

    def __init__(self, *, job_name: str, wait_for_completion: bool = False, **kwargs: Any) -> None:
        super().__init__(wait_for_completion=wait_for_completion, **kwargs)
        self.job_name = job_name

    def _job(self, context: Context) -> ExistingJob:  # noqa: ARG002 - a subclass needs it
        return ExistingJob(arguments.job_name(self.job_name))
