# SPDX-License-Identifier: Apache-2.0
"""Options of the command line, written into the keys of a configuration."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.common.files import YAML_FAULTS
from roi_codec_ros.lab.datasets.annotations import HEAD, PERSON
from roi_codec_ros.lab.training.objectives import OBJECTIVES
from roi_codec_ros.lab.training.settings import BUDGETS

_PLAIN = (
    "preset",
    "lambda_rate",
    "lambda_background",
    "feature_weight",
    "detection_weight",
    "learning_rate",
    "batch_size",
    "seed",
    "pictures_every",
)


def overridden(values: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with the options that are not None, by the names of `roi-codec train`.

    A budget takes the place of another; ``set`` is a list of ``key.key=value``, its values YAML.
    Raises UsageError for an option that has nothing to change.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(values))
    budgets = [name for name in BUDGETS if options.get(name) is not None]
    if budgets:
        changed = {key: value for key, value in changed.items() if key not in BUDGETS}
    for name in (*_PLAIN, *budgets):
        if options.get(name) is not None:
            changed[name] = options[name]
    if options.get("objective"):
        _set_objective(changed, options["objective"])
    if options.get("lambda_person") is not None:
        _put(changed, ("regions", PERSON, "keep", "weight"), options["lambda_person"])
    _override_head(changed, options)
    _set_keys(changed, options.get("set") or ())
    return changed


def _set_objective(changed: dict[str, Any], chosen: str) -> None:
    """Set the objectives of heads: ``paper``, or names of hiding objectives; settings are kept."""
    regions = changed.setdefault("regions", {})
    present = regions.get(HEAD) or {}
    if chosen == "paper":
        regions[HEAD] = {"invert": present.get("invert") or {}}
        changed["skip_unknown_heads"] = False
        return
    names = chosen.split(",")
    known = [name for name, objective in OBJECTIVES.items() if objective.hides]
    for name in names:
        if name not in known:
            raise UsageError(
                f"expected --objective paper, or some of {', '.join(known)}; found {name!r}"
            )
    regions[HEAD] = {name: present.get(name) or {} for name in names}


def _override_head(changed: dict[str, Any], options: Mapping[str, Any]) -> None:
    head = (changed.get("regions") or {}).get(HEAD) or {}
    wanted = {
        "lambda_head": ("fill" if "fill" in head else "invert", "weight"),
        "head_cells": ("fill", "cells"),
    }
    for option, (objective, key) in wanted.items():
        if options.get(option) is None:
            continue
        if objective not in head:
            raise UsageError(
                f"expected heads to have the objective {objective} for "
                f"--{option.replace('_', '-')}, found {', '.join(head) or 'none'}"
            )
        _put(changed, ("regions", HEAD, objective, key), options[option])


def _set_keys(changed: dict[str, Any], assignments: Sequence[str]) -> None:
    import yaml

    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise UsageError(f"expected --set KEY=VALUE, found {assignment!r}")
        try:
            value = yaml.safe_load(text)
        except (*YAML_FAULTS, yaml.YAMLError):
            raise UsageError(f"expected a value in YAML for {key}, found {text!r}") from None
        _put(changed, key.split("."), value)


def _put(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    *parents, last = path
    for parent in parents:
        inner = values.get(parent)
        values[parent] = inner = dict(inner) if isinstance(inner, Mapping) else {}
        values = inner
    values[last] = value
