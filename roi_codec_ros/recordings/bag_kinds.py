# SPDX-License-Identifier: Apache-2.0
"""Which topics of a bag hold images, by their types; unknown image types are not copied.

A topic is rewritten, copied or dropped. What may hold a picture that cannot be looked at is
dropped: images inside other messages, coloured clouds, transports that are not known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any


class Kind(Enum):
    """What a topic holds."""

    IMAGE = "image"
    COMPRESSED = "compressed image"
    VIDEO = "video"
    CLOUD = "cloud"
    OTHER = "other"
    UNKNOWN_PICTURE = "a picture that cannot be looked at"
    NESTED_PICTURE = "a message with a picture inside"


IMAGE_TYPES = {"sensor_msgs/msg/Image": Kind.IMAGE}
COMPRESSED_TYPES = {
    "sensor_msgs/msg/CompressedImage": Kind.COMPRESSED,
    "foxglove_msgs/msg/CompressedImage": Kind.COMPRESSED,
}
VIDEO_TYPES = {
    "foxglove_msgs/msg/CompressedVideo": Kind.VIDEO,
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket": Kind.VIDEO,
}
CLOUD = "sensor_msgs/msg/PointCloud2"
READ_TYPES: Mapping[str, Kind] = {
    **IMAGE_TYPES,
    **COMPRESSED_TYPES,
    **VIDEO_TYPES,
    CLOUD: Kind.CLOUD,
}
PRIVATE_TYPES = {"roi_codec_ros/msg/CompressedLatent"}  # heads were hidden by the camera
# Names of types that hold pictures, when nothing else is known of them.
_PICTURE_NAMES = re.compile(
    r"image|video|theora|ffmpeg|draco|h\.?26[45]|hevc|jpe?g|picture|photo|frame_?data|pointcloud",
    re.IGNORECASE,
)
_NO_PICTURES = {"sensor_msgs/msg/CameraInfo", "sensor_msgs/msg/RegionOfInterest"}
COLOURS = {"rgb", "rgba", "bgr", "bgra", "r", "g", "b", "red", "green", "blue", "color", "colour"}


def kind_of(msgtype: str, fielddefs: Mapping[str, Any]) -> Kind:
    """What a topic of this type holds.

    fielddefs: of every type that is known, as a typestore of `rosbags` has them.
    """
    if msgtype in READ_TYPES:
        return READ_TYPES[msgtype]
    if msgtype in PRIVATE_TYPES or msgtype in _NO_PICTURES:
        return Kind.OTHER
    if _PICTURE_NAMES.search(msgtype):
        return Kind.UNKNOWN_PICTURE
    if any(_holds_pictures(name) for name in _nested(msgtype, fielddefs, set())):
        return Kind.NESTED_PICTURE
    return Kind.OTHER


def has_colours(cloud: Any) -> bool:
    """Whether a sensor_msgs/PointCloud2 has colours."""
    return any(field.name.lower() in COLOURS for field in cloud.fields)


def _holds_pictures(msgtype: str) -> bool:
    if msgtype in _NO_PICTURES:
        return False
    return msgtype in READ_TYPES or _PICTURE_NAMES.search(msgtype) is not None


def _nested(msgtype: str, fielddefs: Mapping[str, Any], seen: set[str]) -> set[str]:
    """Names of all types inside of a type."""
    if msgtype in seen or msgtype not in fielddefs:
        return seen
    seen.add(msgtype)
    _, fields = fielddefs[msgtype]
    for _, description in fields:
        for name in _names(description):
            seen |= {name} | _nested(name, fielddefs, seen)
    return seen


def _names(description: Any) -> list[str]:
    """Types that the description of a field names, in arrays too."""
    kind, value = description
    if kind.name == "NAME":
        return [value]
    if kind.name in ("ARRAY", "SEQUENCE"):
        return _names(value[0])
    return []
