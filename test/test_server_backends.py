# SPDX-License-Identifier: Apache-2.0
"""Decoder and detector by every backend of a server, against torch; and which one is taken."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from roi_codec_ros.cli import main
from roi_codec_ros.codec import (
    Decoder,
    Encoder,
    ModelFileError,
    UsageError,
    load_model,
    untrained_model,
)
from roi_codec_ros.codec.synthesis_graph import GRAPH_VERSION
from roi_codec_ros.common import graph_choice
from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.graph_choice import add_self_test, deviation, fastest
from roi_codec_ros.common.graph_sessions import open_session
from roi_codec_ros.common.images import as_image
from roi_codec_ros.lab.datasets.annotations_any import choose, read_annotations
from roi_codec_ros.lab.evaluation.average_precision import intersection_over_union
from roi_codec_ros.lab.evaluation.measurement import person_ap50
from roi_codec_ros.perception.boxes import without_repeats
from roi_codec_ros.perception.detections import Detections
from roi_codec_ros.perception.graph_detector import make_detector_graph, open_detector
from roi_codec_ros.perception.letterbox import Letterbox
from roi_codec_ros.perception.person_detector import PersonDetector, find_weights

pytest.importorskip("onnx")
ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
FLOAT_BACKENDS = ("onnxruntime", "openvino")
WEIGHTS = ROOT / "models" / "person-yolov8n-fast.pt"
needs_detector = pytest.mark.skipif(
    importlib.util.find_spec("ultralytics") is None or not WEIGHTS.is_file(),
    reason="no ultralytics or no person weights",
)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """One cache for all of these tests, and none of the user's."""
    folder = tmp_path_factory.getbasetemp() / "graphs-cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "roi_codec_ros" / "graphs"


@pytest.fixture(scope="module")
def model():
    return load_model(ROOT / "models" / "fast.safetensors")


@pytest.fixture(scope="module")
def payloads(model) -> list[bytes]:
    """Of photographs of different sizes, one of no whole blocks."""
    data = pytest.importorskip("skimage.data")
    encoder = Encoder(model, threads=1)
    sizes = {"astronaut": (320, 176), "coffee": (250, 133), "rocket": (320, 176)}
    return [
        encoder.encode(cv2.resize(getattr(data, name)(), size)).data
        for name, size in sizes.items()
    ]


@pytest.fixture(scope="module")
def pictures(model) -> list[np.ndarray]:
    """People as the codec shows them, planes."""
    assets = Path(str(importlib.util.find_spec("ultralytics").origin)).parent / "assets"
    encoder, decoder = Encoder(model, threads=1), Decoder(model, threads=1)
    images = [cv2.imread(str(assets / name)) for name in ("bus.jpg", "zidane.jpg")]
    coded = [encoder.encode(np.ascontiguousarray(i[:, :, ::-1]), max_width=640) for i in images]
    return [decoder.decode(frame.data).planes for frame in coded]


# The shipped graphs in 8-bit integers


def test_a_codecs_int8_decoder_shows_nearly_its_pictures(model, payloads):
    """What it costs in persons on photographs with marked persons stands in docs/scaling.md."""
    ours = Decoder(model, backend="onnxruntime-int8", threads=1)
    exact = Decoder(model, backend="onnxruntime", threads=1)

    for payload in payloads:
        apart = ours.decode(payload).planes - exact.decode(payload).planes
        assert np.sqrt(np.square(apart).mean()) < 0.01


@needs_detector
def test_a_detectors_int8_graph_finds_the_same_persons(pictures):
    ours = open_detector(WEIGHTS, "onnxruntime-int8", threads=1)
    exact = open_detector(WEIGHTS, "onnxruntime", threads=1)

    clear = 0
    for planes in pictures:
        found, expected = ours.detect(planes), exact.detect(planes, confidence=0.45)
        for box, score in zip(expected.xyxy, expected.score, strict=True):
            overlaps = intersection_over_union([box], found.xyxy)[0]
            assert overlaps.max() > 0.7
            assert found.score[overlaps.argmax()] == pytest.approx(score, abs=0.2)
            clear += 1
    assert clear >= 1


needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no photographs with marked persons")


class Server:
    """A detector that sees photographs as a server of one backend does: coded, and decoded."""

    def __init__(self, backend: str, coded: Callable[[bytes, tuple[int, ...]], bytes]) -> None:
        self._coded = coded
        self._decoder = Decoder(load_model("fast"), backend=backend, threads=1)
        self._detector = open_detector(WEIGHTS, backend, threads=1)

    def detect(self, image: np.ndarray, *, confidence: float) -> Detections:
        planes = self._decoder.decode(self._coded(image.tobytes(), image.shape)).planes
        assert planes.shape[1:] == image.shape[:2]
        return self._detector.detect(planes, confidence=confidence)


@needs_data
@needs_detector
def test_int8_finds_persons_nearly_as_well_as_float32(model):
    """No more than 0.02 of average precision below on every eighth of the photographs."""
    encoder = Encoder(model, threads=1)
    coded = lru_cache(maxsize=None)(
        lambda pixels, shape: encoder.encode(np.frombuffer(pixels, np.uint8).reshape(shape)).data
    )
    photographs = choose(read_annotations(DATA, "val"), all_images=False, limit=27)

    exact, small = (
        person_ap50(Server(name, coded), photographs)
        for name in ("onnxruntime", "onnxruntime-int8")
    )

    assert exact > 0.3
    assert small >= exact - 0.02


@needs_data
@needs_detector
def test_the_report_of_an_evaluation_names_the_servers_backend(tmp_path):
    yunet = DATA.parent / "weights" / "yunet_n_640.onnx"
    chosen = ["--data", str(DATA), "--split", "val", "--models", "fast", "--limit", "2"]
    detectors = ["--detector", str(WEIGHTS), "--face-detector", f"yunet={yunet}"]
    options = ["--server-backend", "onnxruntime-int8", "--json", str(tmp_path / "found.json")]

    assert main(["evaluate", *chosen, *detectors, *options, "--threads", "1"]) == 0

    report = json.loads((tmp_path / "found.json").read_text())
    assert report["server_backend"] == "onnxruntime-int8"
    assert 0 < report["rows"][1]["person_ap50"] <= 1


def test_a_graph_by_the_command_is_taken_by_its_name(tmp_path, monkeypatch, capsys):
    astronaut = pytest.importorskip("skimage.data").astronaut()
    cv2.imwrite(str(tmp_path / "astronaut.png"), astronaut[:96, :96])
    monkeypatch.setenv("ROI_CODEC_MODELS", str(tmp_path))
    path = tmp_path / "untrained-fast.safetensors"
    untrained_model("fast", seed=2).save(path)
    graph = tmp_path / "untrained-fast-decoder-int8.onnx"
    arguments = ["export", str(path), "--decoder", "--onnx", str(graph)]

    assert main([*arguments, "--int8", "--calibration", str(tmp_path)]) == 0

    printed = capsys.readouterr().out
    assert "int8, calibrated on 1 photographs, decoder of model untrained-fast" in printed
    decoder = Decoder(load_model(path), backend="onnxruntime-int8", threads=1)
    assert decoder.backends == {"untrained-fast": "onnxruntime-int8"}
    with pytest.raises(ModelFileError, match=r"decoder-int8\.onnx to be made of weights"):
        Decoder(untrained_model("fast", seed=3), backend="onnxruntime-int8")
    assert main([*arguments, "--size", "64x64", "--force"]) == 2


# The decoder


@pytest.mark.parametrize("backend", FLOAT_BACKENDS)
def test_pictures_are_torchs(backend, model, payloads):
    pytest.importorskip(backend)
    ours, torchs = Decoder(model, backend=backend, threads=1), Decoder(model, threads=1)

    for frame, expected in zip(
        ours.decode_batch(payloads), map(torchs.decode, payloads), strict=True
    ):
        assert frame.planes == pytest.approx(expected.planes, abs=1e-4)
        apart = np.abs(frame.image.astype(int) - expected.image)
        assert apart.max() <= 1  # where a value lies on an edge
        assert (apart > 0).mean() < 1e-3


def test_an_image_is_its_planes_rounded_half_to_even(model, payloads):
    frame = Decoder(model, threads=1).decode(payloads[1])

    expected = np.round(frame.planes * np.float32(255)).astype(np.uint8).transpose(1, 2, 0)

    assert frame.planes.shape == (3, 133, 250)
    assert np.array_equal(frame.image, expected)
    assert np.array_equal(as_image(frame.image), frame.image)


def test_a_server_decodes_and_finds_persons_without_torch(tmp_path, payloads):
    """The command, and what detector_node opens, with graphs that were made before."""
    payload = tmp_path / "frame.roic"
    payload.write_bytes(payloads[0])
    program = (
        "import sys\n"
        "for name in ('torch', 'ultralytics'): sys.modules[name] = None\n"
        "from roi_codec_ros.cli import main\n"
        "from roi_codec_ros.perception.graph_detector import open_detector\n"
        "status = main(['decode', sys.argv[1], sys.argv[2]])\n"
        "import numpy as np\n"
        "found = [] if len(sys.argv) < 4 else open_detector(sys.argv[3]).detect(\n"
        "    np.zeros((64, 64, 3), np.uint8))\n"
        "print(status, len(found))\n"
    )
    arguments = [payload, tmp_path / "picture.png"]
    if importlib.util.find_spec("ultralytics") is not None and WEIGHTS.is_file():
        open_detector(WEIGHTS, "onnxruntime", threads=1)
        arguments.append(WEIGHTS)
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True
    )

    assert done.stdout.splitlines()[-1:] == ["0 0"], done.stderr
    assert cv2.imread(str(tmp_path / "picture.png")).shape == (176, 320, 3)


def test_what_codes_no_blocks_is_decoded_by_torch():
    paper = untrained_model("paper-128-2")

    assert list(Decoder(paper, backend="auto", threads=1).backends.values()) == ["torch"]
    with pytest.raises(UsageError, match="expected backend auto or torch for untrained"):
        Decoder(paper, backend="onnxruntime")


# What is kept


def test_a_graph_is_made_once_and_a_damaged_one_anew(cache):
    model = untrained_model("fast")
    Decoder(model, backend="onnxruntime", threads=1)
    (made,) = cache.glob(f"decoder-{model.identity.hex()[:32]}-*.onnx")
    content = made.read_bytes()
    made.write_bytes(content[: len(content) // 2])

    Decoder(model, backend="onnxruntime", threads=1)

    assert made.read_bytes() == content
    assert list(cache.glob(".*")) == []


def test_a_graph_of_other_weights_is_not_taken(cache, model, payloads):
    """Whatever its file is called."""
    Decoder(model, backend="onnxruntime", threads=1)
    other = untrained_model("fast", seed=1)
    mine, others = (
        cache / f"decoder-{m.identity.hex()[:32]}-{GRAPH_VERSION}.onnx" for m in (model, other)
    )
    others.write_bytes(mine.read_bytes())

    Decoder(other, backend="onnxruntime", threads=1)

    assert others.read_bytes() != mine.read_bytes()


def test_without_a_folder_to_keep_graphs_in_they_are_made_each_time(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))

    decoder = Decoder(untrained_model("fast"), backend="onnxruntime", threads=1)

    assert list(decoder.backends.values()) == ["onnxruntime"]


# Which backend is taken


def small_graph(gain: float = 2.0) -> bytes:
    """x → gain · x that says of itself that it is 2 · x."""
    from roi_codec_ros.common.onnx_builder import GraphBuilder, make_model

    def made(factor: float):
        graph = GraphBuilder({})
        graph.node("Mul", "x", graph.constant(np.float32(factor)), output="y")
        sides = ["rows", "columns"]
        values = [[(name, np.float32, sides)] for name in "xy"]
        return make_model(graph, "small", inputs=values[0], outputs=values[1], metadata={})

    model = made(2.0)
    add_self_test(model, {"x": [2, 3]})
    (test,) = model.metadata_props
    model = made(gain)
    model.metadata_props.add().CopyFrom(test)
    return model.SerializeToString()


def opener(content: bytes, calls: list[str] | None = None, name: str = ""):
    def open_it():
        if calls is not None:
            calls.append(name)
        return open_session(
            content, where="small", metadata_keys=[graph_choice.SELF_TEST_KEY], threads=1
        )

    return open_it


def test_a_runtime_that_computes_something_else_is_not_taken():
    good, wrong = small_graph(), small_graph(gain=2.05)
    calls: list[str] = []

    taken = fastest(
        {"onnxruntime": opener(wrong, calls, "wrong"), "openvino": opener(good, calls, "good")},
        {"x": [4, 4]},
        what="small",
    )

    assert deviation(opener(good)()) < 1e-6
    assert deviation(opener(wrong)()) == pytest.approx(0.025, rel=1e-3)
    assert taken is not None
    assert taken[0] == "openvino"
    assert calls == ["wrong", "good"]
    assert fastest({"onnxruntime": opener(wrong)}, {"x": [4, 4]}, what="small") is None


def test_of_those_that_agree_the_fastest_is_taken(monkeypatch):
    seconds = {"onnxruntime-int8": 0.03, "onnxruntime": 0.02, "openvino": 0.04}
    monkeypatch.setattr(graph_choice, "least_seconds", lambda steps: list(seconds.values()))

    taken = fastest({name: opener(small_graph()) for name in seconds}, {"x": [4, 4]}, what="small")

    assert taken is not None
    assert taken[0] == "onnxruntime"


def test_steps_are_timed_by_turns():
    """So that what starts meanwhile slows none of them alone."""
    taken = []

    def step(name, seconds):
        taken.append(name)
        time.sleep(seconds)

    least = graph_choice.least_seconds([partial(step, "a", 0.002), partial(step, "b", 0.02)])

    assert taken == ["a", "b"] * (graph_choice.TIMED_ROUNDS + 1)
    assert 0.002 <= least[0] < least[1]


def test_a_graph_without_a_self_test_is_refused():
    from roi_codec_ros.common.onnx_builder import GraphBuilder, make_model

    graph = GraphBuilder({})
    graph.node("Relu", "x", output="y")
    values = [[(name, np.float32, ["side"])] for name in "xy"]
    content = make_model(graph, "bare", inputs=values[0], outputs=values[1], metadata={})

    with pytest.raises(ModelFileError, match="expected small to hold what it should give"):
        deviation(opener(content.SerializeToString())())


def test_an_unknown_backend_is_named(model):
    for call in (lambda: Decoder(model, backend="tflite"), lambda: open_detector("x", "tflite")):
        with pytest.raises(UsageError, match="expected a backend among auto, torch, onnxruntime"):
            call()


# The detector


@needs_detector
@pytest.mark.parametrize("backend", FLOAT_BACKENDS)
def test_persons_are_torchs(backend, pictures):
    pytest.importorskip(backend)
    ours = open_detector(WEIGHTS, backend, threads=1)
    torchs = PersonDetector(WEIGHTS, threads=1)
    images = [as_image(planes) for planes in pictures]
    images.append(cv2.resize(images[0], (300, 500)))

    for image, found in zip(images, ours.detect_batch(images, confidence=0.05), strict=True):
        expected = torchs.detect(image, confidence=0.05)
        assert len(expected) >= 1
        assert found.image_size == image.shape[:2]
        assert found.xyxy == pytest.approx(expected.xyxy, abs=0.05)
        assert found.score == pytest.approx(expected.score, abs=1e-3)


@needs_detector
def test_planes_and_their_image_show_the_same_persons(pictures):
    detector = open_detector(WEIGHTS, "onnxruntime", threads=1)
    shown = 0
    for planes in pictures:
        straight = detector.detect(planes, confidence=0.4)
        by_image = detector.detect(as_image(planes), confidence=0.4)

        shown += len(straight)

        assert straight.score == pytest.approx(by_image.score, abs=0.03)
        # Of two persons with nearly the same score either may be the first.
        for box in straight.xyxy:
            assert intersection_over_union([box], by_image.xyxy).max() > 0.9
    assert shown >= 1


@needs_detector
def test_a_graph_by_itself_is_weights_too(tmp_path):
    path = tmp_path / "person-mine.onnx"
    path.write_bytes(make_detector_graph(WEIGHTS).SerializeToString())

    detector = open_detector(find_weights("", [tmp_path]), threads=1)

    assert detector.weights == path
    assert detector.name in FLOAT_BACKENDS
    with pytest.raises(UsageError, match="expected a backend among auto, onnxruntime, openvino"):
        open_detector(path, "torch")


def test_what_is_no_graph_of_a_detector_is_refused_in_one_line(tmp_path):
    path = tmp_path / "person-noise.onnx"
    path.write_bytes(bytes(100))

    with pytest.raises(RoiCodecError, match=r"expected .*person-noise\.onnx to be a graph"):
        open_detector(path)


def test_each_person_is_kept_once():
    """Boxes best first: the second repeats the first one, the third overlaps it by 0.5 of 1.5."""
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [5, 0, 15, 10], [40, 0, 50, 10]], np.float32)

    assert without_repeats(boxes, 0.7).tolist() == [0, 2, 3]
    assert without_repeats(boxes, 0.3).tolist() == [0, 3]
    assert without_repeats(boxes[:0], 0.7).tolist() == []


@pytest.mark.parametrize("size", [(360, 640), (50, 200)])
def test_planes_are_letterboxed_as_images_are(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    planes = image.transpose(2, 0, 1).astype(np.float32) / 255
    box = Letterbox.of(size, 640, 32)
    expected = box.apply(image).transpose(2, 0, 1) / 255

    for picture in (image, planes):
        filled = np.zeros((3, *box.outer_size), np.float32)
        box.fill(filled, picture)
        assert np.abs(filled - expected).max() < 1.1 / 255  # images are rounded when scaled
