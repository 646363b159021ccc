# SPDX-License-Identifier: Apache-2.0
"""Boxes made by detectors: for photographs without any, and around faces that heads leave bare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.lab.datasets.annotations import Annotation, BoxArray
from roi_codec_ros.perception.detections import DetectsPersons
from roi_codec_ros.perception.face_detectors import FaceDetector
from roi_codec_ros.regions.blocks import heads_around

MACHINE = "teacher"  # who made a box, in the data format's own word
MIXED = "mixed"
PERSON_CONFIDENCE = 0.4

# How far a head that is learnt reaches beyond a detector's face box, as of `heads_around`.
BEYOND_FACE = (0.15, 0.45, 0.1)
# A face belongs to a head whose box holds this share of the face.
SHARE_IN_HEAD = 0.3


def annotate(
    annotation: Annotation,
    image: NDArray[np.uint8],
    faces: Sequence[FaceDetector],
    persons: DetectsPersons | None = None,
) -> Annotation:
    """``annotation`` with head boxes that cover every face that any detector of ``faces`` sees.

    image: its photograph, RGB. persons: who finds the persons where ``annotation`` knows of none
    (``person_boxes`` is "none"); None leaves them unknown. Known persons stay.
    """
    found = [detector.detect(image).xyxy for detector in faces]
    seen = np.concatenate([np.zeros((0, 4), np.float32), *found])
    heads = cover_faces(annotation.heads, seen, image.shape[:2])
    by_hand = annotation.head_boxes not in ("none", MACHINE)
    untouched = np.array_equal(heads, annotation.heads)
    result = replace(
        annotation,
        heads=heads,
        head_boxes=annotation.head_boxes if untouched else MIXED if by_hand else MACHINE,
    )
    if persons is None or annotation.person_boxes != "none":
        return result
    bodies = persons.detect(image, confidence=PERSON_CONFIDENCE).xyxy
    return replace(result, persons=bodies, person_boxes=MACHINE)


def cover_faces(heads: BoxArray, faces: BoxArray, size: Sequence[int]) -> BoxArray:
    """Head boxes [N, 4] under which every face lies; float32, ``x1 y1 x2 y2`` in pixels.

    heads [H, 4] that a face of ``faces`` [F, 4] touches are stretched over it (a box around a
    helmet alone leaves the face bare); a face that no head touches brings a head of its own.
    Boxes end at the image's border; size: its (height, width).
    """
    covered = [box.copy() for box in np.asarray(heads, np.float32).reshape(-1, 4)]
    for face in np.asarray(faces, np.float32).reshape(-1, 4):
        shares = [_share_inside(face, head) for head in covered]
        best = int(np.argmax(shares)) if shares else -1
        if best >= 0 and shares[best] >= SHARE_IN_HEAD:
            head = covered[best]
            head[:2] = np.minimum(head[:2], face[:2])
            head[2:] = np.maximum(head[2:], face[2:])
        else:
            covered.append(heads_around(face[None], BEYOND_FACE)[0])
    height, width = size
    boxes = np.array(covered, dtype=np.float32).reshape(-1, 4)
    return np.asarray(boxes.clip(0, [width, height, width, height]), dtype=np.float32)


def _share_inside(face: BoxArray, head: BoxArray) -> float:
    left, top = np.maximum(face[:2], head[:2])
    right, bottom = np.minimum(face[2:], head[2:])
    area = float((face[2] - face[0]) * (face[3] - face[1]))
    return max(float(right - left), 0.0) * max(float(bottom - top), 0.0) / max(area, 1e-6)
