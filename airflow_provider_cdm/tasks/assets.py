"""Asset events: what a run moved, told to the DAGs that are scheduled on its outlets."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm._compat import is_asset

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import Context
    from airflow_provider_cdm.client.submission import Submission

log = logging.getLogger(__name__)


def report(context: Context, outlets: Sequence[Any], run: Submission) -> None:
    """Give the event of each asset among the outlets the result of the run as its ``extra``.

    What a DAG has put there already stays, but for keys of the same name. An alias is left alone:
    which asset it stands for is for the DAG to say. Never raises, for the rows are in the target.

    :param context: of the task, as Airflow passes it.
    :param outlets: of the task; what is no asset (dataset, in Airflow 2) is passed over.
    :param run: of a run that is not over yet, the event tells that, and no rows.
    """
    assets = [outlet for outlet in outlets if is_asset(outlet)]
    if assets and not run.ended:
        log.warning(
            "The event of %s comes before the rows: this task does not wait for its run. Set"
            " wait_for_completion=True, or give the outlets to the CdmSubmissionSensor.",
            ", ".join(map(str, assets)),
        )
    for asset in assets:
        try:
            context["outlet_events"][asset].extra.update(extra_of(run))
        except Exception as error:
            log.warning("The event of %s goes without the result of the run: %s", asset, error)


def extra_of(run: Submission) -> dict[str, Any]:
    """What an event tells of a run: its result, without the list of tables, which can be long."""
    extra = run.to_dict()
    if (tables := extra.get("tables")) is not None:
        extra["tables"] = {
            key: count for key, count in tables.items() if key not in ("list", "left_out")
        }
    return extra
