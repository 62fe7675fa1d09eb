"""Definitions of jobs and links as CDM wants them, and how they differ from what CDM shows.

``drafts`` makes them of what users write. All values of inputs are text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from urllib.parse import unquote, unquote_plus

#: Types of jobs: tables and files, whole databases, scenarios; a listing shows one of them.
NORMAL_JOB, BATCH_JOB, SCENARIO_JOB = JOB_TYPES = ("NORMAL_JOB", "BATCH_JOB", "SCENARIO_JOB")
#: Stands for a value that must not be seen.
MASK = "***"
#: How much of a value a log line shows, in characters.
_EXCERPT = 80
# Judged by the end of an input's name, such as linkConfig.password.
_SECRET = re.compile(
    r"(?i)(password|passwd|passphrase|passcode|secret|(secret|security|access|private)[._-]?key"
    r"|token|credentials?|(^|[._-])(ak|sk|dek))$"
)


@dataclass(frozen=True, slots=True)
class Kind:
    """What is defined.

    :param noun: how people call it.
    :param plural: key of the list that CDM takes and shows it in.
    :param texts: keys of plain text, the name first.
    :param blocks: keys of configurations, which hold inputs.
    :param optional: those of both that may be left out.
    :param defaults: what CDM takes where one is left out.
    :param read_only: keys that CDM adds when it shows one; what was shown may be sent again.
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
    """Something that CDM has otherwise than it is wanted.

    :param what: name of an input, or key of the definition.
    :param shown: what CDM has, ``None`` if nothing.
    """

    what: str
    shown: str | None
    wanted: str

    def __str__(self) -> str:
        return f"{self.what} is {_excerpt(self.shown)}, wanted {_excerpt(self.wanted)}"


@dataclass(frozen=True, slots=True)
class Definition:
    """A job or a link as CDM wants it, checked.

    :param wire: the object itself; not in the ``repr``, since a link's holds a password.
    """

    kind: Kind
    wire: Mapping[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """Name of the job or link."""
        return str(self.wire["name"])

    @property
    def body(self) -> dict[str, Any]:
        """What the create and update calls take: a list of one."""
        return {self.kind.plural: [dict(self.wire)]}

    @property
    def fingerprint(self) -> str:
        """Tells definitions apart, but for values that are secret."""
        inputs = [
            (block, name, MASK if is_secret(name) else value)
            for block in self.kind.blocks
            for name, value in inputs_of(self.wire, block).items()
        ]
        content = [[self.wire.get(key) for key in self.kind.texts], sorted(inputs)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]

    def named(self, name: str) -> Definition:
        """The same under another name."""
        return replace(self, wire={**self.wire, "name": name})

    def differences(self, shown: Mapping[str, Any]) -> list[Difference]:
        """Say what a job or link has otherwise than it is wanted here.

        CDM may show values percent-encoded, which is no difference, nor is the order of inputs.
        What this definition does not name is not compared: CDM adds defaults of its own. So a value
        is taken away by naming the input with an empty value, not by leaving it out. Secret values
        (see :func:`is_secret`) never differ, since CDM does not show them.

        :param shown: the object as the show call returned it.
        """
        pairs = [
            (key, self.wire[key], shown.get(key, self.kind.defaults.get(key)))
            for key in self.kind.texts[1:]
            if key in self.wire
        ]
        for block in self.kind.blocks:
            has = inputs_of(shown, block)
            pairs += [
                (name, wanted, has.get(name))
                for name, wanted in inputs_of(self.wire, block).items()
                if not is_secret(name)
            ]
        return [
            Difference(what, _text_or_none(has), wanted)
            for what, wanted, has in pairs
            if not _same(wanted, has)
        ]

    def unmanaged(self, shown: Mapping[str, Any]) -> list[str]:
        """The inputs that CDM shows with a value, and that are not named here."""
        return [
            name
            for block in self.kind.blocks
            for name, value in inputs_of(shown, block).items()
            if value and name not in inputs_of(self.wire, block)
        ]


def is_secret(name: object) -> bool:
    """Whether the value of an input of this name is secret: passwords, keys, tokens."""
    return isinstance(name, str) and _SECRET.search(name) is not None


def secret_inputs(value: Any) -> list[dict[str, Any]]:
    """Find the inputs with secret values, anywhere in something that need not be checked yet."""
    found: list[dict[str, Any]] = []
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, dict):
            if is_secret(one.get("name")) and one.get("value") not in (None, ""):
                found.append(one)
            one = list(one.values())
        if isinstance(one, list | tuple):
            pending.extend(one)
    return found


def inputs_of(wire: Mapping[str, Any], block: str) -> dict[str, str]:
    """The inputs of one block as name to value; what is malformed is passed over."""
    return {
        str(each["name"]): _text_or_none(each.get("value")) or ""
        for each in _inputs(wire.get(block))
        if each.get("name") is not None
    }


def _inputs(block: Any) -> Iterator[Mapping[str, Any]]:
    configs = block.get("configs") if isinstance(block, Mapping) else None
    for config in configs if isinstance(configs, list | tuple) else ():
        inputs = config.get("inputs") if isinstance(config, Mapping) else None
        for each in inputs if isinstance(inputs, list | tuple) else ():
            if isinstance(each, Mapping):
                yield each


def _same(wanted: str, shown: Any) -> bool:
    # Which way of encoding a release uses, if any, is not documented.
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
