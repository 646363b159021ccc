# SPDX-License-Identifier: Apache-2.0
"""Re-identification: its metrics on worked values, where faces are pasted, plug-ins, the whole."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.faces.face_embedders import (
    FACE_EMBEDDERS,
    make_face_embedder,
    register_face_embedder,
)
from roi_codec_ros.lab.privacy.probes import (
    Identity,
    find_identities,
    make_patch,
    paste,
    paste_probes,
)
from roi_codec_ros.lab.privacy.reidentification import (
    accepted_at_far,
    rank1_hits,
    reid_report,
    reidentify,
)
from roi_codec_ros.perception.detections import Detections

# --------------------------------------------------------------------------------- metrics, worked


def test_rank1_counts_who_is_nearest_to_himself() -> None:
    distances = np.array([[0.1, 0.5, 0.9], [0.4, 0.6, 0.7], [0.8, 0.3, 0.2]])
    assert rank1_hits(distances, np.array([0, 1, 2])).tolist() == [True, False, True]


def test_a_tie_is_no_hit() -> None:
    same = np.full((2, 3), 0.5)
    assert not rank1_hits(same, np.array([0, 2])).any()


def test_the_threshold_lets_one_in_a_thousand_impostors_in() -> None:
    # 2 probes, 1001 identities: 2000 impostor pairs, so that 2 may be accepted.
    distances = np.ones((2, 1001))
    truth = np.array([0, 1])
    distances[0, 0], distances[1, 1] = 0.29, 0.30
    distances[0, 5], distances[0, 6], distances[1, 7] = 0.1, 0.2, 0.3
    assert accepted_at_far(distances, truth).tolist() == [True, False]
    distances[0, 6] = 0.9  # one impostor fewer: the threshold is now the ones that are far
    assert accepted_at_far(distances, truth).tolist() == [True, True]


def test_with_few_pairs_no_impostor_gets_in() -> None:
    distances = np.array([[0.2, 0.4], [0.5, 0.45]])
    assert accepted_at_far(distances, np.array([0, 1])).tolist() == [True, False]
    assert accepted_at_far(distances, np.array([0, 1]), far=0.5).tolist() == [True, True]


# ----------------------------------------------------------------------------------------- pasting


def identity(colour: tuple[int, int, int], name: str = "a") -> Identity:
    """A face of 40 px in a patch of 80 × 60, in one colour, left eye black."""
    patch = np.full((60, 80, 3), colour, np.uint8)
    patch[20:24, 20:24] = 0
    face = np.array([10.0, 10.0, 50.0, 50.0], np.float32)
    return Identity(name, patch, face, np.array(colour, np.float32))


def test_a_probe_is_mirrored_scaled_and_of_other_brightness() -> None:
    source = identity((100, 100, 100))
    patch, face = make_patch(source, 20, np.random.default_rng(1))
    assert patch.shape == (30, 40, 3)
    np.testing.assert_allclose(face, [15, 5, 35, 25])
    assert patch[10:12, 28:30].mean() < 40 < patch[10:12, 10:12].mean()
    assert abs(int(patch[2, 2, 0]) - 100) > 10


def test_pasting_changes_the_ellipse_and_nothing_else() -> None:
    scene = np.zeros((100, 120, 3), np.uint8)
    paste(scene, np.full((40, 20, 3), 200, np.uint8), left=50, top=30)
    assert scene[50, 60].tolist() == [200, 200, 200]
    assert scene[30, 50].max() == 0  # corner of the patch
    inside = np.zeros((100, 120), bool)
    inside[30:70, 50:70] = True
    assert scene[~inside].max() == 0
    assert 0 < scene[32, 60, 0] < 200  # the feather


def test_probes_lie_where_they_are_said_to_and_not_over_another() -> None:
    scene = np.zeros((200, 300, 3), np.uint8)
    people = [identity((0, 250, 0)), identity((250, 0, 0))]
    wanted = [(0, 40), (1, 40), (1, 20)]
    pasted, probes = paste_probes(scene, people, wanted, np.random.default_rng(3))
    assert scene.max() == 0
    assert [(probe.identity, probe.size_px) for probe in probes] == wanted
    for probe in probes:
        x, y = ((probe.face[:2] + probe.face[2:]) / 2).astype(int)
        channel = 1 if probe.identity == 0 else 0
        assert pasted[y, x, channel] > 150
        assert pasted[y, x, 1 - channel] < 60
        assert np.sqrt(np.prod(probe.face[2:] - probe.face[:2])) == pytest.approx(probe.size_px)


def test_what_does_not_fit_is_left_out() -> None:
    scene = np.zeros((70, 90, 3), np.uint8)
    people = [identity((0, 250, 0)), identity((250, 0, 0))]
    _, probes = paste_probes(scene, people, [(0, 400), (0, 40), (1, 40)], np.random.default_rng(3))
    assert [(probe.identity, probe.size_px) for probe in probes] == [(0, 40)]


# --------------------------------------------------------------------------------------- the whole

COLOURS = [(250, 30, 30), (30, 250, 30), (30, 30, 250), (250, 250, 30)]


class MeanColour:
    """Recognises faces by their mean colour, its mean taken off."""

    name = "mean_colour"
    same_person_distance = 5.0

    def embed(self, image: np.ndarray, face: np.ndarray) -> np.ndarray:
        x0, y0, x1, y1 = face.round().astype(int)
        colour = image[y0:y1, x0:x1].reshape(-1, 3).mean(axis=0)
        return (colour - colour.mean()).astype(np.float32)


class Coloured:
    """Sees a face of 70 px wherever the picture is coloured in its middle."""

    name = "coloured"

    def detect(self, image: np.ndarray) -> Detections:
        seen = np.ptp(image[120, 160].astype(int)) > 100
        boxes = [[125, 85, 195, 155]] if seen else []
        return Detections.from_arrays(boxes, [0.99] * len(boxes), image.shape[:2])


class Grey:
    """A codec that takes all colour away, and with it identity."""

    name, preset, model_id = "grey", "none", None

    def encode(self, image: np.ndarray) -> bytes:
        return np.repeat(image.mean(axis=2).astype(np.uint8)[..., None], 3, axis=2).tobytes()

    def decode(self, data: bytes) -> np.ndarray:
        return np.frombuffer(data, np.uint8).reshape(240, 320, 3)


class Oracle:
    """An attacker who gives red pictures, whatever was sent."""

    name, steps, pairs = "latents", 1, 1

    def restore(self, data: bytes) -> np.ndarray:
        return np.full((240, 320, 3), (255, 0, 0), np.uint8)


def photograph(folder: Path, name: str, colour: tuple[int, int, int] | None) -> Annotation:
    pixels = np.full((240, 320, 3), 90, np.uint8)
    if colour is not None:
        pixels[75:165, 115:205] = colour
    Image.fromarray(pixels).save(folder / f"{name}.png")
    none = np.zeros((0, 4), np.float32)
    heads = np.array([[115, 75, 205, 165]], np.float32) if colour else none
    return Annotation(folder / f"{name}.png", name, 320, 240, none, heads, none)


def test_what_the_codec_takes_away_no_recognizer_finds(tmp_path: Path) -> None:
    faces = [photograph(tmp_path, str(n), colour) for n, colour in enumerate(COLOURS)]
    twice = photograph(tmp_path, "twice", COLOURS[0])
    scene = photograph(tmp_path, "scene", None)
    broken = photograph(tmp_path, "broken", None)
    broken.image_path.write_bytes(b"")
    identities, scenes = find_identities(
        [*faces, twice, broken, scene], Coloured(), MeanColour(), limit=10
    )
    assert [one.image_id for one in identities] == ["0", "1", "2", "3"]
    assert [one.image_id for one in scenes] == ["scene"]

    result = reidentify(identities, scenes, Grey(), MeanColour(), attackers=[Oracle()])
    report = reid_report(result)
    assert list(result.shown[0].crops) == [
        "original", "jpeg", "decoded", "negated", "attacker_latents"
    ]  # fmt: skip
    assert report["embedder"] == "mean_colour"
    assert report["identities"] == 4
    probes = report["probes"]
    assert probes == len(result.probes) > 8
    assert report["original"] == {"rank1": probes, "tar_at_far_1e3": probes}
    assert report["decoded"]["rank1"] == report["negated"]["rank1"] == 0
    assert report["attacker_latents"]["rank1"] < probes / 2
    assert report["jpeg"]["rank1"] > 0
    assert report["chance"] == probes / 4
    assert report["impostor_pairs"] == 3 * probes
    again = reidentify(identities, scenes, Grey(), MeanColour(), placements=2)
    places = [tuple(probe.face) for probe in again.probes]
    assert places[:probes] == [tuple(probe.face) for probe in result.probes]
    assert 2 * probes * 0.7 < len(set(places)) == len(places)
    sizes = report["by_size"]
    assert set(sizes) <= {"32", "48", "64", "96"}
    assert sum(counts["probes"] for counts in sizes.values()) == probes
    assert sum(counts["original"]["rank1"] for counts in sizes.values()) == probes
    json.dumps(report, allow_nan=False)


def test_the_limit_is_spread_over_the_split(tmp_path: Path) -> None:
    faces = [photograph(tmp_path, str(n), colour) for n, colour in enumerate(COLOURS)]
    identities, _ = find_identities(faces, Coloured(), MeanColour(), limit=2)
    assert [one.image_id for one in identities] == ["0", "3"]


def test_without_faces_or_scenes_there_is_nothing_to_measure(tmp_path: Path) -> None:
    people = [identity((9, 9, 9)), identity((99, 9, 9))]
    with pytest.raises(RoiCodecError, match="found 2 faces and 0 scenes"):
        reidentify(people, [], Grey(), MeanColour())
    unreadable = photograph(tmp_path, "scene", None)
    unreadable.image_path.write_bytes(b"")
    with pytest.raises(RoiCodecError, match="no room for any; the first failure is scene: "):
        reidentify(people, [unreadable], Grey(), MeanColour())


# --------------------------------------------------------------------------------------- embedders


def test_an_embedder_can_be_plugged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FACE_EMBEDDERS, "mean_colour", FACE_EMBEDDERS["dlib"])  # gone afterwards
    register_face_embedder("mean_colour")(lambda argument, device: MeanColour())
    assert make_face_embedder("mean_colour=x").name == "mean_colour"


def test_arguments_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a face embedder of dlib, facenet, found 'x'"):
        make_face_embedder("x")
    with pytest.raises(UsageError, match="expected dlib without an argument"):
        make_face_embedder("dlib=3")
    with pytest.raises(UsageError, match="expected facenet=PATH"):
        make_face_embedder("facenet")
    with pytest.raises(RoiCodecError, match="found no file at"):
        make_face_embedder(f"facenet={tmp_path / 'none.pt'}")


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    install = "pip install --no-deps dlib-bin face_recognition_models"
    with pytest.raises(RoiCodecError, match=f"cannot load the package dlib, for .*: {install}$"):
        make_face_embedder("dlib")


def test_facenet_refuses_other_weights(tmp_path: Path) -> None:
    pytest.importorskip("facenet_pytorch")
    (tmp_path / "weights.pt").write_bytes(b"not weights")
    with pytest.raises(RoiCodecError, match="expected FaceNet's weights in ") as caught:
        make_face_embedder(f"facenet={tmp_path / 'weights.pt'}")
    assert "\n" not in str(caught.value)


def test_dlib_knows_the_astronaut_in_a_mirror_and_nobody_else() -> None:
    for package in ("dlib", "face_recognition_models"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    image = pytest.importorskip("skimage.data").astronaut()
    embedder = make_face_embedder("dlib")
    face = np.array([175, 65, 270, 175], np.float32)
    mirrored = np.array([512 - 270, 65, 512 - 175, 175], np.float32)
    one, same = embedder.embed(image, face), embedder.embed(image[:, ::-1], mirrored)
    other = embedder.embed(image, face + 250)
    assert one.shape == (128,)
    assert np.linalg.norm(one - same) < 0.5 < np.linalg.norm(one - other)
