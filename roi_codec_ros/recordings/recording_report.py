# SPDX-License-Identifier: Apache-2.0
"""What was hidden in a recording, as one HTML file; its text is in `recording_report.html.j2`."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from roi_codec_ros.common.files import GENERATOR
from roi_codec_ros.common.plugins import optional
from roi_codec_ros.recordings.jpegs import INSTALL
from roi_codec_ros.recordings.tally import Result

TEMPLATE = "recording_report.html.j2"


def report_page(result: Result, facts: dict[str, Any]) -> str:
    """The page, with thumbnails of hidden heads inlined.

    facts: source, target, regions, hide_memory_s, detector, every (frames inspected, one of).
    Raises RoiCodecError where jinja2 is not installed.
    """
    jinja2 = optional("jinja2", needed_for="reports", install=INSTALL)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inline"] = lambda data: (
        "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")
    )
    cameras = result.cameras
    whole = {
        "frames": sum(camera.frames for camera in cameras),
        "heads": sum(camera.heads for camera in cameras),
        "left_out": sum(camera.left_out for camera in cameras),
        "inspected": sum(camera.inspected for camera in cameras),
        "with_faces": sum(camera.frames_with_faces for camera in cameras),
        "copied": sum(result.copied.values()),
    }
    template = environment.get_template(TEMPLATE)
    return str(template.render(generator=GENERATOR, result=result, whole=whole, **facts))
