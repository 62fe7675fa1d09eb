"""Testing a connection step by step, so that a failure names the step and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import resources
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.cluster import NORMAL, Cluster
from airflow_provider_cdm.client.auth.base import Authorization
from airflow_provider_cdm.client.auth.token import Token
from airflow_provider_cdm.client.sansio import Flow
from airflow_provider_cdm.client.settings import KeyCredentials

CREDENTIALS = "credentials"
PROJECT = "project"
CLUSTER = "cluster"
JOBS = "permission to read jobs"


@dataclass(slots=True)
class ConnectionTest:
    """One test of a connection.

    :param api: of the connection.
    :param step: the step under way, in people's words.
    :param found: what the steps so far have found.
    """

    api: CdmApi
    step: str = CREDENTIALS
    found: list[str] = field(default_factory=list)

    def run(self) -> Flow[None]:
        """Go through all steps.

        :raises CdmError: by the step that failed.
        """
        authorization = yield from self.api.auth.authorize()
        self.found.append(self._who(authorization))
        self.step = PROJECT
        settings = self.api.settings
        if settings.cluster_id is None:
            clusters = yield from self.api.call(resources.list_clusters())
            self._note_project(authorization)
            cluster = self._choose(clusters)
        else:
            self.step = CLUSTER
            cluster = yield from self.api.call(resources.show_cluster(settings.cluster_id))
            self._note_project(authorization)
            self.found.append(f"{cluster}: {cluster.state}")
        if cluster is None or cluster.state != NORMAL:
            self.found.append("jobs can run only on a cluster that is normal")
            return
        self.step = JOBS
        page = yield from self.api.call(resources.list_jobs(cluster.cluster_id, 1))
        total = len(page.jobs) if page.total is None else page.total
        self.found.append(f"{total} jobs to see there")

    def failure(self, error: Exception) -> str:
        """Describe an error of :meth:`run`: which step failed, and what was fine before."""
        step = self.step
        if isinstance(error, errors.CdmUnavailable):
            asked = "IAM" if self.step == CREDENTIALS else "CDM"
            step = f"{asked} endpoint"
        elif isinstance(error, errors.CdmAuthError):
            step = CREDENTIALS if error.http_status == 401 else f"{self.step}, or permission for it"
        elif isinstance(error, errors.CdmConfigError):
            step = PROJECT
        fine = f" Fine so far: {'; '.join(self.found)}." if self.found else ""
        return f"Failed at: {step}. {error}{fine}"

    def success(self) -> str:
        """Describe what was found."""
        return f"It works: {'; '.join(self.found)}."

    def _who(self, authorization: Authorization) -> str:
        credentials, agency = self.api.settings.credentials, self.api.settings.agency
        if isinstance(authorization, Token):
            ends = datetime.fromtimestamp(authorization.expires_at, UTC).strftime(
                "%Y-%m-%d %H:%M UTC"
            )
            who = f"agency {agency.name!r}" if agency else f"user {authorization.user_name!r}"
            return f"IAM accepts {who} (the token ends {ends})"
        if isinstance(credentials, KeyCredentials):
            return f"requests are signed with access key {credentials.access_key[:4]}..."
        return "the credentials are accepted"

    def _note_project(self, authorization: Authorization) -> None:
        settings = self.api.settings
        project_id = settings.project_id or authorization.project_id
        name = (
            authorization.project_name if isinstance(authorization, Token) else None
        ) or settings.project_name
        self.found.append(f"project {name} ({project_id})" if name else f"project {project_id}")

    def _choose(self, clusters: list[Cluster]) -> Cluster | None:
        """The cluster to look at where the connection names none."""
        listed = ", ".join(f"{one}: {one.state}" for one in clusters[:5]) or "none"
        self.found.append(f"no Cluster ID is filled in; clusters of the project: {listed}")
        return next((one for one in clusters if one.state == NORMAL), None)
