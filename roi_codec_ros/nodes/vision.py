# SPDX-License-Identifier: Apache-2.0
"""vision_msgs/Detection2DArray and Detection3DArray, where that package is installed."""

from __future__ import annotations

from typing import Any

from std_msgs.msg import Header

from roi_codec_ros.msg import PersonArray
from roi_codec_ros.perception.detections import Detections

try:
    from vision_msgs.msg import (
        Detection2D,
        Detection2DArray,
        Detection3D,
        Detection3DArray,
        ObjectHypothesisWithPose,
    )
except ImportError:
    Detection2D = Detection2DArray = ObjectHypothesisWithPose = None
    Detection3D = Detection3DArray = None

PERSON = "person"


def detection_array(detections: Detections, header: Header) -> Any:
    """The same persons for tools without this package's messages. Needs vision_msgs ≥ 4."""
    message = Detection2DArray(header=header)
    for (x0, y0, x1, y1), score in zip(
        detections.xyxy.tolist(), detections.score.tolist(), strict=True
    ):
        detection = Detection2D(header=header)
        detection.bbox.center.position.x = (x0 + x1) / 2.0
        detection.bbox.center.position.y = (y0 + y1) / 2.0
        detection.bbox.size_x, detection.bbox.size_y = x1 - x0, y1 - y0
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id, hypothesis.hypothesis.score = PERSON, score
        detection.results.append(hypothesis)
        message.detections.append(detection)
    return message


def detection_array_3d(persons: PersonArray, height_m: float, width_m: float) -> Any:
    """Tracked persons as boxes on the ground of the map. Needs vision_msgs ≥ 4."""
    message = Detection3DArray(header=persons.header)
    for person in persons.persons:
        detection = Detection3D(header=persons.header, id=str(person.track_id))
        detection.bbox.center.position.x = person.position.x
        detection.bbox.center.position.y = person.position.y
        detection.bbox.center.position.z = person.position.z + height_m / 2.0
        detection.bbox.size.x = detection.bbox.size.y = width_m
        detection.bbox.size.z = height_m
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id, hypothesis.hypothesis.score = PERSON, 1.0
        hypothesis.pose.pose = detection.bbox.center
        xx, xy, yx, yy = person.position_covariance
        covariance = [0.0] * 36
        covariance[0], covariance[1], covariance[6], covariance[7] = xx, xy, yx, yy
        hypothesis.pose.covariance = covariance
        detection.results.append(hypothesis)
        message.detections.append(detection)
    return message
