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
from pathlib import Path
from typing import TYPE_CHECKING

from roi_codec_ros.commands.arguments import add_force_option, add_json_option, image_size, outputs
from roi_codec_ros.common.errors import UsageError

if TYPE_CHECKING:
    from roi_codec_ros.perception.cameras import CameraModel
    from roi_codec_ros.perception.pose_points import Point


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
        type=_point,
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


def _point(text: str) -> Point:
    from roi_codec_ros.perception.pose_points import parse_point

    return parse_point(text)


_point.__name__ = "point"  # what argparse calls it when it refuses one


def run(args: argparse.Namespace) -> None:
    """Run the verb. Raises RoiCodecError for whatever a user can cause."""
    from roi_codec_ros.common.photographs import read_photograph
    from roi_codec_ros.perception.pose_points import FoundPose, pose_yaml, read_points

    if args.click != bool(args.image):
        raise UsageError("expected --image and --click together, found one of them")
    files = outputs(args, "json", "out", inputs=[args.camera, args.points, args.image])
    if args.click:
        from roi_codec_ros.commands.clicking import click_points

        image = read_photograph(args.image)
        if args.size is not None:
            raise UsageError("expected --size or --image, found both")
        camera = _camera(args, (image.shape[1], image.shape[0]))
        points = click_points(image)
    else:
        camera = _camera(args, args.size)
        points = args.point or read_points(args.points)
    found = FoundPose.of(points, camera)
    if args.json:
        files["json"].write_json(found.as_dict())
    if args.out:
        files["out"].write(pose_yaml(found.pose, found.residual_px).encode())
    print("\n".join(found.lines()))


def _camera(args: argparse.Namespace, size: tuple[int, int] | None) -> CameraModel:
    from roi_codec_ros.common.share import local_path
    from roi_codec_ros.perception.cameras import CameraModel, read_calibration

    if args.camera:
        camera = read_calibration(local_path(args.camera)).camera
        return camera.for_image(*size) if size else camera
    if size is None:
        raise UsageError("expected --size with --hfov, found none")
    return CameraModel.from_hfov(*size, args.hfov)
