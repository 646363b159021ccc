# SPDX-License-Identifier: Apache-2.0
"""One model by every backend: what share of symbols differs from torch's, and what it costs."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from roi_codec_ros.cli import main
from roi_codec_ros.codec import (
    BACKENDS,
    PRESETS,
    Backend,
    Decoder,
    Encoder,
    Model,
    ModelFileError,
    Payload,
    RansCoder,
    RoiCodecError,
    UsageError,
    load_encoder,
    load_model,
    open_backend,
    untrained_model,
)
from roi_codec_ros.codec.backends import find_model_graph, open_graph_backend

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

# Share of the symbols that may differ from torch's float32, and dB of PSNR that may be lost. Float
# kernels add up in another order, which now and then moves a value over the edge of its bin.
LIMITS = {
    "torch": (0.0, 0.0),
    "torch-half": (0.01, 0.1),
    "onnxruntime": (1e-4, 0.01),
    "openvino": (1e-4, 0.01),
    "openvino-half": (0.01, 0.1),
    "int8": (0.02, 0.5),  # weights have 7 bits, so that no processor overflows
}
ROOT = Path(__file__).resolve().parents[1]
PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    data = pytest.importorskip("skimage.data")
    return [cv2.resize(getattr(data, name)(), (512, 512)) for name in PHOTOGRAPHS]


@pytest.fixture(scope="module")
def shipped() -> Model:
    return load_model(ROOT / "models" / "paper-128-2.safetensors")


def of_size(model: Model, coded_size: tuple[int, int] | None) -> Model:
    """The same networks for frames of another size; None: of any."""
    preset = replace(model.preset, coded_size=coded_size)
    return Model.build("shed", preset, model.tensors, model.tables, {})


def of_any_size() -> Model:
    """A small model whose analysis is a network that takes frames of any size."""
    return of_size(untrained_model("paper-128-2"), None)


@pytest.fixture(scope="module")
def small(shipped: Model) -> Model:
    """The shipped networks, on frames of a quarter of the pixels."""
    return of_size(shipped, (256, 256))


@pytest.fixture(scope="module")
def int8(small: Model, photographs: list[np.ndarray]) -> bytes:
    """Its graph in int8, calibrated on two of the photographs."""
    from roi_codec_ros.codec.onnx_graph import build_graph
    from roi_codec_ros.common.onnx_int8 import quantise

    calibration = [cv2.resize(photograph, (256, 256)) for photograph in photographs[:2]]
    return quantise(build_graph(small), calibration).SerializeToString()


def opened(name: str, model: Model, int8: bytes) -> Backend:
    if name == "int8":
        return open_graph_backend(int8, threads=1)
    if name.startswith("openvino"):
        pytest.importorskip("openvino")
    return open_backend(name, model, threads=1)


def psnr_db(image: np.ndarray, reference: np.ndarray) -> float:
    error = np.square(image.astype(np.float64) - reference).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


@dataclass(frozen=True)
class Coded:
    """What an encoder makes of a photograph: the symbols that it sends, and their picture."""

    symbols: np.ndarray
    psnr_db: float


def coded(encoder: Encoder, decoder: Decoder, photograph: np.ndarray) -> Coded:
    data = encoder.encode(photograph).data
    payload, (model,) = Payload.from_bytes(data), decoder.models
    shape = (
        payload.coded_height // model.preset.stride,
        payload.coded_width // model.preset.stride,
    )
    symbols, _, _ = RansCoder(model.tables).decode(payload.block_map, payload.body, *shape)
    image = decoder.decode(data).image
    return Coded(symbols, psnr_db(image, cv2.resize(photograph, image.shape[1::-1])))


@pytest.fixture(scope="module")
def torchs(small: Model, photographs: list[np.ndarray]) -> list[Coded]:
    encoder, decoder = Encoder(small), Decoder(small)
    return [coded(encoder, decoder, photograph) for photograph in photographs]


@pytest.mark.parametrize("name", LIMITS)
def test_symbols_and_picture_stay_close_to_torchs(
    name: str,
    small: Model,
    int8: bytes,
    photographs: list[np.ndarray],
    torchs: list[Coded],
) -> None:
    encoder, decoder = Encoder(opened(name, small, int8)), Decoder(small)

    ours = [coded(encoder, decoder, photograph) for photograph in photographs]

    pairs = list(zip(ours, torchs, strict=True))
    differing = [(own.symbols != torch.symbols).mean() for own, torch in pairs]
    lost_db = [torch.psnr_db - own.psnr_db for own, torch in pairs]

    most_symbols, most_db = LIMITS[name]
    assert np.mean(differing) <= most_symbols
    assert np.mean(lost_db) <= most_db


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (17, 33), (337, 509)])
def test_a_graph_takes_every_size(size: tuple[int, int]) -> None:
    model = of_any_size()
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)

    symbols = open_backend("onnxruntime", model).symbols(image)

    expected = open_backend("torch", model).symbols(image)
    assert symbols.dtype == np.int16
    assert symbols.shape == expected.shape
    assert (symbols != expected).mean() <= 2e-3  # noise: many values near the edge of a bin


@pytest.mark.parametrize("preset", [p for p in PRESETS if p.startswith("paper")])
def test_every_trained_analysis_has_a_graph_whose_payloads_the_models_tables_read(
    preset: str,
) -> None:
    model = of_size(untrained_model(preset), (128, 64))
    image = np.random.default_rng(1).integers(0, 256, (128, 64, 3), np.uint8)

    payload = Payload.from_bytes(Encoder(open_backend("onnxruntime", model)).encode(image).data)

    expected = open_backend("torch", model).symbols(image)
    received, _, _ = RansCoder(model.tables).decode(
        payload.block_map, payload.body, *expected.shape[1:]
    )
    assert payload.model_id == model.id
    assert (received != expected).mean() <= 2e-3


def test_an_exported_file_has_the_models_identity_and_tables(
    shipped: Model, tmp_path: Path
) -> None:
    path = tmp_path / "paper.onnx"
    model = ROOT / "models" / "paper-128-2.safetensors"
    assert main(["export", str(model), "--onnx", str(path)]) == 0

    exported = load_encoder(path, backend="onnxruntime").model

    assert exported.identity == shipped.identity
    assert exported.preset == shipped.preset
    np.testing.assert_array_equal(exported.tables.cdf, shipped.tables.cdf)
    np.testing.assert_array_equal(exported.tables.offsets, shipped.tables.offsets)


def test_int8_by_the_command_is_smaller_and_runs(
    photographs: list[np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "torn.jpg").write_bytes(b"")
    cv2.imwrite(str(tmp_path / "photographs" / "a.png"), photographs[0][:200, :300, ::-1])
    model = tmp_path / "shed.safetensors"
    of_any_size().save(model)
    plain, small = tmp_path / "shed.onnx", tmp_path / "shed-int8.onnx"
    assert main(["export", str(model), "--onnx", str(plain)]) == 0
    calibration = ["--int8", "--calibration", str(tmp_path / "photographs"), "--size", "320x200"]
    assert main(["export", str(model), "--onnx", str(small), *calibration]) == 0
    printed = capsys.readouterr()
    assert "int8, calibrated on 1 photographs" in printed.out
    assert "1 of 2 photographs left out, the first: expected a photograph" in printed.err

    image = photographs[0][:200, :320]
    symbols = load_encoder(small, backend="onnxruntime").symbols(image)

    assert small.stat().st_size < 0.7 * plain.stat().st_size
    assert (symbols != load_encoder(plain, backend="onnxruntime").symbols(image)).mean() < 0.1


def test_a_graph_of_one_size_refuses_others(tmp_path: Path) -> None:
    model, path = tmp_path / "shed.safetensors", tmp_path / "shed.onnx"
    of_any_size().save(model)
    assert main(["export", str(model), "--onnx", str(path), "--size", "64x48"]) == 0
    encoder = load_encoder(path, backend="onnxruntime")

    assert encoder.encode(np.zeros((48, 64, 3), np.uint8)).coded_size == (48, 64)
    with pytest.raises(RoiCodecError, match=r"expected frames of 64×48.*found 48×64"):
        encoder.encode(np.zeros((64, 48, 3), np.uint8))


def test_graphs_are_found_by_the_models_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROI_CODEC_MODELS", str(tmp_path))
    (tmp_path / "shed.onnx").write_bytes(b"")
    assert (
        find_model_graph("shed")
        == find_model_graph(tmp_path / "shed.safetensors")
        == tmp_path / "shed.onnx"
    )
    with pytest.raises(ModelFileError, match=r"shed\); found 'barn'; make one with: roi-codec"):
        find_model_graph("barn")


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"no graph at all"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_what_is_no_graph_is_refused_in_one_line(
    backend: str, content: bytes, tmp_path: Path
) -> None:
    pytest.importorskip(backend)
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"expected .*broken\.onnx to") as caught:
        load_encoder(path, backend=backend)
    assert "\n" not in str(caught.value)


def test_a_graph_of_somebody_else_is_refused() -> None:
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ("x", "y")]
    node = helper.make_node("Relu", ["x"], ["y"])
    foreign = helper.make_model(
        helper.make_graph([node], "foreign", values[:1], values[1:]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    with pytest.raises(
        ModelFileError, match="expected the graph to take one uint8 frame, found x"
    ):
        open_graph_backend(foreign.SerializeToString())


def test_an_unknown_backend_or_device_is_one_clear_error() -> None:
    model = of_any_size()
    with pytest.raises(UsageError, match=f"expected a backend among {', '.join(BACKENDS)}"):
        open_backend("tflite", model)
    with pytest.raises(RoiCodecError, match="expected a device among cpu, cuda, tensorrt"):
        open_backend("onnxruntime", model, device="abacus")
    with pytest.raises(RoiCodecError, match="expected an onnxruntime with TensorrtExecution"):
        open_backend("onnxruntime", model, device="tensorrt")


@pytest.mark.parametrize("name", ["fast", "paper-128-2"])
def test_a_camera_encodes_without_torch_or_compressai(
    photographs: list[np.ndarray], tmp_path: Path, name: str
) -> None:
    model = load_model(ROOT / "models" / f"{name}.safetensors")
    runs: list[object] = ["--model", ROOT / "models" / f"{name}.safetensors"]
    if not model.codes_blocks:
        graph = tmp_path / "paper.onnx"
        assert main(["export", str(runs[1]), "--onnx", str(graph)]) == 0
        runs = ["--model", graph, "--backend", "onnxruntime"]
    photograph, coded = tmp_path / "photo.png", tmp_path / "photo.roic"
    cv2.imwrite(str(photograph), photographs[0][..., ::-1])
    program = (
        "import sys\n"
        "from roi_codec_ros.cli import main\n"
        "status = main(sys.argv[1:])\n"
        "heavy = {'torch', 'compressai', 'onnx', 'ultralytics', 'scipy', 'matplotlib'}\n"
        "print(status, sorted(heavy & set(sys.modules)))\n"
    )
    arguments = ["encode", photograph, coded, *runs]
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    assert done.stdout.splitlines()[-1:] == ["0 []"], done.stderr
    decoder = Decoder(model)
    torchs = decoder.decode(Encoder(model).encode(photographs[0]).data)
    assert psnr_db(decoder.decode(coded.read_bytes()).image, torchs.image) > 50


def test_what_codes_blocks_has_no_graph_of_its_own_and_is_not_run_by_torch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, graph = ROOT / "models" / "fast.safetensors", tmp_path / "fast.onnx"
    assert main(["export", str(model), "--onnx", str(graph)]) == 2
    assert "expected an architecture among paper to export" in capsys.readouterr().err
    with pytest.raises(UsageError, match="expected a backend among auto, onnxruntime"):
        load_encoder(model, backend="torch")
