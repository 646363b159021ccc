# SPDX-License-Identifier: Apache-2.0
"""Measures every method on every image and pools one row of figures per method.

An image counts in every row or in none: one that can't be read, or that breaks a codec or a
detector, is reported and left out of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.evaluation.cache import ResultCache
from roi_codec_ros.lab.evaluation.results import Failure, ImageResult, RowName
from roi_codec_ros.lab.evaluation.rows import make_rows
from roi_codec_ros.lab.evaluation.workers import Measure, Task


@dataclass(frozen=True)
class Evaluation:
    """rows: the figures of the original images first, then of each method; JSON types only.

    images: how many were measured. person_images: those of them with human-made person boxes.
    reused: results of one image and one row that were taken from an earlier run.
    """

    rows: list[dict[str, Any]]
    images: int
    person_images: int
    failures: list[Failure] = field(default_factory=list)
    reused: int = 0


def evaluate_with(
    measure: Measure,
    rows: Sequence[RowName],
    annotations: Iterable[Annotation],
    *,
    cache: ResultCache | None = None,
    on_image: Callable[[Annotation], None] | None = None,
) -> Evaluation:
    """Measure the original images and every method on them, by whatever `measure` does it.

    rows: what the bench of `measure` measures, the original images first. cache: what it has is
    not measured again. on_image: called after each image, measured or not. Raises RoiCodecError
    where not a single image could be measured.
    """
    known = [(annotation, _known(annotation, rows, cache)) for annotation in annotations]
    tasks = [
        Task(annotation, tuple(row for row in range(len(rows)) if row not in found))
        for annotation, found in known
    ]
    outcomes = iter(measure([task for task in tasks if task.rows]))
    results: list[list[ImageResult]] = [[] for _ in rows]
    failures: list[Failure] = []
    reused = 0
    for task, (annotation, found) in zip(tasks, known, strict=True):
        outcome = next(outcomes) if task.rows else {}
        if isinstance(outcome, Failure):
            failures.append(outcome)
        else:
            reused += len(found)
            for row, result in outcome.items():
                if cache is not None:
                    cache.add(annotation, rows[row], result)
            for row, result in (found | outcome).items():
                results[row].append(result)
        if on_image is not None:
            on_image(annotation)
    originals = results[0]
    if not originals:
        reason = f"{len(failures)} that failed; the first is {failures[0]}" if failures else "none"
        raise RoiCodecError(f"expected images to measure, found {reason}")
    return Evaluation(
        rows=make_rows(rows, results),
        images=len(originals),
        person_images=sum(result.persons is not None for result in originals),
        failures=failures,
        reused=reused,
    )


def _known(
    annotation: Annotation, rows: Sequence[RowName], cache: ResultCache | None
) -> dict[int, ImageResult]:
    if cache is None:
        return {}
    found = {index: cache.get(annotation, row) for index, row in enumerate(rows)}
    return {index: result for index, result in found.items() if result is not None}
