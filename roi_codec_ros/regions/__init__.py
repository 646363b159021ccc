# SPDX-License-Identifier: Apache-2.0
"""Where heads and persons are in a frame, and how heads are hidden.

    frame ─► RegionFinder ─► Regions ─► plan_blocks ─► BlockPlan ─► codec, or paint_over
                                           ▲
                                       MaskMemory

The codec follows the plan when it codes a frame; recordings are painted over without the codec.
"""

from roi_codec_ros.regions.blocks import BLOCK_PX
from roi_codec_ros.regions.finder import (
    DEFAULT_REGIONS,
    INT8_REGIONS,
    RegionFinder,
    Regions,
    Thresholds,
    load_regions,
    open_regions,
)
from roi_codec_ros.regions.follower import RegionFollower
from roi_codec_ros.regions.memory import MaskMemory, still_there
from roi_codec_ros.regions.paint import paint_over, paint_plane
from roi_codec_ros.regions.plan import BlockPlan, hidden_blocks, plan_blocks

__all__ = [
    "BLOCK_PX",
    "DEFAULT_REGIONS",
    "INT8_REGIONS",
    "BlockPlan",
    "MaskMemory",
    "RegionFinder",
    "RegionFollower",
    "Regions",
    "Thresholds",
    "hidden_blocks",
    "load_regions",
    "open_regions",
    "paint_over",
    "paint_plane",
    "plan_blocks",
    "still_there",
]
