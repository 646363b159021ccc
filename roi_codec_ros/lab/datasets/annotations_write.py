# SPDX-License-Identifier: Apache-2.0
"""A data set as CrowdHuman lays it out: boxes as lines of `.odgt`, photographs as links.

No photograph is ever copied or touched.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from roi_codec_ros.common.errors import RoiCodecError, reason_of
from roi_codec_ros.common.files import same_file
from roi_codec_ros.lab.datasets.annotations import Annotation, BoxArray


def odgt_text(annotations: Iterable[Annotation]) -> str:
    """The text of an `annotation_<split>.odgt` from which `read_odgt` reads the same boxes.

    A head goes with the person in whose upper half its centre lies; a head without such a person
    has a record of its own, marked as no person to score against.
    """
    return "".join(json.dumps(_record(item)) + "\n" for item in annotations)


def photograph_name(annotation: Annotation) -> str:
    """The file in the folder of the split that `read_odgt` takes for it, such as `day2/a.jpg`."""
    suffix = annotation.image_path.suffix
    named = annotation.image_id.lower().endswith(suffix.lower())  # one of two with that stem
    return annotation.image_id if named else annotation.image_id + suffix


def check_links(annotations: Iterable[Annotation], folder: Path, *, replace_links: bool) -> None:
    """Raise RoiCodecError where `link_photograph` would find the name of a photograph taken.

    replace_links: links that lead elsewhere may be replaced.
    """
    for item in annotations:
        link = folder / photograph_name(item)
        if not os.path.lexists(link) or same_file(link, item.image_path):
            continue
        if not link.is_symlink():
            raise RoiCodecError(f"expected to link {item.image_path} as {link}, found a file")
        if not replace_links:
            raise RoiCodecError(
                f"expected to link {item.image_path} as {link}, found a link that leads "
                "elsewhere; --force replaces it"
            )


def link_photograph(annotation: Annotation, folder: Path) -> None:
    """A link in ``folder`` to a photograph, under the name by which `read_odgt` finds it.

    An existing photograph of that name is kept; a link is replaced, a file never.
    Raises RoiCodecError.
    """
    photograph, link = annotation.image_path, folder / photograph_name(annotation)
    if same_file(link, photograph):
        return
    partial = link.with_name(f".{secrets.token_hex(6)}.partial")
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(link) and not link.is_symlink():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        os.symlink(photograph.resolve(), partial)
        try:
            os.replace(partial, link)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise RoiCodecError(
            f"expected to link {photograph} as {link}, found: {reason_of(error)}"
        ) from error


def _record(annotation: Annotation) -> dict[str, Any]:
    persons, heads = annotation.persons.reshape(-1, 4), annotation.heads.reshape(-1, 4)
    owners = _owners(persons, heads)
    boxes = [
        _box(person, heads[owners.index(i)] if i in owners else None)
        for i, person in enumerate(persons)
    ]
    for head, owner in zip(heads, owners, strict=True):
        if owner is None:
            boxes.append({**_box(head, head), "extra": {"estimated": 1}})
    for name, places in annotation.regions.items():
        boxes += [{**_box(place, None), "tag": name} for place in places.reshape(-1, 4)]
    for region in annotation.ignored.reshape(-1, 4):
        boxes.append({**_box(region, None), "tag": "mask", "extra": {"ignore": 1}})
    return {
        "ID": annotation.image_id,
        "gtboxes": boxes,
        "source": annotation.source,
        "person_boxes": annotation.person_boxes,
        "head_boxes": annotation.head_boxes,
        "width": annotation.width,
        "height": annotation.height,
    }


def _owners(persons: BoxArray, heads: BoxArray) -> list[int | None]:
    """For each head the person that it belongs to, each person once."""
    owners: list[int | None] = []
    for x1, y1, x2, y2 in heads:
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        inside = (
            (persons[:, 0] < x)
            & (x < persons[:, 2])
            & (persons[:, 1] < y)
            & (y < (persons[:, 1] + persons[:, 3]) / 2)
        )
        free = [int(i) for i in np.flatnonzero(inside) if int(i) not in owners]
        # The person whose top is nearest: one that stands behind others reaches higher.
        owners.append(min(free, key=lambda i: abs(float(persons[i, 1] - y1)), default=None))
    return owners


def _box(body: BoxArray, head: BoxArray | None) -> dict[str, Any]:
    box: dict[str, Any] = {"tag": "person", "fbox": _sides(body), "vbox": _sides(body)}
    if head is None:
        return {**box, "head_attr": {"ignore": 1}, "extra": {}}
    return {**box, "hbox": _sides(head), "head_attr": {"ignore": 0}, "extra": {}}


def _sides(box: BoxArray) -> list[float]:
    x1, y1, x2, y2 = (float(v) for v in box)
    return [round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)]
