# SPDX-License-Identifier: Apache-2.0
"""Graphs of a server in 8-bit integers, calibrated on photographs as its cameras send them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from roi_codec_ros.codec import Decoder, Encoder, Model
from roi_codec_ros.codec.synthesis_graph import (
    COEFFICIENTS,
    IN_FLOAT,
    INT8_OPERATORS,
    TOLD,
    build_synthesis_graph,
)
from roi_codec_ros.common.graph_choice import AUTO, TORCH
from roi_codec_ros.common.images import ImageArray, picture_size
from roi_codec_ros.common.onnx_int8 import quantise_network
from roi_codec_ros.perception import detector_graph
from roi_codec_ros.perception.graph_detector import make_detector_graph
from roi_codec_ros.perception.letterbox import Letterbox
from roi_codec_ros.perception.person_finder import STRIDE

if TYPE_CHECKING:
    import onnx

MAX_WIDTH = 640  # of the encoders' default; and the detector's input size
# Of pictures of one size. With single ones so much of the strongest features of persons is cut off
# that their scores shrink by a fifth.
DETECTOR_BATCH = 4


def decoder_int8(model: Model, photographs: Iterable[ImageArray]) -> onnx.ModelProto:
    """The decoder's graph of a model that codes blocks; errors as `build_synthesis_graph`."""
    encoder, decoder = Encoder(model), Decoder(model, backend=AUTO)

    def inputs() -> Iterator[dict[str, np.ndarray]]:
        for photograph in photographs:
            payload = encoder.encode(photograph, max_width=MAX_WIDTH).data
            coefficients, *told = decoder.synthesis_inputs(payload)
            yield {COEFFICIENTS: coefficients, TOLD: np.concatenate(told, axis=1)}

    return quantise_network(
        build_synthesis_graph(model), inputs(), operators=INT8_OPERATORS, in_float=IN_FLOAT
    )


def detector_int8(
    weights: Path, model: Model, photographs: Iterable[ImageArray]
) -> onnx.ModelProto:
    """The graph of a detector of what a codec decoded; errors as `make_detector_graph`."""
    encoder = Encoder(model)
    decoder = Decoder(model, backend=AUTO if model.codes_blocks else TORCH)

    def pictures() -> Iterator[np.ndarray]:
        for photograph in photographs:
            picture = decoder.decode(encoder.encode(photograph, max_width=MAX_WIDTH).data).planes
            box = Letterbox.of(picture_size(picture), MAX_WIDTH, STRIDE)
            planes = np.zeros((1, 3, *box.outer_size), np.float32)
            box.fill(planes[0], picture)
            yield planes

    inputs = ({detector_graph.PLANES: batch} for batch in _batches(pictures(), DETECTOR_BATCH))
    graph = make_detector_graph(weights, bounded=True)
    names = [node.name for node in graph.graph.node if node.op_type == "Conv"]
    return quantise_network(
        graph,
        inputs,
        operators=detector_graph.INT8_OPERATORS,
        in_float=[name for name in names if name.startswith(detector_graph.IN_FLOAT)],
    )


def _batches(arrays: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Arrays [1, …] of one shape joined by so many; smaller groups only if none is whole."""
    waiting: dict[tuple[int, ...], list[np.ndarray]] = {}
    whole = False
    for array in arrays:
        group = waiting.setdefault(array.shape, [])
        group.append(array)
        if len(group) == size:
            whole = True
            yield np.concatenate(waiting.pop(array.shape))
    if not whole:
        yield from map(np.concatenate, waiting.values())
