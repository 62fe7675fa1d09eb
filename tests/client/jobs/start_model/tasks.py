"""A task instance of the model: its attempts are the real ones, on a model of session and operator.

What must be true of each attempt is checked here.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, TypeAlias, cast

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import parsing
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.definitions import Definition
from airflow_provider_cdm.client.auth.iam import Token
from airflow_provider_cdm.client.auth.token import TokenAuth
from airflow_provider_cdm.client.http.retry import Exchanger, RetryPolicy
from airflow_provider_cdm.client.jobs.job_check import JobCheck
from airflow_provider_cdm.client.jobs.start_record import Generation
from airflow_provider_cdm.client.sansio import Request, Save, Sleep, TransportError
from airflow_provider_cdm.client.settings import PasswordCredentials, Settings
from airflow_provider_cdm.client.submission import Submission
from airflow_provider_cdm.tasks import kills
from airflow_provider_cdm.tasks.attempt import Attempt, AttemptJob
from airflow_provider_cdm.tasks.attempt_options import AttemptOptions
from airflow_provider_cdm.tasks.existing_job import ExistingJob
from airflow_provider_cdm.tasks.owned_job import OwnedJob
from tests.client.jobs.start_model.airflow import Crash, Store, TaskInstance, is_record
from tests.client.jobs.start_model.cdm import (
    CLUSTER,
    JOB,
    STANDBY,
    Cdm,
    Owner,
    Run,
    arguments_of,
    job_in,
)
from tests.client.jobs.start_model.wire import Wire

SETTINGS = Settings("http://c", "http://i", PasswordCredentials("u", "p", "d"), project_id="p")
LOG = logging.getLogger("start_model")
#: DAG and task of each task instance; joined without care, their names are the same.
IDS = [("sales", "eu__load"), ("sales__eu", "load")]
#: Longest time that an attempt may take, in seconds. Other people's runs are short.
_LONGEST = 20_000.0
#: Seconds between the two signals with which Airflow kills a process.
_KILL_SECONDS = 5.0

#: The number of a run that is the reason for a doubt.
_IN_DOUBT = re.compile(r"job '(\w+)' was started: run (\d+), .* may be its run or somebody else's")

#: Drives a flow: takes the task, the flow and the function that saves.
Driver: TypeAlias = Callable[["Task", Generator[Any, Any, Any], Any], Any]


class FixedToken(TokenAuth):
    """An authenticator without IAM, which has tests of its own."""

    def token(self) -> Generator[Any, Any, Token]:
        yield from ()
        return Token("t", 1e12, 1e12, "p")


@lru_cache
def definition(version: int) -> Definition:
    """Return a version of the definition of a task's own job; the second has one input less."""
    inputs = [{"name": "fromJobConfig.tableName", "value": "t"}]
    if version == 0:
        inputs.append({"name": "fromJobConfig.whereClause", "value": "day = 1"})
    ends = {
        f"{end}-{part}": f"{end}-{part}"
        for end in ("from", "to")
        for part in ("connector-name", "link-name")
    }
    block = {"configs": [{"name": "c", "inputs": inputs}]}
    return parsing.job(
        {"name": "d", **ends, "from-config-values": block, "to-config-values": block}
    )


class ModelSession:
    """The session of an attempt; its clock is that of its worker."""

    def __init__(self, task: Task, ahead: float) -> None:
        cdm = task.cdm
        self.task = task
        self.settings = SETTINGS
        self.monotonic = lambda: cdm.now
        self.clock = lambda: cdm.now + ahead
        exchanger = Exchanger(
            RetryPolicy(attempts=3), self.clock, cdm.rng.random, monotonic=self.monotonic
        )
        self.api = CdmApi(SETTINGS, FixedToken(SETTINGS, exchanger), exchanger)

    def run(self, flow: Generator[Any, Any, Any], save: Any = None) -> Any:
        return self.task.drive(self.task, flow, save)

    def interrupt(self) -> None:
        self.task.interrupted = True


class ModelOperator:
    """What an attempt uses of its operator."""

    deferrable = False
    project_id = None
    cdm_conn_id = "cdm_default"
    log = LOG

    def __init__(self, task_id: str, retries: int, session: ModelSession) -> None:
        self.task_id = task_id
        self.retries = retries
        self.hook = SimpleNamespace(get_conn=lambda: session, resolve_cluster=lambda: CLUSTER)

    def with_tables(self, run: Submission) -> Submission:
        return run

    def judge_run(
        self, context: Any, run: Submission, variables: Any = None, *, foreign: bool = False
    ) -> dict[str, Any]:
        if run.failed:
            raise errors.CdmSubmissionFailed("failed", run)
        return run.to_dict()

    def leave_run(self, context: Any, run: Submission) -> dict[str, Any]:
        return run.to_dict()

    def ends_for_good(self, error: Exception, context: Any, *, last_attempt: bool) -> bool:
        return last_attempt


@dataclass
class Task:
    """One task instance.

    :param operators: how many operators its ``@task`` function executes one after the other.
    :param owned: whether it has a job of its own.
    :param start_only: whether it does not wait for its run.
    :param interrupts: how often its process dies or is killed, at each step.
    :param changing: whether its variables, or its definition, are others in each attempt.
    :param standby: whether it names a stand-by cluster.
    :param cancel_on_kill: whether a kill stops its run.
    :param clocks: seconds by which the clocks of workers may be ahead.
    :param cleared_at: when it was cleared last.
    :param began_at: when the first attempt since then began.
    :param dag_run_began: when its DAG run began, or began again.
    :param dag_run_goes_on: whether it had not ended at the last clear.
    :param poisoned: whether its journal holds something that is no record.
    """

    cdm: Cdm
    number: int
    store: Store
    drive: Driver
    operators: int = 1
    owned: bool = False
    start_only: bool = False
    if_running: str = "fail"
    on_giving_up: str = "leave"
    wait_timeout: float | None = None
    interrupts: float = 0.0
    retries: int = 0
    changing: bool = False
    standby: bool = False
    cancel_on_kill: bool = True
    clocks: tuple[float, ...] = ()
    managed: bool = True
    generation: int = 0
    cleared_at: float = 0.0
    began_at: float = 0.0
    dag_run_began: float = 0.0
    dag_run_goes_on: bool = False
    poisoned: bool = False
    ever_poisoned: bool = False
    airflow: Generation = field(default_factory=Generation)
    owner: Owner = field(init=False)
    wire: Wire = field(init=False)
    _attempt: Attempt | None = None
    #: Whether a kill has interrupted the attempt, whose process lives on.
    interrupted: bool = False
    _killed_at: float | None = None

    def __post_init__(self) -> None:
        self.wire = Wire(self.cdm)
        self.owner = Owner(self.number, 0, 0)

    def attempt(self) -> bool:
        """Perform one attempt; return whether the task succeeded."""
        cdm, airflow = self.cdm, self.airflow
        dag_id, task_id = IDS[self.number]
        context: dict[str, Any] = {
            "ti": TaskInstance(dag_id, task_id, airflow.try_number, airflow.max_tries),
            "dag_run": SimpleNamespace(
                clear_number=airflow.clear_number,
                start_date=datetime.fromtimestamp(self.dag_run_began, UTC),
            ),
        }
        if self.managed:
            context["task_state_store"] = self.store
        # Each attempt may be on another worker.
        session = ModelSession(self, cdm.rng.choice([0.0, 0.0, *self.clocks]))
        began, self._killed_at, self.interrupted = cdm.now, None, False
        store = self.store
        store.step, store.written, store.failed = self.maybe_interrupt, self._written, self._failed
        try:
            return all(self._execute(n, context, session) for n in range(self.operators))
        finally:
            self.store.step = lambda: None
            if cdm.now - began > _LONGEST:
                cdm.problems.append(f"took {cdm.now - began:.0f} s")

    def _execute(self, operator_number: int, context: Any, session: ModelSession) -> bool:
        """Execute an operator, as ``JobRunOperator.execute`` does; return whether it succeeded."""
        cdm = self.cdm
        self.owner = Owner(self.number, operator_number, self.generation)
        operator: Any = ModelOperator(context["ti"].task_id, self.airflow.retries, session)
        version = self.airflow.try_number % 2 if self.changing else 1
        # What the definition says has no effect on how often a job is started.
        mode = "warn" if self.standby else "off"
        check = JobCheck(JOB, cast("Any", mode), (), lambda _: "", "", LOG)
        job: AttemptJob = ExistingJob(check)
        if self.owned:
            job = OwnedJob(definition(version), check, context, LOG)
        options = AttemptOptions(
            variables={"task": f"{self.number} {version}"},
            wait_for_completion=not self.start_only,
            poll_interval=30,
            wait_limit=(self.wait_timeout, "wait_timeout"),
            if_running=cast("Any", self.if_running),
            cancel_on_kill=self.cancel_on_kill,
            on_giving_up=cast("Any", self.on_giving_up),
            standby_cluster_ids=[STANDBY] if self.standby else None,
        )
        wanted = arguments_of(options.variables, job.definition if self.owned else None)
        self._attempt = attempt = Attempt(operator, context, job, options)
        cdm.began[self.owner] = cdm.now
        starts, runs = cdm.starts[self.owner], self._count_runs()
        try:
            result = attempt.run()
        except errors.CdmError as error:
            cdm.note(type(error).__name__, str(error)[:150])
            self._check_error(error, self._count_runs() - runs)
            kills.give_up(attempt, error)
            return False
        except Exception as error:
            cdm.problems.append(f"bare error {error!r}")
            return False
        finally:
            if self.poisoned and cdm.starts[self.owner] > starts:
                cdm.problems.append("started although the journal was none")
        self._check(result, wanted)
        return True

    def _count_runs(self) -> int:
        """Return how many runs this owner has started that have not failed."""
        return sum(
            run.owner == self.owner
            and not run.hidden
            and run.status(self.cdm.now) in ("RUNNING", "SUCCEEDED")
            for run in self.cdm.all_runs
        )

    # What must be true

    def _check_error(self, error: errors.CdmError, runs: int) -> None:
        """Check that neither the journal nor needless doubt fails a task that has started a run."""
        if isinstance(error, errors.CdmJournalError) and runs > 0:
            self.cdm.problems.append(f"a run is lost because of the journal: {error}")
        in_doubt = _IN_DOUBT.search(str(error))
        if in_doubt and not self.standby and self._all_is_told():
            key = {"submission_id": int(in_doubt[2]), "creation_date": None}
            run = self.cdm.find(in_doubt[1], key)
            if run is not None and run.owner == self.owner:
                self.cdm.problems.append(f"disowned {run}")

    def _all_is_told(self) -> bool:
        """Return whether CDM and the journal tell all that is needed to know one's own run."""
        cdm = self.cdm
        told = cdm.tells_time and cdm.ids != "absent" and not cdm.records_ahead
        return told and not (cdm.rebuild_rate or self.store.down or self.ever_poisoned)

    def _check(self, result: Mapping[str, Any], wanted: str) -> None:
        """Check that the run of a success is ours, or that a documented limit applies."""
        cdm = self.cdm
        run = cdm.find(job_in(result["cluster_id"], result["job_name"]), result)
        cdm.note("ended well" if run and run.ends <= cdm.now else "start-only", run)
        if self.poisoned:
            cdm.problems.append("succeeded although the journal was none")
        if run is None:
            cdm.problems.append(f"no such run: {result}")
            return
        if not self.start_only and (run.outcome != "SUCCEEDED" or cdm.now < run.ends):
            cdm.problems.append(f"called {run} good")
        problem = self._problem_of(run, wanted)
        if problem is not None:
            cdm.problems.append(problem)

    def _problem_of(self, run: Run, wanted: str) -> str | None:
        cdm, attach = self.cdm, self.if_running == "attach"
        ours = run.owner is not None and run.owner[:2] == self.owner[:2]
        if run.owner == self.owner or (ours and run.ends > self.cleared_at):
            if run.owner != self.owner:
                cdm.note("attached after a clear")
            if run.arguments == wanted or attach or run.hidden:
                return None
            # A late effect of a start from before a clear is like a run of somebody else.
            late = run.owner != self.owner and cdm.take(self.owner, run)
            return None if late else f"other arguments: {run}"
        if ours and not self.cancel_on_kill and self.dag_run_goes_on:
            cdm.note("took a run that was left")
            return None
        if ours and not attach and not cdm.is_blind(self.owner):
            return f"started nothing after a clear, but took {run}"
        if attach and run.ends > self.began_at:
            cdm.note("attached to another's")
            return None
        return None if cdm.take(self.owner, run) else f"took {run}"

    def _written(self, record: Mapping[str, Any]) -> None:
        """Look at a record that is written to the journal."""
        if record["sends"] and not record["baseline_known"]:
            self.cdm.blind.add(self.owner)
        job = job_in(record["cluster_id"], record["job_name"])
        if not record["run"] or (run := self.cdm.find(job, record["run"])) is None:
            return
        if run.owner is not None and run.owner[:2] == self.owner[:2]:
            run.noted = True
        elif not record["foreign"] and not self.cdm.take(self.owner, run):
            self.cdm.problems.append(f"noted {run}")

    def _failed(self, text: str) -> None:
        """Look at what could not be written: a run counts from the moment that it is known."""
        self.cdm.doubt(self.owner)
        record: dict[str, Any] = json.loads(text) if is_record(text) else {"run": None}
        if not record["run"] or record["foreign"]:
            return
        run = self.cdm.find(job_in(record["cluster_id"], record["job_name"]), record["run"])
        if run is not None and (run.owner is None or run.owner[:2] != self.owner[:2]):
            self.cdm.take(self.owner, run)

    # The process

    def maybe_interrupt(self) -> None:
        """Die, or be killed, with some probability."""
        cdm = self.cdm
        if self._killed_at is not None:
            if cdm.now > self._killed_at + _KILL_SECONDS:
                raise Crash
            return
        # A start without an answer is the moment at which a death may do harm.
        often = 10 if self.wire.start_unanswered else 1
        if cdm.calm or cdm.rng.random() >= self.interrupts * often:
            return
        cdm.doubt(self.owner)
        if cdm.rng.random() < 0.5 and self._attempt is not None:
            cdm.note("kill")
            self._killed_at = cdm.now
            kills.kill(self._attempt)
            if cdm.rng.random() < 0.5:
                cdm.note("life after a kill")
                return
        else:
            cdm.note("crash")
        raise Crash

    def perform(self, step: Any, save: Any) -> Any:
        """Perform a step of a flow."""
        if self.interrupted and not isinstance(step, Save):
            raise errors.CdmKilled
        if isinstance(step, Request):
            if self._killed_at is not None and step.url.endswith("/start"):
                self.cdm.problems.append("sent a start after the kill")
            return self.wire.exchange(step, self.owner)
        if isinstance(step, Sleep):
            self.cdm.pass_time(step.seconds)
        elif isinstance(step, Save):
            save(step.record)
        return None


def drive(task: Task, flow: Generator[Any, Any, Any], save: Any) -> Any:
    """Drive a flow; the process may end before and after every step."""
    try:
        step = next(flow)
        while True:
            task.maybe_interrupt()
            try:
                answer = task.perform(step, save)
            except (TransportError, errors.CdmJournalError) as failure:
                task.maybe_interrupt()
                step = flow.throw(failure)
            else:
                task.maybe_interrupt()
                step = flow.send(answer)
    except StopIteration as end:
        return end.value
    finally:
        flow.close()


def drive_and_save_too_late(task: Task, flow: Generator[Any, Any, Any], save: Any) -> Any:
    """Drive a flow wrongly: what must be saved before a request is saved after it."""
    waiting: list[Save] = []
    perform = task.perform

    def late(step: Any, save: Any) -> Any:
        if isinstance(step, Save):
            waiting.append(step)
            return None
        try:
            answer = perform(step, save)
        except TransportError:
            task.maybe_interrupt()
            remember()
            raise
        task.maybe_interrupt()
        remember()
        return answer

    def remember() -> None:
        for saved in waiting:
            perform(saved, save)
        waiting.clear()

    task.perform = late  # type: ignore[method-assign]
    try:
        result = drive(task, flow, save)
        remember()
        return result
    finally:
        del task.perform
