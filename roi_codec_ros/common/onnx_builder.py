# SPDX-License-Identifier: Apache-2.0
"""ONNX graphs written node by node, from weights by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.files import GENERATOR

if TYPE_CHECKING:
    import onnx

OPSET, IR_VERSION = 17, 8  # what an onnxruntime 1.14 and an OpenVINO 2023 read

# name, element type, sides: whole numbers, or names where they may vary
Value = tuple[str, Any, Sequence[int | str]]


def require_onnx() -> Any:
    """The onnx package. Raises RoiCodecError where it is not installed."""
    try:
        import onnx
    except ImportError as error:
        raise RoiCodecError(
            "onnx, which builds graphs, is not installed: pip install onnx"
        ) from error
    return onnx


class GraphBuilder:
    """Nodes and constants as they come, and the weights that layers are made of."""

    def __init__(self, weights: Mapping[str, np.ndarray], *, half: bool = False) -> None:
        """half: store weights in 16 bits; a runtime widens them once, when it loads the graph."""
        onnx = require_onnx()
        self._helper, self._to_tensor = onnx.helper, onnx.numpy_helper.from_array
        self._weights = weights
        self._half = half
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def weight(self, name: str) -> np.ndarray:
        """A weight by name, float32. Raises KeyError."""
        return self._weights[name].astype(np.float32)

    def has(self, name: str) -> bool:
        """Whether there is a weight of that name."""
        return name in self._weights

    def constant(self, values: Any) -> str:
        """A constant; whole numbers become int64, as shapes and axes are."""
        return self._stored(np.array(values, order="C"), f"constant_{len(self.constants)}")

    def _stored(self, values: np.ndarray, name: str) -> str:
        self.constants.append(self._to_tensor(values, name))
        return name

    def node(self, operator: str, *inputs: str, output: str | None = None, **options: Any) -> str:
        """A node with one output, whose name is returned."""
        name = output or f"{operator.lower()}_{len(self.nodes)}"
        made = self._helper.make_node(operator, list(inputs), [name], name=name, **options)
        self.nodes.append(made)
        return name

    def convolution(
        self,
        x: str,
        weight: np.ndarray,
        bias: np.ndarray,
        *,
        stride: int = 1,
        padding: int = 0,
        group: int = 1,
        name: str | None = None,
    ) -> str:
        """A convolution with these arrays; the name is that of its node and output."""
        names = (self.constant(weight), self.constant(bias))
        return self._convolution(x, names, weight.shape[2:], stride, padding, group, name)

    def layer(
        self, x: str, name: str, *, stride: int = 1, padding: int = 0, group: int = 1
    ) -> str:
        """A convolution with the weights ``name.weight`` and ``name.bias``."""
        weight = self.weight(f"{name}.weight")
        names = (self._parameter(f"{name}.weight"), self._parameter(f"{name}.bias"))
        return self._convolution(x, names, weight.shape[2:], stride, padding, group)

    def _parameter(self, name: str) -> str:
        value = self.weight(name)
        if not self._half:
            return self._stored(value, name)
        stored = self._stored(value.astype(np.float16), name)
        return self.node("Cast", stored, to=1, output=f"{name}.float32")

    def _convolution(
        self,
        x: str,
        names: tuple[str, str],
        kernel: tuple[int, ...],
        stride: int,
        padding: int,
        group: int,
        output: str | None = None,
    ) -> str:
        return self.node(
            "Conv",
            x,
            *names,
            output=output,
            kernel_shape=list(kernel),
            strides=[stride] * 2,
            pads=[padding] * 4,
            group=group,
        )


def make_model(
    graph: GraphBuilder,
    name: str,
    *,
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    metadata: Mapping[str, str],
) -> onnx.ModelProto:
    """The checked model of a finished graph."""
    onnx = require_onnx()
    helper = onnx.helper

    def infos(values: Sequence[Value]) -> list[Any]:
        return [
            helper.make_tensor_value_info(
                value, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), list(shape)
            )
            for value, kind, shape in values
        ]

    model = helper.make_model(
        helper.make_graph(graph.nodes, name, infos(inputs), infos(outputs), graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name=GENERATOR,
    )
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model)
    return model
