# SPDX-License-Identifier: Apache-2.0
"""Recall of regions: hidden and missed heads, faces and persons, by height.

```
  photograph ─► RegionFinder ─► plan_blocks ─► hidden, doubtful, persons ─┬► annotated heads
                    └ no codec, nothing is decoded                        ├► those with a face
                                                                          ├► annotated persons
                                                                          └► hidden in vain
```
A head is hidden where nearly all of its inner part is; a face is a head in which a face detector
sees one in the photograph. Beside each count stands what may be missed at most: the one-sided 95 %
limit of Clopper and Pearson.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.codec.policy import StepPolicy
from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.photographs import failure_reason
from roi_codec_ros.common.tables import NOTHING, text_table
from roi_codec_ros.lab.datasets.annotated_images import read_annotated
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.evaluation.measurement import HUMAN_MADE
from roi_codec_ros.lab.evaluation.results import Failure
from roi_codec_ros.lab.privacy.matching import BoxArray, pair_up, unite
from roi_codec_ros.lab.training.data import unannotated_heads
from roi_codec_ros.lab.training.region_model import HIDDEN_SHARE, MARGIN, grown, share_in
from roi_codec_ros.perception.face_detectors import FaceDetector
from roi_codec_ros.regions import RegionFinder, plan_blocks
from roi_codec_ros.regions.blocks import heads_around, touched_blocks

HEIGHT_EDGES_PX = (16, 32, 64, 128)
CONFIDENCE = 0.95
PERSON_SHARE = 1 / 3  # of a person's box that has to be taken for one: bodies fill no corners
FACE_IOU = 0.2
HEADS, FACES, PERSONS = "heads", "faces", "persons"

BoolArray = NDArray[np.bool_]


@dataclass
class Count:
    """How many there were, how many were missed, and of those how many not in fine steps."""

    number: int = 0
    missed: int = 0
    coarse: int = 0

    def add(self, *, missed: bool, coarse: bool) -> None:
        """Count one more."""
        self.number += 1
        self.missed += missed
        self.coarse += missed and coarse


@dataclass(eq=False)
class RegionRecall:
    """What was counted on some images.

    counts[kind][bin of heights]: of `HEADS`, `FACES`, `PERSONS`. blocks, hidden, in_vain: of the
    blocks of all images, those hidden, and those hidden where no head is known to be.
    """

    counts: dict[str, dict[str, Count]] = field(
        default_factory=lambda: {
            kind: {name: Count() for name in height_bins()} for kind in (HEADS, FACES, PERSONS)
        }
    )
    images: int = 0
    blocks: int = 0
    hidden: int = 0
    in_vain: int = 0
    failures: list[Failure] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "images": self.images,
            **{kind: _kind_report(counts) for kind, counts in self.counts.items()},
            "hidden_share": self.hidden / self.blocks if self.blocks else None,
            "hidden_in_vain": self.in_vain / self.blocks if self.blocks else None,
        }


class RegionJudge:
    """Holds what a regions model says of photographs against what is annotated in them."""

    def __init__(self, finder: RegionFinder, policy: StepPolicy | None = None) -> None:
        """policy: of a model, which says what counts as a person; None: the finder's threshold."""
        self.finder = finder
        self._policy = policy
        self.result = RegionRecall()

    def add(self, image: ImageArray, annotation: Annotation, faces: BoxArray) -> None:
        """Judge one photograph. faces: float32 [N, 4], those that detectors see in it, in px.

        Raises RoiCodecError where the regions model cannot judge it.
        """
        plan = plan_blocks(self.finder.find(image), self.finder.thresholds)
        result, hidden = self.result, plan.hidden
        if self._policy is None:
            there = plan.persons >= self.finder.thresholds.person
        else:
            there = self._policy.person_blocks(plan.persons)
        with_face = {head for head, _ in pair_up(annotation.heads, faces, iou_threshold=FACE_IOU)}
        for index, head in enumerate(annotation.heads):
            inner = grown(head[None], -MARGIN)[0]
            missed = share_in(inner, hidden) < HIDDEN_SHARE
            coarse = share_in(inner, hidden | plan.doubtful | ~there) >= HIDDEN_SHARE
            for kind in (HEADS, FACES) if index in with_face else (HEADS,):
                _bin(result, kind, head).add(missed=missed, coarse=coarse)
        if annotation.person_boxes == HUMAN_MADE:
            for person in annotation.persons:
                missed = share_in(person, there | hidden) < PERSON_SHARE
                _bin(result, PERSONS, person).add(missed=missed, coarse=True)
        result.images += 1
        result.blocks += hidden.size
        result.hidden += int(hidden.sum())
        result.in_vain += int((hidden & ~_known(annotation, faces, hidden.shape)).sum())


def judge_regions(
    annotations: Iterable[Annotation],
    judge: RegionJudge,
    detectors: Sequence[FaceDetector],
    *,
    on_image: Callable[[Annotation], None] | None = None,
) -> RegionRecall:
    """Judge a regions model alone. Raises RoiCodecError where not one image could be judged."""
    result = judge.result
    for annotation in annotations:
        try:  # as in the audit: whatever breaks on one image costs that image, and is seen
            image = read_annotated(annotation)
            faces = unite([detector.detect(image).xyxy for detector in detectors]).xyxy
            judge.add(image, annotation, faces)
        except Exception as error:  # noqa: BLE001
            result.failures.append(Failure(annotation.image_id, failure_reason(error)))
        if on_image is not None:
            on_image(annotation)
    if not result.images:
        found = f"{len(result.failures)} that failed" if result.failures else "none"
        first = f"; the first is {result.failures[0]}" if result.failures else ""
        raise RoiCodecError(f"expected images to audit, found {found}{first}")
    return result


def recall_text(report: dict[str, Any]) -> str:
    """What `RegionRecall.report` gave, as a table for the terminal."""
    header = ["height, px", *height_bins(), "all", "from 16 px on"]
    rows = []
    for kind in (HEADS, FACES, PERSONS):
        counts = report[kind]
        columns = [*counts["by_height_px"].values(), counts["all"], counts["from_16_px"]]
        rows += [
            [f"{kind}, number", *(column["number"] for column in columns)],
            ["  missed", *(column["missed"] for column in columns)],
            ["  at most", *(_percent(column["missed_at_most"]) for column in columns)],
        ]
        if kind != PERSONS:
            rows.append(["  missed, coarse", *(column["missed_coarse"] for column in columns)])
    hidden, in_vain = report["hidden_share"], report["hidden_in_vain"]
    return "\n".join(
        [
            text_table(header, rows),
            f"hidden: {_percent(hidden)} of the pictures, {_percent(in_vain)} without need",
        ]
    )


def missed_at_most(number: int, missed: int) -> float | None:
    """Upper limit of the share that is missed, one-sided, 95 % (Clopper and Pearson, 1934).

    None without any. Raises ValueError for more missed than there are.
    """
    from scipy.stats import beta

    if not 0 <= missed <= number:
        raise ValueError(f"expected 0 to {number} missed, found {missed}")
    if number == 0:
        return None
    return 1.0 if missed == number else float(beta.ppf(CONFIDENCE, missed + 1, number - missed))


def height_bins() -> list[str]:
    """All names of bins of heights, smallest first."""
    edges = (0, *HEIGHT_EDGES_PX)
    return [f"{low}-{high}" for low, high in pairwise(edges)] + [f"{edges[-1]}+"]


def height_bin(box: NDArray[np.float32]) -> str:
    """The name of the bin of a box's height."""
    return height_bins()[int(np.digitize(box[3] - box[1], HEIGHT_EDGES_PX))]


def _bin(result: RegionRecall, kind: str, box: NDArray[np.float32]) -> Count:
    return result.counts[kind][height_bin(box)]


def _known(annotation: Annotation, faces: BoxArray, shape: tuple[int, ...]) -> BoolArray:
    """Blocks with an annotated or detected head, or a possible one that is not annotated."""
    heads = np.concatenate([annotation.heads.reshape(-1, 4), heads_around(faces.reshape(-1, 4))])
    unsure = np.concatenate([unannotated_heads(annotation), annotation.ignored.reshape(-1, 4)])
    places = np.concatenate([grown(heads.astype(np.float32)), unsure])
    return touched_blocks(places.astype(np.float32), shape[0], shape[1])


def _kind_report(counts: dict[str, Count]) -> dict[str, Any]:
    def total(names: Sequence[str]) -> Count:
        chosen = [counts[name] for name in names]
        return Count(*(sum(getattr(c, key) for c in chosen) for key in _FIELDS))

    names = list(counts)
    return {
        "all": _count_report(total(names)),
        "from_16_px": _count_report(total(names[1:])),
        "by_height_px": {name: _count_report(count) for name, count in counts.items()},
    }


_FIELDS = ("number", "missed", "coarse")


def _count_report(count: Count) -> dict[str, Any]:
    return {
        "number": count.number,
        "missed": count.missed,
        "missed_coarse": count.coarse,
        "recall": 1.0 - count.missed / count.number if count.number else None,
        "missed_at_most": missed_at_most(count.number, count.missed),
    }


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.1f} %"
