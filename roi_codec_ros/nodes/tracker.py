# SPDX-License-Identifier: Apache-2.0
"""tracker_node: the persons of all cameras, each with a place in its camera's optical frame.

    <camera>/persons ─► persons/tracks, persons/markers
    <camera>/camera_info ─► lens

Persons pass through one by one; their distance comes from an assumed height.
"""

from __future__ import annotations

import time
from functools import partial

from sensor_msgs.msg import CameraInfo
from visualization_msgs.msg import MarkerArray

from roi_codec_ros.codec.errors import RoiCodecError
from roi_codec_ros.msg import PersonArray
from roi_codec_ros.nodes import qos
from roi_codec_ros.nodes.base import ManagedNode
from roi_codec_ros.nodes.camera_info import camera_model_of
from roi_codec_ros.nodes.conversions import detections_from_persons, point_from_array
from roi_codec_ros.nodes.diagnostics import Figure, Level, Status
from roi_codec_ros.nodes.markers import person_markers
from roi_codec_ros.nodes.statistics import SlidingWindow
from roi_codec_ros.perception.cameras import CameraModel
from roi_codec_ros.perception.geometry import position_from_height


class _Camera:
    """What is known of one camera."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.info: CameraInfo | None = None
        self.calibrated = False
        self.persons = SlidingWindow()
        self.last_s: float | None = None


class TrackerNode(ManagedNode):
    """Publishes `persons/tracks` and `persons/markers`."""

    executable = "tracker_node"

    def __init__(self) -> None:
        super().__init__("tracker")
        self._cameras: dict[str, _Camera] = {}

    def configure(self) -> None:
        names = self.camera_names()
        self._tracks = self.publisher(PersonArray, "persons/tracks", qos.reliable())
        self._markers = self.publisher(MarkerArray, "persons/markers", qos.reliable())
        self._cameras = {name: _Camera(name) for name in names}
        for name, camera in self._cameras.items():
            self.subscription(CameraInfo, f"{name}/camera_info", partial(self._on_info, camera))
            self.subscription(
                PersonArray, f"{name}/persons", partial(self._on_persons, camera), qos.reliable()
            )
        self.get_logger().info(f"cameras {', '.join(names)}")

    def _on_info(self, camera: _Camera, message: CameraInfo) -> None:
        camera.info = message

    def _on_persons(self, camera: _Camera, message: PersonArray) -> None:
        camera.persons.add(len(message.persons))
        camera.last_s = time.monotonic()
        if message.image_width and message.image_height:
            self._place(camera, message)
        self._tracks.publish(message)
        if self._markers.get_subscription_count():
            self._markers.publish(
                person_markers(
                    message, self.setting("person_height_m"), self.setting("marker_lifetime_s")
                )
            )

    def _place(self, camera: _Camera, message: PersonArray) -> None:
        """Fill in the positions, in the optical frame that the header names.

        position_covariance is over that frame's x and z, the plane that people walk in.
        """
        width, height = message.image_width, message.image_height
        try:
            calibrated = camera_model_of(camera.info, width, height)
        except RoiCodecError as error:
            self.warn(f"{camera.name} camera_info", f"{camera.name}/camera_info: {error}")
            calibrated = None
        camera.calibrated = calibrated is not None
        model = calibrated or CameraModel.from_hfov(
            width, height, self.setting("assumed_hfov_deg")
        )
        boxes = detections_from_persons(message).xyxy
        places = position_from_height(boxes, model, self.setting("person_height_m"))
        for index, person in enumerate(message.persons):
            person.position_valid = bool(places.valid[index])
            person.position = point_from_array(places.feet[index])
            person.position_covariance = places.covariance[index].ravel()

    def statuses(self) -> list[Status]:
        return [self._status(camera) for camera in self._cameras.values()]

    def _status(self, camera: _Camera) -> Status:
        values: dict[str, Figure] = {
            "fps": camera.persons.rate_hz,
            "persons_mean": camera.persons.mean,
            "calibrated": camera.calibrated,
        }
        level, message = Level.OK, f"persons at {camera.persons.rate_hz:.1f} Hz"
        if camera.last_s is None:
            level, message = Level.STALE, "nothing from the detector yet"
        elif (age_s := time.monotonic() - camera.last_s) > self.setting("stale_after_s"):
            level, message = Level.STALE, f"nothing from the detector for {age_s:.1f} s"
        return Status(camera.name, level, message, values, camera.name)
