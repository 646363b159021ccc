# SPDX-License-Identifier: Apache-2.0
"""The photographs of a detector's training as a codec decodes them, and its scores on some."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from roi_codec_ros.codec import Model
from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.graph_runtime import find_graph
from roi_codec_ros.lab.datasets.annotated_images import read_annotated, resize
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.evaluation.cache import file_digest
from roi_codec_ros.lab.evaluation.measurement import person_ap50
from roi_codec_ros.lab.evaluation.methods import ModelMethod
from roi_codec_ros.lab.training.detector_data import Division, by_turns, write_images
from roi_codec_ros.perception.person_detector import PersonDetector
from roi_codec_ros.regions import DEFAULT_REGIONS

QUALITIES = (0.0, 0.0, 0.0, -3.0, 3.0)  # of training photographs in turn, for models that know any


class DetectorImages:
    """Photographs and what a codec makes of them, in a folder that a later run uses again.

    pairs: (photograph, file of the decoded one), to train on. device and threads are the codec's.
    Raises RoiCodecError where no photograph can be used.
    """

    def __init__(
        self, folder: Path, model: Model, division: Division, *, device: str, threads: int
    ) -> None:
        qualities: tuple[float, ...] = (0.0,)
        name = f"decoded-{model.id.hex()}"
        if model.codes_blocks:  # so that regions decide what is seen of it
            qualities, name = QUALITIES, f"{name}-{file_digest(find_graph(DEFAULT_REGIONS))[:8]}"
        jobs: list[tuple[str, float, Sequence[Annotation]]]
        jobs = [(name, 0.0, division.held_out)]
        jobs += [
            (f"{name}{quality:+g}", quality, some)
            for quality, some in by_turns(division.train, qualities).items()
        ]
        self.pairs: list[tuple[Annotation, Path]] = []
        self.failures: list[tuple[str, str]] = []
        self.made = 0
        total = len(division.held_out) + len(division.train)
        with tqdm(total=total, unit="image", desc="decode", disable=None) as bar:
            for index, (kind, quality, annotations) in enumerate(jobs):
                method = ModelMethod(model, quality=quality, device=device, threads=threads)
                decode = partial(_decoded, method)
                written = write_images(annotations, folder / kind, decode, on_image=bar.update)
                self.failures += written.failures
                self.made += written.made
                if index == 0:
                    self._held_out = written.images
                else:
                    self.pairs += written.images
        if not self.pairs or not self._held_out:
            raise RoiCodecError(
                f"expected photographs to decode, found {len(self.failures)} that failed; "
                f"the first: {': '.join(self.failures[0])}"
            )
        self.summary = {
            "decoded": len(self.pairs),
            "held_out": len(self._held_out),
            "left_out_failed": len(self.failures),
        }
        listed = "\n".join(str(path.relative_to(folder)) for _, path in self.pairs)
        self.digest = hashlib.sha256(listed.encode()).hexdigest()

    def held_out(self) -> dict[str, list[Annotation]]:
        """The held-out photographs by kind, the decoded ones with their files."""
        return {
            "decoded": [replace(item, image_path=path) for item, path in self._held_out],
            "originals": [item for item, _ in self._held_out],
        }


def _decoded(method: ModelMethod, annotation: Annotation) -> Any:
    image = read_annotated(annotation)
    return resize(method.decode(method.encode(image)), annotation.width, annotation.height)


def held_out_scores(
    images: DetectorImages, weights: Path, *, device: str, threads: int
) -> dict[str, float | None]:
    """Person AP50 of a detector on the held-out images, decoded and original; None for NaN.

    Raises RoiCodecError for weights or a device that cannot be used.
    """
    detector = PersonDetector(weights, device=device)
    torch.set_num_threads(threads)  # ultralytics has set them to its own taste
    scores: dict[str, float | None] = {}
    for kind, held_out in images.held_out().items():
        bar = tqdm(held_out, unit="image", desc=f"measure on {kind}", disable=None)
        ap = person_ap50(detector, bar)
        scores[kind] = None if math.isnan(ap) else round(ap, 4)
    return scores
