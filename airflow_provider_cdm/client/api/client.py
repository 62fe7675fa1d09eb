"""Control flow, written once for threads and event loops: call, find, stop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import resources, runs
from airflow_provider_cdm.client.api.call import Call
from airflow_provider_cdm.client.api.definitions import Kind
from airflow_provider_cdm.client.auth.base import Authenticator, Authorization, with_authorization
from airflow_provider_cdm.client.http.retry import Exchanger
from airflow_provider_cdm.client.sansio import Flow, Request, Response
from airflow_provider_cdm.client.settings import Settings
from airflow_provider_cdm.client.submission import RunRef, Submission, Verdict, newest_first

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CdmApi:
    """The flows of one user in one project.

    :param settings: where to send calls.
    :param auth: authorises them.
    :param exchanger: performs them.
    """

    settings: Settings
    auth: Authenticator
    exchanger: Exchanger

    def call(self, call: Call[T]) -> Flow[T]:
        """Perform one operation: authorise, send, interpret, repeat where that is right.

        :raises CdmError: what the last attempt came to.
        """
        response = yield from with_authorization(
            self.auth, lambda authorization: self._send(call, authorization)
        )
        return call.parse(response, call)

    def find(self, kind: Kind, cluster_id: str, name: str) -> Flow[dict[str, Any] | None]:
        """Read the definition of a job or link, ``None`` if there is no such thing."""
        try:
            return (yield from self.call(resources.show(kind, cluster_id, name)))
        except errors.CdmNotFound as error:
            if error.reported_by_cdm:
                return None
            raise

    def active_run(self, cluster_id: str, job_name: str) -> Flow[Submission | None]:
        """Find the run of the job that is active now, whoever started it."""
        seen = yield from self.call(runs.status(cluster_id, job_name))
        newest = newest_first(seen)[0] if seen else None
        if newest is None or newest.ended or newest.verdict is Verdict.NO_RUN:
            return None
        return newest

    def first_run_since(
        self, cluster_id: str, job_name: str, created_from: int
    ) -> Flow[Submission | None]:
        """Find the first run created at or after an instant.

        :param created_from: epoch milliseconds.
        :returns: the run, or ``None`` while there is none.
        :raises CdmOutcomeUnknown: when the history is too short to tell which run was the first.
        """
        history = yield from self.call(runs.history(cluster_id, job_name))
        dated = [s for s in history.submissions if s.creation_date is not None]
        later = [s for s in dated if (s.creation_date or 0) >= created_from]
        if not later:
            return None
        if len(later) == len(history.submissions) and not history.complete:
            raise errors.CdmOutcomeUnknown(
                f"CDM shows the {len(later)} newest of {history.total} runs of job {job_name!r} in"
                f" cluster {cluster_id}, all created since {created_from} ms; which one was the"
                " first cannot be told. Give the submission, or its id, to the sensor.",
                later[-1],
            )
        return newest_first(later)[-1]

    def stop_run(self, run: RunRef) -> Flow[bool]:
        """Stop one run, and only that one: stopping goes by job name, so look first.

        :returns: whether a stop was sent; ``False`` when the run is not the active one.
        """
        active = yield from self.active_run(run.cluster_id, run.job_name)
        if active is None or not run.is_run(active):
            return False
        return (yield from self.stop(run.cluster_id, run.job_name))

    def stop(self, cluster_id: str, job_name: str) -> Flow[bool]:
        """Stop whatever run of the job is active.

        :returns: ``False`` when there was nothing to stop.
        """
        try:
            yield from self.call(runs.stop_job(cluster_id, job_name))
        except errors.CdmNotRunning:
            return False
        return True

    def _send(self, call: Call[T], authorization: Authorization) -> Flow[Response]:
        project_id = self.settings.project_id or authorization.project_id
        if project_id is None:
            raise errors.CdmConfigError(
                "The project is not known: IAM's token names none. Fill in Project ID."
            )
        request = Request(
            method=call.method,
            url=self.settings.cdm_endpoint + call.target(project_id),
            headers={"Content-Type": "application/json", "X-Language": "en-us"},
            body=call.payload(),
        )
        return self.exchanger.exchange(
            request,
            call.operation,
            idempotent=call.idempotent,
            wait_for_quota=call.wait_for_quota,
            authorize=authorization.apply,
        )
