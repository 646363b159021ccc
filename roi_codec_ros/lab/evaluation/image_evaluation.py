# SPDX-License-Identifier: Apache-2.0
"""An evaluation on photographs from its setup to its report, tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from roi_codec_ros.common.files import GENERATOR
from roi_codec_ros.common.output_files import Output
from roi_codec_ros.lab.datasets.annotations import Annotation, AnnotationSet
from roi_codec_ros.lab.datasets.annotations_any import shortfall
from roi_codec_ros.lab.evaluation.bd_rate import bd_rates
from roi_codec_ros.lab.evaluation.cache import ResultCache
from roi_codec_ros.lab.evaluation.evaluate import Evaluation, evaluate_with
from roi_codec_ros.lab.evaluation.figures import figure_4, figure_5
from roi_codec_ros.lab.evaluation.markdown import format_report
from roi_codec_ros.lab.evaluation.measurement import Bench
from roi_codec_ros.lab.evaluation.paper import is_crowdhuman_val
from roi_codec_ros.lab.evaluation.setup import Setup
from roi_codec_ros.lab.evaluation.workers import measure_here, measure_in_processes

FIGURES = {"figure4.png": figure_4, "figure5.png": figure_5}


def evaluate_setup(
    setup: Setup,
    chosen: Sequence[Annotation],
    *,
    workers: int,
    cache: ResultCache | None,
    on_image: Callable[[Annotation], None],
) -> tuple[Evaluation, Bench]:
    """Measure on the images that were chosen; also the bench of this process, to draw with.

    Raises RoiCodecError.
    """
    bench = setup.bench()  # also with workers: what is wrong should be found here, and once
    measure = measure_here(bench)
    if workers > 1:
        measure = measure_in_processes(setup.bench, workers)
    found = evaluate_with(measure, bench.rows, chosen, cache=cache, on_image=on_image)
    return found, bench


def setup_report(
    setup: Setup, evaluation: Evaluation, chosen: Sequence[Annotation], data: Path, split: str
) -> dict[str, Any]:
    """The whole report; JSON types only. data, split: of the images that were chosen."""
    return {
        "dataset": data.resolve().name,
        "split": split,
        "images": evaluation.images,
        "person_images": evaluation.person_images,
        "failures": [asdict(failure) for failure in evaluation.failures],
        **setup.judges.report(),
        "settings": asdict(setup.settings),
        "rows": evaluation.rows,
        "crowdhuman_val": is_crowdhuman_val(chosen, split),
        "bd_rate": bd_rates(evaluation.rows),
    }


def write_report(result: dict[str, Any], files: Mapping[str, Output]) -> None:
    """Write the report as those of files that there are: json, tables, and FIGURES by name."""
    if json := files.get("json"):
        json.write_json(result)
    if tables := files.get("tables"):
        tables.write(f"<!-- {GENERATOR} -->\n\n{format_report(result)}".encode())
    for name, draw in FIGURES.items():
        if figure := files.get(name):
            figure.write(draw(result))


def summary(evaluation: Evaluation, annotated: AnnotationSet, chosen: int) -> str:
    """One line for the terminal. chosen: how many images were to be measured."""
    parts = [f"{evaluation.images} of {len(annotated)} images measured"]
    if evaluation.images < chosen:
        parts.append(f"{chosen - evaluation.images} failed and count in no row")
    if evaluation.reused:
        parts.append(f"{evaluation.reused} results of an earlier run")
    parts += shortfall(annotated)
    return "; ".join(parts)
