# SPDX-License-Identifier: Apache-2.0
"""A block-based model whose encoder is told the annotated boxes: what better regions could bring.

No camera has them. Heads that nobody annotated are shown then.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.evaluation.methods import ModelMethod
from roi_codec_ros.regions import RegionFinder, load_regions
from roi_codec_ros.regions.blocks import touched_blocks
from roi_codec_ros.regions.finder import Faces, Regions
from roi_codec_ros.regions.plan import HIDDEN_SHARE


class AnnotatedFinder:
    """Finds what a regions model does, but for the boxes that are told."""

    def __init__(self, finder: RegionFinder, told: str) -> None:
        """told: heads, persons or both."""
        self._finder, self._told = finder, told
        self.annotation: Annotation | None = None
        self.name, self.thresholds = finder.name, finder.thresholds

    def find(self, image: NDArray[np.uint8]) -> Regions:
        """Regions of a frame, uint8 [H, W, 3], in which `annotation`'s boxes lie."""
        found, annotation = self._finder.find(image), self.annotation
        assert annotation is not None
        heads, persons, faces = found.heads, found.persons, found.faces
        if self._told in ("heads", "both"):
            heads, faces = _blocks(annotation.heads, heads), Faces()
        if self._told in ("persons", "both"):
            persons = _blocks(annotation.persons, persons)
        return Regions(heads, persons, faces)


def _blocks(boxes: NDArray[np.float32], like: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 for the blocks that boxes cover as a found head's do, else 0, on the grid of ``like``."""
    touched = touched_blocks(boxes, like.shape[0], like.shape[1], HIDDEN_SHARE)
    return touched.astype(np.float32)


class AnnotatedRegions(ModelMethod):
    """A model that is told boxes of each image; its row is named after them."""

    def __init__(self, model: Model, told: str, **options: Any) -> None:
        """told: heads, persons or both; options: as of `ModelMethod`.

        Raises UsageError for a model without blocks.
        """
        if not model.codes_blocks:
            raise UsageError(
                f"expected models that code blocks with annotated regions, found {model.name}"
            )
        threads, device = options.get("threads"), options.get("device", "cpu")
        finder = load_regions(device=device, threads=threads)
        self._told = AnnotatedFinder(finder, told)
        super().__init__(model, regions=cast(RegionFinder, self._told), **options)
        self.preset = f"{self.preset} annotated {'heads and persons' if told == 'both' else told}"

    def prepared(self, image: ImageArray, annotation: Annotation) -> ImageArray:
        """The image as it is; its boxes are those that `encode` will take."""
        self._told.annotation = annotation
        return image
