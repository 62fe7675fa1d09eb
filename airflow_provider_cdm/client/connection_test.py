"""The connection test: steps that show whether a connection works, and which step failed."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import resources
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.cluster import NORMAL, Cluster
from airflow_provider_cdm.client.api.definitions import JOB_TYPES, NORMAL_JOB
from airflow_provider_cdm.client.auth.base import Authorization
from airflow_provider_cdm.client.auth.iam import Token
from airflow_provider_cdm.client.sansio import Flow
from airflow_provider_cdm.client.settings import KeyCredentials

CREDENTIALS = "credentials"
PROJECT = "project"
CLUSTER = "cluster"
JOBS = "list of jobs"


@dataclass(slots=True)
class ConnectionTest:
    """One test of a connection: credentials, project, cluster, and permission to read jobs.

    :param api: client of the connection.
    :param step: name of the current step, for messages.
    :param results: results of the steps that passed.
    """

    api: CdmApi
    step: str = CREDENTIALS
    results: list[str] = field(default_factory=list)

    def run(self) -> Flow[None]:
        """Perform all steps.

        :raises CdmError: the error of the step that failed.
        """
        authorization = yield from self.api.auth.authorize()
        self.results.append(self._describe_user(authorization))
        self.step = PROJECT
        settings = self.api.settings
        if settings.cluster_id is None:
            clusters = yield from self.api.call(resources.list_clusters())
            self._add_project(authorization)
            cluster = self._choose_cluster(clusters)
        else:
            self.step = CLUSTER
            cluster = yield from self.api.call(resources.show_cluster(settings.cluster_id))
            self._add_project(authorization)
            self.results.append(f"{cluster}: {cluster.state}")
        if cluster is None or cluster.state != NORMAL:
            self.results.append("jobs can run only on a cluster in state normal")
            return
        self.step = JOBS
        self.results.append((yield from self._count_jobs(cluster.cluster_id)))

    def _count_jobs(self, cluster_id: str) -> Flow[str]:
        """Return how many jobs of all types the user sees; each type has a list of its own."""
        total, certain = 0, True
        for job_type in JOB_TYPES:
            try:
                call = resources.list_jobs(cluster_id, 1, job_type=job_type)
                page = yield from self.api.call(call)
            except errors.CdmRefused:
                if job_type == NORMAL_JOB:
                    raise
                certain = False  # this release of CDM may not have such jobs
                continue
            total += len(page.jobs) if page.total is None else page.total
            certain = certain and (
                page.total is not None or len(page.jobs) < resources.LISTING_PAGE
            )
        jobs = "1 job is" if total == 1 else f"{total} jobs are"
        return f"{'' if certain else 'at least '}{jobs} visible there"

    def failure(self, error: Exception) -> str:
        """Describe an error of :meth:`run`: the step that failed, and the steps that passed."""
        step = self.step
        if isinstance(error, errors.CdmUnavailable):
            service = "IAM" if self.step == CREDENTIALS else "CDM"
            step = f"{service} endpoint"
        elif isinstance(error, errors.CdmConfigError):
            step = PROJECT
        elif isinstance(error, errors.CdmError) and error.concerns_project:
            # IAM has accepted the credentials; only CDM knows whether they fit its endpoint.
            step = PROJECT if step == CREDENTIALS else f"{PROJECT}, or the endpoint of its region"
        elif isinstance(error, errors.CdmAuthError):
            refused = error.refuses_credentials
            step = CREDENTIALS if refused else f"{self.step}, or permission for it"
        passed = f" Passed before: {'; '.join(self.results)}." if self.results else ""
        return f"Failed at: {step}. {error}{passed}"

    def success(self) -> str:
        """Describe the results of all steps."""
        return f"The connection works: {'; '.join(self.results)}."

    def _describe_user(self, authorization: Authorization) -> str:
        credentials, agency = self.api.settings.credentials, self.api.settings.agency
        if isinstance(authorization, Token):
            exchanger = self.api.exchanger
            left = authorization.expires_at - exchanger.uptime()
            expiry = datetime.fromtimestamp(exchanger.server_time() + left, UTC)
            user = f"agency {agency.name!r}" if agency else f"user {authorization.user_name!r}"
            return f"IAM accepts {user} (the token expires at {expiry:%Y-%m-%d %H:%M} UTC)"
        if isinstance(credentials, KeyCredentials):
            key = credentials.access_key[:4]
            return f"requests are signed with the access key that begins with {key}"
        return "the credentials are accepted"

    def _add_project(self, authorization: Authorization) -> None:
        settings = self.api.settings
        project_id = settings.project_id or authorization.project_id
        name = (
            authorization.project_name if isinstance(authorization, Token) else None
        ) or settings.project_name
        self.results.append(f"project {name} ({project_id})" if name else f"project {project_id}")

    def _choose_cluster(self, clusters: list[Cluster]) -> Cluster | None:
        """Choose a cluster whose jobs are read if the connection names none."""
        listed = ", ".join(f"{cluster}: {cluster.state}" for cluster in clusters[:5]) or "none"
        self.results.append(f"no Cluster ID is filled in; clusters of the project: {listed}")
        return next((cluster for cluster in clusters if cluster.state == NORMAL), None)
