# SPDX-License-Identifier: Apache-2.0
"""The images of a detector's fine-tuning, decoded and original, and its scores on some of them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from roi_codec_ros.codec import Model
from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.datasets.annotated_images import read_annotated, resize
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.evaluation.measurement import person_ap50
from roi_codec_ros.lab.evaluation.methods import ModelMethod
from roi_codec_ros.lab.training.detector_data import Division, Written, some, write_images
from roi_codec_ros.perception.person_detector import PersonDetector


class DetectorImages:
    """The decoded photographs and some originals, in a folder that a later run uses again.

    originals: share of the training photographs that are also used undecoded, 0 to 1. device and
    threads are the codec's. Raises RoiCodecError where no photograph can be used.
    """

    def __init__(
        self,
        folder: Path,
        model: Model,
        division: Division,
        *,
        originals: float,
        device: str,
        threads: int,
    ) -> None:
        method = ModelMethod(model, device=device, threads=threads)

        def decoded(annotation: Annotation) -> Any:
            image = read_annotated(annotation)
            return resize(method.decode(method.encode(image)), annotation.width, annotation.height)

        kept = some(division.train, originals)
        jobs: list[tuple[Sequence[Annotation], str, Callable[[Annotation], Any]]] = [
            (division.train, f"decoded-{model.id.hex()}", decoded),
            (division.held_out, f"decoded-{model.id.hex()}", decoded),
            (kept, "originals", read_annotated),
            (division.held_out, "originals", read_annotated),
        ]
        written: list[Written] = []
        total = sum(len(annotations) for annotations, _, _ in jobs)
        with tqdm(total=total, unit="image", desc="decode", disable=None) as bar:
            for annotations, name, make in jobs:
                written.append(write_images(annotations, folder / name, make, on_image=bar.update))
        train, self._held_out, kept_originals, self._held_out_originals = written
        self.failures = [failure for part in written[:2] for failure in part.failures]
        self.train_files = [path for part in (train, kept_originals) for _, path in part.images]
        self.held_out_files = [path for _, path in self._held_out.images]
        if not train.images or not self.held_out_files:
            raise RoiCodecError(
                f"expected photographs to decode, found {len(self.failures)} that failed; "
                f"the first: {': '.join(self.failures[0])}"
            )
        self.summary = {
            "decoded": len(train.images),
            "originals": len(kept_originals.images),
            "held_out": len(self.held_out_files),
            "persons": sum(len(item.persons) for item, _ in train.images),
            "machine_made_boxes": sum(item.person_boxes != "human" for item, _ in train.images),
            "with_hidden_regions": sum(len(item.ignored) > 0 for item, _ in train.images),
            "left_out_persons_unknown": division.unknown,
            "left_out_failed": len(self.failures),
        }
        self.made = train.made + self._held_out.made
        listed = "\n".join(str(path.relative_to(folder)) for path in self.train_files)
        self.digest = hashlib.sha256(listed.encode()).hexdigest()

    def held_out(self) -> dict[str, list[Annotation]]:
        """The held-out images by kind, their boxes with the files in the work folder."""
        return {
            kind: [replace(item, image_path=path) for item, path in part.images]
            for kind, part in (
                ("decoded", self._held_out),
                ("originals", self._held_out_originals),
            )
        }


def held_out_scores(
    images: DetectorImages, weights: Path, *, image_size: int, device: str, threads: int
) -> dict[str, float | None]:
    """Person AP50 of a detector on the held-out images, decoded and original; None for NaN.

    Raises RoiCodecError for weights or a device that cannot be used.
    """
    detector = PersonDetector(weights, device=device, image_size=image_size)
    torch.set_num_threads(threads)  # ultralytics has set them to its own taste
    scores: dict[str, float | None] = {}
    for kind, held_out in images.held_out().items():
        bar = tqdm(held_out, unit="image", desc=f"measure on {kind}", disable=None)
        ap = person_ap50(detector, bar)
        scores[kind] = None if math.isnan(ap) else round(ap, 4)
    return scores
