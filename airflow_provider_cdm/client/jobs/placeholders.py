"""The placeholders in the definition of a job: variables and date macros, and where they stand."""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.definitions import Definition, inputs_of, is_secret
from airflow_provider_cdm.client.text import one_line
from airflow_provider_cdm.date_macros import PLACEHOLDER, MacroError, fill_macros, is_macro

#: Keys of a definition under which its parameters are.
_BLOCKS = ("from-config-values", "to-config-values", "driver-config-values")
#: Placeholders that a message names, and characters of each that it shows.
_SHOWN, _LIMIT = 20, 120
_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}")
_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]{8,}")


@dataclass(frozen=True, slots=True)
class Placeholders:
    """What stands in ``${...}`` in a definition, each with the names of its inputs.

    :param variables: names of variables.
    :param macros: date macros as they are written, without braces.
    :param hidden: names of variables in secret inputs, which no message mentions.
    :param has_parameters: whether the definition shows any parameter of source or target; without,
        nothing is known of the placeholders.
    """

    variables: dict[str, list[str]] = field(default_factory=dict)
    macros: dict[str, list[str]] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    has_parameters: bool = False

    @classmethod
    def of(cls, definition: Mapping[str, Any], given: Collection[str] = ()) -> Placeholders:
        """Return the placeholders of a definition, as it was written or as CDM shows it.

        :param given: names that have a value, and so are variables whatever they look like.
        """
        sides = ("from-config-values", "to-config-values")
        found = cls(has_parameters=any(inputs_of(definition, block) for block in sides))
        for name, text in _texts(definition):
            for match in PLACEHOLDER.finditer(decoded(text)):
                content = match[1].strip()
                if is_secret(name):
                    found.hidden.add(content)
                    continue
                macro = content not in given and is_macro(content)
                places = (found.macros if macro else found.variables).setdefault(content, [])
                if name not in places:
                    places.append(name)
        return found

    def undefined(self, given: Collection[str]) -> list[str]:
        """Return the variables without a value, each with its place, for a message."""
        missing = {name: at for name, at in self.variables.items() if name not in given}
        return _with_places(missing)

    def unused(self, given: Collection[str]) -> list[str]:
        """Return the names with a value that stand nowhere in the definition."""
        if not self.has_parameters:
            return []
        return [name for name in given if name not in self.variables and name not in self.hidden]

    def shown_macros(self) -> list[str]:
        """Return the date macros, each with its place, for a message."""
        return _with_places(self.macros)


def decoded(text: str) -> str:
    """Return a value as it was typed: some versions of CDM show it percent-encoded.

    Encoded text has neither spaces nor braces.
    """
    if "${" in text or any(map(str.isspace, text)) or not _ENCODED.search(text):
        return text
    return unquote_plus(text)


def with_macros_filled(definition: Definition, given: Collection[str], at: datetime) -> Definition:
    """Return a definition with its date macros replaced.

    :param given: names that have a value of their own, and so are no macros.
    :param at: point in time for the macros, in their time zone.
    :raises CdmConfigError: when a macro is not valid.
    """

    def filled(value: Any, name: str) -> Any:
        if isinstance(value, str):
            try:
                return fill_macros(value, given, at)
            except MacroError as error:
                raise errors.CdmConfigError(
                    f"A date macro in {name} of job {definition.name!r} cannot be filled in"
                    f" (macros_at): {error}. Nothing was created."
                ) from None
        if isinstance(value, Mapping):
            own = value.get("name")
            inner = own if isinstance(own, str) else name
            return {key: filled(item, inner) for key, item in value.items()}
        return [filled(item, name) for item in value] if isinstance(value, list | tuple) else value

    wire = {
        key: filled(value, key) if key in _BLOCKS else value
        for key, value in definition.wire.items()
    }
    return Definition(definition.kind, wire)


def _texts(definition: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield all texts among the parameters, each with the name of its input."""
    pending: list[tuple[str, Any]] = [
        (key, definition.get(key)) for key in reversed(_BLOCKS) if key in definition
    ]
    while pending:
        name, value = pending.pop()
        if isinstance(value, str):
            yield name, value
            if "${" not in value and (inner := _from_base64(value)):
                yield name, inner
        elif isinstance(value, Mapping):
            own = value.get("name")
            inner_name = own if isinstance(own, str) else name
            pending.extend((inner_name, item) for item in reversed(list(value.values())))
        elif isinstance(value, list | tuple):
            pending.extend((name, item) for item in reversed(value))


def _from_base64(text: str) -> str:
    """Return what a value of ``extended-configs`` holds; empty for text that is not encoded."""
    if not _BASE64.fullmatch(text):
        return ""
    try:
        return base64.b64decode(text, validate=False).decode()
    except ValueError:
        return ""


def _with_places(found: Mapping[str, list[str]]) -> list[str]:
    shown = [
        f"${{{one_line(content, _LIMIT)}}} ({one_line(', '.join(places), _LIMIT)})"
        for content, places in list(found.items())[:_SHOWN]
    ]
    hidden = len(found) - len(shown)
    return [*shown, f"{hidden} more"] if hidden else shown
