# SPDX-License-Identifier: Apache-2.0
"""The report on a recording: a face detector checks the output, and one HTML page shows it all.

The detector must have had no part in hiding. The page's text is in `recording_report.html.j2`.
"""

from __future__ import annotations

import base64
import importlib.util
import threading
from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from roi_codec_ros.common.files import GENERATOR
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.plugins import optional
from roi_codec_ros.perception.face_detectors import FaceDetector, make_face_detector
from roi_codec_ros.recordings.hiding import Head, heads_of
from roi_codec_ros.recordings.jpegs import INSTALL
from roi_codec_ros.recordings.pipeline import Passage
from roi_codec_ros.recordings.tally import Box, DoubtfulHead, Inspection, Result

TEMPLATE = "recording_report.html.j2"
DOUBTFUL = 0.8  # heads that are surer are not shown
THUMBNAIL_PX = 96
THUMBNAIL_QUALITY = 75
MARKED_WIDTH_PX = 360
MARK_RGB = (214, 69, 20)
HEADS_OF_A_FRAME = 2


def default_detector() -> str:
    """The best independent detector that is installed."""
    return "mtcnn" if importlib.util.find_spec("facenet_pytorch") else "haar"


class Inspector:
    """Checks every n-th frame of each camera; for `pipeline.Settings.inspect`.

    Sees the hidden pictures only, never the originals.
    """

    def __init__(self, detector: str, every: int) -> None:
        """every: n. detector: `name` or `name=argument` of one. Raises RoiCodecError."""
        self.every = every
        self._detector: FaceDetector = make_face_detector(detector)
        self.name = self._detector.name
        self._lock = threading.Lock()
        self._counts: Counter[Hashable] = Counter()

    def __call__(self, passage: Passage) -> Inspection:
        """What a frame shows, from a worker."""
        assert passage.frame is not None and passage.hidden is not None
        assert passage.judged is not None
        with self._lock:
            looks = self._counts[passage.camera] % self.every == 0
            self._counts[passage.camera] += 1
        heads = [h for h in heads_of(passage.hidden, passage.judged) if 0 < h.score < DOUBTFUL]
        heads = sorted(heads, key=lambda head: head.score)[:HEADS_OF_A_FRAME]
        if not looks and not heads:
            return Inspection()
        image = passage.frame.shown(passage.output)
        faces = None
        if looks:
            with self._lock:  # detectors keep buffers of their own
                found = self._detector.detect(image)
            faces = [(x0, y0, x1, y1) for x0, y0, x1, y1 in found.xyxy.tolist()]
        doubtful = tuple(DoubtfulHead(h.score, "", thumbnail(image, h)) for h in heads)
        return Inspection(faces, doubtful, marked(image, faces) if faces else b"")


def marked(image: ImageArray, faces: Sequence[Box]) -> bytes:
    """A frame with boxes around what a detector calls a face, as a small JPEG."""
    scale = min(1.0, MARKED_WIDTH_PX / image.shape[1])
    size = (round(scale * image.shape[1]), max(1, round(scale * image.shape[0])))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    for box in faces:
        x0, y0, x1, y1 = (round(scale * side) for side in box)
        cv2.rectangle(small, (x0, y0), (x1, y1), MARK_RGB, 2)
    return _jpeg(np.asarray(small, np.uint8))


def thumbnail(image: ImageArray, head: Head) -> bytes:
    """What is around a hidden head, as a small JPEG."""
    x0, y0, x1, y1 = head.box
    half = max(x1 - x0, y1 - y0)
    middle = (x0 + x1) // 2, (y0 + y1) // 2
    height, width = image.shape[:2]
    rows = slice(max(0, middle[1] - half), min(height, middle[1] + half))
    columns = slice(max(0, middle[0] - half), min(width, middle[0] + half))
    small = cv2.resize(
        image[rows, columns], (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA
    )
    return _jpeg(np.asarray(small, np.uint8))


def _jpeg(image: ImageArray) -> bytes:
    _, jpeg = cv2.imencode(
        ".jpg",
        cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
        [cv2.IMWRITE_JPEG_QUALITY, THUMBNAIL_QUALITY],
    )
    return np.asarray(jpeg).tobytes()


def report_page(result: Result, facts: dict[str, Any]) -> str:
    """The page, with thumbnails of hidden heads inlined.

    facts: source, target, regions, hide_memory_s, detector, every (frames inspected, one of).
    Raises RoiCodecError where jinja2 is not installed.
    """
    jinja2 = optional("jinja2", needed_for="reports", install=INSTALL)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inline"] = lambda data: (
        "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")
    )
    cameras = result.cameras
    whole = {
        "frames": sum(camera.frames for camera in cameras),
        "heads": sum(camera.heads for camera in cameras),
        "left_out": sum(camera.left_out for camera in cameras),
        "inspected": sum(camera.inspected for camera in cameras),
        "with_faces": sum(camera.frames_with_faces for camera in cameras),
        "copied": sum(result.copied.values()),
    }
    template = environment.get_template(TEMPLATE)
    return str(template.render(generator=GENERATOR, result=result, whole=whole, **facts))
