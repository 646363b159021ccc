# SPDX-License-Identifier: Apache-2.0
"""`latent/camera_info`: CameraInfo of the coded image, derived from the camera's calibration."""

from __future__ import annotations

from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from roi_codec_ros.codec import EncodedFrame
from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.nodes import qos
from roi_codec_ros.nodes.camera_info import info_of_pixels, read_calibration, scaled_camera_info
from roi_codec_ros.nodes.guarded import GuardedNode


class CodedCameraInfo:
    """Publishes the CameraInfo of the coded image whenever it changes.

    If it cannot be determined, it is published without a size.

    fault: the reason; empty if there is none. made: the last published one, None if it has no
    size.
    """

    def __init__(
        self,
        node: GuardedNode,
        topic: str,
        *,
        camera: str,
        rectified: bool,
        calibration_file: str = "",
        calibration_topic: str = "",
    ) -> None:
        """camera: its name.

        rectified: the images are rectified, even if their calibration contains distortion. The
        calibration comes from a file or a topic; without both there is none. Raises
        UsageError for both, and for this node's own topic; RoiCodecError for a bad file.
        """
        if calibration_file and calibration_topic:
            raise UsageError("expected camera_info_file or camera_info_topic, found both")
        own = node.resolve_topic_name(topic)
        if calibration_topic and node.resolve_topic_name(calibration_topic) == own:
            raise UsageError(
                "expected the driver's topic as camera_info_topic, found this node's own"
            )
        self.fault = ""
        self.made: CameraInfo | None = None
        self._node, self._camera, self._rectified = node, camera, rectified
        self._topic = calibration_topic
        self._calibration = read_calibration(calibration_file) if calibration_file else None
        self._made_of: tuple[object, ...] = ()  # identity of the calibration, calibration, sizes
        self._infos = node.publisher(CameraInfo, topic, qos.latched())
        if calibration_topic:
            node.lasting_subscription(CameraInfo, calibration_topic, self._on_calibration)

    @property
    def calibrated(self) -> bool:
        """Whether the last published one is calibrated."""
        return bool(self.made is not None and any(self.made.k))

    def publish(self, header: Header, encoded: EncodedFrame) -> None:
        """Publish for a frame, if anything has changed."""
        calibration = self._calibration
        # By identity: messages that differ in one number only compare as equal.
        made_of = id(calibration), encoded.original_size, encoded.coded_size, calibration
        if made_of[:3] != self._made_of[:3]:
            self._made_of, self.fault = made_of, ""
            self.made = self._make(calibration, encoded)
            if self.made is not None:
                self.made.header = header
            self._infos.publish(self.made or CameraInfo(header=header))

    def _on_calibration(self, message: CameraInfo) -> None:
        self._calibration = message

    def _make(self, calibration: CameraInfo | None, encoded: EncodedFrame) -> CameraInfo | None:
        if calibration is None and self._topic:
            self.fault = f"nothing on {self._topic} yet"
            return None
        (height, width), (coded_height, coded_width) = encoded.original_size, encoded.coded_size
        try:
            info = info_of_pixels(
                calibration or CameraInfo(), width, height, rectified=self._rectified
            )
        except RoiCodecError as error:
            self.fault = str(error)
            self._node.warn("camera_info", f"{self._camera}: no camera_info: {error}")
            return None
        return scaled_camera_info(info, coded_width, coded_height)


def is_rectified(topic: str) -> bool:
    """Whether an image topic has rectified images, by image_proc's names."""
    return any(part.startswith("image_rect") for part in topic.split("/"))
