# SPDX-License-Identifier: Apache-2.0
"""vision_msgs/Detection2DArray, where that package is installed."""

from __future__ import annotations

from typing import Any

from std_msgs.msg import Header

from roi_codec_ros.perception.detections import Detections

try:
    from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose
except ImportError:
    Detection2D = Detection2DArray = ObjectHypothesisWithPose = None

PERSON = "person"


def detection_array(detections: Detections, header: Header) -> Any:
    """The same persons for tools that know nothing of this package. Needs vision_msgs ≥ 4."""
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
