"""Tells the sub-jobs of a run from jobs that merely look like them; decides, and reads nothing.

Facts about a sub-job: each run makes it anew, so it is never older than the run; it has both links
of the whole-database job; it moves one table, of the job's schema and among the job's tables, and
is called ``<job>_<table>``; names are unique. A job that contradicts one of them is none.
What CDM does not show contradicts nothing: the job is *doubtful*. A doubtful job counts, since
otherwise a failed table might go unnoticed, and whoever reads the outcome is told why it counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from urllib.parse import unquote

from airflow_provider_cdm.client.api.definitions import NORMAL_JOB, inputs_of
from airflow_provider_cdm.client.api.job_list import ListedJob
from airflow_provider_cdm.client.submission import Submission, read_int
from airflow_provider_cdm.client.whole_database.table_names import (
    SEPARATOR,
    Fit,
    between_separators,
    fit_of,
    is_named,
    listed_names,
    pattern_of,
    without_variables,
)

LINKS = ("from-link-name", "to-link-name")
#: Block of a job with its source.
SOURCE = "from-config-values"
_TABLE = ("fromJobConfig.tableName", "fromJobConfig.table", "fromJobConfig.collectionName")
_SCHEMA = ("fromJobConfig.schemaName", "fromJobConfig.database")


class Standing(Enum):
    """What a job is for a run of a whole-database job."""

    OURS = "a sub-job"
    DOUBTFUL = "may be a sub-job"
    #: It looks like a sub-job, and was there before the run.
    OLDER = "older"
    OTHER = "another job"


@dataclass(frozen=True, slots=True)
class ClassifiedJob:
    """A job, and what it is for a run.

    :param job: job as a listing shows it.
    :param standing: what it is.
    :param reason: why it is doubtful or another job.
    :param incomplete: whether it is doubtful because something of it is not shown.
    """

    job: ListedJob
    standing: Standing
    reason: str = ""
    incomplete: bool = False


@dataclass(frozen=True, slots=True)
class Parent:
    """A run of a whole-database job, and what its definition says about its sub-jobs.

    :param name: name of the job.
    :param since: when the run was created, epoch milliseconds.
    :param until: when it ended.
    :param links: names of its links by their keys, as far as they are known.
    :param schema: pattern of its schemas; ``None`` if it is not known or matches all.
    :param tables: pattern of its tables; likewise.
    :param table_list: its tables as they are written.
    """

    name: str
    since: int | None = None
    until: int | None = None
    links: Mapping[str, str] = field(default_factory=dict)
    schema: re.Pattern[str] | None = None
    tables: re.Pattern[str] | None = None
    table_list: str = ""

    @classmethod
    def of(cls, run: Submission, definition: Mapping[str, Any] | None) -> Parent:
        """Return what is known of a run.

        A definition that was changed after the run had been created is not used.

        :param definition: definition of the job, if it is known.
        """
        definition, since = definition or {}, run.creation_date
        changed = read_int(definition.get("update-date"))
        if since is not None and changed is not None and changed > since:
            definition = {}
        inputs = inputs_of(definition, SOURCE)
        return cls(
            run.job_name,
            since,
            run.last_update_date if run.ended else None,
            _links(definition),
            pattern_of(_first(inputs, _SCHEMA)),
            pattern_of(_first(inputs, _TABLE)),
            _first(inputs, _TABLE),
        )


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A job whose name begins like that of a sub-job."""

    job: ListedJob
    rest: str
    created: int | None
    links: Mapping[str, str]
    schema: str
    table: str
    job_type: str

    @classmethod
    def of(cls, job: ListedJob, prefix: str) -> _Candidate:
        inputs, job_type = inputs_of(job.wire, SOURCE), job.wire.get("job_type")
        return cls(
            job,
            job.name[len(prefix) :],
            read_int(job.wire.get("creation-date")),
            _links(job.wire),
            without_variables(_first(inputs, _SCHEMA)),
            without_variables(_first(inputs, _TABLE)),
            job_type if isinstance(job_type, str) and job_type else NORMAL_JOB,
        )

    @property
    def fit(self) -> Fit:
        return self.fit_of(self.rest)

    def fit_of(self, rest: str) -> Fit:
        return fit_of(rest, self.table, self.schema)

    @property
    def claim(self) -> tuple[str, str]:
        """The table that it moves."""
        return unquote(self.schema).casefold(), unquote(self.table)


def classify(jobs: Iterable[ListedJob], parent: Parent) -> list[ClassifiedJob]:
    """Decide what each of the jobs of a listing is for a run.

    :param jobs: jobs of all listings, each once; those with other names are left out.
    :param parent: the run.
    """
    prefix = f"{parent.name}_"
    candidates = [
        _Candidate.of(job, prefix)
        for job in jobs
        if job.name.startswith(prefix) and job.name != prefix
    ]
    others = [each.job.name for each in candidates if each.job_type != NORMAL_JOB]
    reasons = {each.job.name: _other(each, parent, others) for each in candidates}
    left = [each for each in candidates if not reasons[each.job.name]]
    # If no job fits the list of tables, it is written in a way that is not understood here.
    listed = any(_is_listed(each, parent) is True for each in left)
    young = [each for each in left if not _is_older(each, parent)]
    claims = {each.claim for each in young if each.fit}
    return [
        ClassifiedJob(each.job, Standing.OTHER, reasons[each.job.name])
        if reasons[each.job.name]
        else _classify_one(each, parent, young, listed, claims)
        for each in candidates
    ]


def missing_tables(classified: Iterable[ClassifiedJob], parent: Parent) -> list[str]:
    """Return the tables that a definition names and for which there is no sub-job.

    If there is one for none of them, the list is written in a way that is not understood here.
    """
    prefix = f"{parent.name}_"
    counting = (Standing.OURS, Standing.DOUBTFUL)
    jobs = [_Candidate.of(each.job, prefix) for each in classified if each.standing in counting]
    listed = listed_names(parent.table_list)
    missing = [
        name
        for name in listed
        if not any(
            is_named(name, each.table or each.rest, each.schema) or is_named(name, each.rest, "")
            for each in jobs
        )
    ]
    return missing if len(missing) < len(listed) else []


def _other(job: _Candidate, parent: Parent, others: Sequence[str]) -> str:
    """Return why a job is certainly no sub-job, as far as it alone shows that."""
    for key, name in job.links.items():
        if parent.links.get(key, name) != name:
            return f"its {key} is {name!r}"
    if parent.schema and job.schema and not parent.schema.fullmatch(unquote(job.schema)):
        return f"its schema is {unquote(job.schema)!r}"
    for other in others:
        rest = job.job.name.removeprefix(f"{other}_")
        if rest != job.job.name and job.fit_of(rest) > job.fit:
            return f"it is a sub-job of {other!r}"
    if job.fit:
        return ""
    if job.job_type != NORMAL_JOB:
        return f"its type is {job.job_type}"
    if "*" in job.table or SEPARATOR.search(unquote(job.table)):
        return f"its tables are {unquote(job.table)!r}"
    return ""


def _classify_one(
    job: _Candidate,
    parent: Parent,
    young: Sequence[_Candidate],
    listed: bool,
    claims: set[tuple[str, str]],
) -> ClassifiedJob:
    table = unquote(job.table)
    unlisted = _is_listed(job, parent) is False
    misnamed = bool(table) and not job.fit
    if unlisted and listed:
        return ClassifiedJob(
            job.job, Standing.OTHER, f"{parent.name!r} does not move table {table!r}"
        )
    if misnamed and (job.claim in claims or _is_older(job, parent)):
        return ClassifiedJob(job.job, Standing.OTHER, f"its table is {table!r}")
    if _is_older(job, parent):
        return ClassifiedJob(job.job, Standing.OLDER, "it was there before the run")
    doubts = list(_missing(job, parent))
    incomplete = bool(doubts)
    if unlisted:
        doubts.append(f"table {table!r} is not among the tables of {parent.name!r}")
    if misnamed:
        doubts.append(f"it has another name than a sub-job for its table {table!r}")
    if job.fit < Fit.EXACT and not misnamed and _has_rival(job, young):
        doubts.append(f"another job also moves table {table!r}")
    if job.job_type != NORMAL_JOB:
        doubts.append(f"its type is {job.job_type}")
    if None not in (job.created, parent.until) and (job.created or 0) > (parent.until or 0):
        doubts.append("it was created after the run had ended")
    standing = Standing.DOUBTFUL if doubts else Standing.OURS
    return ClassifiedJob(job.job, standing, " and ".join(doubts), incomplete)


def _missing(job: _Candidate, parent: Parent) -> Iterator[str]:
    """Yield what would have to be shown to be certain."""
    if parent.since is None:
        yield "the date of the run is not known"
    elif job.created is None:
        yield "its creation date is not shown"
    if not all(key in job.links for key in LINKS):
        yield "its links are not shown"
    elif not all(key in parent.links for key in LINKS):
        yield f"the links of {parent.name!r} during the run are not known"
    if not job.table:
        yield "its table is not shown"


def _is_older(job: _Candidate, parent: Parent) -> bool:
    return job.created is not None and parent.since is not None and job.created < parent.since


def _is_listed(job: _Candidate, parent: Parent) -> bool | None:
    """Return whether a job's table is among those of the parent; ``None`` if that is not known."""
    if parent.tables is None or not job.table:
        return None
    table = unquote(job.table)
    names = (job.table, table, f"{unquote(job.schema)}.{table}")
    return any(parent.tables.fullmatch(name) for name in names) or (
        # A name may contain what otherwise separates names.
        between_separators(table) in between_separators(unquote(parent.table_list))
    )


def _has_rival(job: _Candidate, young: Sequence[_Candidate]) -> bool:
    return any(
        other is not job and other.claim == job.claim and other.fit >= job.fit for other in young
    )


def _links(wire: Mapping[str, Any]) -> dict[str, str]:
    return {key: wire[key] for key in LINKS if isinstance(wire.get(key), str) and wire[key]}


def _first(inputs: Mapping[str, str], names: Sequence[str]) -> str:
    return next((inputs[name] for name in names if inputs.get(name, "").strip()), "")
