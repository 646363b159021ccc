# SPDX-License-Identifier: Apache-2.0
"""tracker_node: the persons of all cameras in one map, and its coverage by cameras.

    <camera>/persons, <camera>/camera_info, poses ─► ground ─► tracks
      ─► persons/{tracks, poses, cloud, markers, coverage, health, detections, unplaced}

Map topics are published for each newer stamp. A camera that cannot place its persons, or whose
    stamps do not match the others', is blind and ignored; if all are, nothing is published.
    Persons of cameras without a pose are published in their optical frames.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.config.parameter_values import Value
from roi_codec_ros.config.parameters import (
    NodeParameters,
    TrackerParameters,
    check_camera_names,
)
from roi_codec_ros.msg import PersonArray
from roi_codec_ros.nodes import qos
from roi_codec_ros.nodes.base import ManagedNode
from roi_codec_ros.nodes.camera_set import CameraSet
from roi_codec_ros.nodes.conversions import stamp_ns
from roi_codec_ros.nodes.diagnostics import Figure, Level, Status, rejects
from roi_codec_ros.nodes.map_outputs import MapOutputs, blind_health, watching_health
from roi_codec_ros.nodes.tracked_camera import (
    CAUSES,
    CLOCK,
    UNPLACEABLE,
    LeftOutError,
    TrackedCamera,
    place_in_optical_frame,
)
from roi_codec_ros.nodes.transforms import (
    EXTRAPOLATION,
    NoPose,
    TransformPoses,
    tf_installed,
)
from roi_codec_ros.perception.cameras import CameraModel
from roi_codec_ros.perception.ground import CameraPose
from roi_codec_ros.perception.poses import parse_camera_poses
from roi_codec_ros.perception.tracking import Outcome, Tracker, TrackerSettings
from roi_codec_ros.stream.clocks import CommonClock

COVERAGE_PERIOD_S = 1.0
YEAR_2025_S = 1_735_689_600


def first_track_id(now_s: float) -> int:
    """An id that no earlier run has used, with fewer than ten new tracks per second.

    Tenths of a second since 2025, which fit into the 32 bits of `track_id` for 13 years.
    """
    return max(1, int((now_s - YEAR_2025_S) * 10) % 2**32)


def checked_poses(settings: TrackerParameters) -> dict[str, CameraPose]:
    """The configured poses by camera. Raises UsageError, also for invalid camera names."""
    check_camera_names(settings.cameras)
    try:
        return parse_camera_poses(settings.camera_poses)
    except RoiCodecError as error:
        raise UsageError(f"camera_poses: {error}") from error


class TrackerNode(ManagedNode):
    """Publishes everything under `persons/`."""

    executable = "tracker_node"
    settings: TrackerParameters

    def __init__(self) -> None:
        super().__init__("tracker")
        self._cameras = CameraSet(self, self._make_camera)
        self._transforms: TransformPoses | None = None

    def configure(self) -> None:
        """Read the poses and create publishers and subscriptions."""
        import scipy.optimize  # noqa: F401 (the first match would import it, slowly)

        names = self.settings.cameras
        self._poses = checked_poses(self.settings)
        if unknown := sorted(set(self._poses) - set(names)):
            raise UsageError(
                f"camera_poses: expected cameras among {', '.join(names)}, "
                f"found {', '.join(unknown)}"
            )
        self._settings_of_tracks = TrackerSettings(
            birth_hits=self.settings.birth_hits,
            death_s=self.settings.death_s,
            coast_s=self.settings.coast_s,
        )
        self._outputs = MapOutputs(self, lambda: self.settings)
        self.service(Trigger, "~/reset_tracks", self._on_reset)
        self._cameras = CameraSet(self, self._make_camera)
        self._cameras.become(names)
        self.get_logger().info(
            f"cameras {', '.join(names)}; in {self.settings.map_frame}: "
            f"{', '.join(self._poses) or 'none'}"
        )

    def _make_camera(self, name: str) -> TrackedCamera:
        camera = TrackedCamera(name, self._poses.get(name))
        self.lasting_subscription(
            CameraInfo, f"{name}/anonymized/camera_info", partial(self._on_info, camera)
        )
        self.subscription(
            PersonArray, f"{name}/persons", partial(self._on_persons, camera), qos.reliable()
        )
        return camera

    def check_settings(self, settings: NodeParameters) -> None:
        """As `ManagedNode.check_settings`; poses of cameras that do not exist yet are allowed."""
        assert isinstance(settings, TrackerParameters)
        checked_poses(settings)

    def setting_changed(self, name: str, value: Value) -> None:
        """Apply a changed live parameter."""
        if name not in ("cameras", "camera_poses") or not self.configured:
            return
        before = dict(self._cameras)
        self._poses = checked_poses(self.settings)
        self._cameras.become(self.settings.cameras)
        for camera in self._cameras.values():
            camera.stand_at(self._poses.get(camera.name))
        if self.active:
            for gone in before.keys() - self._cameras.keys():
                self._tracker.coverage.pop(gone, None)
            self._listen_to_tf()
            self._publish_coverage()

    def _listen_to_tf(self) -> None:
        """The TF listener, created when a camera's pose has to come from TF."""
        wanted = any(camera.pose is None for camera in self._cameras.values())
        if wanted and self._transforms is None and tf_installed():
            self._transforms = TransformPoses(self, self.settings.map_frame)

    def activate(self) -> None:
        """Start working."""
        self._tracker = Tracker(self._settings_of_tracks, first_id=first_track_id(time.time()))
        self._clocks = CommonClock(spread_s=self._settings_of_tracks.late_horizon_s)
        self._outputs.restart()
        for camera in self._cameras.values():
            camera.health.restart()
        self._listen_to_tf()
        # A camera fails without a message, and simulated time may be paused.
        self._timer = self.timer(COVERAGE_PERIOD_S, self._publish_coverage)
        self._health_timer = self.timer(COVERAGE_PERIOD_S, self._publish_health)

    def deactivate(self) -> None:
        """Stop working; the configuration stays."""
        self.destroy_timer(self._timer)
        self.destroy_timer(self._health_timer)
        # The message latched for late subscribers must not report watched floor.
        if self._outputs.watched:
            self.each(self._publish_watched, [()])
        self.each(
            self._outputs.publish_health,
            [[blind_health(c.name, "the tracker is not active") for c in self._cameras.values()]],
        )
        if self._transforms is not None:
            self._transforms.close()
            self._transforms = None

    # Input: persons of cameras

    def _on_info(self, camera: TrackedCamera, message: CameraInfo) -> None:
        camera.info = message
        self._outputs.frames.broadcast(camera, message.header.frame_id)

    def _on_persons(self, camera: TrackedCamera, message: PersonArray) -> None:
        if self._cameras.get(camera.name) is not camera:
            return  # it was let go of
        camera.persons.add(len(message.persons))
        camera.health.heard()
        camera.health.age_ms.add(1e3 * self.age_s(message.header))
        self._outputs.frames.broadcast(camera, message.header.frame_id)
        if camera.pose is not None:
            self._into_map(camera, camera.pose, message)
        elif self._transforms is not None:
            answer = partial(self._with_tf, camera, message)
            self._transforms.ask(message.header, answer, self.settings.tf_timeout_s)
        else:
            self._pass_on(camera, message)

    def _with_tf(
        self, camera: TrackedCamera, message: PersonArray, outcome: CameraPose | NoPose
    ) -> None:
        if self._cameras.get(camera.name) is not camera:
            return  # the camera was removed meanwhile
        if isinstance(outcome, CameraPose):
            camera.in_map = True
            self._into_map(camera, outcome, message)
            return
        camera.no_pose = outcome.reason
        camera.in_map |= outcome.cause == EXTRAPOLATION
        if camera.in_map:
            self._refuse(camera, outcome.cause, outcome.reason)
        else:
            self._pass_on(camera, message)

    def _into_map(self, camera: TrackedCamera, pose: CameraPose, message: PersonArray) -> None:
        heard_s, age_s = time.monotonic(), self.age_s(message.header)
        try:
            sighting = camera.sighting(message, pose, self.settings)
            self._outputs.frames.settle(self._cameras.values())
        except LeftOutError as error:
            self._refuse(camera, error.cause, str(error))
            return
        if sighting.incomplete:
            self._refuse(camera, UNPLACEABLE, sighting.incomplete)
        stamp_s = stamp_ns(message.header) / 1e9
        ruling = self._clocks.judge(camera.name, stamp_s, heard_s=heard_s, age_s=age_s)
        if not ruling.taken:
            self._refuse(camera, CLOCK, ruling.reason)
            return
        tracker = self._tracker
        if ruling.restart:
            self.warn("clocks", f"tracking restarts: {ruling.reason}")
            if tracker.newest_stamp is not None and stamp_s < tracker.newest_stamp:
                tracker.restart()
        tracker.coverage[camera.name] = sighting.shown
        outcome = tracker.update(
            camera.name,
            stamp_s,
            sighting.xy,
            sighting.covariance,
            score=sighting.score,
            height_m=sighting.height_m,
        )
        if outcome in (Outcome.TOO_LATE, Outcome.REPEATED):
            self._refuse(camera, CLOCK, "their stamps repeat")
            return
        camera.health.used()
        camera.shown = sighting.shown
        if outcome is Outcome.NEWEST:
            self._publish_map(message.header.stamp, stamp_s)

    def _refuse(self, camera: TrackedCamera, cause: str, reason: str) -> None:
        count = camera.health.refuse(cause, reason)
        self.warn(
            f"{camera.name} {cause}",
            f"{camera.name}: frame left out ({cause}, {count} so far): {reason}",
        )

    # Output: in the map

    def _publish_map(self, stamp: Time, stamp_s: float) -> None:
        header = Header(stamp=stamp, frame_id=self.settings.map_frame)
        cameras = self._cameras.values()
        tracks = self._tracker.tracks(stamp_s)
        self._outputs.publish_map(tracks, header, cameras, self.settings.stale_after_s)
        if self._watching() != self._outputs.watched or self._outputs.shows_less(cameras):
            self._publish_coverage()

    def _watching(self) -> tuple[str, ...]:
        patience_s = self.settings.stale_after_s
        return tuple(n for n, camera in self._cameras.items() if camera.watches(patience_s))

    def _publish_coverage(self) -> None:
        """Publish coverage once a second while a camera watches, and once more when none does any
        longer: the message latched for late subscribers must not report watched floor.


        """
        watching = self._watching()
        if watching or self._outputs.watched:
            self._publish_watched(watching)

    def _publish_watched(self, watching: tuple[str, ...]) -> None:
        self._outputs.publish_coverage(list(self._cameras.values()), watching)

    def _publish_health(self) -> None:
        """Publish health once a second, if it has changed."""
        self._outputs.publish_health([self._health_of(c) for c in self._cameras.values()])

    def _health_of(self, camera: TrackedCamera) -> Status:
        if camera.watches(self.settings.stale_after_s):
            return watching_health(camera.name)
        if not camera.in_map:
            return blind_health(camera.name, f"not in the map: {camera.no_pose}")
        judgement = camera.health.judge(self.settings.stale_after_s)
        return blind_health(camera.name, judgement.message or "nothing yet")

    def _on_reset(self, request: Any, response: Any) -> Any:
        if not self.active:
            response.message = "the tracker is not active"
            return response
        self._tracker.restart()
        response.success, response.message = True, "all tracks are forgotten"
        return response

    # Output: cameras without a pose

    def _pass_on(self, camera: TrackedCamera, message: PersonArray) -> None:
        width, height = message.image_width, message.image_height
        if width and height:
            hfov_deg = self.settings.assumed_hfov_deg
            try:
                model = camera.lens(width, height, hfov_deg)
            except RoiCodecError as error:
                self.warn(
                    f"{camera.name} camera_info", f"{camera.name}/anonymized/camera_info: {error}"
                )
                model = CameraModel.from_hfov(width, height, hfov_deg)
            place_in_optical_frame(message, model, self.settings.person_height_m)
        self._outputs.publish_unplaced(message)
        camera.health.used()

    # Diagnostics

    def statuses(self) -> list[Status]:
        """Diagnostics of this node."""
        lines = [self._status(camera) for camera in self._cameras.values()]
        return [self._map_status(), *lines] if self._in_map() else lines

    def _in_map(self) -> list[TrackedCamera]:
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
        left_out = ", ".join(self._outputs.left_out)
        if left_out and watching:
            level = Level.WARN
            message += (
                f"; persons/coverage leaves out {left_out}, too far from the "
                "others for one grid; is a pose wrong, or coverage_cell_m too small?"
            )
        return Status("map", level, message, values)

    def _status(self, camera: TrackedCamera) -> Status:
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
