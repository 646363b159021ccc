# SPDX-License-Identifier: Apache-2.0
"""A camera's lens: pixels to rays and back, as sensor_msgs/CameraInfo describes it.

Axes of a camera's optical frame: x right, y down, z forward, metres. Pixels count from the upper
left corner of the image, u to the right and v down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import ArrayLike, NDArray

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.files import read_yaml

# Name as in CameraInfo → how many coefficients it may have. None at all means no distortion,
# not allowed for an equidistant lens, which is a fisheye even with four zeros.
DISTORTION_MODELS = {
    "plumb_bob": (0, 4, 5),  # k1 k2 p1 p2 [k3]
    "rational_polynomial": (0, 8, 12, 14),  # k1 k2 p1 p2 k3 k4 k5 k6 [s1 … s4 [τx τy]]
    "equidistant": (4,),  # k1 k2 k3 k4, a fisheye lens
}
# Names used by other tools; the first two are one polynomial, told apart by coefficient count.
OTHER_NAMES = {
    "radtan": "plumb_bob",
    "brown_conrady": "plumb_bob",
    "fisheye": "equidistant",
    "kannala_brandt": "equidistant",
}
ROUNDING = 1e-6  # tolerance for the zeros and ones of a matrix
SHAPE_TOLERANCE = 0.01  # of width to height, and one pixel
UNDISTORT_STEPS, UNDISTORT_EPS_PX = 200, 1e-9
UNDISTORT_TOLERANCE_PX = 0.01  # rays that project farther than this from their pixel are invalid


@dataclass(frozen=True)
class CameraModel:
    """Focal lengths, principal point (pixels of a width × height image) and lens distortion."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    distortion_model: str = "plumb_bob"
    distortion: tuple[float, ...] = ()
    skew: float = 0.0  # shift of u in pixels for y/z = 1

    def __post_init__(self) -> None:
        if not (self.fx > 0 and self.fy > 0 and self.width > 0 and self.height > 0):
            raise RoiCodecError(
                "expected positive focal lengths and image size, found "
                f"fx {self.fx:g}, fy {self.fy:g}, {self.width}×{self.height}"
            )
        counts = DISTORTION_MODELS.get(self.distortion_model)
        if counts is None:
            raise RoiCodecError(
                f"expected a distortion model of {', '.join(DISTORTION_MODELS)}, "
                f"found {self.distortion_model!r}"
            )
        if len(self.distortion) not in counts:
            raise RoiCodecError(
                f"expected {' or '.join(map(str, counts))} distortion coefficients for "
                f"{self.distortion_model}, found {len(self.distortion)}"
            )
        numbers = (self.fx, self.fy, self.cx, self.cy, self.skew, *self.distortion)
        if not all(map(math.isfinite, numbers)):
            raise RoiCodecError(f"expected finite camera parameters, found {numbers}")

    @classmethod
    def from_hfov(cls, width: int, height: int, hfov_deg: float) -> CameraModel:
        """No distortion, square pixels, centred axis: fx = fy = width / (2 tan(hfov / 2))."""
        if not 0 < hfov_deg < 180:
            raise RoiCodecError(
                f"expected a field of view of 0 to 180 degrees, found {hfov_deg:g}"
            )
        focal = width / (2.0 * math.tan(math.radians(hfov_deg) / 2.0))
        return cls(focal, focal, width / 2.0, height / 2.0, width, height)

    @classmethod
    def from_matrix(
        cls,
        k: Sequence[float],
        width: int,
        height: int,
        distortion_model: str = "plumb_bob",
        distortion: Sequence[float] = (),
    ) -> CameraModel:
        """From the nine numbers of CameraInfo's k (fx skew cx, 0 fy cy, 0 0 1), d and its model.

        The model's name and its number of coefficients may be those of `lens_of`. Raises
        RoiCodecError for invalid intrinsics.
        """
        zeros = [k[index] for index in (3, 6, 7)] if len(k) == 9 else [math.nan]
        if not all(abs(zero) <= ROUNDING for zero in zeros) or not abs(k[8] - 1) <= ROUNDING:
            found = " ".join(f"{value:g}" for value in k)
            raise RoiCodecError(
                f"expected a camera matrix fx skew cx 0 fy cy 0 0 1, found {found}"
            )
        model, coefficients = lens_of(distortion_model, distortion)
        return cls(k[0], k[4], k[2], k[5], width, height, model, coefficients, k[1])

    @property
    def matrix(self) -> NDArray[np.float64]:
        """float64 [3, 3], CameraInfo's k."""
        matrix = self._upright_matrix
        matrix[0, 1] = self.skew
        return matrix

    @property
    def _upright_matrix(self) -> NDArray[np.float64]:
        """The intrinsics without skew, which OpenCV ignores: it is applied separately."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    def _lean(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """float64 [N, 2]: shift of pixels [N, 2] by the skew."""
        along = self.skew / self.fy * (pixels[:, 1] - self.cy)
        return np.stack([along, np.zeros_like(along)], axis=1)

    @cached_property
    def max_angle(self) -> float:
        """Radians from the optical axis up to which the lens model is one-to-one; below π/2.

        Beyond it a distortion polynomial folds back and would project points into the image that
        the lens does not show there. Tangential and prism terms are small and ignored.
        """
        if self.distortion_model == "equidistant":
            # θd = θ (1 + k1 θ² + …) grows while its derivative, a polynomial in θ², is positive.
            slope = Polynomial([1.0, *(k * (2 * i + 3) for i, k in enumerate(self.distortion))])
            return min(math.sqrt(_smallest_root(slope)), math.pi / 2)
        k1, k2, _, _, k3, k4, k5, k6 = (*self.distortion, *[0.0] * 8)[:8]
        above, below = Polynomial([1.0, k1, k2, k3]), Polynomial([1.0, k4, k5, k6])
        s = Polynomial([0.0, 1.0])  # r²
        # Numerator of d/dr (r · above(r²) / below(r²)), and the poles.
        slope = (above + 2 * s * above.deriv()) * below - 2 * s * above * below.deriv()
        return math.atan(math.sqrt(min(_smallest_root(slope), _smallest_root(below))))

    def scale_to(self, width: int, height: int) -> CameraModel:
        """The same camera seen at another image size; x and y scale apart."""
        x, y = width / self.width, height / self.height
        return replace(
            self, fx=self.fx * x, fy=self.fy * y, cx=self.cx * x, cy=self.cy * y,
            width=width, height=height, skew=self.skew * x,
        )  # fmt: skip

    def for_image(self, width: int, height: int) -> CameraModel:
        """The same camera for an image of another size with the same field of view.

        Raises RoiCodecError as `check_shape`.
        """
        check_shape((self.width, self.height), (width, height), self.fy / self.fx)
        return self.scale_to(width, height)

    def undistort(self, points: ArrayLike) -> NDArray[np.float64]:
        """Rays of unit length in the optical frame, float64 [N, 3], through pixels [N, 2].

        NaN where OpenCV's iteration finds no ray for the pixel within the lens model (less than
        `max_angle` off the axis).
        """
        pixels = np.asarray(points, np.float64).reshape(-1, 2)
        finite = np.isfinite(pixels).all(axis=1)
        rays = np.full((len(pixels), 3), np.nan)
        if not finite.any():
            return rays
        source = (pixels[finite] - self._lean(pixels[finite]))[:, None]
        if self.distortion_model == "equidistant":
            flat = cv2.fisheye.undistortPoints(
                source, self._upright_matrix, np.array(self.distortion, np.float64)
            )
        else:
            steps = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, UNDISTORT_STEPS)
            flat = cv2.undistortPointsIter(
                source, self._upright_matrix, np.array(self.distortion, np.float64), np.eye(3),
                np.eye(3), (*steps, UNDISTORT_EPS_PX),
            )  # fmt: skip
        found = np.column_stack([flat[:, 0], np.ones(len(flat))])
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        error_px = np.linalg.norm(self.project(found) - pixels[finite], axis=1)
        found[~(error_px < UNDISTORT_TOLERANCE_PX)] = np.nan
        rays[finite] = found
        return rays

    def project(self, points_camera: ArrayLike) -> NDArray[np.float64]:
        """Pixels, float64 [N, 2], of points [N, 3] in the optical frame.

        They may lie outside the image. NaN for points at or behind the lens and `max_angle` or
        more off the axis.
        """
        places = np.asarray(points_camera, np.float64).reshape(-1, 3)
        x, y, z = places.T
        with np.errstate(invalid="ignore"):
            seen = (z > 0) & (np.arctan2(np.hypot(x, y), z) < self.max_angle)
        pixels = np.full((len(places), 2), np.nan)
        if not seen.any():
            return pixels
        distortion = np.array(self.distortion, np.float64)
        lens = (np.zeros(3), np.zeros(3), self._upright_matrix, distortion)
        if self.distortion_model == "equidistant":
            flat, _ = cv2.fisheye.projectPoints(places[seen, None], *lens)
        else:
            flat, _ = cv2.projectPoints(places[seen, None], *lens)
        pixels[seen] = flat.reshape(-1, 2)
        pixels[seen] += self._lean(pixels[seen])
        return pixels


def lens_of(model: str, distortion: Sequence[float]) -> tuple[str, tuple[float, ...]]:
    """A lens model of DISTORTION_MODELS and its coefficients, as tools and drivers write them.

    Other names (OTHER_NAMES) and trailing zeros are accepted; plumb_bob with more than five
        coefficients is a rational_polynomial, and vice versa. Without non-zero coefficients any
        name means a pinhole, except that of a fisheye lens. Raises RoiCodecError for all others.
    """
    given = tuple(float(value) for value in distortion)
    name = "_".join(model.strip().lower().replace("-", " ").split())
    name = OTHER_NAMES.get(name, name)
    if name not in DISTORTION_MODELS:
        if any(given):
            raise RoiCodecError(
                f"expected a distortion model of {', '.join(DISTORTION_MODELS)}, found {model!r}"
            )
        return "plumb_bob", ()
    needed = max((index + 1 for index, value in enumerate(given) if value != 0.0), default=0)
    other = {"plumb_bob": "rational_polynomial", "rational_polynomial": "plumb_bob"}.get(
        name, name
    )
    for candidate in (name, other):
        for count in sorted(DISTORTION_MODELS[candidate], reverse=True):
            if needed <= count <= len(given):
                return candidate, given[:count]
    return name, given  # rejected by Camera


def check_shape(
    calibrated: tuple[float, float], image: tuple[float, float], pixel_aspect: float = 1.0
) -> None:
    """Raise RoiCodecError if an image does not have the field of view of the calibration.

    calibrated, image: width and height in pixels. pixel_aspect: fy / fx of the calibration. A
        cropped or stretched image has other, unknown intrinsics. Rounding differences are
        accepted, and so is an image that brings a stretched calibration closer to square pixels.
    """
    x, y = image[0] / calibrated[0], image[1] / calibrated[1]
    off = abs(math.log(x / y))
    before, after = abs(math.log(pixel_aspect)), abs(math.log(pixel_aspect * y / x))
    if off > SHAPE_TOLERANCE + 1 / min(*calibrated, *image) and after > before - SHAPE_TOLERANCE:
        raise RoiCodecError(
            f"expected an image of the calibration's shape ({calibrated[0]:g}×{calibrated[1]:g}), "
            f"found {image[0]:g}×{image[1]:g}"
        )


def _smallest_root(polynomial: Polynomial) -> float:
    """The smallest positive real root; infinity where there is none."""
    roots = polynomial.trim().roots()
    real = roots[np.abs(roots.imag) < 1e-9].real
    return float(min(real[real > 0], default=math.inf))


@dataclass(frozen=True)
class Calibration:
    """The content of a calibration file of the camera_calibration package."""

    camera: CameraModel
    rectification: tuple[float, ...]  # 9 numbers, CameraInfo's r
    projection: tuple[float, ...]  # 12 numbers, CameraInfo's p


def read_calibration(path: Path) -> Calibration:
    """Read a YAML file as the camera_calibration package writes it. Raises RoiCodecError.

    If the rectification or the projection matrix is missing or all zeros, that of a monocular
        camera is used: no rotation, and the camera matrix.
    """
    content = read_yaml(path, "a calibration")
    if not isinstance(content, dict):
        raise RoiCodecError(f"expected a calibration in {path}, found no mapping")
    width, height = (_size(content, key, path) for key in ("image_width", "image_height"))
    k = _numbers(content, "camera_matrix", path, 9)
    model = content.get("distortion_model", "plumb_bob")
    coefficients = _numbers(content, "distortion_coefficients", path)
    try:
        camera = CameraModel.from_matrix(k, width, height, str(model), coefficients)
    except RoiCodecError as error:
        raise RoiCodecError(f"{error} in {path}") from error
    rectification, projection = np.eye(3).ravel(), np.eye(3, 4)
    projection[:, :3] = camera.matrix
    given = {
        key: np.array(_numbers(content, key, path, count)) if key in content else np.zeros(count)
        for key, count in (("rectification_matrix", 9), ("projection_matrix", 12))
    }
    if given["rectification_matrix"].any():
        rectification = given["rectification_matrix"]
    if given["projection_matrix"].any():
        projection = given["projection_matrix"]
    return Calibration(camera, tuple(rectification.tolist()), tuple(projection.ravel().tolist()))


def _size(content: dict[str, Any], key: str, path: Path) -> int:
    value = content.get(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise RoiCodecError(f"expected {key} ≥ 1 in {path}, found {value!r}")
    return value


def _numbers(
    content: dict[str, Any], key: str, path: Path, count: int | None = None
) -> list[float]:
    block = content.get(key)
    data = block.get("data") if isinstance(block, dict) else None
    try:
        numbers = [float(value) for value in data] if isinstance(data, list) else [math.nan]
    except (TypeError, ValueError):
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)) or (count is not None and len(numbers) != count):
        wanted = "a list of numbers" if count is None else f"{count} numbers"
        raise RoiCodecError(f"expected {wanted} as {key}.data in {path}, found {data!r}")
    return numbers
