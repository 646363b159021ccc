# SPDX-License-Identifier: Apache-2.0
"""The detectors that judge what codecs decoded, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roi_codec_ros.common.machine import describe_machine
from roi_codec_ros.perception.face_detectors import FaceDetector, make_face_detector
from roi_codec_ros.perception.graph_detector import open_detector
from roi_codec_ros.perception.person_finder import PersonFinder


@dataclass(frozen=True)
class Judges:
    """detector: weights. detector_size: its input in px. device: of the detectors.

    threads: of torch and of codecs, in each process. server_backend: of decoders and detector,
    `SERVER_BACKENDS`.
    """

    detector: str
    detector_size: int
    face_detector: str
    device: str
    threads: int | None
    server_backend: str

    def open(self) -> tuple[PersonFinder, FaceDetector]:
        """Load both detectors. Raises RoiCodecError for anything that is missing."""
        detector = open_detector(
            self.detector,
            self.server_backend,
            device=self.device,
            threads=self.threads,
            image_size=self.detector_size,
        )
        return detector, make_face_detector(self.face_detector, device=self.device)

    def report(self) -> dict[str, Any]:
        """What judged, and on what machine, for the report of an evaluation; JSON types only."""
        return {
            "machine": describe_machine(device=self.device, threads=self.threads or 1),
            "detector": f"{Path(self.detector).name} at {self.detector_size} px",
            "face_detector": self.face_detector.partition("=")[0],
            "server_backend": self.server_backend,
        }
