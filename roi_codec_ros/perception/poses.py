# SPDX-License-Identifier: Apache-2.0
"""Camera poses as text: "front: 0 0 2.5 0 0.4 1.57"."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.files import read_yaml
from roi_codec_ros.common.share import local_path
from roi_codec_ros.perception.ground import CameraPose

POSE_KEYS = ("x", "y", "z", "roll", "pitch", "yaw")  # metres and radians, of the body in the map


def parse_camera_poses(entries: Iterable[str]) -> dict[str, CameraPose]:
    """Poses by camera, from entries "name: x y z roll pitch yaw" or "name: file.yaml".

    Empty entries are ignored. Raises RoiCodecError for malformed entries.
    """
    poses: dict[str, CameraPose] = {}
    for entry in entries:
        if not entry.strip():
            continue
        name, colon, text = (part.strip() for part in entry.partition(":"))
        if not (name and colon and text):
            raise UsageError(f'expected "name: x y z roll pitch yaw", found {entry!r}')
        if name in poses:
            raise UsageError(f"expected one pose for each camera, found two for {name}")
        if text.endswith((".yaml", ".yml")):
            poses[name] = read_pose(local_path(text))
        else:
            poses[name] = _pose(text.split(), entry)
    return poses


def read_pose(path: Path) -> CameraPose:
    """A pose from a YAML file with the six keys of POSE_KEYS. Raises RoiCodecError."""
    content = read_yaml(path, "a camera pose")
    if not isinstance(content, dict) or not set(POSE_KEYS) <= set(content):
        raise RoiCodecError(f"expected {', '.join(POSE_KEYS)} in {path}, found {content!r}")
    return _pose([str(content[key]) for key in POSE_KEYS], str(path))


def _pose(words: list[str], where: str) -> CameraPose:
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) != len(POSE_KEYS) or not all(map(math.isfinite, numbers)):
        raise UsageError(f"expected six numbers ({' '.join(POSE_KEYS)}), found {where!r}")
    if any(abs(angle) > 2 * math.pi for angle in numbers[3:]):
        raise UsageError(f"expected roll, pitch and yaw in radians, found degrees in {where!r}")
    return CameraPose.from_xyz_rpy(*numbers)
