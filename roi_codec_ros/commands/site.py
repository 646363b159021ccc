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
from pathlib import Path

from roi_codec_ros.commands.arguments import add_force_option, add_json_option, outputs
from roi_codec_ros.config.site import BOTH, PARTS


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
    from roi_codec_ros.diagnosis.site_files import check_files

    files = outputs(args, "json", inputs=[args.config])
    site = read_site(args.config)
    host = args.host or this_host()
    specs = site_graph(site, args.start, host)
    check_files(site, specs)
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


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) or "–"
