"""The outcome of migrations during which a worker and a triggerer were killed."""

from __future__ import annotations

from concurrent.futures import Future

from tests.deployment.conftest import SharedDeployment
from tests.deployment.deployment import SLOTS
from tests.deployment.kills import KilledProcesses
from tests.deployment.mapped_dag_plans import KILLS


def test_kills(shared: SharedDeployment, kills: Future[KilledProcesses]) -> None:
    """Their tasks continue elsewhere: every migration runs once, and every task succeeds."""
    killed, jobs = kills.result(), shared.jobs
    part = shared.report.part("kills", killed.started_at)
    part.equal("tasks on the worker that was killed", SLOTS, len(killed.running))
    part.more_than("triggers in the triggerer that was killed", 1, killed.deferred)
    part.equal("DAG run", "success", shared.deployment.stack.dag_run(KILLS.dag, "once"))
    instances = shared.deployment.instances(KILLS.dag)
    states = [state for _, _, state, _ in instances]
    part.equal("successful tasks", KILLS.count, states.count("success"))
    retried = {(task, index) for task, index, _, attempt in instances if attempt > 1}
    part.equal("retried tasks", killed.running, retried)
    statuses = jobs.statuses(KILLS)
    part.equal("jobs that ran once", KILLS.count, list(statuses.values()).count(["SUCCEEDED"]))
    part.equal("starts at CDM", KILLS.count, jobs.count_starts(KILLS))
    part.equal("missing or duplicate rows", "", jobs.wrong_rows([KILLS]))
    assert not part.wrong
