"""OpenLineage: what a run read and wrote, told by the provider's listener when a task is over.

Imported only by that listener, so only where ``apache-airflow-providers-openlineage`` is active.
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

#: Seconds that asking CDM may take. The listener gives a task ten by default, and the event is to
#: be sent in them, too.
TIMEOUT = 5.0
#: Seconds that one exchange may take.
_EXCHANGE = 3.0


@dataclass
class JobEndpoints:
    """Where a run moves data from and to, as far as it is known.

    :param job: definition of the job.
    :param links: definitions of its links, by their names.
    """

    job: Mapping[str, Any] | None = None
    links: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def look_up(self, session: CdmSession, run: Submission) -> Flow[None]:
        """Ask CDM for what is missing: at most for the job and two links."""
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
        """Name the datasets of one side."""
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
    """Return an ``OperatorLineage`` of a run. Never raises, and takes some seconds at most.

    :param run: as it was last seen; ``None`` when there is none. Datasets are named when it is
        over.
    :param open_session: returns the task's session.
    :param definition: of its job, if that is at hand.
    :param variables: that it was started with.
    """
    if run is None:
        return operator_lineage()
    endpoints = JobEndpoints(definition)
    if run.ended:
        _read_endpoints(endpoints, open_session, run)
    try:
        sources, targets = (endpoints.datasets(side, run, variables) for side in _SIDES)
        return operator_lineage(
            inputs=[_input(each, run, len(sources)) for each in sources],
            outputs=[_output(each, run, targets, sources) for each in targets],
            run_facets={"externalQuery": _external_query(run)},
        )
    except Exception as error:
        log.warning("What the run read and wrote cannot be told: %s", error)
        return operator_lineage()


def _read_endpoints(
    endpoints: JobEndpoints, open_session: Callable[[], CdmSession], run: Submission
) -> None:
    """Read what is missing for a limited time; lineage then uses what was read by then."""

    def work() -> None:
        with open_session().with_time_limit(_EXCHANGE) as session:
            session.run(endpoints.look_up(session, run))

    try:
        run_bounded(work, TIMEOUT)
    except NotFinishedError:
        problem: object = f"CDM did not answer within {TIMEOUT:g} s"
    except Exception as error:
        problem = error
    else:
        return
    log.warning("OpenLineage is not told all that the run read and wrote: %s", problem)


def _external_query(run: Submission) -> Any:
    number = run.submission_id if run.submission_id is not None else run.creation_date
    return external_query_run.ExternalQueryRunFacet(
        externalQueryId=f"{run.cluster_id}/{run.job_name}/{number}", source="huaweicloud-cdm"
    )


def _input(dataset: Dataset, run: Submission, several: int) -> Any:
    facet = input_statistics_input_dataset.InputStatisticsInputDatasetFacet
    return InputDataset(
        namespace=dataset.namespace,
        name=dataset.name,
        facets=_schema(dataset),
        inputFacets=_statistics("inputStatistics", facet, "READ", _counters(dataset, run, several)),
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


def _counters(dataset: Dataset, run: Submission, several: int) -> Mapping[str, int]:
    """The counters of a run as far as they are those of one dataset."""
    if run.tables:
        table = dataset.name.rpartition(".")[2]
        return _tables(run).get(table, {})
    return run.counters if several == 1 else {}


def _tables(run: Submission) -> dict[str, Mapping[str, int]]:
    """Counters of the tables that the run moved, by their names."""
    listed = (run.tables or {}).get("list", ())
    return {
        one["table"]: one.get("counters") or {}
        for one in listed
        if verdict_of(one["status"]) is Verdict.SUCCESS
    }


def _statistics(key: str, facet: Any, verb: str, counters: Mapping[str, int]) -> dict[str, Any]:
    """The counters as a facet; -1 is CDM's word for one that does not apply."""
    names = {"rowCount": "ROWS", "size": "BYTES", "fileCount": "FILES"}
    counts = {name: counters.get(f"{what}_{verb}", -1) for name, what in names.items()}
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
        to.name: column_lineage_dataset.Fields(
            inputFields=[
                column_lineage_dataset.InputField(
                    namespace=source.namespace, name=source.name, field=column.name
                )
            ]
        )
        for column, to in naming.column_pairs(source, target)
    }
    if not fields:
        return {}
    return {"columnLineage": column_lineage_dataset.ColumnLineageDatasetFacet(fields=fields)}
