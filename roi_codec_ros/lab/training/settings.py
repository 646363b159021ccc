# SPDX-License-Identifier: Apache-2.0
"""Typed settings out of plain mappings: an unknown key, a wrong type or range is one line."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from roi_codec_ros.common.errors import UsageError

Settings = TypeVar("Settings")


def number(default: Any, low: float | None = None, high: float | None = None) -> Any:
    """A dataclass field with a default and the range, both ends included, that it may have."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high})


def positive(default: Any) -> Any:
    """A dataclass field with a default, above 0."""
    return dataclasses.field(default=default, metadata={"above": 0})


def choice(default: str, *names: str) -> Any:
    """A dataclass field with a default, one of ``names``."""
    return dataclasses.field(default=default, metadata={"names": names})


BUDGETS = ("minutes", "steps", "epochs")


def settle_budget(config: Any, minutes: float = 60.0) -> None:
    """Give a configuration ``minutes`` where it has no budget. Raises UsageError for several."""
    given = [name for name in BUDGETS if getattr(config, name) is not None]
    if len(given) > 1:
        raise UsageError(f"expected one of {', '.join(BUDGETS)}; found {', '.join(given)}")
    if not given:
        object.__setattr__(config, "minutes", minutes)


def read_settings(kind: type[Settings], values: Any, where: str = "") -> Settings:
    """The dataclass ``kind`` from a mapping of its fields; what is not named keeps its default.

    where: the key that ``values`` stands under. Raises UsageError that names the key.
    """
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if not isinstance(values, Mapping):
        raise UsageError(
            f"expected settings ({', '.join(fields)}) as {where or 'configuration'}, "
            f"found {values!r}"
        )
    hints = typing.get_type_hints(kind)
    read = {}
    for key, value in values.items():
        full = f"{where}.{key}" if where else str(key)
        if key not in fields:
            raise UsageError(f"expected a key among {', '.join(fields)}; found {full!r}")
        read[key] = _value(hints[key], fields[key].metadata, value, full)
    return kind(**read)


def _value(hint: Any, limits: Mapping[str, Any], value: Any, key: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return read_settings(hint, value, key)  # type: ignore[arg-type]
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in allowed:
        return None
    if any(typing.get_origin(a) is dict for a in (hint, *allowed)):
        if not isinstance(value, Mapping):
            raise UsageError(f"expected names with their settings as {key}, found {value!r}")
        return dict(value)
    if typing.get_origin(hint) is tuple:
        whole = isinstance(value, list) and all(type(item) is int for item in value)
        if not whole:
            raise UsageError(f"expected a list of whole numbers as {key}, found {value!r}")
        return tuple(value)
    kind = next(a for a in allowed if a is not type(None))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        raise UsageError(f"expected {words[kind]} as {key}, found {value!r}")
    _check_range(limits, value, key)
    return value


def _check_range(limits: Mapping[str, Any], value: Any, key: str) -> None:
    names = limits.get("names")
    if names and value not in names:
        raise UsageError(f"expected one of {', '.join(names)} as {key}, found {value!r}")
    if not isinstance(value, (int, float)):
        return
    low, high, above = limits.get("low"), limits.get("high"), limits.get("above")
    good = (
        math.isfinite(value)
        and (low is None or value >= low)
        and (high is None or value <= high)
        and (above is None or value > above)
    )
    if good:
        return
    if above is not None:
        wanted = f"above {above:g}"
    elif high is None:
        wanted = f"of {low or 0:g} or more"
    else:
        wanted = f"of {low or 0:g} to {high:g}"
    raise UsageError(f"expected a number {wanted} as {key}, found {value!r}")
