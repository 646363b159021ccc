# SPDX-License-Identifier: Apache-2.0
"""Find the pose of a camera from points of its image whose positions in the map are known.

Measure four or more points on the floor in map coordinates (metres, z up), spread over the image
and not on one line. The pose is that of the camera's body: x forward, y left, z up.

example:
  roi-codec calibrate-ground --camera front.yaml --image front.jpg --click --out pose.yaml
  roi-codec calibrate-ground --hfov 90 --size 1280x720 --points points.csv
  roi-codec calibrate-ground --camera front.yaml --point 356,667,3,1.5 --point 931,648,3,-1.5 \\
      --point 403,381,7,2.5 --point 855,372,7,-2.5,0.02 --json pose.json
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from roi_codec_ros.commands.arguments import add_force_option, add_json_option, image_size, outputs
from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.files import GENERATOR, read_bytes

if TYPE_CHECKING:
    from roi_codec_ros.perception.cameras import CameraModel
    from roi_codec_ros.perception.ground import CameraPose

Point = tuple[float, float, float, float, float]  # u, v in pixels; x, y, z in metres
POSE_KEYS = ("x", "y", "z", "roll", "pitch", "yaw")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    lens = parser.add_mutually_exclusive_group(required=True)
    lens.add_argument(
        "--camera",
        metavar="CALIB.yaml",
        help="calibration as written by the camera_calibration package",
    )
    lens.add_argument(
        "--hfov",
        type=float,
        metavar="DEG",
        help="horizontal field of view in degrees, without distortion",
    )
    parser.add_argument(
        "--size",
        type=image_size,
        metavar="WxH",
        help="size of the image that the pixels were read in (default: the calibration's)",
    )
    points = parser.add_mutually_exclusive_group(required=True)
    points.add_argument(
        "--points", type=Path, metavar="FILE", help="lines of u,v,x,y[,z]: pixels, then metres"
    )
    points.add_argument(
        "--point",
        type=parse_point,
        action="append",
        metavar="U,V,X,Y[,Z]",
        help="one point; repeat it at least four times",
    )
    points.add_argument(
        "--click",
        action="store_true",
        help="click the points in --image, then type their positions",
    )
    parser.add_argument("--image", type=Path, help="a photograph taken by the camera, for --click")
    add_json_option(parser)
    add_force_option(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the pose as YAML")


def parse_point(text: str) -> Point:
    """``u,v,x,y[,z]``; z is 0 where it is left out. Raises ValueError."""
    numbers = [float(part) for part in text.split(",")]
    if len(numbers) not in (4, 5) or not all(map(math.isfinite, numbers)):
        raise ValueError(text)
    u, v, x, y, z = [*numbers, 0.0][:5]
    return u, v, x, y, z


parse_point.__name__ = "point"  # what argparse calls it when it refuses one


def run(args: argparse.Namespace) -> None:
    """Run the verb. Raises RoiCodecError for whatever a user can cause."""
    from roi_codec_ros.common.photographs import read_photograph
    from roi_codec_ros.perception.calibration import point_errors, solve_pose

    if args.click != bool(args.image):
        raise UsageError("expected --image and --click together, found one of them")
    files = outputs(args, "json", "out", inputs=[args.camera, args.points, args.image])
    image = read_photograph(args.image) if args.click else None
    size = args.size
    if image is not None:
        if size is not None:
            raise UsageError("expected --size or --image, found both")
        size = image.shape[1], image.shape[0]
    camera = _camera(args, size)
    if image is not None:
        from roi_codec_ros.commands.clicking import click_points

        points = click_points(image)
    else:
        points = args.point or read_points(args.points)
    table = np.array(points, np.float64).reshape(-1, 5)
    pixels, places = table[:, :2], table[:, 2:]
    pose, residual_px = solve_pose(pixels, places, camera)
    error_px, error_m = point_errors(pixels, places, camera, pose)
    if args.json:
        rows = [
            {
                **dict(zip(("u", "v", "x", "y", "z"), point, strict=True)),
                "error_px": float(px),
                "error_m": None if math.isnan(metres) else float(metres),
            }
            for point, px, metres in zip(points, error_px, error_m, strict=True)
        ]
        files["json"].write_json(_summary(pose, residual_px) | {"points": rows})
    if args.out:
        files["out"].write(pose_yaml(pose, residual_px).encode())
    _print_pose(pose, residual_px)
    for point, px, metres in zip(points, error_px, error_m, strict=True):
        u, v, x, y, z = point
        on_ground = "never meets its height" if math.isnan(metres) else f"{metres:7.3f} m"
        print(f"  {u:7.1f} {v:7.1f} at {x:8.3f} {y:8.3f} {z:7.3f}: {px:7.2f} px, {on_ground}")


def read_points(path: Path) -> list[Point]:
    """The points of a file; empty lines, comments (#) and a heading are left out."""
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


def pose_yaml(pose: CameraPose, residual_px: float) -> str:
    """The pose's six numbers, metres and radians, as YAML."""
    lines = [
        "# The camera's body (x forward, y left, z up) in the map: metres, radians.",
        f"# {GENERATOR} calibrate-ground, residual {residual_px:.2f} px",
    ]
    lines += [f"{key}: {value:.6f}" for key, value in _parameters(pose).items()]
    return "\n".join(lines) + "\n"


def _camera(args: argparse.Namespace, size: tuple[int, int] | None) -> CameraModel:
    from roi_codec_ros.common.share import local_path
    from roi_codec_ros.perception.cameras import CameraModel, read_calibration

    if args.camera:
        camera = read_calibration(local_path(args.camera)).camera
        return camera.for_image(*size) if size else camera
    if size is None:
        raise UsageError("expected --size with --hfov, found none")
    return CameraModel.from_hfov(*size, args.hfov)


def _parameters(pose: CameraPose) -> dict[str, float]:
    return dict(zip(POSE_KEYS, pose.to_xyz_rpy(), strict=True))


def _degrees(pose: CameraPose) -> dict[str, float]:
    return {key: math.degrees(_parameters(pose)[key]) for key in POSE_KEYS[3:]}


def _summary(pose: CameraPose, residual_px: float) -> dict[str, Any]:
    return {
        "pose": _parameters(pose),
        "degrees": _degrees(pose),
        "residual_px": residual_px,
    }


def _print_pose(pose: CameraPose, residual_px: float) -> None:
    values = _parameters(pose)
    print(f"position, m      {_row({key: values[key] for key in POSE_KEYS[:3]}, 3)}")
    print(f"angles, rad      {_row({key: values[key] for key in POSE_KEYS[3:]}, 5)}")
    print(f"angles, degrees  {_row(_degrees(pose), 2)}")
    print(f"residual         {residual_px:.2f} px")


def _row(values: dict[str, float], digits: int) -> str:
    return "  ".join(f"{key} {value:.{digits}f}" for key, value in values.items())
