# SPDX-License-Identifier: Apache-2.0
"""The standard codecs and how they are asked for."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.evaluation.baselines import parse_baselines

needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")


def smooth_image(height: int = 60, width: int = 91) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    planes = [rows * 2, columns * 2, rows + columns]
    return np.stack(planes, axis=-1).astype(np.uint8)


@needs_avif
def test_specifications_name_their_codecs_in_order() -> None:
    codecs = parse_baselines(["jpeg:1,10", "av1:5", "av1@10:1", "av1@6:7"])
    assert [(codec.name, codec.preset) for codec in codecs] == [
        ("jpeg", "1"),
        ("jpeg", "10"),
        ("av1", "5"),
        ("av1@10", "1"),
        ("av1", "7"),
    ]
    assert all(codec.model_id is None for codec in codecs)


@pytest.mark.parametrize(
    "specification", ["jpeg", "jpeg:", "jpeg:1,", "jpeg:x", "jpeg:-1", "jpeg:101", "jpeg:1.5"]
)
def test_what_is_no_specification(specification: str) -> None:
    with pytest.raises(UsageError, match="expected a baseline such as"):
        parse_baselines([specification])


def test_wrong_codecs_and_speeds() -> None:
    with pytest.raises(UsageError, match="expected a baseline of jpeg, av1, found 'webp'"):
        parse_baselines(["webp:1"])
    with pytest.raises(UsageError, match="expected no speed for jpeg"):
        parse_baselines(["jpeg@3:1"])
    with pytest.raises(UsageError, match="jpeg:5 twice"):
        parse_baselines(["jpeg:1,5", "jpeg:5"])


@needs_avif
def test_av1_speed_has_ends() -> None:
    with pytest.raises(UsageError, match="expected an AV1 speed of 0 to 10, found 11"):
        parse_baselines(["av1@11:1"])


@needs_avif
@pytest.mark.parametrize("specification", ["jpeg:90", "av1:90"])
def test_round_trip(specification: str) -> None:
    (codec,) = parse_baselines([specification])
    image = smooth_image()
    decoded = codec.decode(codec.encode(image))
    assert (decoded.shape, decoded.dtype) == (image.shape, np.uint8)
    assert np.abs(decoded.astype(int) - image).mean() < 4


@needs_avif
@pytest.mark.parametrize("name", ["jpeg", "av1"])
def test_less_quality_takes_fewer_bits(name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    sizes = [len(codec.encode(noise)) for codec in parse_baselines([f"{name}:1,10,50"])]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] / 2


_BYTES_ON = """
import hashlib, os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[1])])
import numpy as np
from roi_codec_ros.lab.evaluation.baselines import parse_baselines
noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
(codec,) = parse_baselines(["av1:1"])
print(hashlib.sha256(codec.encode(noise.repeat(16, 0).repeat(16, 1))).hexdigest())
"""


@needs_avif
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_av1_writes_the_same_bytes_on_one_core_as_on_two() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", _BYTES_ON, cores], capture_output=True, text=True, check=True
        ).stdout
        for cores in ("1", "2")
    }
    assert len(digests) == 1


def test_a_rival_codes_pictures_without_heads() -> None:
    (codec,) = parse_baselines(["hidden-jpeg:95"])
    assert (codec.name, codec.preset, codec.model_id) == ("hidden-jpeg", "95", None)
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    head = np.array([[60.0, -3.0, 92.0, 30.0]], np.float32)
    annotation = annotated(noise, head)
    prepared = codec.prepared(noise, annotation)
    inside = np.s_[0:30, 60:92]
    assert np.ptp(prepared[inside]) < 60 < np.ptp(noise[inside])  # four means of noise
    outside = np.ones((64, 96), bool)
    outside[inside] = False
    assert (prepared[outside] == noise[outside]).all()
    assert codec.decode(codec.encode(prepared)).shape == noise.shape


def annotated(image: np.ndarray, heads: np.ndarray) -> Annotation:
    height, width = image.shape[:2]
    none = np.zeros((0, 4), np.float32)
    return Annotation(Path("a.png"), "a", width, height, none, heads, none)


def test_jpeg_halves_the_colours() -> None:
    (codec,) = parse_baselines(["jpeg:90"])
    with Image.open(io.BytesIO(codec.encode(smooth_image()))) as image:
        assert image.layer[0][1:3] == (2, 2)  # the luma's sampling against 1, 1 of the chroma
