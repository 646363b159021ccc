# SPDX-License-Identifier: Apache-2.0
"""Where the package's data files lie: models, configuration, launch files."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def share_folders(name: str) -> list[Path]:
    """Existing folders ``name`` (such as ``models``) of this package, the nearest first.

    The source tree's own, every sourced ROS 2 workspace's ``share/roi_codec_ros``, then the one of
    this Python installation.
    """
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    share = Path("share", "roi_codec_ros")
    places = [
        Path(__file__).resolve().parents[2],
        *(Path(prefix) / share for prefix in prefixes if prefix),
        Path(sys.prefix) / share,
    ]
    return [folder for folder in dict.fromkeys(p / name for p in places) if folder.is_dir()]
