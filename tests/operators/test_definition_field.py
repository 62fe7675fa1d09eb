"""The argument ``definition``: files, templates, and secrets that nobody gets to see."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.definitions import MASK
from airflow_provider_cdm.operators import (
    CdmApplyJobOperator,
    CdmApplyLinkOperator,
    CdmCreateJobOperator,
    CdmRunJobOperator,
)

CONTEXT: Any = {"ds": "2025-01-02", "secret": "pa55word", "name": "orders"}
LINK_FILE = """
name: "{{ name }}"
connector-name: generic-jdbc-connector
link-config-values:
  configs:
    - name: linkConfig
      inputs:
        - {name: linkConfig.password, value: "{{ secret }}"}
        - {name: linkConfig.host, value: db}
"""


@pytest.fixture
def dag(tmp_path: Path) -> DAG:
    """A DAG whose files are in a folder of the test."""
    return DAG(
        "d", schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC),
        template_searchpath=str(tmp_path),
    )  # fmt: skip


def rendered(dag: DAG, operator: Any) -> Any:
    """Render a task as Airflow does right before it runs it."""
    operator.dag = dag
    dag.resolve_template_files()  # type: ignore[no-untyped-call]  # of Airflow
    ready = copy.copy(operator)
    ready.render_template_fields(dict(CONTEXT), dag.get_template_env())
    return ready


def job(*values: Any) -> dict[str, Any]:
    """Something like a job."""
    listed = [{"name": f"fromJobConfig.a{n}", "value": value} for n, value in enumerate(values)]
    return {"name": "{{ name }}", "configs": [{"name": "x", "inputs": listed}]}


@pytest.mark.parametrize("suffix", ["yaml", "yml", "json"])
def test_files(suffix: str, dag: DAG, tmp_path: Path) -> None:
    """A path is read when the task runs, and its content rendered."""
    text = json.dumps(job("dt = '{{ ds }}'"))
    (tmp_path / f"a.{suffix}").write_text(text)
    ready = rendered(dag, CdmCreateJobOperator(task_id="t", definition=f"a.{suffix}"))
    assert ready.definition == {**job("dt = '2025-01-02'"), "name": "orders"}


@pytest.mark.parametrize("value", ["a.json", "{{ ds }}.yaml", "in/b.yml", ".json"])
def test_values_are_no_paths(value: str, dag: DAG) -> None:
    """Files to migrate have such names as well; only the definition itself may be a path."""
    operator = CdmCreateJobOperator(task_id="t", definition=job(value), job_name="x.json")
    ready = rendered(dag, operator)
    expected = value.replace("{{ ds }}", "2025-01-02")
    assert ready.definition["configs"][0]["inputs"][0]["value"] == expected
    assert ready.job_name == "x.json"
    run = CdmRunJobOperator(task_id="u", definition=job(), variables={"file": value})
    assert rendered(dag, run).variables == {"file": expected}


def test_text_that_ends_like_a_path(dag: DAG, tmp_path: Path) -> None:
    """YAML may end in a value that looks like a path, and be given as text."""
    text = "name: a\nfile: x.json"
    assert rendered(dag, CdmCreateJobOperator(task_id="t", definition=text)).definition == {
        "name": "a",
        "file": "x.json",
    }


def test_a_missing_file(dag: DAG) -> None:
    """The error says where the file was looked for."""
    with pytest.raises(errors.CdmConfigError, match=r"no file 'gone.yaml'.*template_searchpath"):
        rendered(dag, CdmCreateJobOperator(task_id="t", definition="gone.yaml"))


def test_a_broken_file(dag: DAG, tmp_path: Path) -> None:
    """A file that cannot be read is an error that does not repeat it."""
    (tmp_path / "a.yaml").write_text("name: pa55word: x")
    with pytest.raises(errors.CdmConfigError, match="not valid YAML") as refusal:
        rendered(dag, CdmApplyLinkOperator(task_id="t", definition="a.yaml"))
    assert "pa55word" not in str(refusal.value)


def test_secrets_leave_the_field(dag: DAG, tmp_path: Path) -> None:
    """What Airflow stores of a rendered link holds no password; what is sent does."""
    (tmp_path / "a.yaml").write_text(LINK_FILE)
    operator = CdmApplyLinkOperator(task_id="t", definition="a.yaml")
    ready = rendered(dag, operator)
    fields = json.dumps([getattr(ready, name) for name in ready.template_fields])
    assert "pa55word" not in fields
    assert json.dumps(MASK) in fields
    for _ in range(2):  # Airflow may render a task again
        draft = json.dumps(ready._definition_with_secrets())
        assert "pa55word" in draft
        assert MASK not in draft
        ready.render_template_fields(dict(CONTEXT), dag.get_template_env())
    assert "pa55word" not in json.dumps(ready.definition)
    # The operator of the DAG is not that of the task: the next attempt renders it anew.
    assert operator.definition == "a.yaml"
    assert operator._secrets == {}


def test_secrets_leave_the_field_of_a_mapped_task(dag: DAG) -> None:
    """The same for each instance of a mapped task."""
    import yaml

    unmapped = CdmApplyLinkOperator(task_id="t", definition=yaml.safe_load(LINK_FILE))
    unmapped.dag = dag
    # As a mapped operator does it, past render_template_fields.
    fields, context = unmapped.template_fields, copy.copy(CONTEXT)
    unmapped._do_render_template_fields(unmapped, fields, context, dag.get_template_env(), set())
    assert "pa55word" not in json.dumps(unmapped.definition)
    assert "pa55word" in json.dumps(unmapped._definition_with_secrets())


def test_files_are_not_stored_with_the_dag(dag: DAG, tmp_path: Path) -> None:
    """A password in a file does not get into Airflow's database with the DAG."""
    (tmp_path / "a.yaml").write_text(LINK_FILE.replace("{{ secret }}", "pa55word"))
    operator = CdmApplyLinkOperator(task_id="t", definition="a.yaml", dag=dag)
    dag.resolve_template_files()  # type: ignore[no-untyped-call]  # of Airflow
    assert operator.definition == "a.yaml"


@pytest.mark.parametrize("operator", [CdmApplyLinkOperator, CdmApplyJobOperator, CdmRunJobOperator])
def test_a_secret_in_the_dag_file(operator: Any) -> None:
    """A secret in the DAG's own code is refused when the DAG is parsed, without showing it."""
    inputs = [{"name": "linkConfig.accessKey", "value": "pa55word"}]
    with pytest.raises(errors.CdmConfigError, match=r"linkConfig\.accessKey") as refusal:
        operator(task_id="t", definition={"name": "a", "inputs": inputs})
    assert "pa55word" not in str(refusal.value)
    operator(task_id="t", definition={"inputs": [{**inputs[0], "value": "{{ secret }}"}]})
    operator(task_id="t", definition={"inputs": [{**inputs[0], "value": ""}]})


def test_native_objects(tmp_path: Path) -> None:
    """With ``render_template_as_native_obj`` a file may render to an object."""
    dag = DAG(
        "n", schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC),
        template_searchpath=str(tmp_path), render_template_as_native_obj=True,
    )  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(job("b.json", 5)))
    ready = rendered(dag, CdmCreateJobOperator(task_id="t", definition="a.json"))
    assert ready.definition["configs"][0]["inputs"][0]["value"] == "b.json"
