# SPDX-License-Identifier: Apache-2.0
"""Subscribes to the running graph for the demo and passes its messages to a ledger."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import OccupancyGrid
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from roi_codec_ros.common.image_messages import rgb_from_image
from roi_codec_ros.lab.demo.background_node import BackgroundNode
from roi_codec_ros.lab.demo.running import Ledger
from roi_codec_ros.msg import CompressedLatent, DecodedFrame, PersonArray
from roi_codec_ros.nodes import diagnostics
from roi_codec_ros.nodes.conversions import stamp_ns
from roi_codec_ros.nodes.qos import latched

PIXELS = QoSProfile(depth=4, reliability=QoSReliabilityPolicy.BEST_EFFORT)
PERSONS = QoSProfile(depth=20, reliability=QoSReliabilityPolicy.RELIABLE)


class DemoMonitor(BackgroundNode):
    """Subscribes for all cameras and passes the messages to the ledger, in its own thread."""

    def __init__(self, cameras: Sequence[str], ledger: Ledger) -> None:
        super().__init__("demo_monitor")
        self._ledger = ledger
        self._encoders = {f"{camera}/encoder: codec": camera for camera in cameras}
        for camera in cameras:
            self._subscribe(camera)
        self._node.create_subscription(
            DiagnosticArray, diagnostics.TOPIC, self._on_diagnostics, PERSONS
        )
        for topic in ("/persons/tracks", "/persons/unplaced"):
            self._node.create_subscription(PersonArray, topic, ledger.on_tracks, PERSONS)
        self._node.create_subscription(
            OccupancyGrid, "/persons/coverage", ledger.on_coverage, latched()
        )
        self.start()

    def _subscribe(self, camera: str) -> None:
        for kind, topic, callback, qos in (
            (DecodedFrame, "decoded_frame", self._ledger.on_decoded, PIXELS),
            (Image, "anonymized/image", self._on_image, PIXELS),
            (CameraInfo, "anonymized/camera_info", self._on_camera_info, PIXELS),
            (PersonArray, "persons", self._ledger.on_persons, PERSONS),
        ):
            self._node.create_subscription(
                kind, f"/{camera}/{topic}", partial(callback, camera), qos
            )
        # Only to know that the encoder publishes: the payload is not unpacked.
        self._node.create_subscription(
            CompressedLatent,
            f"/{camera}/latent",
            lambda _: self._ledger.on_latent(camera),
            PIXELS,
            raw=True,
        )

    def _on_image(self, camera: str, message: Image) -> None:
        self._ledger.on_image(camera, stamp_ns(message.header), rgb_from_image(message))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if (camera := self._encoders.get(status.name)) is not None:
                self._ledger.on_coding(camera, {v.key: v.value for v in status.values})

    def _on_camera_info(self, camera: str, message: CameraInfo) -> None:
        if message.k[0] > 0 and message.width > 0:
            angle = 2 * np.degrees(np.arctan(message.width / 2 / message.k[0]))
            self._ledger.on_field_of_view(camera, float(angle))
