"""Arguments of mapped tasks: what guards see at parsing, and what they see when the task runs."""

from __future__ import annotations

import itertools
import json
import runpy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import airflow
import pytest
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators import CdmApplyLinkOperator, CdmRunJobOperator
from airflow_provider_cdm.simulator import CdmSimulator
from tests.support.airflow_home import empty_dags_folder

DATES = (datetime(2026, 8, 1, tzinfo=UTC) + timedelta(days=n) for n in itertools.count())
SECRET = "pa55word-in-clear"
DAG_FILE = """
from datetime import timedelta
from pathlib import Path

try:
    from airflow.sdk import DAG, task
except ImportError:
    from airflow import DAG
    from airflow.decorators import task
from airflow_provider_cdm.operators import *
from airflow_provider_cdm.sensors import *


def link(name, password, host="db"):
    inputs = [
        dict(name="linkConfig.host", value=host),
        dict(name="linkConfig.password", value=password),
    ]
    configs = [dict(name="linkConfig", inputs=inputs)]
    return {{
        "name": name,
        "connector-name": "generic-jdbc-connector",
        "link-config-values": dict(configs=configs),
    }}


def add_password(name):
    return link(name, "pa55word-" + "in-clear")


def make_link(context, jinja_env):
    return link("made", "pa55word-" + "in-clear", host=context["ds"])


@task
def names():
    return ["a", "{{{{ 1 + 1 }}}}"]


with DAG("{dag_id}", schedule=None, render_template_as_native_obj={native}) as dag:
    common = dict(task_id="t", retries=2, retry_delay=timedelta(0))
    {code}
"""


class Outcome:
    """What became of a DAG run: states and numbers of attempts, by task and index.

    :param dag_run: the DAG run.
    """

    def __init__(self, dag_run: Any) -> None:
        found = dag_run.get_task_instances()
        self.tasks = {(ti.task_id, ti.map_index): (str(ti.state), ti.try_number) for ti in found}
        rendered = map(RenderedTaskInstanceFields.get_templated_fields, found)
        self.rendered_fields = [fields for fields in rendered if fields is not None]


@pytest.fixture
def run_dag(
    sim: CdmSimulator, cdm_default: dict[str, Any], airflow_database: None
) -> Callable[..., Outcome]:
    """Return a function that lets Airflow run a DAG, given as the code of its tasks."""

    def run(code: str, *, native: bool = False) -> Outcome:
        date = next(DATES)
        path = empty_dags_folder() / f"arguments_{date:%m%d}.py"
        path.write_text(DAG_FILE.format(dag_id=path.stem, code=code, native=native))
        argument = "execution_date" if airflow.__version__.startswith("2.") else "logical_date"
        return Outcome(runpy.run_path(str(path))["dag"].test(**{argument: date}))

    return run


def password_of(sim: CdmSimulator, link: str) -> str:
    """Return the password that CDM was sent for a link."""
    bodies = [request.json() for request in sim.requests if request.route == "create_link"]
    (sent,) = [body["links"][0] for body in bodies if body["links"][0]["name"] == link]
    inputs = sent["link-config-values"]["configs"][0]["inputs"]
    return str({each["name"]: each["value"] for each in inputs}["linkConfig.password"])


@pytest.mark.long
def test_secret_of_a_function_is_no_plain_text(
    sim: CdmSimulator, run_dag: Callable[..., Outcome]
) -> None:
    """A secret that ``.map()`` adds when the task runs is sent, and neither refused nor shown."""
    outcome = run_dag(
        "CdmApplyLinkOperator.partial(**common).expand(definition=names().map(add_password))"
    )
    assert {state for (task, _), (state, _) in outcome.tasks.items() if task == "t"} == {"success"}
    assert password_of(sim, "a") == SECRET
    # The output of another task is no template.
    assert password_of(sim, "{{ 1 + 1 }}") == SECRET
    assert outcome.rendered_fields
    assert SECRET not in json.dumps(outcome.rendered_fields)


@pytest.mark.long
@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
def test_secret_of_a_function_that_makes_the_definition_is_not_shown(
    native: bool, sim: CdmSimulator, run_dag: Callable[..., Outcome]
) -> None:
    """Airflow calls a function that is given as an argument; its secrets are masked as well."""
    outcome = run_dag("CdmApplyLinkOperator(definition=make_link, **common)", native=native)
    assert outcome.tasks[("t", -1)][0] == "success"
    assert password_of(sim, "made") == SECRET
    assert outcome.rendered_fields
    assert SECRET not in json.dumps(outcome.rendered_fields)


WRONG = {
    "poll_interval": (
        "CdmStartJobOperator.partial(job_name='a', **common).expand(poll_interval=[0])"
    ),
    "choice": "CdmStartJobOperator.partial(job_name='a', **common).expand(if_running=['stop'])",
    "partial": "CdmStartJobOperator.partial(wait_timeout='x', **common).expand(job_name=['a'])",
    "missing": "CdmStartJobOperator.partial(**common).expand(cluster_id=['a'])",
    "sensor": (
        "CdmSubmissionSensor.partial(job_name='a', mode='walk', **common).expand(submission_id=[1])"
    ),
    "definition": "CdmCreateJobOperator.partial(**common).expand(definition=['gone.yaml'])",
    "cluster": (
        "CdmStopClusterOperator.partial(stop_mode='immediate', **common).expand(delay=[5])"
    ),
    "kwargs": "CdmStartJobOperator.partial(**common).expand_kwargs([dict(job_name='a', no=1)])",
    "rendered": (
        "CdmStartJobOperator.partial(job_name='a', **common)"
        ".expand(variables=[dict(dt='{{ dag_run.conf.get(\"dt\") }}')])"
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_argument_of_a_mapped_task_is_not_retried(
    case: str, sim: CdmSimulator, run_dag: Callable[..., Outcome]
) -> None:
    """Arguments of mapped tasks are checked when they run, and no retry makes them right."""
    outcome = run_dag(WRONG[case])
    assert list(outcome.tasks.values()) == [("failed", 1)]
    assert [request.route for request in sim.requests if request.route == "start"] == []


def test_mapped_durations_and_texts(sim: CdmSimulator, run_dag: Callable[..., Outcome]) -> None:
    """What is mapped means the same as what is not."""
    sim.add_job("20240517", seconds=0)
    outcome = run_dag(
        "CdmStartJobOperator.partial(job_name='{{ \"20240517\" }}', deferrable=False,"
        " poll_interval='{{ 5 }}', **common)"
        ".expand_kwargs([dict(variables=dict(a='{{ \"1.10\" }}'),"
        " wait_timeout=timedelta(hours=1))])",
        native=True,
    )
    assert list(outcome.tasks.values()) == [("success", 1)]
    assert sim.runs("20240517")[0].variables == {"a": "1.10"}


def plain_link(password: str) -> dict[str, Any]:
    """Return a definition with a secret."""
    return {"name": "a", "inputs": [{"name": "linkConfig.password", "value": password}]}


@pytest.mark.parametrize("operator", [CdmApplyLinkOperator, CdmRunJobOperator])
@pytest.mark.parametrize(
    "mapped",
    [
        lambda partial, given: partial(task_id="t").expand(
            definition=[plain_link("{{ a }}"), given]
        ),
        lambda partial, given: partial(task_id="t").expand_kwargs([{"definition": given}]),
        lambda partial, given: partial(task_id="t", definition=given).expand(cluster_id=["a"]),
    ],
    ids=["expand", "expand_kwargs", "partial"],
)
@pytest.mark.parametrize("form", ["mapping", "JSON"])
@pytest.mark.filterwarnings("ignore:Task .* was never mapped")
def test_literal_secret_of_a_mapped_task_is_refused_when_the_dag_is_parsed(
    form: str, mapped: Any, operator: Any
) -> None:
    """Airflow stores what is mapped with the DAG, before any task runs."""

    def given(password: str) -> Any:
        definition = plain_link(password)
        return json.dumps(definition) if form == "JSON" else definition

    with DAG("d", schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC)):
        with pytest.raises(errors.CdmConfigError, match=r"linkConfig\.password") as raised:
            mapped(operator.partial, given(SECRET))
        assert SECRET not in str(raised.value)
    with DAG("e", schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC)):
        mapped(operator.partial, given("{{ conn.a.password }}"))
