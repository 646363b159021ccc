# SPDX-License-Identifier: Apache-2.0
"""ONNX graphs of frames: one input, uint8 [H, W, 3]. And where graphs are found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from roi_codec_ros.common.errors import ModelFileError, RoiCodecError, reason_of
from roi_codec_ros.common.graph_sessions import GRAPH_BACKENDS, GraphSession, open_session
from roi_codec_ros.common.model_files import MAX_FILE_BYTES, find_file

__all__ = [
    "GRAPH_BACKENDS",
    "GRAPH_SUFFIX",
    "GraphRuntime",
    "find_graph",
    "open_graph",
    "read_graph",
]

GRAPH_SUFFIX = ".onnx"


def read_graph(path: Path) -> bytes:
    """A graph's file. Raises ModelFileError where it can't be read or is absurdly large."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ModelFileError(
                f"expected {path} to be at most {MAX_FILE_BYTES} bytes, found more"
            )
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"expected a graph at {path}; found: {reason_of(error)}") from error


def find_graph(name_or_path: str | Path, hint: str = "") -> Path:
    """The `.onnx` file by path or by name. Raises ModelFileError that ends with the hint."""
    return find_file(name_or_path, GRAPH_SUFFIX, hint)


class GraphRuntime:
    """A loaded graph with one input, a frame.

    Attributes:
        name: one of GRAPH_BACKENDS.
        where: the file, for messages.
        metadata: texts that the file carries.
        input_name, input_shape: of the frame; a side that may vary is None.
        output_names: in the order of the file.
    """

    def __init__(self, session: GraphSession) -> None:
        """Raises ModelFileError for a graph of other inputs."""
        self._session = session
        self.name, self.where, self.metadata = session.name, session.where, session.metadata
        self.output_names = session.output_names
        kinds = [item.kind for item in session.inputs.values()]
        if kinds != ["uint8"]:
            found = ", ".join(f"{name} {item.kind}" for name, item in session.inputs.items())
            raise ModelFileError(f"expected {self.where} to take one uint8 frame, found {found}")
        ((self.input_name, frame),) = session.inputs.items()
        self.input_shape = frame.shape
        if len(frame.shape) != 3 or frame.shape[2] != 3:
            raise ModelFileError(
                f"expected {self.where} to take uint8 [H, W, 3], found {list(frame.shape)}"
            )

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """All outputs for a frame, uint8 [H, W, 3], by name. Raises RoiCodecError.

        In OpenVINO the first frame of a size takes longer.
        """
        for found, wanted in zip(image.shape, self.input_shape, strict=True):
            if wanted not in (None, found):
                height, width = self.input_shape[:2]
                raise RoiCodecError(
                    f"expected frames of {width}×{height}, which {self.where} was exported for; "
                    f"found {image.shape[1]}×{image.shape[0]}"
                )
        return self._session.run({self.input_name: np.ascontiguousarray(image)})


def open_graph(
    content: bytes,
    *,
    where: str,
    backend: str = "onnxruntime",
    device: str = "cpu",
    threads: int | None = None,
    metadata_keys: Sequence[str] = (),
) -> GraphRuntime:
    """A graph of frames ready to run; arguments and errors as of `graph_sessions.open_session`."""
    session = open_session(
        content,
        where=where,
        backend=backend,
        device=device,
        threads=threads,
        metadata_keys=metadata_keys,
    )
    return GraphRuntime(session)
