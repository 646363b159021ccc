# SPDX-License-Identifier: Apache-2.0
"""Graphs in 8-bit integers, calibrated on real images.

Convolutions take uint8 activations, one scale and zero point for each, and int8 weights with a
scale for each output channel. Weights use 7 of their bits, -64 to 64: processors with AVX2 and
without VNNI add two products in 16 bits, where 255 · 127 · 2 would be cut off and 255 · 64 · 2 is
not, so that all processors compute the same sums. Weights of depthwise convolutions, which are
computed in other ways and lose most, use all 8. In graphs of frames, weights are rounded together
(`onnx_rounding`), and channels get similar ranges before (`onnx_equalise`).

Of graphs of frames, on a camera, the last convolutions, which make the latent, stay in float32
where their kernels are small (of our networks), since their errors go into the symbols as they
are: half of the symbols that differ would come from them. So do the sums that normalizations
divide by. It is another function than the model's own: some symbols differ, and the decoder, which
knows nothing of it, decodes what it is sent.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from roi_codec_ros.common.errors import RoiCodecError, reason_of
from roi_codec_ros.common.onnx_equalise import equalised
from roi_codec_ros.common.onnx_rounding import rounded_weights
from roi_codec_ros.common.onnx_values import makers_of, values_inside

if TYPE_CHECKING:
    import onnx

_NO_IMAGES = "expected images to calibrate on, found none"
_STEPS = 64  # of weights of 7 bits
_OUTSIDE = 1e-4  # share of the values of an image that may be cut off at each end
_NEW_SHARE = 0.05  # of the newest image in the averaged ranges
_ALL_BITS = {"axis": 0, "symmetric": True, "reduce_range": False}  # of int8, a channel's own scale
_SMALL_KERNEL = 4  # places: 2 × 2. The paper's last convolution, 5 × 5, would cost a sixth


# What else of a network may stay in integers between two convolutions, instead of going to floats
# and back there, which takes as long as the convolutions themselves.
WHOLE_NETWORK = ("Conv", "LeakyRelu", "Relu", "MaxPool", "Concat", "Add", "Resize")


def quantise(
    graph: onnx.ModelProto,
    images: Iterable[np.ndarray],
    *,
    operators: Sequence[str] = ("Conv",),
    keep_last: bool = True,
    cut_off: bool = True,
) -> onnx.ModelProto:
    """The int8 form of a float32 graph with one input, a frame; its metadata are kept.

    Args:
        graph: its weights are constants of 32 bits.
        images: to calibrate on, uint8 [H, W, 3], RGB, of sizes that the graph takes. Some dozen
            photographs of what the camera will see are enough.
        operators: which kinds of nodes are to compute in int8.
        keep_last: leave small convolutions that make the output, and those that make what is
            divided by, in float32.
        cut_off: let 1 of 10,000 values at each end be cut off, which makes the steps of all others
            finer. Not for networks that find things, where rare large values tell.

    Raises:
        RoiCodecError: there is no image, or onnxruntime's quantiser is not installed.
    """
    name = graph.graph.input[0].name
    inputs = [{name: np.ascontiguousarray(image)} for image in images]
    if not inputs:
        raise RoiCodecError(_NO_IMAGES)
    in_float = [*_last_convolutions(graph), *_divisors(graph)] if keep_last else []
    prepared = rounded_weights(equalised(graph, inputs), inputs, steps=_STEPS, in_float=in_float)
    quantised = _quantised(
        prepared,
        inputs,
        operators=operators,
        in_float=in_float,
        ranges=_usual_ranges(prepared, inputs) if cut_off else {},
    )
    _keep_pixels_as_they_are(quantised)
    return _like(quantised, graph)


def quantise_network(
    graph: onnx.ModelProto,
    inputs: Iterable[Mapping[str, np.ndarray]],
    *,
    operators: Sequence[str],
    in_float: Sequence[str],
) -> onnx.ModelProto:
    """The int8 form of a float32 graph of any inputs; its metadata are kept.

    Args:
        inputs: to calibrate on, by name, one or several in a batch. What batches reach is
            averaged over them, so that one that is out of the ordinary does not make the steps
            coarse for all others; in larger batches less is cut off.
        operators: which kinds of nodes are to compute in int8.
        in_float: the names of nodes that are not to.

    Raises RoiCodecError as `quantise`.
    """
    averaged = {"CalibMovingAverage": True, "CalibMovingAverageConstant": _NEW_SHARE}
    return _like(
        _quantised(graph, inputs, operators=operators, in_float=in_float, options=averaged), graph
    )


def _like(quantised: onnx.ModelProto, graph: onnx.ModelProto) -> onnx.ModelProto:
    """The quantised graph with the metadata of its original, checked."""
    import onnx

    del quantised.metadata_props[:]
    quantised.metadata_props.extend(graph.metadata_props)
    onnx.checker.check_model(quantised)
    return quantised


def _quantised(
    graph: onnx.ModelProto,
    inputs: Iterable[Mapping[str, np.ndarray]],
    *,
    operators: Sequence[str],
    in_float: Sequence[str],
    ranges: Mapping[str, tuple[float, float]] | None = None,
    options: Mapping[str, object] | None = None,
) -> onnx.ModelProto:
    """ranges: (smallest, largest) of values by name; of others what the inputs reach."""
    try:
        from onnxruntime import quantization
    except ImportError as error:
        raise RoiCodecError(
            f"expected onnxruntime and onnx to quantise a graph, found: {reason_of(error)}"
        ) from error
    reader = _Reader(inputs)
    logger = logging.getLogger()
    level = logger.level
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(graph.SerializeToString())
        try:
            logger.setLevel(logging.ERROR)  # it advises at length to prepare graphs such as ours
            quantization.quantize_static(
                source,
                result,
                _as_calibration_reader(reader, quantization.CalibrationDataReader),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(operators),
                nodes_to_exclude=list(in_float),
                extra_options={
                    "TensorQuantOverrides": {
                        **{name: [_ALL_BITS] for name in _depthwise_weights(graph)},
                        **_overrides(ranges or {}),
                    },
                    **(options or {}),
                },
                per_channel=True,
                reduce_range=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=quantization.CalibrationMethod.MinMax,
            )
        except ValueError as error:
            if reader.count == 0:
                raise RoiCodecError(_NO_IMAGES) from error
            raise
        finally:
            logger.setLevel(level)
        import onnx

        return onnx.load(result)


def _usual_ranges(
    graph: onnx.ModelProto, inputs: Iterable[Mapping[str, np.ndarray]]
) -> dict[str, tuple[float, float]]:
    """What convolutions take and give without the few values far outside, averaged over images."""
    names = [n for node in graph.graph.node if node.op_type == "Conv" for n in _ends(node)]
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for values in values_inside(graph, names, inputs):
        for name, ends in found.items():
            ends.append(np.quantile(values[name], (_OUTSIDE, 1 - _OUTSIDE), method="nearest"))
    means = {name: np.mean(ends, axis=0) for name, ends in found.items()}
    return {
        name: (min(0.0, float(low)), max(0.0, float(high))) for name, (low, high) in means.items()
    }


def _ends(node: onnx.NodeProto) -> tuple[str, str]:
    return node.input[0], node.output[0]


def _overrides(ranges: Mapping[str, tuple[float, float]]) -> dict[str, list[dict[str, Any]]]:
    return {
        name: [{"rmin": np.float32(low), "rmax": np.float32(high)}]
        for name, (low, high) in ranges.items()
    }


def _depthwise_weights(graph: onnx.ModelProto) -> list[str]:
    """The names of weights of convolutions that see one channel each."""
    depths = {item.name: item.dims[1] for item in graph.graph.initializer if len(item.dims) == 4}
    taken = [node.input[1] for node in graph.graph.node if node.op_type == "Conv"]
    return [name for name in dict.fromkeys(taken) if depths.get(name) == 1]


def _divisors(graph: onnx.ModelProto) -> list[str]:
    """The names of convolutions that make what is divided by."""
    makers = makers_of(graph)
    divisors = [makers.get(node.input[1]) for node in graph.graph.node if node.op_type == "Div"]
    return [node.name for node in divisors if node is not None and node.op_type == "Conv"]


def _last_convolutions(graph: onnx.ModelProto) -> list[str]:
    """The names of small convolutions whose output comes to the latent through no other."""
    area = {item.name: math.prod(item.dims[2:]) for item in graph.graph.initializer}
    makers = makers_of(graph)
    names: list[str] = []
    seen: set[str] = set()
    waiting = [value.name for value in graph.graph.output]
    while waiting:
        value = waiting.pop()
        node = makers.get(value)
        if node is None or value in seen:
            continue
        seen.add(value)
        if node.op_type == "Conv":
            if area.get(node.input[1], 0) <= _SMALL_KERNEL:
                names.append(node.name)
        else:
            waiting.extend(node.input)
    return names


class _Reader:
    def __init__(self, inputs: Iterable[Mapping[str, np.ndarray]]) -> None:
        self._inputs = iter(inputs)
        self.count = 0

    def next(self) -> dict[str, np.ndarray] | None:
        given = next(self._inputs, None)
        if given is None:
            return None
        self.count += 1
        return dict(given)


def _as_calibration_reader(reader: _Reader, base: type) -> Any:
    """The reader as the class that the quantiser insists on."""
    return type("Reader", (base,), {"get_next": lambda self: reader.next()})()


def _keep_pixels_as_they_are(graph: onnx.ModelProto) -> None:
    """Hand the uint8 pixels to the first convolution, which else quantises them from floats.

    Transpose, Unsqueeze, Cast, QuantizeLinear become Transpose, Unsqueeze, in whatever order they
    are. With the scale 1 and the zero point 0 that images with black and white pixels calibrate
    to, no value changes; a constant that is subtracted from them becomes the zero point.
    """
    import onnx

    to_array = onnx.numpy_helper.to_array
    nodes, constants = graph.graph.node, {c.name: c for c in graph.graph.initializer}
    cast = next(node for node in nodes if node.op_type == "Cast")
    first = next(node for node in nodes if node.op_type == "QuantizeLinear")
    path = [cast]
    while path[-1].output[0] != first.input[0]:
        following = [node for node in nodes if path[-1].output[0] in node.input]
        if len(following) != 1:
            return
        path.append(following[0])
    subtractions = [node for node in path if node.op_type == "Sub"]
    zero = sum(int(to_array(constants[node.input[1]])) for node in subtractions)
    for name, value in zip(first.input[1:], (1.0, zero), strict=True):
        constant = constants[name]
        constant.CopyFrom(
            onnx.numpy_helper.from_array(np.array(value, to_array(constant).dtype), name)
        )
    for gone in (cast, *subtractions, first):
        for node in nodes:
            for index, name in enumerate(node.input):
                if name == gone.output[0]:
                    node.input[index] = gone.input[0]
        nodes.remove(gone)
    shapes = [v for v in graph.graph.value_info if v.name in {n.output[0] for n in path}]
    for shape in shapes:
        graph.graph.value_info.remove(shape)
