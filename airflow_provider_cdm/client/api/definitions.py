"""Definitions of jobs and links in CDM's format, and how they differ from what CDM shows.

:mod:`~airflow_provider_cdm.client.api.parsing` reads them from what users write. All values of
inputs are text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from urllib.parse import unquote, unquote_plus

from airflow_provider_cdm.client.errors import CdmConfigError

#: Types of jobs: tables and files, whole databases, scenarios. A listing shows one type only.
NORMAL_JOB, BATCH_JOB, SCENARIO_JOB = JOB_TYPES = ("NORMAL_JOB", "BATCH_JOB", "SCENARIO_JOB")
#: Text shown instead of a secret value.
MASK = "***"
#: Levels and characters of the largest definition.
_DEEPEST, _LARGEST = 50, 10_000_000
#: Characters of a value that a log line shows.
_EXCERPT = 80
# Matches the end of an input's name, such as linkConfig.password.
_SECRET = re.compile(
    r"(?i)(password|passwd|passphrase|passcode|secret|(secret|security|access|private)[._-]?key"
    r"|token|credentials?|(^|[._-])(ak|sk|dek))$"
)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of thing that can be defined: jobs or links.

    :param noun: its name, also in paths of the API.
    :param plural: key of the list in which CDM accepts and shows definitions.
    :param texts: keys with plain text, the name first.
    :param blocks: keys with configurations, which contain inputs.
    :param optional: keys of either sort that may be missing.
    :param defaults: values that CDM uses for missing keys.
    :param read_only: keys that CDM adds when it shows a definition. They are dropped, so that a
        definition that was shown can be sent again.
    """

    noun: str
    plural: str
    texts: tuple[str, ...]
    blocks: tuple[str, ...]
    optional: tuple[str, ...] = ()
    defaults: Mapping[str, str] = field(default_factory=dict)
    read_only: frozenset[str] = frozenset()


JOB = Kind(
    "job",
    "jobs",
    texts=(
        *("name", "job_type", "from-connector-name", "from-link-name"),
        *("to-connector-name", "to-link-name"),
    ),
    blocks=("from-config-values", "to-config-values", "driver-config-values"),
    optional=("driver-config-values",),
    defaults={"job_type": JOB_TYPES[0]},
    read_only=frozenset(
        {
            *("creation-user", "creation-date", "update-user", "update-date", "enabled", "id"),
            *("is_incre_job", "is_incrementing", "is_use_sql", "flag", "external_id", "type"),
            *("execute_start_date", "execute_create_date", "execute_update_date", "status"),
            *("delete_rows", "update_rows", "write_rows", "rows_read", "rows_written"),
            *("files_read", "files_written", "bytes_read", "bytes_written", "group_name"),
        }
    ),
)
LINK = Kind(
    "link",
    "links",
    texts=("name", "connector-name"),
    blocks=("link-config-values",),
    read_only=frozenset(
        {"creation-user", "creation-date", "update-user", "update-date", "enabled", "id"}
    ),
)


class Difference(NamedTuple):
    """A difference between what CDM shows and a definition.

    :param what: name of an input, or key of the definition.
    :param shown: value in CDM; ``None`` if there is none.
    :param wanted: value in the definition.
    """

    what: str
    shown: str | None
    wanted: str

    def __str__(self) -> str:
        return f"{self.what} is {_excerpt(self.shown)}, wanted {_excerpt(self.wanted)}"


@dataclass(frozen=True, slots=True)
class Definition:
    """The checked definition of a job or link.

    :param kind: whether it is a job or a link.
    :param wire: definition as CDM accepts it; not in the ``repr``, since that of a link contains a
        password.
    """

    kind: Kind
    wire: Mapping[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """Name of the job or link."""
        return str(self.wire["name"])

    @property
    def body(self) -> dict[str, Any]:
        """Body of the create and update calls: a list of one."""
        return {self.kind.plural: [dict(self.wire)]}

    @property
    def fingerprint(self) -> str:
        """Digest that distinguishes definitions, except for their secret values."""
        inputs = [
            (block, name, MASK if is_secret(name) else value)
            for block in self.kind.blocks
            for name, value in inputs_of(self.wire, block).items()
        ]
        content = [[self.wire.get(key) for key in self.kind.texts], sorted(inputs), self._rest()]
        text = json.dumps(content, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def named(self, name: str) -> Definition:
        """Return the same definition under another name."""
        return replace(self, wire={**self.wire, "name": name})

    def differences(self, shown: Mapping[str, Any]) -> list[Difference]:
        """Return the differences between what CDM shows and this definition.

        Percent-encoding and the order of inputs do not count as differences. Inputs that this
        definition does not name are not compared, because CDM adds defaults of its own; to remove a
        value, name the input with an empty value. Secret values (see :func:`is_secret`) are not
        compared either, because CDM does not show them.

        :param shown: object that the show call returned.
        """
        pairs = [
            (key, self.wire[key], shown.get(key, self.kind.defaults.get(key)))
            for key in self.kind.texts[1:]
            if key in self.wire
        ]
        for block in self.kind.blocks:
            current = inputs_of(shown, block)
            pairs += [
                (name, wanted, current.get(name))
                for name, wanted in inputs_of(self.wire, block).items()
                if not is_secret(name)
            ]
        return [
            Difference(what, _text_or_none(value), wanted)
            for what, wanted, value in pairs
            if not _same(wanted, value)
        ]

    def _rest(self) -> Any:
        """Return what the definition holds besides texts and inputs, which CDM takes as well."""
        known = (*self.kind.texts, *self.kind.blocks)
        rest = {key: value for key, value in self.wire.items() if key not in known}
        for block in self.kind.blocks:
            content = self.wire.get(block)
            if isinstance(content, Mapping) and (extra := set(content) - {"configs"}):
                rest[block] = {key: content[key] for key in extra}
        return _masked(rest)

    def unmanaged(self, shown: Mapping[str, Any]) -> list[str]:
        """Return the names of inputs that have a value in CDM and are not in this definition."""
        return [
            name
            for block in self.kind.blocks
            for name, value in inputs_of(shown, block).items()
            if value and name not in inputs_of(self.wire, block)
        ]


def _masked(value: Any) -> Any:
    """Return a value with a mask for every secret in it, at any depth."""
    if isinstance(value, Mapping):
        hidden = is_secret(value.get("name")) and "value" in value
        shown = {**value, "value": MASK} if hidden else value
        return {str(key): MASK if is_secret(key) else _masked(item) for key, item in shown.items()}
    return [_masked(item) for item in value] if isinstance(value, list | tuple) else value


def is_secret(name: object) -> bool:
    """Return whether an input of this name has a secret value: a password, key or token."""
    return isinstance(name, str) and _SECRET.search(name) is not None


def secret_inputs(value: Any) -> list[dict[str, Any]]:
    """Return the inputs with secret values, at any depth of a value that may not be checked yet."""
    secrets: list[dict[str, Any]] = []
    pending = [value]
    # A part may occur at several places, and in itself.
    seen: dict[int, Any] = {}
    while pending:
        item = pending.pop()
        if not isinstance(item, Mapping | list | tuple) or id(item) in seen:
            continue
        seen[id(item)] = item
        if isinstance(item, Mapping):
            if is_secret(item.get("name")) and item.get("value") not in (None, ""):
                secrets.append(item)  # type: ignore[arg-type]  # most are dicts
            item = list(item.values())
        pending.extend(item)
    return secrets


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


def inputs_of(wire: Mapping[str, Any], block: str) -> dict[str, str]:
    """Return the inputs of one block as a mapping of name to value; malformed ones are skipped."""
    return {
        str(item["name"]): _text_or_none(item.get("value")) or ""
        for item in _inputs(wire.get(block))
        if item.get("name") is not None
    }


def _inputs(block: Any) -> Iterator[Mapping[str, Any]]:
    configs = block.get("configs") if isinstance(block, Mapping) else None
    for config in configs if isinstance(configs, list | tuple) else ():
        inputs = config.get("inputs") if isinstance(config, Mapping) else None
        for item in inputs if isinstance(inputs, list | tuple) else ():
            if isinstance(item, Mapping):
                yield item


def _same(wanted: str, shown: Any) -> bool:
    # It is not documented whether, and how, CDM encodes values.
    text = _text_or_none(shown) or ""
    return wanted in (text, unquote(text), unquote_plus(text))


def _text_or_none(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else str(value)


def _excerpt(value: str | None) -> str:
    if value is None:
        return "not set"
    return repr(value if len(value) <= _EXCERPT else f"{value[:_EXCERPT]}...")
