"""What came of it that a worker and a triggerer were lost while migrations ran."""

from __future__ import annotations

from concurrent.futures import Future

from tests.deployment.conftest import Stage
from tests.deployment.deployment import SLOTS
from tests.deployment.mapped_dag_plans import KILLS
from tests.deployment.kills import Lost


def test_kills(stage: Stage, kills: Future[Lost]) -> None:
    """Their tasks go on elsewhere: every migration happens once, and every task ends well."""
    lost, yard = kills.result(), stage.yard
    part = stage.report.part("kills", lost.began)
    part.equal("tasks at the worker that was killed", SLOTS, len(lost.running))
    part.more_than("waits in the triggerer that was killed", 1, lost.held)
    part.equal("DAG run", "success", stage.deployment.stack.dag_run(KILLS.dag, "once"))
    found = stage.deployment.instances(KILLS.dag)
    states = [state for _, _, state, _ in found]
    part.equal("tasks that ended well", KILLS.count, states.count("success"))
    again = {(task, index) for task, index, _, attempt in found if attempt > 1}
    part.equal("tasks that began again", lost.running, again)
    statuses = yard.statuses(KILLS)
    part.equal("jobs that ran once", KILLS.count, list(statuses.values()).count(["SUCCEEDED"]))
    part.equal("starts at CDM", KILLS.count, yard.starts(KILLS))
    part.equal("rows that are missing or double", "", yard.wrong_rows([KILLS]))
    assert not part.wrong
