# SPDX-License-Identifier: Apache-2.0
"""Which nodes a parameters file applies to: ROS silently ignores other sections."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from roi_codec_ros.common.files import YAML_FAULTS

_PARAMETERS = "ros__parameters"


def unread(path: str | Path, nodes: Iterable[str]) -> str:
    """Says so if none of these nodes takes anything from a file; else empty.

    nodes: full names, as /front/encoder. A file that cannot be read is left to the nodes, which
    refuse it.
    """
    nodes = list(nodes)
    found = _sections(path)
    if found is None or any(_pattern(name).fullmatch(node) for name in found for node in nodes):
        return ""
    return (
        f"params_file: expected a section for one of {', '.join(nodes)} (or /**) in {path}, found "
        f"{', '.join(found) or 'none'}: nothing of it is taken"
    )


def _sections(path: str | Path) -> list[str] | None:
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8-sig"))
    except (*YAML_FAULTS, yaml.YAMLError):
        return None
    return list(_named(content, ""))


def _named(content: Any, namespace: str) -> Iterator[str]:
    for key, value in content.items() if isinstance(content, dict) else ():
        if key == _PARAMETERS:
            yield namespace
        else:
            yield from _named(value, f"{namespace}/{str(key).strip('/')}")


def _pattern(section: str) -> re.Pattern[str]:
    """A section's name as a rule of ROS: * is one name, ** are any number of them."""
    tokens = {"*": "/[^/]+", "**": "(/[^/]+)*"}
    parts = (part for part in section.split("/") if part)
    return re.compile("".join(tokens.get(part, "/" + re.escape(part)) for part in parts))
