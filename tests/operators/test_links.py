"""Operators for links, against the simulator."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators import CdmApplyLinkOperator, CdmDeleteLinkOperator
from airflow_provider_cdm.simulator import CdmSimulator
from tests.support.task_harness import TaskRunner

LINK = "warehouse"


def definition(host: str = "10.0.0.1", password: str = "{{ conn.warehouse.password }}") -> Any:
    """A link to a database."""
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


def sent(sim: CdmSimulator) -> list[str]:
    """What was changed in CDM."""
    return [r.route for r in sim.requests if r.route not in ("token", "show_link")]


def test_apply(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A link is created, left alone, and updated; the result names what was changed."""

    def apply(**arguments: Any) -> Any:
        given = {"definition": definition(), **arguments}
        return task_runner.run(lambda: CdmApplyLinkOperator(task_id="t", **given))

    done = {"cluster_id": sim.cluster_id, "link_name": LINK, "differences": []}
    assert apply() == {**done, "action": "created"}
    assert apply() == {**done, "action": "unchanged"}
    assert apply(always_update=True) == {**done, "action": "updated"}
    moved = apply(definition=definition("10.0.0.2"))
    assert (moved["action"], moved["differences"]) == ("updated", ["linkConfig.host"])
    assert sent(sim) == ["create_link", "update_link", "update_link"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_answer(when: Any, sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A create whose answer is lost comes to one link all the same."""
    sim.fail("create_link", "drop", when)
    made = task_runner.run(lambda: CdmApplyLinkOperator(task_id="t", definition=definition()))
    assert made["action"] == {"before": "created", "after": "unchanged"}[when]


def test_a_secret_in_the_dag_file_is_refused() -> None:
    """What stands in the DAG file is stored with the DAG, so a secret there is an error at once."""
    with pytest.raises(errors.CdmConfigError, match=r"linkConfig\.password") as refusal:
        CdmApplyLinkOperator(task_id="t", definition=definition(password="pa55word"))
    assert "pa55word" not in str(refusal.value)
    assert "{{ conn." in str(refusal.value)


def test_delete(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A link is deleted; one that is gone is a success."""
    sim.add_link(LINK)
    for action in ("deleted", "absent"):
        made = task_runner.run(lambda: CdmDeleteLinkOperator(task_id="t", link_name=LINK))
        assert made == {"cluster_id": sim.cluster_id, "link_name": LINK, "action": action}


def test_delete_of_a_link_in_use(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A link that jobs use stays, and the error says so."""
    sim.add_link(LINK)
    end = {"link": LINK, "table": "a"}
    sim.add_job("orders", from_=end, to=end)
    with pytest.raises(errors.CdmInUse, match="jobs refer to it"):
        task_runner.run(lambda: CdmDeleteLinkOperator(task_id="t", link_name=LINK))


@pytest.mark.parametrize(
    ("operator", "fields"),
    [(CdmApplyLinkOperator, {"definition", "link_name"}), (CdmDeleteLinkOperator, {"link_name"})],
)
def test_templated_fields(operator: Any, fields: set[str]) -> None:
    """What names the work is templated, and so are cluster, project and connection."""
    assert set(operator.template_fields) == fields | {"cluster_id", "project_id", "cdm_conn_id"}
