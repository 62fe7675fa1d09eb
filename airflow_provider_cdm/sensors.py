"""A sensor for one run of a CDM job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm._compat import (
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)
from airflow_provider_cdm.client import checks, errors
from airflow_provider_cdm.client.following import Follower, ensure_succeeded
from airflow_provider_cdm.client.models import RunRef, Submission
from airflow_provider_cdm.client.progress import ProgressLog
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.links import CdmRunLink
from airflow_provider_cdm.triggers import CdmSubmissionTrigger, SubmissionEvent

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import Context
    from airflow_provider_cdm.client.session import CdmSession


class CdmSubmissionSensor(BaseSensorOperator):
    """Waits until one run of a CDM job is over, and fails unless it ended well.

    It judges the run that was asked for and no other: neither an earlier run that the status still
    shows, nor a later one by somebody else. Returns the same object as
    :class:`~airflow_provider_cdm.operators.CdmStartJobOperator`.

    Name the run in one of three ways:

    :param submission: what the operator returned, as ``start.output`` (templated).
    :param job_name: name of the job, with one of the next two (templated).
    :param submission_id: number of the run (templated).
    :param started_after: take the first run created at or after this instant: a ``datetime``, an
        ISO 8601 text (UTC if it names no zone), or epoch milliseconds (templated).
    :param cluster_id: cluster of the job; by default the connection's (templated).
    :param project_id: project of the cluster; by default the connection's (templated).
    :param deferrable: wait in the triggerer. ``poke_interval`` and ``timeout`` mean the same there.
    :param cdm_conn_id: connection of type ``huaweicloud_cdm`` (templated).
    """

    template_fields: Sequence[str] = (
        "submission",
        "job_name",
        "cluster_id",
        "submission_id",
        "started_after",
        "project_id",
        "cdm_conn_id",
    )
    template_fields_renderers = {"submission": "json"}  # noqa: RUF012 - as Airflow declares it
    operator_extra_links = (CdmRunLink(),)
    ui_color = "#e3ecf4"

    def __init__(
        self,
        *,
        submission: Mapping[str, Any] | None = None,
        job_name: str | None = None,
        cluster_id: str | None = None,
        submission_id: int | str | None = None,
        started_after: datetime | str | int | None = None,
        project_id: str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        cdm_conn_id: str = CdmHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.submission = submission
        self.job_name = job_name
        self.cluster_id = cluster_id
        self.submission_id = submission_id
        self.started_after = started_after
        self.project_id = project_id
        self.deferrable = deferrable
        self.cdm_conn_id = cdm_conn_id
        self._session: CdmSession | None = None
        self._follower: Follower | None = None
        self._progress: ProgressLog | None = None

    def execute(self, context: Context) -> Any:
        """Wait, by poking or by deferring."""
        if not self.deferrable:
            return super().execute(context)
        answer = self.poke(context)
        if answer.is_done:
            return answer.xcom_value
        session, wanted = self._connect()
        run = self._follower.run if self._follower else None
        self.defer(
            trigger=CdmSubmissionTrigger(
                job_name=wanted.job_name,
                cluster_id=wanted.cluster_id,
                submission_id=run.submission_id if run else None,
                creation_date=run.creation_date if run else None,
                started_after=None if run else self._created_from(),
                poll_interval=self.poke_interval,
                deadline=session.clock() + self.timeout,
                project_id=self.project_id,
                cdm_conn_id=self.cdm_conn_id,
            ),
            method_name="execute_complete",
        )

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once: at the run, or for it.

        :raises CdmSubmissionFailed: when the run ended in any other way than ``SUCCEEDED``.
        """
        session, wanted = self._connect()
        if self._follower is None:
            run = self._find(session, wanted)
            if run is None:
                self.log.info("No run of job %r since %s yet", wanted.job_name, self.started_after)
                return PokeReturnValue(is_done=False)
            CdmRunLink.store(
                context,
                session.settings,
                Submission(run.cluster_id, run.job_name, "", run.submission_id),
            )
            self._follower = Follower(run)
            self._progress = ProgressLog(self.log.info, session.clock)
        try:
            seen = session.run(self._follower.look(session.flows))
            if self._progress is not None:
                self._progress(seen)
            if seen is None or not seen.ended:
                return PokeReturnValue(is_done=False)
            return PokeReturnValue(is_done=True, xcom_value=ensure_succeeded(seen).to_dict())
        except errors.CdmSubmissionFailed as failure:
            self._skip_if_soft(failure)
            raise

    def execute_complete(
        self,
        context: Context,  # noqa: ARG002 - Airflow passes it
        event: Any = None,
    ) -> dict[str, Any]:
        """Go on after a deferred wait."""
        try:
            return ensure_succeeded(SubmissionEvent.unwrap(event)).to_dict()
        except errors.CdmWaitTimeout as error:
            self._skip_if_soft(error)
            raise AirflowSensorTimeout(str(error)) from error
        except errors.CdmSubmissionFailed as failure:
            self._skip_if_soft(failure)
            raise

    def _skip_if_soft(self, error: errors.CdmError) -> None:
        if self.soft_fail or getattr(self, "never_fail", False):
            raise AirflowSkipException(f"Skipped because of soft_fail: {error}") from error

    def _connect(self) -> tuple[CdmSession, RunRef]:
        """Check the rendered arguments, resolve the connection, and say which run is wanted."""
        wanted = self._wanted()
        hook = CdmHook(self.cdm_conn_id, wanted.cluster_id, self.project_id)
        if self._session is None:
            self._session = hook.get_conn()
        cluster = checks.cluster_id(wanted.cluster_id, self._session.settings.cluster_id)
        return self._session, RunRef(
            cluster, wanted.job_name, wanted.submission_id, wanted.creation_date
        )

    def _wanted(self) -> RunRef:
        if self.submission is not None:
            return self._from_submission(self.submission)
        name = checks.job_name(self.job_name)
        number = _whole("submission_id", self.submission_id)
        if (number is None) == (self.started_after is None):
            raise errors.CdmConfigError(
                "Name the run: pass submission (the output of CdmStartJobOperator), or job_name"
                " with either submission_id or started_after."
            )
        return RunRef(self.cluster_id or "", name, number)

    def _from_submission(self, given: Any) -> RunRef:
        if not isinstance(given, Mapping):
            raise errors.CdmConfigError(
                f"submission must be what CdmStartJobOperator returned, not {type(given).__name__}."
            )
        number = _whole("submission['submission_id']", given.get("submission_id"))
        created = _whole("submission['creation_date']", given.get("creation_date"))
        if number is None and created is None:
            raise errors.CdmConfigError(
                "submission names no run: it has neither submission_id nor creation_date."
            )
        return RunRef(
            given.get("cluster_id") or self.cluster_id or "",
            checks.job_name(given.get("job_name")),
            number,
            created,
        )

    def _find(self, session: CdmSession, wanted: RunRef) -> RunRef | None:
        if wanted.submission_id is not None or wanted.creation_date is not None:
            return wanted
        found = session.run(
            session.flows.first_run_since(wanted.cluster_id, wanted.job_name, self._created_from())
        )
        return RunRef.of(found) if found else None

    def _created_from(self) -> int:
        """``started_after`` in epoch milliseconds."""
        value = self.started_after
        if isinstance(value, str):
            try:
                value = int(value) if value.strip().isdigit() else datetime.fromisoformat(value)
            except ValueError:
                raise errors.CdmConfigError(
                    f"started_after is neither a time in ISO 8601 nor epoch ms: {value!r}"
                ) from None
        if isinstance(value, datetime):
            aware = value if value.tzinfo else value.replace(tzinfo=UTC)
            # Rounded down: a run created in the same millisecond counts.
            return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise errors.CdmConfigError(
            f"started_after must be a time or epoch ms, not {type(value).__name__}."
        )


def _whole(argument: str, value: Any) -> int | None:
    if value is None or value == "":
        return None
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = -1
    if isinstance(value, bool) or number < 0:
        raise errors.CdmConfigError(f"{argument} must be a whole number, not {value!r}.")
    return number
