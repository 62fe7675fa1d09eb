"""The check of a job's definition before the job is started, once.

The same call shows what is needed after the run: the type of the job, and its source and target.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import definitions
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.definitions import JOB, job_type_of
from airflow_provider_cdm.client.jobs.own_retry import own_retry_problem
from airflow_provider_cdm.client.jobs.placeholders import Placeholders
from airflow_provider_cdm.client.jobs.progress import Log
from airflow_provider_cdm.client.sansio import Flow
from airflow_provider_cdm.client.text import one_line

CheckVariables: TypeAlias = Literal["warn", "fail", "off"]

#: Characters of a definition that go along with a deferred task; a larger one is read again.
_CARRIED = 20_000
#: Names of variables that a message lists.
_NAMES = 20


@dataclass(slots=True)
class JobCheck:
    """Checks the definition of a job before the first start of an attempt.

    :param job_name: name of the job, for the messages.
    :param mode: what to do about a mismatch: ``warn``, ``fail`` or ``off``.
    :param variables: names of the variables that the task passes.
    :param other_day: function that returns how the day of a start, in epoch seconds, differs from
        the day that the task is for; empty if it does not.
    :param macro_hint: what to do about a date macro, as a sentence.
    :param log: log of the task.
    :param done: whether it has been checked, perhaps before a deferral.
    :param shown: the definition as CDM showed it then; ``None`` if it was not read.
    :param job_type: type of the job, as far as CDM showed it.
    :param cluster_id: cluster in which it was read.
    """

    job_name: str
    mode: CheckVariables
    variables: Collection[str]
    other_day: Callable[[float], str]
    macro_hint: str
    log: Log
    done: bool = False
    shown: Mapping[str, Any] | None = field(default=None, repr=False)
    job_type: str | None = None
    cluster_id: str | None = None

    def read_and_check(self, api: CdmApi, cluster_id: str) -> Flow[None]:
        """Read the definition from CDM, and check it.

        This waits for no quota and is not repeated: a start does not depend on it.

        :raises CdmRefused: when CDM shows the job as disabled.
        :raises CdmConfigError: for a mismatch, if the mode is ``fail``.
        """
        if self.cluster_id not in (None, cluster_id):
            # A stand-by cluster has a job of its own.
            self.done, self.shown, self.job_type = False, None, None
        if self.done or self.mode == "off":
            return
        self.cluster_id = cluster_id
        try:
            self.shown = yield from api.find(
                JOB, cluster_id, self.job_name, wait_for_quota=False, repeated=False
            )
            problem = "CDM does not show it"
        except errors.CdmError as error:
            # The start will be refused, too, and its error says all about it.
            refused = error.refuses_credentials
            problem = "the credentials were refused" if refused else str(error)
        if self.shown is None:
            # Whether the job exists is for the start to say.
            self.done = True
            self.log.info("Job %r is not checked before its start: %s", self.job_name, problem)
            return
        self.job_type = job_type_of(self.shown)
        self._ensure_enabled(cluster_id)
        self.check(self.shown, api.exchanger.server_time())

    def check(self, definition: Mapping[str, Any], now: float) -> None:
        """Compare a definition with the variables, and its date macros with the DAG run's date.

        :param now: current time, epoch seconds.
        :raises CdmConfigError: for a mismatch, if the mode is ``fail``.
        """
        if self.done or self.mode == "off":
            return
        found = Placeholders.of(definition, self.variables)
        problems = [*self._undefined(found), *self._unused(found)]
        if problems and self.mode == "fail":
            raise errors.CdmConfigError(
                f"{' '.join(problems)} Nothing was started (check_variables='fail')."
            )
        self.done = True
        if (problem := own_retry_problem(definition, self.variables)) is not None:
            problems.append(problem)
        for problem in problems:
            self.log.warning("%s", problem)
        if found.macros and (reason := self.other_day(now)):
            self.log.warning(
                "Job %r has date macros: %s. CDM fills them in with the time at which it starts"
                " the run, and %s. %s",
                *(self.job_name, ", ".join(found.shown_macros()), reason, self.macro_hint),
            )

    def dump(self) -> str | None:
        """Return what the same attempt needs in another process, as JSON text.

        Text, since Airflow reads some keys of stored objects as its own.
        """
        if not self.done:
            return None
        shown = self.shown and definitions.without_secrets(
            {key: value for key, value in self.shown.items() if key != "driver-config-values"}
        )
        known = {"type": self.job_type, "cluster": self.cluster_id}
        text = json.dumps({"shown": shown, **known})
        return text if len(text) <= _CARRIED else json.dumps(known)

    def restore(self, dump: str | None) -> None:
        """Continue where another process stopped.

        :param dump: what :meth:`dump` returned there; ``None`` if nothing was checked there.
        """
        if dump is not None:
            state = json.loads(dump)
            self.done, self.shown, self.job_type = True, state.get("shown"), state.get("type")
            self.cluster_id = state.get("cluster")

    def _undefined(self, found: Placeholders) -> list[str]:
        missing = found.undefined(self.variables)
        if not missing:
            return []
        text = (
            f"Job {self.job_name!r} uses {', '.join(missing)}, but variables has no value for it."
            " Unless the cluster has such a variable of its own, the run moves other rows than"
            " meant, or fails."
        )
        return [text]

    def _unused(self, found: Placeholders) -> list[str]:
        unused = found.unused(self.variables)
        if not unused:
            return []
        names = ", ".join(one_line(repr(name), _NAMES * 4) for name in unused[:_NAMES])
        more = f" and {len(unused) - _NAMES} more" if len(unused) > _NAMES else ""
        used = ", ".join(found.undefined(()))
        used = f"it uses {used}" if used else "it uses no variable"
        return [f"variables has {names}{more}, which job {self.job_name!r} does not use: {used}."]

    def _ensure_enabled(self, cluster_id: str) -> None:
        enabled = (self.shown or {}).get("enabled")
        if enabled is False or (isinstance(enabled, str) and enabled.lower() == "false"):
            raise errors.CdmRefused(
                f"Job {self.job_name!r} is disabled, so CDM would refuse to start it. Nothing was"
                " started. Enable it in the CDM console, under Job Management (cluster"
                f" {cluster_id}).",
                code="Cdm.0059",
            )
