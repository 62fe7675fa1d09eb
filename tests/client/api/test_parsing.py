"""Definitions that users write: how they are read and checked, with all problems at once."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_cdm.client.api import definitions, parsing
from airflow_provider_cdm.client.errors import CdmConfigError

JOB: dict[str, Any] = {
    "name": "orders",
    "job_type": "NORMAL_JOB",
    "from-connector-name": "generic-jdbc-connector",
    "from-link-name": "shop",
    "from-config-values": {
        "configs": [
            {
                "name": "fromJobConfig",
                "inputs": [{"name": "fromJobConfig.tableName", "value": "orders"}],
            }
        ]
    },
    "to-connector-name": "generic-jdbc-connector",
    "to-link-name": "warehouse",
    "to-config-values": {"configs": [{"name": "toJobConfig", "inputs": {}}]},
}
LINK: dict[str, Any] = {
    "name": "shop",
    "connector-name": "generic-jdbc-connector",
    "link-config-values": {
        "configs": [
            {"name": "linkConfig", "inputs": [{"name": "linkConfig.password", "value": "pa55word"}]}
        ]
    },
}
YAML = """
# A comment
name: orders
from-connector-name: &jdbc generic-jdbc-connector
from-link-name: shop
from-config-values:
  configs:
    - name: fromJobConfig
      inputs:
        - {name: fromJobConfig.tableName, value: orders}
        - {name: fromJobConfig.runAt, value: 12:30:45}
        - {name: fromJobConfig.day, value: 2025-01-02}
        - {name: fromJobConfig.number, value: 0123}
        - {name: fromJobConfig.word, value: no}
        - {name: fromJobConfig.big, value: 1e3}
        - name: fromJobConfig.sql
          value: |-
            SELECT 1
            FROM x
to-connector-name: *jdbc
to-link-name: warehouse
to-config-values: {configs: []}
"""


def changed(path: str, value: Any, of: dict[str, Any] = JOB) -> dict[str, Any]:
    """Return a definition with another value at a path; ``...`` removes it."""
    result = copy.deepcopy(of)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    parent: Any = result
    for part in parents:
        parent = parent[part]
    if value is ...:
        del parent[last]
    else:
        parent[last] = value
    return result


@pytest.mark.parametrize(
    "form", [JOB, {"jobs": [JOB]}, json.dumps(JOB), json.dumps({"jobs": [JOB]})]
)
def test_forms(form: Any) -> None:
    """A job may be given alone or in CDM's list of one, as a mapping or as text."""
    expected = copy.deepcopy(JOB)
    expected["to-config-values"]["configs"][0]["inputs"] = []
    assert parsing.job(form).body == {"jobs": [expected]}


def test_yaml_is_what_was_typed() -> None:
    """Values are text, so YAML does not turn them into numbers, dates or booleans."""
    job = parsing.job(YAML)
    assert definitions.inputs_of(job.wire, "from-config-values") == {
        "fromJobConfig.tableName": "orders",
        "fromJobConfig.runAt": "12:30:45",
        "fromJobConfig.day": "2025-01-02",
        "fromJobConfig.number": "0123",
        "fromJobConfig.word": "no",
        "fromJobConfig.big": "1e3",
        "fromJobConfig.sql": "SELECT 1\nFROM x",
    }
    assert job.wire["job_type"] == "NORMAL_JOB"


INPUT = "from-config-values/configs/0/inputs/0"


@pytest.mark.parametrize(
    ("value", "text"),
    [("a", "a"), ("", ""), (1, "1"), (1.5, "1.5"), (True, "true"), (False, "false"),
     (Decimal("1.10"), "1.10"), (date(2025, 1, 2), "2025-01-02")],
)  # fmt: skip
def test_values_become_text(value: Any, text: str) -> None:
    """Numbers, booleans and dates of a mapping become text, as CDM requires."""
    job = parsing.job(changed(f"{INPUT}/value", value))
    assert definitions.inputs_of(job.wire, "from-config-values") == {
        "fromJobConfig.tableName": text
    }


def test_what_cdm_shows_may_be_sent_again() -> None:
    """The read-only keys of a job that was shown or exported are dropped."""
    read_only = {"id": 7, "status": "NEW", "creation-date": 5, "enabled": True}
    assert set(parsing.job({**JOB, **read_only}).wire) == set(JOB)
    assert parsing.job({**JOB, "keyOfTomorrow": {"a": 1}}).wire["keyOfTomorrow"] == {"a": 1}


def test_names() -> None:
    """The name is in the definition, in the argument, or in both if they agree."""
    nameless = changed("name", ...)
    assert parsing.job(nameless, "a").name == "a"
    assert parsing.job(JOB, "orders").name == "orders"
    for name in ("a", "订单", "a" * 240):
        assert parsing.job(changed("name", name)).name == name


WRONG: list[tuple[Any, list[str]]] = [
    (None, ["it must be an object", "not NoneType"]),
    ([], ["it must be an object", "not list"]),
    ({1: 2}, ["it must be an object"]),
    ("", ["not NoneType"]),
    ("just words", ["not str"]),
    ({"jobs": []}, ["jobs must be a list of exactly one job, not 0"]),
    ({"jobs": [JOB, JOB]}, ["exactly one job, not 2"]),
    ({"jobs": JOB}, ["exactly one job, not dict"]),
    ({"jobs": [1]}, ["it must be an object", "not int"]),
    ({}, ["name is missing", "from-link-name is missing", "to-config-values is missing"]),
    (changed("name", 7), ["name must be text, not int"]),
    (changed("name", " "), ["name is empty"]),
    (changed("name", "a" * 241), ["name has 241 characters; CDM allows 240"]),
    (changed("name", "a\ud800"), ["half a character"]),
    (changed("name", "all"), ["CDM lists everything under the name 'all'"]),
    (changed("name", "b"), ["its name is 'b', but job_name is 'orders'"]),
    (changed("job_type", "TABLE"), ["job_type must be one of NORMAL_JOB", "not 'TABLE'"]),
    (changed("from-link-name", ""), ["from-link-name must be text, but is empty"]),
    (changed("from-link-name", 5), ["from-link-name must be text, but is int"]),
    (changed("from-link-name", None), ["from-link-name is missing"]),
    ({**JOB, "job-type": "BATCH_JOB"}, ["there is no key 'job-type'; did you mean 'job_type'?"]),
    ({**JOB, "driver-config-value": {}}, ["did you mean 'driver-config-values'?"]),
    (changed("from-config-values", []), ["from-config-values must be an object with a list"]),
    (changed("from-config-values/configs", {}), ["from-config-values must be an object"]),
    (changed("from-config-values/configs/0", 1), ["each of its configs must be an object"]),
    (changed("from-config-values/configs/0/name", ""), ["each of its configs must be an object"]),
    (changed("from-config-values/configs/0/inputs", "x"), ["inputs of 'fromJobConfig' must be"]),
    (changed(INPUT, "x"), ["each input must be an object with a name and a value"]),
    (changed(f"{INPUT}/name", 1), ["each input must be an object with a name and a value"]),
    (changed(f"{INPUT}/value", ...), ["'fromJobConfig.tableName' has no value"]),
    (changed(INPUT, {"name": "a", "values": "b"}), ["the key is 'value', not 'values'"]),
    (changed(f"{INPUT}/value", None), ["'fromJobConfig.tableName' is null"]),
    (changed(f"{INPUT}/value", b"a"), ["'fromJobConfig.tableName' is bytes, not text"]),
    (changed(f"{INPUT}/value", [b"a"]), ["'fromJobConfig.tableName' contains bytes"]),
    (changed("keyOfTomorrow", {1: 2}), ["'keyOfTomorrow' has a key that is not text"]),
    (changed(f"{INPUT}/value", float("nan")), ["'fromJobConfig.tableName' is not a finite number"]),
    (
        changed("from-config-values/configs/0/inputs", [{"name": "a", "value": "b"}] * 2),
        ["from-config-values: 'a' is given 2 times"],
    ),
    ('{"name": "a"', ["not valid JSON: ", "in line 1, column 13"]),
    ("name: a\n  b: c", ["not valid YAML: ", "in line 2"]),
    ("name: !!int x", ["cannot be read"]),
    ("[" * 100_000, ["nested too deeply"]),
    ("a: \x00", ["not valid YAML"]),
]


@pytest.mark.parametrize(("definition", "words"), WRONG)
def test_wrong_definitions(definition: Any, words: list[str]) -> None:
    """Each problem is described with the user's own keys, and no other error is raised."""
    with pytest.raises(CdmConfigError) as refusal:
        parsing.job(definition, "orders" if definition == changed("name", "b") else None)
    for text in words:
        assert text in str(refusal.value)


def test_all_problems_at_once() -> None:
    """One error lists all problems, so that a definition can be fixed in one step."""
    broken = changed(f"{INPUT}/value", None)
    del broken["to-link-name"]
    broken["job_type"] = "x"
    with pytest.raises(CdmConfigError) as refusal:
        parsing.job(broken)
    assert str(refusal.value) == (
        "The definition of the job 'orders' cannot be sent to CDM: job_type must be one of"
        " NORMAL_JOB, BATCH_JOB, SCENARIO_JOB, not 'x'; to-link-name is missing;"
        " 'fromJobConfig.tableName' is null (an expression that yields nothing?)."
    )


def test_a_scenario_may_contain_anything() -> None:
    """The contents of a scenario are not documented, so nothing is required."""
    assert parsing.job({"name": "a", "job_type": "SCENARIO_JOB"}).name == "a"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("connector-name", ..., "connector-name is missing"),
        ("name", ..., "name is missing"),
        ("link-config-values", None, "link-config-values is missing"),
        ("link-config-values/configs/0/inputs/0/value", ["pa55word"], "'linkConfig.password' is"),
        ("link-config-values/configs/0/inputs/0/value", None, "'linkConfig.password' is null"),
    ],
)
def test_wrong_links(path: str, value: Any, words: str) -> None:
    """Links are checked in the same way, and no message contains a password."""
    with pytest.raises(CdmConfigError) as refusal:
        parsing.link(changed(path, value, LINK))
    assert words in str(refusal.value)
    assert "pa55word" not in str(refusal.value)


@pytest.mark.parametrize(
    "text", ['{"password": "pa55word"', "password: pa55word: x", "- pa55word\nx"]
)
def test_unreadable_text_is_not_repeated(text: str) -> None:
    """An unreadable definition may contain a password, so it is not quoted."""
    with pytest.raises(CdmConfigError) as refusal:
        parsing.link(text)
    assert "pa55word" not in str(refusal.value)
    assert refusal.value.__cause__ is None


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@pytest.mark.long
@given(value=json_like, path=st.sampled_from(["", "name", "from-config-values", INPUT]))
def test_any_definition_is_checked_or_rejected(value: Any, path: str) -> None:
    """Whatever a definition contains, it is read as something that JSON can hold, or rejected."""
    definition = changed(path, value) if path else value
    try:
        job = parsing.job(definition)
    except CdmConfigError:
        return
    json.dumps(job.body, allow_nan=False)
    for block in job.kind.blocks:
        for config in (job.wire.get(block) or {"configs": []})["configs"]:
            values = [item["value"] for item in config["inputs"]]
            assert all(isinstance(each, str | list | dict) for each in values)


@given(st.text())
def test_any_text_is_read_or_rejected(text: str) -> None:
    """Whatever a file contains, it is read as a value, or there is one error."""
    with suppress(CdmConfigError):
        parsing.read(text)
