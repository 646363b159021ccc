# SPDX-License-Identifier: Apache-2.0
"""Faces for re-identification: clear ones found in photographs, pasted into other scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.lab.datasets.annotated_images import read_annotated
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.faces.face_embedders import FaceEmbedder
from roi_codec_ros.lab.privacy.matching import pair_up
from roi_codec_ros.perception.face_detectors import FaceDetector

Box = NDArray[np.float32]

FACE_SCORE = 0.98
FACE_SIZE_PX = 64.0
HEAD_IOU = 0.2
PATCH_MARGIN = 0.3
FEATHER = 0.2
BRIGHTNESS = 25.0
CONTRAST = 0.15
PLACES_TRIED = 200


@dataclass(frozen=True, eq=False)
class Identity:
    """One face as it was found, and what it is recognised by.

    patch: RGB uint8 [H, W, 3], the head with some surroundings; face: its box in px of the patch.
    """

    image_id: str
    patch: ImageArray
    face: Box
    embedding: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Probe:
    """A face pasted into a scene: whose, its size, and its box in px of the scene."""

    identity: int
    size_px: int
    face: Box


def find_identities(
    annotations: Iterable[Annotation],
    detector: FaceDetector,
    embedder: FaceEmbedder,
    *,
    limit: int,
    on_image: Callable[[Annotation], None] | None = None,
) -> tuple[list[Identity], list[Annotation]]:
    """Clear, large faces of annotated heads, one a person, and the images where there is none.

    A face that is as near to one before as two pictures of one person are is left out, so that
    nobody is in the gallery twice. Unreadable images give neither.
    """
    identities: list[Identity] = []
    others: list[Annotation] = []
    for annotation in annotations:
        if on_image is not None:
            on_image(annotation)
        try:
            image = read_annotated(annotation)
            faces = _clear_faces(image, annotation, detector)
            found = [_identity(annotation, image, *face, embedder) for face in faces]
        except Exception:  # noqa: BLE001  # an image that breaks a detector has no clear face
            continue
        if not found:
            others.append(annotation)
        for one in found:
            distances = [np.linalg.norm(one.embedding - old.embedding) for old in identities]
            if min(distances, default=np.inf) > embedder.same_person_distance:
                identities.append(one)
    # Spread evenly, not from the data set's first source only.
    if len(identities) > limit:
        kept = np.linspace(0, len(identities) - 1, limit).round().astype(int)
        identities = [identities[index] for index in kept]
    return identities, others


def _clear_faces(
    image: ImageArray, annotation: Annotation, detector: FaceDetector
) -> list[tuple[Box, Box]]:
    """Boxes of (face, head)."""
    head_extent = annotation.heads[:, 2:] - annotation.heads[:, :2]
    # A head that small overlaps no face that large by as much: spare the detector.
    if not (head_extent.prod(axis=1) >= HEAD_IOU * FACE_SIZE_PX**2).any():
        return []
    faces = detector.detect(image)
    extent = faces.xyxy[:, 2:] - faces.xyxy[:, :2]
    height, width = image.shape[:2]
    clear = (
        (faces.score >= FACE_SCORE)
        & (np.sqrt(np.clip(extent, 0, None).prod(axis=1)) >= FACE_SIZE_PX)
        & (faces.xyxy[:, :2] >= 0).all(axis=1)
        & (faces.xyxy[:, 2:] <= (width, height)).all(axis=1)
    )
    boxes = faces.xyxy[clear]
    pairs = pair_up(annotation.heads, boxes, iou_threshold=HEAD_IOU)
    return [(boxes[face], annotation.heads[head]) for head, face in sorted(pairs)]


def _identity(
    annotation: Annotation, image: ImageArray, face: Box, head: Box, embedder: FaceEmbedder
) -> Identity:
    height, width = image.shape[:2]
    corner, end = np.minimum(face[:2], head[:2]), np.maximum(face[2:], head[2:])
    margin = (end - corner) * PATCH_MARGIN
    left, top = np.maximum(np.floor(corner - margin), 0).astype(int)
    right, bottom = np.minimum(np.ceil(end + margin), (width, height)).astype(int)
    return Identity(
        annotation.image_id,
        image[top:bottom, left:right].copy(),
        (face - np.array([left, top, left, top])).astype(np.float32),
        embedder.embed(image, face),
    )


def make_patch(
    identity: Identity, size_px: int, rng: np.random.Generator
) -> tuple[ImageArray, Box]:
    """The probe of an identity, never the same pixels: (patch, box of the face in it).

    Mirrored, contrast and brightness changed at random, and scaled so that the root of the face's
    area is `size_px`.
    """
    width, height = identity.face[2:] - identity.face[:2]
    scale = size_px / float(np.sqrt(width * height))
    rows, columns = identity.patch.shape[:2]
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    patch = cv2.resize(identity.patch, size, interpolation=interpolation)[:, ::-1]
    face = identity.face * np.array([size[0] / columns, size[1] / rows] * 2)
    mirrored = np.array([size[0] - face[2], face[1], size[0] - face[0], face[3]])
    gain, shift = 1.0 + CONTRAST * rng.uniform(-1, 1), BRIGHTNESS * rng.choice([-1, 1])
    pixels = (patch.astype(np.float32) - 128.0) * gain + 128.0 + shift
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8), mirrored.astype(np.float32)


def paste(scene: ImageArray, patch: ImageArray, left: int, top: int) -> None:
    """Blend `patch` into `scene` in place, inside of a feathered ellipse that fills the patch."""
    height, width = patch.shape[:2]
    down = (np.arange(height) + 0.5) / height * 2 - 1
    across = (np.arange(width) + 0.5) / width * 2 - 1
    radius = np.sqrt(down[:, None] ** 2 + across[None, :] ** 2)
    alpha = np.clip((1.0 - radius) / FEATHER, 0.0, 1.0)[..., None]
    under = scene[top : top + height, left : left + width]
    under[:] = np.rint(under + alpha * (patch.astype(np.float64) - under)).astype(np.uint8)


def paste_probes(
    scene: ImageArray,
    identities: Sequence[Identity],
    wanted: Iterable[tuple[int, int]],
    rng: np.random.Generator,
) -> tuple[ImageArray, list[Probe]]:
    """A copy of `scene` with probes of (identity, size) where there is room, none over another."""
    scene = scene.copy()
    taken: list[tuple[int, int, int, int]] = []
    probes = []
    for index, size_px in wanted:
        patch, face = make_patch(identities[index], size_px, rng)
        place = _free_place(scene.shape[:2], patch.shape[:2], taken, rng)
        if place is None:
            continue
        left, top = place
        taken.append((left, top, left + patch.shape[1], top + patch.shape[0]))
        paste(scene, patch, left, top)
        moved = (face + np.array([left, top, left, top])).astype(np.float32)
        probes.append(Probe(index, size_px, moved))
    return scene, probes


def _free_place(
    scene: Sequence[int],
    patch: Sequence[int],
    taken: Sequence[tuple[int, int, int, int]],
    rng: np.random.Generator,
) -> tuple[int, int] | None:
    room_y, room_x = scene[0] - patch[0], scene[1] - patch[1]
    if room_x < 0 or room_y < 0:
        return None
    for _ in range(PLACES_TRIED):
        left, top = int(rng.integers(room_x + 1)), int(rng.integers(room_y + 1))
        right, bottom = left + patch[1], top + patch[0]
        if all(right <= x0 or left >= x1 or bottom <= y0 or top >= y1 for x0, y0, x1, y1 in taken):
            return left, top
    return None
