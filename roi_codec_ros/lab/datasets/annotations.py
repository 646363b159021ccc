# SPDX-License-Identifier: Apache-2.0
"""Boxes of persons, heads and other classes in photographs; `annotations_any` reads them.

Boxes are always of the picture as it is shown: with its rotation tag applied, as the one reader of
photographs does, whichever layout they come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

SMALLEST_BOX_PX = 1.0

BoxArray = NDArray[np.float32]
Corners = tuple[float, float, float, float]  # x0, y0, x1, y1 in px

PERSON, HEAD = "person", "head"  # the classes that every layout knows


@dataclass(frozen=True, eq=False)
class Annotation:
    """The boxes of one image, float32 [N, 4] as x0, y0, x1, y1 in px, clipped to the image.

    persons: visible bodies to score against and to weigh in a loss; measured, never scaled from a
    head. heads: heads known to be there. ignored: regions that are neither a person nor not one
    (crowds, reflections, bodies guessed from a head): a score should not count what lies there.
    person_boxes, head_boxes: who made them: "human", "teacher", "mixed" or "none" (unknown; an
        empty list then means nothing).
    source: origin of the photograph, "" if unknown; a set may have several.
    regions: boxes of any further class by its name, such as "number plate", in lower case.
    """

    image_path: Path
    image_id: str
    width: int
    height: int
    persons: BoxArray
    heads: BoxArray
    ignored: BoxArray
    person_boxes: str = "human"
    head_boxes: str = "human"
    source: str = ""
    regions: Mapping[str, BoxArray] = field(default_factory=dict)

    def boxes(self, name: str) -> BoxArray:
        """The boxes of one class, float32 [N, 4]: "person", "head" or one of `regions`."""
        if name == PERSON:
            return self.persons
        if name == HEAD:
            return self.heads
        return self.regions.get(name, np.zeros((0, 4), np.float32))

    def classes(self) -> set[str]:
        """The classes that have a box in this image."""
        return {name for name in (PERSON, HEAD, *self.regions) if len(self.boxes(name))}


@dataclass(frozen=True, eq=False)
class AnnotationSet(Sequence[Annotation]):
    """The annotations of one split in file order, and what had to be left out.

    dropped_boxes: boxes with less than one pixel of width or height inside their image.
    unreadable: (image id, reason) of photographs that cannot be used, or labels without one.
    notes: what else a reader took for granted, a sentence each.
    first_dropped: the first image that had such a box, "" without any.
    """

    annotations: tuple[Annotation, ...]
    dropped_boxes: int = 0
    unreadable: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    first_dropped: str = ""

    def __len__(self) -> int:
        return len(self.annotations)

    @overload
    def __getitem__(self, index: int) -> Annotation: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Annotation, ...]: ...

    def __getitem__(self, index: int | slice) -> Annotation | tuple[Annotation, ...]:
        return self.annotations[index]

    def __iter__(self) -> Iterator[Annotation]:
        return iter(self.annotations)


def clip_boxes(boxes: Sequence[Corners], width: int, height: int) -> tuple[BoxArray, int]:
    """The boxes inside the image, float32 [N, 4], and how many had nothing left there."""
    places = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    limits = np.array([width, height, width, height], dtype=np.float64)
    places = np.clip(places, 0.0, limits).astype(np.float32)
    extent = places[:, 2:] - places[:, :2]
    kept = (extent >= SMALLEST_BOX_PX).all(axis=1)
    return places[kept], int(len(places) - kept.sum())


def clipped_annotation(
    image_path: Path,
    size: tuple[int, int],
    persons: Sequence[Corners],
    heads: Sequence[Corners],
    ignored: Sequence[Corners] = (),
    regions: Mapping[str, Sequence[Corners]] | None = None,
    *,
    image_id: str = "",
    **about: str,
) -> tuple[Annotation, int]:
    """The annotation of boxes clipped to an image, and how many had nothing left inside.

    size: width and height in px. image_id: the file's stem unless given. about: further fields.
    Ignored regions are clipped as well, but not counted.
    """
    width, height = size
    clipped_persons, no_persons = clip_boxes(persons, width, height)
    clipped_heads, no_heads = clip_boxes(heads, width, height)
    further = {name: clip_boxes(boxes, *size) for name, boxes in (regions or {}).items()}
    annotation = Annotation(
        image_path=image_path,
        image_id=image_id or image_path.stem,
        width=width,
        height=height,
        persons=clipped_persons,
        heads=clipped_heads,
        ignored=clip_boxes(ignored, width, height)[0],
        regions={name: boxes for name, (boxes, _) in further.items()},
        **about,
    )
    return annotation, no_persons + no_heads + sum(empty for _, empty in further.values())
