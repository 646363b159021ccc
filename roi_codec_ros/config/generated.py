# SPDX-License-Identifier: Apache-2.0
"""Generates the parameter reference and the parameter files from the table of parameters.

`python -m roi_codec_ros.config.generated` writes them in the source tree; a test checks that they
are current.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

from roi_codec_ros.common.files import write_whole
from roi_codec_ros.config.parameter_values import Parameter, yaml_value
from roi_codec_ros.config.parameters import NODE_PARAMETERS

LINE = 99
REFERENCE = "docs/parameters.md"
REFERENCE_HEAD = """\
# Parameters

Generated from `roi_codec_ros/config/parameters.py` (`python -m roi_codec_ros.config.generated`).
Live parameters may change while a node runs; the others are read when it is configured. All of
them are also arguments of the launch files, and are in `config/camera.yaml`, `config/server.yaml`
and `config/watchdog.yaml`, with comments.
"""
# File → (its head, section of each executable).
PARAMETER_FILES: dict[str, tuple[str, dict[str, str]]] = {
    "config/camera.yaml": (
        """\
# SPDX-License-Identifier: Apache-2.0
# All parameters of a camera's encoder, with their defaults.
#   ros2 launch roi_codec_ros camera.launch.py name:=front params_file:=camera.yaml
# Arguments on the command line override this file.
""",
        {"encoder_node": "/**"},
    ),
    "config/server.yaml": (
        """\
# SPDX-License-Identifier: Apache-2.0
# All parameters of the server's three nodes, with their defaults.
#   ros2 launch roi_codec_ros server.launch.py params_file:=server.yaml
# Arguments on the command line override this file.
""",
        {"decoder_node": "/decoder", "detector_node": "/detector", "tracker_node": "/tracker"},
    ),
    "config/watchdog.yaml": (
        """\
# SPDX-License-Identifier: Apache-2.0
# All parameters of a robot's watchdog, with their defaults.
#   ros2 launch roi_codec_ros watchdog.launch.py params_file:=watchdog.yaml
# Arguments on the command line override this file.
""",
        {"watchdog_node": "/person_watchdog"},
    ),
}


def generated() -> dict[str, str]:
    """Every generated file: its path in the source tree → its content."""
    files = {REFERENCE: REFERENCE_HEAD + "\n" + _tables()}
    for path, (head, sections) in PARAMETER_FILES.items():
        files[path] = head + "\n".join(_section(*item) for item in sections.items())
    return files


def _tables() -> str:
    parts = []
    for executable, parameters in NODE_PARAMETERS.items():
        parts += [f"## `{executable}`", ""]
        parts += [
            "| parameter | type | default | range | live | meaning |",
            "|---|---|---|---|---|---|",
        ]
        parts += [*map(_row, parameters), ""]
    return "\n".join(parts)


def _row(parameter: Parameter) -> str:
    limits = _range(parameter) or ", ".join(f"`{choice}`" for choice in parameter.choices) or "–"
    return (
        f"| `{parameter.name}` | {parameter.type} | `{yaml_value(parameter.default)}` | {limits} "
        f"| {'yes' if parameter.live else 'no'} | {parameter.description.replace('|', '/')} |"
    )


def _section(executable: str, section: str) -> str:
    lines = [f"{section}:", "  ros__parameters:"]
    for parameter in NODE_PARAMETERS[executable]:
        sentences = [parameter.description]
        if parameter.choices:
            sentences.append(f"One of {', '.join(parameter.choices)}.")
        if parameter.range is not None:
            sentences.append(f"Range: {_range(parameter)}.")
        if parameter.live:
            sentences.append("May change while the node runs.")
        lines += textwrap.wrap(
            " ".join(sentences),
            LINE,
            initial_indent="    # ",
            subsequent_indent="    # ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        lines.append(f"    {parameter.name}: {yaml_value(parameter.default)}")
    return "\n".join(lines) + "\n"


def _range(parameter: Parameter) -> str:
    return "" if parameter.range is None else " to ".join(map(_number, parameter.range))


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else str(value)


def write(root: Path, files: Mapping[str, str]) -> None:
    """Write generated files below ``root``, the source tree."""
    for path, content in files.items():
        write_whole(root / path, content.encode())


if __name__ == "__main__":
    write(Path(__file__).resolve().parents[2], generated())
