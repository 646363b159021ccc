# SPDX-License-Identifier: Apache-2.0
"""TF: reads camera poses, if tf2_ros is installed, and broadcasts configured ones.

A frame may arrive before the transform at its stamp. It is kept for a bounded time without
    blocking the node: a waiting callback would block the transform itself.
"""

from __future__ import annotations

import importlib.util
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import Transform, TransformStamped
from numpy.typing import NDArray
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.time import Time as RosTime
from std_msgs.msg import Header

from roi_codec_ros.nodes import qos
from roi_codec_ros.nodes.conversions import stamp_ns
from roi_codec_ros.perception.ground import CameraPose

LOOK_AGAIN_S = 0.02
MOST_WAITING = 64  # frames, of all cameras
JUMP_S = 1.0  # stamps of one frame id that go back by more indicate a time jump
NO_POSE, EXTRAPOLATION = "no_pose", "extrapolation"


def tf_installed() -> bool:
    """Whether tf2_ros can be imported."""
    return importlib.util.find_spec("tf2_ros") is not None


def tf_messages_installed() -> bool:
    """Whether tf2_msgs can be imported."""
    return importlib.util.find_spec("tf2_msgs") is not None


def pose_from_transform(transform: Transform) -> CameraPose:
    """transform: of a camera's optical frame in the map frame."""
    place, turn = transform.translation, transform.rotation
    return CameraPose.from_transform([place.x, place.y, place.z], [turn.x, turn.y, turn.z, turn.w])


@dataclass(frozen=True)
class NoPose:
    """Why TF gives no pose. cause: NO_POSE, or EXTRAPOLATION for a known frame."""

    cause: str
    reason: str


@dataclass(frozen=True)
class _Waiting:
    header: Header
    then: Callable[[CameraPose | NoPose], None]
    until_s: float


class TransformPoses:
    """Listens to TF from construction until `close`. Needs tf2_ros."""

    def __init__(self, node: Any, map_frame: str) -> None:
        """node: a ManagedNode, whose clock is watched for jumps."""
        import tf2_ros

        self._node, self._map_frame = node, map_frame
        self._failure: type[Exception] = tf2_ros.TransformException
        self._extrapolation: type[Exception] = tf2_ros.ExtrapolationException
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)
        backward = JumpThreshold(
            min_forward=None, min_backward=Duration(seconds=-JUMP_S), on_clock_change=True
        )
        self._jumps = node.get_clock().create_jump_callback(
            backward, post_callback=lambda jump: self._buffer.clear()
        )
        self._newest_ns: dict[str, int] = {}
        self._waiting: deque[_Waiting] = deque()
        self._timer: Any = None

    def ask(
        self, header: Header, then: Callable[[CameraPose | NoPose], None], timeout_s: float
    ) -> None:
        """Call `then` with the pose of an optical frame at its stamp, or with the reason for none.

        If the transform is not available yet, the call is made when it is, or after the timeout.
        Frames of one camera are answered in order.
        """
        behind = any(w.header.frame_id == header.frame_id for w in self._waiting)
        outcome = None if behind else self.find(header)
        if isinstance(outcome, CameraPose) or (
            isinstance(outcome, NoPose) and not (self._may_come(outcome, header) and timeout_s > 0)
        ):
            then(outcome)
            return
        if len(self._waiting) >= MOST_WAITING:
            self._answer(self._waiting.popleft())
        self._waiting.append(_Waiting(header, then, time.monotonic() + timeout_s))
        if self._timer is None:
            self._timer = self._node.timer(LOOK_AGAIN_S, self._look_again)

    def find(self, header: Header) -> CameraPose | NoPose:
        """Pose of an optical frame at a stamp, as far as TF knows it now."""
        frame_id, stamp = header.frame_id, header.stamp
        self._follow(frame_id, stamp_ns(header))
        try:
            found = self._buffer.lookup_transform(
                self._map_frame, frame_id, RosTime.from_msg(stamp)
            )
        except self._extrapolation:
            return NoPose(EXTRAPOLATION, self._extrapolated(header))
        except self._failure as error:
            return NoPose(NO_POSE, f"TF has no pose of {frame_id} in {self._map_frame}: {error}")
        return pose_from_transform(found.transform)

    def close(self) -> None:
        """Stop listening to TF."""
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
        self._timer = None
        self._waiting.clear()
        self._jumps.unregister()
        self._listener.unregister()

    def _follow(self, frame_id: str, at_ns: int) -> None:
        """Clear TF's buffer after a time jump: it rejects what is much older than its newest."""
        if self._newest_ns.get(frame_id, at_ns) - at_ns > JUMP_S * 1e9:
            self._buffer.clear()  # except static transforms
            self._newest_ns.clear()
        self._newest_ns[frame_id] = max(at_ns, self._newest_ns.get(frame_id, at_ns))

    def _ahead_s(self, header: Header) -> float:
        """How much newer a frame is than the newest transform of its pose."""
        newest = self._buffer.get_latest_common_time(self._map_frame, header.frame_id)
        return (stamp_ns(header) - newest.nanoseconds) / 1e9

    def _may_come(self, outcome: NoPose, header: Header) -> bool:
        return outcome.cause == EXTRAPOLATION and self._ahead_s(header) > 0

    def _extrapolated(self, header: Header) -> str:
        ahead_s = self._ahead_s(header)
        what = f"expected a transform of {header.frame_id} in {self._map_frame} at the frame's"
        if ahead_s > 0:
            return f"{what} stamp, found TF's newest to be {ahead_s:.3f} s older"
        return f"{what} stamp, found none that old in TF: its newest is {-ahead_s:.3f} s newer"

    def _look_again(self) -> None:
        """Answer frames whose transform is available, and those that have timed out."""
        blocked: set[str] = set()
        now_s = time.monotonic()
        for waiting in list(self._waiting):
            frame_id = waiting.header.frame_id
            if frame_id in blocked:
                continue
            known = isinstance(self.find(waiting.header), CameraPose)
            if known or now_s >= waiting.until_s:
                self._waiting.remove(waiting)
                self._node.each(self._answer, [waiting])
            else:
                blocked.add(frame_id)
        if not self._waiting and self._timer is not None:
            self._node.destroy_timer(self._timer)
            self._timer = None

    def _answer(self, waiting: _Waiting) -> None:
        waiting.then(self.find(waiting.header))


class StaticTransforms:
    """Publishes static transforms, all in one latched message."""

    def __init__(self, node: Any, parent: str) -> None:
        """parent: the parent frame of all of them. Needs tf2_msgs."""
        from tf2_msgs.msg import TFMessage

        self._parent, self._message, self._node = parent, TFMessage, node
        self._publisher = node.publisher(TFMessage, "/tf_static", qos.latched(), shared=True)
        self._poses: dict[str, CameraPose] = {}

    @property
    def known(self) -> Mapping[str, CameraPose]:
        """The poses that were broadcast, by child frame."""
        return self._poses

    def add(self, frame_id: str, pose: CameraPose) -> None:
        """Broadcast the pose of one more frame, or a changed one."""
        self._poses[frame_id] = pose
        self._publisher.publish(self._message(transforms=[*map(self._stamped, self._poses)]))

    def _stamped(self, frame_id: str) -> TransformStamped:
        pose = self._poses[frame_id]
        stamped = TransformStamped(child_frame_id=frame_id)
        stamped.header.frame_id = self._parent
        stamped.header.stamp = self._node.get_clock().now().to_msg()
        place, turn = stamped.transform.translation, stamped.transform.rotation
        place.x, place.y, place.z = pose.translation.tolist()
        turn.x, turn.y, turn.z, turn.w = quaternion(pose.rotation).tolist()
        return stamped


def quaternion(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """A rotation matrix [3, 3] as a unit quaternion x, y, z, w, with w ≥ 0.

    The eigenvector of the largest eigenvalue of the symmetric matrix that is made of its sums and
    differences (Bar-Itzhack 2000): exact to rounding for every turn.
    """
    (a, b, c), (d, e, f), (g, h, i) = rotation
    matrix = np.array(
        [
            [a - e - i, b + d, c + g, h - f],
            [b + d, e - a - i, f + h, c - g],
            [c + g, f + h, i - a - e, d - b],
            [h - f, c - g, d - b, a + e + i],
        ]
    )
    vector = np.linalg.eigh(matrix)[1][:, -1]
    return np.asarray(-vector if vector[3] < 0 else vector)
