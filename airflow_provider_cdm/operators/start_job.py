"""The operator that starts an existing CDM job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.client import arguments
from airflow_provider_cdm.operators.job_run import JobRunOperator

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import Context
    from airflow_provider_cdm.client.submission import Submission
    from airflow_provider_cdm.tasks.existing_job import ExistingJob

_MACRO_HINT = (
    "Pass the date instead: put a variable such as ${dt} in their place in the job, and"
    ' variables={"dt": "{{ ds }}"} in the task.'
)


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
    :param standby_cluster_ids: clusters that hold the same job, as a list of ids or the id of one
        (templated). The first cluster that can take the job gets it: ``cluster_id``, and then these
        in their order. A cluster cannot take it while it is stopped, frozen, failed, restarting or
        gone, or while its calls fail before the start is sent. A start that may have had an effect
        is settled in its own cluster, so that the job never runs twice. The result names the
        cluster that took it.
    :param variables: values for ``${name}`` in the job's parameters, for this run only (templated).
        Pass the logical date here, so that a backfill migrates the rows of its own day.
    :param project_id: project of the cluster; by default the connection's (templated).
    :param wait_for_completion: wait until the run has ended. By default only with an explicit
        ``deferrable=True``. A task that does not wait ends right after the start, whatever becomes
        of the run; a :class:`~airflow_provider_cdm.sensors.CdmSubmissionSensor` can wait for it.
    :param deferrable: wait in the triggerer instead of on a worker. ``True`` implies
        ``wait_for_completion``, unless that is explicitly off; the default of the deployment,
        ``[operators] default_deferrable``, never makes a task wait.
    :param poll_interval: seconds between two polls of the run's status, as a number or a
        ``timedelta`` (templated, as the next two); by default ``[cdm] poll_interval`` of
        ``airflow.cfg``, or 30. A run that was started just now is polled more often at first, as it
        may be short.
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
    :param check_variables: what to do when the job, as CDM shows it right before the start, has a
        ``${name}`` without a value, or no place for one of the ``variables``: ``warn`` in the log;
        ``fail`` with :class:`~airflow_provider_cdm.exceptions.CdmConfigError`, and start nothing;
        ``off`` to start without reading the job. Unless it is off, the log also warns of date
        macros such as ``${dateformat(...)}`` when the DAG run is for another day, since CDM fills
        them in with the time of the start; and a job that is disabled is not started.
    :param cdm_conn_id: connection of type ``huaweicloud_cdm`` (templated).

    ``min_rows_written``, ``max_rows_skipped``, ``rows_written_equal_read``, ``partition_key`` and
    ``on_stalled`` are those of :class:`~airflow_provider_cdm.tasks.outcome.RunOutcomeTask`; the
    first three need ``wait_for_completion``.
    """

    template_fields: Sequence[str] = (
        "job_name",
        "standby_cluster_ids",
        *JobRunOperator.template_fields,
    )
    object_fields = JobRunOperator.object_fields | {"standby_cluster_ids"}
    template_fields_renderers = {"variables": "json"}  # noqa: RUF012 - as Airflow declares it

    def __init__(
        self,
        *,
        job_name: str,
        standby_cluster_ids: Sequence[str] | str | None = None,
        wait_for_completion: bool | None = None,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        waits = bool(deferrable) if wait_for_completion is None else wait_for_completion
        super().__init__(wait_for_completion=waits, deferrable=deferrable, **kwargs)
        self.job_name = job_name
        self.standby_cluster_ids = standby_cluster_ids
        self._deferrable_without_waiting = bool(deferrable) and not waits

    def leave_run(self, context: Context, run: Submission) -> dict[str, Any]:
        """Return the result of a run that goes on, and say that nobody watches it."""
        result = super().leave_run(context, run)
        if self._deferrable_without_waiting:
            self.log.warning(
                "deferrable=True does not make this task wait, because wait_for_completion=False"
            )
        self.log.info(
            "Run %s goes on unwatched. To wait for it: wait_for_completion=True, or a"
            " CdmSubmissionSensor",
            run.submission_id,
        )
        return result

    def _job(self, context: Context) -> ExistingJob:
        from airflow_provider_cdm.tasks.existing_job import ExistingJob

        name = arguments.job_name(self.job_name)
        return ExistingJob(self._job_check(context, name, _MACRO_HINT))
