"""Definitions of jobs and links in CDM's format, and how they differ from what CDM shows.

:mod:`~airflow_provider_cdm.client.api.parsing` reads them from what users write. Values of
inputs are text, but for what CDM shows otherwise: a recorded job has an input whose value is a list
(huaweicloud-sdk-go-v3, issue 74).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple
from urllib.parse import unquote, unquote_plus

#: Types of jobs: tables and files, whole databases, scenarios. A listing shows one type only.
NORMAL_JOB, BATCH_JOB, SCENARIO_JOB = JOB_TYPES = ("NORMAL_JOB", "BATCH_JOB", "SCENARIO_JOB")
#: Text shown instead of a secret value.
MASK = "***"
#: Characters of a value that a log line shows.
_EXCERPT = 80
#: Keys that CDM adds to each job or link that it shows, and that nobody writes.
_ADDED = frozenset({"creation-date", "creation-user", "update-date", "update-user"})
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
            (key, self.wire[key], shown.get(key) or self.kind.defaults.get(key))
            for key in self.kind.texts[1:]
            if key in self.wire
        ]
        for block in self.kind.blocks:
            current = _values_of(shown, block)
            pairs += [
                (name, wanted, current.get(name))
                for name, wanted in _values_of(self.wire, block).items()
                if not is_secret(name)
            ]
        return [
            Difference(what, None if value is None else text_of(value), text_of(wanted))
            for what, wanted, value in pairs
            if not _same(wanted, value)
        ]

    def secrets_without_value(self) -> list[str]:
        """Return the names of inputs for secrets that have none, since CDM does not show them."""
        return [
            name
            for block in self.kind.blocks
            for name, value in _values_of(self.wire, block).items()
            if is_secret(name) and value != "" and text_of(value) == ""
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


def job_type_of(definition: Mapping[str, Any] | None) -> str | None:
    """Return the type in the definition of a job; ``None`` if it is missing or not known."""
    job_type = (definition or {}).get("job_type")
    return job_type if job_type in JOB_TYPES else None


def without_secrets(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a definition with a mask for every secret in it, at any depth."""
    masked: dict[str, Any] = _masked(definition)
    return masked


def _masked(value: Any) -> Any:
    """Return a value with a mask for every secret in it, at any depth."""
    if isinstance(value, Mapping):
        hidden = is_secret(value.get("name")) and "value" in value
        shown = {**value, "value": MASK} if hidden else value
        return {str(key): MASK if is_secret(key) else _masked(item) for key, item in shown.items()}
    return [_masked(item) for item in value] if isinstance(value, list | tuple) else value


def is_as_shown(part: Mapping[str, Any]) -> bool:
    """Return whether CDM has shown a definition or an input, rather than that a person wrote it.

    :param part: definition, with keys that only CDM adds; or input, with a type, size or id.
    """
    return not _ADDED.isdisjoint(part) or (
        "name" in part and not {"type", "size", "id"}.isdisjoint(part)
    )


def is_secret(name: object) -> bool:
    """Return whether an input of this name has a secret value: a password, key or token."""
    return isinstance(name, str) and _SECRET.search(name) is not None


def secret_inputs(value: Any) -> list[dict[str, Any]]:
    """Return the inputs with secret values, at any depth of a value that may not be checked yet."""
    return [
        item  # type: ignore[misc]  # most are dicts
        for item in _mappings(value)
        if is_secret(item.get("name")) and item.get("value") not in (None, "", [], {})
    ]


def secrets_inside(value: Any) -> list[str]:
    """Return the names of the secrets in the lists and objects that are values of inputs.

    They could be neither masked nor compared one by one, so no definition may have any.

    :param value: a definition, or a part of one, that may not be checked yet.
    """
    names = []
    for item in _mappings(value):
        content = item.get("value")
        if "name" in item and isinstance(content, Mapping | list | tuple):
            for part in _mappings(content):
                names += [str(k) for k, held in part.items() if is_secret(k) and held]
                names += [str(part["name"])] if is_secret(part.get("name")) else []
    return names


def _mappings(value: Any) -> Iterator[Mapping[Any, Any]]:
    """Yield the mappings in a value, each once: one may occur at several places, and in itself."""
    pending = [value]
    seen: dict[int, Any] = {}
    while pending:
        item = pending.pop()
        if not isinstance(item, Mapping | list | tuple) or id(item) in seen:
            continue
        seen[id(item)] = item
        if isinstance(item, Mapping):
            yield item
            item = list(item.values())
        pending.extend(item)


def inputs_of(wire: Mapping[str, Any], block: str) -> dict[str, str]:
    """Return the inputs of one block as a mapping of name to text; malformed ones are skipped."""
    return {name: text_of(value) for name, value in _values_of(wire, block).items()}


def text_of(value: Any) -> str:
    """Return a value of an input as text: lists and objects as JSON, empty if there is none."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, Mapping | list | tuple) and not value):
        return ""
    if isinstance(value, Mapping | list | tuple):
        try:
            return json.dumps(_masked(value), ensure_ascii=False, default=str)
        except RecursionError:
            return "(nested too deeply)"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _values_of(wire: Mapping[str, Any], block: str) -> dict[str, Any]:
    return {
        str(item["name"]): item.get("value")
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


def _same(wanted: Any, shown: Any) -> bool:
    """Return whether CDM shows a value that is wanted, in whatever form.

    It is not documented whether, and how, CDM encodes values; nor what it shows of a list that it
    was sent: another type, or none.
    """
    text, found = text_of(wanted), text_of(shown)
    if text in (found, unquote(found), unquote_plus(found)):
        return True
    if isinstance(wanted, str) is not isinstance(shown, str):
        wanted, shown = _unquoted(wanted), _unquoted(shown)
    if isinstance(wanted, Mapping) and isinstance(shown, Mapping):
        keys = {key for key in (*wanted, *shown) if not is_secret(key)}
        return all(_same(wanted.get(key), shown.get(key)) for key in keys)
    if isinstance(wanted, list | tuple) and isinstance(shown, list | tuple):
        pairs = zip(wanted, shown, strict=False)
        return len(wanted) == len(shown) and all(_same(one, other) for one, other in pairs)
    numbers = [value for value in (wanted, shown) if isinstance(value, int | float | Decimal)]
    if not numbers or any(isinstance(value, bool) for value in (wanted, shown)):
        return False
    with suppress(InvalidOperation):
        return Decimal(text) == Decimal(found)
    return False


def _unquoted(value: Any) -> Any:
    """Return the list, object or number that a text is in JSON, percent-encoded or not."""
    if isinstance(value, str):
        for text in (value, unquote(value)):
            with suppress(ValueError, RecursionError):
                return json.loads(text)
    return value


def _excerpt(value: str | None) -> str:
    if value is None:
        return "not set"
    return repr(value if len(value) <= _EXCERPT else f"{value[:_EXCERPT]}...")
