# SPDX-License-Identifier: Apache-2.0
"""Graphs of encoders, decoders and person detectors, in float32 or calibrated 8-bit integers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import onnx

from roi_codec_ros.codec import Model
from roi_codec_ros.codec.onnx_graph import build_graph
from roi_codec_ros.codec.synthesis_graph import build_synthesis_graph
from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.onnx_int8 import quantise
from roi_codec_ros.common.photographs import PhotographError, left_out, photographs_in, readable
from roi_codec_ros.lab.tools.server_graphs import decoder_int8, detector_int8
from roi_codec_ros.perception.graph_detector import make_detector_graph


class CalibrationPhotographs:
    """Photographs of a folder and those below it to calibrate on, evenly spread; read once.

    say: gets a sentence at the end on what could not be read. Raises RoiCodecError where the
    folder has none.
    """

    def __init__(self, folder: Path, most: int, say: Callable[[str], None]) -> None:
        paths = photographs_in(folder, recursive=True)
        if not paths:
            raise RoiCodecError(f"expected photographs in {folder}, found none")
        if len(paths) > most:
            paths = [paths[i * len(paths) // most] for i in range(most)]
        self._paths = paths
        self._say = say
        self.read = 0

    def __iter__(self) -> Iterator[ImageArray]:
        broken: list[PhotographError] = []
        for photograph in readable(self._paths, broken):
            self.read += 1
            yield photograph
        for sentence in left_out(broken, len(self._paths)):
            self._say(sentence)


def encoder_graph(
    model: Model, size: tuple[int, int] | None, photographs: CalibrationPhotographs | None
) -> onnx.ModelProto:
    """An encoder's graph, in int8 with photographs. size: (height, width); None for any."""
    graph = build_graph(model, size)
    if photographs is None:
        return graph
    return quantise(graph, _resized(photographs, model.preset.coded_size or size))


def decoder_graph(model: Model, photographs: CalibrationPhotographs | None) -> onnx.ModelProto:
    """A server's graph of a model that codes blocks, in int8 with photographs."""
    return (
        build_synthesis_graph(model) if photographs is None else decoder_int8(model, photographs)
    )


def detector_graph(
    weights: Path, model: Model, photographs: CalibrationPhotographs | None
) -> onnx.ModelProto:
    """A person detector's graph, in int8 with photographs as ``model`` decodes them."""
    if photographs is None:
        return make_detector_graph(weights)
    return detector_int8(weights, model, photographs)


def _resized(images: CalibrationPhotographs, size: tuple[int, int] | None) -> Iterator[ImageArray]:
    for image in images:
        if size is not None:
            image = np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA))
        yield image
