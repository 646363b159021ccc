# SPDX-License-Identifier: Apache-2.0
"""The topics under `persons/`: the map, and persons outside of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseArray
from nav_msgs.msg import OccupancyGrid
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from roi_codec_ros.config.parameters import TrackerParameters
from roi_codec_ros.msg import PersonArray
from roi_codec_ros.nodes import diagnostics, qos, vision
from roi_codec_ros.nodes.diagnostics import Level, Status
from roi_codec_ros.nodes.guarded import GuardedNode
from roi_codec_ros.nodes.map_frames import MapFrames
from roi_codec_ros.nodes.map_messages import (
    cloud_from_points,
    coverage_grid,
    person_rings,
    persons_from_tracks,
    poses_from_persons,
)
from roi_codec_ros.nodes.markers import map_markers, person_markers
from roi_codec_ros.nodes.tracked_camera import TrackedCamera
from roi_codec_ros.perception.coverage import Cells, fitting
from roi_codec_ros.perception.tracking import Tracks


class MapOutputs:
    """Publishes everything under `persons/`.

    watched: the cameras in the last coverage, None before the first. left_out: cameras too far
        away for the coverage grid. frames: the TF frames.
    """

    def __init__(self, node: GuardedNode, settings: Callable[[], TrackerParameters]) -> None:
        """settings: returns the current settings, some of which may change at run time."""
        self._node = node
        self._settings = settings
        self.frames = MapFrames(node, settings)
        self._tracks = node.publisher(PersonArray, "persons/tracks", qos.reliable())
        self._markers = node.publisher(MarkerArray, "persons/markers", qos.reliable())
        self._poses = node.publisher(PoseArray, "persons/poses", qos.reliable())
        self._cloud = node.publisher(PointCloud2, "persons/cloud", qos.reliable())
        self._coverage = node.publisher(OccupancyGrid, "persons/coverage", qos.latched())
        self._health = node.publisher(DiagnosticArray, "persons/health", qos.latched())
        self._unplaced = node.publisher(PersonArray, "persons/unplaced", qos.reliable())
        self._detections = (
            node.publisher(vision.Detection3DArray, "persons/detections", qos.reliable())
            if vision.Detection3DArray is not None
            else None
        )
        self.restart()

    def restart(self) -> None:
        """Forget what was published, as after an activation."""
        self.watched: tuple[str, ...] | None = None
        self.left_out: tuple[str, ...] = ()
        self._said: dict[str, int] = {}  # number of cells of each camera in the last coverage
        self._health_said: list[Status] = []

    def publish_map(
        self, tracks: Tracks, header: Header, cameras: Iterable[TrackedCamera], patience_s: float
    ) -> None:
        """Publish the persons of the map, predicted to the header's stamp."""
        settings = self._settings()
        # Obstacles need no confirmation: a person seen only once is included.
        cloud_header, origin = self.frames.of_cloud(header)
        points = person_rings(tracks.xy, settings.person_radius_m, origin)
        self._cloud.publish(cloud_from_points(points, cloud_header))
        persons = persons_from_tracks(tracks.only_confirmed(), header)
        self._tracks.publish(persons)
        self._poses.publish(poses_from_persons(persons))
        height_m = settings.person_height_m
        if self._markers.get_subscription_count():
            views = [
                (camera.name, camera.view, camera.watches(patience_s))
                for camera in cameras
                if camera.view is not None
            ]
            self._markers.publish(
                map_markers(persons, views, height_m, settings.marker_lifetime_s)
            )
        if self._detections is not None and self._detections.get_subscription_count():
            width_m = 2.0 * settings.person_radius_m
            self._detections.publish(vision.detection_array_3d(persons, height_m, width_m))

    def publish_unplaced(self, message: PersonArray) -> None:
        """Publish the persons of a camera without a pose, in its optical frame."""
        self._unplaced.publish(message)
        if self._markers.get_subscription_count():
            settings = self._settings()
            self._markers.publish(
                person_markers(message, settings.person_height_m, settings.marker_lifetime_s)
            )

    def shows_less(self, cameras: Iterable[TrackedCamera]) -> bool:
        """Whether floor that was published as watched no longer is, so that coverage must be
        published now.

        Floor that becomes visible again waits for the next period.
        """
        return any(
            camera.shown is not None and len(camera.shown.cells) < self._said.get(camera.name, 0)
            for camera in cameras
        )

    def publish_coverage(
        self, cameras: Sequence[TrackedCamera], watching: tuple[str, ...]
    ) -> None:
        """Publish the coverage of the cameras in `watching`."""
        known: dict[str, Cells] = {c.name: c.view.cells for c in cameras if c.view is not None}
        fit = fitting(known)
        seen: dict[str, Cells] = {
            c.name: c.shown.cells
            for c in cameras
            if c.shown is not None and c.name in watching and c.name in fit
        }
        self._said = {name: len(cells) for name, cells in seen.items()}
        self.watched = watching
        self.left_out = tuple(name for name in known if name not in fit)
        settings = self._settings()
        header = Header(frame_id=settings.map_frame)
        header.stamp = self._node.get_clock().now().to_msg()
        self._coverage.publish(
            coverage_grid(
                [known[name] for name in fit],
                list(seen.values()),
                settings.coverage_cell_m,
                header,
            )
        )

    def publish_health(self, statuses: list[Status]) -> None:
        """Publish the health of each camera, if it has changed."""
        if statuses == self._health_said:
            return
        self._health_said = statuses
        stamp = self._node.get_clock().now().to_msg()
        name = self._node.get_fully_qualified_name()
        self._health.publish(diagnostics.to_message(name, stamp, statuses))


def watching_health(camera: str) -> Status:
    """Health of a camera that watches the map."""
    return Status(camera, Level.OK, "watches", {"watching": True}, camera)


def blind_health(camera: str, why: str) -> Status:
    """Health of a camera that is blind."""
    return Status(camera, Level.ERROR, f"blind: {why}", {"watching": False}, camera)
