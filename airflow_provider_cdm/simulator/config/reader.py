"""Reads plain data (YAML, JSON, arguments) into dataclasses and reports all problems at once."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, cast

T = TypeVar("T")

#: Maximum duration; the year that it leads to still has four digits.
MAX_SECONDS = 10**11
_SWITCH = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}


class ConfigError(ValueError):
    """The configuration is not valid.

    :param problems: one message for each problem, with its location.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def read(shape: type[T], data: object, where: str) -> T:
    """Read ``data`` as an instance of ``shape``.

    A trailing underscore of a field name is removed (``from_`` is the key ``from``). A dataclass
    may have a class method ``coerce`` that converts a short form into a mapping.

    :param shape: dataclass whose annotations describe the data.
    :param data: plain data to read.
    :param where: location of ``data`` for messages, such as ``jobs[0]``.
    :raises ConfigError: if the data is not valid; it lists all problems.
    """
    problems: list[str] = []
    value = _Reader(problems).value(shape, data, where)
    if problems:
        raise ConfigError(problems)
    return cast("T", value)


class _Reader:
    """Collects all problems instead of stopping at the first; an invalid value becomes ``None``."""

    def __init__(self, problems: list[str]) -> None:
        self._problems = problems

    def value(self, kind: Any, data: object, where: str) -> Any:
        origin = typing.get_origin(kind)
        if kind is Any:
            return data
        if is_dataclass(kind):
            return self._dataclass(cast("type", kind), data, where)
        if origin in (Union, types.UnionType):
            return self._optional(kind, data, where)
        if origin is Literal:
            return self._choice(typing.get_args(kind), data, where)
        if origin is tuple:
            return self._list(typing.get_args(kind)[0], data, where)
        if origin is Mapping:
            return self._mapping(typing.get_args(kind)[1], data, where)
        return self._scalar(kind, data, where)

    def _add_problem(self, where: str, expected: str, data: object) -> None:
        secret = any(word in where for word in ("password", "secret", "token"))
        shown = "another type" if secret else _shown(data)
        self._problems.append(f"{where}: expected {expected}, got {shown}")

    def _optional(self, kind: Any, data: object, where: str) -> Any:
        if data is None:
            return None
        inner = [arg for arg in typing.get_args(kind) if arg is not types.NoneType]
        return self.value(inner[0], data, where)

    def _choice(self, allowed: tuple[Any, ...], data: object, where: str) -> Any:
        # YAML reads an unquoted off as false, but a choice means the word.
        if isinstance(data, bool):
            data = "on" if data else "off"
        elif isinstance(data, int):  # an HTTP status needs no quotes
            data = str(data)
        if data not in allowed:
            self._add_problem(where, "one of " + ", ".join(map(str, allowed)), data)
        return data

    def _list(self, kind: Any, data: object, where: str) -> Any:
        if not isinstance(data, (list, tuple)):
            self._add_problem(where, "a list", data)
            return ()
        return tuple(self.value(kind, item, f"{where}[{i}]") for i, item in enumerate(data))

    def _mapping(self, kind: Any, data: object, where: str) -> Any:
        if not isinstance(data, Mapping) or not all(isinstance(key, str) for key in data):
            self._add_problem(where, "a mapping whose keys are text", data)
            return {}
        return {key: self.value(kind, item, f"{where}.{key}") for key, item in data.items()}

    def _scalar(self, kind: Any, data: object, where: str) -> Any:
        if kind is bool:
            known = _SWITCH.get(data.lower()) if isinstance(data, str) else data
            if not isinstance(known, bool):
                self._add_problem(where, "on or off", data)
            return known
        number = isinstance(data, (int, float)) and not isinstance(data, bool)
        if kind is float:  # every float in the configuration is a duration
            # A comparison with NaN is false.
            if not number or not 0 <= cast("float", data) <= MAX_SECONDS:
                expected = f"a number of seconds, zero or more, at most {MAX_SECONDS:,}"
                self._add_problem(where, expected, data)
                return 0.0
            return float(cast("float", data))
        if kind is int:
            if not isinstance(data, int) or not number or not -(2**63) <= data < 2**63:
                self._add_problem(where, "an integer", data)
            return data
        if not isinstance(data, str):
            self._add_problem(where, "text (in quotes)", data)
        return data

    def _dataclass(self, shape: type, data: object, where: str) -> Any:
        if isinstance(data, shape):
            return data
        if coerce := getattr(shape, "coerce", None):
            data = coerce(data)
        if not isinstance(data, Mapping):
            self._add_problem(where, "a mapping", data)
            return None
        by_key = {field.name.rstrip("_"): field for field in fields(cast("Any", shape))}
        items = {str(key).rstrip("_"): item for key, item in data.items()}
        prefix = f"{where}." if where else ""
        for key in items.keys() - by_key.keys():
            allowed = ", ".join(sorted(by_key))
            self._problems.append(f"{prefix}{key}: unknown key; allowed keys: {allowed}")
        return self._instance(shape, by_key, items, prefix)

    def _instance(
        self, shape: type, by_key: dict[str, Field[Any]], items: dict[str, object], prefix: str
    ) -> Any:
        hints = _type_hints(shape)
        before = len(self._problems)
        values: dict[str, Any] = {}
        for key, field in by_key.items():
            if key in items:
                values[field.name] = self.value(hints[field.name], items[key], prefix + key)
            elif field.default is MISSING and field.default_factory is MISSING:
                self._problems.append(f"{prefix}{key}: required key is missing")
        if len(self._problems) > before:
            return None
        try:
            return shape(**values)
        except ValueError as exc:
            self._problems.append(f"{prefix.rstrip('.')}: {exc}")
            return None


@functools.cache
def _type_hints(shape: type) -> dict[str, Any]:
    # Evaluating them takes half of the time in which a simulator starts.
    return typing.get_type_hints(shape)


def _shown(data: object) -> str:
    try:
        return repr(data)
    except ValueError:  # an integer with more digits than Python shows
        return "a number with too many digits"
