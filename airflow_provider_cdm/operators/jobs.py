"""Operators that create, change, delete and stop CDM jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_cdm.client import arguments
from airflow_provider_cdm.operators.base import CdmOperator
from airflow_provider_cdm.operators.definition import DefinitionOperator
from airflow_provider_cdm.tasks.base import Duration, fail_without_retry

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import Context
    from airflow_provider_cdm.client.api.client import CdmApi
    from airflow_provider_cdm.client.api.definitions import Definition
    from airflow_provider_cdm.client.jobs.apply import ApplyResult
    from airflow_provider_cdm.client.sansio import Flow


class _JobDefinitionOperator(DefinitionOperator):
    template_fields: Sequence[str] = ("definition", "job_name", *CdmOperator.template_fields)

    def __init__(self, *, job_name: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job_name = job_name
        self._job_name_given = job_name is not None

    @fail_without_retry
    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - Airflow passes it
        """Check the definition and send it."""
        from airflow_provider_cdm.client.api import parsing

        if self._job_name_given:
            arguments.ensure_names_something("job_name", self.job_name)
        return self._send(parsing.job(self._definition_with_secrets(), self.job_name))


class CdmCreateJobOperator(_JobDefinitionOperator):
    """Creates a CDM job without starting it.

    If a job with exactly this definition exists already, the task succeeds, since an earlier
    attempt may have created it. If one exists that differs, the task fails and says what differs.
    To update an existing job, use :class:`CdmApplyJobOperator`.

    Returns ``cluster_id, job_name, action`` (``created`` or ``unchanged``) and ``differences``.

    :param definition: the job as CDM's create call takes it and its console exports it: a mapping,
        or the path of a JSON or YAML file (templated).
    :param job_name: name of the job, if the definition names none (templated).
    :param cluster_id: cluster of the job; by default the connection's (templated).
    :param project_id: project of the cluster; by default the connection's (templated).
    :param cdm_conn_id: connection of type ``huaweicloud_cdm`` (templated).
    """

    def _flow(self, api: CdmApi, cluster_id: str, definition: Definition) -> Flow[ApplyResult]:
        from airflow_provider_cdm.client.jobs import apply

        return apply.create(api, cluster_id, definition)


class CdmUpdateJobOperator(_JobDefinitionOperator):
    """Replaces the definition of an existing CDM job.

    Fails with :class:`~airflow_provider_cdm.exceptions.CdmNotFound` when there is no such job,
    and with :class:`~airflow_provider_cdm.exceptions.CdmInUse` when CDM refuses because it runs.

    Returns ``cluster_id, job_name, action`` (``updated``) and ``differences`` (empty, since nothing
    is compared).

    :param definition: the complete job, as for :class:`CdmCreateJobOperator` (templated).
    :param job_name: name of the job, if the definition names none (templated).
    :param cluster_id: cluster of the job; by default the connection's (templated).
    :param project_id: project of the cluster; by default the connection's (templated).
    :param cdm_conn_id: connection of type ``huaweicloud_cdm`` (templated).
    """

    def _flow(self, api: CdmApi, cluster_id: str, definition: Definition) -> Flow[ApplyResult]:
        from airflow_provider_cdm.client.jobs import apply

        return apply.update(api, cluster_id, definition)


class CdmApplyJobOperator(_JobDefinitionOperator):
    """Makes a CDM job match its definition: creates it, updates it, or does nothing.

    Only what the definition names is compared. To remove a value (a where clause, say), name the
    input with an empty value; an input that is left out keeps its value, since CDM fills in
    defaults that look the same. Secret inputs never count as a difference: CDM does not show them.

    Returns ``cluster_id, job_name, action`` (``created``, ``updated`` or ``unchanged``) and
    ``differences``, the names of what an update changed.

    :param definition: the complete job, as for :class:`CdmCreateJobOperator` (templated).
    :param job_name: name of the job, if the definition names none (templated).
    :param cluster_id: cluster of the job; by default the connection's (templated).
    :param project_id: project of the cluster; by default the connection's (templated).
    :param cdm_conn_id: connection of type ``huaweicloud_cdm`` (templated).
    """

    def _flow(self, api: CdmApi, cluster_id: str, definition: Definition) -> Flow[ApplyResult]:
        from airflow_provider_cdm.client.jobs import apply

        return apply.apply(api, cluster_id, definition)


class CdmDeleteJobOperator(CdmOperator):
    """Deletes a CDM job; succeeds if there is none.

    Fails with :class:`~airflow_provider_cdm.exceptions.CdmInUse` while the job runs:
    :class:`CdmStopJobOperator` stops it first.

    Returns ``cluster_id, job_name, action`` (``deleted`` or ``absent``).

    :param job_name: name of the job (templated).
    :param cluster_id: cluster of the job; by default the connection's (templated).
    :param project_id: project of the cluster; by default the connection's (templated).
    :param cdm_conn_id: connection of type ``huaweicloud_cdm`` (templated).
    """

    template_fields: Sequence[str] = ("job_name", *CdmOperator.template_fields)

    def __init__(self, *, job_name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job_name = job_name

    @fail_without_retry
    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - Airflow passes it
        """Delete the job."""
        from airflow_provider_cdm.client.api.definitions import JOB

        return self._delete(JOB, arguments.job_name(self.job_name))


class CdmStopJobOperator(CdmOperator):
    """Stops the active run of a CDM job, whoever started it; succeeds if there is none.

    CDM answers before the run has ended, so the operator waits for the end, a matter of seconds.

    Returns ``cluster_id, job_name, action`` (``stopped`` or ``not running``) and ``submission``,
    the run as last seen, as :class:`~airflow_provider_cdm.operators.CdmStartJobOperator` has it.

    :param job_name: name of the job (templated).
    :param wait_for_completion: wait until the run has ended.
    :param poll_interval: seconds between two polls of the run's status (templated); by default 5,
        as a stop takes seconds.
    :param wait_timeout: seconds after which to stop waiting, with
        :class:`~airflow_provider_cdm.exceptions.CdmWaitTimeout`; ``None`` for never (templated).
    :param cluster_id: cluster of the job; by default the connection's (templated).
    :param project_id: project of the cluster; by default the connection's (templated).
    :param cdm_conn_id: connection of type ``huaweicloud_cdm`` (templated).
    """

    template_fields: Sequence[str] = (
        "job_name",
        *CdmOperator.template_fields,
        "poll_interval",
        "wait_timeout",
    )
    durations: ClassVar[Mapping[str, bool]] = {"poll_interval": False, "wait_timeout": True}

    def __init__(
        self,
        *,
        job_name: str,
        wait_for_completion: bool = True,
        poll_interval: Duration = 5,
        wait_timeout: Duration | None = 600,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_name = job_name
        self.wait_for_completion = wait_for_completion
        self.poll_interval: Any = poll_interval
        self.wait_timeout: Any = wait_timeout

    @fail_without_retry
    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - Airflow passes it
        """Stop the active run, and wait until it has ended."""
        from airflow_provider_cdm.client.jobs import stop
        from airflow_provider_cdm.client.jobs.follower import Follower
        from airflow_provider_cdm.client.jobs.progress import ProgressLog, outcome_line
        from airflow_provider_cdm.client.submission import RunRef

        name = arguments.job_name(self.job_name)
        self._settle_durations()
        session, cluster_id = self.hook.get_conn(), self.hook.resolve_cluster()
        result = {"cluster_id": cluster_id, "job_name": name}
        run = session.run(stop.stop_active_run(session.api, cluster_id, name))
        if run is None:
            self.log.info(
                "Job %r has no active run; nothing to stop (cluster %s)", name, cluster_id
            )
            return {**result, "action": "not running", "submission": None}
        self.log.info("Asked CDM to stop %s (cluster %s)", RunRef.of(run), cluster_id)
        if not self.wait_for_completion:
            self.log.info("Not waiting until it has ended (wait_for_completion=False)")
        elif RunRef.of(run).known:
            deadline = None if self.wait_timeout is None else session.clock() + self.wait_timeout
            wait = Follower(RunRef.of(run)).follow(
                session.api,
                poll_interval=self.poll_interval,
                deadline=deadline,
                on_status=ProgressLog(
                    self.log, session.monotonic, clock=session.api.exchanger.server_time
                ),
            )
            run = session.run(wait)
            self.log.info("%s", outcome_line(run))
        return {**result, "action": "stopped", "submission": run.to_dict()}
