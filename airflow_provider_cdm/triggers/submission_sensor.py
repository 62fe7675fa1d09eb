"""The trigger with which a sensor begins in the triggerer, without a worker."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm import rendering
from airflow_provider_cdm._compat import START_TIMEOUT, set_xcom, template_environment
from airflow_provider_cdm.client import arguments as checks
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.definitions import JOB_TYPES
from airflow_provider_cdm.client.jobs.thresholds import Thresholds
from airflow_provider_cdm.client.named_run import describe_wait, name_run
from airflow_provider_cdm.client.submission import RunRef
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.links import CdmRunLink, run_address
from airflow_provider_cdm.triggers.submission import CdmSubmissionTrigger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_cdm.client.session import CdmSession

log = logging.getLogger(__name__)

#: Seconds after which rendering is given up: what Airflow's triggerer does not answer, it does not
#: refuse either.
_RENDER_SECONDS = 60.0
#: Arguments that say where the run is, and must name something if they are given.
_PLACES = ("cluster_id", "project_id", "cdm_conn_id")
#: Seconds that may be spent on the address of the run.
_LINK_SECONDS = 10.0


class CdmSubmissionSensorTrigger(CdmSubmissionTrigger):
    """Begins a :class:`~airflow_provider_cdm.sensors.CdmSubmissionSensor` in the triggerer: renders
    its arguments, finds out which run they name, and waits for its end.

    Takes the arguments of the sensor, with their templates. Whatever is wrong with them ends the
    wait with the error that the sensor would raise on a worker.

    :param poke_interval: seconds between two polls.
    :param timeout: seconds after which the sensor times out.
    :param execution_timeout: seconds after which Airflow ends the attempt, if the task has a limit.
    :param execution_limit: seconds after which the trigger ends it, somewhat earlier.
    :param exponential_backoff: whether to warn that it has no effect.
    """

    #: Arguments that may hold templates.
    templates = (
        "submission",
        "job_name",
        "submission_id",
        "started_after",
        "cluster_id",
        "project_id",
        "cdm_conn_id",
        "min_rows_written",
        "max_rows_skipped",
        "partition_key",
        "stalled_after",
        "poke_interval",
        "timeout",
    )
    arguments = (
        *templates,
        "rows_written_equal_read",
        "fail_when_stalled",
        "report_stalls",
        "execution_timeout",
        "execution_limit",
        "exponential_backoff",
    )
    #: When Airflow ends the wait; it sets this before the trigger runs.
    timeout_after: datetime | None = None

    def __init__(
        self,
        *,
        timeout: Any,
        poke_interval: Any,
        submission: Any = None,
        job_name: Any = None,
        submission_id: Any = None,
        started_after: Any = None,
        cluster_id: Any = None,
        project_id: Any = None,
        cdm_conn_id: Any = CdmHook.default_conn_name,
        min_rows_written: Any = None,
        max_rows_skipped: Any = None,
        rows_written_equal_read: bool = False,
        partition_key: Any = None,
        stalled_after: Any = checks.STALLED_AFTER,
        fail_when_stalled: bool = False,
        report_stalls: bool = False,
        execution_timeout: float | None = None,
        execution_limit: float | None = None,
        exponential_backoff: bool = False,
    ) -> None:
        super().__init__(
            job_name=job_name,
            cluster_id=cluster_id,
            submission_id=submission_id,
            started_after=started_after,
            stalled_after=stalled_after,
            fail_when_stalled=fail_when_stalled,
            report_stalls=report_stalls,
            project_id=project_id,
            cdm_conn_id=cdm_conn_id,
        )
        self.submission = submission
        self.poke_interval = poke_interval
        self.timeout = timeout
        self.min_rows_written = min_rows_written
        self.max_rows_skipped = max_rows_skipped
        self.rows_written_equal_read = rows_written_equal_read
        self.partition_key = partition_key
        self.execution_timeout = execution_timeout
        self.execution_limit = execution_limit
        self.exponential_backoff = exponential_backoff
        self._context: Any = None

    def render_template_fields(
        self,
        context: Any,
        jinja_env: Any = None,  # noqa: ARG002 - as Airflow passes it
    ) -> None:
        """Keep the context for :meth:`run`, whose errors reach the task with their types."""
        self._context = context

    async def _open_session(self) -> CdmSession:
        try:
            async with asyncio.timeout(_RENDER_SECONDS):
                given = await self._render_arguments()
        except TimeoutError:
            raise errors.CdmUnavailable(
                f"The arguments could not be rendered within {_RENDER_SECONDS:.0f} s: a template"
                " asks for something that Airflow's triggerer does not answer. If that happens"
                " again, remove it from the template, or set start_from_trigger=False."
            ) from None
        self._check(given)
        session = await super()._open_session()
        await self._name_run(session)
        self._set_deadline(session)
        if self.exponential_backoff:
            log.warning(
                "exponential_backoff has no effect in the triggerer: this sensor polls every %g s"
                " (poke_interval)",
                self.poll_interval,
            )
        return session

    async def _end_run(self) -> None:
        # Before, what names the run may be a template.
        if self.deadline is not None:
            await super()._end_run()

    async def _render_arguments(self) -> frozenset[str]:
        """Render the arguments, and return the names of those that are given.

        Look-ups suspend the coroutine, by way of Airflow's greenlets.

        :raises CdmConfigError: when a template cannot be rendered, or comes to nothing.
        """
        environment = rendering.text_environment(template_environment())
        nothing: dict[str, str] = {}
        given = frozenset(name for name in self.templates if getattr(self, name) is not None)
        for name in sorted(given):
            source = getattr(self, name)
            try:
                rendered = self._render_value(source, environment)
            except rendering.TEMPLATE_ERRORS as error:
                raise errors.CdmConfigError(
                    f"The template of {name} cannot be rendered: {error}."
                ) from None
            value, found = rendering.take_nothing(name, source, rendered)
            nothing |= {each.where: each.template for each in found}
            setattr(self, name, value)
        if nothing:
            raise errors.CdmConfigError(rendering.describe_nothing(nothing))
        return given

    def _render_value(self, value: Any, environment: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._render_value(each, environment) for key, each in value.items()}
        if isinstance(value, list):
            return [self._render_value(each, environment) for each in value]
        if not isinstance(value, str) or not rendering.is_template(value):
            return value
        if self._context is None:
            raise errors.CdmUnavailable(
                "Airflow did not provide what the templates of this task are rendered with: the"
                " DAG was changed since the wait began, and its newest version does not start"
                " this task in the triggerer. A retry of the task begins as that version says."
            )
        return rendering.render(environment.from_string(value), self._context)

    def _check(self, given: frozenset[str]) -> None:
        """Check what does not need the connection.

        :raises CdmConfigError: when an argument cannot be used.
        """
        for name in _PLACES:
            if name in given:
                checks.ensure_names_something(name, getattr(self, name))
        duration = checks.seconds
        self.stalled_after = duration("stalled_after", self.stalled_after)
        self.poll_interval, self.timeout = (
            duration(name, getattr(self, name), optional=False, positive=False)
            for name in ("poke_interval", "timeout")
        )
        Thresholds.of(self.min_rows_written, self.max_rows_skipped, self.rows_written_equal_read)
        if "partition_key" in given:
            checks.partition_key(self.partition_key)

    async def _name_run(self, session: CdmSession) -> None:
        given = (self.submission, self.job_name, self.submission_id, self.started_after)
        run, created_from = name_run(*given, self.cluster_id)
        cluster_id = checks.cluster_id(run.cluster_id, session.settings.cluster_id)
        run = RunRef(cluster_id, run.job_name, run.submission_id, run.creation_date)
        self.cluster_id, self.job_name = run.cluster_id, run.job_name
        self.submission_id, self.creation_date = run.submission_id, run.creation_date
        self.started_after = None if run.known else created_from
        self.job_type = _job_type(self.submission)
        log.info("%s", describe_wait(run, created_from, self.cdm_conn_id))
        if run.submission_id is not None and self._context is not None:
            await self._store_link(session, run)

    async def _store_link(self, session: CdmSession, run: RunRef) -> None:
        """Let the button "CDM run" work while the sensor waits, as on a worker."""
        try:
            async with asyncio.timeout(_LINK_SECONDS):
                await self._push_link(session, run)
        except Exception as error:
            log.warning("The button 'CDM run' works only when the run has ended: %r", error)

    async def _push_link(self, session: CdmSession, run: RunRef) -> None:
        set_xcom(self._context["ti"], CdmRunLink().xcom_key, run_address(session.settings, run))

    def _set_deadline(self, session: CdmSession) -> None:
        """Count the limits from when the attempt began, whatever triggerer this is."""
        began = session.clock()
        if self.timeout_after is not None:
            ends = self.timeout_after
            ends = ends if ends.tzinfo else ends.replace(tzinfo=UTC)
            began = ends.timestamp() - min(START_TIMEOUT, self.execution_timeout or START_TIMEOUT)
        seconds, self.limit = self.timeout, "timeout"
        if self.execution_limit is not None and self.execution_limit < seconds:
            seconds, self.limit = self.execution_limit, "execution_timeout"
        self.deadline = began + seconds


def _job_type(submission: Mapping[str, Any] | None) -> str | None:
    """Return the type of the job, where the task that started the run knew it."""
    job_type = (submission or {}).get("job_type")
    return job_type if job_type in JOB_TYPES else None
