"""The button "CDM run" on a task: to its run in the CDM console, or where ``console_url`` says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_cdm._compat import BaseOperatorLink, XCom

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import BaseOperator, Context, TaskInstanceKey
    from airflow_provider_cdm.client.settings import Settings
    from airflow_provider_cdm.client.submission import Submission

__all__ = ["CdmRunLink"]

#: No deep link to a job is documented, so the default is the root of the console.
DEFAULT_CONSOLE_URL = "https://console.huaweicloud.com/cdm/?region={region}"


class CdmRunLink(BaseOperatorLink):
    """Leads to the run that a task started or waits for; reads no connection when shown."""

    name = "CDM run"

    @property
    def xcom_key(self) -> str:
        """XCom under which the finished address is kept."""
        return "cdm_run_link"

    def get_link(
        self,
        operator: BaseOperator,  # noqa: ARG002 - Airflow passes it
        *,
        ti_key: TaskInstanceKey,
    ) -> str:
        """Return the address that the task stored, or nothing before it did."""
        return XCom.get_value(key=self.xcom_key, ti_key=ti_key) or ""

    @classmethod
    def store(cls, context: Context, settings: Settings, run: Submission) -> str:
        """Keep the address of a run as soon as it is known, so that the button works at once.

        :returns: the address.
        """
        address = run_address(settings, run)
        context["ti"].xcom_push(key=cls().xcom_key, value=address)
        return address


def run_address(settings: Settings, run: Submission) -> str:
    """Fill the placeholders of the connection's console URL; unknown ones stay as they are."""
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
