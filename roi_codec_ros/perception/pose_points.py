# SPDX-License-Identifier: Apache-2.0
"""Points that a camera's pose is found from, and the pose as numbers, text and YAML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.files import GENERATOR, read_bytes
from roi_codec_ros.perception.calibration import point_errors, solve_pose
from roi_codec_ros.perception.cameras import CameraModel
from roi_codec_ros.perception.ground import CameraPose
from roi_codec_ros.perception.poses import POSE_KEYS

Point = tuple[float, float, float, float, float]  # u, v in pixels; x, y, z in metres


def parse_point(text: str) -> Point:
    """``u,v,x,y[,z]``; z is 0 where it is left out. Raises ValueError."""
    numbers = [float(part) for part in text.split(",")]
    if len(numbers) not in (4, 5) or not all(map(math.isfinite, numbers)):
        raise ValueError(text)
    u, v, x, y, z = [*numbers, 0.0][:5]
    return u, v, x, y, z


def read_points(path: Path) -> list[Point]:
    """The points of a file; empty lines, comments (#) and a heading are left out.

    Raises RoiCodecError.
    """
    points = []
    lines = read_bytes(path).decode("utf-8-sig", "replace").splitlines()
    for number, line in enumerate(lines, 1):
        text = line.split("#")[0].strip()
        if not text or (number == 1 and text.replace(" ", "").lower().startswith("u,v,x,y")):
            continue
        try:
            points.append(parse_point(text))
        except ValueError as error:
            raise RoiCodecError(
                f"expected u,v,x,y[,z] in line {number} of {path}, found {text!r}"
            ) from error
    return points


@dataclass(frozen=True, eq=False)
class FoundPose:
    """A pose that fits points, and by how much each of them is off.

    error_px, error_m: of each point, [N]; metres on the plane of its height, NaN where its pixel
    never meets that.
    """

    pose: CameraPose
    residual_px: float
    points: Sequence[Point]
    error_px: NDArray[np.float64]
    error_m: NDArray[np.float64]

    @classmethod
    def of(cls, points: Sequence[Point], camera: CameraModel) -> FoundPose:
        """By `calibration.solve_pose`; errors as that."""
        table = np.array(points, np.float64).reshape(-1, 5)
        pixels, places = table[:, :2], table[:, 2:]
        pose, residual_px = solve_pose(pixels, places, camera)
        return cls(pose, residual_px, points, *point_errors(pixels, places, camera, pose))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "pose": _parameters(self.pose),
            "degrees": _degrees(self.pose),
            "residual_px": self.residual_px,
            "points": [
                {
                    **dict(zip(("u", "v", "x", "y", "z"), point, strict=True)),
                    "error_px": float(px),
                    "error_m": None if math.isnan(metres) else float(metres),
                }
                for point, px, metres in self._rows()
            ],
        }

    def lines(self) -> list[str]:
        """For the terminal."""
        values = _parameters(self.pose)
        lines = [
            f"position, m      {_row({key: values[key] for key in POSE_KEYS[:3]}, 3)}",
            f"angles, rad      {_row({key: values[key] for key in POSE_KEYS[3:]}, 5)}",
            f"angles, degrees  {_row(_degrees(self.pose), 2)}",
            f"residual         {self.residual_px:.2f} px",
        ]
        for (u, v, x, y, z), px, metres in self._rows():
            on_ground = "never meets its height" if math.isnan(metres) else f"{metres:7.3f} m"
            lines.append(
                f"  {u:7.1f} {v:7.1f} at {x:8.3f} {y:8.3f} {z:7.3f}: {px:7.2f} px, {on_ground}"
            )
        return lines

    def _rows(self) -> list[tuple[Point, float, float]]:
        return list(zip(self.points, self.error_px, self.error_m, strict=True))


def pose_yaml(pose: CameraPose, residual_px: float) -> str:
    """The pose's six numbers, metres and radians, as YAML."""
    lines = [
        "# The camera's body (x forward, y left, z up) in the map: metres, radians.",
        f"# {GENERATOR} calibrate-ground, residual {residual_px:.2f} px",
    ]
    lines += [f"{key}: {value:.6f}" for key, value in _parameters(pose).items()]
    return "\n".join(lines) + "\n"


def _parameters(pose: CameraPose) -> dict[str, float]:
    return dict(zip(POSE_KEYS, pose.to_xyz_rpy(), strict=True))


def _degrees(pose: CameraPose) -> dict[str, float]:
    return {key: math.degrees(_parameters(pose)[key]) for key in POSE_KEYS[3:]}


def _row(values: dict[str, float], digits: int) -> str:
    return "  ".join(f"{key} {value:.{digits}f}" for key, value in values.items())
