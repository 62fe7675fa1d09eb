"""Definitions of jobs and links: what counts as a difference to what CDM shows."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_cdm.client.api import definitions, parsing
from airflow_provider_cdm.client.api.definitions import Definition

ENCODINGS: dict[str, Callable[[str], str]] = {
    "as they are": lambda value: value,
    "percent-encoded": lambda value: quote(value, safe=""),
    "as in forms": quote_plus,
}
encodings = pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
names = st.sampled_from(["tableName", "whereClause", "columnList", "sql", "useSql", "schemaName"])
values = st.dictionaries(names, st.text(st.characters(exclude_categories=["Cs"])), min_size=1)


def inputs(block: str, pairs: dict[str, Any]) -> dict[str, Any]:
    """Return a block with one configuration."""
    listed = [{"name": f"{block}.{name}", "value": value} for name, value in pairs.items()]
    return {"configs": [{"name": block, "inputs": listed}]}


def wire(pairs: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a job with these inputs of its source."""
    return {
        "name": "orders",
        "from-connector-name": "generic-jdbc-connector",
        "from-link-name": "shop",
        "from-config-values": inputs("fromJobConfig", pairs),
        "to-connector-name": "generic-jdbc-connector",
        "to-link-name": "warehouse",
        "to-config-values": inputs("toJobConfig", {"tableName": "orders"}),
        **changes,
    }


def shown(job: Definition, encode: Callable[[str], str], chance: random.Random) -> dict[str, Any]:
    """Return the job as CDM may show it: encoded, shuffled, with defaults and read-only keys."""
    found = dict(job.wire)
    for block in ("from-config-values", "to-config-values"):
        listed = [
            {"name": name, "value": encode(value), "type": "STRING"}
            for name, value in definitions.inputs_of(job.wire, block).items()
        ]
        listed.append({"name": f"{block}.default", "value": "DEFAULT"})
        chance.shuffle(listed)
        found[block] = {"configs": [{"name": "x", "inputs": listed, "id": 3}]}
    driver = inputs("throttlingConfig", {"numExtractors": "1"})
    return {**found, "driver-config-values": driver, "status": "NEW", "id": 7}


@encodings
@given(pairs=values, chance=st.randoms(use_true_random=False))
def test_what_was_sent_does_not_differ(
    encode: Callable[[str], str], pairs: dict[str, str], chance: random.Random
) -> None:
    """Encoding, order and additions of CDM are no differences."""
    job = parsing.job(wire(pairs))
    assert job.differences(shown(job, encode, chance)) == []


@encodings
@given(pairs=values, other=st.text("abc =<>'", min_size=1), chance=st.randoms())
def test_what_has_changed_differs(
    encode: Callable[[str], str], pairs: dict[str, str], other: str, chance: random.Random
) -> None:
    """A changed value is the only difference."""
    job = parsing.job(wire(pairs))
    changed = chance.choice(sorted(pairs))
    other = f"{pairs[changed]}!{other}"
    wanted = parsing.job(wire({**pairs, changed: other}))
    (difference,) = wanted.differences(shown(job, encode, chance))
    assert difference.what == f"fromJobConfig.{changed}"
    assert difference.wanted == other


@pytest.mark.parametrize(
    ("key", "value"),
    [("from-link-name", "archive"), ("to-connector-name", "dws-connector"),
     ("job_type", "BATCH_JOB")],
)  # fmt: skip
def test_links_connectors_and_type_count(key: str, value: str) -> None:
    """Links, connectors and type are compared as well; the default type is NORMAL_JOB."""
    job = parsing.job(wire({"tableName": "a"}))
    (difference,) = parsing.job(wire({"tableName": "a"}, **{key: value})).differences(job.wire)
    assert (difference.what, difference.wanted) == (key, value)
    without_type = {name: value for name, value in job.wire.items() if name != "job_type"}
    assert job.differences(without_type) == []


def test_empty_is_absent() -> None:
    """An input without a value is the same as a missing input."""
    job = parsing.job(wire({"tableName": "a", "whereClause": ""}))
    assert job.differences(wire({"tableName": "a"})) == []
    assert job.differences(wire({"tableName": "a", "whereClause": None})) == []
    (difference,) = job.differences(wire({"tableName": "a", "whereClause": "b"}))
    assert str(difference) == "fromJobConfig.whereClause is 'b', wanted ''"
    (difference,) = parsing.job(wire({"tableName": "a"})).differences(wire({}))
    assert str(difference) == "fromJobConfig.tableName is not set, wanted 'a'"


@pytest.mark.parametrize("junk", [None, [], "x", {"configs": 1}, {"configs": [1, {"inputs": {}}]}])
def test_whatever_cdm_shows(junk: Any) -> None:
    """CDM may show anything; then everything differs, and nothing is raised."""
    job = parsing.job(wire({"tableName": "a"}))
    broken = {"from-config-values": junk, "to-config-values": junk}
    assert "fromJobConfig.tableName" in [difference.what for difference in job.differences(broken)]
    assert job.unmanaged(broken) == []


def test_what_is_not_named() -> None:
    """Inputs that CDM has beyond the definition are listed for the log."""
    job = parsing.job(wire({"tableName": "a"}))
    assert job.unmanaged(wire({"tableName": "b", "whereClause": "c", "sql": ""})) == [
        "fromJobConfig.whereClause"
    ]


SECRET = [
    *("linkConfig.password", "linkConfig.accessKey", "linkConfig.securityKey", "x.secret_key"),
    *("linkConfig.authToken", "linkConfig.ak", "linkConfig.sk", "token", "linkConfig.PASSWORD"),
    *("linkConfig.keyPassword", "a.passphrase", "linkConfig.credential", "toJobConfig.dek"),
]
OPEN = [
    *("linkConfig.username", "linkConfig.host", "fromJobConfig.sql", "linkConfig.task"),
    *("fromJobConfig.primaryKey", "linkConfig.passwordPolicy", "toJobConfig.disk", "", None, 7),
]


@pytest.mark.parametrize("name", SECRET)
def test_secret_names(name: str) -> None:
    """Passwords, keys and tokens are recognized by the end of their names."""
    assert definitions.is_secret(name)


@pytest.mark.parametrize("name", OPEN)
def test_open_names(name: Any) -> None:
    """Any other input may be shown and compared."""
    assert not definitions.is_secret(name)


def link(password: Any) -> dict[str, Any]:
    """Return a link with a password."""
    values = inputs("linkConfig", {"host": "db", "password": password})
    return {"name": "l", "connector-name": "c", "link-config-values": values}


def test_secrets_never_differ_and_never_show() -> None:
    """CDM does not show secrets, so they are not compared; no repr or fingerprint has them."""
    one, other = parsing.link(link("pa55word")), parsing.link(link("other"))
    assert one.differences(link(None)) == other.differences(one.wire) == []
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != parsing.link({**link("pa55word"), "connector-name": "d"}).fingerprint
    assert "pa55word" not in repr(one)
    assert one.body["links"][0]["name"] == "l"


def test_secret_inputs_are_found_anywhere() -> None:
    """Secrets are found even in an invalid definition, such as one with several links."""
    draft = {"links": [link("a"), link(""), {"x": [{"name": "a.token", "value": 1}]}]}
    assert {item["value"] for item in definitions.secret_inputs(draft)} == {"a", 1}
    assert definitions.secret_inputs("a string") == []


def test_fingerprints() -> None:
    """A fingerprint depends on everything except order and secrets."""
    one = parsing.job(wire({"tableName": "a", "sql": "b"}))
    assert one.fingerprint == parsing.job(wire({"sql": "b", "tableName": "a"})).fingerprint
    assert one.fingerprint != parsing.job(wire({"tableName": "a", "sql": "c"})).fingerprint
    assert one.fingerprint != one.named("other").fingerprint
    secret = {"name": "a.password", "value": "x"}
    block = {**inputs("fromJobConfig", {"tableName": "a", "sql": "b"}), "extended-configs": secret}
    extended = parsing.job(wire({}, **{"from-config-values": block}))
    other_key = parsing.job(wire({"tableName": "a", "sql": "b"}, **{"sub-type": "c"}))
    assert len({job.fingerprint for job in (one, extended, other_key)}) == 3
    secret["value"] = "y"
    assert extended.fingerprint == parsing.job(extended.wire).fingerprint
    assert one.named("other").name == "other"
