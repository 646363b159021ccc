# SPDX-License-Identifier: Apache-2.0
"""Several processes give the results of one, in its order."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.evaluation.baselines import parse_baselines
from roi_codec_ros.lab.evaluation.evaluate import evaluate_with
from roi_codec_ros.lab.evaluation.measurement import Bench
from roi_codec_ros.lab.evaluation.results import EvaluationSettings
from roi_codec_ros.lab.evaluation.workers import measure_here, measure_in_processes
from roi_codec_ros.perception.detections import Detections


class Everywhere:
    """Finds the same box in every image, the surer the brighter."""

    name = "everywhere"

    def detect(self, image: np.ndarray, *, confidence: float = 0.0) -> Detections:
        return Detections.from_arrays([[2, 2, 10, 10]], [image.mean() / 255], image.shape[:2])


class Deadly(Everywhere):
    def detect(self, image: np.ndarray, *, confidence: float = 0.0) -> Detections:
        os._exit(9)


def bench() -> Bench:
    settings = EvaluationSettings(timed=False)
    return Bench(parse_baselines(["jpeg:1,50"]), Everywhere(), Everywhere(), settings)


def deadly_bench() -> Bench:
    return Bench([], Deadly(), Deadly(), EvaluationSettings(timed=False))


@dataclass(frozen=True)
class Counted:
    """Makes benches, and counts them in a file."""

    made: Path

    def bench(self) -> Bench:
        with self.made.open("a") as file:
            file.write("one\n")
        return bench()


def annotations(folder: Path) -> list[Annotation]:
    rng = np.random.default_rng(0)
    items = []
    for index in range(5):
        path = folder / f"{index}.png"
        if index != 2:
            Image.fromarray(rng.integers(0, 50 * (index + 1), (20, 30, 3), np.uint8)).save(path)
        boxes = np.array([[2, 2, 10, 10 + index]], np.float32)
        items.append(Annotation(path, str(index), 30, 20, boxes, boxes, boxes[:0]))
    return items


def test_two_processes_measure_what_one_does(tmp_path: Path) -> None:
    images = annotations(tmp_path)
    alone = evaluate_with(measure_here(bench()), bench().rows, images)
    seen: list[str] = []
    together = evaluate_with(
        measure_in_processes(bench, 2),
        bench().rows,
        images,
        on_image=lambda annotation: seen.append(annotation.image_id),
    )
    assert together == alone
    assert seen == ["0", "1", "2", "3", "4"]
    assert [failure.image for failure in together.failures] == ["2"]
    assert together.rows[1]["encode_ms"] == {"min": None, "mean": None, "std": None}


def test_a_process_loads_everything_once(tmp_path: Path) -> None:
    counted = Counted(tmp_path / "made")
    evaluate_with(measure_in_processes(counted.bench, 2), bench().rows, annotations(tmp_path))
    assert 1 <= counted.made.read_text().count("one") <= 2


def test_a_process_that_dies_is_an_error_of_one_line(tmp_path: Path) -> None:
    measure = measure_in_processes(deadly_bench, 2)
    with pytest.raises(RoiCodecError, match=r"found one dead.*--resume and fewer --workers"):
        evaluate_with(measure, deadly_bench().rows, annotations(tmp_path)[:2])
