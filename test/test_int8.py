# SPDX-License-Identifier: Apache-2.0
"""Graphs in 8-bit integers give the same on processors that add two products in 16 bits."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from roi_codec_ros.common.graph_runtime import read_graph
from roi_codec_ros.lab.training.region_model import region_files, stored_arrays

onnx = pytest.importorskip("onnx")
data = pytest.importorskip("skimage.data")
ROOT = Path(__file__).resolve().parents[1]
HASWELL = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
RUN = """
import sys, numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
np.savez(sys.argv[3], *session.run(None, {"image": np.load(sys.argv[2])}))
"""


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return cv2.resize(data.astronaut(), (128, 128), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def int8(image: np.ndarray) -> bytes:
    """The network of the regions."""
    arrays = stored_arrays(read_graph(ROOT / "models" / "regions.onnx"))
    return region_files(arrays, {}, [image])["regions-int8"]


def weights_of_convolutions(content: bytes) -> Iterator[np.ndarray]:
    """int8 [outputs, inputs, height, width], of those that compute in integers."""
    graph = onnx.load_from_string(content).graph
    constants = {item.name: item for item in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type == "Conv" and (maker := makers.get(node.input[1])) is not None:
            yield onnx.numpy_helper.to_array(constants[maker.input[0]])


def two_products_in_16_bits(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """What vpmaddubsw computes: uint8 by int8 [N, 2], the two products added with saturation."""
    exact = (activations.astype(np.int64) * weights.astype(np.int64)).sum(axis=1)
    return np.clip(exact, -(2**15), 2**15 - 1)


def test_no_two_weights_of_an_output_are_cut_off_whatever_they_are_given(int8: bytes) -> None:
    over_channels = [w for w in weights_of_convolutions(int8) if w.shape[1] > 1]
    assert len(over_channels) > 20

    for weights in over_channels:
        ordered = np.sort(weights.reshape(len(weights), -1), axis=1)
        for extreme in (ordered[:, :2], ordered[:, -2:]):
            white = np.full(extreme.shape, 255, np.uint8)
            exact = 255 * extreme.astype(np.int64).sum(axis=1)
            np.testing.assert_array_equal(two_products_in_16_bits(white, extreme), exact)


@pytest.mark.skipif(
    HASWELL is None or platform.machine() != "x86_64", reason="no qemu-user for x86-64"
)
def test_a_processor_without_vnni_computes_the_same(
    int8: bytes, image: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "int8.onnx").write_bytes(int8)
    np.save(tmp_path / "image.npy", image)
    found = {}
    for name, emulator in {"here": [], "haswell": [HASWELL, "-cpu", "Haswell"]}.items():
        arguments = [sys.executable, "-c", RUN, "int8.onnx", "image.npy", f"{name}.npz"]
        subprocess.run([*map(str, emulator), *arguments], cwd=tmp_path, check=True)
        found[name] = dict(np.load(tmp_path / f"{name}.npz"))

    for name, here in found["here"].items():
        apart = np.sqrt(np.square(found["haswell"][name] - here).mean())
        assert apart <= 1e-3 * np.sqrt(np.square(here).mean()), name
