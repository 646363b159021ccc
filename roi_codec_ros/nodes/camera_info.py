# SPDX-License-Identifier: Apache-2.0
"""CameraInfo: read from a calibration file, scaled to another size, turned into a camera model."""

from __future__ import annotations

from pathlib import Path

from sensor_msgs.msg import CameraInfo

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.perception import cameras
from roi_codec_ros.perception.cameras import CameraModel


def read_calibration(path: str) -> CameraInfo:
    """Read a YAML file as the camera_calibration package writes it, else RoiCodecError."""
    try:
        calibration = cameras.read_calibration(Path(path).expanduser())
    except RoiCodecError as error:
        raise RoiCodecError(f"camera_info_file: {error}") from error
    camera = calibration.camera
    info = CameraInfo()
    info.width, info.height = camera.width, camera.height
    info.k = camera.matrix.ravel()
    info.r = calibration.rectification
    info.p = calibration.projection
    info.distortion_model = camera.distortion_model
    info.d = list(camera.distortion)
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


def camera_model_of(info: CameraInfo | None, width: int, height: int) -> CameraModel | None:
    """The camera for an image of this size; None where it is not calibrated.

    Raises RoiCodecError for a lens model that is not known. Drivers give rectified images any
    model's name, or none; without coefficients there is nothing to model.
    """
    if info is None or not info.width or not info.height or not (info.k[0] > 0 and info.k[4] > 0):
        return None
    model = info.distortion_model
    coefficients = tuple(float(value) for value in info.d)
    if model not in cameras.DISTORTION_MODELS and not any(coefficients):
        model, coefficients = "plumb_bob", ()
    k = [float(value) for value in info.k]
    camera = CameraModel.from_matrix(k, info.width, info.height, model, coefficients)
    return camera.scale_to(width, height)
