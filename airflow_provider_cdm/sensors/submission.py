"""A sensor for one run of a CDM job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm._compat import (
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)
from airflow_provider_cdm.client import arguments, errors
from airflow_provider_cdm.client.jobs.follower import Follower
from airflow_provider_cdm.client.jobs.progress import STALLED_AFTER, ProgressLog, StallPolicy
from airflow_provider_cdm.client.submission import RunRef
from airflow_provider_cdm.client.whole_database.collect import TableProgress
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.links import CdmRunLink
from airflow_provider_cdm.tasks.base import fail_without_retry
from airflow_provider_cdm.tasks.journal import TaskStore
from airflow_provider_cdm.tasks.outcome import SOFT_FAILURES, RunOutcomeMixin
from airflow_provider_cdm.triggers.submission import (
    CdmSubmissionTrigger,
    SubmissionEvent,
    wait_limit,
)

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import Context, XComArg
    from airflow_provider_cdm.client.session import CdmSession


class CdmSubmissionSensor(RunOutcomeMixin, BaseSensorOperator):
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
    :param stalled_after: seconds in which neither status nor progress nor rows move, and after
        which the log warns; ``None`` for never.
    :param fail_when_stalled: stop waiting then, with
        :class:`~airflow_provider_cdm.exceptions.CdmStalled`; the run goes on.
    :param deferrable: wait in the triggerer. ``poke_interval`` and ``timeout`` mean the same there.
    :param cdm_conn_id: connection of type ``huaweicloud_cdm`` (templated).

    ``min_rows_written``, ``max_rows_skipped`` and ``rows_written_equal_read`` are those of
    :class:`~airflow_provider_cdm.tasks.outcome.RunOutcomeMixin`.
    """

    template_fields: Sequence[str] = (
        "submission",
        "job_name",
        "cluster_id",
        "submission_id",
        "started_after",
        "project_id",
        "cdm_conn_id",
        *RunOutcomeMixin.template_fields,
    )
    template_fields_renderers = {"submission": "json"}  # noqa: RUF012 - as Airflow declares it
    operator_extra_links = (CdmRunLink(),)
    ui_color = "#e3ecf4"

    def __init__(
        self,
        *,
        submission: Mapping[str, Any] | XComArg | None = None,
        job_name: str | None = None,
        cluster_id: str | None = None,
        submission_id: int | str | None = None,
        started_after: datetime | str | int | None = None,
        project_id: str | None = None,
        stalled_after: float | None = STALLED_AFTER,
        fail_when_stalled: bool = False,
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
        self.stalled_after = stalled_after
        self.fail_when_stalled = fail_when_stalled
        self.deferrable = deferrable
        self.cdm_conn_id = cdm_conn_id
        arguments.positive_seconds(stalled_after=stalled_after)
        self._session: CdmSession | None = None
        self._follower: Follower | None = None
        self._progress: ProgressLog | None = None
        self._tables = TableProgress()
        self._linked = False

    @fail_without_retry
    def execute(self, context: Context) -> Any:
        """Wait, by poking or by deferring."""
        if not self.deferrable:
            return super().execute(context)
        session, _ = self._connect()
        seconds, limit = self._limit()
        deadline = session.clock() + seconds
        answer = self.poke(context)
        if not answer.is_done:
            self._defer(deadline, limit)
        return answer.xcom_value

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once: for the run if it is not known yet, else at it.

        :raises CdmSubmissionFailed: when the run ended in any other way than ``SUCCEEDED``.
        """
        session, follower = self._connect()
        progress = self._progress
        if not self.reschedule or progress is None:
            return self._look(context, session, follower)
        # Each poke of this mode is a process of its own, so what a look learnt is written down.
        notebook = TaskStore(context, "sensor")
        remembered = notebook.read()
        follower.restore(remembered)
        progress.restore((remembered or {}).get("progress"))
        self._tables.restore((remembered or {}).get("tables"))
        learnt = None
        try:
            answer = self._look(context, session, follower)
            if not answer.is_done:
                learnt = {
                    **follower.dump(),
                    "progress": progress.dump(),
                    "tables": self._tables.dump(),
                }
        finally:
            if learnt is not None and learnt != remembered:
                notebook.write(learnt)
            elif learnt is None and remembered is not None:
                notebook.delete()
        return answer

    def _look(self, context: Context, session: CdmSession, follower: Follower) -> PokeReturnValue:
        try:
            seen = session.run(follower.poll(session.api))
            if seen is not None and not self._linked:
                CdmRunLink.store(context, session.settings, seen)
                self._linked = True
            if not follower.run.known:
                self.log.info("No such run of job %r yet", follower.run.job_name)
            if self._progress is not None:
                self._progress(seen)
            if seen is not None:
                session.run(self._tables(session.api, seen))
            if seen is None or not seen.ended:
                return PokeReturnValue(is_done=False)
            ended = self._with_tables(self._tables.with_job_type(seen))
            return PokeReturnValue(is_done=True, xcom_value=self._judge(context, ended))
        except SOFT_FAILURES as failure:
            self._skip_if_soft(failure)
            raise

    @fail_without_retry
    def execute_complete(
        self,
        context: Context,
        event: Any = None,
    ) -> dict[str, Any]:
        """Go on after a deferred wait."""
        try:
            ended = self._with_tables(SubmissionEvent.unwrap(event))
            return self._judge(context, ended)
        except errors.CdmWaitTimeout as error:
            self._skip_if_soft(error)
            if isinstance(error, errors.CdmStalled) or self._limit()[1] != "timeout":
                raise
            raise AirflowSensorTimeout(str(error)) from error
        except SOFT_FAILURES as failure:
            self._skip_if_soft(failure)
            raise

    def _open_session(self) -> CdmSession:
        return self._connect()[0]

    def _limit(self) -> tuple[float, str]:
        """How long a deferred wait may take, in seconds, and which argument says so."""
        seconds, name = wait_limit(self.timeout, "timeout", self.execution_timeout)
        return seconds or 0.0, name

    def _skip_if_soft(self, error: errors.CdmError) -> None:
        if self.soft_fail or getattr(self, "never_fail", False):
            raise AirflowSkipException(f"Skipped because of soft_fail: {error}") from error

    def _connect(self) -> tuple[CdmSession, Follower]:
        """Check the rendered arguments, and resolve the connection, once for all pokes."""
        if self._session is None or self._follower is None:
            wanted = self._wanted()
            self._thresholds()
            created_from = 0 if wanted.known else self._created_from()
            hook = CdmHook(self.cdm_conn_id, wanted.cluster_id, self.project_id)
            self._session = hook.get_conn()
            run = replace(wanted, cluster_id=hook.resolve_cluster())
            self._follower = Follower(run, created_from=created_from)
            stall = StallPolicy(self.stalled_after, self.fail_when_stalled)
            self._progress = ProgressLog(self.log, self._session.clock, stall)
        return self._session, self._follower

    def _defer(self, deadline: float, limit: str) -> None:
        _, follower = self._connect()
        self.defer(
            trigger=CdmSubmissionTrigger(
                job_name=follower.run.job_name,
                cluster_id=follower.run.cluster_id,
                submission_id=follower.run.submission_id,
                creation_date=follower.run.creation_date,
                started_after=None if follower.run.known else follower.created_from,
                poll_interval=self.poke_interval,
                deadline=deadline,
                limit=limit,
                stalled_after=self.stalled_after,
                fail_when_stalled=self.fail_when_stalled,
                project_id=self.project_id,
                cdm_conn_id=self.cdm_conn_id,
            ),
            method_name="execute_complete",
        )

    def _wanted(self) -> RunRef:
        if self.submission is not None:
            return self._from_submission(self.submission)
        name = arguments.job_name(self.job_name)
        number = arguments.non_negative_int("submission_id", self.submission_id)
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
        number = arguments.non_negative_int(
            "submission['submission_id']", given.get("submission_id")
        )
        created = arguments.non_negative_int(
            "submission['creation_date']", given.get("creation_date")
        )
        if number is None and created is None:
            raise errors.CdmConfigError(
                "submission names no run: it has neither submission_id nor creation_date."
            )
        return RunRef(
            given.get("cluster_id") or self.cluster_id or "",
            arguments.job_name(given.get("job_name")),
            number,
            created,
        )

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
