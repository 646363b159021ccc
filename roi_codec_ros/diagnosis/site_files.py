# SPDX-License-Identifier: Apache-2.0
"""Whether the files that a site's configuration names can be read by the nodes of this host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from roi_codec_ros.codec import find_model
from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.graph_runtime import find_graph
from roi_codec_ros.common.share import local_path
from roi_codec_ros.config.bringup import DETECTOR, SERVER, TRACKER, NodeSpec
from roi_codec_ros.config.site import Site
from roi_codec_ros.perception.cameras import read_calibration
from roi_codec_ros.perception.person_detector import find_weights
from roi_codec_ros.perception.poses import parse_camera_poses
from roi_codec_ros.stream.sources import SourceKind, parse_source


def check_files(site: Site, specs: Sequence[NodeSpec]) -> None:
    """Raise UsageError for a file that a node of this host would not be able to read."""
    here = {spec.full_name for spec in specs}
    started = {spec.executable for spec in specs}
    devices: dict[str, str] = {}  # path → the camera that has it
    if (weights := site.server.parameters.get("weights")) and started & {DETECTOR, SERVER}:
        _try(f"{site.path}: server.parameters.weights", find_weights, weights)
    for camera in site.cameras:
        if not camera.enabled:
            continue
        label, given = f"{site.path}: cameras.{camera.name}", camera.parameters
        if f"/{camera.name}/encoder" in here:
            source = _try(f"{label}.source", parse_source, given.get("source", "0"))
            if source.kind is SourceKind.DEVICE:
                other = devices.setdefault(source.target, camera.name)
                if other != camera.name:
                    raise UsageError(
                        f"{label}.source: expected a device of its own, found {source.target}, "
                        f"which {other} has"
                    )
            _try(f"{label}.model", find_model, given.get("model", "fast"))
            if regions := given.get("regions"):
                _try(f"{label}.parameters.regions", find_graph, regions)
            if lens := given.get("camera_info_file"):
                _try(f"{label}.lens", lambda text: read_calibration(local_path(text)), lens)
        if TRACKER in started and camera.pose:
            _try(f"{label}.pose", parse_camera_poses, [f"{camera.name}: {camera.pose}"])


def _try(label: str, read: Callable[[Any], Any], value: Any) -> Any:

    try:
        return read(value)
    except RoiCodecError as error:
        raise UsageError(f"{label}: {error}") from error
