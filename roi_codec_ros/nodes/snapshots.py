# SPDX-License-Identifier: Apache-2.0
"""Snapshots: the next anonymized image of every camera, written into a folder on request."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from std_msgs.msg import Header
from std_srvs.srv import Trigger

from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.files import write_whole
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.nodes.conversions import jpeg_from_rgb, stamp_ns
from roi_codec_ros.nodes.guarded import GuardedNode


class Snapshots:
    """Offers `~/snapshot` and writes the images."""

    def __init__(self, node: GuardedNode, folder: str, cameras: Collection[str]) -> None:
        """folder: an existing one, or empty for no snapshots.

        cameras: returns the current cameras. Raises UsageError.
        """
        if folder and not Path(folder).expanduser().is_dir():
            raise UsageError(f"snapshot_folder: expected a folder, found none at {folder}")
        self._folder = Path(folder).expanduser() if folder else None
        self._node = node
        self._cameras = cameras
        self._due: set[str] = set()
        node.service(Trigger, "~/snapshot", self._on_request)

    def due(self, camera: str) -> bool:
        """Whether the next image of a camera is to be written."""
        return camera in self._due

    def take(self, camera: str, header: Header, image: ImageArray, jpeg_quality: int) -> None:
        """Write an image if requested; a failure is logged as a warning."""
        if camera not in self._due or self._folder is None:
            return
        self._due.discard(camera)
        jpeg = jpeg_from_rgb(image, header, jpeg_quality)
        name = f"{camera.replace('/', '_')}_{stamp_ns(header)}.jpg"
        try:
            write_whole(self._folder / name, jpeg.data.tobytes())
        except (OSError, RoiCodecError) as error:
            self._node.warn(f"{camera} snapshot", f"{camera}: no snapshot: {error}")

    def _on_request(self, request: Any, response: Any) -> Any:
        if self._folder is None:
            response.message = "no snapshot_folder is set"
        elif not self._node.active:
            response.message = "the decoder is not active"
        else:
            self._due.update(self._cameras)
            response.success = True
            response.message = (
                f"the next anonymized image of {', '.join(self._cameras)} goes into {self._folder}"
            )
        return response
