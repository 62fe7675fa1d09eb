"""The operators for links, against the simulator."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators import CdmApplyLinkOperator, CdmDeleteLinkOperator
from airflow_provider_cdm.simulator import CdmSimulator
from tests.support.task_harness import TaskRunner

LINK = "warehouse"


def definition(host: str = "10.0.0.1", password: str = "{{ conn.warehouse.password }}") -> Any:
    """Return the definition of a link to a database."""
    inputs = [
        {"name": "linkConfig.host", "value": host},
        {"name": "linkConfig.port", "value": 5432},
        {"name": "linkConfig.password", "value": password},
    ]
    values = {"configs": [{"name": "linkConfig", "inputs": inputs}]}
    return {
        "name": LINK,
        "connector-name": "generic-jdbc-connector",
        "link-config-values": values,
    }


def sent_routes(sim: CdmSimulator) -> list[str]:
    """Return the routes of the calls that change something in CDM."""
    return [r.route for r in sim.requests if r.route not in ("token", "show_link")]


def test_apply_creates_then_does_nothing_then_updates(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A link is created, left unchanged, and updated, and the result names the differences."""

    def apply(**arguments: Any) -> Any:
        given = {"definition": definition(), **arguments}
        return task_runner.run(lambda: CdmApplyLinkOperator(task_id="t", **given))

    expected_result = {"cluster_id": sim.cluster_id, "link_name": LINK, "differences": []}
    assert apply() == {**expected_result, "action": "created"}
    assert apply() == {**expected_result, "action": "unchanged"}
    assert apply(always_update=True) == {**expected_result, "action": "updated"}
    moved_result = apply(definition=definition("10.0.0.2"))
    assert (moved_result["action"], moved_result["differences"]) == ("updated", ["linkConfig.host"])
    assert sent_routes(sim) == ["create_link", "update_link", "update_link"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_lost_answer_creates_one_link(
    when: Any, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A create whose request or answer is lost results in one link."""
    sim.fail("create_link", "drop", when)
    result = task_runner.run(lambda: CdmApplyLinkOperator(task_id="t", definition=definition()))
    assert result["action"] == {"before": "created", "after": "unchanged"}[when]


def test_secret_in_the_dag_file_is_refused_without_showing_it() -> None:
    """A secret in the DAG file would be stored with the DAG, so it is refused when the DAG is
    parsed.
    """
    with pytest.raises(errors.CdmConfigError, match=r"linkConfig\.password") as raised:
        CdmApplyLinkOperator(task_id="t", definition=definition(password="pa55word"))
    assert "pa55word" not in str(raised.value)
    assert "{{ conn." in str(raised.value)


def test_delete_removes_the_link_and_accepts_an_absent_one(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A link is deleted, and deleting a link that is already gone succeeds."""
    sim.add_link(LINK)
    for action in ("deleted", "absent"):
        result = task_runner.run(lambda: CdmDeleteLinkOperator(task_id="t", link_name=LINK))
        assert result == {"cluster_id": sim.cluster_id, "link_name": LINK, "action": action}


def test_delete_refuses_a_link_in_use(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A link that jobs use is not deleted, and the error says why."""
    sim.add_link(LINK)
    job_side = {"link": LINK, "table": "a"}
    sim.add_job("orders", from_=job_side, to=job_side)
    with pytest.raises(errors.CdmInUse, match="jobs refer to it"):
        task_runner.run(lambda: CdmDeleteLinkOperator(task_id="t", link_name=LINK))


@pytest.mark.parametrize(
    ("operator", "fields"),
    [(CdmApplyLinkOperator, {"definition", "link_name"}), (CdmDeleteLinkOperator, {"link_name"})],
)
def test_templated_fields(operator: Any, fields: set[str]) -> None:
    """The fields that name the link are templated, and so are cluster, project and connection."""
    assert set(operator.template_fields) == fields | {"cluster_id", "project_id", "cdm_conn_id"}
