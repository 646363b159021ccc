# SPDX-License-Identifier: Apache-2.0
"""tracker_node: the persons of all cameras in one map, and how much of it cameras watch.

    <camera>/persons, <camera>/camera_info, poses ─► ground ─► tracks
      ─► persons/{tracks, poses, cloud, markers, coverage, health, detections, unplaced}

A new newest stamp brings a new picture. A camera that can not place what it sees, or whose stamps
are not those of the others, is blind: it adds nothing, and when all are, nothing is published.
Cameras without a pose stay by themselves, in their optical frames.
"""

from __future__ import annotations

import time
from collections import Counter
from functools import partial
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseArray
from nav_msgs.msg import OccupancyGrid
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, PointCloud2
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.image_messages import ImageMessageError
from roi_codec_ros.config.parameters import TrackerParameters, check_camera_names
from roi_codec_ros.msg import PersonArray
from roi_codec_ros.nodes import diagnostics, qos, vision
from roi_codec_ros.nodes.base import ManagedNode
from roi_codec_ros.nodes.camera_info import camera_model_of
from roi_codec_ros.nodes.conversions import (
    detections_from_persons,
    point_from_array,
    stamp_ns,
    unknown_of,
)
from roi_codec_ros.nodes.diagnostics import Figure, Level, Status, rejects
from roi_codec_ros.nodes.map_messages import (
    cloud_from_points,
    coverage_grid,
    person_rings,
    persons_from_tracks,
    poses_from_persons,
)
from roi_codec_ros.nodes.markers import map_markers, person_markers
from roi_codec_ros.nodes.transforms import TransformPoses, tf_installed
from roi_codec_ros.perception.cameras import CameraModel
from roi_codec_ros.perception.coverage import Cells, fitting
from roi_codec_ros.perception.geometry import position_from_height
from roi_codec_ros.perception.ground import (
    CREDIBLE_HEIGHTS,
    CameraPose,
    beyond_range,
    ground_positions,
    height_shares,
)
from roi_codec_ros.perception.poses import parse_camera_poses
from roi_codec_ros.perception.tracking import Outcome, Tracker, TrackerSettings
from roi_codec_ros.perception.views import GroundView, ShownView
from roi_codec_ros.stream.clocks import CommonClock
from roi_codec_ros.stream.health import CameraHealth, Words, unplaceable
from roi_codec_ros.stream.statistics import SlidingWindow, Tally

COVERAGE_PERIOD_S = 1.0
YEAR_2025_S = 1_735_689_600
SAID = Words("nothing from the detector", "frames left out", "frames arrive, none used")
ENOUGH_HEIGHTS = 5  # of persons, to doubt a pose by
NO_POSE, NO_LENS, NO_FLOOR, NOT_SHOWN, UNPLACEABLE, WRONG_SCALE, CLOCK = CAUSES = (
    "no_pose", "no_lens", "no_floor", "not_shown", "unplaceable", "wrong_scale", "clock",
)  # fmt: skip


class _Camera:
    """What is known of one camera.

    in_map: it has, or once had, a pose; from then on it never speaks in its optical frame.
    health: a frame is of use if it got into the map, or out without one. refused: sightings that
    could not be placed, by reason. shown: what of its view the last frame that was used shows.
    """

    def __init__(self, name: str, pose: CameraPose | None) -> None:
        self.name = name
        self.pose = pose
        self.in_map = pose is not None
        self.info: CameraInfo | None = None
        self.calibrated = False
        self.no_pose = "no entry in camera_poses, and tf2_ros is not installed"
        self.health = CameraHealth(SAID)
        self.persons = SlidingWindow()
        self.refused = Tally()
        self.heights = SlidingWindow()  # of persons, per that of one who stands at their place
        self.doubt = ""  # why its places are not believed
        self.view: GroundView | None = None
        self.shown: GroundView | ShownView | None = None  # what of it its last frame shows


def first_track_id(now_s: float) -> int:
    """A number that no earlier run has given, as long as fewer than ten tracks begin a second.

    Tenths of a second since 2025, in the 32 bits of `track_id`, which they fill for 13 years.
    """
    return max(1, int((now_s - YEAR_2025_S) * 10) % 2**32)


def _blind(camera: str, why: str) -> Status:
    return Status(camera, Level.ERROR, f"blind: {why}", {"watching": False}, camera)


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
        import scipy.optimize  # noqa: F401 (the first match would import it, slowly)

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
        self._health = self.publisher(DiagnosticArray, "persons/health", qos.latched())
        self._unplaced = self.publisher(PersonArray, "persons/unplaced", qos.reliable())
        self.service(Trigger, "~/reset_tracks", self._on_reset)
        self._detections = (
            self.publisher(vision.Detection3DArray, "persons/detections", qos.reliable())
            if vision.Detection3DArray is not None
            else None
        )
        self._cameras = {name: _Camera(name, poses.get(name)) for name in names}
        for name, camera in self._cameras.items():
            self.lasting_subscription(
                CameraInfo, f"{name}/anonymized/camera_info", partial(self._on_info, camera)
            )
            self.subscription(
                PersonArray, f"{name}/persons", partial(self._on_persons, camera), qos.reliable()
            )
        self.get_logger().info(
            f"cameras {', '.join(names)}; in {self.settings.map_frame}: "
            f"{', '.join(poses) or 'none'}"
        )

    def activate(self) -> None:
        """Start working."""
        self._tracker = Tracker(self._settings_of_tracks, first_id=first_track_id(time.time()))
        self._health_said: list[Status] = []
        self._clocks = CommonClock(spread_s=self._settings_of_tracks.late_horizon_s)
        self._watched = None
        self._said: dict[str, int] = {}  # how many cells of each camera the last coverage has
        self._left_out: tuple[str, ...] = ()  # cameras too far away for the coverage
        for camera in self._cameras.values():
            camera.health.restart()
        if tf_installed() and any(camera.pose is None for camera in self._cameras.values()):
            self._transforms = TransformPoses(self)
        # A camera goes dark without a message; and simulated time may stand still.
        self._timer = self.timer(COVERAGE_PERIOD_S, self._publish_coverage)
        self._health_timer = self.timer(COVERAGE_PERIOD_S, self._publish_health)

    def deactivate(self) -> None:
        """Stop working; what was loaded stays."""
        self.destroy_timer(self._timer)
        self.destroy_timer(self._health_timer)
        # What is kept for late subscribers must not say that anything is watched.
        if self._watched:
            self.each(self._publish_watched, [()])
        self.each(
            self._say_health,
            [[_blind(c.name, "the tracker is not active") for c in self._cameras.values()]],
        )
        if self._transforms is not None:
            self._transforms.close()
            self._transforms = None

    # From cameras

    def _on_info(self, camera: _Camera, message: CameraInfo) -> None:
        camera.info = message

    def _on_persons(self, camera: _Camera, message: PersonArray) -> None:
        camera.persons.add(len(message.persons))
        heard_s = camera.health.heard()
        age_s = self.age_s(message.header)
        camera.health.age_ms.add(1e3 * age_s)
        pose = self._pose(camera, message.header)
        if not camera.in_map:
            self._pass_on(camera, message)
            camera.health.used()
        elif pose is not None:
            self._into_map(camera, pose, message, heard_s, age_s)

    def _pose(self, camera: _Camera, header: Header) -> CameraPose | None:
        if camera.pose is not None or self._transforms is None:
            return camera.pose
        try:
            pose = self._transforms.find(self.settings.map_frame, header.frame_id, header.stamp)
        except RoiCodecError as error:
            camera.no_pose = str(error)
            if camera.in_map:
                self._refuse(camera, NO_POSE, camera.no_pose)
            return None
        camera.in_map = True
        return pose

    def _into_map(
        self,
        camera: _Camera,
        pose: CameraPose,
        message: PersonArray,
        heard_s: float,
        age_s: float,
    ) -> None:
        model = self._lens_in_map(camera, message)
        if model is None:
            return
        range_m = self.settings.max_range_m
        if camera.view is None or camera.view.camera != model:
            camera.heights, camera.doubt = SlidingWindow(), ""
        if camera.view is None or not camera.view.same_as(model, pose, range_m):
            camera.view = GroundView(model, pose, range_m, self.settings.coverage_cell_m)
        if camera.view.blindness:
            self._refuse(
                camera,
                NO_FLOOR,
                f"expected a camera that sees the floor within {range_m:g} m, found none of it "
                f"({camera.view.blindness}); is its pose right?",
            )
            return
        try:
            shown = camera.view.shown(unknown_of(message))
        except ImageMessageError as error:
            self._refuse(camera, NOT_SHOWN, str(error))
            return
        if not len(shown.cells) and not message.persons:
            self._refuse(
                camera, NOT_SHOWN, "expected a picture of the floor, found nothing of it there yet"
            )
            return
        boxes = detections_from_persons(message).xyxy
        height_m = self.settings.person_height_m
        places = ground_positions(
            boxes, model, pose, person_height_m=height_m, max_range_m=range_m
        )
        beyond = beyond_range(places, boxes, model, person_height_m=height_m, max_range_m=range_m)
        for reason in places.reason[~places.valid]:
            camera.refused.add(str(reason))
        refused = Counter(places.reason[~places.valid & ~beyond].tolist())
        placed = int(places.valid.sum())
        if blind := unplaceable(placed, refused):
            self._refuse(camera, UNPLACEABLE, f"{blind}; is its pose right?")
            return
        shares = height_shares(places, boxes, model, pose, person_height_m=height_m)
        if doubt := self._doubt(camera, shares[np.isfinite(shares)], height_m):
            self._refuse(camera, WRONG_SCALE, doubt)
            return
        if refused:
            self._refuse(
                camera, UNPLACEABLE, f"{refused.total()} of {len(boxes)} persons can not be placed"
            )
        stamp_s = stamp_ns(message.header) / 1e9
        ruling = self._clocks.judge(camera.name, stamp_s, heard_s=heard_s, age_s=age_s)
        if not ruling.taken:
            self._refuse(camera, CLOCK, ruling.reason)
            return
        tracker = self._tracker
        if ruling.restart:
            self.warn("clocks", f"tracking begins anew: {ruling.reason}")
            if tracker.newest_stamp is not None and stamp_s < tracker.newest_stamp:
                tracker.restart()
        tracker.coverage[camera.name] = shown
        outcome = tracker.update(
            camera.name,
            stamp_s,
            places.xy[places.valid],
            places.covariance[places.valid],
            score=np.array([p.score for p in message.persons], np.float64)[places.valid],
            height_m=shares[places.valid] * height_m,
        )
        if outcome in (Outcome.TOO_LATE, Outcome.REPEATED):
            self._refuse(camera, CLOCK, "their stamps come again")
            return
        camera.health.used()
        camera.shown = shown
        if outcome is Outcome.NEWEST:
            self._publish_map(message.header.stamp, stamp_s)

    def _doubt(self, camera: _Camera, shares: NDArray[np.float64], height_m: float) -> str:
        """Why places of the camera can not be right, by the heights of its last persons.

        Once there is a reason it holds until persons of a credible height are seen.
        """
        for share in shares:
            camera.heights.add(float(share))
        if len(shares) and camera.heights.count >= ENOUGH_HEIGHTS:
            median = camera.heights.percentile(50)
            low, high = CREDIBLE_HEIGHTS
            camera.doubt = ""
            if not low <= median <= high:
                camera.doubt = (
                    f"expected persons of about {height_m:g} m, found some of "
                    f"{median * height_m:.2g} m by their places; is its pose or lens right?"
                )
        return camera.doubt

    def _lens_in_map(self, camera: _Camera, message: PersonArray) -> CameraModel | None:
        """The lens that a place in the map may be trusted to; None, and said why, without one."""
        if not (message.image_width and message.image_height):
            fault = "persons come without the size of their image"
        elif camera.info is None:
            fault = f"nothing on {camera.name}/anonymized/camera_info yet"
        else:
            try:
                return self._lens(camera, message.image_width, message.image_height)
            except RoiCodecError as error:
                fault = f"{camera.name}/anonymized/camera_info: {error}"
        self._refuse(camera, NO_LENS, fault)
        return None

    def _refuse(self, camera: _Camera, cause: str, reason: str) -> None:
        count = camera.health.refuse(cause, reason)
        self.warn(
            f"{camera.name} {cause}",
            f"{camera.name}: frame left out ({cause}, {count} so far): {reason}",
        )

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
        if self._watching() != self._watched or self._shows_less():
            self._publish_coverage()

    def _watches(self, camera: _Camera) -> bool:
        """Whether what it saw is in the map, and new enough to rely on."""
        return camera.in_map and camera.health.sees(self.settings.stale_after_s)

    def _watching(self) -> tuple[str, ...]:
        return tuple(name for name, camera in self._cameras.items() if self._watches(camera))

    def _shows_less(self) -> bool:
        """Whether floor that was last said to be watched no longer is: that has to be said now.

        What is to be seen again waits for the next turn.
        """
        return any(
            camera.shown is not None and len(camera.shown.cells) < self._said.get(name, 0)
            for name, camera in self._cameras.items()
        )

    def _publish_coverage(self) -> None:
        """Once a second while a camera watches, and once more when none does any longer.

        The last one is kept for late subscribers: it must not say that anything is watched.
        """
        watching = self._watching()
        if watching or self._watched:
            self._publish_watched(watching)

    def _publish_watched(self, watching: tuple[str, ...]) -> None:
        """Say that these cameras watch what they see of the floor."""
        known: dict[str, Cells] = {
            c.name: c.view.cells for c in self._cameras.values() if c.view is not None
        }
        fit = fitting(known)
        seen: dict[str, Cells] = {
            c.name: c.shown.cells
            for c in self._cameras.values()
            if c.shown is not None and c.name in watching and c.name in fit
        }
        self._said = {name: len(cells) for name, cells in seen.items()}
        self._watched = watching
        self._left_out = tuple(name for name in known if name not in fit)
        header = Header(frame_id=self.settings.map_frame)
        header.stamp = self.get_clock().now().to_msg()
        self._coverage.publish(
            coverage_grid(
                [known[name] for name in fit],
                list(seen.values()),
                self.settings.coverage_cell_m,
                header,
            )
        )

    def _publish_health(self) -> None:
        """Once a second, where something has changed."""
        statuses = [self._health_of(camera) for camera in self._cameras.values()]
        if statuses != self._health_said:
            self._say_health(statuses)

    def _health_of(self, camera: _Camera) -> Status:
        if self._watches(camera):
            return Status(camera.name, Level.OK, "watches", {"watching": True}, camera.name)
        if not camera.in_map:
            return _blind(camera.name, f"not in the map: {camera.no_pose}")
        judgement = camera.health.judge(self.settings.stale_after_s)
        return _blind(camera.name, judgement.message or "nothing yet")

    def _say_health(self, statuses: list[Status]) -> None:
        self._health_said = statuses
        stamp = self.get_clock().now().to_msg()
        name = self.get_fully_qualified_name()
        self._health.publish(diagnostics.to_message(name, stamp, statuses))

    def _on_reset(self, request: Any, response: Any) -> Any:
        if not self.active:
            response.message = "expected an active node, found an inactive one"
            return response
        self._tracker.restart()
        response.success, response.message = True, "all tracks are forgotten"
        return response

    # What comes out: of cameras without a pose

    def _pass_on(self, camera: _Camera, message: PersonArray) -> None:
        if message.image_width and message.image_height:
            self._place(camera, message)
        self._unplaced.publish(message)
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
            self.warn(
                f"{camera.name} camera_info", f"{camera.name}/anonymized/camera_info: {error}"
            )
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
        patience_s = self.settings.stale_after_s
        blind = [
            f"{c.name}: {c.health.judge(patience_s).message}"
            for c in cameras
            if c.name not in watching
        ]
        counts, clocks = self._tracker.counts, self._clocks
        values: dict[str, Figure] = {
            "watching": ", ".join(watching),
            "frames": counts.taken,
            "late": counts.late,
            "clock_off": sum(c.health.refusals[CLOCK] for c in cameras),
            "restarts": clocks.restarts,
            "last_restart": clocks.last_restart,
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
        if self._left_out and watching:
            level = Level.WARN
            message += (
                f"; persons/coverage leaves out {', '.join(self._left_out)}, too far from the "
                "others for one grid; is a pose wrong, or coverage_cell_m too small?"
            )
        return Status("map", level, message, values)

    def _status(self, camera: _Camera) -> Status:
        values: dict[str, Figure] = {
            "fps": camera.persons.rate_hz,
            "age_ms_p50": camera.health.age_ms.percentile(50),
            "age_ms_p95": camera.health.age_ms.percentile(95),
            "persons_mean": camera.persons.mean,
            "calibrated": camera.calibrated,
            "in_map": camera.in_map,
            **{f"left_out.{cause}": camera.health.refusals[cause] for cause in CAUSES},
            **rejects(camera.refused),
        }
        judgement = camera.health.judge(self.settings.stale_after_s)
        level = judgement.level
        message = judgement.message or f"persons at {camera.persons.rate_hz:.1f} Hz"
        if level is Level.OK and camera.in_map and not camera.calibrated:
            hfov_deg = self.settings.assumed_hfov_deg
            level = Level.WARN
            message = f"not calibrated, {hfov_deg:g} degrees of view assumed; {message}"
        elif level is Level.OK and not camera.in_map and self._in_map():
            level, message = Level.WARN, f"not in the map: {camera.no_pose}"
        return Status(camera.name, level, message, values, camera.name)
