# SPDX-License-Identifier: Apache-2.0
"""What a parameter is: its type, range and choices, its values from text and as YAML."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from roi_codec_ros.common.errors import UsageError

Value: TypeAlias = str | int | float | bool | list[str]

_PYTHON_TYPES: dict[str, type] = {
    "string": str,
    "integer": int,
    "double": float,
    "bool": bool,
    "string_array": list,
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a node.

    type: "string", "integer", "double", "bool" or "string_array".
    range: smallest and largest value of a number, both allowed.
    choices: the only values a string may take; empty for any.
    live: may change while the node is active; the others only while it is unconfigured.
    """

    name: str
    default: Value
    description: str
    type: str
    range: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    live: bool = False

    def __post_init__(self) -> None:
        if self.type not in _PYTHON_TYPES:
            raise ValueError(f"parameter {self.name}: unknown type {self.type!r}")
        self.check(self.default)

    def coerce(self, value: object) -> Value:
        """Turn a value from a command line, a launch argument or a YAML file into this type.

        Only lossless conversions: 10 → 10.0 for a double, 0 → "0" for a string, "a,b" → ["a", "b"]
        for an array. Raises UsageError for anything else or out of range.
        """
        converted = self._convert(value)
        self.check(converted)
        return converted

    def check(self, value: object) -> None:
        """Raise UsageError unless the value has this type and lies in range and choices."""
        expected = _PYTHON_TYPES[self.type]
        if not isinstance(value, expected) or (expected is not bool and isinstance(value, bool)):
            raise UsageError(f"parameter {self.name}: expected {self._phrase()}, found {value!r}")
        if isinstance(value, list) and not all(isinstance(item, str) for item in value):
            raise UsageError(f"parameter {self.name}: expected a list of strings, found {value!r}")
        if self.range is not None and isinstance(value, (int, float)):
            low, high = self.range
            if not (math.isfinite(value) and low <= value <= high):
                raise UsageError(
                    f"parameter {self.name}: expected {low:g} to {high:g}, found {value!r}"
                )
        if self.choices and value not in self.choices:
            raise UsageError(
                f"parameter {self.name}: expected one of {', '.join(self.choices)}, "
                f"found {value!r}"
            )

    def _convert(self, value: object) -> Value:
        if self.type == "string" and isinstance(value, bool):
            # YAML reads on, off, yes and no as booleans: the one that is a choice was meant.
            words = ("true", "on", "yes") if value else ("false", "off", "no")
            return next((word for word in words if word in self.choices), words[0])
        if self.type == "string" and isinstance(value, (int, float)):
            return str(value)
        if self.type == "double" and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if self.type == "string_array":
            if isinstance(value, str):
                return [part.strip() for part in value.split(",") if part.strip()]
            if isinstance(value, Sequence) and not isinstance(value, bytes):
                return [part if isinstance(part, str) else str(part) for part in value]
        if isinstance(value, str) and self.type in ("integer", "double", "bool"):
            return self._parse(value)
        return value  # type: ignore[return-value]  # check() says what is wrong with it

    def _parse(self, text: str) -> Value:
        try:
            if self.type == "bool":
                return {"true": True, "false": False}[text.strip().lower()]
            return int(text) if self.type == "integer" else float(text)
        except (KeyError, ValueError):
            raise UsageError(
                f"parameter {self.name}: expected {self._phrase()}, found {text!r}"
            ) from None

    def _phrase(self) -> str:
        return {
            "string": "a string",
            "integer": "a whole number",
            "double": "a number",
            "bool": "true or false",
            "string_array": "a list of strings",
        }[self.type]


def meant(name: str, known: Iterable[str]) -> str:
    """A question after a name that is not known, if it is nearly one that is; else empty."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.8)
    return f": is {near[0]} meant?" if near else ""


def parameter(
    default: Any,
    description: str,
    *,
    range: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
    live: bool = False,
) -> Any:
    """A field of a class of settings, which its node declares as a ROS parameter."""
    about = {"description": description, "range": range, "choices": choices, "live": live}
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=about)
    return field(default=default, metadata=about)


def yaml_value(value: Value) -> str:
    """A value as it is written in YAML (and in `-p name:=value`)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(yaml_value(item) for item in value) + "]"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, float):
        text = repr(value)
        # YAML 1.1 takes 1e-05 for a string; with a point in it, it is a number everywhere.
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    return str(value)


def _quoted(text: str) -> str:
    """A YAML double-quoted scalar in plain ASCII."""
    escaped = []
    for character in text:
        code = ord(character)
        if character in '\\"':
            escaped.append("\\" + character)
        elif 0x20 <= code < 0x7F:
            escaped.append(character)
        else:
            escaped.append(f"\\U{code:08X}")
    return '"' + "".join(escaped) + '"'
