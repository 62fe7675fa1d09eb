"""The operator that creates a CDM job, runs it once and deletes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_cdm.client import arguments, errors
from airflow_provider_cdm.operators.definition import DefinitionField, GivenDefinition
from airflow_provider_cdm.operators.job_run import JobRunOperator

if TYPE_CHECKING:
    from datetime import date, datetime

    from airflow_provider_cdm._compat import Context
    from airflow_provider_cdm.client.api.definitions import Definition
    from airflow_provider_cdm.tasks.owned_job import OwnedJob

_MACRO_HINT = 'Pass macros_at="{{ logical_date }}" to fill them in with the date of the DAG run.'


class CdmRunJobOperator(DefinitionField, JobRunOperator):
    """Creates a CDM job from a definition, runs it exactly once, waits, and deletes the job.

    The job has a name of its own: that of the definition and a digest of DAG, task, run and map
    index. So tasks of several dates can run at the same time, although CDM runs a job only once at
    a time, and all attempts of a task use the same job. What a killed or crashed attempt leaves
    behind is used or cleaned up by the next attempt. If several Airflow deployments share a
    cluster, give their definitions different names.

    The job is deleted when its run has ended and the outcome is noted, also after a failure (CDM's
    reason is in the error), and after a kill as far as time allows, unless its run succeeded. It
    stays while its run is active, for example after ``wait_timeout``: the next attempt, or a
    cleared task, goes on with it. Before each start, a job that is left is replaced by exactly what
    the definition says.

    Waiting, retries and clearing work as with
    :class:`~airflow_provider_cdm.operators.CdmStartJobOperator` and ``wait_for_completion``; the
    result is the same object. A definition that differs from that of the last attempt is a new
    migration: an active run of the old one is waited for first.

    :param definition: the job as CDM's create call takes it and its console exports it: a mapping,
        or the path of a JSON or YAML file (templated). It may hold templates such as ``{{ ds }}``,
        and must not make CDM schedule or delete the job.
    :param variables: values for ``${name}`` in the definition (templated).
    :param macros_at: time with which to fill in CDM's date macros, such as ``${dateformat(...)}``
        and ``${timestamp(...)}``, before the job is created (templated): with
        ``"{{ logical_date }}"``, a backfill moves the rows of its own day. A ``datetime``, a date,
        or an ISO 8601 text. A time in UTC, as Airflow renders it, or without a zone counts in the
        time zone of the DAG; a time of another zone counts in that zone. By default, CDM fills them
        in with the time of the start.
    :param keep_job_on_failure: leave the job in CDM when its run failed, to inspect it there; the
        next attempt uses it again, and deletes it when it succeeds.
    :param cluster_id: cluster for the job; by default the connection's (templated).
    :param project_id: project of the cluster; by default the connection's (templated).
    :param cdm_conn_id: connection of type ``huaweicloud_cdm`` (templated).

    ``deferrable``, ``poll_interval``, ``wait_timeout``, ``cancel_on_kill``, ``on_giving_up``,
    ``check_variables`` and the thresholds are those of
    :class:`~airflow_provider_cdm.operators.CdmStartJobOperator`.
    """

    template_fields: Sequence[str] = ("definition", "macros_at", *JobRunOperator.template_fields)
    object_fields = DefinitionField.object_fields | JobRunOperator.object_fields
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "definition": "json",
        "variables": "json",
    }

    def __init__(
        self,
        *,
        definition: GivenDefinition,
        macros_at: datetime | date | str | None = None,
        keep_job_on_failure: bool = False,
        **kwargs: Any,
    ) -> None:
        # Only a run of another definition is not followed, and so in the way: it is waited for.
        super().__init__(
            definition=definition, wait_for_completion=True, if_running="wait", **kwargs
        )
        self.macros_at = macros_at
        self._macros_filled = macros_at is not None
        self.keep_job_on_failure = keep_job_on_failure

    def _job(self, context: Context) -> OwnedJob:
        from airflow_provider_cdm.client.api import parsing
        from airflow_provider_cdm.tasks.owned_job import OwnedJob

        definition = parsing.job(self._definition_with_secrets())
        if inputs := _self_acting_inputs(definition):
            raise errors.CdmConfigError(
                f"The definition of the job {definition.name!r} makes CDM start or delete the job:"
                f" {inputs}. Airflow does both; take these inputs out of the definition."
            )
        check = self._job_check(context, definition.name, _MACRO_HINT)
        if self._macros_filled:
            definition = self._with_macros_filled(definition, context)
        return OwnedJob(
            definition, check, context, self.log, keep_on_failure=self.keep_job_on_failure
        )

    def _with_macros_filled(self, definition: Definition, context: Context) -> Definition:
        """Return the definition with its date macros filled in.

        :raises CdmConfigError: when ``macros_at`` is no time, or a macro is not valid.
        """
        from airflow_provider_cdm.client.jobs.placeholders import with_macros_filled
        from airflow_provider_cdm.tasks.planned_day import macro_time

        arguments.ensure_rendered("macros_at", self.macros_at)
        at = macro_time("macros_at", self.macros_at, context)
        return with_macros_filled(definition, self.variables or {}, at)


def _self_acting_inputs(definition: Definition) -> str:
    """Return the inputs that make CDM start or delete the job; empty if there are none."""
    from airflow_provider_cdm.client.api import definitions

    harmless = {"isSchedulerJob": ("", "false"), "disposableType": ("", "NONE")}
    given = definitions.inputs_of(definition.wire, "driver-config-values")
    return ", ".join(
        f"{name}={value}"
        for name, value in given.items()
        if value not in harmless.get(name.rpartition(".")[2], (value,))
    )
