# SPDX-License-Identifier: Apache-2.0
"""One camera of the tracker: its lens, its view of the ground, and its persons' positions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.image_messages import ImageMessageError
from roi_codec_ros.config.parameters import TrackerParameters
from roi_codec_ros.msg import PersonArray
from roi_codec_ros.nodes.camera_info import camera_model_of
from roi_codec_ros.nodes.conversions import detections_from_persons, point_from_array, unknown_of
from roi_codec_ros.nodes.transforms import EXTRAPOLATION, NO_POSE
from roi_codec_ros.perception.cameras import CameraModel
from roi_codec_ros.perception.geometry import position_from_height
from roi_codec_ros.perception.ground import (
    CREDIBLE_HEIGHTS,
    CameraPose,
    beyond_range,
    ground_positions,
    height_shares,
)
from roi_codec_ros.perception.views import GroundView, ShownView
from roi_codec_ros.stream.health import CameraHealth, Words, unplaceable
from roi_codec_ros.stream.statistics import SlidingWindow, Tally

SAID = Words("nothing from the detector", "frames left out", "frames arrive, none used")
ENOUGH_HEIGHTS = 5  # number of persons needed to reject a pose
NO_LENS, NO_FLOOR, NOT_SHOWN, UNPLACEABLE, WRONG_SCALE, CLOCK = _OWN_CAUSES = (
    "no_lens", "no_floor", "not_shown", "unplaceable", "wrong_scale", "clock",
)  # fmt: skip
CAUSES = (NO_POSE, EXTRAPOLATION, *_OWN_CAUSES)


class LeftOutError(RoiCodecError):
    """A frame that gives no information about the floor. cause: one of CAUSES."""

    def __init__(self, cause: str, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause


@dataclass(frozen=True, eq=False)
class Sighting:
    """Measurements in the map from one frame of a camera.

    xy: [N, 2] and covariance: [N, 2, 2] in metres; score, height_m: [N]. shown: the ground that
        the frame shows. incomplete: why persons are missing; empty if none is.
    """

    xy: NDArray[np.float64]
    covariance: NDArray[np.float64]
    score: NDArray[np.float64]
    height_m: NDArray[np.float64]
    shown: GroundView | ShownView
    incomplete: str


class TrackedCamera:
    """State of one camera.

    in_map: it has, or once had, a pose; from then on nothing is published in its optical frame.
    health: a frame is used if it reaches the map, or the output without a map. refused: sightings
    that could not be placed, by reason. shown: the part of its view that the last used frame
    shows.
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
        self.heights = SlidingWindow()  # heights relative to those expected at the positions
        self.doubt = ""  # why its positions are not trusted
        self.view: GroundView | None = None
        self.shown: GroundView | ShownView | None = None  # the part that its last frame shows

    def stand_at(self, pose: CameraPose | None) -> None:
        """Set the pose, if it has changed."""
        same = self.pose is pose or (
            self.pose is not None and pose is not None and self.pose.same_as(pose)
        )
        if not same:
            self.pose = pose
            self.in_map |= pose is not None

    def watches(self, patience_s: float) -> bool:
        """Whether its last sightings are in the map and recent."""
        return self.in_map and self.health.sees(patience_s)

    def lens(self, width: int, height: int, assumed_hfov_deg: float) -> CameraModel:
        """The lens for images of a size: calibrated or assumed. Raises RoiCodecError."""
        self.calibrated = False
        calibrated = camera_model_of(self.info, width, height)
        self.calibrated = calibrated is not None
        return calibrated or CameraModel.from_hfov(width, height, assumed_hfov_deg)

    def sighting(
        self, message: PersonArray, pose: CameraPose, settings: TrackerParameters
    ) -> Sighting:
        """Map positions of the persons in a frame. Raises LeftOutError."""
        model = self._lens_in_map(message, settings.assumed_hfov_deg)
        shown = self._shown(self._view(model, pose, settings), message)
        boxes = detections_from_persons(message).xyxy
        height_m, range_m = settings.person_height_m, settings.max_range_m
        places = ground_positions(
            boxes, model, pose, person_height_m=height_m, max_range_m=range_m
        )
        beyond = beyond_range(places, boxes, model, person_height_m=height_m, max_range_m=range_m)
        for reason in places.reason[~places.valid]:
            self.refused.add(str(reason))
        refused = Counter(places.reason[~places.valid & ~beyond].tolist())
        if blind := unplaceable(int(places.valid.sum()), refused):
            raise LeftOutError(UNPLACEABLE, f"{blind}; is its pose right?")
        shares = height_shares(places, boxes, model, pose, person_height_m=height_m)
        if doubt := self._doubt_of(shares[np.isfinite(shares)], height_m):
            raise LeftOutError(WRONG_SCALE, doubt)
        score = np.array([person.score for person in message.persons], np.float64)
        return Sighting(
            places.xy[places.valid],
            places.covariance[places.valid],
            score[places.valid],
            shares[places.valid] * height_m,
            shown,
            f"{refused.total()} of {len(boxes)} persons cannot be placed" if refused else "",
        )

    def _lens_in_map(self, message: PersonArray, assumed_hfov_deg: float) -> CameraModel:
        """The lens, checked to be usable for map positions. Raises LeftOutError."""
        if not (message.image_width and message.image_height):
            raise LeftOutError(NO_LENS, "persons come without the size of their image")
        if self.info is None:
            raise LeftOutError(NO_LENS, f"nothing on {self.name}/anonymized/camera_info yet")
        try:
            return self.lens(message.image_width, message.image_height, assumed_hfov_deg)
        except RoiCodecError as error:
            raise LeftOutError(NO_LENS, f"{self.name}/anonymized/camera_info: {error}") from error

    def _view(
        self, model: CameraModel, pose: CameraPose, settings: TrackerParameters
    ) -> GroundView:
        """The ground that it sees. Raises LeftOutError if it sees none."""
        range_m = settings.max_range_m
        if self.view is None or self.view.camera != model:
            self.heights, self.doubt = SlidingWindow(), ""
        if self.view is None or not self.view.same_as(model, pose, range_m):
            self.view = GroundView(model, pose, range_m, settings.coverage_cell_m)
        if self.view.blindness:
            raise LeftOutError(
                NO_FLOOR,
                f"expected a camera that sees the floor within {range_m:g} m, found none of it "
                f"({self.view.blindness}); is its pose right?",
            )
        return self.view

    def _shown(self, view: GroundView, message: PersonArray) -> GroundView | ShownView:
        """The part of the view that the frame shows. Raises LeftOutError."""
        try:
            shown = view.shown(unknown_of(message))
        except ImageMessageError as error:
            raise LeftOutError(NOT_SHOWN, str(error)) from error
        if not len(shown.cells) and not message.persons:
            raise LeftOutError(
                NOT_SHOWN, "expected a picture of the floor, found nothing of it there yet"
            )
        return shown

    def _doubt_of(self, shares: NDArray[np.float64], height_m: float) -> str:
        """Why positions of the camera must be wrong, from the heights of recent persons.

        A reason holds until persons of a credible height are seen.
        """
        for share in shares:
            self.heights.add(float(share))
        if len(shares) and self.heights.count >= ENOUGH_HEIGHTS:
            median = self.heights.percentile(50)
            low, high = CREDIBLE_HEIGHTS
            self.doubt = ""
            if not low <= median <= high:
                self.doubt = (
                    f"expected persons of about {height_m:g} m, found some of "
                    f"{median * height_m:.2g} m by their places; is its pose or lens right?"
                )
        return self.doubt


def place_in_optical_frame(message: PersonArray, model: CameraModel, height_m: float) -> None:
    """Set the positions from box heights, in the optical frame of the header.

    position_covariance is over that frame's x and z, the plane in which people walk.
    """
    places = position_from_height(detections_from_persons(message).xyxy, model, height_m)
    for index, person in enumerate(message.persons):
        person.position_valid = bool(places.valid[index])
        person.position = point_from_array(places.feet[index])
        person.position_covariance = places.covariance[index].ravel()
