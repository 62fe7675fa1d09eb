"""What CDM shows of a job or link is sent back unchanged, in each form that it may have."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import parsing
from airflow_provider_cdm.client.api.definitions import JOB, LINK
from airflow_provider_cdm.operators import (
    CdmApplyJobOperator,
    CdmApplyLinkOperator,
    CdmCreateJobOperator,
    CdmDeleteJobOperator,
    CdmRunJobOperator,
    CdmUpdateJobOperator,
)
from airflow_provider_cdm.simulator import CdmSimulator
from tests.client.fixture_types import MakeSession
from tests.operators.test_rendered_text import render
from tests.support.task_harness import TaskRunner

NAME = "orders"
TRANS = "transformConfig.trans"


def block(name: str, *inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a block with one configuration."""
    return {"configs": [{"name": name, "inputs": list(inputs), **more}]}


def job(*driver: dict[str, Any]) -> dict[str, Any]:
    """Return a job with some inputs of its driver."""
    table = {"name": "fromJobConfig.tableName", "value": "orders"}
    return {
        "name": NAME,
        "from-connector-name": "generic-jdbc-connector",
        "from-link-name": "shop",
        "from-config-values": block("fromJobConfig", table),
        "to-connector-name": "generic-jdbc-connector",
        "to-link-name": "warehouse",
        "to-config-values": block("toJobConfig", {"name": "toJobConfig.tableName", "value": "o"}),
        "driver-config-values": block("transformConfig", *driver, id=9, type="JOB"),
    }


@pytest.fixture(params=["plain", "encoded, with defaults and lists"])
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return a configuration with two links that shows jobs in each form that CDM may show."""
    names = ("encode_values", "default_inputs", "list_values")
    behaviour = dict.fromkeys(names, request.param != "plain")
    links = [{"name": "shop"}, {"name": "warehouse"}]
    jobs = [{"name": NAME, "wire": job({"name": TRANS, "type": "STRING", "value": []})}]
    return {"behaviour": behaviour, "clusters": [{"name": "demo", "links": links, "jobs": jobs}]}


def shown_job(make_session: MakeSession, sim: CdmSimulator) -> dict[str, Any]:
    """Return the job as CDM shows it."""
    session = make_session()
    found = session.run(session.api.find(JOB, sim.cluster_id, NAME))
    assert found is not None
    return found


def last_sent(sim: CdmSimulator) -> Any:
    """Return the job that CDM received last."""
    return [r.json() for r in sim.requests if r.route in ("create_job", "update_job")][-1]["jobs"][
        0
    ]


FORMS = ["mapping", "list of one", "json", "answer.json", "yaml"]


def made(operator: Any, definition: Any, **more: Any) -> Any:
    """Return a function that makes a task and renders its fields, as Airflow does."""

    def make() -> Any:
        task = operator(task_id="t", definition=definition, **more)
        return render(task, {"task": task, "ds": "2025-01-02"}, native=False)

    return make


def given_as(form: str, shown: dict[str, Any], folder: Path) -> Any:
    """Return a definition in one of the forms that users write."""
    if form in ("mapping", "list of one"):
        return shown if form == "mapping" else {"jobs": [shown], "total": 0, "page_no": 1}
    path = folder / f"job.{form.rpartition('.')[2]}"
    content = {"jobs": [shown], "total": 0} if form.startswith("answer") else shown
    path.write_text(yaml.safe_dump(content) if form == "yaml" else json.dumps(content))
    return str(path)


@pytest.mark.parametrize("form", FORMS)
def test_a_recorded_job_is_sent_back(
    form: str, sim: CdmSimulator, task_runner: TaskRunner, make_session: MakeSession, tmp_path: Path
) -> None:
    """A job with a list among its values is found unchanged, updated, and created again."""
    shown = shown_job(make_session, sim)
    given = given_as(form, shown, tmp_path)

    def run(operator: Any) -> Any:
        return task_runner.run(made(operator, given))["action"]

    assert run(CdmApplyJobOperator) == "unchanged"
    assert run(CdmCreateJobOperator) == "unchanged"
    assert run(CdmUpdateJobOperator) == "updated"
    sent = last_sent(sim)
    assert {key: shown[key] for key in sent} == sent
    assert {"from-config-values", "driver-config-values"} < sent.keys()
    assert shown_job(make_session, sim)["driver-config-values"] == shown["driver-config-values"]
    task_runner.run(lambda: CdmDeleteJobOperator(task_id="t", job_name=NAME))
    assert run(CdmCreateJobOperator) == "created"
    assert last_sent(sim) == sent


SHAPES: dict[str, dict[str, Any]] = {
    "an empty list": {"value": []},
    "an empty object": {"value": {}},
    "a list": {"value": ["a", "b c", "50%"]},
    "an object": {"value": {"a": "1", "b": [True, None, 2.5]}},
    "nested": {"value": [[{"name": "trim", "args": [1, {"of": []}]}]]},
    "null": {"value": None},
    "no value": {},
    "a number": {"value": 5},
    "a fraction": {"value": 2.5},
    "a boolean": {"value": False},
    "a text": {"value": "a%20b"},
    "a size and an id": {"value": "a", "size": 255, "id": 12, "sensitive": False},
    "a long fraction": {"value": -0.30000000000000004},
    "only the values that it may have": {"values": "A,B", "type": "ENUM"},
}
MARKED = ["with a type", "with dates"]


@pytest.mark.parametrize("marked", MARKED)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("config", ["plain"], indirect=True)
def test_any_shape_is_sent_back(
    shape: str, form: str, marked: str, sim: CdmSimulator, task_runner: TaskRunner, tmp_path: Path
) -> None:
    """An input of any shape is sent as CDM shows it, and is no difference."""
    kind = {"type": "STRING"} if marked == "with a type" else {}
    shown = job({"name": TRANS, **kind, **SHAPES[shape]})
    if marked == "with dates":
        shown |= {"creation-date": 1536905778725, "creation-user": "cdm", "enabled": True}
    given = given_as(form, shown, tmp_path)
    task_runner.run(made(CdmUpdateJobOperator, given))
    assert last_sent(sim)["driver-config-values"] == shown["driver-config-values"]
    result = task_runner.run(made(CdmApplyJobOperator, given))
    assert (result["action"], result["differences"]) == ("unchanged", [])


@pytest.mark.parametrize(
    ("now", "wanted", "differs"),
    [
        ([], "", False), ("", [], False), (None, [], False), ({}, [], False), ([], ["a"], True),
        ("[]", [], False), ('["a"]', ["a"], False), (["a"], '["a"]', False),
        (["a%20b"], ["a b"], False), ("%5B%22a+b%22%5D", ["a+b"], False), (["a"], ["b"], True),
        (["a", "b"], ["b", "a"], True), (["a"], ["a", "b"], True), ({"a": 1}, {"a": "1"}, False),
        ({"a": 1, "b": None}, {"a": 1}, False), ({"a": 1, "b": 2}, {"a": 1}, True),
        ([True], ["true"], False), (5, "5", False), (5.0, "5", False), ("5", "5.0", True),
        (True, "1", True), (True, "true", False), ([], "a", True), ("a", [], True), (0, "", True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("config", ["plain"], indirect=True)
def test_what_counts_as_a_difference(
    now: Any, wanted: Any, differs: bool, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """CDM may show a value as text, a list, a number or nothing; only what it means is compared."""
    sim.add_job(NAME, wire=job({"name": TRANS, "type": "STRING", "value": now}))
    given = job({"name": TRANS, "value": wanted})
    result = task_runner.run(made(CdmApplyJobOperator, given))
    assert result["differences"] == ([TRANS] if differs else [])


ODD: dict[str, dict[str, Any]] = {
    "no driver configs": {"driver-config-values": {"configs": []}},
    "an empty driver block": {"driver-config-values": {}},
    "configs as an object": {"driver-config-values": {"configs": {}}},
    "configs that are null": {"driver-config-values": {"configs": None, "validators": []}},
    "one input twice": {
        "driver-config-values": block("a", {"name": "a.b", "value": "1"}, {"name": "a.b"})
    },
    "a key that resembles another": {"from-link-id": 5, "keyOfTomorrow": [{"a": 1.5}]},
    "a config without inputs": {"driver-config-values": {"configs": [{"name": "a", "id": 4}]}},
    "inputs that are null": {"driver-config-values": {"configs": [{"name": "a", "inputs": None}]}},
    "inputs as an object": {"driver-config-values": {"configs": [{"name": "a", "inputs": {}}]}},
    "no names": {"driver-config-values": {"configs": [{"inputs": [{"value": "b", "id": 1}]}]}},
    "names that are null": {
        "driver-config-values": {"configs": [{"name": None, "inputs": [{"name": None}]}]}
    },
    "a block that is null": {"driver-config-values": None},
    "a block that is a list": {"driver-config-values": []},
    "a link without a name": {"from-link-name": "", "to-link-name": None},
    "a type of tomorrow": {"job_type": "ENTIRE_JOB"},
    "a scenario": {
        "job_type": "SCENARIO_JOB",
        "from-config-values": {},
        "to-config-values": {"configs": [], "extended-configs": {"name": "n", "value": "e30="}},
    },
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("config", ["plain"], indirect=True)
def test_other_parts_are_sent_back(
    name: str, form: str, sim: CdmSimulator, task_runner: TaskRunner, tmp_path: Path
) -> None:
    """Parts of a job beside its inputs are sent as CDM shows them as well."""
    shown = {**job(), "job_type": "NORMAL_JOB", "creation-date": 1536905778725, **ODD[name]}
    given = given_as(form, shown, tmp_path)
    with suppress(errors.CdmRefused):  # the simulator knows no such links and types
        task_runner.run(made(CdmUpdateJobOperator, given))
    assert last_sent(sim) == {key: shown[key] for key in shown if key != "creation-date"}
    definition = parsing.job(shown)
    assert (definition.differences(shown), definition.unmanaged(shown)) == ([], [])


@pytest.mark.parametrize("config", ["plain"], indirect=True)
@pytest.mark.parametrize("job_type", [None, ""])
@pytest.mark.parametrize("value", [[], {}, None])
def test_what_is_empty_is_no_difference(
    value: Any, job_type: str | None, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A type and a secret that CDM shows as empty are no difference, and no secret is cleared."""
    shown = job({"name": "fileConfig.password", "type": "STRING", "value": value})
    shown |= {"job_type": job_type, "creation-date": 1536905778725}
    sim.add_job(NAME, wire=shown)
    assert task_runner.run(made(CdmApplyJobOperator, shown))["action"] == "unchanged"
    with pytest.raises(errors.CdmConfigError, match=r"no value for fileConfig\.password"):
        task_runner.run(made(CdmUpdateJobOperator, shown))


@pytest.mark.parametrize("config", ["plain"], indirect=True)
@pytest.mark.parametrize("key", ["from-link-name", "to-connector-name", "from-config-values"])
def test_a_part_that_is_lost_is_a_mistake(
    key: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A key that is missing was lost on the way: what CDM shows has it, if only as null."""
    given = {name: part for name, part in job().items() if name != key}
    with pytest.raises(errors.CdmConfigError, match=f"{key} is missing"):
        task_runner.run(made(CdmUpdateJobOperator, {**given, "creation-date": 1536905778725}))


def test_an_empty_list_is_no_unmanaged_value(
    sim: CdmSimulator, task_runner: TaskRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """An empty list that CDM shows is not taken for a value that the definition lacks."""
    caplog.set_level("INFO")
    given = job()
    del given["driver-config-values"]
    assert task_runner.run(made(CdmApplyJobOperator, given))["action"] == "unchanged"
    assert "transformConfig" not in caplog.text


def test_templates_in_lists_are_rendered(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A list in a definition that somebody wrote is sent as a list, with its templates rendered."""
    given = job({"name": TRANS, "value": [{"add": "{{ ds }}"}, 3]})
    task_runner.run(made(CdmUpdateJobOperator, given))
    (sent,) = last_sent(sim)["driver-config-values"]["configs"][0]["inputs"]
    assert sent["value"] == [{"add": "2025-01-02"}, 3]


def test_a_job_of_its_own_from_what_cdm_shows(
    sim: CdmSimulator, task_runner: TaskRunner, make_session: MakeSession
) -> None:
    """CdmRunJobOperator takes what CDM shows as the definition of its job."""
    shown = shown_job(make_session, sim)
    result = task_runner.run(made(CdmRunJobOperator, shown))
    assert result["status"] == "SUCCEEDED"
    assert last_sent(sim)["driver-config-values"] == shown["driver-config-values"]


# Guards


@pytest.mark.parametrize(
    "value",
    [
        {"password": "pa55word"},
        [{"deep": {"secretKey": "pa55word"}}],
        [{"name": "linkConfig.password", "value": "pa55word"}],
    ],
)
def test_secrets_inside_values_are_refused(value: Any) -> None:
    """A secret in a list or an object cannot be hidden, so the DAG file is refused."""
    given = job({"name": TRANS, "value": value})
    for definition in (given, json.dumps(given)):
        with pytest.raises(errors.CdmConfigError, match="in plain text") as refusal:
            CdmUpdateJobOperator(task_id="t", definition=definition)
        assert "pa55word" not in str(refusal.value)


def test_rendered_secrets_inside_values_are_refused(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """The same holds when only the task sees it, and nothing is sent."""
    secret = {"password": "pa55word"}
    given = lambda **_: job({"name": TRANS, "value": secret})  # noqa: E731
    with pytest.raises(
        errors.CdmConfigError, match="'password', which cannot be hidden"
    ) as refusal:
        task_runner.run(made(CdmUpdateJobOperator, given))
    assert "pa55word" not in str(refusal.value)
    assert [r for r in sim.requests if r.route == "update_job"] == []


def looped() -> list[Any]:
    """Return a list that contains itself twice."""
    value: list[Any] = []
    value += [value, value]
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (looped(), "contains itself"),
        ([float("nan")], "not finite"),
        ([b"x"], "contains bytes"),
        ({1: 2}, "a key that is not text"),
        (None, "is null"),
    ],
)
def test_values_that_json_has_not(
    value: Any, words: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """What cannot be sent, or may be a mistake in what somebody wrote, is an error before."""
    given = lambda **_: job({"name": TRANS, "value": value})  # noqa: E731
    with pytest.raises(errors.CdmConfigError, match=words):
        task_runner.run(made(CdmUpdateJobOperator, given))
    assert [r for r in sim.requests if r.route == "update_job"] == []


def test_nothing_of_another_task_is_no_shown_null(monkeypatch: pytest.MonkeyPatch) -> None:
    """CDM may show an input that is null, but a task that returned nothing must not clear one."""
    with DAG("d", schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC)) as dag:
        nothing = CdmUpdateJobOperator(task_id="other", definition=job()).output
        given = job({"name": TRANS, "type": "STRING", "value": nothing})
        task = CdmUpdateJobOperator(task_id="t", definition=given)
    monkeypatch.setattr(type(nothing), "resolve", lambda *_, **__: None)
    with pytest.raises(errors.CdmConfigError, match=r"'transformConfig\.trans' of the definition"):
        copy.copy(task).render_template_fields({}, dag.get_template_env())


# Links


def link(**more: Any) -> dict[str, Any]:
    """Return a link with a password."""
    inputs = [{"name": "linkConfig.host", "value": "10.0.0.1"}]
    inputs += [{"name": "linkConfig.password", **more}]
    return {
        "name": "new",
        "connector-name": "generic-jdbc-connector",
        "link-config-values": block("linkConfig", *inputs),
    }


def test_a_shown_link_is_sent_back(
    sim: CdmSimulator, task_runner: TaskRunner, make_session: MakeSession
) -> None:
    """CDM shows no secrets: a shown link is unchanged, and is not sent without its secret."""

    def apply(definition: Any, **more: Any) -> Any:
        return task_runner.run(made(CdmApplyLinkOperator, definition, **more))

    assert apply(link(value="{{ ds }}"))["action"] == "created"
    session = make_session()
    shown = session.run(session.api.find(LINK, sim.cluster_id, "new"))
    assert shown is not None
    assert "value" not in shown["link-config-values"]["configs"][0]["inputs"][1]
    assert apply(shown)["action"] == "unchanged"
    with_null = copy.deepcopy(shown)
    with_null["link-config-values"]["configs"][0]["inputs"][1]["value"] = None
    assert apply(with_null)["action"] == "unchanged"
    assert apply(link())["action"] == "unchanged"
    for given in (shown, with_null, link()):
        with pytest.raises(errors.CdmConfigError, match=r"no value for linkConfig\.password"):
            apply(given, always_update=True)
    assert apply(link(value=""), always_update=True)["action"] == "updated"
    assert [r.route for r in sim.requests if "link" in r.route and r.route != "show_link"] == [
        "create_link",
        "update_link",
    ]
