"""What is a sub-job and what only looks like one: for any jobs, and whatever CDM shows of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_cdm.client.api.job_list import ListedJob
from airflow_provider_cdm.client.submission import Submission
from airflow_provider_cdm.client.whole_database.look_alikes import (
    ClassifiedJob,
    Parent,
    Standing,
    classify,
)

SINCE, UNTIL = 1_735_787_045_000, 1_735_787_945_000
RUN = Submission("c", "shop", "SUCCEEDED", 5, SINCE, last_update_date=UNTIL)
LINKS = {"from-link-name": "source", "to-link-name": "target"}
HIDEABLE = ("creation-date", "from-link-name", "to-link-name", "from-config-values", "job_type")
COUNTS = (Standing.OURS, Standing.DOUBTFUL)

LETTERS = "abcAB1_-$ é&Ж"


def names(letters: str) -> st.SearchStrategy[str]:
    """Draw names of tables."""
    return st.text(letters, min_size=1, max_size=5).filter(lambda x: any(map(str.isalnum, x)))


DURING = st.integers(SINCE, UNTIL)


def job(name: str, table: str, created: int, schema: str = "", **keys: Any) -> ListedJob:
    """Return a job as a listing shows it."""
    inputs = [
        {"name": "fromJobConfig.tableName", "value": table},
        {"name": "fromJobConfig.schemaName", "value": schema},
    ]
    wire = {
        "creation-date": created,
        "job_type": "NORMAL_JOB",
        "from-config-values": {"configs": [{"name": "fromJobConfig", "inputs": inputs}]},
        **LINKS,
        **keys,
    }
    return ListedJob(name, "FAILED", created, wire)


def definition(schema: str = "", tables: str = "", **keys: Any) -> dict[str, Any]:
    """Return the definition of the whole-database job."""
    return dict(job("shop", tables, SINCE - 9, schema, job_type="BATCH_JOB", **keys).wire)


def in_job_name(table: str) -> str:
    """Return a table's name without the characters that the names of jobs may not contain."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", table)


@dataclass(frozen=True)
class Case:
    """A run, its sub-jobs, and other jobs with names like those of sub-jobs."""

    definition: dict[str, Any]
    sub_jobs: list[ListedJob]
    others: list[ListedJob]


@st.composite
def cases(draw: st.DrawFn, letters: str = LETTERS) -> Case:
    """Draw the jobs of a cluster; names are unique, so a sub-job's name is nobody else's."""
    one = names(letters)
    schema = draw(st.sampled_from(["", "public"]))
    distinct = st.lists(
        one, min_size=1, max_size=4, unique_by=lambda each: in_job_name(each).casefold()
    )
    tables = draw(distinct)
    replaced, encoded = draw(st.booleans()), draw(st.booleans())
    show = quote if encoded else str
    subs = {}
    for table in tables:
        name = f"shop_{in_job_name(table) if replaced else table}"
        subs[name] = job(name, show(table), draw(DURING), schema)
    listed = draw(st.sampled_from(["", "*", show("&".join(tables))]))
    others: dict[str, ListedJob] = {}
    for name, other in draw(st.lists(st.tuples(one, others_of(tables, listed)), max_size=5)):
        made = other(f"shop_{name}")
        taken = {each.casefold() for each in (*subs, *others)}
        if made.name.casefold() not in taken:
            others[made.name] = made
    if draw(st.booleans()) and "shop_hr" not in {**subs, **others}:
        others["shop_hr"] = job("shop_hr", "*", draw(DURING), "hr", job_type="BATCH_JOB")
        if "shop_hr_staff" not in subs:
            others["shop_hr_staff"] = job("shop_hr_staff", "staff", draw(DURING), "hr")
    return Case(definition(schema, listed), list(subs.values()), list(others.values()))


def others_of(tables: Sequence[str], listed: str) -> st.SearchStrategy[Any]:
    """Draw functions that make a job which is certainly no sub-job, given its name."""
    kinds = [
        st.builds(
            lambda table, age: lambda name: job(name, table, SINCE - age),
            st.sampled_from(tables),
            st.integers(1, 10**9),
        ),
        st.builds(
            lambda table, key: lambda name: job(name, table, SINCE + 1, **{key: "other"}),
            names(LETTERS),
            st.sampled_from(sorted(LINKS)),
        ),
        st.builds(
            lambda kind: lambda name: job(name, "*", SINCE + 1, job_type=kind),
            st.sampled_from(["BATCH_JOB", "NORMAL_JOB", "SCENARIO_JOB"]),
        ),
    ]
    if listed not in ("", "*"):
        kinds.append(st.just(lambda name: job(name, "unlisted", SINCE + 1)))
    return st.one_of(kinds)


def classified_by_name(
    jobs: Iterable[ListedJob], definition: Mapping[str, Any] | None, run: Submission = RUN
) -> dict[str, ClassifiedJob]:
    return {each.job.name: each for each in classify(jobs, Parent.of(run, definition))}


@pytest.mark.long
@given(case=cases(), data=st.data())
def test_where_all_is_shown_nothing_is_doubtful(case: Case, data: st.DataObject) -> None:
    """Each sub-job is one, no other job counts, and the order of the jobs does not matter."""
    jobs = [*case.sub_jobs, *case.others]
    found = classified_by_name(jobs, case.definition)
    for each in case.sub_jobs:
        assert found[each.name].standing is Standing.OURS, found[each.name]
    for each in case.others:
        assert found[each.name].standing not in COUNTS, found[each.name]
    assert classified_by_name(data.draw(st.permutations(jobs)), case.definition) == found


@pytest.mark.long
@given(case=cases(f"{LETTERS}%.,|"), data=st.data())
def test_a_sub_job_always_counts(case: Case, data: st.DataObject) -> None:
    """Whatever CDM does not show of the jobs and the run, no sub-job is overlooked."""
    hidden = st.sets(st.sampled_from(HIDEABLE))

    def show(wire: Mapping[str, Any]) -> dict[str, Any]:
        omitted = data.draw(hidden)
        return {key: value for key, value in wire.items() if key not in omitted}

    subs = [ListedJob(j.name, j.status, j.created, show(j.wire)) for j in case.sub_jobs]
    others = [ListedJob(j.name, j.status, j.created, show(j.wire)) for j in case.others]
    run = Submission("c", "shop", "SUCCEEDED", 5, data.draw(st.sampled_from([SINCE, None])))
    known = data.draw(st.sampled_from([None, show(case.definition)]))
    found = classified_by_name([*subs, *others], known, run)
    for each in subs:
        assert found[each.name].standing in COUNTS, found[each.name]
        certain = found[each.name].standing is Standing.OURS
        assert certain == (found[each.name].reason == "")


@pytest.mark.parametrize(
    ("keys", "standing"),
    [
        ({}, Standing.OURS),
        ({"created": SINCE}, Standing.OURS),
        ({"created": SINCE - 1}, Standing.OLDER),
        ({"created": UNTIL + 1}, Standing.DOUBTFUL),
        ({"schema": "PUBLIC"}, Standing.OURS),
        ({"schema": ""}, Standing.OURS),
        ({"schema": "hr"}, Standing.OTHER),
        ({"table": ""}, Standing.DOUBTFUL),
        ({"table": "ORDERS"}, Standing.OURS),
        ({"table": "orders${day}"}, Standing.DOUBTFUL),
        ({"job_type": "BATCH_JOB"}, Standing.DOUBTFUL),
        ({"job_type": "BATCH_JOB", "table": ""}, Standing.OTHER),
        ({"job_type": "BATCH_JOB", "table": "*"}, Standing.OTHER),
        ({"from-link-name": "Source"}, Standing.OTHER),
        ({"to-link-name": None}, Standing.DOUBTFUL),
        ({"creation-date": None}, Standing.DOUBTFUL),
        ({"creation-date": str(SINCE - 1)}, Standing.OLDER),
    ],
)
def test_one_job(keys: dict[str, Any], standing: Standing) -> None:
    """What one job named ``shop_orders`` is, by what is shown of it."""
    values = {"table": "orders", "created": SINCE + 1, "schema": "public", **keys}
    [classified] = classified_by_name([job("shop_orders", **values)], definition("public")).values()
    assert classified.standing is standing, classified


@pytest.mark.parametrize(
    ("listed", "table", "standing"),
    [
        ("orders&parts", "parts", Standing.OURS),
        ("public.orders & PUBLIC.PARTS", "parts", Standing.OURS),
        ("orders&p*", "parts", Standing.OURS),
        ("orders&p%", "parts", Standing.OURS),
        ("orders&part?", "parts", Standing.OURS),
        ("orders&${tables}", "parts", Standing.OURS),
        ("orders%26parts", "parts", Standing.OURS),
        ("orders&R&D", "R&D", Standing.OURS),
        ("orders&part", "parts", Standing.OTHER),
        ("[a]", "parts", Standing.DOUBTFUL),
    ],
)
def test_the_list_of_tables(listed: str, table: str, standing: Standing) -> None:
    """A table that is not in the job's list is another job's, if any table is found in the list."""
    jobs = [job(f"shop_{name}", name, SINCE, "public") for name in ("orders", table)]
    assert (
        classified_by_name(jobs, definition("public", listed))[f"shop_{table}"].standing is standing
    )


def test_two_jobs_for_one_table() -> None:
    """The sub-job of a table is the one with its name; a renamed one counts while there is none."""
    renamed, real = job("shop_old", "orders", SINCE), job("shop_orders", "orders", SINCE)
    older = job("shop_orders", "orders", SINCE - 1)
    known = definition()
    assert classified_by_name([renamed], known)["shop_old"].standing is Standing.DOUBTFUL
    assert classified_by_name([renamed, older], known)["shop_old"].standing is Standing.DOUBTFUL
    assert classified_by_name([renamed, real], known)["shop_old"].standing is Standing.OTHER


@pytest.mark.parametrize("seconds", [0, 1])
def test_a_definition_that_is_newer_than_the_run(seconds: int) -> None:
    """A definition that was changed since the run was created says nothing about it."""
    known = {**definition(), "to-link-name": "other", "update-date": SINCE + seconds}
    [classified] = classified_by_name([job("shop_orders", "orders", SINCE)], known).values()
    assert classified.standing is (Standing.DOUBTFUL if seconds else Standing.OTHER)


@pytest.mark.parametrize(
    "names", ["fromJobConfig.table fromJobConfig.database", "fromJobConfig.collectionName x"]
)
def test_other_kinds_of_sources(names: str) -> None:
    """Hive and MongoDB have other names for a table and its schema."""
    inputs = [{"name": key, "value": "orders"} for key in names.split()]
    keys = {"from-config-values": {"configs": [{"inputs": inputs}]}}
    jobs = [job(name, "", SINCE) for name in ("shop_x", "shop_orders")]
    jobs = [ListedJob(each.name, "FAILED", SINCE, {**each.wire, **keys}) for each in jobs]
    found = classified_by_name(jobs, definition())
    assert found["shop_orders"].standing is Standing.OURS
    assert found["shop_x"].standing is Standing.OTHER
