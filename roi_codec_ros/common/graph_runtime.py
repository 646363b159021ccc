# SPDX-License-Identifier: Apache-2.0
"""ONNX graphs of frames by onnxruntime or OpenVINO behind one interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from roi_codec_ros.common.errors import ModelFileError, RoiCodecError, UsageError
from roi_codec_ros.common.model_files import MAX_FILE_BYTES, find_file

GRAPH_BACKENDS = ("onnxruntime", "openvino", "openvino-half")
GRAPH_SUFFIX = ".onnx"
MOST_SIZES = 4  # of frames that an OpenVINO backend keeps a compiled graph for

Size = tuple[int, int]

# By the name that a user gives as device; what comes first is tried first.
ONNXRUNTIME_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}


class GraphRuntime(Protocol):
    """A graph of one input, a frame, ready to run.

    Attributes:
        name: one of GRAPH_BACKENDS.
        where: the file, for messages.
        metadata: texts that the file carries.
        input_name, input_shape: of the frame; a side that may vary is None.
        output_names: in the order of the file.
    """

    @property
    def name(self) -> str: ...
    @property
    def where(self) -> str: ...
    @property
    def metadata(self) -> Mapping[str, str]: ...
    @property
    def input_name(self) -> str: ...
    @property
    def input_shape(self) -> Sequence[int | None]: ...
    @property
    def output_names(self) -> Sequence[str]: ...

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """All outputs for a frame, uint8 [H, W, 3], by name. Raises RoiCodecError."""
        ...


def read_graph(path: Path) -> bytes:
    """A graph's file. Raises ModelFileError where it can't be read or is absurdly large."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ModelFileError(
                f"expected {path} to be at most {MAX_FILE_BYTES} bytes, found more"
            )
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"expected a graph at {path}; found: {error.strerror}") from error


def find_graph(name_or_path: str | Path, hint: str = "") -> Path:
    """The `.onnx` file by path or by name. Raises ModelFileError that ends with the hint."""
    return find_file(name_or_path, GRAPH_SUFFIX, hint)


def open_graph(
    content: bytes,
    *,
    where: str,
    backend: str = "onnxruntime",
    device: str = "cpu",
    threads: int | None = None,
    metadata_keys: Sequence[str] = (),
) -> GraphRuntime:
    """A graph ready to run.

    Args:
        backend: one of GRAPH_BACKENDS.
        device: "cpu", "cuda", "cuda:1", "tensorrt" or "openvino" for onnxruntime; "cpu", "gpu" or
            any other of OpenVINO's for OpenVINO.
        threads: CPU threads, None for the runtime's own choice.
        metadata_keys: texts of the file to read; those it lacks are left out.

    Raises:
        UsageError: no backend of that name. RoiCodecError: it, or the device, is not there.
        ModelFileError: the content is no such graph.
    """
    if backend not in GRAPH_BACKENDS:
        raise UsageError(
            f"expected a backend among {', '.join(GRAPH_BACKENDS)}; found {backend!r}"
        )
    runtime, _, half = backend.partition("-")
    if runtime == "onnxruntime":
        return OnnxRuntimeGraph(content, where, device, threads, metadata_keys)
    return OpenVinoGraph(content, where, device, threads, metadata_keys, half=bool(half))


class OnnxRuntimeGraph:
    """A graph in onnxruntime."""

    name = "onnxruntime"

    def __init__(
        self,
        content: bytes,
        where: str,
        device: str,
        threads: int | None,
        metadata_keys: Sequence[str],
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise missing(self.name) from error
        providers = _providers(device, onnxruntime.get_available_providers())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors; the rest is told by what we raise
        # Between two frames a camera's cores are somebody else's.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=providers)
            held = self._session.get_modelmeta().custom_metadata_map
            inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        # Its errors share no base class of their own.
        except Exception as error:
            raise unreadable(where, error) from error
        if len(inputs) != 1 or inputs[0].type != "tensor(uint8)":
            found = ", ".join(f"{item.name} {item.type}" for item in inputs)
            raise ModelFileError(f"expected {where} to take one uint8 frame, found {found}")
        self.where = where
        self.metadata = {key: held[key] for key in metadata_keys if key in held}
        self.input_name = inputs[0].name
        self.input_shape = _sides(inputs[0].shape, where)
        self.output_names = [item.name for item in outputs]

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """As `GraphRuntime.run`."""
        image = _checked(image, self)
        try:
            found = self._session.run(None, {self.input_name: image})
        except Exception as error:  # see above
            raise _failed(self.where, image, error) from error
        return dict(zip(self.output_names, found, strict=True))


class OpenVinoGraph:
    """A graph in OpenVINO. half: let the device choose its 16 bits."""

    def __init__(
        self,
        content: bytes,
        where: str,
        device: str,
        threads: int | None,
        metadata_keys: Sequence[str],
        *,
        half: bool = False,
    ) -> None:
        try:
            import openvino
        except ImportError as error:
            raise missing("openvino") from error
        self.name = "openvino-half" if half else "openvino"
        self.where = where
        core = openvino.Core()
        kind = device.upper()
        if kind.split(".")[0] not in {name.split(".")[0] for name in core.available_devices}:
            raise RoiCodecError(
                f"expected an OpenVINO device among "
                f"{', '.join(name.lower() for name in core.available_devices)}; found {device!r}"
            )
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        if kind == "CPU":
            settings["INFERENCE_PRECISION_HINT"] = "bf16" if half else "f32"
            settings["ENABLE_CPU_PINNING"] = False
            if threads:
                settings["INFERENCE_NUM_THREADS"] = threads
        else:
            settings["INFERENCE_PRECISION_HINT"] = "f16" if half else "f32"
        try:
            self._graph = core.read_model(content)
            held = {}
            for key in metadata_keys:
                if self._graph.has_rt_info(["framework", key]):
                    held[key] = self._graph.get_rt_info(["framework", key]).astype(str)
            (source,) = self._graph.inputs
            shape = [
                side.get_length() if side.is_static else None
                for side in source.get_partial_shape()
            ]
            self.output_names = [item.get_any_name() for item in self._graph.outputs]
        except (RuntimeError, ValueError) as error:
            raise unreadable(where, error) from error
        self.metadata = held
        self.input_name = source.get_any_name()
        self.input_shape = _sides(shape, where)
        self._compile = lambda graph: core.compile_model(graph, kind, settings)
        self._requests: dict[Size, Any] = {}

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """As `GraphRuntime.run`; the first frame of a size takes longer."""
        image = _checked(image, self)
        size = (image.shape[0], image.shape[1])
        request = self._requests.get(size) or self._request(size)
        found = request.infer({self.input_name: image})
        # The request owns what it returns and writes over it at the next call.
        return {name: found[name].copy() for name in self.output_names}

    def _request(self, size: Size) -> Any:
        """Compiled for one size: a camera has one, and graphs for any size take twice as long."""
        try:
            graph = self._graph.clone()
            graph.reshape({self.input_name: [*size, 3]})
            request = self._compile(graph).create_infer_request()
        except RuntimeError as error:
            raise RoiCodecError(
                f"expected {self.where} to run at {size[1]}×{size[0]} in OpenVINO; "
                f"found: {' '.join(str(error).split())[:300]}"
            ) from error
        if len(self._requests) >= MOST_SIZES:
            del self._requests[next(iter(self._requests))]
        self._requests[size] = request
        return request


def _sides(shape: Sequence[Any], where: str) -> list[int | None]:
    sides = [side if isinstance(side, int) and side > 0 else None for side in shape]
    if len(sides) != 3 or sides[2] != 3:
        raise ModelFileError(f"expected {where} to take uint8 [H, W, 3], found {list(shape)}")
    return sides


def _checked(image: np.ndarray, graph: GraphRuntime) -> np.ndarray:
    for found, wanted in zip(image.shape, graph.input_shape, strict=True):
        if wanted not in (None, found):
            height, width = graph.input_shape[:2]
            raise RoiCodecError(
                f"expected frames of {width}×{height}, which {graph.where} was exported for; "
                f"found {image.shape[1]}×{image.shape[0]}"
            )
    return np.ascontiguousarray(image)


def _providers(device: str, available: Sequence[str]) -> list[Any]:
    kind, _, index = device.partition(":")
    provider = ONNXRUNTIME_PROVIDERS.get(kind)
    if provider is None or (index and not index.isdecimal()):
        raise UsageError(
            f"expected a device among {', '.join(ONNXRUNTIME_PROVIDERS)} for onnxruntime; "
            f"found {device!r}"
        )
    if provider not in available:
        raise RoiCodecError(
            f"expected an onnxruntime with {provider} for device {device!r}; "
            f"found one with {', '.join(available)}"
        )
    if kind == "cpu":
        return [provider]
    return [(provider, {"device_id": index}) if index else provider, "CPUExecutionProvider"]


def missing(package: str) -> RoiCodecError:
    """That a backend's package is not installed, and how to get it."""
    return RoiCodecError(
        f"expected {package} for the backend of that name, found it not installed: "
        f"pip install {package}"
    )


def unreadable(where: str, error: Exception) -> ModelFileError:
    """That a file is no graph."""
    reason = " ".join(str(error).split())
    return ModelFileError(
        f"expected {where} to be a graph that roi-codec made; found: {reason[:300]}"
    )


def _failed(where: str, image: np.ndarray, error: Exception) -> RoiCodecError:
    reason = " ".join(str(error).split())
    return RoiCodecError(
        f"expected {where} to run on a frame of {image.shape[1]}×{image.shape[0]}; "
        f"found: {reason[:300]}"
    )
