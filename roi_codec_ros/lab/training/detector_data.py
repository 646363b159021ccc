# SPDX-License-Identifier: Apache-2.0
"""Photographs as a codec decodes them, in the layout that YOLO's trainer reads.

```
  photograph ──┬► encode ─► decode ─┬► ignored regions in grey ─► decoded-<codec>/images/*.png
               └────────────────────┴► (a share of them)       ─► originals/images/*.png
  visible persons ───────────────────► labels/*.txt, beside either
```
What the file of an image is called says what it was made of, so that what is there is used again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.files import write_whole
from roi_codec_ros.lab.datasets.annotations import Annotation, clip_boxes

ImageArray = NDArray[np.uint8]

HUMAN_MADE = "human"
UNKNOWN = "none"  # nobody looked for persons: an empty list says nothing
PERSON = 0  # the one class
IGNORED_GREY = 114  # what YOLO's trainer pads its images with
HELD_OUT_SHARE = 0.06
MOST_HELD_OUT = 100
_RECIPE = b"as shown"  # how files become pixels; what was made otherwise is made again


@dataclass(frozen=True, eq=False)
class Division:
    """The photographs to train on, those held out to judge the training, and what is left out.

    unknown: photographs whose persons nobody has marked; as background they would teach a detector
    to overlook people.
    """

    train: tuple[Annotation, ...]
    held_out: tuple[Annotation, ...]
    unknown: int


@dataclass
class Written:
    """Images on disk, in the order given: (annotation, file).

    made: how many had to be made; the rest were there. failures: image id and reason of those that
    could not be made.
    """

    images: list[tuple[Annotation, Path]] = field(default_factory=list)
    made: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)


def divide(annotations: Sequence[Annotation], limit: int | None = None) -> Division:
    """Hold a part of the photographs out: 6 % of them, at least one and no more than 100.

    Human-made boxes are held out before machine-made ones, which are good enough to learn from and
    no truth to judge by. Which ones depends on their names alone. limit: only so many photographs,
    spread evenly. Raises RoiCodecError for fewer than two photographs whose persons are known.
    """
    known = [item for item in annotations if item.person_boxes != UNKNOWN]
    unknown = len(annotations) - len(known)
    if limit is not None and limit < len(known):
        known = [
            known[index] for index in np.linspace(0, len(known) - 1, limit).round().astype(int)
        ]
    if len(known) < 2:
        raise RoiCodecError(
            f"expected at least two photographs with person boxes, found {len(known)}"
            + (f" and {unknown} whose persons are unknown" if unknown else "")
        )
    ranked = sorted(known, key=lambda item: (item.person_boxes != HUMAN_MADE, _name_digest(item)))
    count = min(MOST_HELD_OUT, max(1, round(HELD_OUT_SHARE * len(known))))
    human = sum(item.person_boxes == HUMAN_MADE for item in known)
    held_out = ranked[: min(count, human) if human > 1 else count]
    names = {id(item) for item in held_out}
    return Division(
        tuple(item for item in known if id(item) not in names), tuple(held_out), unknown
    )


def some(annotations: Sequence[Annotation], share: float) -> list[Annotation]:
    """A share (0 to 1) of the photographs, always the same ones."""
    chosen = sorted(annotations, key=_name_digest)[: round(share * len(annotations))]
    names = {id(item) for item in chosen}
    return [item for item in annotations if id(item) in names]


def yolo_label(annotation: Annotation) -> str:
    """The visible persons as YOLO's label file: class, centre x, centre y, width, height.

    All but the class in shares of the image, 0 to 1; a box ends at the border. Empty for an image
    without persons. Ignored regions, and bodies that were only estimated from a head, are none.
    """
    size = np.array([annotation.width, annotation.height], np.float64)
    boxes = [tuple(map(float, box)) for box in annotation.persons.reshape(-1, 4)]
    persons, _ = clip_boxes(boxes, annotation.width, annotation.height)  # type: ignore[arg-type]
    lines = []
    for x1, y1, x2, y2 in persons.astype(np.float64):
        x, y = np.array([(x1 + x2) / 2, (y1 + y2) / 2]) / size
        width, height = np.array([x2 - x1, y2 - y1]) / size
        lines.append(f"{PERSON} {x:.6f} {y:.6f} {width:.6f} {height:.6f}\n")
    return "".join(lines)


def hide_ignored(image: ImageArray, annotation: Annotation) -> ImageArray:
    """``image`` with its ignored regions in grey, except where a marked person is.

    YOLO's loss knows no regions to ignore: what it sees there without a box it learns to overlook.
    image: uint8 [H, W, 3] of the annotated size.
    """
    if not len(annotation.ignored):
        return image
    hidden = np.zeros(image.shape[:2], np.bool_)
    for boxes, value in ((annotation.ignored, True), (annotation.persons, False)):
        for x1, y1, x2, y2 in boxes.reshape(-1, 4):
            rows = slice(int(np.floor(y1)), int(np.ceil(y2)))
            hidden[rows, int(np.floor(x1)) : int(np.ceil(x2))] = value
    image = image.copy()
    image[hidden] = IGNORED_GREY
    return image


def write_images(
    annotations: Iterable[Annotation],
    folder: Path,
    make: Callable[[Annotation], ImageArray],
    *,
    on_image: Callable[[], None] = lambda: None,
) -> Written:
    """Each photograph as ``make`` gives it, RGB [H, W, 3], in ``folder``, with its label file.

    A photograph that is there already, with the same content and ignored regions, is not made
    again. One for which ``make`` raises RoiCodecError is left out. Raises RoiCodecError where
    nothing can be written. on_image is called after each.
    """
    written = Written()
    for annotation in annotations:
        try:
            name = annotation.image_id.replace("/", "__")
            path = folder / "images" / f"{name}-{_content_digest(annotation)}.png"
            if not path.is_file():
                _write(path, _png(hide_ignored(make(annotation), annotation)))
                written.made += 1
        except _NotWrittenError as error:
            raise RoiCodecError(str(error)) from error
        except RoiCodecError as error:
            written.failures.append((annotation.image_id, str(error)))
        else:
            label = folder / "labels" / f"{path.stem}.txt"
            _write(label, yolo_label(annotation).encode())
            written.images.append((annotation, path))
        on_image()
    return written


def write_yolo_data(folder: Path, train: Sequence[Path], held_out: Sequence[Path]) -> Path:
    """The lists of images and the `data.yaml` that names them and the one class; its path."""
    for name, files in (("train", train), ("val", held_out)):
        _write(folder / f"{name}.txt", "".join(f"{f.resolve()}\n" for f in files).encode())
    for stale in folder.glob("*/labels.cache"):  # ultralytics looks at names and sizes only
        stale.unlink()
    data = folder / "data.yaml"
    _write(
        data,
        f"path: {folder.resolve()}\ntrain: train.txt\nval: val.txt\nnames: [person]\n".encode(),
    )
    return data


class _NotWrittenError(RoiCodecError):
    """The disk, not the image, is at fault."""


def _write(path: Path, content: bytes) -> None:
    try:
        write_whole(path, content)
    except OSError as error:
        raise _NotWrittenError(f"cannot write {path}: {error.strerror}") from error


def _png(image: ImageArray) -> bytes:
    import cv2

    # Without loss: what the detector learns from is what it will be given. Little effort is spent
    # on size, since the files are read far more often than they are carried.
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1])


def _name_digest(annotation: Annotation) -> bytes:
    return hashlib.sha256(annotation.image_id.encode()).digest()


def _content_digest(annotation: Annotation) -> str:
    """Of all that the made image depends on besides the codec."""
    try:
        digest = hashlib.sha256(_RECIPE + annotation.image_path.read_bytes())
    except OSError as error:
        raise RoiCodecError(f"expected an image, found: {error.strerror}") from error
    if len(annotation.ignored):
        digest.update(annotation.ignored.tobytes() + annotation.persons.tobytes())
    return digest.hexdigest()[:16]
