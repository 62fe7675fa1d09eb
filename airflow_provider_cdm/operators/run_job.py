"""The operator that creates a CDM job, runs it once and deletes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators.definition import DefinitionField, GivenDefinition
from airflow_provider_cdm.operators.job_run import JobRunOperator

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import Context
    from airflow_provider_cdm.client.api.definitions import Definition
    from airflow_provider_cdm.tasks.owned_job import OwnedJob


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
    :param keep_job_on_failure: leave the job in CDM when its run failed, to inspect it there; the
        next attempt uses it again, and deletes it when it succeeds.
    :param cluster_id: cluster for the job; by default the connection's (templated).
    :param project_id: project of the cluster; by default the connection's (templated).
    :param cdm_conn_id: connection of type ``huaweicloud_cdm`` (templated).

    ``deferrable``, ``poll_interval``, ``wait_timeout``, ``cancel_on_kill``, ``on_giving_up`` and
    the thresholds are those of :class:`~airflow_provider_cdm.operators.CdmStartJobOperator`.
    """

    template_fields: Sequence[str] = ("definition", *JobRunOperator.template_fields)
    object_fields = DefinitionField.object_fields | JobRunOperator.object_fields
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "definition": "json",
        "variables": "json",
    }

    def __init__(
        self,
        *,
        definition: GivenDefinition,
        keep_job_on_failure: bool = False,
        **kwargs: Any,
    ) -> None:
        # Only a run of another definition is not followed, and so in the way: it is waited for.
        super().__init__(
            definition=definition, wait_for_completion=True, if_running="wait", **kwargs
        )
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
        return OwnedJob(definition, context, self.log, keep_on_failure=self.keep_job_on_failure)


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
