"""The client of the API: flows that perform calls, find runs and stop them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import resources, runs
from airflow_provider_cdm.client.api.call import Call
from airflow_provider_cdm.client.api.definitions import JOB, JOB_TYPES, Kind
from airflow_provider_cdm.client.auth.base import Authenticator, Authorization, with_authorization
from airflow_provider_cdm.client.http import error_mapping
from airflow_provider_cdm.client.http.retry import Exchanger
from airflow_provider_cdm.client.sansio import Flow, Request, Response
from airflow_provider_cdm.client.settings import Settings
from airflow_provider_cdm.client.submission import RunRef, Submission, Verdict, newest_first
from airflow_provider_cdm.client.text import format_instant

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CdmApi:
    """The API for one user in one project.

    Each method returns a flow, to be performed by a session.

    :param settings: endpoints and project.
    :param auth: authenticator that authorizes the calls.
    :param exchanger: performer of HTTP exchanges, with retries.
    """

    settings: Settings
    auth: Authenticator
    exchanger: Exchanger

    def call(self, call: Call[T]) -> Flow[T]:
        """Authorize and send one operation, repeat it where that is safe, and parse the answer.

        :param call: operation, see :mod:`~airflow_provider_cdm.client.api.runs` and
            :mod:`~airflow_provider_cdm.client.api.resources`.
        :raises CdmError: when the last attempt failed.
        """
        try:
            response = yield from with_authorization(
                self.auth, lambda authorization: self._send(call, authorization), self._authorize
            )
        except errors.CdmRefused as error:
            if call.missing_if_404 and type(error) is errors.CdmRefused:
                raise error_mapping.as_not_found(error) from None
            raise
        return call.parse(response, call)

    def known_answer(self, call: Call[T]) -> T | None:  # noqa: ARG002 - for those that keep answers
        """Return the answer to an operation if it is known already, without sending anything."""
        return None

    def find(
        self,
        kind: Kind,
        cluster_id: str,
        name: str,
        *,
        job_type: str | None = None,
        wait_for_quota: bool = True,
        repeated: bool = True,
    ) -> Flow[dict[str, Any] | None]:
        """Read the definition of a job or link; return ``None`` if it does not exist.

        A job that is not found is looked for among the other types of jobs: without a type, CDM may
        show only jobs for tables and files.

        :param job_type: type of the job, if it is known: no other is looked for.
        :param wait_for_quota: whether to wait while the quota is used up.
        :param repeated: whether calls are repeated after a failure that may pass.
        """
        options: dict[str, Any] = {"wait_for_quota": wait_for_quota, "idempotent": repeated}
        call = replace(resources.show(kind, cluster_id, name), **options)
        try:
            return (yield from self.call(call))
        except errors.CdmNotFound as error:
            if not error.reported_by_cdm:
                raise
            refusal: errors.CdmError = error
        except errors.CdmBadResponse as error:
            # An answer without a job may mean that the job is of another type.
            if not error.is_empty:
                raise
            refusal = error
        for other in JOB_TYPES[1:] if kind is JOB else ():
            if job_type in (None, other):
                typed = resources.show(kind, cluster_id, name, other)
                # A release of CDM that has no such jobs may refuse the type.
                with suppress(errors.CdmRefused, errors.CdmBadResponse):
                    return (yield from self.call(replace(typed, **options)))
        if isinstance(refusal, errors.CdmNotFound):
            return None
        raise refusal

    def active_run(self, cluster_id: str, job_name: str) -> Flow[Submission | None]:
        """Return the active run of a job, whoever started it; ``None`` if none is active."""
        shown = yield from self.call(runs.status(cluster_id, job_name))
        newest = newest_first(shown)[0] if shown else None
        if newest is None or newest.ended or newest.verdict is Verdict.NO_RUN:
            return None
        return newest

    def first_run_since(
        self, cluster_id: str, job_name: str, created_from: int
    ) -> Flow[Submission | None]:
        """Find the first run of a job that was created at or after a point in time.

        :param created_from: that time, epoch milliseconds.
        :returns: the run, or ``None`` while there is none.
        :raises CdmOutcomeUnknown: when the history is too short to show which run was the first.
        """
        history = yield from self.call(runs.history(cluster_id, job_name))
        dated = [s for s in history.submissions if s.creation_date is not None]
        later = [s for s in dated if (s.creation_date or 0) >= created_from]
        if not later:
            return None
        if len(later) == len(history.submissions) and not history.complete:
            raise errors.CdmOutcomeUnknown(
                f"The first run of job {job_name!r} since {format_instant(created_from)} cannot be"
                f" determined: CDM shows the {len(later)} newest of {history.total} runs, and all"
                " were created since then. Pass the submission, or its id, to the sensor (cluster"
                f" {cluster_id}).",
                later[-1],
            )
        return newest_first(later)[-1]

    def stop_run(self, run: RunRef) -> Flow[bool]:
        """Stop one run, and no other: CDM stops by job name, so the active run is read first.

        :returns: whether the stop was sent; ``False`` if the run is not the active one.
        """
        active = yield from self.active_run(run.cluster_id, run.job_name)
        if active is None or not run.is_run(active):
            return False
        return (yield from self.stop(run.cluster_id, run.job_name))

    def stop(self, cluster_id: str, job_name: str) -> Flow[bool]:
        """Stop the active run of a job, whichever it is.

        :returns: ``False`` if none was active.
        """
        try:
            yield from self.call(runs.stop_job(cluster_id, job_name))
        except errors.CdmNotRunning:
            return False
        return True

    def _authorize(self) -> Flow[Authorization]:
        return self.auth.authorize()

    def _send(self, call: Call[T], authorization: Authorization) -> Flow[Response]:
        project_id = self.settings.project_id or authorization.project_id
        if project_id is None:
            raise errors.CdmConfigError(
                "The project is not known, because the token from IAM names none. Fill in Project"
                " ID in the connection."
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
