# SPDX-License-Identifier: Apache-2.0
"""CameraInfo: read from calibration files, adapted to the coded pixels, as a camera model.

Intrinsics are valid for certain pixels only. `info_of_pixels` determines which, field by field; if
that is impossible it raises, and nothing is published.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.share import local_path
from roi_codec_ros.perception import cameras
from roi_codec_ros.perception.cameras import CameraModel

CENTRAL = 0.25  # margin at each border in which the axis of an image of unknown size must not lie


def read_calibration(path: str) -> CameraInfo:
    """Read a YAML file as the camera_calibration package writes it, else RoiCodecError.

    path: may be file:///… or package://PACKAGE/….
    """
    try:
        calibration = cameras.read_calibration(local_path(path))
    except RoiCodecError as error:
        raise type(error)(f"camera_info_file: {error}") from error
    camera = calibration.camera
    info = CameraInfo()
    info.width, info.height = camera.width, camera.height
    info.k = camera.matrix.ravel()
    info.r = calibration.rectification
    info.p = calibration.projection
    info.distortion_model = camera.distortion_model
    info.d = list(camera.distortion)
    return info


def info_of_pixels(
    info: CameraInfo, width: int, height: int, *, rectified: bool = False
) -> CameraInfo:
    """CameraInfo for exactly the pixels of an image, with its size.

    info: as a driver publishes it, or a calibration file. rectified: the image is from image_proc,
        while the info describes the raw one.

    header: passed through.
    width, height: of the picture that k and p describe; both 0: the image's own.
    k, d, distortion_model: passed through, k moved and scaled. All zeros: uncalibrated, and so is
        the result. Rectified: k is p's left part, without distortion.
    r: passed through, the identity where it is all zeros. Rectified: the identity.
    p: moved and scaled as k; k itself where it is all zeros.
    roi: the part of the picture that was read out, in its pixels; 0×0: all of it. An image of a
        part must have that part's size. do_rectify: a rectified part is another than the raw one.
    binning_x, binning_y: how many of the picture's pixels became one; 0 is 1.

    Raises RoiCodecError where this cannot be right: another shape than the calibration's, a
    picture's axis outside of it, a part that leaves it, numbers that are no camera's.
    """
    if not (any(info.p) if rectified else any(info.k)):
        return CameraInfo(header=info.header, width=width, height=height)
    matrix, projection = _matrices(info, rectified)
    full, corner, part = _picture(info, width, height)
    _check_axis(matrix, full, named=bool(info.width), rectified=rectified)
    binning = max(info.binning_x, 1), max(info.binning_y, 1)
    if part != full:
        if rectified and info.roi.do_rectify:
            raise RoiCodecError(
                "expected the region of interest of rectified images, found that of raw ones"
            )
        wanted = part[0] / binning[0], part[1] / binning[1]
        if max(abs(width - wanted[0]), abs(height - wanted[1])) >= 1:
            raise RoiCodecError(
                f"expected an image of the region of interest, {wanted[0]:g}×{wanted[1]:g}, "
                f"found one of {width}×{height}"
            )
    else:
        shown = full[0] / binning[0], full[1] / binning[1]
        aspect = matrix[1, 1] * binning[0] / (matrix[0, 0] * binning[1])
        cameras.check_shape(shown, (width, height), aspect)
    scale = np.array([width / part[0], height / part[1], 1.0])[:, None]
    made = CameraInfo(header=info.header, width=width, height=height)
    made.distortion_model = "plumb_bob" if rectified else info.distortion_model
    made.d = [] if rectified else info.d
    made.r = np.eye(3).ravel() if rectified or not any(info.r) else info.r
    made.k = (scale * _moved(matrix, corner)).ravel()
    made.p = (scale * _moved(projection, corner)).ravel()
    return made


def scaled_camera_info(info: CameraInfo, width: int, height: int) -> CameraInfo:
    """CameraInfo of the same image scaled to another size, with any aspect ratio."""
    scale = np.array([width / info.width, height / info.height, 1.0])[:, None]
    scaled = CameraInfo(header=info.header, width=width, height=height)
    scaled.distortion_model, scaled.d, scaled.r = info.distortion_model, info.d, info.r
    scaled.k = (scale * np.reshape(info.k, (3, 3))).ravel()
    scaled.p = (scale * np.reshape(info.p, (3, 4))).ravel()
    return scaled


def camera_model_of(info: CameraInfo | None, width: int, height: int) -> CameraModel | None:
    """The camera for an image of this size; None if it is not calibrated.

    Raises RoiCodecError for an unknown lens model, and as `info_of_pixels`.
    """
    if info is None:
        return None
    pixels = info_of_pixels(info, width, height)
    if not any(pixels.k):
        return None
    k = [float(value) for value in pixels.k]
    return CameraModel.from_matrix(k, width, height, info.distortion_model, list(info.d))


def _matrices(
    info: CameraInfo, rectified: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Camera matrix [3, 3] and projection [3, 4] of the full image. Raises RoiCodecError."""
    projection = np.reshape(np.asarray(info.p, np.float64), (3, 4)).copy()
    matrix = np.reshape(np.asarray(info.k, np.float64), (3, 3)).copy()
    if rectified:
        matrix = projection[:, :3].copy()
    elif not projection.any():
        projection[:, :3] = matrix
    name = "p" if rectified else "k"
    for label, values in ((name, matrix), ("p", projection)):
        if not np.isfinite(values).all():
            raise RoiCodecError(f"expected finite numbers as {label}, found others")
    if not (matrix[0, 0] > 0 and matrix[1, 1] > 0):
        raise RoiCodecError(
            f"expected positive focal lengths in {name}, "
            f"found {matrix[0, 0]:g} and {matrix[1, 1]:g}"
        )
    return matrix, projection


def _picture(
    info: CameraInfo, width: int, height: int
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Width and height of the full image, upper left corner of the region of interest, and its
    size.
    """
    roi = info.roi
    corner, part = (roi.x_offset, roi.y_offset), (roi.width, roi.height)
    if bool(info.width) != bool(info.height):
        raise RoiCodecError(f"expected a width and a height, found {info.width}×{info.height}")
    if bool(part[0]) != bool(part[1]) or (any(corner) and not any(part)):
        raise RoiCodecError(
            f"expected a region of interest with a size, found {part[0]}×{part[1]} at "
            f"{corner[0]}, {corner[1]}"
        )
    full = info.width, info.height
    if not any(full):
        binning = max(info.binning_x, 1), max(info.binning_y, 1)
        full = width * binning[0], height * binning[1]
        if any(part):
            raise RoiCodecError(
                "expected the size of the picture that the region of interest is a part of, "
                "found none"
            )
    if not any(part):
        part = full
    if corner[0] + part[0] > full[0] or corner[1] + part[1] > full[1]:
        raise RoiCodecError(
            f"expected a region of interest inside of {full[0]}×{full[1]}, found "
            f"{part[0]}×{part[1]} at {corner[0]}, {corner[1]}"
        )
    return full, corner, part


def _check_axis(
    matrix: NDArray[np.float64], full: tuple[int, int], *, named: bool, rectified: bool
) -> None:
    """Refuse a camera whose axis is outside its image: then their sizes do not match.

    Rectified images of a stereo pair may be shifted. named: the info contains the size.
    """
    if rectified and named:
        return
    x, y = matrix[0, 2] / full[0], matrix[1, 2] / full[1]
    border = 0.0 if named else CENTRAL
    if not (border < x < 1 - border and border < y < 1 - border) or math.isnan(x + y):
        raise RoiCodecError(
            f"expected an optical axis {'inside' if named else 'near the middle'} of "
            f"{full[0]}×{full[1]} pixels, found it at {matrix[0, 2]:g}, {matrix[1, 2]:g}"
        )


def _moved(matrix: NDArray[np.float64], corner: tuple[int, int]) -> NDArray[np.float64]:
    """A matrix [3, N] shifted to pixels relative to a corner."""
    moved = matrix.copy()
    moved[:2] -= np.array(corner, np.float64)[:, None] * matrix[2]
    return moved
