"""Datasets and facets of a run for OpenLineage, whose listener sends them when a task has ended.

Imported only for that listener, so only where ``apache-airflow-providers-openlineage`` is active.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from openlineage.client.event_v2 import InputDataset, OutputDataset
from openlineage.client.facet_v2 import (
    column_lineage_dataset,
    external_query_run,
    input_statistics_input_dataset,
    output_statistics_output_dataset,
    schema_dataset,
)

from airflow_provider_cdm._compat import operator_lineage
from airflow_provider_cdm.client.api.definitions import JOB, LINK
from airflow_provider_cdm.client.bounded import NotFinishedError, run_bounded
from airflow_provider_cdm.client.submission import Verdict, verdict_of
from airflow_provider_cdm.lineage import naming

if TYPE_CHECKING:
    from airflow_provider_cdm.client.sansio import Flow
    from airflow_provider_cdm.client.session import CdmSession
    from airflow_provider_cdm.client.submission import Submission
    from airflow_provider_cdm.lineage.naming import Dataset, Side

log = logging.getLogger(__name__)

#: Seconds for all calls to CDM. The listener allows ten by default, including the time to send the
#: event.
TIMEOUT = 5.0
#: Seconds for one call.
_CALL_TIMEOUT = 3.0


@dataclass
class JobEndpoints:
    """The source and target of a job, as far as they are known.

    :param job: definition of the job.
    :param links: definitions of its links, by name.
    """

    job: Mapping[str, Any] | None = None
    links: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def read_missing(self, session: CdmSession, run: Submission) -> Flow[None]:
        """Read the missing definitions from CDM: the job and two links at most."""
        api = session.api
        if self.job is None:
            self.job = yield from api.find(JOB, run.cluster_id, run.job_name)
        for name in sorted(self._links_needed()):
            link = yield from api.find(LINK, run.cluster_id, name)
            if link is not None:
                self.links[name] = link

    def _links_needed(self) -> set[str]:
        job = self.job or {}
        return {name for name in (naming.link_of(job, side) for side in _SIDES) if name}

    def datasets(
        self, side: Side, run: Submission, variables: Mapping[str, str] | None
    ) -> list[Dataset]:
        """Return the datasets of one side of the job."""
        if self.job is None:
            return []
        return naming.datasets_of(
            self.job,
            side,
            self.links.get(naming.link_of(self.job, side) or ""),
            cluster_id=run.cluster_id,
            variables=variables,
            tables=list(_tables(run)) if run.tables else None,
        )


_SIDES: tuple[Side, Side] = ("from", "to")


def describe(
    run: Submission | None,
    *,
    open_session: Callable[[], CdmSession],
    definition: Mapping[str, Any] | None,
    variables: Mapping[str, str] | None,
) -> Any:
    """Return the ``OperatorLineage`` of a run. Never raises, and takes a few seconds at most.

    :param run: run as last seen; ``None`` if there is none. Datasets are named once it has ended.
    :param open_session: function that returns the session of the task.
    :param definition: definition of the job, if it is known.
    :param variables: variables with which the run was started.
    """
    if run is None:
        return operator_lineage()
    endpoints = JobEndpoints(definition)
    if run.ended:
        _read_endpoints(endpoints, open_session, run)
    try:
        sources, targets = (endpoints.datasets(side, run, variables) for side in _SIDES)
        return operator_lineage(
            inputs=[_input(source, run, len(sources)) for source in sources],
            outputs=[_output(target, run, targets, sources) for target in targets],
            run_facets={"externalQuery": _external_query(run)},
        )
    except Exception as error:
        log.warning(
            "The OpenLineage event names no datasets, because they cannot be read: %s", error
        )
        return operator_lineage()


def _read_endpoints(
    endpoints: JobEndpoints, open_session: Callable[[], CdmSession], run: Submission
) -> None:
    """Read what is missing for a limited time; lineage then uses what was read by then."""

    def work() -> None:
        with open_session().with_time_limit(_CALL_TIMEOUT) as session:
            session.run(endpoints.read_missing(session, run))

    try:
        run_bounded(work, TIMEOUT)
    except NotFinishedError:
        problem: object = f"CDM did not answer within {TIMEOUT:g} s"
    except Exception as error:
        problem = error
    else:
        return
    log.warning("The OpenLineage event lacks part of what the run read and wrote: %s", problem)


def _external_query(run: Submission) -> Any:
    number = run.submission_id if run.submission_id is not None else run.creation_date
    return external_query_run.ExternalQueryRunFacet(
        externalQueryId=f"{run.cluster_id}/{run.job_name}/{number}", source="huaweicloud-cdm"
    )


def _input(dataset: Dataset, run: Submission, sources: int) -> Any:
    facet = input_statistics_input_dataset.InputStatisticsInputDatasetFacet
    return InputDataset(
        namespace=dataset.namespace,
        name=dataset.name,
        facets=_schema(dataset),
        inputFacets=_statistics("inputStatistics", facet, "READ", _counters(dataset, run, sources)),
    )


def _output(
    dataset: Dataset, run: Submission, targets: list[Dataset], sources: list[Dataset]
) -> Any:
    facet = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet
    counters = _counters(dataset, run, len(targets))
    return OutputDataset(
        namespace=dataset.namespace,
        name=dataset.name,
        facets={**_schema(dataset), **_column_lineage(dataset, sources)},
        outputFacets=_statistics("outputStatistics", facet, "WRITTEN", counters),
    )


def _counters(dataset: Dataset, run: Submission, count: int) -> Mapping[str, int]:
    """Return the counters that apply to one dataset.

    :param count: number of datasets on the same side; the counters of a run cannot be divided.
    """
    if run.tables:
        tables = _tables(run)
        # The name of a table may contain dots itself.
        matching = [table for table in tables if f".{dataset.name}".endswith(f".{table}")]
        return tables[max(matching, key=len)] if matching else {}
    return run.counters if count == 1 else {}


def _tables(run: Submission) -> dict[str, Mapping[str, int]]:
    """Return the counters of the tables that the run moved, by their names."""
    listed = (run.tables or {}).get("list", ())
    return {
        table["table"]: table.get("counters") or {}
        for table in listed
        if verdict_of(table["status"]) is Verdict.SUCCESS
    }


def _statistics(key: str, facet: Any, verb: str, counters: Mapping[str, int]) -> dict[str, Any]:
    """Return the counters as a facet; CDM sends -1 for one that does not apply."""
    units = {"rowCount": "ROWS", "size": "BYTES", "fileCount": "FILES"}
    counts = {name: counters.get(f"{unit}_{verb}", -1) for name, unit in units.items()}
    known = {name: count for name, count in counts.items() if count >= 0}
    return {key: facet(**known)} if known else {}


def _schema(dataset: Dataset) -> dict[str, Any]:
    if not dataset.columns:
        return {}
    fields = [
        schema_dataset.SchemaDatasetFacetFields(name=column.name, type=column.type)
        for column in dataset.columns
    ]
    return {"schema": schema_dataset.SchemaDatasetFacet(fields=fields)}


def _column_lineage(target: Dataset, sources: list[Dataset]) -> dict[str, Any]:
    if len(sources) != 1:
        return {}
    (source,) = sources
    fields = {
        target_column.name: column_lineage_dataset.Fields(
            inputFields=[
                column_lineage_dataset.InputField(
                    namespace=source.namespace, name=source.name, field=column.name
                )
            ]
        )
        for column, target_column in naming.column_pairs(source, target)
    }
    if not fields:
        return {}
    return {"columnLineage": column_lineage_dataset.ColumnLineageDatasetFacet(fields=fields)}
