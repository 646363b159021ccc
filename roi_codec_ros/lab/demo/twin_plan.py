# SPDX-License-Identifier: Apache-2.0
"""What a demo in a map is run with: cameras of known pose, of a film or of the simulated hall."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.common.files import write
from roi_codec_ros.common.share import local_path
from roi_codec_ros.lab.simulation.filmed_hall import MAX_RANGE_M, HallClock, Stage
from roi_codec_ros.perception.cameras import CameraModel, read_calibration
from roi_codec_ros.perception.ground import MAX_RANGE_M as FARTHEST_M
from roi_codec_ros.perception.ground import CameraPose
from roi_codec_ros.perception.poses import parse_camera_poses

HFOV_DEG = 60.0


@dataclass(frozen=True, eq=False)
class TwinPlan:
    """Cameras of known pose, and how the graph is told.

    poses: none for a demo without a map. stage, clock: of the simulated hall.
    """

    poses: Mapping[str, CameraPose]
    camera_parameters: dict[str, Any]
    server_parameters: dict[str, Any]
    stage: Stage | None = None
    clock: HallClock | None = None
    calibration: CameraModel | None = None
    hfov_deg: float = HFOV_DEG
    max_range_m: float = FARTHEST_M

    def filming(self, rate_hz: float) -> list[str] | None:
        """The argv of the process that films the hall; None without a hall."""
        from roi_codec_ros.lab.demo.filming import filming_command

        if self.clock is None:
            return None
        return filming_command(self.clock, list(self.poses), rate_hz)


def pose_plan(
    given: Sequence[str],
    names: Sequence[str],
    *,
    calibration: str | Path | None = None,
    hfov_deg: float | None = None,
) -> TwinPlan:
    """Cameras of ``names`` whose poses a user gives; one without a name is of all cameras.

    calibration: file of the lens; else one without distortion of ``hfov_deg``. Raises
    RoiCodecError.
    """
    entries = [
        entry
        for text in given
        for entry in ([text] if ":" in text else [f"{name}: {text}" for name in names])
    ]
    poses = parse_camera_poses(entries)
    if unknown := sorted(set(poses) - set(names)):
        raise UsageError(
            f"--pose: expected cameras among {', '.join(names)}, found {', '.join(unknown)}"
        )
    plan = TwinPlan(poses, {}, {"camera_poses": _entries(poses)})
    if calibration:
        path = local_path(calibration).resolve()
        return replace(
            plan,
            calibration=read_calibration(path).camera,
            camera_parameters={"camera_info_file": str(path)},
        )
    hfov_deg = hfov_deg or HFOV_DEG
    CameraModel.from_hfov(4, 3, hfov_deg)  # refuses what cannot be
    server = {**plan.server_parameters, "assumed_hfov_deg": hfov_deg}
    return replace(plan, hfov_deg=hfov_deg, server_parameters=server)


def hall_plan(names: Sequence[str], *, seed: int, pace: float, folder: Path) -> TwinPlan:
    """The simulated hall, filmed by cameras of these names; its lens is written to ``folder``.

    pace: seconds of the hall in one second. Raises RoiCodecError.
    """
    stage = Stage(names, seed=seed)
    stage.film(names[0], 0.0)  # says now what the process that films would say later
    calibration = folder / "hall.yaml"
    write(calibration, calibration_yaml(stage.lens).encode())
    return TwinPlan(
        stage.poses,
        # The hall is filmed at the rate that was asked for.
        {"camera_info_file": str(calibration.resolve()), "rate_hz": 0.0},
        {"camera_poses": _entries(stage.poses), "max_range_m": MAX_RANGE_M},
        stage,
        HallClock(seed, time.time_ns(), pace),
        stage.lens,
        max_range_m=MAX_RANGE_M,
    )


def _entries(poses: Mapping[str, CameraPose]) -> list[str]:
    return [
        f"{name}: {' '.join(f'{number:.9g}' for number in pose.to_xyz_rpy())}"
        for name, pose in poses.items()
    ]


def calibration_yaml(lens: CameraModel) -> str:
    """A lens as the camera_calibration package writes it."""
    matrix = lens.matrix.ravel().tolist()
    return yaml.safe_dump(
        {
            "image_width": lens.width,
            "image_height": lens.height,
            "camera_matrix": {"rows": 3, "cols": 3, "data": matrix},
            "distortion_model": lens.distortion_model,
            "distortion_coefficients": {
                "rows": 1,
                "cols": len(lens.distortion),
                "data": list(lens.distortion),
            },
        },
        sort_keys=False,
    )
