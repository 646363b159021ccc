# SPDX-License-Identifier: Apache-2.0
"""Regions are taught by boxes and teachers; the graph that ships computes what was trained."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
data = pytest.importorskip("skimage.data")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from PIL import Image  # noqa: E402

from roi_codec_ros.common.errors import RoiCodecError  # noqa: E402
from roi_codec_ros.common.model_files import find_file  # noqa: E402
from roi_codec_ros.lab.datasets.annotations import Annotation  # noqa: E402
from roi_codec_ros.lab.training.region_batches import (  # noqa: E402
    RegionBatches,
    RegionCropSettings,
)
from roi_codec_ros.lab.training.region_labels import (  # noqa: E402
    HEAD,
    PERSON,
    RegionLabels,
    block_targets,
    region_labels,
)
from roi_codec_ros.lab.training.region_model import (  # noqa: E402
    choose_thresholds,
    hidden_heads,
    open_finder,
    region_files,
    stored_arrays,
)
from roi_codec_ros.lab.training.region_network import RegionNetwork  # noqa: E402
from roi_codec_ros.lab.training.region_run import held_out  # noqa: E402
from roi_codec_ros.lab.training.region_trainer import (  # noqa: E402
    RegionTrainer,
    RegionTrainingConfig,
)
from roi_codec_ros.perception.detections import Detections  # noqa: E402
from roi_codec_ros.regions import Regions, Thresholds, load_regions  # noqa: E402
from roi_codec_ros.regions.finder import Faces, halved  # noqa: E402
from roi_codec_ros.regions.graph import stored_weights, trained_weights  # noqa: E402

NOBODY = Detections((512, 512))
NANODET = Path(os.environ.get("ROI_CODEC_TEST_DETECTOR", "/nowhere")).parent / "nanodet"


def boxes(*rows: list[float], columns: int = 5) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, columns)


def labels(persons=(), heads=(), unknown=()) -> RegionLabels:
    return RegionLabels(boxes(*persons), boxes(*heads), boxes(*unknown, columns=4))


def annotation(path: Path, persons=(), heads=(), **about: str) -> Annotation:
    return Annotation(
        image_path=path,
        image_id=path.stem,
        width=512,
        height=512,
        persons=boxes(*persons, columns=4),
        heads=boxes(*heads, columns=4),
        ignored=boxes(columns=4),
        **about,
    )


@pytest.fixture
def shipped() -> dict[str, np.ndarray]:
    return stored_arrays(find_file("regions", ".onnx").read_bytes())


# ------------------------------------------------------------------------------------------ labels


def test_a_person_that_nobody_marked_is_learnt_from_the_teacher():
    marked = annotation(Path("a.jpg"), persons=[[10, 10, 60, 200]], person_boxes="human")
    found = Detections.from_arrays(
        [[12, 12, 61, 198], [300, 50, 360, 250], [400, 50, 460, 250]], [0.9, 0.8, 0.1], (512, 512)
    )

    taught = region_labels(marked, found, NOBODY)

    np.testing.assert_allclose(taught.persons[:, :4], [[10, 10, 60, 200], [300, 50, 360, 250]])
    np.testing.assert_allclose(taught.persons[:, 4], [1.0, 0.92], atol=1e-6)


def test_where_a_standing_person_has_no_head_box_one_is_estimated_and_the_top_is_unsure():
    marked = annotation(Path("a.jpg"), persons=[[100, 40, 160, 240]])

    taught = region_labels(marked, NOBODY, NOBODY)

    (head,) = taught.heads
    assert head[4] == pytest.approx(0.7)
    assert 100 < head[0] < 130 < head[2] < 160 and head[1] == 40 and head[3] == 70
    np.testing.assert_allclose(taught.unknown, [[100, 40, 160, 100]])


def test_faces_that_the_teacher_is_sure_of_become_heads_and_others_unknown():
    boxes = [[100, 100, 200, 200], [300, 100, 400, 200]]
    faces = Detections.from_arrays(boxes, [0.9, 0.4], (512, 512))

    taught = region_labels(annotation(Path("a.jpg")), NOBODY, faces)

    np.testing.assert_allclose(taught.heads, [[85, 60, 215, 212, 1.0]])
    np.testing.assert_allclose(taught.unknown, [[285, 60, 415, 212]])


def test_targets_mark_blocks_of_heads_and_persons_and_leave_edges_out():
    taught = labels(
        persons=[[32, 16, 64, 112, 1.0]],
        heads=[[40, 16, 57, 33, 1.0]],
        unknown=[[80, 0, 120, 40]],
    )

    wanted, prices = block_targets(taught, 16, 16, 8)

    assert np.argwhere(wanted[HEAD]).tolist() == [
        *([2, column] for column in (5, 6)),
        *([3, column] for column in (5, 6)),
    ]
    assert prices[HEAD][2, 7] == 0  # an eighth of it: neither a head nor none
    assert prices[HEAD][0, 10] == 0 and prices[HEAD][2, 5] > 1
    assert wanted[PERSON][4:12, 5:7].min() == 1
    assert wanted[PERSON][2, 4] == 0 and prices[PERSON][2, 4] < 1  # a corner of the box
    assert wanted[PERSON][:, :3].max() == 0 and prices[PERSON][15, 0] == 1


def test_what_surrounds_a_head_is_taught_not_to_be_one():
    taught = labels(heads=[[64, 64, 80, 80, 1.0]], unknown=[[80, 64, 100, 80]])

    _, prices = block_targets(taught, 16, 16, 8)

    assert prices[HEAD][8, 7] > prices[HEAD][8, 8] > prices[HEAD][8, 4] == 1
    assert prices[HEAD][8, 10] == 0  # where nobody knows, still nothing


def test_thresholds_are_chosen_on_photographs_that_are_not_trained_on():
    chosen_on, trained_on = held_out(list(range(1972)))

    assert 190 < len(chosen_on) < 225 and sorted([*chosen_on, *trained_on]) == list(range(1972))
    assert held_out([1, 2, 3]) == ([1, 2, 3], [1, 2, 3])  # too few


def test_boxes_move_with_the_crop():
    mirrored = np.array([[-0.5, 0, 256], [0, 0.5, 0]])

    moved = labels(persons=[[100, 40, 160, 240, 1.0]]).moved(mirrored)

    np.testing.assert_allclose(moved.persons, [[176, 20, 206, 120, 1.0]])


# ----------------------------------------------------------------------------------------- network


def test_the_graph_computes_what_was_trained(shipped):
    astronaut = pytest.importorskip("skimage.data").astronaut()
    network = RegionNetwork()
    network.load_state_dict(
        {k.removeprefix("map."): torch.tensor(v) for k, v in shipped.items() if "map." in k}
    )
    card = {"thresholds": vars(Thresholds())}
    files = region_files({**shipped, **network.arrays()}, card, [astronaut])
    with torch.inference_mode():
        x = torch.from_numpy(halved(astronaut)).permute(2, 0, 1)[None].float()
        wanted = network.eval()(x)[0].sigmoid().numpy()

    found = open_finder(files["regions"], "regions").find(astronaut)
    rounded = open_finder(files["regions-int8"], "regions-int8").find(astronaut)

    np.testing.assert_allclose(found.heads, wanted[0], atol=0.01)
    np.testing.assert_allclose(found.persons, wanted[1], atol=0.01)
    assert np.abs(rounded.persons - wanted[1]).mean() < 0.1
    assert rounded.faces.score.max() == found.faces.score.max() > 0.8  # faces stay in float32
    assert len(files["regions-int8"]) < len(files["regions"])


def test_weights_that_graphs_hold_are_those_that_were_trained(shipped):
    again = trained_weights(stored_weights(shipped))

    assert again.keys() == shipped.keys()
    for name, value in shipped.items():
        np.testing.assert_allclose(again[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not NANODET.is_dir(), reason="NanoDet's files are not here")
def test_files_are_written_anew_without_training(tmp_path, shipped):
    from roi_codec_ros.cli import main

    (tmp_path / "images" / "train").mkdir(parents=True)
    Image.fromarray(data.astronaut()).save(tmp_path / "images" / "train" / "a.png")
    head = {"tag": "person", "fbox": [40, 10, 420, 500], "hbox": [175, 40, 110, 160]}
    line = json.dumps({"ID": "a", "gtboxes": [head]})
    (tmp_path / "annotation_train.odgt").write_text(line + "\n")
    out = tmp_path / "out"
    teachers = ["--yunet", str(NANODET.parent / "yunet_n_640.onnx"), "--nanodet", str(NANODET)]
    call = ["train-regions", "--data", str(tmp_path), *teachers, "--out", str(out)]

    assert main([*call, "--no-training"]) == 2  # of what?
    start = str(find_file("regions", ".onnx"))
    assert main([*call, "--no-training", "--init-from", start, "--threads", "1"]) == 0

    written = stored_arrays((out / "regions.onnx").read_bytes())
    np.testing.assert_allclose(
        written["map.stem.weight"], shipped["map.stem.weight"], rtol=0.01, atol=1e-4
    )
    card = load_regions(out / "regions-int8.onnx", threads=1).card
    assert card["training"] == load_regions(start, threads=1).card["training"]
    assert card["on_photographs_held_out"]["recall"] == 1.0


@pytest.mark.skipif(not NANODET.is_dir(), reason="NanoDet's files are not here")
def test_nanodet_is_read_and_finds_a_person():
    from roi_codec_ros.lab.training.nanodet import NanoDet

    astronaut = pytest.importorskip("skimage.data").astronaut()

    found = NanoDet(NANODET).detect(astronaut, confidence=0.3)

    assert found.score.max() > 0.6
    assert (
        found.xyxy[found.score.argmax(), 2:] - found.xyxy[found.score.argmax(), :2]
    ).min() > 250


def test_files_of_another_network_are_refused(tmp_path):
    (tmp_path / "nanodet.json").write_text('{"weightsManifest": [{"weights": []}]}')
    (tmp_path / "nanodet.bin").write_bytes(b"")

    with pytest.raises(RoiCodecError, match="expected NanoDet's PartitionedCall/split"):
        RegionNetwork().start_from_nanodet(tmp_path)
    with pytest.raises(RoiCodecError, match=r"expected a TensorFlow\.js model"):
        RegionNetwork().start_from_nanodet(tmp_path / "nowhere")


# ----------------------------------------------------------------------------------------- a run


class OnePhotograph:
    def __init__(self, image: np.ndarray) -> None:
        self._image = image

    def read(self, annotation: Annotation) -> np.ndarray:
        return self._image


def batches() -> RegionBatches:
    astronaut = pytest.importorskip("skimage.data").astronaut()
    marked = annotation(
        Path("astronaut.png"), persons=[[40, 10, 460, 511]], heads=[[150, 20, 290, 210]]
    )
    taught = region_labels(marked, NOBODY, NOBODY)
    settings = RegionCropSettings(size=128)
    return RegionBatches(OnePhotograph(astronaut), [marked], [taught], settings)


def test_the_same_generator_draws_the_same_batch():
    first, again = (batches().batch(6, np.random.default_rng(7)) for _ in range(2))

    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.wanted, again.wanted)
    assert first.images.shape == (6, 128, 128, 3) and first.wanted.shape == (6, 2, 16, 16)
    assert 0 < first.wanted[:, PERSON].mean() < 1


def test_a_run_learns_and_goes_on_where_it_was_stopped(tmp_path, shipped):
    def trainer(steps: int) -> RegionTrainer:
        network = RegionNetwork()
        network.load_state_dict(
            {k.removeprefix("map."): torch.tensor(v) for k, v in shipped.items() if "map." in k}
        )
        config = RegionTrainingConfig(steps=steps, batch_size=2, warm_up_steps=1)
        return RegionTrainer(config, network, batches(), tmp_path / "checkpoint.pt")

    steps = []
    run = trainer(2)
    run.run(steps.append)
    resumed = trainer(4)
    resumed.resume()

    assert run.step == resumed.step == len(steps) == 2
    assert resumed.progress() == 0.5
    for name, value in resumed.averaged().state_dict().items():
        torch.testing.assert_close(value, run.averaged().state_dict()[name])
    moved = run.network.state_dict()["output.weight"].numpy() - shipped["map.output.weight"]
    assert np.abs(moved).max() > 1e-6


# -------------------------------------------------------------------------------------- thresholds


def test_thresholds_hide_the_heads_that_there_are_and_as_little_else_as_they_can():
    heads = np.zeros((16, 16), np.float32)
    heads[2:6, 2:6] = 0.97  # a head
    heads[10:14, 10:14] = 0.85  # none
    found = [Regions(heads, np.zeros_like(heads), Faces())]
    taught = [labels(heads=[[32, 32, 96, 96, 1.0]])]

    chosen, figures = choose_thresholds(found, taught)

    assert chosen.head == pytest.approx(0.95) or chosen.head == pytest.approx(0.9)
    assert figures == {"recall": 1.0, "in_vain": 0.0}
    loose = Thresholds(head=0.6, doubtful_head=0.6)
    assert hidden_heads(found, taught, loose) == (1.0, pytest.approx(16 / 256))
