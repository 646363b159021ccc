# SPDX-License-Identifier: Apache-2.0
"""Values and weights inside a float32 ONNX graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from roi_codec_ros.common.graph_sessions import open_session

if TYPE_CHECKING:
    import onnx


def values_inside(
    graph: onnx.ModelProto, names: Sequence[str], inputs: Iterable[Mapping[str, np.ndarray]]
) -> Iterator[dict[str, np.ndarray]]:
    """The values of these names for each of the inputs, which are given by name."""
    import onnx

    shown = copy_of(graph)
    shown.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(name) for name in dict.fromkeys(names)
    )
    session = open_session(shown.SerializeToString(), where="the graph to quantise")
    for given in inputs:
        yield session.run(given)


def copy_of(graph: onnx.ModelProto) -> onnx.ModelProto:
    """A copy to be changed."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    return copy


def makers_of(graph: onnx.ModelProto) -> dict[str, Any]:
    """The node that computes each value, by the value's name."""
    return {name: node for node in graph.graph.node for name in node.output}


def in_one_group(node: Any) -> bool:
    """Whether each output of a convolution sees all channels of its input."""
    return all(item.i == 1 for item in node.attribute if item.name == "group")


class Weights:
    """The constants of a graph, by name, to be read and written in it."""

    def __init__(self, graph: onnx.ModelProto) -> None:
        self._constants = {constant.name: constant for constant in graph.graph.initializer}

    def __getitem__(self, name: str) -> np.ndarray:
        import onnx

        return onnx.numpy_helper.to_array(self._constants[name])

    def __setitem__(self, name: str, value: np.ndarray) -> None:
        """The type stays."""
        import onnx

        kept = value.astype(self[name].dtype)
        self._constants[name].CopyFrom(onnx.numpy_helper.from_array(kept, name))
