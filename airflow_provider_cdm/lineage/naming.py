"""The datasets that a job reads and writes, named as OpenLineage names them.

Only inputs that describe locations are read. A dataset that cannot be named with certainty is
omitted, because a wrong name stays in a lineage graph.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote

from airflow_provider_cdm.client.api.definitions import BATCH_JOB, inputs_of, is_secret
from airflow_provider_cdm.lineage.stores import STORES, UNKNOWN_STORE, Endpoint

Side = Literal["from", "to"]
#: Maximum number of datasets of one side of a job.
LIMIT = 100
# Matches the query of an address, which may hold a token; a mere question mark is a wildcard.
_QUERY = re.compile(r"\?[^?/]*=.*", re.DOTALL)
_VARIABLE = re.compile(r"\$\{(\w+)\}")


class Column(NamedTuple):
    """A column, with its type if the job contains it."""

    name: str
    type: str | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """A table, folder, topic or similar.

    :param namespace: name of the store, such as ``postgres://db.example.com:5432``.
    :param name: name within the store, such as ``shop.public.orders``.
    :param columns: columns that the job lists, in order; empty if it lists none.
    """

    namespace: str
    name: str
    columns: tuple[Column, ...] = ()


def link_of(job: Mapping[str, Any], side: Side) -> str | None:
    """Return the name of the link that :func:`datasets_of` needs; ``None`` if it needs none."""
    store = STORES.get(_connector(job, side))
    name = job.get(f"{side}-link-name")
    return name if store and store.needs_link and isinstance(name, str) and name else None


def datasets_of(
    job: Mapping[str, Any],
    side: Side,
    link: Mapping[str, Any] | None,
    *,
    cluster_id: str,
    variables: Mapping[str, str] | None = None,
    tables: Sequence[str] | None = None,
) -> list[Dataset]:
    """Return what one side of a job reads or writes. Never raises, and never reads secrets.

    If the link contains no server, or the connector is not known here, datasets are named after the
    link: namespace ``cdm://<cluster>``, name ``<link>`` or ``<link>.<table>``.

    :param job: definition of the job, as it was written or as CDM shows it.
    :param side: ``from`` for the source, ``to`` for the target.
    :param link: definition of the link that :func:`link_of` returns; nothing is named without it.
    :param cluster_id: cluster of the job.
    :param variables: values for ``${name}``; names with any other ``${...}`` are omitted.
    :param tables: tables that the run moved, if its job is a whole-database job; only these are
        named then.
    """
    if link is None and link_of(job, side) is not None:
        return []
    endpoint = Endpoint(
        _inputs(job, f"{side}-config-values", variables or {}),
        _inputs(link or {}, "link-config-values", {}),
        (tables or ()) if job.get("job_type") == BATCH_JOB else None,
    )
    if endpoint.job.get("usesql", "").lower() == "true":
        return []
    store = STORES.get(_connector(job, side), UNKNOWN_STORE)
    names, namespace = store.names(endpoint), store.namespace(endpoint)
    names = [_QUERY.sub("", name) for name in names]
    namespace = namespace and _QUERY.sub("", namespace)
    if namespace is None:
        link_name = job.get(f"{side}-link-name")
        names = [f"{link_name}.{name}".strip(".") for name in names] if link_name else []
        namespace = f"cdm://{cluster_id}"
    certain = [name for name in dict.fromkeys(names) if name and "${" not in name][:LIMIT]
    columns = _columns(endpoint.job, _connector(job, side)) if len(certain) == 1 else ()
    return [Dataset(namespace, name, columns) for name in certain]


def column_pairs(source: Dataset, target: Dataset) -> list[tuple[Column, Column]]:
    """Return pairs of source and target columns; none unless the job lists as many of each."""
    if len(source.columns) != len(target.columns):
        return []
    return list(zip(source.columns, target.columns, strict=True))


def _connector(job: Mapping[str, Any], side: Side) -> str:
    return str(job.get(f"{side}-connector-name")).removesuffix("-connector")


def _inputs(wire: Mapping[str, Any], block: str, variables: Mapping[str, str]) -> dict[str, str]:
    # Upper and lower case differ between documents and releases (serverList, serverlist), and CDM
    # may show values percent-encoded.
    return {
        name.rpartition(".")[2].lower(): _VARIABLE.sub(
            lambda match: variables.get(match[1], match[0]), unquote(value).strip()
        )
        for name, value in inputs_of(wire, block).items()
        if not is_secret(name)
    }


def _columns(job: Mapping[str, str], connector: str) -> tuple[Column, ...]:
    text = job.get("columnlist") or job.get("columns") or ""
    names = [name.strip() for name in text.split("&")]
    if not all(names) or all(name.isdecimal() for name in names):
        return ()  # the columns of files are numbers
    if connector == "elasticsearch":
        parts = (name.partition(":") for name in names)
        return tuple(Column(name, kind or None) for name, _, kind in parts)
    return tuple(map(Column, names))
