"""Checks of arguments: before anything is sent, and with all problems in one message."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_cdm.client import arguments
from airflow_provider_cdm.client.api import runs
from airflow_provider_cdm.client.errors import CdmConfigError


@pytest.mark.parametrize("name", ["orders", "订单 日报", "a/b.c", "..", "x" * 240, " padded "])
def test_job_names(name: str) -> None:
    """The characters of a job name are not checked."""
    assert arguments.job_name(name) == name


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (None, "must be text, not NoneType"),
        (7, "must be text, not int"),
        ("", "is empty"),
        (" \n", "is empty. If it is a template, it was rendered to an empty text"),
        ("x" * 241, "has 241 characters; CDM allows 240"),
        ("half \ud800", "contains a lone surrogate"),
    ],
)
def test_wrong_job_names(name: Any, problem: str) -> None:
    """An invalid name is an error that names the argument."""
    with pytest.raises(CdmConfigError, match=f"job_name {problem}"):
        arguments.job_name(name)


@given(st.text(st.characters(), max_size=250))
@settings(derandomize=True, max_examples=100)
def test_checked_names_can_be_sent(name: str) -> None:
    """A name that passes the check can be sent, and only invalid names do not pass."""
    try:
        checked = arguments.job_name(name)
    except CdmConfigError:
        assert not name.strip() or len(name) > 240 or name != name.encode(errors="ignore").decode()
    else:
        assert runs.start_job("c", checked).target("p").isascii()


@pytest.mark.parametrize(
    ("values", "expected"),
    [(["a", "b"], "a"), ([None, "b"], "b"), (["", "b"], "b"), ([None, None, "c"], "c")],
)
def test_cluster_id(values: list[Any], expected: str) -> None:
    """The first cluster id that is set is used."""
    assert arguments.cluster_id(*values) == expected


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ([], "No cluster is given"),
        ([None, ""], "fill in Cluster ID in the connection"),
        ([7, "b"], "cluster_id must be text, not int"),
        (["  ", "b"], "cluster_id is empty"),
    ],
)
def test_wrong_cluster_ids(values: list[Any], problem: str) -> None:
    """If no cluster is given, the error names both places to set it."""
    with pytest.raises(CdmConfigError, match=problem):
        arguments.cluster_id(*values)


def test_variables() -> None:
    """Values are converted to text, and no variables give an empty mapping."""
    given = {
        "text": "a'b",
        "empty": "",
        "number": 7,
        "share": 0.5,
        "price": Decimal("1.10"),
        "yes": True,
        "day": date(2025, 1, 2),
        "时": datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC),
    }
    assert arguments.variables(given) == {
        "text": "a'b",
        "empty": "",
        "number": "7",
        "share": "0.5",
        "price": "1.10",
        "yes": "True",
        "day": "2025-01-02",
        "时": "2025-01-02 03:04:05+00:00",
    }
    assert arguments.variables(None) == arguments.variables({}) == {}


@pytest.mark.parametrize("given", ["ds=1", ["ds"], 7])
def test_variables_are_a_mapping(given: Any) -> None:
    """Variables that are not a mapping are an error."""
    with pytest.raises(CdmConfigError, match=r"must be a mapping .*, not (str|list|int)"):
        arguments.variables(given)


def test_wrong_variables() -> None:
    """The error lists all problems, without the values, which may be confidential."""
    wrong = {"": "1", "a b}": "2", 3: "4", "none": None, "list": ["secret"], "bytes": b"secret"}
    with pytest.raises(CdmConfigError) as caught:
        arguments.variables(wrong)
    text = str(caught.value)
    for part in ("the name ''", "'a b}'", "the name 3 is int", "'none' is None", "'list' is list"):
        assert part in text
    assert "'bytes' is bytes" in text
    assert "secret" not in text
