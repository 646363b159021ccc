# SPDX-License-Identifier: Apache-2.0
"""tracker_node: the persons of all cameras in one map, and how much of it cameras watch.

    <camera>/persons, <camera>/camera_info, poses ─► ground ─► tracks
      ─► persons/{tracks, poses, cloud, markers, coverage, detections}

A new newest stamp brings a new picture; a camera that can not be used adds nothing to it, and when
none can, nothing is published. Cameras without a pose stay by themselves, in their optical frames.
"""

from __future__ import annotations

import time
from functools import partial

from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseArray
from nav_msgs.msg import OccupancyGrid
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import CameraInfo, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.config.parameters import TrackerParameters, check_camera_names
from roi_codec_ros.msg import PersonArray
from roi_codec_ros.nodes import qos, vision
from roi_codec_ros.nodes.base import ManagedNode
from roi_codec_ros.nodes.camera_info import camera_model_of
from roi_codec_ros.nodes.clouds import cloud_from_points, person_rings
from roi_codec_ros.nodes.conversions import detections_from_persons, point_from_array, stamp_ns
from roi_codec_ros.nodes.diagnostics import Figure, Level, Status, rejects
from roi_codec_ros.nodes.grids import coverage_grid
from roi_codec_ros.nodes.map_messages import persons_from_tracks, poses_from_persons
from roi_codec_ros.nodes.markers import map_markers, person_markers
from roi_codec_ros.nodes.transforms import TransformPoses, tf_installed
from roi_codec_ros.perception.cameras import CameraModel
from roi_codec_ros.perception.geometry import position_from_height
from roi_codec_ros.perception.ground import CameraPose, ground_positions
from roi_codec_ros.perception.poses import parse_camera_poses
from roi_codec_ros.perception.tracking import Tracker, TrackerSettings
from roi_codec_ros.perception.views import GroundView
from roi_codec_ros.stream.statistics import SlidingWindow, Tally

COVERAGE_PERIOD_S = 1.0


class _Camera:
    """What is known of one camera.

    in_map: it has, or once had, a pose; from then on it never speaks in its optical frame.
    fault: why its last frame did not get into the map; empty if it did.
    """

    def __init__(self, name: str, pose: CameraPose | None) -> None:
        self.name = name
        self.pose = pose
        self.in_map = pose is not None
        self.info: CameraInfo | None = None
        self.calibrated = False
        self.persons = SlidingWindow()
        self.age_ms = SlidingWindow()
        self.heard_s: float | None = None
        self.mapped_s: float | None = None
        self.fault = ""
        self.refused = Tally()
        self.view: GroundView | None = None


class TrackerNode(ManagedNode):
    """Publishes everything under `persons/`."""

    executable = "tracker_node"
    settings: TrackerParameters

    def __init__(self) -> None:
        super().__init__("tracker")
        self._cameras: dict[str, _Camera] = {}
        self._transforms: TransformPoses | None = None
        self._watched: tuple[str, ...] | None = None  # the cameras in the last coverage

    def configure(self) -> None:
        """Load what the parameters name and create publishers and subscriptions."""
        names = self.settings.cameras
        check_camera_names(names)
        try:
            poses = parse_camera_poses(self.settings.camera_poses)
        except RoiCodecError as error:
            raise UsageError(f"camera_poses: {error}") from error
        if unknown := sorted(set(poses) - set(names)):
            raise UsageError(
                f"camera_poses: expected cameras among {', '.join(names)}, "
                f"found {', '.join(unknown)}"
            )
        self._settings_of_tracks = TrackerSettings(
            birth_hits=self.settings.birth_hits,
            death_s=self.settings.death_s,
            coast_s=self.settings.coast_s,
        )
        self._tracks = self.publisher(PersonArray, "persons/tracks", qos.reliable())
        self._markers = self.publisher(MarkerArray, "persons/markers", qos.reliable())
        self._poses = self.publisher(PoseArray, "persons/poses", qos.reliable())
        self._cloud = self.publisher(PointCloud2, "persons/cloud", qos.reliable())
        self._coverage = self.publisher(OccupancyGrid, "persons/coverage", qos.latched())
        self._detections = (
            self.publisher(vision.Detection3DArray, "persons/detections", qos.reliable())
            if vision.Detection3DArray is not None
            else None
        )
        self._cameras = {name: _Camera(name, poses.get(name)) for name in names}
        for name, camera in self._cameras.items():
            self.subscription(CameraInfo, f"{name}/camera_info", partial(self._on_info, camera))
            self.subscription(
                PersonArray, f"{name}/persons", partial(self._on_persons, camera), qos.reliable()
            )
        self.get_logger().info(
            f"cameras {', '.join(names)}; in {self.settings.map_frame}: "
            f"{', '.join(poses) or 'none'}"
        )

    def activate(self) -> None:
        """Start working."""
        self._tracker = Tracker(self._settings_of_tracks)
        self._watched = None
        for camera in self._cameras.values():
            camera.heard_s = camera.mapped_s = None
            camera.fault = ""
        if tf_installed() and any(camera.pose is None for camera in self._cameras.values()):
            self._transforms = TransformPoses(self)
        # A camera goes dark without a message; and simulated time may stand still.
        self._timer = self.create_timer(
            COVERAGE_PERIOD_S,
            self._publish_coverage,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    def deactivate(self) -> None:
        """Stop working; what was loaded stays."""
        self.destroy_timer(self._timer)
        if self._transforms is not None:
            self._transforms.close()
            self._transforms = None

    # From cameras

    def _on_info(self, camera: _Camera, message: CameraInfo) -> None:
        camera.info = message

    def _on_persons(self, camera: _Camera, message: PersonArray) -> None:
        camera.persons.add(len(message.persons))
        camera.age_ms.add(1e3 * self.age_s(message.header))
        camera.heard_s = time.monotonic()
        pose = self._pose(camera, message.header)
        if not camera.in_map:
            self._pass_on(camera, message)
        elif pose is not None:
            self._into_map(camera, pose, message)

    def _pose(self, camera: _Camera, header: Header) -> CameraPose | None:
        if camera.pose is not None or self._transforms is None:
            return camera.pose
        try:
            pose = self._transforms.find(self.settings.map_frame, header.frame_id, header.stamp)
        except RoiCodecError as error:
            camera.fault = str(error)
            return None
        camera.in_map = True
        return pose

    def _into_map(self, camera: _Camera, pose: CameraPose, message: PersonArray) -> None:
        model = self._lens_in_map(camera, message)
        if model is None:
            return
        range_m = self.settings.max_range_m
        if camera.view is None or not camera.view.same_as(model, pose, range_m):
            camera.view = GroundView(model, pose, range_m, self.settings.coverage_cell_m)
        places = ground_positions(
            detections_from_persons(message).xyxy,
            model,
            pose,
            person_height_m=self.settings.person_height_m,
            max_range_m=range_m,
        )
        for reason in places.reason[~places.valid]:
            camera.refused.add(str(reason))
        stamp_s = stamp_ns(message.header) / 1e9
        tracker = self._tracker
        tracker.coverage[camera.name] = camera.view
        newest_s, taken = tracker.newest_stamp, tracker.counts.taken
        tracker.update(
            camera.name, stamp_s, places.xy[places.valid], places.covariance[places.valid]
        )
        if tracker.counts.taken == taken:
            camera.fault = f"frames left out: {_left_out(stamp_s, newest_s)}"
            return
        camera.fault = ""
        camera.mapped_s = time.monotonic()
        if tracker.newest_stamp == stamp_s != newest_s:
            self._publish_map(message.header.stamp, stamp_s)

    def _lens_in_map(self, camera: _Camera, message: PersonArray) -> CameraModel | None:
        """The lens that a place in the map may be trusted to; None, and a fault, without one."""
        if not (message.image_width and message.image_height):
            camera.fault = "persons come without the size of their image"
        elif camera.info is None:
            camera.fault = f"nothing on {camera.name}/camera_info yet"
        else:
            try:
                return self._lens(camera, message.image_width, message.image_height)
            except RoiCodecError as error:
                camera.fault = f"{camera.name}/camera_info: {error}"
        return None

    def _lens(self, camera: _Camera, width: int, height: int) -> CameraModel:
        camera.calibrated = False
        calibrated = camera_model_of(camera.info, width, height)
        camera.calibrated = calibrated is not None
        return calibrated or CameraModel.from_hfov(width, height, self.settings.assumed_hfov_deg)

    # What comes out: in the map

    def _publish_map(self, stamp: Time, stamp_s: float) -> None:
        header = Header(stamp=stamp, frame_id=self.settings.map_frame)
        tracks = self._tracker.tracks(stamp_s)
        # An obstacle need not prove itself: who was seen only once is in the way as well.
        points = person_rings(tracks.xy, self.settings.person_radius_m)
        self._cloud.publish(cloud_from_points(points, header))
        persons = persons_from_tracks(tracks.only_confirmed(), header)
        self._tracks.publish(persons)
        self._poses.publish(poses_from_persons(persons))
        height_m = self.settings.person_height_m
        if self._markers.get_subscription_count():
            views = [
                (camera.name, camera.view, self._watches(camera))
                for camera in self._cameras.values()
                if camera.view is not None
            ]
            self._markers.publish(
                map_markers(persons, views, height_m, self.settings.marker_lifetime_s)
            )
        if self._detections is not None and self._detections.get_subscription_count():
            width_m = 2.0 * self.settings.person_radius_m
            self._detections.publish(vision.detection_array_3d(persons, height_m, width_m))
        if self._watching() != self._watched:
            self._publish_coverage()

    def _watches(self, camera: _Camera) -> bool:
        """Whether what it saw is in the map, and new enough to rely on."""
        return (
            camera.mapped_s is not None
            and time.monotonic() - camera.mapped_s <= self.settings.stale_after_s
        )

    def _watching(self) -> tuple[str, ...]:
        return tuple(name for name, camera in self._cameras.items() if self._watches(camera))

    def _publish_coverage(self) -> None:
        """Once a second while a camera watches, and once more when none does any longer.

        The last one is kept for late subscribers: it must not say that anything is watched.
        """
        watching = self._watching()
        views = {c.name: c.view for c in self._cameras.values() if c.view is not None}
        if not views or not (watching or self._watched):
            return
        self._watched = watching
        header = Header(frame_id=self.settings.map_frame)
        header.stamp = self.get_clock().now().to_msg()
        self._coverage.publish(
            coverage_grid(
                [view.cells for view in views.values()],
                [views[name].cells for name in watching],
                self.settings.coverage_cell_m,
                header,
            )
        )

    # What comes out: of cameras without a pose

    def _pass_on(self, camera: _Camera, message: PersonArray) -> None:
        if message.image_width and message.image_height:
            self._place(camera, message)
        self._tracks.publish(message)
        if self._markers.get_subscription_count():
            self._markers.publish(
                person_markers(
                    message, self.settings.person_height_m, self.settings.marker_lifetime_s
                )
            )

    def _place(self, camera: _Camera, message: PersonArray) -> None:
        """Fill in the positions, in the optical frame that the header names.

        position_covariance is over that frame's x and z, the plane that people walk in.
        """
        width, height = message.image_width, message.image_height
        try:
            model = self._lens(camera, width, height)
        except RoiCodecError as error:
            self.warn(f"{camera.name} camera_info", f"{camera.name}/camera_info: {error}")
            model = CameraModel.from_hfov(width, height, self.settings.assumed_hfov_deg)
        boxes = detections_from_persons(message).xyxy
        places = position_from_height(boxes, model, self.settings.person_height_m)
        for index, person in enumerate(message.persons):
            person.position_valid = bool(places.valid[index])
            person.position = point_from_array(places.feet[index])
            person.position_covariance = places.covariance[index].ravel()

    # Diagnostics

    def statuses(self) -> list[Status]:
        """What /diagnostics shows of this node now."""
        lines = [self._status(camera) for camera in self._cameras.values()]
        return [self._map_status(), *lines] if self._in_map() else lines

    def _in_map(self) -> list[_Camera]:
        return [camera for camera in self._cameras.values() if camera.in_map]

    def _map_status(self) -> Status:
        cameras, watching = self._in_map(), self._watching()
        blind = [f"{c.name}: {self._reason(c)}" for c in cameras if c.name not in watching]
        counts = self._tracker.counts
        values: dict[str, Figure] = {
            "watching": ", ".join(watching),
            "frames": counts.taken,
            "late": counts.late,
            "too_late": counts.too_late,
            "repeated": counts.repeated,
            "clock_off": counts.clock_off,
            "restarts": counts.restarts,
            "last_restart": self._tracker.restart_reason,
        }
        frame = self.settings.map_frame
        level, message = Level.OK, f"{len(watching)} cameras watch {frame}"
        if blind and watching:
            level, message = Level.WARN, f"not all of {frame} is covered: {'; '.join(blind)}"
        elif blind:
            level, message = (
                Level.ERROR,
                f"blind, nothing published in {frame}: {'; '.join(blind)}",
            )
        return Status("map", level, message, values)

    def _reason(self, camera: _Camera) -> str:
        """Why a camera adds nothing to the map now."""
        if camera.heard_s is None:
            return "nothing from the detector yet"
        if (age_s := time.monotonic() - camera.heard_s) > self.settings.stale_after_s:
            return f"nothing from the detector for {age_s:.1f} s"
        return camera.fault or "frames can not be used"

    def _status(self, camera: _Camera) -> Status:
        values: dict[str, Figure] = {
            "fps": camera.persons.rate_hz,
            "age_ms_p50": camera.age_ms.percentile(50),
            "age_ms_p95": camera.age_ms.percentile(95),
            "persons_mean": camera.persons.mean,
            "calibrated": camera.calibrated,
            "in_map": camera.in_map,
            **rejects(camera.refused),
        }
        level, message = Level.OK, f"persons at {camera.persons.rate_hz:.1f} Hz"
        heard_s = camera.heard_s
        if heard_s is None or time.monotonic() - heard_s > self.settings.stale_after_s:
            level, message = Level.STALE, self._reason(camera)
        elif camera.in_map and camera.fault:
            level, message = Level.ERROR, camera.fault
        elif camera.in_map and not camera.calibrated:
            hfov_deg = self.settings.assumed_hfov_deg
            level = Level.WARN
            message = f"not calibrated, {hfov_deg:g} degrees of view assumed; {message}"
        elif not camera.in_map and self._in_map():
            why = camera.fault or "no entry in camera_poses, and tf2_ros is not installed"
            level, message = Level.WARN, f"not in the map: {why}"
        return Status(camera.name, level, message, values, camera.name)


def _left_out(stamp_s: float, newest_s: float | None) -> str:
    """Why the tracker did not take a frame in."""
    if newest_s is None or stamp_s == newest_s:
        return "their stamps stand still"
    ahead_s = stamp_s - newest_s
    return (
        f"their stamps are {abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} others'"
    )
