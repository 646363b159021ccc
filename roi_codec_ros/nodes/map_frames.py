# SPDX-License-Identifier: Apache-2.0
"""The tracker's TF frames: those of its cameras, and that of its cloud."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from std_msgs.msg import Header

from roi_codec_ros.config.parameters import TrackerParameters
from roi_codec_ros.nodes.guarded import GuardedNode
from roi_codec_ros.nodes.map_messages import origin_near
from roi_codec_ros.nodes.tracked_camera import LeftOutError, TrackedCamera
from roi_codec_ros.nodes.transforms import NO_POSE, StaticTransforms, tf_messages_installed
from roi_codec_ros.perception.ground import CameraPose


class MapFrames:
    """Broadcasts configured poses, and chooses a frame in which the cloud keeps its precision."""

    def __init__(self, node: GuardedNode, settings: Callable[[], TrackerParameters]) -> None:
        """settings: returns the current settings."""
        self._node, self._settings = node, settings
        self._map_frame = settings().map_frame
        self._static = StaticTransforms(node, self._map_frame) if tf_messages_installed() else None
        self._owners: dict[str, str] = {}  # frame id → camera
        self._origin: NDArray[np.float64] | None = None

    def broadcast(self, camera: TrackedCamera, frame_id: str) -> None:
        """Broadcast the configured pose of a camera on TF, once its frame id is known."""
        wanted = self._settings().broadcast_poses and self._node.active and frame_id
        if self._static is None or camera.pose is None or not wanted:
            return
        owner = self._owners.setdefault(frame_id, camera.name)
        if owner == camera.name:
            if self._static.known.get(frame_id) is not camera.pose:
                self._static.add(frame_id, camera.pose)
        else:
            self._node.warn(
                f"{frame_id} twice",
                f"{camera.name}: expected a frame id of its own, found {frame_id}, which {owner} "
                "has",
            )

    def settle(self, cameras: Iterable[TrackedCamera]) -> None:
        """Choose the cloud's frame, once a camera has a pose in the map.

        Raises LeftOutError if it is not the map's and cannot be broadcast.
        """
        if self._origin is None:
            poses = [c.pose or (c.view.pose if c.view else None) for c in cameras]
            places = [pose.translation for pose in poses if pose is not None]
            if not places:
                return
            self._origin = origin_near(places)
            if self._origin.any() and self._static is not None:
                place = np.append(self._origin, 0.0)
                self._static.add(self._near_frame, CameraPose(np.eye(3), place))
        if self._origin.any() and self._static is None:
            raise LeftOutError(
                NO_POSE,
                f"so far from the origin of {self._map_frame} the cloud needs a frame near the "
                "cameras, and tf2_msgs, which that takes, is not installed",
            )

    def of_cloud(self, header: Header) -> tuple[Header, NDArray[np.float64]]:
        """Header of a cloud of the map, and x and y of its frame's origin in the map."""
        if self._origin is None or not self._origin.any():
            return header, np.zeros(2)
        return Header(stamp=header.stamp, frame_id=self._near_frame), self._origin

    @property
    def _near_frame(self) -> str:
        return f"{self._map_frame}_persons"
