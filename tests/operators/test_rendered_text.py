"""Templates of arguments render to text that nothing reinterprets, and never to nothing."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_cdm._compat import AirflowFailException
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators import CdmApplyLinkOperator, CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmClusterSensor, CdmSubmissionSensor
from airflow_provider_cdm.simulator import CdmSimulator
from tests.operators.test_empty_places import NEEDED, TASKS
from tests.support.task_harness import TaskRunner

#: Texts that Python would read as something else.
TEXTS = [
    "1.10",
    "0x10",
    "012",
    "1e3",
    "True",
    "None",
    "[1]",
    "{'a': 1}",
    "12.50",
    "20240517",
    "'x'",
]
NATIVE = [True, False]
native_or_not = pytest.mark.parametrize("native", NATIVE, ids=["native", "text"])


def render(task: Any, context: dict[str, Any], *, native: bool, **dag_arguments: Any) -> Any:
    """Return a task with its fields rendered, as Airflow does right before it runs the task."""
    dag = DAG(
        "d", schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC),
        render_template_as_native_obj=native, **dag_arguments,
    )  # fmt: skip
    task.dag = dag
    running = copy.copy(task)
    running.render_template_fields(dict(context), dag.get_template_env())
    return running


@native_or_not
@pytest.mark.parametrize("source", ["literal", "{{ it }}", "{{ it | trim }}", "macro"])
@pytest.mark.parametrize("text", TEXTS)
def test_text_stays_the_text_that_it_is(text: str, source: str, native: bool) -> None:
    """In variables, names, ids and secrets, text stays text, wherever it comes from."""
    template = {
        "literal": text.replace("{", "{{ '{' }}"),
        "macro": "{% macro m() %}{{ it }}{% endmacro %}{{ m() }}",
    }.get(source, source)
    start = CdmStartJobOperator(
        task_id="t", job_name=template, cluster_id=template, variables={"v": template}
    )
    start = render(start, {"it": text}, native=native)
    assert (start.job_name, start.cluster_id, start.variables) == (text, text, {"v": text})
    secret = "{{ it }}"
    inputs = [
        {"name": "linkConfig.password", "value": secret},
        {"name": "linkConfig.port", "value": template},
    ]
    link = CdmApplyLinkOperator(task_id="u", definition={"name": template, "inputs": inputs})
    sent = render(link, {"it": text}, native=native)._definition_with_secrets()
    assert (sent["name"], [each["value"] for each in sent["inputs"]]) == (text, [text, text])


@pytest.mark.parametrize("text", TEXTS)
def test_definition_in_a_file_keeps_its_texts(text: str, tmp_path: Any) -> None:
    """A file is rendered to text as well, and what is in it stays as typed."""
    (tmp_path / "a.yaml").write_text('{name: "{{ it }}", password: "{{ it }}"}')
    link = CdmApplyLinkOperator(task_id="u", definition="a.yaml")
    link = render(link, {"it": text}, native=True, template_searchpath=str(tmp_path))
    assert link._definition_with_secrets() == {"name": text, "password": text}


def test_native_objects_are_taken_where_an_argument_is_no_text() -> None:
    """Mappings and lists that a template consists of are those, in a DAG with native objects."""
    context = {"run": {"submission_id": 7}, "states": ["normal"], "values": {"a": "1.10"}}
    sensor = CdmSubmissionSensor(task_id="a", submission="{{ run }}")
    assert render(sensor, context, native=True).submission == {"submission_id": 7}
    cluster = CdmClusterSensor(task_id="b", state="{{ states }}")
    assert render(cluster, context, native=True).state == ["normal"]
    start = CdmStartJobOperator(task_id="c", job_name="j", variables="{{ values }}")
    assert render(start, context, native=True).variables == {"a": "1.10"}
    link = CdmApplyLinkOperator(task_id="d", definition="{{ {'name': 'x', 'password': 'pa55'} }}")
    link = render(link, context, native=True)
    assert link.definition["name"] == "x"


@native_or_not
@pytest.mark.parametrize(
    "template",
    [
        "{{ conf.get('dt') }}",
        "dt = '{{ conf.get('dt') }}'",
        "{{ none }}",
        "{% if true %}{{ conf.get('dt') }}{% endif %}",
        "{% macro m() %}{{ none }}{% endmacro %}{{ m() }}",
    ],
)
def test_variable_that_renders_to_nothing_is_an_error_that_names_it(
    template: str, native: bool, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """The text ``None`` in place of a value would move nothing, or the wrong rows, and be green."""
    sim.add_job("orders")
    with pytest.raises(errors.CdmConfigError, match=r"variables\['dt'\]") as raised:
        task_runner.run(
            lambda: render(
                CdmStartJobOperator(
                    task_id="t", job_name="orders", variables={"dt": template, "a": "{{ 1 }}"}
                ),
                {"conf": {}},
                native=native,
            )
        )
    assert f"(template: {template})" in str(raised.value)
    assert sim.requests == []


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        (name, argument)
        for name, task in TASKS.items()
        for argument in task.template_fields
        if argument not in ("variables", "definition", "submission")
    ],
)
@native_or_not
def test_any_argument_that_renders_to_nothing_is_an_error(
    name: str, argument: str, native: bool, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Every templated argument of every operator and sensor is guarded."""
    needed = {**NEEDED[name]}
    if argument == "started_after":
        del needed["submission_id"]

    def make() -> Any:
        task = TASKS[name](task_id="t", **{**needed, argument: "{{ conf.get('it') }}"})
        return render(task, {"conf": {}}, native=native)

    with pytest.raises(errors.CdmConfigError, match=argument):
        task_runner.run(make)
    assert sim.requests == []


@native_or_not
@pytest.mark.parametrize("in_file", [True, False], ids=["in a file", "in the DAG"])
def test_input_that_renders_to_nothing_is_named(in_file: bool, native: bool, tmp_path: Any) -> None:
    """In a definition, the error names the input, and the template or the file."""
    inputs = [{"name": "fromJobConfig.whereClause", "value": "dt = '{{ conf.dt }}'"}]
    (tmp_path / "a.json").write_text(
        str(inputs).replace("'{{ conf.dt }}'", "{{ conf.dt }}").replace("'", '"')
    )
    definition: Any = "a.json" if in_file else {"name": "a", "inputs": inputs}
    task = render(
        CdmApplyLinkOperator(task_id="t", definition=definition),
        {"conf": {"dt": None}}, native=native, template_searchpath=str(tmp_path),
    )  # fmt: skip
    with pytest.raises(errors.CdmConfigError) as raised:
        task.ensure_rendered()
    assert "definition: 'fromJobConfig.whereClause'" in str(raised.value)
    assert ("a.json" if in_file else "{{ conf.dt }}") in str(raised.value)


@native_or_not
def test_the_text_none_of_a_user_is_a_value(
    native: bool, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Somebody may have a variable with the value ``None``, as typed or from a configuration."""
    sim.add_job("orders")
    variables = {"typed": "None", "given": "{{ it }}", "default": "{{ none or 'a' }}", "b": ""}
    task_runner.run(
        lambda: render(
            CdmStartJobOperator(task_id="t", job_name="orders", variables=variables),
            {"it": "None"},
            native=native,
        )
    )
    (run,) = sim.runs("orders")
    assert run.variables == {"typed": "None", "given": "None", "default": "a", "b": ""}


def test_lenient_undefined_is_nothing_too() -> None:
    """A misspelled name that a DAG allows to be undefined is not an empty value."""
    import jinja2

    task = CdmStartJobOperator(task_id="t", job_name="a", variables={"dt": "{{ cnof.dt }}"})
    task = render(task, {"cnof": {}}, native=False, template_undefined=jinja2.Undefined)
    with pytest.raises(errors.CdmConfigError, match=r"variables\['dt'\]"):
        task.ensure_rendered()


def test_finalize_of_the_dag_is_kept() -> None:
    """A DAG may have a function for what its templates put out, also one that handles nothing."""
    options = {"finalize": lambda value: "" if value is None else value}
    task = CdmStartJobOperator(task_id="t", job_name="a", variables={"dt": "{{ none }}"})
    task = render(task, {}, native=False, jinja_environment_kwargs=options)
    task.ensure_rendered()
    assert task.variables == {"dt": ""}


def test_outputs_of_other_tasks_are_no_templates() -> None:
    """A text from another task is never rendered, whatever is in it."""
    output = "{{ 1 + 1 }}.yaml"
    task = CdmStartJobOperator(task_id="t", job_name=output)
    task.dag = DAG("d", schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC))
    environment = task.dag.get_template_env()
    assert task.render_template(output, {}, environment, {id(output)}) == output


def test_wrong_definition_fails_without_a_retry(tmp_path: Any) -> None:
    """Airflow renders arguments outside of a task's own methods; an error is final there too."""
    task = CdmApplyLinkOperator(task_id="t", definition="gone.yaml")
    with pytest.raises(errors.CdmConfigError, match=r"no file 'gone.yaml'") as raised:
        render(task, {}, native=True)
    assert isinstance(raised.value, AirflowFailException)


@native_or_not
@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ ds }}", "'ds' is undefined"),
        ("{{ it.day.month }}", "has no attribute 'day'"),
        ("{{ it", "unexpected end of template"),
    ],
)
def test_template_that_cannot_be_rendered_fails_without_a_retry(
    template: str, reason: str, native: bool
) -> None:
    """A name that a DAG run does not have, as ``ds`` in one by hand, is named with its argument."""
    task = CdmStartJobOperator(task_id="t", job_name="j", variables={"dt": template})
    with pytest.raises(errors.CdmConfigError, match=f"template of variables .*{reason}") as failure:
        render(task, {"it": {}}, native=native)
    assert isinstance(failure.value, AirflowFailException)
