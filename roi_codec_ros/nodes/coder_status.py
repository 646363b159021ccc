# SPDX-License-Identifier: Apache-2.0
"""Diagnostics of the entropy coder in a process that encodes or decodes."""

from __future__ import annotations

from roi_codec_ros.codec import kernel_complaint
from roi_codec_ros.nodes.diagnostics import Level, Status


def coder_statuses() -> list[Status]:
    """One warning if the C++ entropy coder is missing; else none."""
    complaint = kernel_complaint()
    return [Status("entropy coder", Level.WARN, complaint)] if complaint else []
