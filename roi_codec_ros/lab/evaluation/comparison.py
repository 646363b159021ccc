# SPDX-License-Identifier: Apache-2.0
"""The paper's Figure 2: an image, ours, AV1 and JPEG at similar bits, with what detectors find."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.plotting import figure_bytes, new_figure
from roi_codec_ros.lab.datasets.annotated_images import resize
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.evaluation.baselines import BASELINES, HIGHEST_QUALITY
from roi_codec_ros.lab.evaluation.measurement import RAW_BITS_PER_PIXEL, Bench
from roi_codec_ros.lab.evaluation.methods import Method
from roi_codec_ros.perception.detections import Detections

CONFIDENCE = 0.25
LEAST_HEADS = 2
PERSON_COLOUR = "#35d07f"
FACE_COLOUR = "#ff2d9b"
PANEL_INCHES = 3.4


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture of the comparison, and what is written beneath it."""

    title: str
    image: ImageArray
    bits_per_pixel: float
    persons: Detections
    faces: Detections


def choose_picture(annotations: Sequence[Annotation], image_id: str | None = None) -> Annotation:
    """The image of that id, else the one whose heads are largest, of those with two or more.

    Chosen by its annotation, not by how any codec does on it. Raises RoiCodecError where there is
    none.
    """
    if image_id is not None:
        for annotation in annotations:
            if annotation.image_id == image_id:
                return annotation
        raise RoiCodecError(f"expected a measured image as --picture-image, found {image_id!r}")
    if not annotations:
        raise RoiCodecError("expected an image for the picture, found none")
    several = [item for item in annotations if len(item.heads) >= LEAST_HEADS] or annotations
    return max(several, key=lambda item: _head_share(item))


def _head_share(annotation: Annotation) -> float:
    extent = annotation.heads[:, 2:] - annotation.heads[:, :2]
    return float(extent.prod(axis=1).sum()) / (annotation.width * annotation.height)


def make_panels(bench: Bench, annotation: Annotation) -> list[list[Panel]]:
    """A row of panels for each of our models: original, ours, AV1 and JPEG at the nearest rate.

    Raises RoiCodecError where there is no model of ours, or the image can't be read or coded.
    """
    image = bench.scene(annotation).image
    models = [method for method in bench.methods if method.model_id is not None]
    if not models:
        raise RoiCodecError("expected a model of ours for the picture, found none")

    def panel(title: str, decoded: ImageArray, bits_per_pixel: float) -> Panel:
        decoded = resize(decoded, image.shape[1], image.shape[0])
        persons = bench.person_detector.detect(decoded, confidence=CONFIDENCE)
        return Panel(title, decoded, bits_per_pixel, persons, bench.face_detector.detect(decoded))

    rows = []
    original = panel("original", image, RAW_BITS_PER_PIXEL)
    for model in models:
        data = model.encode(image)
        row = [original, panel(f"ours, {model.name}", model.decode(data), _bpp(data, image))]
        for name in ("av1", "jpeg"):
            codec, coded = nearest_rate(BASELINES[name], image, len(data))
            title = f"{name.upper()}, quality {codec.preset}"
            row.append(panel(title, codec.decode(coded), _bpp(coded, image)))
        rows.append(row)
    return rows


def nearest_rate(
    factory: Callable[[int, int | None], Method], image: ImageArray, size: int
) -> tuple[Method, bytes]:
    """The codec at the quality whose file is nearest to `size` bytes, and that file.

    By bisection: a file is taken to grow with the quality.
    """
    low, high = 0, HIGHEST_QUALITY
    tried: dict[int, tuple[Method, bytes]] = {}
    while low <= high:
        quality = (low + high) // 2
        codec = factory(quality, None)
        tried[quality] = codec, codec.encode(image)
        if len(tried[quality][1]) < size:
            low = quality + 1
        else:
            high = quality - 1
    return min(tried.values(), key=lambda entry: abs(len(entry[1]) - size))


def draw_panels(rows: Sequence[Sequence[Panel]]) -> bytes:
    """PNG: persons framed green, faces magenta, the rate and both counts beneath each panel."""
    height, width = rows[0][0].image.shape[:2]
    columns = max(len(row) for row in rows)
    size = (PANEL_INCHES * columns, (PANEL_INCHES * height / width + 0.65) * len(rows))
    figure = new_figure(size)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes_row, panels in zip(grid, rows, strict=True):
        for axes, panel in zip(axes_row, panels, strict=True):
            axes.imshow(panel.image)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_title(panel.title, size=10)
            axes.set_xlabel(_caption(panel), size=9)
            _frame(axes, panel.persons, PERSON_COLOUR)
            _frame(axes, panel.faces, FACE_COLOUR)
    return figure_bytes(figure)


def _caption(panel: Panel) -> str:
    persons, faces = len(panel.persons), len(panel.faces)
    return (
        f"{panel.bits_per_pixel:.3g} bits/px · {persons} person{'s' * (persons != 1)} · "
        f"{faces} face{'s' * (faces != 1)}"
    )


def _frame(axes: Any, detections: Detections, colour: str) -> None:
    from matplotlib.patches import Rectangle

    for x0, y0, x1, y1 in detections.clip().xyxy.tolist():
        axes.add_patch(
            Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=1.6)
        )


def _bpp(data: bytes, image: ImageArray) -> float:
    return 8.0 * len(data) / (image.shape[0] * image.shape[1])
