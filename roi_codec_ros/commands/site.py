# SPDX-License-Identifier: Apache-2.0
"""Check the file that describes all cameras of a site, as cameras.launch.py takes it.

Checks every key, and that the models, lenses and poses needed on this host can be read. An error
is one line that names the key.

example:
  roi-codec site check cameras.yaml
  roi-codec site check cameras.yaml --start cameras --host jetson-front
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roi_codec_ros.commands.arguments import add_force_option, add_json_option, outputs
from roi_codec_ros.config.site import BOTH, PARTS

if TYPE_CHECKING:
    from roi_codec_ros.config.bringup import NodeSpec
    from roi_codec_ros.config.site import Site


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("action", choices=["check"], help="what to do")
    parser.add_argument("config", type=Path, help="YAML file that describes the site's cameras")
    parser.add_argument(
        "--start", choices=PARTS, default=BOTH, help="part that is to run here (default: both)"
    )
    parser.add_argument("--host", default="", help="host name to check for (default: this host)")
    add_json_option(parser)
    add_force_option(parser)


def run(args: argparse.Namespace) -> None:
    """Run the verb. Raises RoiCodecError for whatever a user can cause."""
    from roi_codec_ros.common.tables import text_table
    from roi_codec_ros.config.site import read_site, site_graph, this_host

    files = outputs(args, "json", inputs=[args.config])
    site = read_site(args.config)
    host = args.host or this_host()
    specs = site_graph(site, args.start, host)
    _check_files(site, specs)
    rows = [
        {
            "camera": camera.name,
            "enabled": camera.enabled,
            "host": camera.host,
            "source": camera.parameters.get("source", ""),
            "model": camera.parameters.get("model", ""),
            "lens": camera.parameters.get("camera_info_file", ""),
            "pose": camera.pose,
        }
        for camera in site.cameras
    ]
    nodes = [node.full_name for spec in specs for node in spec.nodes or (spec,)]
    print(text_table(list(rows[0]), [[_shown(v) for v in row.values()] for row in rows]))
    print(f"{args.config}: good; on {host}: {', '.join(nodes)}")
    if args.json:
        files["json"].write_json({"cameras": rows, "host": host, "nodes": nodes})


def _check_files(site: Site, specs: list[NodeSpec]) -> None:
    """Raise UsageError for a file that a node of this host would not be able to read."""
    from roi_codec_ros.codec import find_model
    from roi_codec_ros.common.errors import UsageError
    from roi_codec_ros.common.graph_runtime import find_graph
    from roi_codec_ros.common.share import local_path
    from roi_codec_ros.config.bringup import DETECTOR, SERVER, TRACKER
    from roi_codec_ros.perception.cameras import read_calibration
    from roi_codec_ros.perception.person_detector import find_weights
    from roi_codec_ros.perception.poses import parse_camera_poses
    from roi_codec_ros.stream.sources import SourceKind, parse_source

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
    from roi_codec_ros.common.errors import RoiCodecError, UsageError

    try:
        return read(value)
    except RoiCodecError as error:
        raise UsageError(f"{label}: {error}") from error


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) or "–"
