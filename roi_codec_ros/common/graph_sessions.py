# SPDX-License-Identifier: Apache-2.0
"""ONNX graphs of any inputs by onnxruntime or OpenVINO behind one interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from roi_codec_ros.common.errors import ModelFileError, RoiCodecError, UsageError, reason_of

GRAPH_BACKENDS = ("onnxruntime", "openvino", "openvino-half")
MOST_SIZES = 4  # of inputs that an OpenVINO session keeps a compiled graph for

# By the name that a user gives as device; what comes first is tried first.
ONNXRUNTIME_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class GraphInput:
    """kind: of the elements, as "uint8" or "float". shape: a side that may vary is None."""

    kind: str
    shape: tuple[int | None, ...]


class GraphSession(Protocol):
    """A loaded graph."""

    @property
    def name(self) -> str:
        """One of GRAPH_BACKENDS."""

    @property
    def where(self) -> str:
        """The file, for messages."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Texts that the file carries."""

    @property
    def inputs(self) -> Mapping[str, GraphInput]:
        """The inputs, by name."""

    @property
    def output_names(self) -> Sequence[str]:
        """In the order of the file."""

    def run(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """All outputs for all inputs, by name, the caller's own. Raises RoiCodecError."""
        ...


def onnxruntime_devices() -> list[str]:
    """The names of devices that this onnxruntime was built for. Raises ImportError."""
    import onnxruntime

    there = onnxruntime.get_available_providers()
    return [name for name, provider in ONNXRUNTIME_PROVIDERS.items() if provider in there]


def open_session(
    content: bytes,
    *,
    where: str,
    backend: str = "onnxruntime",
    device: str = "cpu",
    threads: int | None = None,
    metadata_keys: Sequence[str] = (),
) -> GraphSession:
    """A graph ready to run.

    Args:
        backend: one of GRAPH_BACKENDS.
        device: "cpu", "cuda", "cuda:1", "tensorrt" or "openvino" for onnxruntime; "cpu", "gpu" or
            any other of OpenVINO's for OpenVINO.
        threads: CPU threads, None for the runtime's own choice.
        metadata_keys: texts of the file to read; those it lacks are left out.

    Raises:
        UsageError: no backend of that name. RoiCodecError: it, or the device, is not there.
        ModelFileError: the content is no graph.
    """
    if backend not in GRAPH_BACKENDS:
        raise UsageError(
            f"expected a backend among {', '.join(GRAPH_BACKENDS)}; found {backend!r}"
        )
    runtime, _, half = backend.partition("-")
    if runtime == "onnxruntime":
        return OnnxRuntimeSession(content, where, device, threads, metadata_keys)
    return OpenVinoSession(content, where, device, threads, metadata_keys, half=bool(half))


class OnnxRuntimeSession:
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
        options.log_severity_level = 3  # errors only; exceptions report the rest
        # Between two frames a camera's cores are left to other processes.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=providers)
            held = self._session.get_modelmeta().custom_metadata_map
            inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        # Its errors share no base class of their own.
        except Exception as error:
            raise unreadable(where, error) from error
        self.where = where
        self.metadata = {key: held[key] for key in metadata_keys if key in held}
        self.inputs = {
            item.name: GraphInput(
                item.type.removeprefix("tensor(").rstrip(")"), _sides(item.shape)
            )
            for item in inputs
        }
        self.output_names = [item.name for item in outputs]

    def run(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """As `GraphSession.run`."""
        try:
            found = self._session.run(None, dict(arrays))
        except Exception as error:  # see above
            raise _failed(self.where, arrays, error) from error
        return dict(zip(self.output_names, found, strict=True))


class OpenVinoSession:
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
            self.inputs = {
                source.get_any_name(): GraphInput(
                    _KINDS.get(source.get_element_type().get_type_name(), "another"),
                    tuple(
                        side.get_length() if side.is_static else None
                        for side in source.get_partial_shape()
                    ),
                )
                for source in self._graph.inputs
            }
            self.output_names = [item.get_any_name() for item in self._graph.outputs]
        except (RuntimeError, ValueError) as error:
            raise unreadable(where, error) from error
        self.metadata = held
        self._compile = lambda graph: core.compile_model(graph, kind, settings)
        self._requests: dict[tuple[tuple[int, ...], ...], Any] = {}

    def run(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """As `GraphSession.run`; the first inputs of a size take longer."""
        sizes = tuple(arrays[name].shape for name in self.inputs)
        request = self._requests.get(sizes) or self._request(arrays, sizes)
        found = request.infer(dict(arrays))
        # The request owns what it returns and writes over it at the next call.
        return {name: found[name].copy() for name in self.output_names}

    def _request(self, arrays: Arrays, sizes: tuple[tuple[int, ...], ...]) -> Any:
        """Compiled for one size: a camera has one, and graphs for any size take twice as long."""
        try:
            graph = self._graph.clone()
            graph.reshape({name: list(arrays[name].shape) for name in self.inputs})
            request = self._compile(graph).create_infer_request()
        except RuntimeError as error:
            raise _failed(self.where, arrays, error) from error
        if len(self._requests) >= MOST_SIZES:
            del self._requests[next(iter(self._requests))]
        self._requests[sizes] = request
        return request


_KINDS = {"u8": "uint8", "f32": "float"}  # as onnxruntime calls them


def _sides(shape: Sequence[Any]) -> tuple[int | None, ...]:
    return tuple(side if isinstance(side, int) and side > 0 else None for side in shape)


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
        f"{package}, for the backend of that name, is not installed: pip install {package}"
    )


def unreadable(where: str, error: Exception) -> ModelFileError:
    """That a file is no graph."""
    return ModelFileError(
        f"expected {where} to be a graph that roi-codec made; found: {reason_of(error, most=300)}"
    )


def _failed(where: str, arrays: Arrays, error: Exception) -> RoiCodecError:
    shapes = ", ".join("×".join(map(str, array.shape)) for array in arrays.values())
    return RoiCodecError(
        f"expected {where} to run on {shapes}; found: {reason_of(error, most=300)}"
    )
