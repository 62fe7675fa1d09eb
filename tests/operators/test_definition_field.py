"""The argument ``definition``: files, templates, and secrets that Airflow must not store."""

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
    """Return a DAG that looks for its files in a folder of the test."""
    return DAG(
        "d", schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC),
        template_searchpath=str(tmp_path),
    )  # fmt: skip


def render(dag: DAG, operator: Any) -> Any:
    """Return the operator with its fields rendered, as Airflow does right before it runs a task."""
    operator.dag = dag
    dag.resolve_template_files()  # type: ignore[no-untyped-call]  # of Airflow
    rendered_operator = copy.copy(operator)
    rendered_operator.render_template_fields(dict(CONTEXT), dag.get_template_env())
    return rendered_operator


def job_definition(*values: Any) -> dict[str, Any]:
    """Return a minimal definition with these input values."""
    listed = [{"name": f"fromJobConfig.a{n}", "value": value} for n, value in enumerate(values)]
    return {"name": "{{ name }}", "configs": [{"name": "x", "inputs": listed}]}


@pytest.mark.parametrize("suffix", ["yaml", "yml", "json"])
def test_file_is_read_and_rendered_when_the_task_runs(
    suffix: str, dag: DAG, tmp_path: Path
) -> None:
    """A definition given as a path is read when the task runs, and its content is rendered."""
    text = json.dumps(job_definition("dt = '{{ ds }}'"))
    (tmp_path / f"a.{suffix}").write_text(text)
    rendered_operator = render(dag, CdmCreateJobOperator(task_id="t", definition=f"a.{suffix}"))
    assert rendered_operator.definition == {**job_definition("dt = '2025-01-02'"), "name": "orders"}


@pytest.mark.parametrize("value", ["a.json", "{{ ds }}.yaml", "in/b.yml", ".json"])
def test_values_that_look_like_paths_are_not_read(value: str, dag: DAG) -> None:
    """Only the definition itself may be a path, since file names also occur as values inside it."""
    operator = CdmCreateJobOperator(
        task_id="t", definition=job_definition(value), job_name="x.json"
    )
    rendered_operator = render(dag, operator)
    expected = value.replace("{{ ds }}", "2025-01-02")
    assert rendered_operator.definition["configs"][0]["inputs"][0]["value"] == expected
    assert rendered_operator.job_name == "x.json"
    run = CdmRunJobOperator(task_id="u", definition=job_definition(), variables={"file": value})
    assert render(dag, run).variables == {"file": expected}


def test_yaml_text_that_ends_like_a_path_is_not_read_as_a_file(dag: DAG, tmp_path: Path) -> None:
    """YAML text whose last value looks like a path is still read as YAML."""
    text = "name: a\nfile: x.json"
    assert render(dag, CdmCreateJobOperator(task_id="t", definition=text)).definition == {
        "name": "a",
        "file": "x.json",
    }


def test_missing_file_error_names_the_search_path(dag: DAG) -> None:
    """The error for a missing file says where the file was searched for."""
    with pytest.raises(errors.CdmConfigError, match=r"no file 'gone.yaml'.*template_searchpath"):
        render(dag, CdmCreateJobOperator(task_id="t", definition="gone.yaml"))


def test_invalid_file_error_does_not_show_its_content(dag: DAG, tmp_path: Path) -> None:
    """The error for a file that is not YAML does not repeat the content of the file."""
    (tmp_path / "a.yaml").write_text("name: pa55word: x")
    with pytest.raises(errors.CdmConfigError, match="not valid YAML") as raised:
        render(dag, CdmApplyLinkOperator(task_id="t", definition="a.yaml"))
    assert "pa55word" not in str(raised.value)


def test_rendered_definition_is_stored_without_secrets(dag: DAG, tmp_path: Path) -> None:
    """The rendered fields that Airflow stores hold no password, while the definition that is sent
    does.
    """
    (tmp_path / "a.yaml").write_text(LINK_FILE)
    operator = CdmApplyLinkOperator(task_id="t", definition="a.yaml")
    rendered_operator = render(dag, operator)
    fields = json.dumps(
        [getattr(rendered_operator, name) for name in rendered_operator.template_fields]
    )
    assert "pa55word" not in fields
    assert json.dumps(MASK) in fields
    for _ in range(2):  # Airflow may render a task again
        draft = json.dumps(rendered_operator._definition_with_secrets())
        assert "pa55word" in draft
        assert MASK not in draft
        rendered_operator.render_template_fields(dict(CONTEXT), dag.get_template_env())
    assert "pa55word" not in json.dumps(rendered_operator.definition)
    # A task runs with a copy of the DAG's operator, which the next attempt renders again.
    assert operator.definition == "a.yaml"
    assert operator._secrets == {}


def test_rendered_definition_of_a_mapped_task_is_stored_without_secrets(dag: DAG) -> None:
    """The rendered fields of a mapped task instance hold no password either."""
    import yaml

    unmapped = CdmApplyLinkOperator(task_id="t", definition=yaml.safe_load(LINK_FILE))
    unmapped.dag = dag
    # A mapped operator renders its fields like this, without render_template_fields.
    fields, context = unmapped.template_fields, copy.copy(CONTEXT)
    unmapped._do_render_template_fields(unmapped, fields, context, dag.get_template_env(), set())
    assert "pa55word" not in json.dumps(unmapped.definition)
    assert "pa55word" in json.dumps(unmapped._definition_with_secrets())


def test_file_content_is_not_stored_with_the_dag(dag: DAG, tmp_path: Path) -> None:
    """A password in a file does not get into Airflow's database with the DAG."""
    (tmp_path / "a.yaml").write_text(LINK_FILE.replace("{{ secret }}", "pa55word"))
    operator = CdmApplyLinkOperator(task_id="t", definition="a.yaml", dag=dag)
    dag.resolve_template_files()  # type: ignore[no-untyped-call]  # of Airflow
    assert operator.definition == "a.yaml"


@pytest.mark.parametrize("operator", [CdmApplyLinkOperator, CdmApplyJobOperator, CdmRunJobOperator])
def test_secret_in_the_dag_file_is_refused_without_showing_it(operator: Any) -> None:
    """A secret in the DAG's own code is refused when the DAG is parsed, without being shown."""
    inputs = [{"name": "linkConfig.accessKey", "value": "pa55word"}]
    with pytest.raises(errors.CdmConfigError, match=r"linkConfig\.accessKey") as raised:
        operator(task_id="t", definition={"name": "a", "inputs": inputs})
    assert "pa55word" not in str(raised.value)
    operator(task_id="t", definition={"inputs": [{**inputs[0], "value": "{{ secret }}"}]})
    operator(task_id="t", definition={"inputs": [{**inputs[0], "value": ""}]})


def test_file_may_render_to_a_native_object(tmp_path: Path) -> None:
    """With ``render_template_as_native_obj`` a file may render to an object."""
    dag = DAG(
        "n", schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC),
        template_searchpath=str(tmp_path), render_template_as_native_obj=True,
    )  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(job_definition("b.json", 5)))
    rendered_operator = render(dag, CdmCreateJobOperator(task_id="t", definition="a.json"))
    assert rendered_operator.definition["configs"][0]["inputs"][0]["value"] == "b.json"
