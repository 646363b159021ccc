# SPDX-License-Identifier: Apache-2.0
"""The /diagnostics that a node publishes once a second."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from roi_codec_ros.codec import kernel_complaint
from roi_codec_ros.stream.health import Level
from roi_codec_ros.stream.statistics import Tally

TOPIC = "/diagnostics"
PERIOD_S = 1.0

Figure: TypeAlias = str | int | float | bool

_LEVELS = {
    Level.OK: DiagnosticStatus.OK,
    Level.WARN: DiagnosticStatus.WARN,
    Level.ERROR: DiagnosticStatus.ERROR,
    Level.STALE: DiagnosticStatus.STALE,
}


@dataclass(frozen=True)
class Status:
    """One diagnostic status. subject: part of the node, for example "codec"."""

    subject: str
    level: Level
    message: str
    values: Mapping[str, Figure] = field(default_factory=dict)
    hardware_id: str = ""


def to_message(node_name: str, stamp: Time, statuses: Sequence[Status]) -> DiagnosticArray:
    """Statuses are named "<node>: <subject>", for example "camera1/encoder: codec"."""
    array = DiagnosticArray()
    array.header.stamp = stamp
    array.status = [
        DiagnosticStatus(
            level=_LEVELS[status.level],
            name=f"{node_name.lstrip('/')}: {status.subject}",
            message=status.message,
            hardware_id=status.hardware_id,
            values=[
                KeyValue(key=key, value=as_text(value)) for key, value in status.values.items()
            ],
        )
        for status in statuses
    ]
    return array


def as_text(value: Figure) -> str:
    """Numbers with four significant digits; empty if there is no value yet."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def rejects(tally: Tally) -> dict[str, Figure]:
    """The counts of a tally as "rejected.<cause>"."""
    return {f"rejected.{cause}": count for cause, count in tally.as_dict().items()}


def coder_statuses() -> list[Status]:
    """One warning if the C++ entropy coder is missing; else none."""
    complaint = kernel_complaint()
    return [Status("entropy coder", Level.WARN, complaint)] if complaint else []
