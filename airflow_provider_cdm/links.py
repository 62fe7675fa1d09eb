"""The button "CDM run" of a task: opens its run in the CDM console, or at ``console_url``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_cdm._compat import BaseOperatorLink, XCom

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import BaseOperator, Context, TaskInstanceKey
    from airflow_provider_cdm.client.settings import Settings
    from airflow_provider_cdm.client.submission import RunRef, Submission

__all__ = ["CdmRunLink"]

#: No deep link to a job is documented, so the default is the root of the console.
DEFAULT_CONSOLE_URL = "https://console.huaweicloud.com/cdm/?region={region}"


class CdmRunLink(BaseOperatorLink):
    """Opens the run that a task started or waits for; showing the button reads no connection."""

    name = "CDM run"

    @property
    def xcom_key(self) -> str:
        """Key of the XCom that holds the address."""
        return "cdm_run_link"

    def get_link(
        self,
        operator: BaseOperator,  # noqa: ARG002 - Airflow passes it
        *,
        ti_key: TaskInstanceKey,
    ) -> str:
        """Return the address that the task stored; empty before that."""
        return XCom.get_value(key=self.xcom_key, ti_key=ti_key) or ""

    @classmethod
    def store(cls, context: Context, settings: Settings, run: Submission) -> str:
        """Store the address of a run, so that the button works as soon as the run is known.

        :returns: the address.
        """
        address = run_address(settings, run)
        context["ti"].xcom_push(key=cls().xcom_key, value=address)
        return address


def run_address(settings: Settings, run: Submission | RunRef) -> str:
    """Return the connection's console URL with its placeholders filled; unknown ones are kept."""
    values: dict[str, Any] = {
        "region": settings.region,
        "project_id": settings.project_id,
        "cluster_id": run.cluster_id,
        "job_name": run.job_name,
        "submission_id": run.submission_id,
    }
    address = settings.console_url or DEFAULT_CONSOLE_URL
    for name, value in values.items():
        address = address.replace(
            f"{{{name}}}", quote(str(value if value is not None else ""), safe="")
        )
    return address
