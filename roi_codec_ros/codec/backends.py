# SPDX-License-Identifier: Apache-2.0
"""Runtimes for an encoder's analysis transform: torch, ONNX Runtime or OpenVINO, one interface.

    frame uint8 [H, W, 3] ─► Backend.symbols ─► int16 latent symbols ─► rANS (the same for all)

torch loads model files (`.safetensors`); the others load graphs (`.onnx`) that `roi-codec export`
makes from them, with the model's identity and entropy tables in the metadata. A payload names its
model, not the backend that produced it, and any decoder with that model reads it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.codec.models import SUFFIX, load_model
from roi_codec_ros.codec.onnx_graph import IMAGE, METADATA_KEY, SYMBOLS, build_graph
from roi_codec_ros.codec.torch_transforms import TorchBackend
from roi_codec_ros.common.errors import ModelFileError, UsageError
from roi_codec_ros.common.graph_runtime import (
    GRAPH_BACKENDS,
    GRAPH_SUFFIX,
    GraphRuntime,
    find_graph,
    open_graph,
    read_graph,
)

AUTO = "auto"  # onnxruntime for models that code blocks, torch for others
BACKENDS = (AUTO, "torch", "torch-half", *GRAPH_BACKENDS)


class Backend(Protocol):
    """The loaded analysis transform of one model.

    Attributes:
        name: one of BACKENDS.
        model: identity, preset and tables; holds the networks' weights only with torch.
    """

    name: str
    model: Model

    def symbols(self, image: np.ndarray) -> np.ndarray:
        """Quantised latent: int16 [C, ⌈H / stride⌉, ⌈W / stride⌉], C-contiguous.

        ``image``: uint8 [H, W, 3], RGB, of the coded size. Raises RoiCodecError for a size that
            the graph does not support.
        """
        ...


def open_backend(
    name: str,
    model: Model | str | Path,
    *,
    device: str = "cpu",
    threads: int | None = None,
) -> Backend:
    """Open a backend for a model whose analysis is a network.

    Args:
        name: one of BACKENDS.
        model: a model in memory, or the name or path of a file: `.safetensors` for torch, `.onnx`
            for the others. From a model in memory they build the graph themselves, which requires
            onnx.
        device: a torch device for torch, else as `common.graph_runtime.open_graph`. threads: CPU
            threads; None lets the runtime choose.

    Raises:
        UsageError: unknown backend. RoiCodecError: the backend or the device is not available.
        ModelFileError: the file is not a model.
    """
    check_backend(name)
    if name in (AUTO, "torch", "torch-half"):
        loaded = model if isinstance(model, Model) else load_model(model)
        return TorchBackend(loaded, device=device, threads=threads, half=name == "torch-half")
    content, where = _graph_content(model)
    return open_graph_backend(content, name, where=where, device=device, threads=threads)


def check_backend(name: str) -> None:
    """Check a backend's name. Raises UsageError for an unknown one."""
    if name not in BACKENDS:
        raise UsageError(f"expected a backend among {', '.join(BACKENDS)}; found {name!r}")


def open_graph_backend(
    content: bytes,
    backend: str = "onnxruntime",
    *,
    where: str = "the graph",
    device: str = "cpu",
    threads: int | None = None,
) -> GraphBackend:
    """Open a backend from the content of an exported graph; errors as `open_backend`."""
    graph = open_graph(
        content,
        where=where,
        backend=backend,
        device=device,
        threads=threads,
        metadata_keys=[METADATA_KEY],
    )
    return GraphBackend(graph)


def find_model_graph(name_or_path: str | Path) -> Path:
    """Find the `.onnx` file of a model by path or name. Raises ModelFileError."""
    path = Path(name_or_path)
    if path.suffix == SUFFIX:
        path = path.with_suffix(GRAPH_SUFFIX)
    return find_graph(path, f"make one with: roi-codec export {name_or_path} --onnx FILE")


def _graph_content(model: Model | str | Path) -> tuple[bytes, str]:
    if isinstance(model, Model):
        return build_graph(model).SerializeToString(), model.name
    path = find_model_graph(model)
    return read_graph(path), str(path)


class GraphBackend:
    """An exported graph with its model in the metadata."""

    def __init__(self, graph: GraphRuntime) -> None:
        """Raises ModelFileError for a graph without a model."""
        self.name = graph.name
        if graph.input_name != IMAGE or list(graph.output_names) != [SYMBOLS]:
            raise ModelFileError(
                f"expected {graph.where} to go from {IMAGE} to {SYMBOLS}, "
                f"found {graph.input_name} to {', '.join(graph.output_names)}"
            )
        self.model = Model.from_text(graph.metadata.get(METADATA_KEY, ""), graph.where)
        self._graph = graph

    def symbols(self, image: np.ndarray) -> np.ndarray:
        """As `Backend.symbols`."""
        return self._graph.run(image)[SYMBOLS]
