# SPDX-License-Identifier: Apache-2.0
"""Average precision of a person detector on images that are on disk, as the evaluation counts."""

from __future__ import annotations

from collections.abc import Iterable

from roi_codec_ros.lab.datasets.annotated_images import read_annotated
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.evaluation.average_precision import Matches, average_precision, match
from roi_codec_ros.lab.evaluation.measurement import IOU_THRESHOLD, LOWEST_CONFIDENCE, PersonFinder


def person_ap50(detector: PersonFinder, images: Iterable[Annotation]) -> float:
    """AP at an IoU of 0.5, 0 to 1; NaN where there are no persons.

    Raises RoiCodecError for an image that can't be read or is not of the annotated size.
    """
    return average_precision(_matches(detector, annotation) for annotation in images).ap


def _matches(detector: PersonFinder, annotation: Annotation) -> Matches:
    seen = detector.detect(read_annotated(annotation), confidence=LOWEST_CONFIDENCE)
    return match(seen.xyxy, seen.score, annotation.persons, iou_threshold=IOU_THRESHOLD)
