# SPDX-License-Identifier: Apache-2.0
"""`roi-codec anonymize` for pictures and folders: heads go, everything else stays."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from roi_codec_ros.cli import main
from roi_codec_ros.common.graph_runtime import find_graph
from roi_codec_ros.common.photographs import read_photograph
from roi_codec_ros.recordings.film_finder import film_finders
from roi_codec_ros.recordings.hiding import judge
from roi_codec_ros.recordings.jpegs import without_metadata
from roi_codec_ros.regions import RegionFinder

pytest.importorskip("av")
FACE = (slice(80, 160), slice(185, 265))  # of the astronaut, rows and columns in pixels


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return np.asarray(pytest.importorskip("skimage.data").astronaut())


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    tags[0x010F] = "a maker"
    tags.get_ifd(0x8825)[2] = (48.0, 8.0, 0.0)  # latitude
    return tags


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    error = np.mean((first.astype(float) - second) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


@cache
def finders() -> list[RegionFinder]:
    """Either form of the model: the command takes what is faster here."""
    graphs = [find_graph(name) for name in ("regions", "regions-int8")]
    return [film_finders(graph, integers=False)() for graph in graphs]


def outside(image: np.ndarray) -> np.ndarray:
    """Which pixels are in no block, nor beside one, that the network takes for a head's."""
    hidden = np.logical_or.reduce([judge(image, finder).found for finder in finders()])
    around = cv2.dilate(hidden.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    mask = around.repeat(16, axis=0).repeat(16, axis=1)[: image.shape[0], : image.shape[1]]
    assert mask[FACE].all() and mask.mean() < 0.5
    return ~mask


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_a_jpeg_keeps_its_tables_and_what_is_no_head(tmp_path, astronaut, sampling):
    source, target = tmp_path / "in.jpg", tmp_path / "out.jpg"
    Image.fromarray(astronaut).save(source, quality=85, subsampling=sampling, exif=exif(1))

    assert main(["anonymize", str(source), str(target), "--json", str(tmp_path / "j.json")]) == 0

    before, after = Image.open(source), Image.open(target)
    assert after.quantization == before.quantization
    assert not after.getexif()
    assert b"a maker" not in target.read_bytes()
    shown, hidden = read_photograph(source), read_photograph(target)
    kept = outside(shown)
    assert psnr(shown[kept], hidden[kept]) > 45
    assert np.abs(hidden[FACE].astype(float) - shown[FACE]).mean() > 15
    (camera,) = json.loads((tmp_path / "j.json").read_bytes())["cameras"]
    assert camera["heads"] >= 1 and camera["frames"] == 1


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_picture_stays_turned_as_it_is(tmp_path, astronaut, orientation):
    turns = {3: 2, 6: 1}[orientation]
    stored = np.rot90(astronaut[:500, :490], turns)  # sides that are no whole blocks
    source, target = tmp_path / "in.jpg", tmp_path / "out.jpg"
    Image.fromarray(stored).save(source, quality=95, exif=exif(orientation))

    assert main(["anonymize", str(source), str(target)]) == 0

    assert dict(Image.open(target).getexif()) == {0x0112: orientation}
    shown, hidden = read_photograph(source), read_photograph(target)
    assert hidden.shape == (500, 490, 3)
    kept = outside(shown)
    assert psnr(shown[kept], hidden[kept]) > 45
    assert np.abs(hidden[FACE].astype(float) - astronaut[FACE]).mean() > 15


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.png", "RGBA"), ("a.png", "L"), ("a.png", "P"), ("a.webp", "RGB"), ("a.tif", "RGB")],
)
def test_formats_without_loss_lose_nothing_outside_heads(tmp_path, astronaut, name, mode):
    source, target = tmp_path / name, tmp_path / "out" / name
    picture = Image.fromarray(astronaut).convert(mode)
    options = {"lossless": True} if name.endswith("webp") else {}
    picture.save(source, **options)

    assert main(["anonymize", str(source), str(target)]) == 0

    before, after = read_photograph(source), read_photograph(target)
    kept = outside(before)
    np.testing.assert_array_equal(after[kept], before[kept])
    assert np.abs(after[FACE].astype(float) - before[FACE]).mean() > 15
    assert Image.open(target).format == Image.open(source).format


def test_a_folder_keeps_names_leaves_out_what_is_broken_and_goes_on_after_a_kill(
    tmp_path, astronaut, capsys
):
    source, target = tmp_path / "in", tmp_path / "out"
    (source / "deep").mkdir(parents=True)
    rocket = pytest.importorskip("skimage.data").rocket()
    Image.fromarray(astronaut).save(source / "deep" / "person.png")
    Image.fromarray(rocket).save(source / "things.jpg", comment=b"the maker's comment")
    (source / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    (source / "notes.txt").write_text("names of persons")

    assert main(["anonymize", str(source), str(target)]) == 0

    said = capsys.readouterr()
    assert ": 1, the first: broken.jpg" in said.err
    assert "not copied, since not pictures: 1, the first: notes.txt" in said.err
    written = sorted(str(p.relative_to(target)) for p in target.rglob("*") if p.suffix)
    assert [name for name in written if name[0] != "."] == ["deep/person.png", "things.jpg"]
    assert b"the maker's comment" not in (target / "things.jpg").read_bytes()
    (target / "deep" / "person.png").unlink()
    stayed = (target / "things.jpg").stat().st_mtime_ns

    assert main(["anonymize", str(source), str(target)]) == 0

    assert (target / "deep" / "person.png").exists()
    assert (target / "things.jpg").stat().st_mtime_ns == stayed


def test_a_second_picture_behind_the_first_goes(astronaut):
    """Phones put a whole film, or the picture before blurring, behind the end of a JPEG."""
    file = io.BytesIO()
    Image.fromarray(astronaut).save(file, "JPEG", progressive=True)

    assert without_metadata(file.getvalue() + file.getvalue()) == without_metadata(file.getvalue())


def test_a_picture_is_not_written_into_its_own_folder(tmp_path, astronaut, capsys):
    Image.fromarray(astronaut).save(tmp_path / "a.png")

    assert main(["anonymize", str(tmp_path), str(tmp_path / "out")]) == 1

    assert "expected a folder outside of" in capsys.readouterr().err
    assert not Path(tmp_path / "out").exists()
