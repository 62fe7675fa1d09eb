"""A job that several clusters hold: the first that can take it gets it, and never two."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmSubmissionSensor
from airflow_provider_cdm.simulator import CdmSimulator
from tests.exactly_once.kills import Kills
from tests.support.metrics import Metrics, install
from tests.support.task_harness import TaskRunner

JOB = "orders"
FIRST, SECOND, THIRD = (str(number) * 32 for number in (1, 2, 3))
GONE = "9" * 32
MODES: dict[str, dict[str, Any]] = {
    "on the worker": {"wait_for_completion": True, "deferrable": False},
    "deferred": {"wait_for_completion": True, "deferrable": True},
}
each_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)


@pytest.fixture
def first_status() -> str:
    """Return the status that the first cluster begins in; tests parametrize it."""
    return "200"


@pytest.fixture
def second_status() -> str:
    """Return the same for the second cluster."""
    return "200"


@pytest.fixture
def config(first_status: str, second_status: str) -> dict[str, Any]:
    """Return three clusters with the same job."""
    statuses = {FIRST: first_status, SECOND: second_status, THIRD: "200"}
    jobs = [{"name": JOB, "seconds": 60}]
    return {
        "clusters": [
            {"name": f"cluster-{id_[0]}", "id": id_, "status": status, "jobs": jobs}
            for id_, status in statuses.items()
        ]
    }


@pytest.fixture
def kills(task_runner: TaskRunner, monkeypatch: pytest.MonkeyPatch) -> Kills:
    """Return what ends attempts of the task in the middle."""
    return Kills(task_runner, monkeypatch)


def make_operator(**arguments: Any) -> CdmStartJobOperator:
    """Make the operator under test."""
    defaults = {"task_id": "t", "job_name": JOB, "cluster_id": FIRST}
    return CdmStartJobOperator(
        **{**defaults, "standby_cluster_ids": [SECOND], **MODES["on the worker"], **arguments}
    )


def count_runs(sim: CdmSimulator) -> list[int]:
    """Return how many runs each cluster had."""
    return [len(sim.runs(JOB, cluster_id)) for cluster_id in (FIRST, SECOND, THIRD)]


def routes_of(sim: CdmSimulator, cluster_id: str) -> list[str]:
    """Return the routes of the calls about a cluster."""
    return [request.route for request in sim.requests if cluster_id in request.path]


@each_mode
def test_the_first_cluster_gets_the_job_while_it_can_take_it(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A normal first cluster takes the start; nothing is asked of the second one."""
    result = task_runner.run(lambda: make_operator(**mode))
    assert (result["cluster_id"], count_runs(sim)) == (FIRST, [1, 0, 0])
    assert routes_of(sim, FIRST)[:4] == ["show_cluster", "show_job", "submissions", "start"]
    assert routes_of(sim, SECOND) == []


def test_without_standby_the_state_of_the_cluster_is_not_read(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A start in one cluster costs no call more than without the argument."""
    task_runner.run(lambda: make_operator(standby_cluster_ids=None))
    assert "show_cluster" not in routes_of(sim, FIRST)


@each_mode
@pytest.mark.parametrize("first_status", ["900", "100", "300", "303", "800"])
def test_a_cluster_that_is_not_normal_is_passed_over(
    mode: dict[str, Any],
    sim: CdmSimulator,
    task_runner: TaskRunner,
    task_log: pytest.LogCaptureFixture,
) -> None:
    """The second cluster gets the job, and result, log and link say so."""
    result = task_runner.run(lambda: make_operator(**mode))
    assert (result["cluster_id"], result["status"]) == (SECOND, "SUCCEEDED")
    assert count_runs(sim) == [0, 1, 0]
    assert f"was not started in cluster {FIRST}; trying stand-by cluster {SECOND}" in task_log.text
    (link,) = task_runner.ti.xcoms.values()
    assert SECOND in str(link)


@pytest.mark.parametrize(
    "shown",
    [
        {"status": "910"},
        {"status": "920"},
        {"status": "500"},
        {"status": "200", "actions": "REBOOTING"},
        {"status": "200", "isFrozen": "1"},
    ],
    ids=str,
)
def test_a_cluster_that_is_changing_is_passed_over(
    shown: dict[str, str], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A cluster that is stopping, starting, restarting or frozen takes no job."""
    sim.fail("show_cluster", "body", body={"id": FIRST, "name": "cluster-1", **shown})
    assert task_runner.run(make_operator)["cluster_id"] == SECOND


def test_a_state_that_is_not_documented_takes_the_job(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A cluster in an unknown state is not passed over: whether it takes jobs is for CDM to say."""
    sim.fail("show_cluster", "body", body={"id": FIRST, "name": "cluster-1", "status": "930"})
    assert task_runner.run(make_operator)["cluster_id"] == FIRST


def test_a_cluster_that_is_gone_is_passed_over(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A cluster that was deleted takes no job."""
    assert task_runner.run(lambda: make_operator(cluster_id=GONE))["cluster_id"] == SECOND


@pytest.mark.parametrize(("first_status", "second_status"), [("900", "800")])
def test_the_clusters_are_tried_in_their_order(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """Several stand-by clusters are tried one after the other."""
    result = task_runner.run(lambda: make_operator(standby_cluster_ids=[SECOND, THIRD]))
    assert (result["cluster_id"], count_runs(sim)) == (THIRD, [0, 0, 1])


@pytest.mark.parametrize(("first_status", "second_status"), [("900", "800")])
def test_if_no_cluster_can_take_it_the_error_says_why(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """The error of the last cluster names the reasons of those before it."""
    with pytest.raises(errors.CdmError, match=f"{FIRST} could not take it: .*is stopped"):
        task_runner.run(make_operator)
    assert count_runs(sim) == [0, 0, 0]


def test_a_cluster_that_stops_right_before_the_start_is_passed_over(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A refusal of the start counts as one of the cluster if the cluster is not normal then."""
    refusal = {"errCode": "Cdm.0999", "externalMessage": "not available"}
    sim.fail("start", "status", status=400, body=refusal)
    stopped = {"id": FIRST, "name": "cluster-1", "status": "900"}
    sim.fail("show_cluster", "body", skip=1, body=stopped)
    assert task_runner.run(make_operator)["cluster_id"] == SECOND
    assert count_runs(sim) == [0, 1, 0]


def test_a_refusal_of_a_normal_cluster_ends_the_task(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """What CDM refuses although the cluster is normal is about the job, which is not moved."""
    sim.add_job(JOB, FIRST, enabled=False)
    with pytest.raises(errors.CdmRefused, match="disabled"):
        task_runner.run(make_operator)
    sim.add_job(JOB, FIRST, enabled=True)
    with pytest.raises(errors.CdmNotFound, match="nosuch"):
        task_runner.run(lambda: make_operator(job_name="nosuch"))
    assert count_runs(sim) == [0, 0, 0]


def test_calls_that_fail_before_the_start_is_sent(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A cluster whose calls fail before the start takes no job: nothing was sent to it."""
    # The history is read up to five times.
    sim.fail("submissions", "status", status=503, times=5)
    assert task_runner.run(make_operator)["cluster_id"] == SECOND
    assert "start" not in routes_of(sim, FIRST)


@pytest.mark.parametrize("status", [403, 429, 503])
def test_a_state_that_cannot_be_read_says_nothing(
    status: int, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Without the permission to read clusters, or while that fails, the first one takes the job:
    the state is asked for once, and nothing waits for it.
    """
    sim.fail("show_cluster", "status", status=status, times=None)
    assert task_runner.run(make_operator)["cluster_id"] == FIRST
    assert routes_of(sim, FIRST).count("show_cluster") == 1


def test_a_wrong_project_is_no_missing_cluster(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """What is wrong with the endpoint is wrong for all clusters, so the task fails and says so."""
    no_such_api = {"error_code": "APIGW.0101", "error_msg": "The API does not exist"}
    sim.fail("show_cluster", "status", status=404, body=no_such_api)
    with pytest.raises(errors.CdmNotFound, match="Region"):
        task_runner.run(make_operator)
    assert count_runs(sim) == [0, 0, 0]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_start_without_an_answer_is_settled_in_its_cluster(
    when: Any, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Whether a lost start had an effect or not, the second cluster gets none."""
    sim.fail("start", "drop", when)
    assert task_runner.run(make_operator)["cluster_id"] == FIRST
    assert count_runs(sim) == [1, 0, 0]


@pytest.mark.long
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_start_that_cannot_be_settled_goes_nowhere_else(
    when: Any, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """While the first cluster may have the run, no attempt starts the job in the second one."""
    task_runner.ti.max_tries = 2
    sim.fail("start", "drop", when)
    sim.fail("submissions", "status", skip=1, status=503, times=None)
    sim.fail("show_cluster", "body", skip=1, times=None, body={"id": FIRST, "status": "900"})
    for _ in range(2):
        with pytest.raises(errors.CdmError):
            task_runner.run(make_operator)
        assert sum(count_runs(sim)) == (when == "after")
        task_runner.retry()
    sim.faults.clear()
    assert task_runner.run(make_operator)["cluster_id"] == FIRST
    assert count_runs(sim) == [1, 0, 0]
    assert routes_of(sim, SECOND) == []


def test_an_answer_without_a_run_is_settled_in_its_cluster(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A start that was accepted without saying which run it made is not repeated elsewhere."""
    sim.fail("start", "body", "after", body={"submissions": [{"status": "BOOTING"}]})
    refusal = {"errCode": "Cdm.0999", "externalMessage": "not available"}
    sim.fail("submissions", "status", skip=1, status=404, body=refusal, times=None)
    sim.fail("show_cluster", "body", skip=1, times=None, body={"id": FIRST, "status": "900"})
    with pytest.raises(errors.CdmError):
        task_runner.run(make_operator)
    assert count_runs(sim) == [1, 0, 0]
    # The faults would also keep the second cluster from starting it.
    assert routes_of(sim, SECOND) == []


@each_mode
@pytest.mark.parametrize("first_status", ["900"])
def test_a_retry_goes_on_with_the_run_of_the_standby_cluster(
    mode: dict[str, Any], sim: CdmSimulator, kills: Kills, task_runner: TaskRunner
) -> None:
    """The journal knows the cluster: a retry finds the run there, also once the first is normal."""
    task_runner.ti.max_tries = 1
    kills.run_and_lose(lambda: make_operator(**mode), "/start")
    sim.fail("show_cluster", "body", times=None, body={"id": FIRST, "status": "200"})
    assert task_runner.run(lambda: make_operator(**mode))["cluster_id"] == SECOND
    assert count_runs(sim) == [0, 1, 0]


@pytest.mark.parametrize(("first", "second"), [(FIRST, SECOND), (SECOND, FIRST)])
def test_numbers_of_one_cluster_say_nothing_about_another(
    first: str, second: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A retry in the other cluster finds its run there, whose number is lower than that of the run
    that failed in the first one.
    """
    task_runner.ti.max_tries = 1
    clusters = {"cluster_id": first, "standby_cluster_ids": [second]}
    sim.add_job(JOB, first, outcomes=["FAILED"])
    for _ in range(3):
        sim.start(JOB, first)
        task_runner.advance(61)
    with pytest.raises(errors.CdmSubmissionFailed):
        task_runner.run(lambda: make_operator(**clusters))
    task_runner.retry()
    sim.fail("show_cluster", "body", body={"id": first, "status": "900"})
    sim.fail("start", "drop", "after")
    result = task_runner.run(lambda: make_operator(**clusters))
    assert (result["cluster_id"], result["submission_id"]) == (second, 1)
    assert [len(sim.runs(JOB, cluster_id)) for cluster_id in (first, second)] == [4, 1]


@pytest.mark.parametrize("first_status", ["900"])
def test_another_order_of_the_clusters_starts_nothing_again(
    sim: CdmSimulator, kills: Kills, task_runner: TaskRunner
) -> None:
    """A retry whose DAG names the clusters in another order, or leaves one out, starts nothing."""
    task_runner.ti.max_tries = 2
    kills.run_and_lose(make_operator, "/start")
    with pytest.raises(errors.CdmStartUncertain, match="had other arguments"):
        task_runner.run(lambda: make_operator(cluster_id=THIRD, standby_cluster_ids=None))
    task_runner.retry()
    swapped = {"cluster_id": SECOND, "standby_cluster_ids": [FIRST]}
    assert task_runner.run(lambda: make_operator(**swapped))["cluster_id"] == SECOND
    assert count_runs(sim) == [0, 1, 0]


@pytest.mark.parametrize("first_status", ["900"])
def test_a_kill_stops_the_run_in_the_standby_cluster(
    sim: CdmSimulator, kills: Kills, task_runner: TaskRunner
) -> None:
    """A killed task stops its run where it is."""
    kills.run_and_kill(make_operator(), "/status")
    assert "stop" in routes_of(sim, SECOND)
    assert "stop" not in routes_of(sim, FIRST)


@pytest.mark.parametrize("if_running", ["fail", "wait", "attach"])
def test_a_busy_cluster_can_take_the_job(
    if_running: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """An active run of the job is up to ``if_running``, and no reason for another cluster."""
    sim.start(JOB, FIRST)

    def operator() -> CdmStartJobOperator:
        return make_operator(if_running=if_running)

    if if_running == "fail":
        with pytest.raises(errors.CdmAlreadyRunning):
            task_runner.run(operator)
    else:
        assert task_runner.run(operator)["cluster_id"] == FIRST
    assert count_runs(sim) == [2 if if_running == "wait" else 1, 0, 0]
    if if_running == "fail":
        assert routes_of(sim, FIRST).count("show_cluster") == 1


@each_mode
@pytest.mark.parametrize("first_status", ["900"])
def test_waiting_for_a_busy_standby_cluster(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """The task waits for the run that is in the way in the cluster that can take the job."""
    sim.start(JOB, SECOND)
    result = task_runner.run(lambda: make_operator(if_running="wait", **mode))
    assert (result["cluster_id"], count_runs(sim)) == (SECOND, [0, 2, 0])


@pytest.mark.parametrize(("first", "second"), [(FIRST, SECOND), (SECOND, FIRST)])
def test_a_wait_in_one_cluster_says_nothing_about_another(
    first: str,
    second: str,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    task_log: pytest.LogCaptureFixture,
) -> None:
    """A task that waited for a run in the first cluster waits for an older one in the second."""
    sim.add_job(JOB, second, seconds=300)
    sim.start(JOB, first)
    task_runner.advance(61)
    sim.start(JOB, first)
    sim.start(JOB, second)
    shown = {"id": first, "name": "cluster", "status": "900"}
    sim.fail("show_cluster", "body", skip=1, times=None, body=shown)
    clusters = {"cluster_id": first, "standby_cluster_ids": [second]}
    result = task_runner.run(lambda: make_operator(if_running="wait", **clusters))
    assert (result["cluster_id"], result["submission_id"]) == (second, 2)
    assert "Busy with run 2" in task_log.text
    assert "Busy with run 1" in task_log.text
    assert "shows no active run" not in task_log.text


@pytest.mark.parametrize("first_status", ["900"])
def test_an_uncertain_start_is_counted_for_its_cluster(
    sim: CdmSimulator, task_runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The metric of a start that was not settled names the cluster that it went to."""
    metrics = Metrics()
    install(metrics, monkeypatch)
    sim.fail("start", "drop", times=None)
    with pytest.raises(errors.CdmStartUncertain):
        task_runner.run(make_operator)
    assert metrics.tags("cdm.start.uncertain")["cluster_id"] == SECOND


@pytest.mark.parametrize("first_status", ["900"])
def test_the_sensor_waits_where_the_run_is(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A sensor with the result of the start waits in the cluster that took the job."""
    started = task_runner.run(lambda: make_operator(wait_for_completion=False))
    result = task_runner.another_task().run(
        lambda: CdmSubmissionSensor(task_id="s", submission=started, cluster_id=FIRST)
    )
    assert (result["cluster_id"], result["status"]) == (SECOND, "SUCCEEDED")


@pytest.mark.parametrize("late", [False, True], ids=["passed over", "stops before the start"])
def test_the_job_of_the_standby_cluster_is_checked(
    late: bool, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """What is checked before the start is the job of the cluster that takes it, also after that of
    the first one.
    """
    shown = {"id": FIRST, "name": "cluster-1", "status": "900"}
    sim.fail("show_cluster", "body", skip=int(late), times=None, body=shown)
    if late:
        refusal = {"errCode": "Cdm.0999", "externalMessage": "not available"}
        sim.fail("start", "status", status=400, body=refusal)
    where = {"name": "fromJobConfig.whereClause", "value": "day = '${dt}'"}
    part = {"configs": [{"name": "fromJobConfig", "inputs": [where]}]}
    sim.add_job(JOB, SECOND, wire={"name": JOB, "from-config-values": part})
    with pytest.raises(errors.CdmConfigError, match=r"dt.*has no value"):
        task_runner.run(lambda: make_operator(check_variables="fail"))
    assert count_runs(sim) == [0, 0, 0]


@pytest.mark.parametrize(
    ("ids", "problem"),
    [
        (5, "list of cluster ids"),
        ([FIRST], "named twice"),
        ([SECOND, SECOND], "named twice"),
        ([""], "empty"),
        ([None], "text"),
        ("['a', 'b']", "one template for each"),
    ],
)
def test_ids_that_cannot_be_used(
    ids: Any, problem: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Wrong ids fail the task before anything is sent about the job."""
    with pytest.raises(errors.CdmConfigError, match=problem):
        task_runner.run(lambda: make_operator(standby_cluster_ids=ids))
    assert routes_of(sim, FIRST) == []


@pytest.mark.parametrize("first_status", ["900"])
def test_one_id_as_text(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A single stand-by cluster may be given as text, as a template renders it."""
    result = task_runner.run(lambda: make_operator(standby_cluster_ids=SECOND))
    assert result["cluster_id"] == SECOND
