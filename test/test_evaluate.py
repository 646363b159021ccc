# SPDX-License-Identifier: Apache-2.0
"""The evaluation with codecs and detectors whose figures can be worked out by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roi_codec_ros.cli import main
from roi_codec_ros.codec.models import load_model, untrained_model
from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.lab.datasets.annotations import Annotation, AnnotationSet
from roi_codec_ros.lab.datasets.annotations_any import choose
from roi_codec_ros.lab.evaluation.annotated_regions import AnnotatedRegions
from roi_codec_ros.lab.evaluation.baselines import parse_baselines
from roi_codec_ros.lab.evaluation.cache import ResultCache
from roi_codec_ros.lab.evaluation.evaluate import Evaluation, evaluate_with
from roi_codec_ros.lab.evaluation.measurement import Bench
from roi_codec_ros.lab.evaluation.results import EvaluationSettings
from roi_codec_ros.lab.evaluation.rows import format_table
from roi_codec_ros.lab.evaluation.workers import measure_here
from roi_codec_ros.perception.detections import Detections
from roi_codec_ros.perception.face_detectors import FACE_DETECTORS

WIDTH, HEIGHT = 40, 20
PERSON = [4.0, 4.0, 12.0, 18.0]
HEAD = [6.0, 4.0, 10.0, 8.0]


class BrightBox:
    """Sees one person where the image is bright on the whole, half the score if it is dim."""

    def detect(self, image: np.ndarray, *, confidence: float) -> Detections:
        score = image.mean() / 255
        found = [PERSON] if score >= confidence else []
        return Detections.from_arrays(found, [score] * len(found), image.shape[:2])


class BrightFace:
    name = "bright"

    def detect(self, image: np.ndarray) -> Detections:
        found = [HEAD, [20, 4, 24, 8]] if image.mean() > 100 else []
        return Detections.from_arrays(found, [0.9, 0.8][: len(found)], image.shape[:2])


@dataclass
class Dimmer:
    """A codec of a fixed size that divides the brightness, and halves the size of the image."""

    divisor: int = 4
    name: str = "dimmer"
    model_id: str | None = "0123456789abcdef"
    calls: int = 0

    @property
    def preset(self) -> str:
        return f"by-{self.divisor}"

    def encode(self, image: np.ndarray) -> bytes:
        self.calls += 1
        return bytes([int(image.mean()) // self.divisor]) * 100

    def decode(self, data: bytes) -> np.ndarray:
        return np.full((HEIGHT // 2, WIDTH // 2, 3), data[0], dtype=np.uint8)


def evaluate(annotations, methods, persons, faces, settings=None, **options) -> Evaluation:
    bench = Bench(methods, persons, faces, settings)
    return evaluate_with(measure_here(bench), bench.rows, annotations, **options)


def photograph(
    folder: Path, name: str, brightness: int = 200, person_boxes: str = "human"
) -> Annotation:
    path = folder / f"{name}.png"
    Image.new("RGB", (WIDTH, HEIGHT), (brightness,) * 3).save(path)
    return Annotation(
        image_path=path,
        image_id=name,
        width=WIDTH,
        height=HEIGHT,
        persons=np.array([PERSON], dtype=np.float32),
        heads=np.array([HEAD], dtype=np.float32),
        ignored=np.zeros((0, 4), dtype=np.float32),
        person_boxes=person_boxes,
    )


def test_the_first_row_is_the_original(tmp_path: Path) -> None:
    images = [photograph(tmp_path, "a"), photograph(tmp_path, "b")]
    evaluation = evaluate(images, [], BrightBox(), BrightFace())
    (row,) = evaluation.rows
    assert (row["method"], row["bpp_mean"], row["bpp_std"]) == ("original", 24.0, 0.0)
    assert (row["person_ap50"], row["person_tp"], row["person_fp"]) == (1.0, 2, 0)
    assert (row["face_ap50"], row["face_tp"], row["face_fp"], row["faces_found"]) == (1.0, 2, 2, 4)
    assert row["psnr_mean"] is None
    assert row["encode_ms"] == {"min": None, "mean": None, "std": None}
    assert (row["person_ap50_ratio"], row["faces_ratio"]) == (1.0, 1.0)


def test_a_method_is_held_against_the_original(tmp_path: Path) -> None:
    images = [photograph(tmp_path, "a"), photograph(tmp_path, "b")]
    row = evaluate(images, [Dimmer()], BrightBox(), BrightFace()).rows[1]
    assert (row["method"], row["preset"], row["model_id"]) == (
        "dimmer",
        "by-4",
        "0123456789abcdef",
    )
    assert row["bpp_mean"] == 8 * 100 / (WIDTH * HEIGHT)
    assert row["bpp_std"] == 0.0
    assert row["psnr_mean"] == pytest.approx(10 * np.log10(255**2 / 150**2))
    assert set(row["psnr_regions"]) == {"background", "persons", "heads"}
    assert (row["person_ap50"], row["person_ap50_conf025"]) == (1.0, 0.0)  # its score is 50 / 255
    assert (row["person_tp"], row["person_tp_conf025"]) == (2, 0)
    assert (row["faces_found"], row["faces_ratio"], row["face_ap50"]) == (0, 0.0, 0.0)
    assert 0 <= row["encode_ms"]["min"] <= row["encode_ms"]["mean"]


def test_a_method_that_hides_is_judged_by_the_persons_that_it_shows(tmp_path: Path) -> None:
    class Hider(Dimmer):
        def hidden(self, data: bytes) -> np.ndarray:
            mask = np.zeros((HEIGHT // 2, WIDTH // 2), bool)
            mask[:, :4] = True  # the left half of the person
            return mask

        def decode(self, data: bytes) -> np.ndarray:
            image = np.full((HEIGHT // 2, WIDTH // 2, 3), 190, np.uint8)
            image[:, :4] = 0
            return image

    row = evaluate([photograph(tmp_path, "a")], [Hider()], BrightBox(), BrightFace()).rows[1]
    assert row["psnr_persons_shown"] > 20 > row["psnr_regions"]["persons"]


def test_a_method_may_be_given_another_picture_by_what_is_annotated(tmp_path: Path) -> None:
    class HeadMean(Dimmer):
        def prepared(self, image: np.ndarray, annotation: Annotation) -> np.ndarray:
            return np.full_like(image, len(annotation.heads) * 8)

        def encode(self, image: np.ndarray) -> bytes:
            return bytes(int(image.mean()))

        def decode(self, data: bytes) -> np.ndarray:
            return np.full((HEIGHT, WIDTH, 3), 200, np.uint8)

    row = evaluate([photograph(tmp_path, "a")], [HeadMean()], BrightBox(), BrightFace()).rows[1]
    assert row["bpp_mean"] == 8 * 8 / (WIDTH * HEIGHT)
    assert row["person_ap50"] == 1.0


def test_bits_have_a_sample_deviation(tmp_path: Path) -> None:
    class Growing(Dimmer):
        def encode(self, image: np.ndarray) -> bytes:
            return b"\x01" * (100 if image.mean() > 150 else 200)

    images = [photograph(tmp_path, "a", 200), photograph(tmp_path, "b", 120)]
    row = evaluate(images, [Growing()], BrightBox(), BrightFace()).rows[1]
    assert row["bpp_mean"] == 1.5
    assert row["bpp_std"] == pytest.approx(np.sqrt(0.5))


def test_persons_are_scored_only_where_humans_drew_them(tmp_path: Path) -> None:
    images = [photograph(tmp_path, "a"), photograph(tmp_path, "b", person_boxes="none")]
    evaluation = evaluate(images, [], BrightBox(), BrightFace())
    assert (evaluation.images, evaluation.person_images) == (2, 1)
    assert (evaluation.rows[0]["person_tp"], evaluation.rows[0]["face_tp"]) == (1, 2)


def test_repeats_are_pooled_and_the_warm_up_left_out(tmp_path: Path) -> None:
    images = [photograph(tmp_path, "a"), photograph(tmp_path, "b")]
    codec = Dimmer()
    evaluate(images, [codec], BrightBox(), BrightFace(), EvaluationSettings(repeats=3))
    assert codec.calls == 2 * 3 + 1


def test_resizing_carries_the_boxes_along(tmp_path: Path) -> None:
    class Stretched(BrightBox):
        def detect(self, image: np.ndarray, *, confidence: float) -> Detections:
            assert image.shape == (40, 40, 3)
            return Detections.from_arrays([[4, 8, 12, 36]], [0.9], image.shape[:2])

    settings = EvaluationSettings(resize=(40, 40))
    evaluation = evaluate([photograph(tmp_path, "a")], [], Stretched(), BrightFace(), settings)
    assert evaluation.rows[0]["person_tp"] == 1


def test_what_breaks_on_an_image_is_named_and_leaves_all_rows(tmp_path: Path) -> None:
    class Fragile(Dimmer):
        def encode(self, image: np.ndarray) -> bytes:
            if image.mean() < 130:
                raise RuntimeError("too\ndark")
            return super().encode(image)

    good, dark, gone = (photograph(tmp_path, name) for name in ("good", "dark", "gone"))
    dark = photograph(tmp_path, "dark", 120)
    gone.image_path.unlink()
    cut = photograph(tmp_path, "cut")
    cut.image_path.write_bytes(cut.image_path.read_bytes()[:40])
    other = photograph(tmp_path, "other")
    Image.new("RGB", (10, 10)).save(other.image_path)
    seen: list[str] = []
    evaluation = evaluate(
        [gone, cut, other, dark, good],
        [Fragile()],
        BrightBox(),
        BrightFace(),
        on_image=lambda annotation: seen.append(annotation.image_id),
    )
    reasons = {failure.image: failure.reason for failure in evaluation.failures}
    assert list(reasons) == ["gone", "cut", "other", "dark"]
    assert reasons["dark"] == "RuntimeError: too dark"
    assert "found 10×10 px where boxes are of 40×20 px" in reasons["other"]
    assert str(tmp_path) not in reasons["gone"]
    assert evaluation.images == 1
    assert [row["person_tp"] for row in evaluation.rows] == [1, 1]
    assert seen == ["gone", "cut", "other", "dark", "good"]


def test_no_image_at_all_is_an_error(tmp_path: Path) -> None:
    gone = photograph(tmp_path, "gone")
    gone.image_path.unlink()
    with pytest.raises(RoiCodecError, match=r"found 1 that failed; the first is gone: "):
        evaluate([gone], [], BrightBox(), BrightFace())


def test_settings_are_checked() -> None:
    with pytest.raises(UsageError, match="at least one repeat"):
        EvaluationSettings(repeats=0)


def test_rows_are_plain_json_and_the_table_shows_each(tmp_path: Path) -> None:
    codecs = [Dimmer(), *parse_baselines(["jpeg:1"])]
    evaluation = evaluate([photograph(tmp_path, "a")], codecs, BrightBox(), BrightFace())
    rows = json.loads(json.dumps(evaluation.rows, allow_nan=False))
    lines = format_table(rows).splitlines()
    assert [line.split()[0] for line in lines] == ["method", "original", "dimmer", "jpeg"]


def test_a_limit_spreads_over_the_split(tmp_path: Path) -> None:
    images = AnnotationSet(
        tuple(
            photograph(tmp_path, str(index), person_boxes="none" if index == 4 else "human")
            for index in range(10)
        )
    )

    def chosen(**options: object) -> list[str]:
        picked = choose(images, **({"all_images": False, "limit": None} | options))  # type: ignore[arg-type]
        return [image.image_id for image in picked]

    assert chosen(limit=3) == ["0", "5", "9"]
    assert chosen(limit=1) == ["0"]
    assert len(chosen()) == 9
    assert len(chosen(all_images=True, limit=99)) == 10
    with pytest.raises(RoiCodecError, match="--all-images"):
        choose(AnnotationSet(images[4:5]), all_images=False, limit=None)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of three photographs, and detectors that need no weights."""
    folder = tmp_path / "photographs"
    (folder / "images" / "val").mkdir(parents=True)
    box = {"tag": "person", "vbox": [4, 4, 8, 14], "hbox": [6, 4, 4, 4]}
    lines = []
    for name in ("a", "b", "c"):
        photograph(folder / "images" / "val", name)
        line = {"ID": name, "gtboxes": [box], "width": WIDTH, "height": HEIGHT}
        lines.append(json.dumps(line))
    (folder / "annotation_val.odgt").write_text("\n".join(lines))
    (tmp_path / "person.pt").write_bytes(b"weights")
    monkeypatch.setitem(FACE_DETECTORS, "bright", lambda argument, device: BrightFace())

    class Detector(BrightBox):
        def __init__(self, weights: Path, **options: object) -> None:
            pass

        def detect(self, image: np.ndarray, *, confidence: float = 0.25) -> Detections:
            return super().detect(image, confidence=confidence)

    monkeypatch.setattr("roi_codec_ros.perception.graph_detector.PersonDetector", Detector)
    return folder


def arguments(data: Path, *more: str) -> list[str]:
    weights = str(data.parent / "person.pt")
    fixed = ["--split", "val", "--detector", weights, "--face-detector", "bright"]
    return ["evaluate", "--data", str(data), *fixed, "--threads", "1", *more]


def test_the_command_measures_models_and_baselines(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    model = untrained_model("nano")
    model.save(tmp_path / "nano.safetensors")
    codecs = ["--models", str(tmp_path / "nano.safetensors"), "--baselines", "jpeg:5"]
    (data / "images" / "val" / "b.png").write_bytes(b"")
    result = tmp_path / "result.json"
    status = main(arguments(data, *codecs, "--json", str(result)))
    printed = capsys.readouterr()
    assert status == 0, printed.err
    report = json.loads(result.read_text())
    assert (report["dataset"], report["split"], report["images"]) == ("photographs", "val", 2)
    assert [failure["image"] for failure in report["failures"]] == ["b"]
    assert [row["method"] for row in report["rows"]] == ["original", model.name, "jpeg"]
    assert report["rows"][1]["model_id"] == model.id.hex()
    assert report["rows"][1]["preset"] == "nano"
    assert report["rows"][2]["person_ap50_ratio"] == 1.0
    assert report["machine"]["threads"] == 1
    assert str(tmp_path) not in json.dumps(report)
    assert "2 of 3 images measured; 1 failed" in printed.out
    assert "left out: b: expected a photograph, found an empty file" in printed.err


def test_qualities_are_rows_and_a_curve(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    untrained_model("nano").save(tmp_path / "nano.safetensors")
    model = ["--models", str(tmp_path / "nano.safetensors")]
    result = tmp_path / "result.json"
    rivals = ["--baselines", "hidden-jpeg:5"]
    asked = [*model, "--qualities=-4,0,4", *rivals, "--json", str(result)]
    assert main(arguments(data, *asked)) == 0, capsys.readouterr().err
    report = json.loads(result.read_text())
    presets = [row["preset"] for row in report["rows"]]
    assert presets == ["", "nano -4", "nano", "nano +4", "5"]
    bits = [row["bpp_mean"] for row in report["rows"][1:4]]
    assert bits == sorted(bits)
    (rate,) = report["bd_rate"]
    assert (rate["test"], rate["anchor"]) == (report["rows"][1]["method"], "hidden-jpeg")
    untrained_model("paper-128-2").save(tmp_path / "paper.safetensors")
    paper = ["--models", str(tmp_path / "paper.safetensors"), "--qualities=1"]
    assert main(arguments(data, *paper)) == 2
    assert "expected quality 0 for" in capsys.readouterr().err


@pytest.mark.parametrize("tag", [1, 3, 6, 8])
def test_boxes_are_of_the_picture_as_it_is_shown(
    tag: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a phone's photograph in YOLO's layout, whose labels were drawn on what is seen."""
    root = tmp_path / "phone"
    for name in ("images", "labels"):
        (root / name / "val").mkdir(parents=True)
    (root / "data.yaml").write_text("names: [person]")
    (root / "labels" / "val" / "a.txt").write_text("0 0.2 0.55 0.2 0.7\n")  # PERSON
    image = Image.new("RGB", (WIDTH, HEIGHT), (40, 40, 40))
    image.paste((255, 255, 255), tuple(map(int, PERSON)))
    turns = {
        3: Image.Transpose.ROTATE_180,
        6: Image.Transpose.ROTATE_90,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = tag
    (image.transpose(turns[tag]) if tag in turns else image).save(
        root / "images" / "val" / "a.png", exif=exif
    )

    class WhiteBox:
        def __init__(self, weights: Path, **options: object) -> None:
            pass

        def detect(self, image: np.ndarray, *, confidence: float = 0.25) -> Detections:
            if image.max() < 200:
                return Detections.from_arrays([], [], image.shape[:2])
            rows, columns = np.nonzero(image[..., 0] > 200)
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            return Detections.from_arrays([box], [0.9], image.shape[:2])

    monkeypatch.setattr("roi_codec_ros.perception.graph_detector.PersonDetector", WhiteBox)
    result = tmp_path / "result.json"
    assert main(arguments(root, "--json", str(result))) == 0
    assert json.loads(result.read_text())["rows"][0]["person_ap50"] == 1.0


@pytest.mark.parametrize(
    ("more", "status", "complaint"),
    [
        (["--baselines", "jpeg"], 2, "expected a baseline such as"),
        (["--face-detector", "eyes"], 2, "expected a face detector of"),
        (["--models", "no-such-model"], 1, "no-such-model"),
        (["--device", "abacus"], 2, "expected a torch device, found 'abacus'"),
        (["--split", "test"], 1, "expected annotation_test.odgt"),
        (["--models", "fast", "fast"], 2, "expected every model once, found fast fast"),
        (
            ["--models", "fast", "--model-devices", "cpu", "cpu"],
            2,
            "expected every device of the models once, found cpu cpu",
        ),
        (["--json", "."], 1, "cannot write .: it is a folder"),
        (["--resume"], 2, "expected --json FILE"),
        (["--repeats", "10", "--workers", "2"], 2, "expected --repeats with one worker"),
    ],
)
def test_what_a_user_gets_wrong_is_one_line(
    data: Path, capsys: pytest.CaptureFixture[str], more: list[str], status: int, complaint: str
) -> None:
    assert main(arguments(data, *more)) == status
    message = capsys.readouterr().err
    assert complaint in message
    assert len(message.splitlines()) == 1


def test_arguments_that_make_no_sense_are_wrong_use(data: Path) -> None:
    for wrong in (
        ["--limit", "0"],
        ["--detector-size", "0"],
        ["--resize", "512"],
        ["--repeats", "many"],
    ):
        with pytest.raises(SystemExit) as caught:
            main(arguments(data, *wrong))
        assert caught.value.code == 2


def test_a_run_goes_on_where_it_stopped(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = tmp_path / "result.json"
    jpeg = arguments(data, "--baselines", "jpeg:5", "--json", str(result))
    assert main(jpeg) == 0
    first = json.loads(result.read_text())
    kept = tmp_path / "result.images.jsonl"
    lines = kept.read_text().splitlines()
    kept.write_text("\n".join(lines)[:-20])  # stopped while it wrote
    result.unlink()

    assert main([*jpeg, "--resume"]) == 0
    assert "5 results of an earlier run" in capsys.readouterr().out
    second = json.loads(result.read_text())
    without_time = [
        [{k: v for k, v in row.items() if not k.endswith("_ms")} for row in report["rows"]]
        for report in (first, second)
    ]
    assert without_time[0] == without_time[1]

    assert main([*jpeg, "--resume"]) == 0
    assert "6 results of an earlier run" in capsys.readouterr().out
    assert json.loads(result.read_text()) == second  # times too

    photograph(data / "images" / "val", "a", brightness=150)
    assert main([*jpeg, "--resume"]) == 0
    assert "4 results of an earlier run" in capsys.readouterr().out

    assert main([*jpeg, "--resume", "--plus-one"]) == 0
    assert "earlier run" not in capsys.readouterr().out

    assert main(jpeg) == 0
    assert "earlier run" not in capsys.readouterr().out
    # What was measured before is not lost where --resume was forgotten.
    assert main([*jpeg, "--resume"]) == 0
    assert "6 results of an earlier run" in capsys.readouterr().out
    assert main([*jpeg, "--resume", "--plus-one"]) == 0
    assert "6 results of an earlier run" in capsys.readouterr().out


def test_results_are_kept_in_no_file_of_somebody_elses_and_by_one_run_at_a_time(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "result.images.jsonl"
    jpeg = arguments(data, "--baselines", "jpeg:5", "--json", str(tmp_path / "result.json"))
    kept.write_text("my own notes\n")
    assert main(jpeg) == 1
    assert f"expected to keep results in {kept}; found: another file" in capsys.readouterr().err
    assert kept.read_text() == "my own notes\n"
    kept.unlink()
    with ResultCache(kept, {}, resume=False):
        assert main(jpeg) == 1
    assert "expected no other run to keep results in" in capsys.readouterr().err


def test_similarity_is_reported_whole_and_by_region(tmp_path: Path) -> None:
    item = photograph(tmp_path, "large")
    Image.new("RGB", (200, 180), (200,) * 3).save(item.image_path)
    item = replace(item, width=200, height=180)
    row = evaluate([item], parse_baselines(["jpeg:90"]), BrightBox(), BrightFace()).rows[1]
    assert row["ms_ssim_mean"] == pytest.approx(1.0, abs=1e-3)
    assert row["ms_ssim_regions"]["background"] == pytest.approx(1.0, abs=1e-3)
    assert row["ms_ssim_regions"]["heads"] == pytest.approx(1.0, abs=1e-3)


def test_tables_figures_and_the_picture_are_written(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    untrained_model("nano").save(tmp_path / "nano.safetensors")
    models = ["--models", str(tmp_path / "nano.safetensors")]
    out = tmp_path / "new" / "folder"
    outputs = ["--tables", f"{out}/t.md", "--figures", str(out), "--picture", f"{out}/p.png"]
    assert main(arguments(data, *models, *outputs, "--picture-image", "b")) == 0
    assert {path.name for path in out.iterdir()} == {
        "figure4.png",
        "figure5.png",
        "p.png",
        "t.md",
    }
    assert "### Table I: true and false positive face detections" in (out / "t.md").read_text()
    assert main(arguments(data, *outputs)) == 2  # no model to picture


def test_annotated_boxes_take_the_place_of_what_is_found(tmp_path: Path) -> None:
    """Told of a sleeve as a head, the encoder hides that and shows the face."""
    image = pytest.importorskip("skimage.data").astronaut()
    sleeve, none = np.array([[64, 416, 112, 464]], np.float32), np.zeros((0, 4), np.float32)
    annotation = Annotation(tmp_path / "a.png", "a", 512, 512, none, sleeve, none)
    model = load_model("fast")

    def hidden(told: str) -> tuple[np.ndarray, AnnotatedRegions]:
        method = AnnotatedRegions(model, told, threads=1)
        return method.hidden(method.encode(method.prepared(image, annotation))), method

    mask, method = hidden("heads")
    wanted = np.zeros((512, 512), bool)
    wanted[416:464, 64:112] = True
    assert (mask == wanted).all()
    assert (method.name, method.preset) == ("fast", "fast annotated heads")
    mask, _ = hidden("persons")  # there is none: the face is found as it ever is
    assert mask[85:155, 195:250].all() and not mask[wanted].any()
    mask, method = hidden("both")
    assert (mask == wanted).all()
    assert method.preset == "fast annotated heads and persons"


def test_only_models_with_blocks_can_be_told_of_boxes() -> None:
    with pytest.raises(UsageError, match=r"that code blocks .* found paper-128-2"):
        AnnotatedRegions(load_model("paper-128-2"), "both")
