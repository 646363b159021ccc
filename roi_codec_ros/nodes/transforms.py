# SPDX-License-Identifier: Apache-2.0
"""Poses of cameras from TF, where tf2_ros is installed."""

from __future__ import annotations

import importlib.util
from typing import Any

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Transform
from rclpy.time import Time as RosTime

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.perception.ground import CameraPose


def tf_installed() -> bool:
    """Whether tf2_ros can be imported."""
    return importlib.util.find_spec("tf2_ros") is not None


def pose_from_transform(transform: Transform) -> CameraPose:
    """transform: of a camera's optical frame in the map frame."""
    place, turn = transform.translation, transform.rotation
    return CameraPose.from_transform([place.x, place.y, place.z], [turn.x, turn.y, turn.z, turn.w])


class TransformPoses:
    """Listens to TF from its making until `close`. Needs tf2_ros."""

    def __init__(self, node: Any) -> None:
        import tf2_ros

        self._failure: type[Exception] = tf2_ros.TransformException
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)

    def find(self, map_frame: str, frame_id: str, stamp: Time) -> CameraPose:
        """Pose of an optical frame at a stamp. Raises RoiCodecError while TF does not know it."""
        try:
            found = self._buffer.lookup_transform(map_frame, frame_id, RosTime.from_msg(stamp))
        except self._failure as error:
            raise RoiCodecError(f"TF has no pose of {frame_id} in {map_frame}: {error}") from error
        return pose_from_transform(found.transform)

    def close(self) -> None:
        """Stop listening to TF."""
        self._listener.unregister()
