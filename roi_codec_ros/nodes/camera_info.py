# SPDX-License-Identifier: Apache-2.0
"""CameraInfo: read from a calibration file, scaled to another size, turned into intrinsics."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml
from sensor_msgs.msg import CameraInfo

from roi_codec_ros.codec.errors import RoiCodecError
from roi_codec_ros.perception.geometry import Intrinsics

_MATRICES = {"camera_matrix": 9, "rectification_matrix": 9, "projection_matrix": 12}


def read_calibration(path: str) -> CameraInfo:
    """Read a YAML file as the camera_calibration package writes it, else RoiCodecError."""
    try:
        content = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RoiCodecError(
            f"camera_info_file: expected a calibration in {path}, "
            f"found {' '.join(str(error).split())}"
        ) from error
    if not isinstance(content, dict):
        raise RoiCodecError(
            f"camera_info_file: expected a calibration in {path}, found no mapping"
        )
    info = CameraInfo()
    info.width, info.height = (
        _size(content, key, path) for key in ("image_width", "image_height")
    )
    matrices = {name: _numbers(content, name, path, size) for name, size in _MATRICES.items()}
    info.k = matrices["camera_matrix"]
    info.r = matrices["rectification_matrix"]
    info.p = matrices["projection_matrix"]
    info.distortion_model = str(content.get("distortion_model", "plumb_bob"))
    info.d = _numbers(content, "distortion_coefficients", path, None)
    return info


def scaled_camera_info(info: CameraInfo, width: int, height: int) -> CameraInfo:
    """The same camera for an image of another size; zeros stay zeros (uncalibrated).

    An info without a size is taken to be of that size already.
    """
    x = width / info.width if info.width else 1.0
    y = height / info.height if info.height else 1.0
    scaled = CameraInfo()
    scaled.header = info.header
    scaled.width, scaled.height = width, height
    scaled.distortion_model = info.distortion_model
    scaled.d = info.d
    scaled.r = info.r
    rows = (x, y, 1.0)
    scaled.k = [value * rows[index // 3] for index, value in enumerate(info.k)]
    scaled.p = [value * rows[index // 4] for index, value in enumerate(info.p)]
    return scaled


def intrinsics_of(info: CameraInfo | None, width: int, height: int) -> Intrinsics | None:
    """The pinhole of a camera for an image of this size; None where it is not calibrated."""
    if info is None or not info.width or not info.height or not (info.k[0] > 0 and info.k[4] > 0):
        return None
    pinhole = Intrinsics(info.k[0], info.k[4], info.k[2], info.k[5], info.width, info.height)
    return pinhole.scale_to(width, height)


def _size(content: dict[str, Any], key: str, path: str) -> int:
    value = content.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise RoiCodecError(f"camera_info_file: expected {key} ≥ 1 in {path}, found {value!r}")
    return value


def _numbers(content: dict[str, Any], key: str, path: str, count: int | None) -> list[float]:
    block = content.get(key)
    data = block.get("data") if isinstance(block, dict) else None
    try:
        numbers = [float(value) for value in data] if isinstance(data, list) else [math.nan]
    except (TypeError, ValueError):
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)) or (count is not None and len(numbers) != count):
        wanted = "a list of numbers" if count is None else f"{count} numbers"
        raise RoiCodecError(
            f"camera_info_file: expected {wanted} as {key}.data in {path}, found {data!r}"
        )
    return numbers
