"""Reading and checking the definitions that users write, before anything is sent.

The format is that of CDM's create call and of its console's export: the job or link as an object,
either alone or in a list of one under ``jobs`` or ``links``; a mapping, or JSON or YAML text. What
CDM shows of a job or link is a definition as well, and its values are sent as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any

from airflow_provider_cdm.client import arguments
from airflow_provider_cdm.client.api import definitions
from airflow_provider_cdm.client.api.definitions import (
    JOB,
    JOB_TYPES,
    LINK,
    SCENARIO_JOB,
    Definition,
    Kind,
)
from airflow_provider_cdm.client.api.reading import read as read
from airflow_provider_cdm.client.api.trees import as_tree
from airflow_provider_cdm.client.errors import CdmConfigError
from airflow_provider_cdm.client.text import shown


def job(value: Any, name: str | None = None) -> Definition:
    """Read the definition of a job.

    Numbers, booleans and dates among the values become text, unless CDM shows them so; lists and
    objects stay what they are.

    :param value: mapping, or JSON or YAML text.
    :param name: name that the job must have; the definition may then omit it.
    :raises CdmConfigError: when anything is wrong; the error lists all problems.
    """
    return _DefinitionParser(JOB).definition(value, name)


def link(value: Any, name: str | None = None) -> Definition:
    """Read the definition of a link, as :func:`job` does for a job.

    :raises CdmConfigError: when anything is wrong; the error lists all problems.
    """
    return _DefinitionParser(LINK).definition(value, name)


class _DefinitionParser:
    """Checks one definition and collects its problems."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._problems: list[str] = []
        #: Whether CDM has shown what is read.
        self._shown = False

    def definition(self, value: Any, name: str | None) -> Definition:
        """Return the definition, with all values as CDM takes them."""
        given = self._unwrap(as_tree(read(value) if isinstance(value, str) else value))
        self._shown = definitions.is_as_shown(given)
        wire: dict[str, Any] = {"name": self._name(given.get("name"), name)}
        # The contents of a scenario are not documented. What CDM shows as empty stays so.
        is_free = self._shown or given.get("job_type") == SCENARIO_JOB
        absent = (None, "") if is_free else (None,)
        for key in self._kind.texts[1:]:
            if given.get(key) not in absent:
                wire[key] = self._text(key, given[key])
            elif self._shown and key in given and key not in self._kind.defaults:
                wire[key] = given[key]
            elif key in self._kind.defaults:
                wire[key] = self._kind.defaults[key]
            else:
                self._missing(key, given)
        for key in self._kind.blocks:
            if given.get(key) is not None:
                wire[key] = self._block(key, given[key])
            elif self._shown and key in given:
                wire[key] = None
            else:
                self._missing(key, given)
        wire |= self._other_keys(given)
        self._raise_problems(wire["name"])
        return Definition(self._kind, wire)

    def _unwrap(self, value: Any) -> Mapping[str, Any]:
        """Return the object itself, also from a list of one."""
        noun, plural = self._kind.noun, self._kind.plural
        if isinstance(value, Mapping) and plural in value:
            items = value[plural]
            count = len(items) if isinstance(items, list | tuple) else None
            if count != 1:
                shown = type(items).__name__ if count is None else count
                self._problems.append(f"{plural} must be a list of exactly one {noun}, not {shown}")
                self._raise_problems(None)
            value = items[0]
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            self._problems.append(
                f"it must be an object with the keys of a CDM {noun} (name,"
                f" {self._kind.texts[-1]}, ...), not {type(value).__name__}"
            )
            self._raise_problems(None)
        definition: Mapping[str, Any] = value
        return definition

    def _name(self, given: Any, wanted: str | None) -> str:
        if wanted is not None and given is not None and wanted != given:
            argument = f"{self._kind.noun}_name"
            given_name = shown(given)
            self._problems.append(f"its name is {given_name}, but {argument} is {wanted!r}")
        name = given if given is not None else wanted
        if name is None:
            self._problems.append("name is missing")
            return ""
        try:
            arguments.text("name", name, limit=arguments.JOB_NAME_LIMIT)
        except CdmConfigError as problem:
            self._problems.append(str(problem).rstrip("."))
        if name == "all":
            self._problems.append("CDM lists everything under the name 'all'; choose another")
        return name if isinstance(name, str) else ""

    def _missing(self, key: str, given: Mapping[str, Any]) -> None:
        if key not in self._kind.optional and given.get("job_type") != SCENARIO_JOB:
            self._problems.append(f"{key} is missing")

    def _text(self, key: str, value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            shown = "empty" if isinstance(value, str) else type(value).__name__
            self._problems.append(f"{key} must be text, but is {shown}")
        elif key == "job_type" and value not in JOB_TYPES and not self._shown:
            self._problems.append(f"job_type must be one of {', '.join(JOB_TYPES)}, not {value!r}")
        return value if isinstance(value, str) else ""

    def _other_keys(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return unknown keys, which other releases of CDM may use, and report likely typos."""
        import difflib

        known = (*self._kind.texts, *self._kind.blocks)
        others = {
            key: value
            for key, value in given.items()
            if key not in known and key not in self._kind.read_only
        }
        for key in others:
            for close in difflib.get_close_matches(key, known, n=1, cutoff=0.75):
                # What CDM shows may have such keys of its own, beside the usual ones.
                if close not in given or not self._shown:
                    self._problems.append(f"there is no key {key!r}; did you mean {close!r}?")
        return {key: self._json(key, item) for key, item in others.items()}

    def _block(self, key: str, value: Any) -> Any:
        configs = value.get("configs") if isinstance(value, Mapping) else None
        if self._shown and not (configs if isinstance(value, Mapping) else value):
            return self._json(key, value)
        if not isinstance(value, Mapping) or not isinstance(configs, list | tuple):
            self._problems.append(f"{key} must be an object with a list of configs")
            return {}
        checked = [self._config(key, config) for config in configs]
        names = [item.get("name") for config in checked for item in config.get("inputs") or ()]
        self._problems += [
            f"{key}: {name!r} is given {names.count(name)} times"
            for name in dict.fromkeys(names)
            if names.count(name) > 1 and not self._shown
        ]
        return {**self._rest(key, value, "configs"), "configs": checked}

    def _config(self, key: str, config: Any) -> dict[str, Any]:
        name = config.get("name") if isinstance(config, Mapping) else None
        if not isinstance(config, Mapping) or not (self._shown or (isinstance(name, str) and name)):
            self._problems.append(f"{key}: each of its configs must be an object with a name")
            return {}
        if self._shown and not config.get("inputs"):
            return self._rest(f"{key}: {name}", config)
        # Some documented samples have an empty object instead of the list.
        inputs = config.get("inputs") or []
        if not isinstance(inputs, list | tuple):
            self._problems.append(f"{key}: the inputs of {name!r} must be a list")
            return {}
        checked = [self._input(key, item) for item in inputs]
        return {**self._rest(f"{key}: {name}", config, "inputs"), "inputs": checked}

    def _input(self, key: str, given: Any) -> dict[str, Any]:
        name = given.get("name") if isinstance(given, Mapping) else None
        if self._shown and isinstance(given, Mapping) and name in (None, ""):
            return self._rest(key, given)
        if not isinstance(given, Mapping) or not isinstance(name, str) or not name:
            self._problems.append(f"{key}: each input must be an object with a name and a value")
            return {"name": ""}
        shown = self._shown or definitions.is_as_shown(given)
        rest = self._rest(name, given, "value")
        if "value" in given:
            return {**rest, "value": self._value(name, given["value"], shown=shown)}
        # CDM shows neither secrets nor, perhaps, what is not set; "values" beside a type are those
        # that an input may have.
        mistaken = "values" in given and not definitions.is_as_shown(given)
        if mistaken or not (shown or definitions.is_secret(name)):
            hint = " (the key is 'value', not 'values')" if mistaken else ""
            self._problems.append(f"{name!r} has no value{hint}")
        return rest

    def _value(self, name: str, value: Any, *, shown: bool) -> Any:
        """Return the value of an input: text, or what CDM shows in place of text."""
        if isinstance(value, str):
            return value
        is_open = not definitions.is_secret(name) or (shown and not value)
        if isinstance(value, Mapping | list | tuple) and is_open:
            for secret in definitions.secrets_inside([{"name": name, "value": value}]):
                self._problems.append(f"{name!r} contains the secret {secret!r}, which cannot be")
                self._problems[-1] += " hidden there: give it as an input"
            return self._json(name, value)
        if not arguments.is_finite(value):
            self._problems.append(f"{name!r} is not a finite number")
        elif not arguments.is_writable(value):
            self._problems.append(f"{name!r} is a number with too many digits")
            return ""
        elif shown and (value is None or isinstance(value, bool | int | float)):
            return value
        # Only the type is named, because values may be confidential.
        elif value is None:
            self._problems.append(f"{name!r} is null (an expression that yields nothing?)")
        elif not isinstance(value, int | float | Decimal | date):
            self._problems.append(f"{name!r} is {type(value).__name__}, not text or a number")
            return ""
        return str(value).lower() if isinstance(value, bool) else str(value)

    def _rest(self, where: str, given: Mapping[Any, Any], *checked: str) -> dict[str, Any]:
        """Return the keys of a part that are not checked one by one, such as ids and sizes."""
        others = {key: value for key, value in given.items() if key not in checked}
        rest: dict[str, Any] = self._json(where, others)
        return rest

    def _json(self, where: str, value: Any) -> Any:
        """Return a part of the definition as JSON has it; it is nested no deeper than a tree is."""
        if isinstance(value, Mapping):
            if not all(isinstance(key, str) for key in value):
                self._problems.append(f"{where!r} has a key that is not text")
                return {}
            return {key: self._json(where, item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._json(where, item) for item in value]
        if not arguments.is_writable(value):
            problem = "a number with too many digits"
        elif value is None or isinstance(value, str | bool | int):
            return value
        elif not arguments.is_finite(value):
            problem = "a number that is not finite"
        elif not isinstance(value, float | Decimal | date):
            problem = f"{type(value).__name__}, which JSON has not"
        else:
            return value if isinstance(value, float) else str(value)
        self._problems.append(f"{where!r} contains {problem}")
        return None

    def _raise_problems(self, name: str | None) -> None:
        if self._problems:
            named = f" {name!r}" if name else ""
            raise CdmConfigError(
                f"The definition of the {self._kind.noun}{named} cannot be sent to CDM: "
                + "; ".join(self._problems)
                + "."
            )
