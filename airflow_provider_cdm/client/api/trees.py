"""Definitions as trees of mappings and lists, before they are checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_cdm.client.errors import CdmConfigError

#: Levels and characters of the largest definition.
_DEEPEST, _LARGEST = 50, 10_000_000


def as_tree(value: Any) -> Any:
    """Return a copy of a definition, with every part written out: mappings are dicts.

    :raises CdmConfigError: when it contains itself, or is larger than CDM could take; a few lines
        with aliases of YAML may stand for billions.
    """
    if _size_of(value, {}, set()) > _LARGEST:
        raise CdmConfigError(
            f"The definition has more than {_LARGEST:,} characters, aliases of YAML written out."
        )
    return _written_out(value)


def _size_of(part: Any, sizes: dict[int, int], open_parts: set[int]) -> int:
    """Return the characters of a definition, about.

    :param sizes: sizes of the parts that have been measured, by identity.
    :param open_parts: the parts that contain this one.
    """
    if not isinstance(part, Mapping | list | tuple):
        return 1 + (len(part) if isinstance(part, str) else 0)
    if id(part) in open_parts or len(open_parts) > _DEEPEST:
        raise CdmConfigError("The definition contains itself, or is nested too deeply.")
    if id(part) not in sizes:
        open_parts.add(id(part))
        items = part.values() if isinstance(part, Mapping) else part
        sizes[id(part)] = 1 + sum(_size_of(item, sizes, open_parts) for item in items)
        open_parts.remove(id(part))
    return sizes[id(part)]


def _written_out(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _written_out(item) for key, item in value.items()}
    return [_written_out(item) for item in value] if isinstance(value, list | tuple) else value
