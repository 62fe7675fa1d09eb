"""Reading definitions that are JSON or YAML, without the types that YAML would guess."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from airflow_provider_cdm.client.api import definitions
from airflow_provider_cdm.client.api.definitions import JOB, LINK
from airflow_provider_cdm.client.errors import CdmConfigError

#: Numbers and booleans as JSON writes them.
_JSON_SCALAR = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?|true|false")
#: Tags of YAML that are understood; all other values are text.
_KNOWN_TAGS = frozenset({"null", "str", "seq", "map"})
#: Characters of the longest text that is read.
_LONGEST = 10_000_000
#: Characters of the longest number that is read as one; JSON's fractions have up to 24.
_LONGEST_NUMBER = 24
#: Keys with text, whatever that looks like.
_TEXTS = frozenset({"name", "value", *JOB.texts, *LINK.texts})


class _Scalar(str):
    """A number or boolean of JSON as it was typed, before it is known what is wanted of it."""

    __slots__ = ()

    def parsed(self) -> Any:
        """Return what it is in JSON; plain text if it is no usual number."""
        value = json.loads(self) if len(self) <= _LONGEST_NUMBER else str(self)
        return str(self) if isinstance(value, float) and not math.isfinite(value) else value


def read(text: str) -> Any:
    """Read JSON or YAML; values such as numbers, dates and ``yes`` remain text, as typed.

    CDM accepts only text; YAML's types would turn ``12:30:00`` into 45000. What CDM shows keeps the
    numbers that it has: ids and sizes, those in lists and objects, and the values of its inputs.

    :raises CdmConfigError: when it is neither; the error does not quote the content.
    """
    if len(text) > _LONGEST:
        raise CdmConfigError(f"The definition has more than {_LONGEST:,} characters.")
    try:
        return _settled(json.loads(text, parse_int=_Scalar, parse_float=_Scalar))
    except json.JSONDecodeError as error:
        problem = f"not valid JSON: {error.msg} in line {error.lineno}, column {error.colno}"
    except RecursionError:
        raise CdmConfigError("The definition is nested too deeply to be read.") from None
    import yaml

    try:
        return _settled(yaml.load(text, _text_loader()))  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if not text.lstrip().startswith(("{", "[")):
            mark = getattr(error, "problem_mark", None)
            what = getattr(error, "problem", None) or "unreadable"
            problem = f"not valid YAML: {what}" + (f" in line {mark.line + 1}" if mark else "")
    raise CdmConfigError(f"The definition cannot be read: it is {problem}.")


def _text_loader() -> Any:
    """Return a YAML loader that reads every scalar but null as text."""
    import yaml

    kept = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")

    class TextLoader(yaml.SafeLoader):
        yaml_implicit_resolvers = {  # noqa: RUF012 - as the base class declares it
            first: [resolver for resolver in resolvers if resolver[0] in kept]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }
        # Tags such as !!int would give other values, and raise any error for a wrong one.
        yaml_constructors = {  # noqa: RUF012
            tag: constructor
            for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
            if tag is None or tag.rpartition(":")[2] in _KNOWN_TAGS
        }

        def flatten_mapping(self, node: Any) -> None:
            super().flatten_mapping(node)
            # Before PyYAML 6.0.4, merging "<<: [*a, *a]" a few times repeats keys by the billion.
            pairs = {id(pair): pair for pair in reversed(node.value)}
            node.value = list(reversed(pairs.values()))

    def text_or_scalar(loader: Any, node: Any) -> str:
        text = loader.construct_scalar(node)
        is_scalar = node.style is None and _JSON_SCALAR.fullmatch(text)
        return _Scalar(text) if is_scalar else text

    TextLoader.add_constructor("tag:yaml.org,2002:str", text_or_scalar)
    return TextLoader


def _settled(data: Any) -> Any:
    """Return what was read with text or numbers in place of each scalar.

    Aliases of YAML are not written out: each part is visited once, in place.
    """
    shown = _is_shown(data)
    pending, seen = [data], {id(data)}
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            keep = shown or definitions.is_as_shown(part)
            for key, item in list(part.items()):
                if isinstance(item, _Scalar):
                    is_text = key in _TEXTS and not (keep and key == "value")
                    part[key] = str(item) if is_text else item.parsed()
                if isinstance(key, _Scalar):
                    part[str(key)] = part.pop(key)
        elif isinstance(part, list):
            part[:] = [i.parsed() if isinstance(i, _Scalar) else i for i in part]
        else:
            continue
        items = part.values() if isinstance(part, dict) else part
        fresh = {id(i): i for i in items if isinstance(i, dict | list) and id(i) not in seen}
        seen |= fresh.keys()
        pending += fresh.values()
    return str(data) if isinstance(data, _Scalar) else data


def _is_shown(definition: Any) -> bool:
    """Return whether CDM has shown a definition, alone or in a list of one."""
    if not isinstance(definition, Mapping):
        return False
    for kind in (JOB, LINK):
        items = definition.get(kind.plural)
        if isinstance(items, list | tuple) and len(items) == 1 and isinstance(items[0], Mapping):
            definition = items[0]
    return definitions.is_as_shown(definition)
