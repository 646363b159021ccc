# SPDX-License-Identifier: Apache-2.0
"""Runtimes for a decoder's synthesis: torch, ONNX Runtime or OpenVINO behind one interface.

    what a payload holds ─► Synthesis.planes ─► planes float32 [B, 3, H, W] ─► image, detector

For block-based models the float32 graph is built from the model on first use and kept in the
user's cache. The 8-bit integer graph, whose calibration needs images, is a file beside the model
(`roi-codec export --decoder --int8`). Other models run in torch.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Protocol

import numpy as np

from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.codec.synthesis_graph import (
    COEFFICIENTS,
    GRAPH_VERSION,
    PLANES,
    SYNTHESIS_KEY,
    TOLD,
    build_synthesis_graph,
)
from roi_codec_ros.codec.torch_transforms import Transform
from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.common.graph_choice import (
    AUTO,
    GRAPH_CHOICES,
    INT8,
    TORCH,
    check_server_backend,
    fastest,
)
from roi_codec_ros.common.graph_runtime import read_graph
from roi_codec_ros.common.graph_sessions import GraphSession
from roi_codec_ros.common.graph_store import in_folders, open_cached, open_of
from roi_codec_ros.common.model_files import model_directories

TIMED_BLOCKS = (23, 40)  # of 640×360

_log = logging.getLogger(__name__)


class Synthesis(Protocol):
    """The loaded synthesis of one model. name: one of `graph_choice.SERVER_BACKENDS`."""

    name: str

    def planes(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Images from latents: float32 [B, 3, s · h, s · w], 0 to 1, where s is the model's
        stride.

        inputs: float32 [B, ., h, w] each: coefficients, levels and hidden flags for a block-based
            model, the latent for others.
        """
        ...


def open_synthesis(
    model: Model, backend: str = TORCH, *, device: str = "cpu", threads: int | None = None
) -> Synthesis:
    """Open a model's synthesis.

    Args:
        backend: one of SERVER_BACKENDS; "auto": the fastest available one that passes a self-test,
            else torch.
        device: "cpu", "cuda", "cuda:1", or another device name of the backend.
        threads: CPU threads; None lets the runtime choose.

    Raises:
        UsageError: unknown backend, or not for this kind of model. RoiCodecError: the backend or
            the device is not available. ModelFileError: there is no graph, or the model is broken.
    """
    check_server_backend(backend)
    if backend == TORCH or (backend == AUTO and not model.codes_blocks):
        return TorchSynthesis(model, device, threads)
    if not model.codes_blocks:
        raise UsageError(
            f"expected backend {AUTO} or {TORCH} for {model.name}, which codes no blocks; "
            f"found {backend!r}"
        )
    if backend != AUTO:
        return GraphSynthesis(backend, _open(model, device, threads, backend))
    # int8 is for CPUs; on a GPU it would fall back to the CPU
    names = [n for n in GRAPH_CHOICES if device == "cpu" or not n.endswith(INT8)]
    timed = {
        COEFFICIENTS: [1, model.preset.latent_channels, *TIMED_BLOCKS],
        TOLD: [1, 2, *TIMED_BLOCKS],
    }
    openers = {name: partial(_open, model, device, threads, name) for name in names}
    chosen = fastest(openers, timed, what=f"decoder of {model.name}")
    if chosen is None:
        return TorchSynthesis(model, device, threads)
    return GraphSynthesis(*chosen)


class TorchSynthesis:
    """The synthesis network in torch."""

    name = TORCH

    def __init__(self, model: Model, device: str, threads: int | None) -> None:
        self._synthesis = Transform(model, "synthesis", device, threads)

    def planes(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """As `Synthesis.planes`."""
        import torch

        with torch.inference_mode():
            x = self._synthesis.network(*map(self._synthesis.tensor, inputs))
            return np.asarray(x.clamp_(0, 1).nan_to_num_(0).contiguous().cpu().numpy())


class GraphSynthesis:
    """The synthesis as a graph, for block-based models."""

    def __init__(self, name: str, session: GraphSession) -> None:
        self.name = name
        self._session = session

    def planes(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """As `Synthesis.planes`."""
        coefficients, levels, hidden = inputs
        told = np.concatenate([levels, hidden], axis=1)
        return self._session.run({COEFFICIENTS: coefficients, TOLD: told})[PLANES]


def decoder_graph_name(model: Model, *, int8: bool) -> str:
    """File name of the graph of a model's decoder, without suffix."""
    return f"{model.name}-decoder{INT8 if int8 else ''}"


def _open(model: Model, device: str, threads: int | None, backend: str) -> GraphSession:
    def opened(content: bytes, where: str = f"the decoder of {model.name}") -> GraphSession:
        return open_of(
            content,
            where,
            SYNTHESIS_KEY,
            model.identity.hex(),
            backend=backend.removesuffix(INT8),
            device=device,
            threads=threads,
        )

    if backend.endswith(INT8):
        path = in_folders(decoder_graph_name(model, int8=True), model_directories())
        return opened(read_graph(path), str(path))
    name = f"decoder-{model.identity.hex()[:32]}-{GRAPH_VERSION}"
    return open_cached(name, lambda: build_synthesis_graph(model).SerializeToString(), opened)
