# SPDX-License-Identifier: Apache-2.0
"""Re-identification: can a face recognizer still name faces that went through the codec?

```
  originals ─► large, clear faces = identities ─┬────────────────────────────► gallery embeddings
                                                └► mirrored, brighter or darker,      │
  other scenes ◄── pasted, 32 to 96 px ◄────────── scaled: probes                     │ nearest?
       └► nothing, JPEG, codec, negative, attackers ─► embeddings at the paste ───────┘
```
Each identity has one picture only, from which gallery and probes are both made: the easiest probe
there can be. What is measured is whether any signal of identity survives, not how well strangers'
later photographs would be matched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.lab.datasets.annotated_images import read_annotated
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.evaluation.measurement import failure_reason
from roi_codec_ros.lab.evaluation.methods import Method
from roi_codec_ros.lab.evaluation.results import Failure
from roi_codec_ros.lab.faces.face_detectors import FaceDetector
from roi_codec_ros.lab.faces.face_embedders import FaceEmbedder
from roi_codec_ros.lab.privacy.audit import ShownHead
from roi_codec_ros.lab.privacy.matching import pair_up
from roi_codec_ros.lab.privacy.versions import Attacker, make_versions, negated

Box = NDArray[np.float32]

FACE_SCORE = 0.98
FACE_SIZE_PX = 64.0
HEAD_IOU = 0.2
PROBE_SIZES_PX = (96, 64, 48, 32)  # the largest is placed first, while there is room
PATCH_MARGIN = 0.3
FEATHER = 0.2
BRIGHTNESS = 25.0
CONTRAST = 0.15
PLACES_TRIED = 200
FAR = 1e-3
SHOWN_SIZES = 2
SHOWN_PROBES = 8


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


@dataclass(eq=False)
class Reidentification:
    """What was measured.

    distances[source]: one row a probe, its distance to each identity of the gallery.
    shown: the first large probes, as they look in each source.
    """

    embedder: str
    identities: Sequence[Identity]
    probes: list[Probe] = field(default_factory=list)
    distances: dict[str, list[NDArray[np.float32]]] = field(default_factory=dict)
    shown: list[ShownHead] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


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


def reidentify(
    identities: Sequence[Identity],
    scenes: Sequence[Annotation],
    method: Method,
    embedder: FaceEmbedder,
    *,
    attackers: Sequence[Attacker] = (),
    seed: int = 1,
    on_scene: Callable[[], None] | None = None,
) -> Reidentification:
    """Paste every identity once at every size into scenes, and look who it is taken for.

    As many scenes as identities, each with one face of every size, of different identities.
    Raises RoiCodecError where there is nobody to tell apart, no scene, or no probe that worked.
    """
    if len(identities) < 2 or not scenes:
        raise RoiCodecError(
            f"expected two clear faces or more of {FACE_SIZE_PX:.0f} px and a scene without any, "
            f"found {len(identities)} faces and {len(scenes)} scenes"
        )
    result = Reidentification(embedder.name, identities)
    gallery = np.stack([identity.embedding for identity in identities])
    order = np.random.default_rng(seed).permutation(len(scenes))
    for number in range(len(identities)):
        scene = scenes[order[number % len(scenes)]]
        rng = np.random.default_rng((seed, number))
        wanted = [
            ((number + shift) % len(identities), size_px)
            for shift, size_px in enumerate(PROBE_SIZES_PX)
        ]
        try:
            image, probes = paste_probes(read_annotated(scene), identities, wanted, rng)
            made = make_versions(image, method, attackers).pictures
            attacked = [source for source in made if source.startswith("attacker_")]
            pictures = {
                **{source: made[source] for source in made if source not in attacked},
                "negated": negated(made["decoded"]),
                **{source: made[source] for source in attacked},
            }
            rows = {
                source: [
                    np.linalg.norm(gallery - embedder.embed(picture, probe.face), axis=1)
                    for probe in probes
                ]
                for source, picture in pictures.items()
            }
        except Exception as error:  # noqa: BLE001  # as in the audit: named, and left out
            result.failures.append(Failure(scene.image_id, failure_reason(error)))
        else:
            result.probes += probes
            result.shown += [_shown(probe, pictures) for probe in probes[:SHOWN_SIZES]]
            del result.shown[SHOWN_PROBES:]
            for source, distances in rows.items():
                result.distances.setdefault(source, []).extend(distances)
        if on_scene is not None:
            on_scene()
    if not result.probes:
        first = f"; the first failure is {result.failures[0]}" if result.failures else ""
        raise RoiCodecError(f"expected faces pasted into scenes, found no room for any{first}")
    return result


def _shown(probe: Probe, pictures: dict[str, ImageArray]) -> ShownHead:
    margin = (probe.face[2:] - probe.face[:2]) * PATCH_MARGIN
    left, top = np.maximum(probe.face[:2] - margin, 0).astype(int)
    right, bottom = (probe.face[2:] + margin).astype(int)
    crops = {name: picture[top:bottom, left:right].copy() for name, picture in pictures.items()}
    return ShownHead(probe.size_px, crops)


def rank1_hits(distances: NDArray[np.floating], truth: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Which probes are nearer to their own identity than to any other; ties are no hits.

    distances: [P, I] of probes to identities; truth: [P], index of each probe's own identity.
    """
    rows = np.arange(len(truth))
    others = distances.astype(np.float64)
    others[rows, truth] = np.inf
    return np.asarray(distances[rows, truth] < others.min(axis=1))


def accepted_at_far(
    distances: NDArray[np.floating], truth: NDArray[np.integer], far: float = FAR
) -> NDArray[np.bool_]:
    """Which probes are accepted as their own identity at a rate of false accepts of `far` or less.

    The threshold is the largest at which ⌊far · pairs⌋ or fewer of all pairs of a probe and
    another's gallery picture are nearer than it; with less than 1 / far pairs, none is.
    """
    rows = np.arange(len(truth))
    impostor = np.ones(distances.shape, dtype=bool)
    impostor[rows, truth] = False
    impostors = np.sort(distances[impostor])
    allowed = int(far * len(impostors) + 1e-9)
    threshold = impostors[min(allowed, len(impostors) - 1)]
    return np.asarray(distances[rows, truth] < threshold)


def reid_report(result: Reidentification) -> dict[str, Any]:
    """Counts of probes, by source and by size of the pasted face; `chance` is the rank-1 of one
    who guesses, in probes."""
    truth = np.array([probe.identity for probe in result.probes])
    sizes = np.array([probe.size_px for probe in result.probes])
    people = len(result.identities)
    hits = {}
    for source, rows in result.distances.items():
        distances = np.stack(rows)
        hits[source] = {
            "rank1": rank1_hits(distances, truth),
            "tar_at_far_1e3": accepted_at_far(distances, truth),
        }
    by_size = {}
    for size in sorted(set(sizes.tolist())):
        of_size = sizes == size
        by_size[str(size)] = {
            "probes": int(of_size.sum()),
            "chance": float(of_size.sum() / people),
            **{
                source: {name: int(hit[of_size].sum()) for name, hit in both.items()}
                for source, both in hits.items()
            },
        }
    return {
        "embedder": result.embedder,
        "identities": people,
        "probes": len(truth),
        "impostor_pairs": len(truth) * (people - 1),
        "chance": len(truth) / people,
        **{
            source: {name: int(hit.sum()) for name, hit in both.items()}
            for source, both in hits.items()
        },
        "by_size": by_size,
        "failures": [{"image": f.image, "reason": f.reason} for f in result.failures],
    }
