# SPDX-License-Identifier: Apache-2.0
"""What makes a network ready for 8 bits: channels of similar ranges, weights rounded together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from roi_codec_ros.codec import Model, RoiCodecError, load_model, untrained_model
from roi_codec_ros.codec.onnx_graph import IMAGE, SYMBOLS, build_graph
from roi_codec_ros.codec.presets import get_preset
from roi_codec_ros.common.onnx_equalise import equalised
from roi_codec_ros.common.onnx_int8 import quantise
from roi_codec_ros.common.onnx_rounding import rounded_weights
from roi_codec_ros.common.onnx_values import Weights, copy_of, values_inside

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
data = pytest.importorskip("skimage.data")
MODEL = Path(__file__).resolve().parents[1] / "models" / "paper-128-2.safetensors"
STEPS = 64


def photograph(name: str) -> dict[str, np.ndarray]:
    return {IMAGE: cv2.resize(getattr(data, name)(), (128, 128), interpolation=cv2.INTER_AREA)}


@pytest.fixture(scope="module")
def calibration() -> list[dict[str, np.ndarray]]:
    return [photograph(name) for name in ("astronaut", "coffee", "cat", "rocket")]


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    """The analysis of a trained model of the paper's, for small frames."""
    model = load_model(MODEL)
    preset = replace(model.preset, coded_size=(128, 128))
    return build_graph(Model.build("shed", preset, model.tensors, model.tables, {}))


def convolutions(graph: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in graph.graph.node if node.op_type == "Conv"]


def uneven(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The same function, with each channel before the first normalization 0.14 to 7 times as
    large.
    """
    result = copy_of(graph)
    first, norm, after = convolutions(result)[:3]
    weights = Weights(result)
    factors = np.exp(np.random.default_rng(0).uniform(-2, 2, len(weights[first.input[1]])))
    for name in first.input[1:]:
        value = weights[name]
        weights[name] = value * factors.reshape(-1, *[1] * (value.ndim - 1))
    weights[norm.input[1]] = weights[norm.input[1]] / factors[:, None, None]
    weights[after.input[1]] = weights[after.input[1]] / factors[:, None, None]
    return result


def ranges(graph: onnx.ModelProto, inputs: list[dict[str, np.ndarray]]) -> np.ndarray:
    """The largest magnitude of each channel that comes out of the first convolution."""
    name = convolutions(graph)[0].output[0]
    found = [values[name] for values in values_inside(graph, [name], inputs)]
    return np.abs(np.concatenate(found)).max(axis=(0, 2, 3))


def test_channels_of_similar_ranges_code_the_same_symbols(
    graph: onnx.ModelProto, calibration: list[dict[str, np.ndarray]]
) -> None:
    spread = uneven(graph)

    even = equalised(spread, calibration)

    before, after = ranges(spread, calibration), ranges(even, calibration)
    used = before > 0.01 * before.max()
    before, after = before[used], after[used]
    assert np.count_nonzero(used) > 30
    assert np.std(np.log(after)) < 0.6 * np.std(np.log(before))
    seen = [photograph("chelsea")]
    (wanted,), (found,) = (list(values_inside(g, [], seen)) for g in (graph, even))
    assert np.count_nonzero(wanted[SYMBOLS]) > 100
    assert (wanted[SYMBOLS] != found[SYMBOLS]).mean() < 1e-3


def test_weights_lie_on_the_steps_of_each_output_and_its_largest_stays(
    graph: onnx.ModelProto, calibration: list[dict[str, np.ndarray]]
) -> None:
    kept = convolutions(graph)[1].name

    rounded = rounded_weights(graph, calibration, steps=STEPS, in_float=[kept])

    before, after = Weights(graph), Weights(rounded)
    for node in convolutions(graph):
        original, value = before[node.input[1]], after[node.input[1]]
        if node.name == kept:
            np.testing.assert_array_equal(value, original)
            continue
        rows = value.reshape(len(value), -1)
        largest = np.abs(original).reshape(len(value), -1).max(axis=1)
        np.testing.assert_allclose(np.abs(rows).max(axis=1), largest, rtol=1e-6)
        in_steps = rows / np.maximum(largest[:, None] / STEPS, 1e-12)
        np.testing.assert_allclose(in_steps, np.rint(in_steps), atol=1e-3)


def to_nearest(graph: onnx.ModelProto) -> onnx.ModelProto:
    result = copy_of(graph)
    weights = Weights(result)
    for node in convolutions(result):
        value = weights[node.input[1]]
        scale = np.maximum(np.abs(value).max(axis=(1, 2, 3), keepdims=True) / STEPS, 1e-12)
        weights[node.input[1]] = np.rint(value / scale) * scale
    return result


def test_weights_rounded_together_lose_less_than_each_rounded_to_the_nearest(
    graph: onnx.ModelProto, calibration: list[dict[str, np.ndarray]]
) -> None:
    latent = convolutions(graph)[-1].output[0]
    unseen = [photograph("chelsea")]
    (wanted,) = values_inside(graph, [latent], unseen)

    def error(candidate: onnx.ModelProto) -> float:
        (found,) = values_inside(candidate, [latent], unseen)
        return float(np.square(found[latent] - wanted[latent]).mean())

    together = error(rounded_weights(graph, calibration, steps=STEPS))

    assert 0 < together < 0.25 * error(to_nearest(graph))


def test_no_images_to_calibrate_on_is_an_error(graph: onnx.ModelProto) -> None:
    with pytest.raises(RoiCodecError, match="expected images to calibrate on, found none"):
        quantise(graph, [])


def steps_of_activations(graph: onnx.ModelProto) -> dict[str, float]:
    """The scale of each value that becomes uint8."""
    weights = Weights(graph)
    nodes = [node for node in graph.graph.node if node.op_type == "QuantizeLinear"]
    return {node.input[0]: float(weights[node.input[1]]) for node in nodes}


def test_few_values_far_outside_do_not_make_all_steps_coarse(
    calibration: list[dict[str, np.ndarray]],
) -> None:
    preset = replace(get_preset("paper-16-2"), coded_size=(128, 128))
    model = untrained_model("paper-16-2", seed=1)
    small = build_graph(Model.build("small", preset, model.tensors, model.tables, {}))
    images = [given[IMAGE] for given in calibration]

    cut, whole = (
        steps_of_activations(quantise(small, images, cut_off=cut)) for cut in (True, False)
    )

    assert cut.keys() == whole.keys()
    assert np.median([cut[name] / whole[name] for name in cut]) < 0.9
