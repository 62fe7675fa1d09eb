"""Asset events: the result of a run, for the DAGs that are scheduled on the task's outlets."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm._compat import is_asset

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import Context
    from airflow_provider_cdm.client.submission import Submission

log = logging.getLogger(__name__)


def report(
    context: Context, outlets: Sequence[Any], run: Submission, partition_key: str | None = None
) -> None:
    """Add the result of a run to the ``extra`` of the event of each asset among the outlets.

    Keys that a DAG has set are kept unless they have the same name. Asset aliases are skipped: the
    DAG says which asset they stand for. Never raises, because the rows are in the target.

    :param context: context of the running task.
    :param outlets: outlets of the task; those that are no assets (in Airflow 2, datasets) are
        skipped.
    :param run: the run; while it is active the event has its status and no rows.
    :param partition_key: partition of the assets that the run has filled.
    """
    assets = [outlet for outlet in outlets if is_asset(outlet)]
    if assets and not run.ended:
        log.warning(
            "The event of %s is created before the rows are written, as this task does not wait"
            " for its run. Set wait_for_completion=True, or move the outlets to the"
            " CdmSubmissionSensor.",
            ", ".join(map(str, assets)),
        )
    for asset in assets:
        try:
            event = context["outlet_events"][asset]
            event.extra.update(event_extra(run))
            if partition_key is not None:
                event.add_partitions(partition_key)
        except Exception as error:
            log.warning("The event of %s has no result of the run: %s", asset, error)


def event_extra(run: Submission) -> dict[str, Any]:
    """Return the result of a run without the list of its tables, which can be long."""
    extra = run.to_dict()
    if (tables := extra.get("tables")) is not None:
        extra["tables"] = {
            key: count
            for key, count in tables.items()
            if key not in ("list", "left_out", "missing")
        }
    return extra
