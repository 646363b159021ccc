# SPDX-License-Identifier: Apache-2.0
"""What runs an encoder's analysis transform: torch, onnxruntime or OpenVINO behind one interface.

    frame uint8 [H, W, 3] ─► Backend.symbols ─► int16 latent symbols ─► rANS (the same for all)

torch takes model files (`.safetensors`), the others graphs made of them by `roi-codec export`
(`.onnx`), which carry the model's identity and entropy tables: a payload says which model it is
of, not which backend made it, and any decoder of that model reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from roi_codec_ros.codec.model_file import MAX_FILE_BYTES, Model
from roi_codec_ros.codec.models import SUFFIX, find_file, load_model
from roi_codec_ros.codec.onnx_graph import IMAGE, METADATA_KEY, SYMBOLS, build_graph
from roi_codec_ros.codec.torch_transforms import TorchBackend
from roi_codec_ros.common.errors import ModelFileError, RoiCodecError, UsageError

BACKENDS = ("torch", "torch-half", "onnxruntime", "openvino", "openvino-half")
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


class Backend(Protocol):
    """The analysis transform of one model, ready to run.

    Attributes:
        name: one of BACKENDS.
        model: identity, preset and tables; the networks' weights only with torch.
    """

    name: str
    model: Model

    def symbols(self, image: np.ndarray) -> np.ndarray:
        """Quantised latent: int16 [C, ⌈H / stride⌉, ⌈W / stride⌉], C-contiguous.

        ``image``: uint8 [H, W, 3], RGB, of the coded size. Raises RoiCodecError for a size that a
        graph was not made for.
        """
        ...


def open_backend(
    name: str,
    model: Model | str | Path,
    *,
    device: str = "cpu",
    threads: int | None = None,
) -> Backend:
    """A backend for a model.

    Args:
        name: one of BACKENDS.
        model: a model in memory, or the name or path of a file: `.safetensors` for torch, `.onnx`
            for the others. Those make a graph of a model in memory themselves, for which they
            need onnx.
        device: torch's name for torch; "cpu", "cuda", "cuda:1", "tensorrt" or "openvino" for
            onnxruntime; "cpu", "gpu" or any other of OpenVINO's for OpenVINO.
        threads: CPU threads, None for the runtime's own choice.

    Raises:
        UsageError: no backend of that name. RoiCodecError: it, or the device, is not there.
        ModelFileError: the file is none of a model.
    """
    if name not in BACKENDS:
        raise UsageError(f"expected a backend among {', '.join(BACKENDS)}; found {name!r}")
    runtime, _, half = name.partition("-")
    if runtime == "torch":
        loaded = model if isinstance(model, Model) else load_model(model)
        return TorchBackend(loaded, device=device, threads=threads, half=bool(half))
    content, where = _graph_content(model)
    if runtime == "onnxruntime":
        return OnnxRuntimeBackend(content, where=where, device=device, threads=threads)
    return OpenVinoBackend(content, where=where, device=device, threads=threads, half=bool(half))


def find_graph(name_or_path: str | Path) -> Path:
    """The `.onnx` file of a model, by path or name. Raises ModelFileError."""
    path = Path(name_or_path)
    if path.suffix == SUFFIX:
        path = path.with_suffix(GRAPH_SUFFIX)
    return find_file(
        path, GRAPH_SUFFIX, hint=f"make one with: roi-codec export {name_or_path} --onnx FILE"
    )


def _graph_content(model: Model | str | Path) -> tuple[bytes, str]:
    if isinstance(model, Model):
        return build_graph(model).SerializeToString(), model.name
    path = find_graph(model)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ModelFileError(
                f"expected {path} to be at most {MAX_FILE_BYTES} bytes, found more"
            )
        return path.read_bytes(), str(path)
    except OSError as error:
        raise ModelFileError(
            f"expected an exported model at {path}; found: {error.strerror}"
        ) from error


class _Graph:
    """What the two graph runtimes share: the model in the metadata, and the sizes it takes."""

    name: str

    def _adopt(self, text: str, shape: Sequence[Any], where: str) -> None:
        """``shape``: of the input; a side that may vary is no whole number."""
        self.model = Model.from_text(text, where)
        sides = [side if isinstance(side, int) and side > 0 else None for side in shape]
        if len(sides) != 3 or sides[2] != 3:
            raise ModelFileError(
                f"expected {where} to take uint8 [H, W, 3], found {list(shape)}: is it exported "
                "by roi-codec export?"
            )
        self._height, self._width = sides[0], sides[1]

    def _checked(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        if self._height not in (None, height) or self._width not in (None, width):
            raise RoiCodecError(
                f"expected frames of {self._width}×{self._height}, which the graph of "
                f"{self.model.name} was exported for; found {width}×{height}"
            )
        return np.ascontiguousarray(image)


class OnnxRuntimeBackend(_Graph):
    """An exported graph in onnxruntime."""

    name = "onnxruntime"

    def __init__(
        self,
        content: bytes,
        *,
        where: str = "the graph",
        device: str = "cpu",
        threads: int | None = None,
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise _missing("onnxruntime") from error
        providers = _providers(device, onnxruntime.get_available_providers())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors; the rest is told by what we raise
        # Between two frames a camera's cores are somebody else's.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=providers)
            text = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, "")
            (source,), (result,) = self._session.get_inputs(), self._session.get_outputs()
        # Its errors share no base class of their own.
        except Exception as error:
            raise _unreadable(where, error) from error
        if (source.name, source.type) != (IMAGE, "tensor(uint8)") or result.name != SYMBOLS:
            raise ModelFileError(
                f"expected {where} to go from {IMAGE} to {SYMBOLS}, "
                f"found {source.name} to {result.name}"
            )
        self._adopt(text, source.shape, where)

    def symbols(self, image: np.ndarray) -> np.ndarray:
        """As `Backend.symbols`."""
        return self._session.run([SYMBOLS], {IMAGE: self._checked(image)})[0]


class OpenVinoBackend(_Graph):
    """An exported graph in OpenVINO. half: let the device choose its 16 bits."""

    def __init__(
        self,
        content: bytes,
        *,
        where: str = "the graph",
        device: str = "cpu",
        threads: int | None = None,
        half: bool = False,
    ) -> None:
        try:
            import openvino
        except ImportError as error:
            raise _missing("openvino") from error
        self.name = "openvino-half" if half else "openvino"
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
            text = self._graph.get_rt_info(["framework", METADATA_KEY]).astype(str)
            shape = [
                side.get_length() if side.is_static else None
                for side in self._graph.input(IMAGE).get_partial_shape()
            ]
        except RuntimeError as error:
            raise _unreadable(where, error) from error
        self._adopt(text, shape, where)
        self._compile: Callable[[Any], Any] = lambda graph: core.compile_model(
            graph, kind, settings
        )
        self._requests: dict[Size, Any] = {}

    def symbols(self, image: np.ndarray) -> np.ndarray:
        """As `Backend.symbols`; the first frame of a size takes longer."""
        image = self._checked(image)
        size = (image.shape[0], image.shape[1])
        request = self._requests.get(size) or self._request(size)
        # The request owns what it returns and writes over it at the next call.
        return request.infer({IMAGE: image})[SYMBOLS].copy()

    def _request(self, size: Size) -> Any:
        """Compiled for one size: a camera has one, and graphs for any size take twice as long."""
        try:
            graph = self._graph.clone()
            graph.reshape({IMAGE: [*size, 3]})
            request = self._compile(graph).create_infer_request()
        except RuntimeError as error:
            raise RoiCodecError(
                f"expected {self.model.name} to run at {size[1]}×{size[0]} in OpenVINO; "
                f"found: {' '.join(str(error).split())[:300]}"
            ) from error
        if len(self._requests) >= MOST_SIZES:
            del self._requests[next(iter(self._requests))]
        self._requests[size] = request
        return request


def _providers(device: str, available: Sequence[str]) -> list[Any]:
    kind, _, index = device.partition(":")
    provider = ONNXRUNTIME_PROVIDERS.get(kind)
    if provider is None or (index and not index.isdecimal()):
        raise RoiCodecError(
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


def _missing(package: str) -> RoiCodecError:
    return RoiCodecError(
        f"expected {package} for the backend of that name, found it not installed: "
        f"pip install {package}"
    )


def _unreadable(where: str, error: Exception) -> ModelFileError:
    reason = " ".join(str(error).split())
    return ModelFileError(
        f"expected {where} to be a graph that roi-codec export made; found: {reason[:300]}"
    )
