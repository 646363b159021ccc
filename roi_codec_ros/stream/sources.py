# SPDX-License-Identifier: Apache-2.0
"""The `source` parameter: a device, a film, images, a stream or a topic.

No ROS here. `parse_source` recognises topic sources too; reading them is up to the node.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from pathlib import Path

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.photographs import is_photograph, photographs_in
from roi_codec_ros.common.share import local_path

LIVE = -1  # position of a frame of a live source
TOPIC_PREFIX = "topic:"
DEFAULT_IMAGE_TOPIC = "image_raw"
_LOCAL_ADDRESSES = ("file://", "package://")
_LOGIN = re.compile(r"://[^/@\s]+@")


class SourceError(RoiCodecError):
    """A source cannot be opened, or gave no more frames."""


class SourceKind(enum.Enum):
    """Kinds of sources."""

    DEVICE = "device"
    VIDEO = "video"
    IMAGES = "images"
    STREAM = "stream"
    TOPIC = "topic"


@dataclass(frozen=True)
class Source:
    """A parsed source.

    text: as given by the user, without the credentials of an address, for logs and topics.
    target: path of a device, file, folder, address, pipeline or topic name.
    """

    text: str
    kind: SourceKind
    target: str

    @property
    def live(self) -> bool:
        """Whether frames arrive in real time and cannot be read again."""
        return self.kind not in (SourceKind.VIDEO, SourceKind.IMAGES)


def parse_source(text: str) -> Source:
    """Parse a `source` parameter. Raises SourceError if it is not a source.

    Devices and streams are not opened: a camera may be plugged in later. Files must exist,
    including those named by file:///… and package://PACKAGE/….
    """
    text = text.strip()
    if text == "topic" or text.startswith(TOPIC_PREFIX):
        topic = text.removeprefix("topic").removeprefix(":").strip()
        return Source(text, SourceKind.TOPIC, topic or DEFAULT_IMAGE_TOPIC)
    if text.isdecimal():
        # By its path: OpenCV tries a number with backends that tell no times, too.
        return Source(text, SourceKind.DEVICE, f"/dev/video{int(text)}")
    if text.startswith("/dev/"):
        return Source(text, SourceKind.DEVICE, text)
    if text.lower().startswith(_LOCAL_ADDRESSES):
        scheme, rest = text.split("://", 1)
        path = local_path(f"{scheme.lower()}://{rest}")
        if str(path).startswith("/dev/"):
            return Source(text, SourceKind.DEVICE, str(path))
    elif "://" in text or "!" in text:
        return Source(_LOGIN.sub("://…@", text), SourceKind.STREAM, text)
    else:
        path = Path(text).expanduser()
    if text and path.is_dir():
        if not photographs_in(path):
            raise SourceError(f"source: expected images in folder {path}, found none")
        return Source(text, SourceKind.IMAGES, str(path))
    if path.is_file():
        kind = SourceKind.IMAGES if is_photograph(path) else SourceKind.VIDEO
        return Source(text, kind, str(path))
    raise SourceError(
        "source: expected a device, a file, a folder, a stream address or topic:NAME, "
        f"found {text!r} (no such file)"
    )


@dataclass(frozen=True)
class CaptureFormat:
    """Settings to request from a device; 0 and empty: its default. pixel_format: four letters."""

    width: int = 0
    height: int = 0
    fps: float = 0.0
    pixel_format: str = ""


ANY_FORMAT = CaptureFormat()
