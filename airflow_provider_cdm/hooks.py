"""The hook: calls to CDM with an Airflow connection."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from airflow_provider_cdm import __version__, metrics
from airflow_provider_cdm._compat import (
    FORM_HIDES_SECRETS,
    BaseHook,
    amask_secret,
    mask_secret,
    token_cipher,
)
from airflow_provider_cdm.client import arguments, errors
from airflow_provider_cdm.client.api import runs
from airflow_provider_cdm.client.auth.masking import texts_to_mask
from airflow_provider_cdm.client.bounded import NotFinishedError, run_bounded
from airflow_provider_cdm.client.http.retry import RetryPolicy
from airflow_provider_cdm.client.jobs.start import start_once
from airflow_provider_cdm.client.jobs.start_record import StartPolicy, StartRequest
from airflow_provider_cdm.client.submission import newest_first
from airflow_provider_cdm.connection import DEFAULT_CONN_ID, lookup
from airflow_provider_cdm.connection.fields import (
    CONN_TYPE,
    CONN_TYPE_NAME,
    EXTRA_FIELDS,
    LABELS,
    PLACEHOLDERS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_cdm.client.sansio import Flow
    from airflow_provider_cdm.client.session import CdmSession, SaveRecord
    from airflow_provider_cdm.client.settings import Settings
    from airflow_provider_cdm.client.submission import Submission

__all__ = ["CdmHook"]

T = TypeVar("T")

#: Seconds that a test of the connection may take.
_TEST_SECONDS = 14.0
USER_AGENT = f"airflow-provider-cdm/{__version__}"


class CdmHook(BaseHook):
    """Calls CDM in one project as the user of an Airflow connection.

    Usable from ``@task`` functions. The connection is read at the first call, not before.

    :param cdm_conn_id: connection of type ``huaweicloud_cdm``.
    :param cluster_id: cluster for calls that name none; by default the connection's.
    :param project_id: project of the cluster; by default the connection's.
    """

    conn_name_attr = "cdm_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = CONN_TYPE
    hook_name = CONN_TYPE_NAME

    #: Arguments of every session besides its settings; tests set the clock and the sleep here.
    session_options: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        cdm_conn_id: str = default_conn_name,
        cluster_id: str | None = None,
        project_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cdm_conn_id = cdm_conn_id
        self.cluster_id = cluster_id
        self.project_id = project_id
        self._session: CdmSession | None = None

    def get_conn(self) -> CdmSession:
        """Return the session of this hook, created from the connection at the first call.

        :raises CdmConfigError: when the connection cannot be used; names all wrong fields at once.
        """
        if self._session is None:
            self._session = self._open(self._settings(), mask_secret, look_up=self._settings)
        return self._session

    async def aget_conn(self) -> CdmSession:
        """Return the same session, without blocking the event loop."""
        if self._session is None:
            loop = asyncio.get_running_loop()

            def mask(secret: list[str]) -> None:
                # Masking talks to the supervisor, which a flow must not wait for.
                asyncio.run_coroutine_threadsafe(amask_secret(secret), loop)

            read_again = partial(lookup.read_settings_from_thread, loop, self.cdm_conn_id)
            settings = await lookup.aread_settings(self.cdm_conn_id)
            self._session = self._open(settings, mask, look_up=read_again)
        return self._session

    def _settings(self) -> Settings:
        return lookup.read_settings(self.cdm_conn_id, self.get_connection)

    def _open(
        self,
        settings: Settings,
        mask: Callable[[list[str]], None],
        *,
        look_up: Callable[[], Settings] | None = None,
        impatient: bool = False,
    ) -> CdmSession:
        # Only a running task has a session; parsing a DAG does not need the modules for it.
        from airflow_provider_cdm.client.session import CdmSession

        options = self.session_options
        if impatient:
            settings = replace(settings, connect_timeout=4.0)
            options = {**options, "policy": RetryPolicy(attempts=1), "time_limit": 5.0}
            # The thread of the test must not go on after it.
            options["give_up_after"] = 0.9 * _TEST_SECONDS
        return CdmSession(
            settings.for_project(self.project_id),
            user_agent=USER_AGENT,
            on_token=lambda token: mask(texts_to_mask(token)),
            cipher=self._cipher(settings),
            look_up=look_up,
            on_exchange=metrics.count_call,
            **options,
        )

    def _cipher(self, settings: Settings) -> Any:
        if settings.token_cache is None:
            return None
        cipher = token_cipher()
        if cipher is None:
            self.log.warning(
                "Token Cache of connection %r is not used: tokens are only written to disk"
                " encrypted, and Airflow has no [core] fernet_key here.",
                self.cdm_conn_id,
            )
        return cipher

    def resolve_cluster(self, cluster_id: str | None = None) -> str:
        """Return the cluster that a call is for: the argument's, the hook's, or the connection's.

        :raises CdmConfigError: when none of them names one.
        """
        return arguments.cluster_id(
            cluster_id, self.cluster_id, self.get_conn().settings.cluster_id
        )

    def start_job(
        self,
        job_name: str,
        variables: Mapping[str, Any] | None = None,
        cluster_id: str | None = None,
    ) -> Submission:
        """Start a job and return its run, as CDM first described it.

        When the answer is lost, the history of the job shows whether it was started. A retry of the
        task starts the job again, though: only the operator keeps a journal.

        :param variables: values for ``${name}`` in the job's parameters, for this run only.
        :raises CdmAlreadyRunning: when the job has an active run.
        :raises CdmStartUncertain: when it is not known whether the job was started.
        :raises CdmError: for any other failure; then nothing was started.
        """
        name, values = arguments.job_name(job_name), arguments.variables(variables)
        session, cluster = self.get_conn(), self.resolve_cluster(cluster_id)
        start = start_once(session.api, StartRequest(cluster, name, values), None, StartPolicy())
        started = self._run(start, save=lambda _: None)
        metrics.count_start("found" if started.found else "new", None, cluster)
        return started.run

    def get_job_status(self, job_name: str, cluster_id: str | None = None) -> Submission:
        """Return the latest run of a job, with status ``NEVER_EXECUTED`` if there is none.

        :raises CdmNotFound: when there is no such job.
        """
        session, cluster = self.get_conn(), self.resolve_cluster(cluster_id)
        call = runs.status(cluster, arguments.job_name(job_name))
        seen = self._run(session.api.call(call))
        if not seen:
            raise errors.CdmBadResponse(
                f"Could not {call.operation}: the answer holds no submission."
            )
        return newest_first(seen)[0]

    def list_submissions(self, job_name: str, cluster_id: str | None = None) -> list[Submission]:
        """Return the runs of a job that CDM lists, newest first (by default it lists ten).

        :raises CdmNotFound: when there is no such job.
        """
        session, cluster = self.get_conn(), self.resolve_cluster(cluster_id)
        call = runs.history(cluster, arguments.job_name(job_name))
        return self._run(session.api.call(call)).submissions

    def stop_job(self, job_name: str, cluster_id: str | None = None) -> bool:
        """Ask CDM to stop the active run of a job, whoever started it; it ends a little later.

        :returns: ``False`` when the job had no active run.
        :raises CdmNotFound: when there is no such job.
        """
        session, cluster = self.get_conn(), self.resolve_cluster(cluster_id)
        return self._run(session.api.stop(cluster, arguments.job_name(job_name)))

    def _run(self, flow: Flow[T], save: SaveRecord | None = None) -> T:
        """Perform a flow; an error about the connection names it."""
        try:
            return self.get_conn().run(flow, save)
        except errors.CdmError as error:
            error.name_connection(self.cdm_conn_id)
            raise

    def test_connection(self) -> tuple[bool, str]:
        """Test the connection, for the Test button: takes 15 seconds at most, and never raises.

        Checks endpoints, credentials, project, cluster, and permission to read jobs; a failure
        names the step that failed.

        :returns: whether the connection works, and what was found.
        """
        from airflow_provider_cdm.client.connection_test import ConnectionTest

        try:
            session = self._open(self._settings(), mask_secret, impatient=True)
        except Exception as error:
            # The form has a connection without a name, and Airflow invents one.
            text = str(error).replace(f"The connection {self.cdm_conn_id!r}", "The connection")
            if FORM_HIDES_SECRETS and f"{LABELS['password']} is missing" in text:
                text += " The form does not show a stored password; to test it, enter it again."
            return False, f"Failed at: fields of the connection. {text}"
        check = ConnectionTest(session.api)

        def work() -> None:
            with session:
                session.run(check.run())

        try:
            run_bounded(work, _TEST_SECONDS)
        except NotFinishedError:
            slow = errors.CdmUnavailable(
                f"The test did not finish within {_TEST_SECONDS:.0f} s. Check that this machine can"
                " resolve the names of the endpoints and of the proxy, and that the network lets it"
                " connect to them."
            )
            return False, check.failure(slow)
        except Exception as error:
            return False, check.failure(error)
        return True, check.success()

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the extra fields of the form in Airflow 2; Airflow 3 reads provider info."""
        from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
        from wtforms import PasswordField, StringField

        return {
            field.name: (
                PasswordField(
                    field.label, widget=BS3PasswordFieldWidget(), description=field.description
                )
                if field.secret
                else StringField(
                    field.label, widget=BS3TextFieldWidget(), description=field.description
                )
            )
            for field in EXTRA_FIELDS
        }

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return labels and placeholders of the form in Airflow 2."""
        return {
            "hidden_fields": [],
            "relabeling": dict(LABELS),
            "placeholders": dict(PLACEHOLDERS),
        }
